//! What the parent was asked and what it gave: one entry per request, counted to the byte.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// In place of a method: each that changes something.
pub const WRITE: &str = "any write";

/// One request and, as it goes on, its answer.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark; empty when there was none.
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// Of a request to the token service; what is sent to a registry is content and goes there.
    pub body: String,
    answer: Arc<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    status: AtomicU16,
    body_bytes: AtomicU64,
    ended: AtomicBool,
    received: AtomicU64,
    kept: OnceLock<Kept>,
}

/// A write that was carried out.
#[derive(Debug)]
struct Kept {
    /// Grows with each.
    turn: u64,
    /// Of the blob or the manifest that is here for it.
    digest: Option<String>,
}

impl Seen {
    pub fn new(method: &str, target: &str, headers: Vec<(String, String)>) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: String::new(),
            answer: Arc::default(),
        }
    }

    /// The first value of the header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All values of the header, joined by commas.
    pub fn all(&self, name: &str) -> String {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The first value of `key` in the query.
    pub fn asked(&self, key: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
    }

    /// Whether a registry answers it, and not a token service.
    pub fn is_content(&self) -> bool {
        self.path.starts_with("/v2/")
    }

    /// Whether it is to change something.
    pub fn is_write(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE")
    }

    /// The status that was answered; 0 before that.
    pub fn status(&self) -> u16 {
        self.answer.status.load(Ordering::SeqCst)
    }

    /// Bytes of the body that the kernel took from us.
    pub fn body_bytes(&self) -> u64 {
        self.answer.body_bytes.load(Ordering::SeqCst)
    }

    /// Whether everything that was to be sent was sent, or the connection is gone.
    pub fn ended(&self) -> bool {
        self.answer.ended.load(Ordering::SeqCst)
    }

    pub fn answered(&self, status: u16) {
        self.answer.status.store(status, Ordering::SeqCst);
    }

    pub fn add_bytes(&self, count: usize) {
        self.answer.body_bytes.fetch_add(count as u64, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.answer.ended.store(true, Ordering::SeqCst);
    }

    /// Bytes of the body that came and were looked at.
    pub fn received_bytes(&self) -> u64 {
        self.answer.received.load(Ordering::SeqCst)
    }

    pub fn add_received(&self, count: usize) {
        self.answer.received.fetch_add(count as u64, Ordering::SeqCst);
    }

    /// When it was carried out among all writes; `None` when it was not, or what it brought is not kept.
    pub fn kept(&self) -> Option<u64> {
        self.answer.kept.get().map(|kept| kept.turn)
    }

    /// The digest of what it brought or named, once that is kept.
    pub fn kept_digest(&self) -> Option<&str> {
        self.answer.kept.get()?.digest.as_deref()
    }

    pub fn keep(&self, turn: u64, digest: Option<String>) {
        // A request is carried out once.
        let _ = self.answer.kept.set(Kept { turn, digest });
    }

    /// Whether it is of `method` (any, when that is empty; each that changes something, when it is [`WRITE`]) and its path
    /// contains `path_part`.
    pub fn matches(&self, method: &str, path_part: &str) -> bool {
        let fits = method.is_empty() || self.method == method || (method == WRITE && self.is_write());
        fits && self.path.contains(path_part)
    }
}

/// The task may be dropped in the middle of a request; that ends it too.
pub struct EndOnDrop<'a>(pub &'a Seen);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// All requests in the order of their arrival.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    turns: AtomicU64,
}

impl Ledger {
    pub fn record(&self, seen: &Seen) {
        self.seen.lock().push(seen.clone());
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// The turn of a write that is being carried out.
    pub fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::SeqCst)
    }

    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().clear();
    }
}
