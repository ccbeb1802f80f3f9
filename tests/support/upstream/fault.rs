//! One lie, and the requests for which it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::ledger::Seen;

/// How a body ends before it is whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// An orderly close in the middle.
    Fin,
    /// A reset.
    Rst,
}

/// What becomes of a `Range` request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RangeRule {
    #[default]
    Honoured,
    /// 200 and the whole object.
    Ignored,
    /// 206 with the asked `Content-Range` over bytes that stand this much before.
    OtherBytes(u64),
    /// 206 with a truthful `Content-Range`, but that of the whole object from byte 0.
    FromTheStart,
}

/// What is said about the length of the body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Length {
    #[default]
    True,
    /// This, whatever is sent; the connection is closed at the end of what is sent.
    Says(u64),
    /// Nothing, in chunks.
    Chunked,
    /// Nothing; the end of the connection is the end of the body.
    Unsaid,
}

/// Holds a body back until the test lets it go. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub async fn passed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// A script for the requests that match; the first living script that matches a request is the one.
#[derive(Clone, Debug)]
pub struct Fault {
    method: &'static str,
    path_part: String,
    only_ranged: bool,
    skip: Arc<AtomicUsize>,
    times: Arc<AtomicUsize>,
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub without: Vec<String>,
    pub body: Option<Bytes>,
    pub delay: Duration,
    pub silent: bool,
    pub refused_stream: bool,
    pub hold_head: Option<Gate>,
    pub hold: Option<(u64, Gate)>,
    pub cut: Option<(u64, Cut)>,
    pub linger: Duration,
    pub stall_after: Option<u64>,
    pub flip_at: Option<u64>,
    pub range: RangeRule,
    pub length: Length,
    pub endless: bool,
    pub pace: Option<u64>,
}

impl Fault {
    pub fn get(path_part: &str) -> Self {
        Self::of("GET", path_part)
    }

    pub fn head(path_part: &str) -> Self {
        Self::of("HEAD", path_part)
    }

    /// Whatever the method.
    pub fn any(path_part: &str) -> Self {
        Self::of("", path_part)
    }

    fn of(method: &'static str, path_part: &str) -> Self {
        Self {
            method,
            path_part: path_part.to_owned(),
            only_ranged: false,
            skip: Arc::new(AtomicUsize::new(0)),
            times: Arc::new(AtomicUsize::new(usize::MAX)),
            status: None,
            headers: Vec::new(),
            without: Vec::new(),
            body: None,
            delay: Duration::ZERO,
            silent: false,
            refused_stream: false,
            hold_head: None,
            hold: None,
            cut: None,
            linger: Duration::ZERO,
            stall_after: None,
            flip_at: None,
            range: RangeRule::default(),
            length: Length::default(),
            endless: false,
            pace: None,
        }
    }

    /// Only for the first `times` requests that match.
    pub fn times(self, times: usize) -> Self {
        self.times.store(times, Ordering::SeqCst);
        self
    }

    /// Not for the first `skip` requests that match.
    pub fn skip(self, skip: usize) -> Self {
        self.skip.store(skip, Ordering::SeqCst);
        self
    }

    /// Only for requests with a `Range`.
    pub fn ranged(mut self) -> Self {
        self.only_ranged = true;
        self
    }

    /// This status; with an error status the body becomes an error document of the specification.
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// 307 to `location`.
    pub fn redirect(self, location: &str) -> Self {
        self.status(307).header("Location", location).body("")
    }

    /// Before the head of the answer.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The request is read and never answered.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// HTTP/2: the stream is reset as one that was not looked at.
    pub fn refused_stream(mut self) -> Self {
        self.refused_stream = true;
        self
    }

    /// No head of an answer before the gate opens.
    pub fn hold_head(mut self, gate: &Gate) -> Self {
        self.hold_head = Some(gate.clone());
        self
    }

    /// The body stops after `bytes` until the gate opens.
    pub fn hold_after(mut self, bytes: u64, gate: &Gate) -> Self {
        self.hold = Some((bytes, gate.clone()));
        self
    }

    /// The connection ends after `bytes` of the body.
    pub fn cut_after(mut self, bytes: u64, cut: Cut) -> Self {
        self.cut = Some((bytes, cut));
        self
    }

    /// So long between the last byte and the cut.
    pub fn lingering(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// After `bytes` of the body nothing comes any more; the connection stays.
    pub fn stall_after(mut self, bytes: u64) -> Self {
        self.stall_after = Some(bytes);
        self
    }

    /// One bit of the object's byte at `offset` is wrong, in whichever range it is sent.
    pub fn flip_at(mut self, offset: u64) -> Self {
        self.flip_at = Some(offset);
        self
    }

    pub fn range(mut self, range: RangeRule) -> Self {
        self.range = range;
        self
    }

    pub fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// After the true body zeros follow, in chunks, for ever.
    pub fn endless(mut self) -> Self {
        self.endless = true;
        self.length(Length::Chunked)
    }

    /// At most this many bytes of the body per second.
    pub fn pace(mut self, bytes_per_second: u64) -> Self {
        self.pace = Some(bytes_per_second);
        self
    }

    /// Whether this lie is for `seen`; each yes uses one of its times.
    pub fn takes(&self, seen: &Seen) -> bool {
        seen.matches(self.method, &self.path_part)
            && (!self.only_ranged || seen.header("range").is_some())
            && !taken(&self.skip)
            && taken(&self.times)
    }

    /// Whether it was told as often as it was to be.
    pub fn is_spent(&self) -> bool {
        self.times.load(Ordering::SeqCst) == 0
    }
}

/// Takes one from `counter` unless it is at zero; `usize::MAX` is without end.
fn taken(counter: &AtomicUsize) -> bool {
    let less = |count| match count {
        0 => None,
        usize::MAX => Some(usize::MAX),
        count => Some(count - 1),
    };
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
}
