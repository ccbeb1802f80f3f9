//! Where the plant's files lie.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::demo::Error;

/// A folder that is removed with all its content when dropped, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    /// The folder to keep, created if need be, or a temporary one.
    ///
    /// # Errors
    ///
    /// * [`Error::NotEmpty`]: what lies in the folder to keep would be mixed with the plant's.
    /// * [`Error::Io`]: it cannot be created.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Error> {
        let path = match keep {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("wharf-demo-{}", std::process::id())),
        };
        let io = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        fs::create_dir_all(&path).map_err(io("creating"))?;
        // The children are started in folders of their own, so what they are told must not depend on ours.
        let whole = path.canonicalize().map_err(io("finding"))?;
        if fs::read_dir(&whole).map_err(io("reading"))?.next().is_some() {
            return Err(Error::NotEmpty { path });
        }
        Ok(Self {
            path: whole,
            kept: keep.is_some(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder within.
    pub(super) fn within(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let made = fs::create_dir_all(&path);
        made.map_err(|source| Error::Io {
            action: "creating",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody is left to be told; a temporary folder is removed by the system at the latest.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_keep_is_kept_and_a_full_one_refused() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("kept");

        let folder = Folder::new(Some(&path)).unwrap();
        folder.within("cloud").unwrap();
        drop(folder);

        assert!(path.join("cloud").is_dir());
        assert!(matches!(Folder::new(Some(&path)), Err(Error::NotEmpty { .. })));
    }

    #[test]
    fn a_temporary_folder_goes_with_its_content() {
        let folder = Folder::new(None).unwrap();
        fs::write(folder.within("cloud").unwrap().join("log"), "x").unwrap();
        let path = folder.path().to_owned();

        drop(folder);

        assert!(!path.exists());
    }
}
