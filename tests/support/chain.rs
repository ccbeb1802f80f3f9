//! Three nodes below one cloud, each knowing only its parent.

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
        let l5 = amend(Setup::below(cloud).named("l5").on(family)).start().await;
        let l4 = amend(Setup::below(&l5.url()).named("l4").on(family)).start().await;
        let l3 = amend(Setup::below(&l4.url()).named("l3").on(family)).start().await;
        Self { l5, l4, l3 }
    }
}
