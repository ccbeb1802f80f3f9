use prometheus::{IntCounter, IntGauge, Registry};

/// What is counted of pushes.
#[derive(Clone)]
pub struct Metrics {
    /// Uploads that are open.
    pub(super) uploads: IntGauge,
    /// Bytes that came.
    pub(super) bytes: IntCounter,
    /// Uploads that took too long.
    pub(super) expired: IntCounter,
}

impl Metrics {
    /// Registers in `registry`.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            uploads: IntGauge::new("wharf_uploads", "Uploads that are open")?,
            bytes: IntCounter::new(
                "wharf_pushed_bytes_total",
                "Bytes of blobs and manifests that clients pushed",
            )?,
            expired: IntCounter::new("wharf_uploads_expired_total", "Uploads that took too long")?,
        };
        registry.register(Box::new(metrics.uploads.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.expired.clone()))?;
        Ok(metrics)
    }
}
