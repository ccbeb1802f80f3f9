use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What became of lines, counted.
#[derive(Clone)]
pub struct Metrics {
    lost: IntCounterVec,
    failures: IntCounterVec,
}

/// Of one log.
#[derive(Clone)]
pub struct Counted {
    pub(super) lost: IntCounter,
    pub(super) failures: IntCounter,
}

impl Metrics {
    /// Registers what is counted here.
    ///
    /// # Errors
    ///
    /// Names that are taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["log"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            lost: counter(
                "wharf_log_lost_lines_total",
                "Lines of logs that were lost, as too many waited to be written",
            )?,
            failures: counter(
                "wharf_log_failures_total",
                "Attempts to write lines of logs that failed; they are tried again",
            )?,
        })
    }

    /// Of the log of this name; the closed set of the label `log`: `audit`, `requests`.
    pub fn of(&self, log: &str) -> Counted {
        Counted {
            lost: self.lost.with_label_values(&[log]),
            failures: self.failures.with_label_values(&[log]),
        }
    }
}

impl Counted {
    /// Shown nowhere.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Metrics::new(&Registry::new()).expect("an empty registry").of("test")
    }
}
