use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fail::fail_point;

use super::index::Row;
use super::ledger::Trust;
use super::{Error, Shared, check, layout};
use crate::oci::Digest;

/// Committed content, open for reading. While it lives the file is not evicted.
pub struct Blob {
    pub(super) shared: Arc<Shared>,
    digest: Digest,
    /// Of the entry in the ledger.
    pub(super) serial: u64,
    /// When it was opened.
    pub(super) trust: Trust,
    file: File,
    size: u64,
    media_type: Option<Arc<str>>,
    /// Given up last, when the file is closed.
    _pin: Pin,
}

/// What counts a reader in the ledger.
pub(super) struct Pin {
    shared: Arc<Shared>,
    digest: Digest,
    serial: u64,
}

impl Blob {
    /// Opens what the ledger lists; a file that was removed under a running node is forgotten.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: it cannot be opened now, though nothing is known to be wrong with it.
    pub(super) fn open(shared: &Arc<Shared>, digest: &Digest) -> Result<Option<Self>, Error> {
        let (size, media_type, serial, trust) = {
            let mut ledger = shared.ledger.lock();
            let Some(entry) = ledger.pin(digest) else {
                return Ok(None);
            };
            (entry.size, entry.media_type.clone(), entry.serial, entry.trust)
        };
        let path = shared.layout.blob(digest);
        let refused = || {
            fail_point!("store.open", |number| {
                let number = number.and_then(|number| number.parse().ok()).unwrap_or(libc::EIO);
                Err(io::Error::from_raw_os_error(number))
            });
            Ok(())
        };
        // From here on the reader is counted, and is discounted when this is dropped.
        let opened = refused()
            .and_then(|()| layout::open_blob(&path))
            .and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        match opened {
            Ok((file, length)) => {
                let blob = Self {
                    shared: shared.clone(),
                    digest: *digest,
                    serial,
                    trust,
                    file,
                    size,
                    media_type,
                    _pin: Pin::new(shared, *digest, serial),
                };
                if length == size {
                    return Ok(Some(blob));
                }
                blob.isolate(&format!("it has {length} bytes and had {size}"))?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(%digest, "stored content was gone; it will be fetched again");
                let forgotten = {
                    let mut ledger = shared.ledger.lock();
                    let forgotten = ledger.forget_same(digest, serial);
                    ledger.unpin(digest, serial);
                    forgotten
                };
                if forgotten.is_some() {
                    shared.metrics.vanished.inc();
                    shared.index.write(Row::Gone(*digest));
                }
                Ok(None)
            }
            Err(error) if is_unreadable(&error) => {
                let outcome = check::isolate(shared, digest, serial, &error.to_string());
                shared.ledger.lock().unpin(digest, serial);
                outcome.map(|()| None)
            }
            // Nothing is known to be wrong with the file: too many are open, the system has a bad moment, or the operator
            // took the right to read it.
            Err(source) => {
                shared.ledger.lock().unpin(digest, serial);
                Err(Error::io("opening", &path)(source))
            }
        }
    }

    /// Wraps a file that was just committed; the ledger already counts this reader.
    pub(super) fn committed(
        shared: &Arc<Shared>,
        digest: Digest,
        serial: u64,
        file: File,
        size: u64,
        media_type: Option<Arc<str>>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            digest,
            serial,
            trust: Trust::Verified,
            file,
            size,
            media_type,
            _pin: Pin::new(shared, digest, serial),
        }
    }

    /// Of the content.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// As the content was first accepted. Manifests only.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    pub(super) fn bytes(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        fail_point!("store.read", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.into())
    }

    /// `length` bytes of it from `first` on, or up to the end. Blocks.
    ///
    /// # Errors
    ///
    /// The disk does not give them.
    pub fn piece(&self, first: u64, length: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        fail_point!("store.read", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
        self.file.read_exact_at(&mut bytes, first)?;
        Ok(bytes.into())
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        fail_point!("store.hash", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
        loop {
            match self.file.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.shared.layout.blob(&self.digest)
    }
}

/// Whether the next attempt would fail as well: the disk gives the file back no more, or something else is in its place.
fn is_unreadable(error: &io::Error) -> bool {
    const FAILED: [i32; 3] = [libc::EIO, libc::EUCLEAN, libc::EBADMSG];
    const OTHER: [i32; 3] = [libc::ELOOP, libc::ENXIO, libc::ENOTDIR];
    error
        .raw_os_error()
        .is_some_and(|number| FAILED.contains(&number) || OTHER.contains(&number))
}

impl AsFd for Blob {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Pin {
    /// Keeps this entry of the digest from being evicted, which is no use of it. `None` if it is gone, or another.
    pub(super) fn take(shared: &Arc<Shared>, digest: Digest, serial: u64) -> Option<Self> {
        let is_here = shared.ledger.lock().hold(&digest, serial);
        is_here.then(|| Self::new(shared, digest, serial))
    }

    /// For a reader that the ledger counts already.
    fn new(shared: &Arc<Shared>, digest: Digest, serial: u64) -> Self {
        Self {
            shared: shared.clone(),
            digest,
            serial,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.ledger.lock().unpin(&self.digest, self.serial);
    }
}
