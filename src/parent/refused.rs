//! What was refused a moment ago and need not be asked again: one bad login makes no storm.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::units::Clock;

/// A login that was refused is taken for bad for so long.
pub(super) const LOGIN: Duration = Duration::from_secs(30);

/// Who is refused without a login, or though his login is good, waits as long as for what does not exist.
pub(super) const ANONYMOUS: Duration = Duration::from_secs(5);

/// So many repositories are remembered; with more, all are forgotten.
const MOST: usize = 4096;

/// What is refused, and until when.
#[derive(Debug)]
pub(super) struct Refused {
    /// By repository; none: everything. With the status that says why.
    until: Mutex<HashMap<Option<String>, (Instant, u16)>>,
    clock: Clock,
}

impl Refused {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            until: Mutex::default(),
            clock,
        }
    }

    /// `repository` was refused, or everything: 401, our login, or 403, the repository to our account.
    pub(super) fn remember(&self, repository: Option<&str>, status: u16, span: Duration) {
        let mut until = self.until.lock();
        if until.len() >= MOST {
            until.clear();
        }
        until.insert(repository.map(str::to_owned), (self.clock.now() + span, status));
    }

    /// Nothing was.
    pub(super) fn forget(&self) {
        self.until.lock().clear();
    }

    /// Whether `repository` or everything was refused lately, and with which status.
    pub(super) fn holds(&self, repository: &str) -> Option<u16> {
        let until = self.until.lock();
        if until.is_empty() {
            return None;
        }
        let holds = |key: &Option<String>| {
            let (until, status) = until.get(key)?;
            (*until > self.clock.now()).then_some(*status)
        };
        holds(&None).or_else(|| holds(&Some(repository.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_its_repository_or_for_all_and_for_its_time() {
        let (clock, hand) = Clock::manual();
        let refused = Refused::new(clock);

        refused.remember(Some("a"), 403, LOGIN);
        assert_eq!((refused.holds("a"), refused.holds("b")), (Some(403), None));
        refused.remember(None, 401, ANONYMOUS);
        assert_eq!(refused.holds("b"), Some(401));

        hand.advance(ANONYMOUS);
        assert_eq!((refused.holds("a"), refused.holds("b")), (Some(403), None));
        hand.advance(LOGIN);
        assert_eq!(refused.holds("a"), None);
    }
}
