//! What was refused a moment ago and need not be asked again: one bad login makes no storm.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::units::Clock;

/// A login that was refused is taken for bad for so long.
pub(super) const LOGIN: Duration = Duration::from_secs(30);

/// Who is refused without a login waits as long as for what does not exist.
pub(super) const ANONYMOUS: Duration = Duration::from_secs(5);

/// So many repositories are remembered; with more, all are forgotten.
const MOST: usize = 4096;

/// What is refused, and until when.
#[derive(Debug)]
pub(super) struct Refused {
    /// By repository; none: everything.
    until: Mutex<HashMap<Option<String>, Instant>>,
    clock: Clock,
}

impl Refused {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            until: Mutex::default(),
            clock,
        }
    }

    /// `repository` was refused, or everything.
    pub(super) fn remember(&self, repository: Option<&str>, span: Duration) {
        let mut until = self.until.lock();
        if until.len() >= MOST {
            until.clear();
        }
        until.insert(repository.map(str::to_owned), self.clock.now() + span);
    }

    /// Nothing was.
    pub(super) fn forget(&self) {
        self.until.lock().clear();
    }

    /// Whether `repository` or everything was refused lately.
    pub(super) fn holds(&self, repository: &str) -> bool {
        let until = self.until.lock();
        if until.is_empty() {
            return false;
        }
        let holds = |key: &Option<String>| until.get(key).is_some_and(|until| *until > self.clock.now());
        holds(&None) || holds(&Some(repository.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_its_repository_or_for_all_and_for_its_time() {
        let (clock, hand) = Clock::manual();
        let refused = Refused::new(clock);

        refused.remember(Some("a"), LOGIN);
        assert!(refused.holds("a") && !refused.holds("b"));
        refused.remember(None, ANONYMOUS);
        assert!(refused.holds("b"));

        hand.advance(ANONYMOUS);
        assert!(refused.holds("a") && !refused.holds("b"));
        hand.advance(LOGIN);
        assert!(!refused.holds("a"));
    }
}
