//! What a parent sent wrong again and again is not asked for again at once: each time would cost the whole transfer.

use std::time::{Duration, Instant};

use super::Error;
use crate::oci::{Digest, Repository};

/// So often in a row it may be chance.
const CHANCES: u32 = 3;

/// Then for so long, twice as long each further time, up to this.
const FIRST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(10 * 60);

/// How often each digest came wrong from a repository's upstream. Forgotten an hour after the last time.
pub(super) struct Distrust {
    wrong: moka::sync::Cache<(Repository, Digest), Wrong>,
}

#[derive(Clone)]
struct Wrong {
    times: u32,
    until: Instant,
    error: Error,
}

impl Distrust {
    pub(super) fn new() -> Self {
        let wrong = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(Duration::from_secs(60 * 60))
            .build();
        Self { wrong }
    }

    /// It came wrong once more.
    pub(super) fn note(&self, key: (Repository, Digest), error: &Error, now: Instant) {
        let times = self.wrong.get(&key).map_or(1, |wrong| wrong.times.saturating_add(1));
        let wrong = Wrong {
            times,
            until: now + rest(times),
            error: error.clone(),
        };
        self.wrong.insert(key, wrong);
    }

    /// It came right.
    pub(super) fn forget(&self, key: &(Repository, Digest)) {
        self.wrong.invalidate(key);
    }

    /// Why it is not asked for now.
    pub(super) fn refuses(&self, key: &(Repository, Digest), now: Instant) -> Option<Error> {
        let wrong = self.wrong.get(key)?;
        (now < wrong.until).then_some(wrong.error)
    }
}

fn rest(times: u32) -> Duration {
    match times.checked_sub(CHANCES) {
        None => Duration::ZERO,
        Some(further) => FIRST.saturating_mul(1 << further.min(10)).min(MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_time_in_a_row_costs_a_rest_that_grows_to_ten_minutes() {
        let rests: Vec<u64> = (1..=12).map(|times| rest(times).as_secs()).collect();

        assert_eq!(rests, [0, 0, 5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(rest(u32::MAX), MOST);
    }
}
