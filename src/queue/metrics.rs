use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::config::Conflict;

/// What is counted of the way up.
#[derive(Clone)]
pub struct Metrics {
    items: IntGaugeVec,
    oldest: IntGauge,
    bytes: IntGauge,
    capacity: IntGauge,
    paused: IntGauge,
    pub(super) paid: IntCounter,
    pub(super) lost: IntCounter,
    pub(super) again: IntCounter,
    tries: IntCounterVec,
    conflicts: IntCounterVec,
    undone: IntCounterVec,
}

/// How things stand, for the gauges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) pending: usize,
    pub(super) paying: usize,
    pub(super) waiting: usize,
    pub(super) parked: usize,
    pub(super) held: usize,
    pub(super) oldest_s: u64,
    pub(super) bytes: u64,
    pub(super) capacity: u64,
    pub(super) is_paused: bool,
}

impl Metrics {
    /// Registers in `registry`.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let items = Opts::new(
            "wharf_queue_items",
            "Pushes and deletes that the parent does not have: pending, paying, waiting (after a failure), parked (an operator has to look), held (owed to another parent)",
        );
        let tries = Opts::new(
            "wharf_queue_failures_total",
            "Attempts that did not pay a debt, by what kept them from it",
        );
        let conflicts = Opts::new(
            "wharf_queue_conflicts_total",
            "Tags that were moved here and at the parent, by the policy that settled it",
        );
        let undone = Opts::new(
            "wharf_queue_undone_total",
            "Deletes that the parent was not made to follow, by reason",
        );
        let metrics = Self {
            items: IntGaugeVec::new(items, &["state"])?,
            oldest: IntGauge::new(
                "wharf_queue_oldest_seconds",
                "How long the oldest push that the parent does not have has been waiting",
            )?,
            bytes: IntGauge::new("wharf_queue_bytes", "Bytes on the disk that may exist nowhere else")?,
            capacity: IntGauge::new(
                "wharf_queue_capacity_bytes",
                "As many as may be, before pushes are refused",
            )?,
            paused: IntGauge::new(
                "wharf_queue_paused",
                "1: nothing is delivered, as the parent does not let this node push",
            )?,
            paid: IntCounter::new("wharf_queue_paid_total", "Pushes and deletes that the parent has now")?,
            lost: IntCounter::new(
                "wharf_queue_lost_total",
                "Pushes that the parent had and lost, and of which content is here no more",
            )?,
            again: IntCounter::new(
                "wharf_queue_again_total",
                "Pushes that the parent had and lost, and that are delivered again",
            )?,
            tries: IntCounterVec::new(tries, &["outcome"])?,
            conflicts: IntCounterVec::new(conflicts, &["policy"])?,
            undone: IntCounterVec::new(undone, &["reason"])?,
        };
        for policy in Conflict::ALL {
            metrics.conflicts.with_label_values(&[policy.as_str()]);
        }
        for gauge in [&metrics.oldest, &metrics.bytes, &metrics.capacity, &metrics.paused] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&metrics.paid, &metrics.lost, &metrics.again] {
            registry.register(Box::new(counter.clone()))?;
        }
        for counters in [&metrics.tries, &metrics.conflicts, &metrics.undone] {
            registry.register(Box::new(counters.clone()))?;
        }
        registry.register(Box::new(metrics.items.clone()))?;
        Ok(metrics)
    }

    pub(super) fn see(&self, standing: Standing) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let Standing {
            pending,
            paying,
            waiting,
            parked,
            held,
            oldest_s,
            bytes,
            capacity,
            is_paused,
        } = standing;
        for (state, items) in [
            ("pending", pending),
            ("paying", paying),
            ("waiting", waiting),
            ("parked", parked),
            ("held", held),
        ] {
            set(&self.items.with_label_values(&[state]), items as u64);
        }
        set(&self.oldest, oldest_s);
        set(&self.bytes, bytes);
        set(&self.capacity, capacity);
        set(&self.paused, is_paused.into());
    }

    pub(super) fn failed(&self, label: &str) {
        self.tries.with_label_values(&[label]).inc();
    }

    pub(super) fn conflict(&self, policy: Conflict) {
        self.conflicts.with_label_values(&[policy.as_str()]).inc();
    }

    pub(super) fn undone(&self, reason: &str) {
        self.undone.with_label_values(&[reason]).inc();
    }
}
