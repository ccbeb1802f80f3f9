//! Why a debt was not paid, sorted by what is to be done about it.

use std::time::Duration;

use super::state::Failure;
use crate::oci::Digest;
use crate::{parent, store};

/// What keeps a debt from being paid.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No window is open, which says nothing of the parent.
    Closed(String),
    /// The way is not open, or the parent has a bad moment. Passes.
    Moment {
        words: String,
        /// When the parent wants to be asked again.
        wish: Option<Duration>,
        /// What is to pass.
        failure: Failure,
    },
    /// The parent does not take this one thing. An operator's.
    Refused(String),
    /// Our account may not push to this repository. An operator's; tried again now and then.
    Denied(String),
    /// Our account is not let in, or the parent takes no pushes at all. An operator's; tried again now and then.
    Shut(String),
    /// What is to be sent is here no more. An operator's.
    Lost(Digest),
}

impl Trouble {
    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Closed(words)
            | Self::Moment { words, .. }
            | Self::Refused(words)
            | Self::Denied(words)
            | Self::Shut(words) => words.clone(),
            Self::Lost(digest) => format!(
                "{digest} is here no more and the parent does not have it; push it again, or drop this with `wharf queue drop`"
            ),
        }
    }

    /// The closed set of the label `outcome`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Moment { .. } => "moment",
            Self::Refused(_) => "refused",
            Self::Denied(_) => "denied",
            Self::Shut(_) => "shut",
            Self::Lost(_) => "lost",
        }
    }
}

impl From<parent::Error> for Trouble {
    fn from(error: parent::Error) -> Self {
        use parent::Error as E;
        // It says enough by itself; what lies below is for the log.
        let words = error.to_string();
        match &error {
            E::Closed { .. } => Self::Closed(words),
            E::Denied { status: 403, .. } => Self::Denied(words),
            E::Denied { .. } | E::Helper { .. } | E::Untrusted { .. } | E::NeedsWharf { .. } | E::Loop { .. } => {
                Self::Shut(words)
            }
            // A redirect that would turn a push into something else, too.
            E::Failed {
                status: 300..=399 | 405 | 501,
                ..
            } => Self::Shut(words),
            // These are said of a moment.
            E::Failed {
                status: 408 | 409 | 423 | 425,
                ..
            } => Self::moment(&error, words),
            E::Failed { status: 400..=499, .. } | E::Absent { .. } => Self::Refused(words),
            _ => Self::moment(&error, words),
        }
    }
}

impl Trouble {
    fn moment(error: &parent::Error, words: String) -> Self {
        use parent::Error as E;
        Self::Moment {
            words,
            wish: error.retry_after(),
            failure: match error {
                E::Unreachable { .. } | E::Busy { .. } => Failure::Way,
                E::TimedOut { .. } | E::Cut { .. } => Failure::Break,
                _ => Failure::Moment,
            },
        }
    }
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Self::Moment {
            words: crate::units::with_causes(&error),
            wish: None,
            failure: Failure::Moment,
        }
    }
}
