//! Whether the disk takes what it is given.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Error;

/// How long nothing is evicted for a full disk after that did not help: who fills it may have gone by then.
pub(super) const IN_VAIN: Duration = Duration::from_mins(10);

/// What the disk last refused, until it takes something again.
pub(super) struct Health {
    trouble: Mutex<Option<String>>,
    /// When eviction last made no room on a full disk. Behind `trouble` where both are held.
    in_vain: Mutex<Option<Instant>>,
    /// Whether there is trouble, for whoever would rather not lock.
    is_refused: AtomicBool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            trouble: Mutex::new(None),
            in_vain: Mutex::new(None),
            is_refused: AtomicBool::new(false),
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
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// The disk took something.
    pub(super) fn clear(&self) {
        // Looked at before it is locked: this is called for every write.
        if !self.is_refused.load(Ordering::Relaxed) {
            return;
        }
        let mut trouble = self.trouble.lock();
        if trouble.take().is_some() {
            tracing::info!("the disk can be written to again");
        }
        *self.in_vain.lock() = None;
        self.is_refused.store(false, Ordering::Relaxed);
    }

    /// Whether evicting may make room on a full disk: a quota or a snapshot does not give back what leaves.
    pub(super) fn is_relief_worth(&self, now: Instant) -> bool {
        self.in_vain
            .lock()
            .is_none_or(|when| now.saturating_duration_since(when) >= IN_VAIN)
    }

    /// The disk is as full as before something left for it.
    pub(super) fn was_relieved_in_vain(&self, now: Instant) {
        *self.in_vain.lock() = Some(now);
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
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn relief_that_did_not_help_is_not_repeated_until_a_write_works() {
        let health = Health::new();
        let now = Instant::now();
        assert!(health.is_relief_worth(now));

        health.was_relieved_in_vain(now);
        health.note(&Error::io("writing", Path::new("x"))(io::Error::from_raw_os_error(
            libc::ENOSPC,
        )));
        assert!(!health.is_relief_worth(now));
        assert!(health.is_relief_worth(now + IN_VAIN));

        health.clear();
        assert!(health.is_relief_worth(now));
    }

    #[test]
    fn too_many_open_files_say_nothing_of_the_disk() {
        let health = Health::new();
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
