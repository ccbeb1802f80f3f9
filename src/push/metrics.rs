use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::Limit;

/// What is counted of pushes.
#[derive(Clone)]
pub struct Metrics {
    /// Uploads that are open.
    pub(super) uploads: IntGauge,
    /// Bytes that came.
    pub(super) bytes: IntCounter,
    /// Uploads that took too long.
    pub(super) expired: IntCounter,
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
            uploads: IntGauge::new("wharf_uploads", "Uploads that are open")?,
            bytes: IntCounter::new(
                "wharf_pushed_bytes_total",
                "Bytes of blobs and manifests that clients pushed",
            )?,
            expired: IntCounter::new("wharf_uploads_expired_total", "Uploads that took too long")?,
            refused: refused.clone(),
        };
        registry.register(Box::new(metrics.uploads.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.expired.clone()))?;
        for limit in Limit::ALL {
            refused.with_label_values(&[limit.as_str()]);
        }
        Ok(metrics)
    }

    pub(super) fn refused(&self, limit: Limit) {
        self.refused.with_label_values(&[limit.as_str()]).inc();
    }
}
