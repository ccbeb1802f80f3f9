//! What can go wrong above, sorted by who must act.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

pub use super::failure::Failure;

/// Why a parent or upstream gave no answer.
///
/// `layer` is the name of the node or registry that failed. That is not always the one that was
/// asked: a wharf parent names the layer above it that failed, and its word is passed on. No text
/// holds a secret, a signed URL or anything else that only the upstream should know.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's matter: the upstream says that there is no such thing, or the lists `allow`
    /// and `deny` of the settings say that it is not to be asked.
    #[error("{layer} does not have it")]
    Absent {
        /// Who said so.
        layer: String,
    },

    /// Asked anonymously: the same as absent, for registries answer 401 for what does not exist.
    /// With credentials of ours: the operator must look at them.
    #[error("{layer} refuses access ({status}{}{})", if *anonymous { ", asked anonymously; if it is private, give username and password_file" } else if *status == 403 { " to the configured user, who may not have it there" } else { " to the configured user; look at its credentials" }, words.as_ref().map_or_else(String::new, |words| format!("; it says {words}")))]
    Denied {
        /// Who refuses.
        layer: String,
        /// 401 or 403; 400 from a token service.
        status: u16,
        /// Whether no credentials are configured.
        anonymous: bool,
        /// Its own words, shortened.
        words: Option<String>,
    },

    /// Passes with time: the upstream limits how often it is asked.
    #[error("{layer} says that it was asked too often")]
    TooMany {
        /// Who limits.
        layer: String,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },

    /// The caller's fault: the range asked for begins behind the end.
    #[error("{layer} has no such range of it")]
    RangeUnsatisfiable {
        /// Who said so.
        layer: String,
    },

    /// The upstream's fault: it answered with a status that says so.
    #[error("{}", if *told { message.clone() } else { format!("{layer} failed with status {status}: {message}") })]
    Failed {
        /// Who failed.
        layer: String,
        /// As it answered.
        status: u16,
        /// Its own words, shortened, or ours.
        message: String,
        /// Whether these are a whole sentence of a node above, to be passed on as it is.
        told: bool,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },

    /// Nobody's fault that can be told from here: no connection, or it broke before the answer.
    #[error("{layer} {}: {failure}", elsewhere.as_ref().map_or_else(|| "cannot be reached".to_owned(), |host| format!("sends us to {host}, which cannot be reached")))]
    Unreachable {
        /// Who was to be reached.
        layer: String,
        /// Host and port that it sent us to, if it was not its own that failed: storage, a token service.
        elsewhere: Option<String>,
        /// What stood in between.
        failure: Failure,
        /// The way there: name service, connection, TLS.
        source: Cause,
    },

    /// The upstream was too slow.
    #[error("{layer} did not answer within {after:?}")]
    TimedOut {
        /// Who was asked.
        layer: String,
        /// How long it was waited for.
        after: Duration,
    },

    /// The body broke off or stalled; what came so far is good.
    #[error("{layer} broke off in the middle of its answer")]
    Cut {
        /// Who broke off.
        layer: String,
        /// How.
        source: Cause,
    },

    /// An operator must act: the nodes' parents form a circle.
    #[error("{layer} finds that the request goes round in a circle; look at the parents of the nodes")]
    Loop {
        /// Who found out.
        layer: String,
    },

    /// A layer above got wrong bytes: what it passed on of them is no beginning of anything.
    #[error("{layer} sent wrong content; what came of it before must be thrown away")]
    Spoiled {
        /// Who sent them.
        layer: String,
    },

    /// An operator must act: the program that knows our credentials does not give them.
    /// Its own words may hold anything, and stand in the log only.
    #[error("the credentials for {layer} cannot be had: {program} failed; look at the log of this node")]
    Helper {
        /// Who was to be shown them.
        layer: String,
        /// Its name.
        program: String,
    },

    /// The upstream wants us to go where we do not: nothing was sent there.
    #[error("{layer} is not followed: {reason}")]
    Untrusted {
        /// Who sent us.
        layer: String,
        /// Where to, in words, with the setting that would allow it if there is one.
        reason: &'static str,
    },

    /// The upstream's fault: its answer is not what the protocol says.
    #[error("{layer} answered with {reason}")]
    Garbled {
        /// Who answered.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },

    /// An operator must act: a foreign registry cannot be asked for another registry's content.
    #[error(
        "{layer} is no wharf node and cannot be asked for {registry}; give [[upstream]] name = \"{registry}\" a url of its own"
    )]
    NeedsWharf {
        /// The foreign parent.
        layer: String,
        /// The registry that was wanted through it.
        registry: String,
    },

    /// Passes with time: as much is asked of the upstream already as the settings allow.
    #[error("{layer} asks its parent for as much at a time as `{limit}` allows, and that takes long")]
    Busy {
        /// This node.
        layer: String,
        /// The setting.
        limit: &'static str,
    },

    /// As the operator set it: this node asks nothing now that nobody waits for, or nothing at all (`[schedule]`).
    #[error("{layer} asks nothing of its parent now: {reason}")]
    Closed {
        /// This node.
        layer: String,
        /// What is closed, and until when.
        reason: String,
        /// How long that is.
        wait: Option<Duration>,
    },

    /// Passes with time: somebody waits for something else, and this does not.
    #[error("a transfer from {layer} made way for a pull")]
    MadeWay {
        /// Who was sending.
        layer: String,
    },

    /// The upstream's fault: what it sends is longer than such a thing may be.
    #[error("{layer} sent more than {limit_bytes} bytes")]
    TooLarge {
        /// Who sent.
        layer: String,
        /// What would have been accepted.
        limit_bytes: usize,
    },
}

/// What lies below an error; shared, for many may wait for one answer.
pub type Cause = Arc<dyn StdError + Send + Sync>;

impl Error {
    /// The name of the node or registry that failed.
    pub fn layer(&self) -> &str {
        match self {
            Self::Absent { layer }
            | Self::Denied { layer, .. }
            | Self::TooMany { layer, .. }
            | Self::RangeUnsatisfiable { layer }
            | Self::Failed { layer, .. }
            | Self::Unreachable { layer, .. }
            | Self::TimedOut { layer, .. }
            | Self::Cut { layer, .. }
            | Self::Loop { layer }
            | Self::Spoiled { layer }
            | Self::Helper { layer, .. }
            | Self::Untrusted { layer, .. }
            | Self::Garbled { layer, .. }
            | Self::NeedsWharf { layer, .. }
            | Self::Busy { layer, .. }
            | Self::MadeWay { layer }
            | Self::Closed { layer, .. }
            | Self::TooLarge { layer, .. } => layer,
        }
    }

    /// Whether nothing was asked, as the settings want it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Whether the upstream said itself, in a position to know, that there is no such thing.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Whether what was asked for is not for us, and it may exist: the account that we have may not have it, or we have none.
    /// That our login is refused is something else.
    pub fn is_forbidden(&self) -> bool {
        matches!(
            self,
            Self::Denied { status: 403, .. } | Self::Denied { anonymous: true, .. }
        )
    }

    /// How long the upstream wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same, wanting to be left alone for `wait`, if it is an error that can say so.
    pub(super) fn asking_for(mut self, wait: Duration) -> Self {
        if let Self::TooMany { retry_after, .. } | Self::Failed { retry_after, .. } = &mut self {
            *retry_after = Some(wait);
        }
        self
    }

    /// Whether the connection was there and broke before an answer: a moment's fault.
    pub(super) fn is_broken(&self) -> bool {
        let Self::Unreachable { source, .. } = self else {
            return false;
        };
        let error = source.downcast_ref::<reqwest::Error>();
        error.is_some_and(|error| !error.is_connect() && !error.is_timeout())
    }

    /// Whether the upstream failed in a way that says nothing of what it was asked for.
    pub(super) fn is_bad_moment(&self) -> bool {
        matches!(self, Self::Failed { status: 500..600, .. }) && !matches!(self, Self::Failed { status: 501 | 505, .. })
    }
}
