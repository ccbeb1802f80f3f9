//! What this node says of itself: whether it is ready, and why not.

use serde::Serialize;

use crate::parent::Parent;
use crate::store::Store;

/// The node, as its operator sees it.
pub struct Status {
    node: String,
    mode: &'static str,
    store: Store,
    parents: Vec<Parent>,
}

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
    /// Of the node `node`, its store and the registries that it asks.
    pub fn new(node: String, mode: &'static str, store: Store, parents: Vec<Parent>) -> Self {
        Self {
            node,
            mode,
            store,
            parents,
        }
    }

    /// How it is now.
    pub fn readiness(&self) -> Readiness {
        let upstreams: Vec<Upstream> = self
            .parents
            .iter()
            .map(|parent| Upstream {
                name: parent.name().to_owned(),
                up: parent.up(),
            })
            .collect();
        let down = upstreams.iter().filter(|upstream| !upstream.up);
        let reasons = down
            .map(|upstream| {
                format!(
                    "{} did not answer when it was last asked; what is here is served",
                    upstream.name
                )
            })
            .collect();
        Readiness {
            ready: true,
            node: self.node.clone(),
            mode: self.mode,
            version: env!("CARGO_PKG_VERSION"),
            reasons,
            upstreams,
        }
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        self.store.observe();
    }
}
