//! The digest of a file by a program that is not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::demo::Error;

pub(super) const PROGRAM: &str = "sha256sum";

/// The SHA-256 of the file at `path` in hexadecimal, as `sha256sum` says.
///
/// # Errors
///
/// * [`Error::Missing`]: there is no such program.
/// * [`Error::Unexpected`]: it failed.
pub(super) fn sha256(path: &Path) -> Result<String, Error> {
    summoned()?;
    let failed = |reason| Error::Unexpected {
        what: format!("{PROGRAM} of {}", path.display()),
        reason,
    };
    let output = Command::new(PROGRAM).arg("--binary").arg(path).output();
    let output = output.map_err(|source| Error::Io {
        action: "starting",
        path: PROGRAM.into(),
        source,
    })?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // It marks a line with a backslash when it had to escape the file's name.
    let hex: String = text
        .trim_start_matches('\\')
        .chars()
        .take_while(char::is_ascii_hexdigit)
        .collect();
    if hex.len() == 64 {
        Ok(hex)
    } else {
        Err(failed(format!("it said {text:?}")))
    }
}

/// Whether there is a witness at all.
///
/// # Errors
///
/// [`Error::Missing`].
pub(super) fn summoned() -> Result<(), Error> {
    if is_in_path(PROGRAM) {
        return Ok(());
    }
    Err(Error::Missing {
        program: PROGRAM,
        purpose: "it is the witness of the digests",
        package: "coreutils",
    })
}

/// Whether a program of this name can be started.
fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder: PathBuf| folder.join(program))
        .any(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn the_witness_agrees_with_us_about_a_file_with_an_awkward_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a\\b\nc");
        std::fs::write(&path, "what was pulled").unwrap();

        let hex = sha256(&path).unwrap();

        assert_eq!(hex, Digest::of(b"what was pulled").hex());
        assert!(sha256(&folder.path().join("absent")).is_err());
    }
}
