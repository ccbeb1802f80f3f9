use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use crate::store::{Blob, Spool};

/// A file that can be read from; its room is held as long as this lives.
pub trait Readable: AsFd + Send + Sync {
    /// The disk failed while it was read: it is hashed before it is trusted again.
    fn doubt(&self);
}

impl Readable for Blob {
    fn doubt(&self) {
        Self::doubt(self);
    }
}

impl Readable for Spool {
    fn doubt(&self) {
        Self::doubt(self);
    }
}

/// The next bytes of an answer, wherever they are.
pub enum Piece {
    /// In a file, at these offsets.
    File(Arc<dyn Readable>, Range<u64>),
    /// In memory.
    Bytes(Bytes),
}

impl Piece {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(_, range) => range.end - range.start,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The bytes of a short range.
pub(super) async fn read(file: Arc<dyn Readable>, range: Range<u64>) -> Result<Vec<u8>, Error> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            let offset = i64::try_from(range.start + filled as u64).ok()?;
            match nix::sys::uio::pread(file.as_fd(), &mut bytes[filled..], offset) {
                Ok(0) => return None,
                Ok(read) => filled += read,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
        Some(bytes)
    });
    reading.await.ok().flatten().ok_or(Error::Interrupted)
}
