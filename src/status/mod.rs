//! What this node says of itself: whether it is ready, and why not.

mod panics;
mod receipts;
mod summary;
mod wall;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;

pub use panics::count_panics;
pub use receipts::{Layer, Own, Receipt, Receipts};
pub use summary::{Child, Children, Connection, MOST_BYTES as MOST_REPORTED, Summaries, Summary};
pub use wall::Wall;

use crate::parent::Parent;
use crate::push::Push;
use crate::queue::{Listing, Queue};
use crate::store::Store;
use crate::units::Span;

/// The node, as its operator sees it.
pub struct Status {
    node: String,
    mode: &'static str,
    store: Store,
    parents: Vec<Parent>,
    /// Where the registry answers.
    registry: SocketAddr,
    /// Whether it was seen to answer.
    answers: AtomicBool,
    /// Whether it is being stopped.
    stopping: Stopping,
    /// The time of day.
    wall: Wall,
    /// `None`: a mirror.
    push: Option<Push>,
    /// What waits for the parent.
    queue: Option<Queue>,
    /// What is wrong with what is to be here before anyone asks.
    behind: Behind,
}

/// Tells why not all is here that is to be, in words.
pub type Behind = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Tells whether the node is being stopped.
pub type Stopping = Box<dyn Fn() -> bool + Send + Sync>;

/// Whether the node can do its work.
#[derive(Serialize)]
pub struct Readiness {
    /// Requests are answered.
    pub ready: bool,
    /// The node's name.
    pub node: String,
    /// Its mode.
    pub mode: &'static str,
    /// This program's version.
    pub version: &'static str,
    /// What is not as it should be, in words. A node without its parent is ready all the same.
    pub reasons: Vec<String>,
    /// The registries above.
    pub upstreams: Vec<Upstream>,
}

/// One registry above.
#[derive(Serialize)]
pub struct Upstream {
    /// Its name, or its host and port.
    pub name: String,
    /// Whether it answered when it was last asked.
    pub up: bool,
}

impl Status {
    /// Of the node `node`, its store, the registries that it asks, and where its own registry answers.
    pub fn new(
        node: String,
        mode: &'static str,
        store: Store,
        parents: Vec<Parent>,
        registry: SocketAddr,
        wall: Wall,
    ) -> Self {
        Self {
            node,
            mode,
            store,
            parents,
            registry,
            answers: AtomicBool::new(false),
            stopping: Box::new(|| false),
            wall,
            push: None,
            queue: None,
            behind: Box::new(|| None),
        }
    }

    /// The same, asking this why not all is here that is to be.
    #[must_use]
    pub fn behind(self, behind: Behind) -> Self {
        Self { behind, ..self }
    }

    /// The same, asking this whether the node is being stopped.
    #[must_use]
    pub fn stopping(self, stopping: Stopping) -> Self {
        Self { stopping, ..self }
    }

    /// The same of a node that takes pushes.
    #[must_use]
    pub fn pushed_to(self, push: Option<Push>) -> Self {
        Self { push, ..self }
    }

    /// The same of a node that may owe pushes to its parent.
    #[must_use]
    pub fn owing(self, queue: Queue) -> Self {
        let queue = Some(queue);
        Self { queue, ..self }
    }

    /// What waits for the parent.
    pub fn queue(&self) -> Option<Listing> {
        self.queue.as_ref().map(Queue::list)
    }

    /// Whether the registry port takes connections; after the first time it is taken for granted.
    pub async fn answers(&self) -> bool {
        if !self.answers.load(Ordering::Relaxed) {
            let connecting = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(self.registry));
            self.answers
                .store(matches!(connecting.await, Ok(Ok(_))), Ordering::Relaxed);
        }
        self.answers.load(Ordering::Relaxed)
    }

    /// How it is now.
    pub async fn readiness(&self) -> Readiness {
        let upstreams: Vec<Upstream> = self
            .parents
            .iter()
            .map(|parent| Upstream {
                name: parent.name().to_owned(),
                up: parent.up(),
            })
            .collect();
        let stopping = (self.stopping)();
        let answers = self.answers().await;
        let trouble = self.store.trouble();
        let unkept = trouble.map(|trouble| format!("the disk takes nothing, and pulls go through unkept: {trouble}"));
        let ending = stopping.then(|| "stopping; replies under way are finished first".to_owned());
        let starting = (!answers).then(|| format!("the registry does not answer on {} yet", self.registry));
        let troubles = self.parents.iter().filter_map(trouble_above);
        let closed = self.push.as_ref().and_then(Push::closed);
        let owed = self.queue.as_ref().and_then(Queue::trouble);
        Readiness {
            ready: answers && !stopping,
            node: self.node.clone(),
            mode: self.mode,
            version: env!("CARGO_PKG_VERSION"),
            reasons: ending
                .into_iter()
                .chain(starting)
                .chain(unkept)
                .chain(self.wall.trouble())
                .chain(closed)
                .chain(owed)
                .chain((self.behind)().map(|why| format!("not all that is selected is here: {why}")))
                .chain(troubles)
                .collect(),
            upstreams,
        }
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        self.store.observe();
        if let Some(queue) = &self.queue {
            queue.observe();
        }
        self.wall.observe();
    }
}

/// What is wrong with a registry above, in words, and for how long it has been.
fn trouble_above(parent: &Parent) -> Option<String> {
    let away = parent.away();
    let (words, lasts) = match (parent.trouble(), &away) {
        (Some((lasts, words)), _) => (words, format!(", for {} now", Span::seconds(lasts.as_secs()))),
        (None, Some(error)) => (error.to_string(), String::new()),
        (None, None) if parent.up() => return None,
        (None, None) => ("it did not answer when it was last asked".to_owned(), String::new()),
    };
    let name = parent.name();
    let of = if words.contains(name) {
        String::new()
    } else {
        format!("{name}: ")
    };
    let alone = match away.map(|error| error.retry_after()) {
        None => String::new(),
        Some(None) => "; it is left alone for now".to_owned(),
        Some(Some(left)) => format!("; it is left alone for another {}", Span::seconds(left.as_secs())),
    };
    Some(format!("{of}{words}{lasts}{alone}; what is here is served"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;
    use crate::store;
    use crate::units::Clock;

    #[tokio::test]
    async fn until_the_registry_answers_a_node_is_not_ready_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config {
            path: folder.path().join("data"),
            ..store::Config::default()
        };
        let store = Store::open(&config, store::Metrics::new(&prometheus::Registry::new()).unwrap()).unwrap();
        let wall = Wall::new(Clock::system(), &prometheus::Registry::new()).unwrap();
        // Bound, so that it is nobody else's, and not yet listening.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let status = Status::new("here".to_owned(), "mirror", store, Vec::new(), address, wall);

        let early = status.readiness().await;
        let _listening = socket.listen(8).unwrap();
        let late = status.readiness().await;

        assert!(!early.ready);
        assert_eq!(
            early.reasons,
            [format!("the registry does not answer on {address} yet")]
        );
        assert!(late.ready && late.reasons.is_empty(), "{:?}", late.reasons);
    }
}
