//! Three nodes below one cloud, each knowing only its parent: over TLS, each with an account of its own at the one above.

use crate::support::node::{Node, Setup};
use crate::support::ports::Family;
use crate::support::upstream::Upstream;

/// Named after the levels they serve: `l5` asks the cloud, `l4` asks `l5`, `l3` asks `l4`.
pub struct Chain {
    pub l5: Node,
    pub l4: Node,
    pub l3: Node,
}

impl Chain {
    pub async fn below(cloud: &Upstream) -> Self {
        Self::set_up(&cloud.url(), Family::V4, |setup| setup).await
    }

    pub async fn on(family: Family, cloud: &Upstream) -> Self {
        Self::set_up(&cloud.url(), family, |setup| setup).await
    }

    /// Every node's setup is changed by `amend` before it starts.
    pub async fn set_up(cloud: &str, family: Family, amend: impl Fn(Setup) -> Setup) -> Self {
        let set_up = |above: &str, name: &str| {
            let setup = Setup::below(above).named(name).on(family).over_tls();
            amend(setup.with_account("below", &format!("password-of-{name}")))
        };
        let below = |node: &Node, name: &str| {
            let password = format!("password-of-{}", node.name());
            set_up(&node.url(), name).asking_as("below", &password)
        };
        let l5 = set_up(cloud, "l5").start().await;
        let l4 = below(&l5, "l4").start().await;
        let l3 = below(&l4, "l3").start().await;
        Self { l5, l4, l3 }
    }
}
