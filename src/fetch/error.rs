use std::sync::Arc;

use crate::oci::{Digest, Registry};
use crate::parent;
use crate::store;
use crate::units::Span;

/// Why something could not be fetched. Cheap to clone, as all who wait for one flight get the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody's fault: it does not exist.
    #[error("{layer} does not have it")]
    Absent {
        /// Who said so.
        layer: String,
    },

    /// The operator's: no upstream is configured under this name.
    #[error("no upstream is configured for {registry}")]
    NoUpstream {
        /// The name.
        registry: Registry,
    },

    /// The parent's fault, or the way to it.
    #[error(transparent)]
    Parent(Arc<parent::Error>),

    /// The parent's fault: what it sent is not what was asked for. Nothing was kept.
    #[error("{layer} sent wrong content for {digest}: {reason}")]
    Corrupt {
        /// Who sent it.
        layer: String,
        /// What was asked for.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },

    /// The disk's fault, or the parent's: what an earlier transfer left and what came to it do not make the content.
    /// Nothing was kept.
    #[error(
        "what was left of {digest} by an earlier transfer and what came to it hash to {actual}; it is fetched anew"
    )]
    Damaged {
        /// What was asked for.
        digest: Digest,
        /// What it hashes to.
        actual: Digest,
    },

    /// The way to the parent, for too long: what lies here is not served any more without its word that this node may have
    /// it (`freshness.access_ttl`).
    #[error(
        "{layer} has not said for {ttl} that this node may have it, and that is how long its word counts; {reason}"
    )]
    Unvouched {
        /// Who was to say so.
        layer: String,
        /// How long its word counts.
        ttl: Span,
        /// Why it does not say so now.
        reason: String,
    },

    /// The parent's fault, or the way to it: it ended before its end, again and again.
    #[error("{layer} ended after {bytes} bytes")]
    Ended {
        /// Who ended.
        layer: String,
        /// How many bytes are here.
        bytes: u64,
    },

    /// The parent's fault: a list that is none, or one without end.
    #[error("{layer} sent something else than {expected}")]
    Nonsense {
        /// Who sent it.
        layer: String,
        /// What was asked for.
        expected: &'static str,
    },

    /// The parent's, or the operator's, if it may have so much: it is beyond a limit of the settings.
    #[error("{layer} has {what} with more {} than limits.{} allows", limit.of(), limit.as_str())]
    Beyond {
        /// Who sent it.
        layer: String,
        /// A manifest, a blob, a list.
        what: &'static str,
        /// Which limit.
        limit: Limit,
    },

    /// The disk's fault, where nothing could be done without it.
    #[error(transparent)]
    Store(Arc<store::Error>),

    /// The client's: it took so long for content that is not kept that the others could not wait for it.
    #[error("the client was too slow for content that could not be kept")]
    TooSlow,

    /// A mistake in this program: the work stopped without an answer.
    #[error("the work for this answer stopped unexpectedly; ask again")]
    Interrupted,
}

/// A limit of the settings; the closed set of the label `limit`, as far as fetching goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Bytes of a manifest.
    Manifest,
    /// Levels of a manifest.
    JsonDepth,
    /// Entries of a manifest.
    Descriptors,
    /// Bytes of a blob.
    Blob,
    /// Bytes of a list.
    List,
    /// Pages of a list.
    ListPages,
    /// Fruitless attempts.
    Attempts,
}

impl Limit {
    pub(super) const ALL: [Self; 7] = [
        Self::Manifest,
        Self::JsonDepth,
        Self::Descriptors,
        Self::Blob,
        Self::List,
        Self::ListPages,
        Self::Attempts,
    ];

    /// What it counts.
    fn of(self) -> &'static str {
        match self {
            Self::Manifest | Self::Blob | Self::List => "bytes",
            Self::JsonDepth => "levels of JSON",
            Self::Descriptors => "entries",
            Self::ListPages => "pages",
            Self::Attempts => "interruptions",
        }
    }

    /// As the settings and the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::JsonDepth => "json_depth",
            Self::Descriptors => "descriptors",
            Self::Blob => "blob",
            Self::List => "list",
            Self::ListPages => "list_pages",
            Self::Attempts => "attempts",
        }
    }
}

impl Error {
    /// Whether old content may be served instead: anything but a definite "does not exist".
    pub fn allows_stale(&self) -> bool {
        !matches!(self, Self::Absent { .. } | Self::NoUpstream { .. })
    }

    /// Whether the parent answered that this is not for us.
    pub(super) fn is_refusal(&self) -> bool {
        use parent::Error::{Denied, Failed};
        matches!(self, Self::Parent(error) if matches!(**error, Denied { .. } | Failed { status: 400..500, .. }))
    }

    /// Whether it was broken off for a pull that somebody waits for.
    pub(super) fn made_way(&self) -> bool {
        matches!(self, Self::Parent(error) if matches!(**error, parent::Error::MadeWay { .. }))
    }

    /// Whether nothing was asked, as the settings want it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Parent(error) if error.is_closed())
    }

    /// Whether time ran out, here or above.
    pub(super) fn is_late(&self) -> bool {
        use parent::Error::{Busy, Failed, TimedOut};
        let Self::Parent(error) = self else { return false };
        matches!(**error, Failed { status: 504, .. } | TimedOut { .. } | Busy { .. })
    }

    /// Whether the parent answered, at length perhaps, with what is good for nothing, and will do so again.
    pub(super) fn is_useless(&self) -> bool {
        match self {
            Self::Nonsense { .. } | Self::Beyond { .. } => true,
            Self::Parent(error) => matches!(**error, parent::Error::TooLarge { .. }),
            _ => false,
        }
    }
}

impl From<parent::Error> for Error {
    fn from(error: parent::Error) -> Self {
        match error {
            parent::Error::Absent { layer } => Self::Absent { layer },
            other => Self::Parent(Arc::new(other)),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Whether another attempt may bring the rest: the way was cut, or the parent had a bad moment.
pub(super) fn is_passing(error: &parent::Error) -> bool {
    use parent::Error::{Busy, Cut, Denied, Failed, TimedOut, TooMany, Unreachable};
    matches!(
        error,
        Busy { .. }
            | Cut { .. }
            | Denied { .. }
            | Failed { .. }
            | TimedOut { .. }
            | TooMany { .. }
            | Unreachable { .. }
    )
}

/// Whether the parent knows no HEAD.
pub(super) fn is_method_refused(error: &parent::Error) -> bool {
    matches!(error, parent::Error::Failed { status: 405 | 501, .. })
}

/// Whether the parent, or who stands in between, may have stumbled over being asked for a part.
///
/// A refusal of access counts at the beginning only: in the middle it has other reasons, as what was granted ran out.
pub(super) fn mangles_range(error: &parent::Error, is_beginning: bool) -> bool {
    use parent::Error::{Denied, Failed, Garbled};
    match error {
        Garbled { .. } => true,
        Denied { .. } => is_beginning,
        Failed { status, .. } => matches!(status, 300..=499 | 501),
        _ => false,
    }
}
