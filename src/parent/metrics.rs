//! What is counted of every parent and upstream.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::breaker::Phase;
use super::failure::Failure;
use super::gate::Class;

/// The counters of all upstreams of a process. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    failures: IntCounterVec,
    bytes: IntCounterVec,
    up: IntGaugeVec,
    inside: IntGaugeVec,
    left: IntGaugeVec,
    limit: IntGaugeVec,
    phase: IntGaugeVec,
    opened: IntCounterVec,
    waiting: IntGaugeVec,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers the series. To be made once for a registry; clones go to every assembly of the rooms.
    pub fn new(registry: &Registry) -> Self {
        Self {
            left: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_parent_ratelimit_remaining",
                        "Requests that the upstream said it still allows",
                    ),
                    &["upstream"],
                ),
            ),
            limit: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_parent_ratelimit_limit",
                        "Requests that the upstream said it allows at all",
                    ),
                    &["upstream"],
                ),
            ),
            phase: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_parent_state",
                        "1 for what holds: closed (asked), open (only probed), resting (as it wished), trying (one at a time)",
                    ),
                    &["upstream", "state"],
                ),
            ),
            opened: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "wharf_parent_opened_total",
                        "How often the upstream was left alone, by the state that it came to",
                    ),
                    &["upstream", "state"],
                ),
            ),
            waiting: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_parent_waiting",
                        "Requests that wait for a place under `transfers` or `requests`",
                    ),
                    &["upstream"],
                ),
            ),
            refused: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "wharf_parent_refused_total",
                        "Requests that were not sent: busy (no place in time), open, resting",
                    ),
                    &["upstream", "reason"],
                ),
            ),
            requests: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "wharf_parent_requests_total",
                        "HTTP requests sent for an upstream, by status; error: no answer",
                    ),
                    &["upstream", "status"],
                ),
            ),
            failures: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "wharf_parent_failures_total",
                        "Requests for an upstream that came to nothing, by reason",
                    ),
                    &["upstream", "reason"],
                ),
            ),
            bytes: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "wharf_parent_bytes_total",
                        "Bytes of bodies from (down) and to (up) an upstream",
                    ),
                    &["upstream", "direction"],
                ),
            ),
            up: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_parent_up",
                        "1 if the last request to the upstream was answered at all",
                    ),
                    &["upstream"],
                ),
            ),
            inside: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("wharf_parent_requests", "Requests under way to an upstream, by class"),
                    &["upstream", "class"],
                ),
            ),
        }
    }

    /// The series of one upstream.
    pub(super) fn of(&self, upstream: &str) -> Series {
        Series {
            upstream: upstream.to_owned(),
            received: self.bytes.with_label_values(&[upstream, "down"]),
            sent: self.bytes.with_label_values(&[upstream, "up"]),
            metrics: self.clone(),
        }
    }
}

/// The series of one upstream, its label settled.
#[derive(Clone, Debug)]
pub(super) struct Series {
    upstream: String,
    /// Bytes of bodies received.
    pub(super) received: IntCounter,
    sent: IntCounter,
    metrics: Metrics,
}

impl Series {
    /// Bytes of bodies that left.
    pub(super) fn sent(&self) -> &IntCounter {
        &self.sent
    }

    /// Counts a request that was answered with `status`.
    pub(super) fn answered(&self, status: u16) {
        // An upstream can invent statuses; it cannot invent series.
        match status {
            100..600 => self.request(&status.to_string()),
            _ => self.request("other"),
        }
    }

    /// Counts a request that was not answered.
    pub(super) fn unanswered(&self) {
        self.request("error");
    }

    /// Counts why there was no answer that could be used.
    pub(super) fn failed(&self, failure: Failure) {
        let labels = [self.upstream.as_str(), failure.as_str()];
        self.metrics.failures.with_label_values(&labels).inc();
    }

    pub(super) fn is_up(&self, up: bool) {
        let gauge = self.metrics.up.with_label_values(&[&self.upstream]);
        gauge.set(i64::from(up));
    }

    /// The upstream said how many requests it still allows.
    pub(super) fn allows(&self, left: i64) {
        self.metrics.left.with_label_values(&[&self.upstream]).set(left);
    }

    /// The upstream said how many requests it allows.
    pub(super) fn limits_to(&self, limit: i64) {
        self.metrics.limit.with_label_values(&[&self.upstream]).set(limit);
    }

    /// The upstream came to this phase.
    pub(super) fn phase(&self, now: Phase) {
        for phase in Phase::ALL {
            let labels = [self.upstream.as_str(), phase.as_str()];
            self.metrics
                .phase
                .with_label_values(&labels)
                .set(i64::from(phase == now));
        }
        if matches!(now, Phase::Open | Phase::Resting) {
            let labels = [self.upstream.as_str(), now.as_str()];
            self.metrics.opened.with_label_values(&labels).inc();
        }
    }

    /// Requests that wait for a place.
    pub(super) fn waiting(&self) -> IntGauge {
        self.metrics.waiting.with_label_values(&[&self.upstream])
    }

    /// Counts a request that was not sent.
    pub(super) fn refused(&self, reason: &str) {
        self.metrics
            .refused
            .with_label_values(&[self.upstream.as_str(), reason])
            .inc();
    }

    /// What it is called.
    pub(super) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// The requests of a class that are under way.
    pub(super) fn inside(&self, class: Class) -> IntGauge {
        self.metrics
            .inside
            .with_label_values(&[self.upstream.as_str(), class.as_str()])
    }

    fn request(&self, status: &str) {
        self.metrics
            .requests
            .with_label_values(&[self.upstream.as_str(), status])
            .inc();
    }
}

/// Registers `made`, or finds what an earlier room registered under its name.
fn register<C>(registry: &Registry, made: prometheus::Result<C>) -> C
where
    C: prometheus::core::Collector + Clone + 'static,
{
    let collector = made.expect("names and labels are constants that obey the rules");
    // A second assembly of the rooms (a reload) brings its own Metrics along and never gets here
    // twice with one registry; should it, counting apart is better than not starting.
    let _ = registry.register(Box::new(collector.clone()));
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_rely_on_are_there() {
        let registry = Registry::new();
        let series = Metrics::new(&registry).of("docker.io");

        series.answered(200);
        series.unanswered();
        series.received.inc_by(7);
        series.is_up(true);

        let mut text = String::new();
        let encoder = prometheus::TextEncoder::new();
        encoder.encode_utf8(&registry.gather(), &mut text).unwrap();
        for line in [
            r#"wharf_parent_requests_total{status="200",upstream="docker.io"} 1"#,
            r#"wharf_parent_requests_total{status="error",upstream="docker.io"} 1"#,
            r#"wharf_parent_bytes_total{direction="down",upstream="docker.io"} 7"#,
            r#"wharf_parent_up{upstream="docker.io"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
