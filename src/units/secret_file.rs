//! A file that holds a secret, and who else may read it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::open_file;

/// What the file says. On failure, what is wrong with it, in words that follow its key.
///
/// A file that others may read is refused: whoever has an account on this machine has the password. Container
/// platforms mount secrets like that, where nobody else has an account; those are known by lying in memory, or by being
/// read-only for everybody.
///
/// # Errors
///
/// A text: the file, the reason and the remedy.
pub fn read_secret_file(path: &Path) -> Result<String, String> {
    let unreadable = |error| {
        format!(
            "{} cannot be read: {error}; name a file that this user may read",
            path.display()
        )
    };
    let mut file = open_file(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 && mode & 0o222 != 0 && !is_in_memory(&file) {
        return Err(format!(
            "{} may be read by others than its owner (mode {mode:03o}); run chmod 600 on it; only a secret that a container platform mounts, read-only for all (444), may be open to others",
            path.display()
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|statistics| statistics.filesystem_type() == TMPFS_MAGIC)
}
