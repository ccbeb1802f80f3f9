//! What a request carries, in a form that can be sent again.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use prometheus::IntCounter;

/// Bytes as they are read.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of a request.
#[derive(Clone)]
pub(super) enum Outgoing {
    /// There is none.
    Nothing,
    /// A form for a token service.
    Form(String),
    /// A document, or a small blob.
    Bytes(Bytes),
    /// A blob, or a part of one: opened anew each time it is sent.
    Opened(Arc<dyn Fn() -> Pieces + Send + Sync>, Arc<Progress>),
}

/// How far a body is read.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    is_read: AtomicBool,
    /// For its turn on the line.
    waits: AtomicBool,
}

impl Progress {
    /// Bytes read so far, over all attempts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// More is not read as the line may take no more now.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Whether there are no more: what is waited for is the answer.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }
}

impl Outgoing {
    /// Whether it may be sent again without asking how much of it came.
    pub(super) fn is_short(&self) -> bool {
        !matches!(self, Self::Opened(..))
    }

    /// As the client takes it; what leaves is counted by `sent`.
    pub(super) fn body(&self, sent: &IntCounter) -> Option<reqwest::Body> {
        match self {
            Self::Nothing => None,
            Self::Form(form) => Some(form.clone().into()),
            Self::Bytes(bytes) => {
                sent.inc_by(bytes.len() as u64);
                Some(bytes.clone().into())
            }
            Self::Opened(open, progress) => {
                let (counted, ended) = (Arc::clone(progress), Arc::clone(progress));
                progress.is_read.store(false, Ordering::Relaxed);
                let sent = sent.clone();
                let pieces = open().inspect(move |piece| {
                    if let Ok(piece) = piece {
                        counted.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        sent.inc_by(piece.len() as u64);
                    }
                });
                let end = futures_util::stream::poll_fn(move |_| {
                    ended.is_read.store(true, Ordering::Relaxed);
                    std::task::Poll::Ready(None)
                });
                Some(reqwest::Body::wrap_stream(pieces.chain(end)))
            }
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Form(_) => "Form",
            Self::Bytes(_) => "Bytes",
            Self::Opened(..) => "Opened",
        })
    }
}
