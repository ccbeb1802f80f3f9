//! Hashing what lies here, and what becomes of what fails.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::index::{Row, now};
use super::ledger::{Trust, Victim};
use super::{Blob, Error, Shared};
use crate::oci::{Algorithm, Digest, Hasher};

impl Blob {
    /// Whether this process has hashed the bytes: it wrote them, or read them once.
    pub fn is_verified(&self) -> bool {
        self.trust == Trust::Verified
    }

    /// Hashes the file and tells `progress` the bytes that were read so far. Blocks.
    ///
    /// # Errors
    ///
    /// * [`Error::DigestMismatch`], [`Error::Io`]: it is damaged, or cannot be read. It goes to quarantine;
    ///   the content counts as gone, unless the disk does not move it.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), Error> {
        self.judge(self.hash(&mut progress))
    }

    fn judge(&self, outcome: io::Result<Digest>) -> Result<(), Error> {
        match outcome {
            Ok(actual) if actual == *self.digest() => {
                self.trusted(Trust::Verified);
                Ok(())
            }
            Ok(actual) => {
                self.isolate(&format!("it hashes to {actual}"))?;
                Err(Error::DigestMismatch {
                    actual,
                    announced: *self.digest(),
                })
            }
            Err(source) => {
                self.isolate(&source.to_string())?;
                Err(Error::io("reading", &self.path())(source))
            }
        }
    }

    /// The whole content, hashed. Blocks; meant for documents.
    ///
    /// # Errors
    ///
    /// As [`Blob::verify`].
    pub fn checked_bytes(&self) -> Result<Bytes, Error> {
        let mut bytes = Bytes::new();
        let read = self.bytes().map(|read| bytes = read);
        self.judge(read.map(|()| Digest::of_with(self.digest().algorithm(), &bytes)))?;
        Ok(bytes)
    }

    /// Has the content hashed before it is trusted again: the disk failed while it was read.
    pub fn doubt(&self) {
        self.trusted(Trust::Unverified);
    }

    /// Takes damaged content out of the store; it will be fetched again.
    pub(super) fn isolate(&self, reason: &str) -> Result<(), Error> {
        isolate(&self.shared, self.digest(), self.serial, reason)
    }

    fn trusted(&self, trust: Trust) {
        self.shared.ledger.lock().set_trust(self.digest(), self.serial, trust);
    }

    fn hash(&self, progress: &mut impl FnMut(u64)) -> io::Result<Digest> {
        digest_of(self.digest().algorithm(), |buffer, position| {
            let read = self.read_at(buffer, position)?;
            if read > 0 {
                progress(position + read as u64);
            }
            Ok(read)
        })
    }
}

/// The digest of all that `read` gives from one position after the other, until it gives nothing.
pub(super) fn digest_of(
    algorithm: Algorithm,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        match read(&mut buffer, position) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Moves the entry's file to quarantine, unless the entry is another one by now.
///
/// # Errors
///
/// [`Error::Io`]: the disk does not move it either. The entry stays, to be hashed before it is trusted again: a disk that
/// fails for a moment says nothing of the file. If that goes on, it is taken for not being here for a while.
pub(super) fn isolate(shared: &Arc<Shared>, digest: &Digest, serial: u64, reason: &str) -> Result<(), Error> {
    // Nobody begins to write its successor before it has left.
    let Some(room) = shared.ledger.lock().condemn(digest, serial) else {
        return Ok(());
    };
    shared.hot.forget(digest);
    let moved = shared.layout.isolate(digest);
    let mut ledger = shared.ledger.lock();
    let outcome = match moved {
        Err(error) if !is_gone(&error) => {
            ledger.shun(digest, serial, now());
            tracing::warn!(%digest, reason, %error, "stored content cannot be read, nor moved to quarantine; it stays");
            Err(error)
        }
        moved => {
            tracing::warn!(%digest, reason, "stored content is damaged; it goes to quarantine and will be fetched again");
            shared.metrics.quarantined.inc();
            match moved {
                Ok(path) => ledger.quarantine(digest, serial, path, room),
                Err(_) => drop(ledger.forget_same(digest, serial)),
            }
            shared.index.write(Row::Gone(*digest));
            Ok(())
        }
    };
    ledger.left(&Victim::Blob(*digest));
    shared.left.notify_all();
    outcome
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
