//! Claims, and whether they hold.

use crate::cli::demo::Error;
use crate::cli::demo::pull::Pull;
use crate::cli::demo::{show, witness};

/// What was claimed so far.
#[derive(Debug, Default)]
pub(super) struct Proof {
    broken: Vec<String>,
    held: usize,
}

impl Proof {
    /// Notes and shows a claim, with what was seen.
    pub(super) fn claim(&mut self, claim: &str, holds: bool, seen: &str) {
        show::claim(claim, holds, seen);
        if holds {
            self.held += 1;
        } else {
            self.broken.push(format!("{claim} ({seen})"));
        }
    }

    /// Claims that what `pull` brought is what `wanted` names, by the witness's digests.
    ///
    /// `wanted` is in order of the files pulled.
    pub(super) fn digests(&mut self, pull: &Pull, wanted: &[String]) -> Result<(), Error> {
        let files = pull.objects.iter().filter_map(|object| object.file.as_deref());
        let found = files.map(witness::sha256).collect::<Result<Vec<_>, _>>()?;
        let agree = found.iter().filter(|hex| wanted.contains(hex)).count();
        let seen = format!("{agree} of {}", wanted.len());
        self.claim("sha256sum finds the digests that were pushed", found == wanted, &seen);
        Ok(())
    }

    /// Ends the proof.
    ///
    /// # Errors
    ///
    /// [`Error::Unproved`] with every claim that did not hold.
    pub(super) fn conclude(self) -> Result<usize, Error> {
        if self.broken.is_empty() {
            Ok(self.held)
        } else {
            Err(Error::Unproved { claims: self.broken })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::cli::demo::pull::Object;
    use crate::oci::Digest;

    fn pulled(path: &Path, content: &str) -> Pull {
        std::fs::write(path, content).unwrap();
        let object = Object {
            what: "layer",
            // What is said of it must not matter.
            digest: Digest::of(b"what was pushed"),
            file: Some(path.to_owned()),
            bytes: 0,
            first_byte: Duration::ZERO,
            whole: Duration::ZERO,
            outcomes: Vec::new(),
            warning: None,
        };
        Pull { objects: vec![object] }
    }

    #[test]
    fn the_digests_are_those_of_the_files_and_not_of_what_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = [Digest::of(b"what was pushed").hex()];
        let path = folder.path().join("layer");

        let mut proof = Proof::default();
        proof.digests(&pulled(&path, "what was pushed"), &wanted).unwrap();
        assert_eq!(proof.conclude().unwrap(), 1);

        let mut proof = Proof::default();
        proof.digests(&pulled(&path, "something else"), &wanted).unwrap();
        assert!(matches!(proof.conclude(), Err(Error::Unproved { .. })));
    }

    #[test]
    fn one_broken_claim_is_named_and_breaks_the_proof() {
        let mut proof = Proof::default();
        proof.claim("the sun rises", true, "today");
        proof.claim("the cloud sent the layer once", false, "2 GET in its log");

        let error = proof.conclude().unwrap_err();

        assert_eq!(
            error.to_string(),
            "not proved: the cloud sent the layer once (2 GET in its log)"
        );
    }
}
