//! One lie, and the requests for which it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::ledger::{Seen, WRITE};

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
    pub code: Option<&'static str>,
    pub unread: bool,
    pub pause: Option<(u64, Gate)>,
    arrivals: Option<(Arc<AtomicU64>, Cut)>,
    pub unanswered: Option<Cut>,
    pub not_kept: bool,
    pub tags_instead: Option<String>,
}

impl Fault {
    pub fn get(path_part: &str) -> Self {
        Self::of("GET", path_part)
    }

    pub fn head(path_part: &str) -> Self {
        Self::of("HEAD", path_part)
    }

    pub fn post(path_part: &str) -> Self {
        Self::of("POST", path_part)
    }

    pub fn patch(path_part: &str) -> Self {
        Self::of("PATCH", path_part)
    }

    pub fn put(path_part: &str) -> Self {
        Self::of("PUT", path_part)
    }

    /// Whatever is to change something.
    pub fn write(path_part: &str) -> Self {
        Self::of(WRITE, path_part)
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
            code: None,
            unread: false,
            pause: None,
            arrivals: None,
            unanswered: None,
            not_kept: false,
            tags_instead: None,
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

    /// This status; with an error status the body becomes an error document of the specification. A write that is refused
    /// so is not carried out, though its body is read.
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

    /// The code in the error document, with an error status.
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// A refusal comes before the body of the request is read, and the connection ends after it.
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// After `bytes` of the request's body nothing more is read until the gate opens.
    pub fn pause_reading_after(mut self, bytes: u64, gate: &Gate) -> Self {
        self.pause = Some((bytes, gate.clone()));
        self
    }

    /// Once `bytes` more of bodies of the requests that match have come, the connection of the last byte ends. This happens
    /// once.
    pub fn cut_arrival_after(mut self, bytes: u64, cut: Cut) -> Self {
        self.arrivals = Some((Arc::new(AtomicU64::new(bytes)), cut));
        self
    }

    /// What was asked for is done, and in place of an answer the connection ends.
    pub fn unanswered(mut self, cut: Cut) -> Self {
        self.unanswered = Some(cut);
        self
    }

    /// A write is answered as if it were carried out, and nothing is kept of it.
    pub fn not_kept(mut self) -> Self {
        self.not_kept = true;
        self
    }

    /// The tag under which a manifest is put becomes `digest`, whatever the answer says.
    pub fn tags_instead(mut self, digest: &str) -> Self {
        self.tags_instead = Some(digest.to_owned());
        self
    }

    /// From now on this lie, also as the parent has it, is told no more.
    pub fn end(&self) {
        self.times.store(0, Ordering::SeqCst);
    }

    /// How many of `length` bytes of a body come, of which `before` are here, until the script does something; and how the
    /// connection ends then.
    pub fn arriving(&self, before: u64, length: usize) -> (usize, Option<Cut>) {
        let pause = self.pause.as_ref().map(|(at, _)| *at);
        let length = match pause.and_then(|at| at.checked_sub(before)).filter(|left| *left > 0) {
            Some(left) => length.min(left as usize),
            None => length,
        };
        let Some((left, cut)) = self.arrivals.as_ref().filter(|_| !self.is_spent()) else {
            return (length, None);
        };
        let less = |left: u64| Some(left.saturating_sub(length as u64));
        let left = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        let left = left.expect("it always changes");
        if left > length as u64 {
            return (length, None);
        }
        self.end();
        (left as usize, Some(*cut))
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
