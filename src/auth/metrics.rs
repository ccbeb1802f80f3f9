use prometheus::{IntCounterVec, Opts, Registry};

/// Logins, counted.
#[derive(Clone)]
pub struct Metrics {
    failures: IntCounterVec,
}

/// The closed set of the label `reason`.
const REASONS: [&str; 3] = ["password", "token", "too-many"];

impl Metrics {
    /// Registers what is counted here.
    ///
    /// # Errors
    ///
    /// Names that are taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "wharf_auth_failures_total",
            "Logins that failed, and tokens that were not good",
        );
        let failures = IntCounterVec::new(options, &["reason"])?;
        registry.register(Box::new(failures.clone()))?;
        for reason in REASONS {
            failures.with_label_values(&[reason]);
        }
        Ok(Self { failures })
    }

    pub(super) fn failed(&self, reason: &str) {
        self.failures.with_label_values(&[reason]).inc();
    }
}
