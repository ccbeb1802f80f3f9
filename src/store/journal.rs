//! The second copy of what exists nowhere else. A mirror has nothing of the kind, so far only the head
//! is written; its version is checked from the first day on.
//!
//! ```text
//! "wharfjnl" | version: u32 LE | crc32c of the 12 bytes before: u32 LE | records ...
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};

use super::Error;
use super::layout::{self, Layout};

const MAGIC: &[u8; 8] = b"wharfjnl";
pub(super) const VERSION: u32 = 1;
pub(super) const HEAD: usize = 16;

/// Checks the head of the journal, or writes one. A file with no valid head is set aside, where the disk takes that.
pub(super) fn open(layout: &Layout) -> Result<(), Error> {
    match check(layout) {
        Err(error) if layout::takes_nothing(&error) => {
            tracing::warn!(%error, "there is no journal on a disk that takes nothing");
            Ok(())
        }
        other => other,
    }
}

fn check(layout: &Layout) -> Result<(), Error> {
    let path = layout.journal();
    let mut head = Vec::new();
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        layout.set_aside(&path)?;
    }
    layout::make_ours(&path);
    let read = File::open(&path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    match read.map(|_| version(&head)) {
        Ok(Some(VERSION)) => return Ok(()),
        Ok(Some(found)) if found > VERSION => {
            return Err(Error::Newer {
                path,
                found: found.into(),
                known: VERSION.into(),
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        outcome => {
            let aside = layout.set_aside(&path)?;
            let error = outcome
                .err()
                .map_or_else(|| "no valid head".to_owned(), |error| error.to_string());
            tracing::error!(error, aside = %aside.display(), "the journal was damaged and is set aside");
        }
    }
    let mut file = layout::open_private(&path, true).map_err(Error::io("making", &path))?;
    file.write_all(&fresh_head())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("writing", &path))?;
    let folder = path.parent().unwrap_or(&path);
    layout::sync_folder(folder).map_err(Error::io("syncing", folder))
}

/// Room of the journal on disk, in bytes.
pub(super) fn room(layout: &Layout) -> u64 {
    fs::metadata(layout.journal()).map_or(0, |metadata| layout::room(&metadata))
}

fn fresh_head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend(crc32c::crc32c(&head).to_le_bytes());
    head
}

pub(super) fn version(head: &[u8]) -> Option<u32> {
    let (version, checksum) = head.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let expected = crc32c::crc32c(head.get(..12)?).to_le_bytes();
    (checksum == expected).then(|| u32::from_le_bytes(*version))
}
