use crate::oci::{Digest, Registry};
use crate::push::Broken;
use crate::{fetch, store};

/// Why nothing was taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's: the names of this registry are pushed elsewhere.
    #[error("this node takes no pushes for {registry}; push to that registry itself")]
    Elsewhere {
        /// Whose name it is.
        registry: Registry,
    },

    /// The operator's: what is pushed here could not be passed on.
    #[error(
        "{layer}, the parent, takes no pushes, so neither does this node; push to the registry at the top, or make it a registry too"
    )]
    Closed {
        /// The parent.
        layer: String,
    },

    /// The caller's: it ended, took too long, or is somebody else's.
    #[error("no such upload; it is over, was cancelled, or took too long: begin another")]
    UnknownUpload,

    /// The caller's: two requests write one upload. The other goes on.
    #[error("another request is writing this upload; wait for its answer")]
    Busy,

    /// The caller's: the part does not begin where the last one ended.
    #[error("the part does not follow the {size} bytes that are here; go on at byte {size}")]
    OutOfOrder {
        /// Bytes that are here.
        size: u64,
    },

    /// The caller's: it brought other bytes than it announced.
    #[error("the part was announced as {announced} bytes and {came} came; send it again")]
    Length {
        /// As its range says.
        announced: u64,
        /// Bytes.
        came: u64,
    },

    /// The caller's: `Content-Range` of a part is `<first>-<last>`.
    #[error("Content-Range is not of the form <first>-<last>, in bytes")]
    Range,

    /// The caller's: the bytes are something else. Nothing was kept.
    #[error("the bytes hash to {actual}, not to the announced {announced}; push them again")]
    Digest {
        /// What came.
        actual: Digest,
        /// What was announced.
        announced: Digest,
    },

    /// Too much at once. Passes with time.
    #[error("{most} uploads are open, which is what push.uploads allows; finish or cancel some")]
    TooManyUploads {
        /// As many as may be.
        most: usize,
    },

    /// The caller's, or the operator's: it is larger than the settings allow.
    #[error("{what} of more than {most} bytes, which is what {setting} allows")]
    TooLarge {
        /// A blob, or a manifest.
        what: &'static str,
        /// Bytes.
        most: u64,
        /// Where it is set.
        setting: &'static str,
    },

    /// The caller's: it is no manifest that clients would all read alike.
    #[error("no valid manifest: {0}")]
    Manifest(String),

    /// The caller's: the manifest needs what the repository does not have.
    #[error("the manifest needs what is not in this repository: {}; push it first", list(.0))]
    Missing(Vec<Digest>),

    /// The client broke off.
    #[error(transparent)]
    Broken(#[from] Broken),

    /// What is to go could not be found.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),

    /// All that could make room exists nowhere else. The operator's, who may allow more.
    #[error("{0}; what was pushed here is not thrown away: allow more by storage.capacity, or delete some")]
    NoRoom(store::Error),

    /// The disk.
    #[error(transparent)]
    Store(store::Error),

    /// A mistake in this program.
    #[error("the work was interrupted; ask again")]
    Interrupted,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::DigestMismatch { actual, announced } => Self::Digest { actual, announced },
            store::Error::Gone { digest } => Self::Missing(vec![digest]),
            error @ (store::Error::Full { .. } | store::Error::Crowded { .. }) => Self::NoRoom(error),
            other => Self::Store(other),
        }
    }
}

/// A few of them.
fn list(digests: &[Digest]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = digests.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match digests.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}
