use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Error;

/// For how long it is told that there was no room.
const LATELY: Duration = Duration::from_secs(5 * 60);

/// The last push that found no room.
#[derive(Default)]
pub(super) struct Full {
    last: Mutex<Option<(Instant, String)>>,
}

impl Full {
    /// A push was refused for `error`. It is in the log once, until there was room for a while.
    pub(super) fn note(&self, now: Instant, error: &Error) {
        if self.lately(now).is_none() {
            tracing::error!(%error, "a push finds no room");
        }
        *self.last.lock() = Some((now, error.to_string()));
    }

    /// In words.
    pub(super) fn lately(&self, now: Instant) -> Option<String> {
        let last = self.last.lock();
        let (when, words) = last.as_ref()?;
        (now.saturating_duration_since(*when) < LATELY).then(|| format!("pushes find no room: {words}"))
    }
}
