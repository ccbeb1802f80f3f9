use crate::oci::{Digest, Registry, Tag};
use crate::push::Broken;
use crate::units::Size;
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
        "{layer}, the parent, takes no pushes, so neither does this node; push to the registry at the top, or make {layer} a registry as well"
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
    #[error(
        "the part was announced as {announced} bytes and {came} came; ask how many bytes are here, and go on there"
    )]
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

    /// Too much at once of one caller. Passes with time; others go on.
    #[error("{} has {most} uploads open, which is what push.uploads_each allows; finish or cancel some", whose(.principal))]
    TooManyOfOne {
        /// Who; empty for all who do not log in.
        principal: String,
        /// As many as may be.
        most: usize,
    },

    /// The caller's, or the operator's: it is larger than the settings allow.
    #[error("{} of more than {most} bytes, which is what {} allows", limit.what(), limit.setting())]
    TooLarge {
        /// Bytes of a blob or of a manifest.
        limit: Limit,
        /// As many as may be.
        most: u64,
    },

    /// The caller's, or the operator's: a manifest has more in it than the settings allow.
    #[error("no valid manifest: more than {most} {}, which is what {} allows", limit.what(), limit.setting())]
    TooMuch {
        /// Levels or entries.
        limit: Limit,
        /// As many as may be.
        most: usize,
    },

    /// The caller's: it is no manifest that clients would all read alike.
    #[error("no valid manifest: {0}")]
    Manifest(String),

    /// The caller's: the tag is there, and whoever pushes may not move it, or nobody may.
    #[error("{tag} is there and names {digest}; {}", if *immutable {
        "nobody moves or deletes it, as push.immutable_tags says: push under another tag"
    } else {
        "to move it takes content/overwrite: push under another tag, or ask the operator of this node for it"
    })]
    TagTaken {
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
        /// Nobody may.
        immutable: bool,
    },

    /// The caller's: the manifest needs what the repository does not have.
    #[error("the manifest needs what is not in this repository: {}; push it first", list(.0))]
    Missing(Vec<Digest>),

    /// The client broke off.
    #[error(transparent)]
    Broken(#[from] Broken),

    /// What is to go could not be found.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),

    /// Uploads under way hold as much as they may. Passes with time, or the operator allows more.
    #[error("{0}; finish or cancel some, or allow more by storage.capacity")]
    NoRoomForUploads(store::Error),

    /// All that could make room exists nowhere else. The operator's, who may allow more.
    #[error(
        "{0}; what was pushed here is not thrown away: allow more by storage.capacity, or delete some and have `wharf cache gc --unused 10m` collect what nothing needs any more"
    )]
    NoRoom(store::Error),

    /// So much waits for the parent that no more is taken in. Passes with time, or the operator allows more.
    #[error(
        "{} of pushes wait for the parent, of the {most} that queue.capacity allows; push again when they are on their way (`wharf queue list`), or allow more",
        Size::of(*owed)
    )]
    QueueFull {
        /// Bytes.
        owed: u64,
        /// As many as may be.
        most: Size,
    },

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
            error @ store::Error::Uploads { .. } => Self::NoRoomForUploads(error),
            other => Self::Store(other),
        }
    }
}

/// A limit of the settings; the closed set of the label `limit`, as far as pushing goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Uploads at a time.
    Uploads,
    /// Those of one who pushes.
    UploadsEach,
    /// Bytes that uploads hold.
    UploadRoom,
    /// Bytes of a blob.
    Blob,
    /// Bytes of a manifest.
    Manifest,
    /// Levels of a manifest.
    JsonDepth,
    /// Entries of a manifest.
    Descriptors,
    /// Bytes that wait for the parent.
    Queue,
}

impl Limit {
    pub(super) const ALL: [Self; 8] = [
        Self::Uploads,
        Self::UploadsEach,
        Self::UploadRoom,
        Self::Blob,
        Self::Manifest,
        Self::JsonDepth,
        Self::Descriptors,
        Self::Queue,
    ];

    /// Where it is set.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Uploads => "push.uploads",
            Self::UploadsEach => "push.uploads_each",
            Self::UploadRoom => "storage.capacity",
            Self::Blob => "push.blob",
            Self::Manifest => "limits.manifest",
            Self::JsonDepth => "limits.json_depth",
            Self::Descriptors => "limits.descriptors",
            Self::Queue => "queue.capacity",
        }
    }

    /// What it counts.
    fn what(self) -> &'static str {
        match self {
            Self::Uploads => "uploads",
            Self::UploadsEach => "uploads of one who pushes",
            Self::UploadRoom => "bytes of uploads",
            Self::Blob => "a blob",
            Self::Manifest => "a manifest",
            Self::JsonDepth => "levels of JSON",
            Self::Descriptors => "entries",
            Self::Queue => "bytes that wait for the parent",
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Uploads => "uploads",
            Self::UploadsEach => "uploads_each",
            Self::UploadRoom => "upload_room",
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::JsonDepth => "json_depth",
            Self::Descriptors => "descriptors",
            Self::Queue => "queue",
        }
    }
}

impl Error {
    /// What was reached, if it was a limit.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyUploads { .. } => Some(Limit::Uploads),
            Self::TooManyOfOne { .. } => Some(Limit::UploadsEach),
            Self::NoRoomForUploads(_) => Some(Limit::UploadRoom),
            Self::QueueFull { .. } => Some(Limit::Queue),
            Self::TooLarge { limit, .. } | Self::TooMuch { limit, .. } => Some(*limit),
            _ => None,
        }
    }
}

/// Who pushes, in words.
fn whose(principal: &str) -> &str {
    match principal {
        "" => "whoever does not log in",
        name => name,
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
