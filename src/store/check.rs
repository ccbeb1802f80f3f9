//! Hashing what lies here, and what becomes of what fails.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fail::fail_point;

use super::index::Row;
use super::ledger::{Trust, Victim};
use super::{Blob, Error, Shared};
use crate::oci::{Digest, Hasher};

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
    ///   the content counts as gone.
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
                self.isolate(&format!("it hashes to {actual}"));
                Err(Error::DigestMismatch {
                    actual,
                    announced: *self.digest(),
                })
            }
            Err(source) => {
                self.isolate(&source.to_string());
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
    pub(super) fn isolate(&self, reason: &str) {
        isolate(&self.shared, self.digest(), self.serial, reason);
    }

    fn trusted(&self, trust: Trust) {
        self.shared.ledger.lock().set_trust(self.digest(), self.serial, trust);
    }

    fn hash(&self, progress: &mut impl FnMut(u64)) -> io::Result<Digest> {
        let mut hasher = Hasher::new(self.digest().algorithm());
        let mut buffer = vec![0; 1 << 20];
        let mut position = 0;
        loop {
            let read = self.read_at(&mut buffer, position)?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..read]);
            position += read as u64;
            progress(position);
        }
    }
}

/// Moves the entry's file to quarantine, unless the entry is another one by now.
pub(super) fn isolate(shared: &Arc<Shared>, digest: &Digest, serial: u64, reason: &str) {
    // Nobody begins to write its successor before it has left.
    let Some(entry) = shared.ledger.lock().condemn(digest, serial) else {
        return;
    };
    tracing::warn!(%digest, reason, "stored content is damaged; it goes to quarantine and will be fetched again");
    shared.metrics.quarantined.inc();
    shared.hot.forget(digest);
    shared.index.write(Row::Gone(*digest));
    fail_point!("store.isolate");
    let moved = shared.layout.isolate(digest);
    let mut ledger = shared.ledger.lock();
    match moved {
        Ok(path) => ledger.keep_scrap(path, entry.room),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            ledger.count_stuck(entry.room);
            tracing::warn!(%digest, %error, "damaged content could not be moved; it counts against the budget until a restart");
        }
    }
    ledger.left(&Victim::Blob(*digest));
    shared.left.notify_all();
}
