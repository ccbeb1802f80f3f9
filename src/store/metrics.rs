use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::ledger::Ledger;

/// What the store shows of itself. Names are fixed for dashboards.
#[derive(Clone)]
pub struct Metrics {
    bytes: IntGaugeVec,
    capacity: IntGauge,
    free: IntGauge,
    evicted: IntCounter,
    /// Files that were gone when they were to be read.
    pub(super) vanished: IntCounter,
    /// Files that failed their digest after they were committed.
    pub(super) quarantined: IntCounter,
    /// Batches of rows that the index refused.
    pub(super) index_errors: IntCounter,
    /// 1 while the disk refuses to be written to.
    pub(super) degraded: IntGauge,
}

impl Metrics {
    /// Registers in `registry`.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            bytes: IntGaugeVec::new(
                Opts::new("wharf_storage_bytes", "Bytes on disk, by what they are"),
                &["state"],
            )?,
            capacity: IntGauge::new("wharf_storage_capacity_bytes", "Everything wharf may keep on disk")?,
            free: IntGauge::new(
                "wharf_storage_free_bytes",
                "Bytes free on the file system of the store, whatever its capacity",
            )?,
            vanished: IntCounter::new("wharf_vanished_total", "Stored files that somebody else removed")?,
            evicted: IntCounter::new("wharf_evicted_bytes_total", "Bytes of content that left to make room")?,
            quarantined: IntCounter::new("wharf_quarantined_total", "Stored files that failed their digest")?,
            index_errors: IntCounter::new(
                "wharf_index_errors_total",
                "Batches of records that could not be written",
            )?,
            degraded: IntGauge::new(
                "wharf_storage_degraded",
                "1 while the disk refuses to be written to and pulls go through unkept",
            )?,
        };
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.capacity.clone()))?;
        registry.register(Box::new(metrics.free.clone()))?;
        registry.register(Box::new(metrics.vanished.clone()))?;
        registry.register(Box::new(metrics.evicted.clone()))?;
        registry.register(Box::new(metrics.quarantined.clone()))?;
        registry.register(Box::new(metrics.index_errors.clone()))?;
        registry.register(Box::new(metrics.degraded.clone()))?;
        Ok(metrics)
    }

    pub(super) fn see_free(&self, bytes: u64) {
        self.free.set(gauge(bytes));
    }

    pub(super) fn observe(&self, ledger: &Ledger) {
        let set = |state: &str, bytes: u64| self.bytes.with_label_values(&[state]).set(gauge(bytes));
        set("committed", ledger.committed());
        set("reserved", ledger.reserved());
        set("partial", ledger.scraps());
        set("index", ledger.allowance());
        self.capacity.set(gauge(ledger.capacity()));
        self.evicted.inc_by(ledger.evicted().saturating_sub(self.evicted.get()));
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
