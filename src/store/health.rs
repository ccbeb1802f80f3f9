//! Whether the disk takes what it is given.

use std::io;

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

    /// The disk refused; a full budget is no fault of the disk, nor are too many open files.
    pub(super) fn note(&self, error: &Error) {
        let Error::Io { source, .. } = error else { return };
        if is_ours(source) {
            return;
        }
        let mut trouble = self.trouble.lock();
        if trouble.replace(format!("{error}: {source}")).is_none() {
            tracing::error!(%error, %source, "the disk refuses to be written to; pulls go through unkept");
        }
        self.degraded.set(1);
    }

    /// The disk took something.
    pub(super) fn clear(&self) {
        // Looked at before it is locked: this is called for every write.
        if self.degraded.get() == 0 {
            return;
        }
        let mut trouble = self.trouble.lock();
        if trouble.take().is_some() {
            tracing::info!("the disk can be written to again");
        }
        self.degraded.set(0);
    }

    /// In words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

/// Whether the fault is this process's and says nothing of the file: too many are open, memory is short.
pub(super) fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn too_many_open_files_say_nothing_of_the_disk() {
        let health = Health::new(IntGauge::new("degraded", "1 if so").unwrap());
        let note = |number| {
            health.note(&Error::io("opening", Path::new("x"))(io::Error::from_raw_os_error(
                number,
            )))
        };

        note(libc::EMFILE);
        assert_eq!(health.trouble(), None);

        note(libc::EIO);
        assert!(health.trouble().is_some());
        health.clear();
        assert_eq!(health.trouble(), None);
    }
}
