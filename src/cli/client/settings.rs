//! What is printed or written: files with a reason, and what to type next.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::client::Error;

/// All that one client needs to be told.
#[derive(Debug, Default)]
pub(super) struct Settings {
    files: Vec<File>,
    then: Vec<String>,
}

/// One file of a client's settings.
#[derive(Debug)]
struct File {
    /// Absolute: where the client looks for it.
    path: String,
    /// What to do with it, and what it does not do.
    notes: Vec<String>,
    body: String,
}

impl Settings {
    /// Adds a file that the client reads at `path`, which is absolute.
    pub(super) fn file(&mut self, path: impl Into<String>, notes: &[&str], body: impl Into<String>) {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        self.files.push(File {
            path: path.into(),
            notes,
            body: body.into(),
        });
    }

    /// Adds a line on what to type, or to know, once the files are in place.
    pub(super) fn then(&mut self, line: impl Into<String>) {
        self.then.push(line.into());
    }

    /// Writes every file below `root`, as if `root` were `/`, and returns the paths written.
    ///
    /// # Errors
    ///
    /// * [`Error::Exists`]: a file is there already and would be lost; nothing was written.
    /// * [`Error::Io`]: the disk refused; what was written before stays.
    pub(super) fn write(&self, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let paths: Vec<_> = self
            .files
            .iter()
            .map(|file| root.join(file.path.trim_start_matches('/')))
            .collect();
        if let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(Error::Exists { path: path.clone() });
        }
        for (file, path) in self.files.iter().zip(&paths) {
            let io = |action| {
                move |source| Error::Io {
                    action,
                    path: path.clone(),
                    source,
                }
            };
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(io("creating the folder of"))?;
            }
            let opened = fs::File::options().write(true).create_new(true).open(path);
            let mut opened = opened.map_err(io("creating"))?;
            opened.write_all(file.body.as_bytes()).map_err(io("writing"))?;
        }
        Ok(paths)
    }

    /// The body of the file at `path`.
    #[cfg(test)]
    pub(super) fn body(&self, path: &str) -> &str {
        let file = self.files.iter().find(|file| file.path == path);
        &file.unwrap_or_else(|| panic!("no {path} in {self}")).body
    }

    /// Where the files go, in the order in which they are printed.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "# ==> {}", file.path)?;
            for note in &file.notes {
                writeln!(f, "#     {note}")?;
            }
            writeln!(f, "{}\n", file.body.trim_end())?;
        }
        for line in &self.then {
            writeln!(f, "# {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_never_replaces_a_file_and_then_writes_none() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/second"), "the operator's").unwrap();
        let mut settings = Settings::default();
        settings.file("/etc/first", &[], "1\n");
        settings.file("/etc/second", &[], "2\n");

        let error = settings.write(root.path()).unwrap_err();

        assert!(
            matches!(&error, Error::Exists { path } if path.ends_with("etc/second")),
            "{error}"
        );
        assert!(!root.path().join("etc/first").exists());
        assert_eq!(
            fs::read_to_string(root.path().join("etc/second")).unwrap(),
            "the operator's"
        );
    }

    #[test]
    fn what_is_written_is_what_was_printed() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.file("/etc/a/b.toml", &["merge it"], "key = 1\n");
        settings.then("try it");

        let paths = settings.write(root.path()).unwrap();

        assert_eq!(paths, [root.path().join("etc/a/b.toml")]);
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "key = 1\n");
        assert_eq!(
            settings.to_string(),
            "# ==> /etc/a/b.toml\n#     merge it\nkey = 1\n\n# try it\n"
        );
    }
}
