use std::io;
use std::path::{Path, PathBuf};

use crate::oci::{Digest, Tag};

/// Why the store could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sender's fault: what arrived is not what was announced. Nothing was kept.
    #[error("the bytes hash to {actual}, not to the announced {announced}")]
    DigestMismatch {
        /// What the bytes hash to.
        actual: Digest,
        /// What was asked for.
        announced: Digest,
    },

    /// Every byte of the budget is held by readers or writers. Passes with time: retry.
    #[error("no room for {wanted} more bytes: {free} of {capacity} are free and nothing can be evicted")]
    Full {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes free.
        free: u64,
        /// Bytes of the whole budget.
        capacity: u64,
    },

    /// Others fill the disk, and nothing that could leave makes room. Passes with time: retry.
    #[error("no room for {wanted} more bytes on the disk: {free} are free, of which storage.keep_free keeps {kept}")]
    Crowded {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes free on the file system.
        free: u64,
        /// Bytes of it that are to stay free.
        kept: u64,
    },

    /// Uploads under way hold as much as they may. Passes with time, or is the operator's, who may allow more.
    #[error("uploads under way may take {most} bytes together, half of storage.capacity, and this one would take more")]
    Uploads {
        /// Bytes.
        most: u64,
    },

    /// The sender's fault: it does not say how much it sends, and sends a lot.
    #[error("content that does not announce its size may take {most} bytes")]
    Unannounced {
        /// Bytes.
        most: u64,
    },

    /// Another writer has it under way. Passes with time; what it writes is the same.
    #[error("{digest} is being written already")]
    Busy {
        /// The content.
        digest: Digest,
    },

    /// The content that a promise is to be made of lies here no more.
    #[error("{digest} is not here")]
    Gone {
        /// The content.
        digest: Digest,
    },

    /// The sender's: the tag is there, and was to stay what it is.
    #[error("{tag} names {digest}")]
    TagTaken {
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },

    /// The operator's: two processes were given one folder.
    #[error("another wharf holds {}; stop it, or give this one a storage.path of its own", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },

    /// The operator's: what is named as the store's folder is something else. Nothing was touched.
    #[error("storage.path {} is not a folder; name one, or one that does not exist yet", path.display())]
    NotAFolder {
        /// What is there.
        path: PathBuf,
    },

    /// The operator's: an older wharf was started on a newer one's folder. Nothing was touched.
    #[error("{} has format {found}, and this wharf knows formats up to {known}; start the newer wharf again, or choose another storage.path", path.display())]
    Newer {
        /// The file that is newer.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },

    /// The disk's fault, or the operator's wish: the file system takes nothing. What is here is served.
    #[error("the file system of {} is read-only", path.display())]
    ReadOnly {
        /// The store's folder.
        path: PathBuf,
    },

    /// The disk's fault: an operator must look at `path`.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a gerund.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Whether the disk has no room.
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// Adds to an I/O error what was being done and to which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
