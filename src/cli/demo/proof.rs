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
