//! What is counted of synchronisation.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::State;

/// How far it is behind, and how often it was made up for.
#[derive(Clone)]
pub struct Metrics {
    /// Seconds since all that is selected was last known to be here.
    pub(super) lag: IntGauge,
    passes: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// They are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lag = IntGauge::new(
            "wharf_sync_lag_seconds",
            "Seconds since all that [[sync]] selects was last known to be here",
        )?;
        let passes = IntCounterVec::new(
            Opts::new(
                "wharf_sync_passes_total",
                "Passes over what is selected, or was asked for",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(passes.clone()))?;
        for outcome in ["succeeded", "failed"] {
            passes.with_label_values(&[outcome]);
        }
        Ok(Self { lag, passes })
    }

    pub(super) fn ended(&self, state: State) {
        let outcome = if state == State::Succeeded {
            "succeeded"
        } else {
            "failed"
        };
        self.passes.with_label_values(&[outcome]).inc();
    }
}
