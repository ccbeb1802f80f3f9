use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::Limit;

/// What fetching shows of itself.
#[derive(Clone)]
pub struct Metrics {
    /// Transfers under way.
    pub(super) flights: IntGauge,
    /// Ranges so far ahead of their flight that they were asked for on their own.
    pub(super) ranged: IntCounter,
    /// Transfers whose bytes were not what was asked for.
    pub(super) corrupt: IntCounter,
    /// Transfers that were not begun, as they had ended wrong again and again.
    pub(super) distrusted: IntCounter,
    /// Transfers that went through without being kept.
    pub(super) unkept: IntCounter,
    /// Transfers that were continued after a cut.
    pub(super) resumed: IntCounter,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers in `registry`. `refused` counts what limits refuse, by `limit`.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(registry: &Registry, refused: &IntCounterVec) -> prometheus::Result<Self> {
        let metrics = Self {
            flights: IntGauge::new("wharf_flights", "Transfers under way")?,
            ranged: IntCounter::new(
                "wharf_parent_ranged_requests_total",
                "Ranges that did not wait for the transfer under way",
            )?,
            corrupt: IntCounter::new(
                "wharf_corrupt_transfers_total",
                "Transfers whose bytes were not what was asked for",
            )?,
            distrusted: IntCounter::new(
                "wharf_distrusted_transfers_total",
                "Transfers that were not begun for a while, as they had brought wrong content again and again",
            )?,
            unkept: IntCounter::new(
                "wharf_unkept_transfers_total",
                "Transfers that found no room on disk and went through unkept",
            )?,
            resumed: IntCounter::new(
                "wharf_resumed_transfers_total",
                "Times that a transfer asked for its rest again",
            )?,
            refused: refused.clone(),
        };
        registry.register(Box::new(metrics.flights.clone()))?;
        registry.register(Box::new(metrics.ranged.clone()))?;
        registry.register(Box::new(metrics.corrupt.clone()))?;
        registry.register(Box::new(metrics.distrusted.clone()))?;
        registry.register(Box::new(metrics.unkept.clone()))?;
        registry.register(Box::new(metrics.resumed.clone()))?;
        for limit in Limit::ALL {
            refused.with_label_values(&[limit.as_str()]);
        }
        Ok(metrics)
    }

    pub(super) fn refused(&self, limit: Limit) {
        self.refused.with_label_values(&[limit.as_str()]).inc();
    }
}
