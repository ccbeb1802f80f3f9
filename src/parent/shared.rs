//! What all who ask one upstream have in common.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use url::Url;

use super::Given;
use super::authority::Authority;
use super::config::Config;
use super::egress::Egress;
use super::error::Error;
use super::flow::Line;
use super::gate::{Gate, Limits};
use super::hours::Hours;
use super::kind::{Kind, Memory};
use super::metrics::{Metrics, Series};
use super::pulse::Pulse;
use super::trouble::Trouble;
use super::via::{Hops, NodeId};
use super::wire::Wire;
use crate::units::Clock;

/// One registry at one URL with one login.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) url: Url,
    pub(super) node: NodeId,
    pub(super) wire: Wire,
    pub(super) authority: Authority,
    pub(super) egress: Egress,
    pub(super) memory: Memory,
    pub(super) gate: Arc<Gate>,
    pub(super) hours: Hours,
    pub(super) pulse: Pulse,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) trouble: Trouble,
    pub(super) series: Series,
    pub(super) clock: Clock,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        name: &str,
        node: &NodeId,
        given: Given,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let series = metrics.of(name);
        let listed = config.auth_hosts.iter().chain(&config.redirect_hosts).cloned();
        let egress = Egress::new(
            &config.url,
            listed.chain(config.proxies.hosts()),
            config.connect_timeout,
            clock.clone(),
        );
        let Given {
            hours,
            bandwidth,
            notes,
        } = given;
        let line = Line::new(name, &bandwidth, &hours, &notes, &clock);
        let limits = Limits::of(config);
        let gate = Arc::new(Gate::new(
            &node.name,
            limits,
            &series,
            hours.clone(),
            line,
            clock.clone(),
        ));
        let wire = Wire::new(
            config,
            name,
            egress.clone(),
            series.clone(),
            gate.clone(),
            clock.clone(),
        );
        Self {
            url: config.url.clone(),
            node: node.clone(),
            wire,
            authority: Authority::new(config, clock.clone()),
            egress,
            memory: Memory::new(),
            gate,
            hours,
            pulse: Pulse::new(config.sync_requests_per_minute, clock.clone()),
            connect_timeout: config.connect_timeout,
            read_timeout: config.read_timeout,
            trouble: Trouble::new(clock.clone()),
            series,
            clock,
        }
    }

    /// What the upstream is; asked if it is not known, or in doubt.
    pub(super) async fn kind(&self) -> Result<Kind, Error> {
        if !self.wire.is_up() {
            self.memory.doubt();
        }
        let ask = async { self.greet().await.map(|(kind, _)| kind) };
        self.memory.settle(ask).await
    }

    /// What a request says of the way it came.
    pub(super) fn via(&self, hops: &Hops) -> HeaderValue {
        HeaderValue::from_str(&hops.with(&self.node).to_string()).expect("hops are printable ASCII")
    }

    pub(super) fn timed_out(&self, after: Duration) -> Error {
        let layer = self.wire.layer.clone();
        Error::TimedOut { layer, after }
    }

    pub(super) fn untrusted(&self, reason: &'static str) -> Error {
        self.wire.untrusted(reason)
    }
}
