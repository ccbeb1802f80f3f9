//! How many connections there are, may be, and when none are taken any more.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use pingora::listeners::ConnectionFilter;
use tokio::sync::watch;

/// Descriptors kept for files, upstreams and the index.
const RESERVED: u64 = 256;

/// pingora gives a handshake so long.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// Counts connections and requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    open: watch::Sender<usize>,
    /// When those were accepted whose task has not begun. One whose TLS handshake fails never begins.
    accepted: Mutex<VecDeque<Instant>>,
    /// Requests that are being answered.
    busy: AtomicUsize,
    draining: watch::Sender<bool>,
}

impl Connections {
    /// At most `most` at a time; beyond that accepting pauses.
    pub fn new(most: usize) -> Self {
        let shared = Shared {
            most,
            open: watch::Sender::new(0),
            accepted: Mutex::default(),
            busy: AtomicUsize::new(0),
            draining: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// As many as `descriptors` allow, when each may also read a file or ask an upstream.
    pub fn within(descriptors: u64) -> usize {
        usize::try_from(descriptors.saturating_sub(RESERVED) / 2)
            .unwrap_or(usize::MAX)
            .max(16)
    }

    /// Takes no more connections, closes each after the answer it is sending, and waits for the last
    /// answer, or for `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.send_replace(true);
        let mut open = self.shared.open.subscribe();
        let idle = async { while self.shared.busy.load(Ordering::Acquire) > 0 && open.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, idle).await;
    }

    /// Whether connections are being closed.
    pub fn is_draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// A request being answered, until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
        Busy {
            shared: self.shared.clone(),
        }
    }
}

impl Shared {
    /// Connections, and those about to be.
    fn taken(&self) -> usize {
        let mut accepted = self.accepted.lock();
        while accepted
            .front()
            .is_some_and(|since| now().duration_since(*since) > HANDSHAKE)
        {
            accepted.pop_front();
        }
        accepted.len() + *self.open.borrow()
    }
}

/// Counts one request.
pub(super) struct Busy {
    shared: Arc<Shared>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let last = self.shared.busy.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && *self.shared.draining.borrow() {
            // Wakes whoever drains.
            self.shared.open.send_modify(|_| {});
        }
    }
}

/// Accepting waits here, before it takes the next connection.
#[async_trait]
impl ConnectionFilter for Connections {
    async fn should_accept(&self, _address: Option<&SocketAddr>) -> bool {
        if self.is_draining() {
            return false;
        }
        if self.shared.taken() >= self.shared.most {
            tracing::warn!(
                connections = self.shared.most,
                "as many connections as allowed; accepting pauses"
            );
            let mut open = self.shared.open.subscribe();
            while self.shared.taken() >= self.shared.most {
                // Also looked at anew now and then, as a handshake that failed tells nobody.
                let _ = tokio::time::timeout(Duration::from_secs(1), open.changed()).await;
            }
        }
        self.shared.accepted.lock().push_back(now());
        true
    }
}

/// Counts one connection.
pub(super) struct Open {
    shared: Arc<Shared>,
}

impl Open {
    pub(super) fn new(connections: &Connections) -> Self {
        let shared = &connections.shared;
        shared.accepted.lock().pop_front();
        shared.open.send_modify(|open| *open += 1);
        Self { shared: shared.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

/// Raises the soft limit of open files to the hard one; the limit that holds now.
pub fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is decided by it but how long a slot is held"
)]
fn now() -> Instant {
    Instant::now()
}
