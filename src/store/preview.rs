//! What can be known of a store's folder without opening it, while another process may hold it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::layout::{INDEX, JOURNAL};
use super::{Error, index, journal};

/// The refusal of a store that a newer wharf wrote; `None` also where there is none, or one that cannot be read now.
pub fn newer(path: &Path) -> Option<Error> {
    let (index, journal) = (path.join(INDEX), path.join(JOURNAL));
    let found = index_version(&index).filter(|found| *found > index::VERSION);
    if let Some(found) = found {
        return Some(Error::Newer {
            path: index,
            found,
            known: index::VERSION,
        });
    }
    let mut head = [0; journal::HEAD];
    File::open(&journal).ok()?.read_exact_at(&mut head, 0).ok()?;
    let found = journal::version(&head).filter(|found| *found > journal::VERSION)?;
    Some(Error::Newer {
        path: journal,
        found: found.into(),
        known: journal::VERSION.into(),
    })
}

/// `PRAGMA user_version` (SQLite's file format, 1.3.15: 32 bits, big endian, at offset 60).
fn index_version(path: &Path) -> Option<i64> {
    let mut head = [0; 64];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    let (magic, version) = (&head[..16], &head[60..]);
    let version = i32::from_be_bytes(version.try_into().ok()?);
    (magic == b"SQLite format 3\0").then_some(version.into())
}

/// Whether a store was ever opened at `path`.
pub fn is_at(path: &Path) -> bool {
    path.join(INDEX).exists() || path.join(JOURNAL).exists()
}
