//! What is wrong with an upstream that answers: for whoever looks at the node and asks nothing of it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::answer::Answer;
use super::error::Error;
use crate::units::Clock;

/// The same upstream's troubles are logged no more often than this, unless the words are others.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Since when questions are refused, and why.
#[derive(Debug)]
pub(super) struct Trouble {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last question; none while they are answered.
    now: Option<Ill>,
    logged: Option<(Instant, String)>,
    /// Whether any question was answered since the start.
    was_well: bool,
}

#[derive(Debug)]
struct Ill {
    since: Instant,
    words: String,
    /// The upstream was left alone, or not to be reached: it is well once it is there again.
    was_away: bool,
}

impl Trouble {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            state: Mutex::default(),
            clock,
        }
    }

    /// Why questions are refused now, and for how long they have been, if the upstream is `away` or not.
    pub(super) fn now(&self, away: bool) -> Option<(Duration, String)> {
        let state = self.state.lock();
        let ill = state.now.as_ref().filter(|ill| away || !ill.was_away)?;
        let lasts = self.clock.now().saturating_duration_since(ill.since);
        Some((lasts, ill.words.clone()))
    }

    /// A question had this outcome, and left the upstream `away` or not.
    pub(super) fn note(&self, upstream: &str, outcome: Result<&Answer, &Error>, away: bool) {
        let words = match outcome {
            // It is there, but the one above it is not.
            Ok(answer) => answer.head.warning.clone(),
            Err(Error::Absent { .. } | Error::RangeUnsatisfiable { .. }) => None,
            Err(Error::Loop { .. } | Error::Spoiled { .. }) => return,
            // As much as the settings allow: nothing is wrong above.
            Err(Error::Busy { .. } | Error::Closed { .. }) => return,
            Err(error) => Some(error.to_string()),
        };
        // Registries refuse strangers what does not exist, too, and an account need not have all.
        let is_forbidden = outcome.err().is_some_and(Error::is_forbidden);
        let mut state = self.state.lock();
        if is_forbidden && state.was_well {
            return;
        }
        let Some(words) = words else {
            state.was_well = true;
            state.now = None;
            return;
        };
        let now = self.clock.now();
        let before = state.now.as_ref().filter(|ill| away || !ill.was_away);
        state.now = Some(Ill {
            since: before.map_or(now, |ill| ill.since),
            words: words.clone(),
            was_away: away,
        });
        let is_news = |(at, said): &(Instant, String)| *said != words || now.duration_since(*at) >= AGAIN;
        // That it is away is in the log already.
        if !away && state.logged.as_ref().is_none_or(is_news) {
            tracing::warn!(upstream, reason = words, "upstream does not give what it is asked for");
            state.logged = Some((now, words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(anonymous: bool) -> Error {
        Error::Denied {
            layer: "l5".to_owned(),
            status: 401,
            anonymous,
            words: None,
        }
    }

    #[test]
    fn a_stranger_who_was_never_served_is_in_trouble_and_one_who_was_is_not() {
        let (clock, hand) = Clock::manual();
        let trouble = Trouble::new(clock);

        trouble.note("l5", Err(&denied(true)), false);
        hand.advance(Duration::from_secs(7));
        trouble.note("l5", Err(&denied(true)), false);
        let (lasts, words) = trouble.now(false).unwrap();
        assert_eq!(lasts, Duration::from_secs(7));
        assert!(words.contains("username"), "{words}");

        *trouble.state.lock() = State {
            was_well: true,
            ..State::default()
        };
        trouble.note("l5", Err(&denied(true)), false);
        assert_eq!(trouble.now(false), None);
        trouble.note("l5", Err(&denied(false)), false);
        assert!(trouble.now(false).is_some());
    }

    #[test]
    fn who_was_away_is_well_again_once_it_is_there() {
        let trouble = Trouble::new(Clock::manual().0);

        trouble.note("l5", Err(&denied(false)), true);

        assert!(trouble.now(true).is_some());
        assert_eq!(trouble.now(false), None);
    }
}
