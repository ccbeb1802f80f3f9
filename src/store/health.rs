//! Whether the disk takes what it is given.

use parking_lot::Mutex;
use prometheus::IntGauge;

use super::Error;

/// What the disk last refused, until it takes something again.
pub(super) struct Health {
    trouble: Mutex<Option<String>>,
    degraded: IntGauge,
}

impl Health {
    pub(super) fn new(degraded: IntGauge) -> Self {
        Self {
            trouble: Mutex::new(None),
            degraded,
        }
    }

    /// The disk refused; a full budget is no fault of the disk.
    pub(super) fn note(&self, error: &Error) {
        let Error::Io { source, .. } = error else { return };
        let before = self.trouble.lock().replace(format!("{error}: {source}"));
        if before.is_none() {
            tracing::error!(%error, %source, "the disk refuses to be written to; pulls go through unkept");
        }
        self.degraded.set(1);
    }

    /// The disk took something.
    pub(super) fn clear(&self) {
        // Looked at before it is locked: this is called for every write.
        if self.degraded.get() != 0 && self.trouble.lock().take().is_some() {
            tracing::info!("the disk can be written to again");
            self.degraded.set(0);
        }
    }

    /// In words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}
