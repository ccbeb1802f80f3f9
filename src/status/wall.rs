//! Whether the clock on the wall is set: a machine without a battery starts in 1970.
//!
//! A node works all the same, as it counts spans on a clock that nobody sets. Only certificates are judged by the wall.

use std::time::Duration;

use prometheus::{IntGauge, Registry};

use crate::units::Clock;

/// How soon it is seen that the clock was set.
const LOOK: Duration = Duration::from_secs(1);

/// The clock, as the operator should know of it.
#[derive(Clone)]
pub struct Wall {
    clock: Clock,
    unset: IntGauge,
}

impl Wall {
    /// With its gauge.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(clock: Clock, metrics: &Registry) -> prometheus::Result<Self> {
        let unset = IntGauge::new(
            "wharf_clock_unset",
            "1 while the machine's clock is before the day this program was built",
        )?;
        metrics.register(Box::new(unset.clone()))?;
        Ok(Self { clock, unset })
    }

    /// What is wrong with it, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        (!self.clock.is_set()).then(|| self.clock.unset())
    }

    pub(super) fn observe(&self) {
        self.unset.set(i64::from(!self.clock.is_set()));
    }

    /// Says when the clock is not set, and when it is again. Runs for ever.
    pub async fn watch(self) {
        let mut was_set = true;
        loop {
            let is_set = self.clock.is_set();
            match (was_set, is_set) {
                (true, false) => tracing::warn!(reason = self.clock.unset(), "clock not set"),
                (false, true) => tracing::info!("clock set"),
                _ => {}
            }
            was_set = is_set;
            tokio::time::sleep(LOOK).await;
        }
    }
}
