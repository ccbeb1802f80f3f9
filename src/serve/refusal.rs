//! The one table from error to reply. No status code stands anywhere below this room.

use std::time::Duration;

use http::HeaderValue;
use http::header::{ALLOW, HeaderName, RANGE, RETRY_AFTER};
use serde_json::json;

use super::{Reply, push as pushes};
use crate::auth::{Denied, Stranger};
use crate::fetch::Error;
use crate::oci::{Code, Digest, Reference, Repository, error_body};
use crate::parent::{
    self, DENIED_ACCOUNT, DENIED_HEADER, DENIED_STRANGER, LAYER_HEADER, NodeId, REASON_HEADER, SPOILED_HEADER,
};
use crate::{push, router};

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum Refusal {
    /// What was asked makes no sense, or names nothing.
    Route(router::Error),
    /// Not for who asks, with the header that says how to log in.
    Denied(Denied, Option<(HeaderName, String)>),
    /// A mirror takes no writes.
    ReadOnly {
        /// Methods that the path has.
        allow: &'static str,
    },
    /// The request has been here before.
    Loop,
    /// A report that is not taken.
    Report {
        /// Why.
        words: &'static str,
    },
    /// A feed in a form that is not spoken here.
    FeedVersion {
        /// The oldest that is.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// A mistake in this program.
    Panicked,
    /// A manifest could not be had.
    Manifest {
        /// Why.
        error: Error,
        /// Of which repository.
        repository: Repository,
        /// Which.
        reference: Reference,
    },
    /// A blob could not be had.
    Blob {
        /// Why.
        error: Error,
        /// Of which repository.
        repository: Repository,
        /// Which.
        digest: Digest,
    },
    /// Something could not be taken in, or away.
    Push {
        /// Why.
        error: push::Error,
        /// Where.
        repository: Repository,
        /// What.
        what: String,
        /// What is said where there is no such thing.
        absent: Code,
    },
    /// The list of repositories above could not be had.
    Catalog {
        /// Why.
        error: Error,
    },
    /// A list could not be had.
    List {
        /// Why.
        error: Error,
        /// Of which repository.
        repository: Repository,
    },
}

/// What is said for it.
struct Verdict {
    status: u16,
    code: Code,
    message: String,
    /// The node or registry that failed.
    layer: Option<String>,
    /// Why, in a sentence for the layers below.
    reason: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    /// Bytes of an upload that are here.
    here: Option<u64>,
    /// What was sent of it before was wrong.
    spoiled: bool,
    /// Nobody said that it does not exist: who was refused it above.
    denied: Option<&'static str>,
}

impl From<router::Error> for Refusal {
    fn from(error: router::Error) -> Self {
        Self::Route(error)
    }
}

impl Refusal {
    /// The reply in the form of the distribution spec, "Error Codes".
    pub(super) fn into_reply(self, node: &NodeId) -> Reply {
        let challenge = match &self {
            Self::Denied(_, challenge) => challenge.clone(),
            _ => None,
        };
        let verdict = self.judge();
        let layer = verdict.layer.as_deref().unwrap_or(&node.name);
        let message = format!("{}: {}", node.name, verdict.message);
        let detail = json!({ "layer": layer, "node": node.name });
        // A HEAD has no body to say it in.
        let mut reply = Reply::new(verdict.status).with_text(HeaderName::from_static(LAYER_HEADER), layer);
        if let Some(reason) = &verdict.reason {
            let reason = match verdict.layer {
                Some(_) => reason.clone(),
                None => format!("{}: {reason}", node.name),
            };
            reply = reply.with_text(HeaderName::from_static(REASON_HEADER), &reason);
        }
        if let Some((name, value)) = challenge {
            reply = reply.with_text(name, &value);
        }
        if let Some(wait) = verdict.retry_after {
            reply = reply.with(RETRY_AFTER, wait.as_secs().max(1).into());
        }
        if let Some(size) = verdict.here {
            reply = reply.with_text(RANGE, &pushes::range(size));
        }
        if verdict.spoiled {
            reply = reply.with(HeaderName::from_static(SPOILED_HEADER), HeaderValue::from_static("1"));
        }
        if let Some(who) = verdict.denied {
            reply = reply.with(HeaderName::from_static(DENIED_HEADER), HeaderValue::from_static(who));
        }
        if let Some(allow) = verdict.allow {
            reply = reply.with(ALLOW, HeaderValue::from_static(allow));
        }
        reply.json(error_body(verdict.code, &message, Some(detail)))
    }

    fn judge(self) -> Verdict {
        match self {
            Self::Route(error) => judge_route(error),
            Self::Denied(denied, _) => judge_denied(&denied),
            Self::ReadOnly { allow } => {
                let message = "this node is a mirror and takes no writes; push to the registry at the top";
                Verdict {
                    allow: Some(allow),
                    ..Verdict::new(405, Code::Unsupported, message)
                }
            }
            Self::Loop => Verdict::new(
                508,
                Code::Unknown,
                "the request has passed this node before; look for a circle among the parents",
            ),
            Self::Report { words } => Verdict::new(400, Code::Unsupported, words),
            Self::Catalog { error } => judge_fetch(error, Code::NameUnknown, "the list of repositories above"),
            Self::FeedVersion { oldest, newest } => Verdict::new(
                400,
                Code::Unsupported,
                format!("the feed is spoken in versions {oldest} to {newest}; ask for one of them with version="),
            ),
            Self::Panicked => Verdict::new(500, Code::Unknown, PANICKED),
            Self::Manifest {
                error,
                repository,
                reference,
            } => judge_fetch(
                error,
                Code::ManifestUnknown,
                &format!("manifest {reference} of {repository}"),
            ),
            Self::Blob {
                error,
                repository,
                digest,
            } => judge_fetch(error, Code::BlobUnknown, &format!("blob {digest} of {repository}")),
            Self::Push {
                error,
                repository,
                what,
                absent,
            } => judge_push(error, absent, &format!("{what} of {repository}")),
            Self::List { error, repository } => {
                judge_fetch(error, Code::NameUnknown, &format!("the list for {repository}"))
            }
        }
    }
}

impl Verdict {
    fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            layer: None,
            reason: None,
            retry_after: None,
            allow: None,
            here: None,
            spoiled: false,
            denied: None,
        }
    }
}

fn judge_denied(denied: &Denied) -> Verdict {
    let message = denied.to_string();
    match denied {
        Denied::Stranger(Stranger::TooMany) => Verdict {
            retry_after: Some(SOON),
            ..Verdict::new(429, Code::TooManyRequests, message)
        },
        Denied::Stranger(_) | Denied::LogIn { .. } | Denied::Scope { .. } => {
            Verdict::new(401, Code::Unauthorized, message)
        }
        Denied::Forbidden { .. } | Denied::NoList { .. } => Verdict::new(403, Code::Denied, message),
        Denied::Elsewhere { .. } => Verdict::new(404, Code::NameUnknown, message),
    }
}

fn judge_route(error: router::Error) -> Verdict {
    let message = error.to_string();
    match error {
        router::Error::NotFound => Verdict::new(404, Code::NameUnknown, message),
        router::Error::NamespaceUnknown { .. } => Verdict::new(404, Code::NameUnknown, message),
        router::Error::NameInvalid(_) => Verdict::new(400, Code::NameInvalid, message),
        router::Error::DigestInvalid | router::Error::DigestUnsupported => {
            Verdict::new(400, Code::DigestInvalid, message)
        }
        router::Error::TagInvalid => Verdict::new(400, Code::TagInvalid, message),
        router::Error::UploadUnknown => Verdict::new(404, Code::BlobUploadUnknown, message),
        router::Error::TooManyTags { .. } => Verdict::new(414, Code::TagInvalid, message),
        router::Error::PageInvalid => Verdict::new(400, Code::PaginationNumberInvalid, message),
        router::Error::MethodNotAllowed { allow } => Verdict {
            allow: Some(allow),
            ..Verdict::new(405, Code::Unsupported, message)
        },
    }
}

fn judge_push(error: push::Error, absent: Code, what: &str) -> Verdict {
    use push::Error as E;
    let message = format!("{what}: {error}");
    let soon = |status, code, message: String| Verdict {
        retry_after: Some(SOON),
        ..Verdict::new(status, code, message)
    };
    match error {
        E::Elsewhere { .. } | E::Closed { .. } => Verdict {
            allow: Some("GET, HEAD"),
            ..Verdict::new(405, Code::Unsupported, message)
        },
        E::UnknownUpload => Verdict::new(404, Code::BlobUploadUnknown, message),
        E::Busy => soon(409, Code::BlobUploadInvalid, message),
        E::OutOfOrder { size } => Verdict {
            here: Some(size),
            ..Verdict::new(416, Code::BlobUploadInvalid, message)
        },
        E::Range | E::Broken(_) => Verdict::new(400, Code::BlobUploadInvalid, message),
        E::Length { .. } => Verdict::new(400, Code::SizeInvalid, message),
        E::Digest { .. } => Verdict::new(400, Code::DigestInvalid, message),
        E::TooManyUploads { .. } | E::TooManyOfOne { .. } => soon(429, Code::TooManyRequests, message),
        E::TooLarge { .. } => Verdict::new(413, Code::SizeInvalid, message),
        E::TagTaken { .. } => Verdict::new(403, Code::Denied, message),
        E::Manifest(_) => Verdict::new(400, Code::ManifestInvalid, message),
        E::Missing(_) => Verdict::new(400, Code::ManifestBlobUnknown, message),
        E::Fetch(error) => judge_fetch(error, absent, what),
        E::TooMuch { .. } => Verdict::new(400, Code::ManifestInvalid, message),
        E::NoRoomForUploads(_) | E::NoRoom(_) | E::QueueFull { .. } => Verdict::new(507, Code::Unavailable, message),
        E::Store(_) => soon(503, Code::Unavailable, message),
        _ => Verdict::new(500, Code::Unknown, message),
    }
}

fn judge_fetch(error: Error, absent: Code, what: &str) -> Verdict {
    let reason = error.to_string();
    let verdict = judge_cause(error, absent, what);
    Verdict {
        reason: (verdict.status >= 500).then_some(reason),
        ..verdict
    }
}

fn judge_cause(error: Error, absent: Code, what: &str) -> Verdict {
    let message = format!("{what}: {error}");
    match error {
        Error::Absent { layer } => Verdict {
            layer: Some(layer),
            ..Verdict::new(404, absent, message)
        },
        Error::NoUpstream { .. } => Verdict::new(404, Code::NameUnknown, message),
        Error::Parent(error) => judge_parent(&error, absent, message),
        Error::Corrupt { layer, .. } => Verdict {
            spoiled: true,
            layer: Some(layer),
            retry_after: Some(SOON),
            ..Verdict::new(502, Code::Unavailable, message)
        },
        Error::Damaged { .. } => Verdict {
            spoiled: true,
            retry_after: Some(SOON),
            ..Verdict::new(502, Code::Unavailable, message)
        },
        Error::Ended { layer, .. } | Error::Nonsense { layer, .. } | Error::Beyond { layer, .. } => Verdict {
            layer: Some(layer),
            retry_after: Some(SOON),
            ..Verdict::new(502, Code::Unavailable, message)
        },
        Error::Unvouched { layer, .. } => Verdict {
            layer: Some(layer),
            retry_after: Some(SOON),
            ..Verdict::new(503, Code::Unavailable, message)
        },
        Error::Interrupted => Verdict::new(500, Code::Unknown, message),
        Error::Store(_) | Error::TooSlow => Verdict {
            retry_after: Some(SOON),
            ..Verdict::new(503, Code::Unavailable, message)
        },
    }
}

/// A mistake in this program, which stands in the log.
const PANICKED: &str = "this program made a mistake; ask again, and report what its log says of a panic";

/// When to ask again, where nobody says.
const SOON: Duration = Duration::from_secs(5);

fn judge_parent(error: &parent::Error, absent: Code, message: String) -> Verdict {
    let (status, retry_after) = match error {
        // Docker Hub says 401 of what does not exist.
        error if error.is_absent() || error.is_forbidden() => (404, None),
        parent::Error::Loop { .. } => (508, None),
        parent::Error::TimedOut { .. } => (504, Some(SOON)),
        // A 429 would make containerd ask six times at once.
        parent::Error::TooMany { retry_after, .. } => (503, Some(retry_after.unwrap_or(SOON))),
        parent::Error::Unreachable { .. } | parent::Error::Busy { .. } => (503, Some(SOON)),
        parent::Error::Closed { wait, .. } => (503, Some(wait.unwrap_or(SOON))),
        parent::Error::MadeWay { .. } => (503, Some(SOON)),
        parent::Error::Failed {
            status: 503,
            retry_after,
            ..
        } => (503, Some(retry_after.unwrap_or(SOON))),
        parent::Error::Failed { status: 504, .. } => (504, Some(SOON)),
        parent::Error::Failed { status: 508, .. } => (508, None),
        parent::Error::Failed { retry_after, .. } => (502, Some(retry_after.unwrap_or(SOON))),
        _ => (502, None),
    };
    let code = match status {
        404 => absent,
        508 => Code::Unknown,
        _ => Code::Unavailable,
    };
    Verdict {
        layer: Some(error.layer().to_owned()),
        retry_after,
        denied: error.is_forbidden().then_some(match error {
            parent::Error::Denied { anonymous: true, .. } => DENIED_STRANGER,
            _ => DENIED_ACCOUNT,
        }),
        ..Verdict::new(status, code, message)
    }
}
