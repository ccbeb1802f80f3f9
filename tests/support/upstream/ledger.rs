//! What the parent was asked and what it gave: one entry per request, counted to the byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;

/// One request and, as it goes on, its answer.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark; empty when there was none.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    answer: Arc<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    status: AtomicU16,
    body_bytes: AtomicU64,
    ended: AtomicBool,
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

    /// Whether it is of `method` (any, when that is empty) and its path contains `path_part`.
    pub fn matches(&self, method: &str, path_part: &str) -> bool {
        (method.is_empty() || self.method == method) && self.path.contains(path_part)
    }
}

/// All requests in the order of their arrival.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
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

    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().clear();
    }
}
