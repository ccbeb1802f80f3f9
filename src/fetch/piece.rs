use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;

/// A file that can be read from; its room is held as long as this lives.
pub trait Readable: AsFd + Send + Sync {}

impl<T: AsFd + Send + Sync> Readable for T {}

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
