//! The scene of most tests: a node, its parent, and a blob that the parent alone has.

use bytes::Bytes;

use crate::support::client::{Open, Request, blob};
use crate::support::content::random;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Gate, Upstream};

/// Modules add what only they do with it.
pub struct Stage {
    pub parent: Upstream,
    pub node: Node,
    pub bytes: Bytes,
    pub digest: String,
    /// What a client asks for to have the blob.
    pub target: String,
}

impl Stage {
    /// A blob of `size` bytes; the node is not started.
    pub async fn placed(size: usize) -> Self {
        let parent = Upstream::start().await;
        let bytes = random(size);
        let digest = parent.blob("a", &bytes);
        Self {
            node: Setup::below(&parent.url()).placed(),
            parent,
            bytes,
            target: blob("a", &digest),
            digest,
        }
    }

    /// The node runs and has nothing.
    pub async fn cold(size: usize) -> Self {
        let mut stage = Self::placed(size).await;
        stage.node.start().await;
        stage
    }

    /// A pull is under way: the parent keeps back what follows the first `held` bytes, and the client has read those.
    pub async fn under_way(size: usize, held: usize) -> (Self, Gate, Open) {
        let stage = Self::cold(size).await;
        let gate = Gate::closed();
        let fault = Fault::get(&stage.digest).hold_after(held as u64, &gate);
        stage.parent.fault(fault.times(1));
        let mut leader = stage.open().await;
        leader.read(held).await;
        (stage, gate, leader)
    }

    /// Asks for the blob and reads the head of the answer alone.
    pub async fn open(&self) -> Open {
        self.node.client().open(Request::get(&self.target)).await
    }
}
