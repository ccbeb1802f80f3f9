use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens what settings name. A pipe or a folder in its place is refused at once: opening a pipe would wait for a writer.
///
/// # Errors
///
/// Those of the system; [`io::ErrorKind::InvalidInput`] for what is no file.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

/// All of it.
///
/// # Errors
///
/// As [`open_file`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_folder_in_the_place_of_a_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();

        for path in [pipe.as_path(), folder.path()] {
            assert_eq!(
                read_file(path).unwrap_err().to_string(),
                "it is no file",
                "{}",
                path.display()
            );
        }
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert_eq!(read_file(&folder.path().join("file")).unwrap(), b"x");
    }
}
