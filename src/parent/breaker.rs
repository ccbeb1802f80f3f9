//! Whether an upstream is asked at all, by what its last answers were. Pure: time and chance come in.
//!
//! ```text
//!            no connection, no header, five failures in a row
//!   Closed ---------------------------------------------------> Open
//!    ^  ^  \                                                  /   |
//!    |  |   `--- asked too often ---> Resting <--------------'    |
//!    |  |                                |  its time is over      |
//!    |  '----- answered ----- Trying <---'                        |
//!    |                        (one at a time) <--- a probe is answered, after failures
//!    '-------------------------------------------- a probe is answered, after silence
//! ```

use std::time::{Duration, Instant};

use super::error::Error;

/// Failures in a row that open it. One is the bad moment of one request.
const FAILURES: u32 = 5;

/// Between two probes: the first, and what that grows to.
const PROBE_FIRST: Duration = Duration::from_millis(250);
const PROBE_MOST: Duration = Duration::from_secs(15);

/// How long an upstream rests that does not say for how long: at least, and what that grows to.
const REST_LEAST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_secs(5 * 60);

/// No upstream can silence us for longer by asking for it.
const REST_WISHED: Duration = Duration::from_secs(60 * 60);

/// What a request told of its upstream.
#[derive(Clone, Debug)]
pub(super) enum Sign {
    /// An answer, good or bad, that only concerns what was asked for.
    Answered,
    /// It failed, or broke the connection before an answer.
    Failing(Error),
    /// No connection, or no header in time.
    Away(Error),
    /// It wants to be left alone; the error says for how long, if it said so.
    Limiting(Error),
}

/// Whether a request may be sent.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It may.
    Go,
    /// It may, and nobody else until it is answered. To be given back with [`Breaker::leave`].
    Try(Turn),
    /// After another, that is under way. The error tells why.
    Queue(Error),
    /// After a probe that is answered. The error tells why.
    Probe(Error),
    /// Not before a while. The error tells why, and how long.
    Refuse(Error),
}

/// The one request that may be sent while all others wait for its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Turn(u64);

/// What it is, for metrics and logs; a closed set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Closed,
    Open,
    Resting,
    Trying,
}

/// Of one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// In a row.
    failures: u32,
    /// Probes, or wishes to rest, since a request was answered.
    setbacks: u32,
    turns: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Open {
        reason: Error,
        kind: Kind,
        probe_at: Instant,
    },
    Resting {
        reason: Error,
        until: Instant,
    },
    Trying {
        reason: Error,
        turn: Option<Turn>,
    },
}

/// Why it is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Away,
    Failing,
}

impl Phase {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::Resting, Self::Trying];

    /// As in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Resting => "resting",
            Self::Trying => "trying",
        }
    }
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            setbacks: 0,
            turns: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::Resting { .. } => Phase::Resting,
            State::Trying { .. } => Phase::Trying,
        }
    }

    /// Whether a request may be sent now.
    pub(super) fn admit(&mut self, now: Instant) -> Verdict {
        self.wake(now);
        match &mut self.state {
            State::Closed => Verdict::Go,
            State::Open { reason, .. } => Verdict::Probe(reason.clone()),
            State::Resting { reason, until } => Verdict::Refuse(reason.clone().asking_for(*until - now)),
            State::Trying { reason, turn: Some(_) } => Verdict::Queue(reason.clone()),
            State::Trying { turn, .. } => {
                self.turns += 1;
                let taken = Turn(self.turns);
                *turn = Some(taken);
                Verdict::Try(taken)
            }
        }
    }

    /// Why whoever has something else to serve need not ask now; `None`: a request would be sent at once.
    pub(super) fn away(&mut self, now: Instant) -> Option<Error> {
        self.wake(now);
        match &self.state {
            State::Closed | State::Trying { turn: None, .. } => None,
            State::Resting { reason, until } => Some(reason.clone().asking_for(*until - now)),
            State::Open { reason, .. } | State::Trying { reason, .. } => Some(reason.clone()),
        }
    }

    /// A request told something. `chance` is between 0 and 1.
    pub(super) fn observe(&mut self, sign: Sign, now: Instant, chance: f64) {
        match sign {
            Sign::Answered => {
                self.failures = 0;
                // One that was sent before does not end a rest.
                if !matches!(self.state, State::Resting { .. }) {
                    self.setbacks = 0;
                    self.state = State::Closed;
                }
            }
            Sign::Limiting(reason) => self.rest(reason, now, chance),
            Sign::Away(reason) => self.open(reason, Kind::Away, now, chance),
            Sign::Failing(reason) => {
                self.failures += 1;
                let is_trial = matches!(self.state, State::Trying { .. });
                if self.failures >= FAILURES || is_trial {
                    self.open(reason, Kind::Failing, now, chance);
                }
            }
        }
    }

    /// When the next probe is due; `None` while there is nothing to probe.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            _ => None,
        }
    }

    /// A probe was answered, or told that it is still as it was. `chance` is between 0 and 1.
    pub(super) fn probed(&mut self, sign: Sign, now: Instant, chance: f64) {
        let State::Open { reason, kind, probe_at } = &mut self.state else {
            return;
        };
        match (sign, *kind) {
            (Sign::Answered, Kind::Away) => {
                self.failures = 0;
                self.state = State::Closed;
            }
            // What failed may do so again, though the registry's front door is open.
            (Sign::Answered, Kind::Failing) => {
                let reason = reason.clone();
                self.state = State::Trying { reason, turn: None };
            }
            (Sign::Limiting(reason), _) => self.rest(reason, now, chance),
            (Sign::Away(error) | Sign::Failing(error), _) => {
                self.setbacks = self.setbacks.saturating_add(1);
                *reason = error;
                *probe_at = now + probe_pause(self.setbacks, chance);
            }
        }
    }

    /// The request of `turn` ended, whether it told something or not.
    pub(super) fn leave(&mut self, turn: Turn) {
        if let State::Trying { turn: current, .. } = &mut self.state
            && *current == Some(turn)
        {
            *current = None;
        }
    }

    /// After a rest requests are tried one by one.
    fn wake(&mut self, now: Instant) {
        if let State::Resting { reason, until } = &self.state
            && *until <= now
        {
            let reason = reason.clone();
            self.state = State::Trying { reason, turn: None };
        }
    }

    fn open(&mut self, reason: Error, kind: Kind, now: Instant, chance: f64) {
        match &mut self.state {
            State::Open { reason: old, .. } => *old = reason,
            State::Resting { .. } => {}
            State::Closed | State::Trying { .. } => {
                let probe_at = now + probe_pause(self.setbacks, chance);
                self.setbacks = self.setbacks.saturating_add(1);
                self.state = State::Open { reason, kind, probe_at };
            }
        }
    }

    fn rest(&mut self, reason: Error, now: Instant, chance: f64) {
        let wish = reason.retry_after().filter(|wish| !wish.is_zero());
        let wished = wish.map(|wish| now + wish.min(REST_WISHED));
        if let State::Resting { until, .. } = &mut self.state {
            // Many that were under way are told the same.
            *until = wished.map_or(*until, |wished| wished.max(*until));
            return;
        }
        let until = wished.unwrap_or_else(|| now + rest_pause(self.setbacks, chance));
        self.setbacks = self.setbacks.saturating_add(1);
        self.failures = 0;
        self.state = State::Resting { reason, until };
    }
}

/// Half of it by chance, so that many nodes do not knock together.
fn probe_pause(setbacks: u32, chance: f64) -> Duration {
    let most = PROBE_FIRST.saturating_mul(1 << setbacks.min(10)).min(PROBE_MOST);
    most.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// All of it by chance, as nobody waits for it.
fn rest_pause(setbacks: u32, chance: f64) -> Duration {
    let most = (REST_LEAST * 2).saturating_mul(1 << setbacks.min(10)).min(REST_MOST);
    REST_LEAST + (most - REST_LEAST).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Error {
        Error::Failed {
            layer: "l5".to_owned(),
            status: 500,
            message: "no more".to_owned(),
            told: false,
            retry_after: None,
        }
    }

    fn away() -> Error {
        Error::TimedOut {
            layer: "l5".to_owned(),
            after: Duration::from_secs(5),
        }
    }

    fn limits(seconds: Option<u64>) -> Sign {
        Sign::Limiting(Error::TooMany {
            layer: "l5".to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> (Breaker, Instant) {
        (Breaker::new(), Instant::now())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_silence_opens_it_and_one_answered_probe_closes_it() {
        let (mut breaker, now) = start();
        assert!(matches!(breaker.admit(now), Verdict::Go));

        breaker.observe(Sign::Away(away()), now, 1.0);

        assert!(matches!(breaker.admit(now), Verdict::Probe(Error::TimedOut { .. })));
        assert!(breaker.away(now).is_some());
        assert_eq!(breaker.probe_at(), Some(now + PROBE_FIRST));
        breaker.probed(Sign::Answered, now, 1.0);
        assert!(matches!(breaker.admit(now), Verdict::Go));
        assert!(breaker.away(now).is_none());
    }

    #[test]
    fn failures_open_it_at_the_fifth_in_a_row_and_an_answer_between_begins_anew() {
        let (mut breaker, now) = start();
        for _ in 0..4 {
            breaker.observe(Sign::Failing(failed()), now, 0.0);
        }
        breaker.observe(Sign::Answered, now, 0.0);
        for _ in 0..4 {
            breaker.observe(Sign::Failing(failed()), now, 0.0);
            assert_eq!(breaker.phase(), Phase::Closed);
        }

        breaker.observe(Sign::Failing(failed()), now, 0.0);

        assert_eq!(breaker.phase(), Phase::Open);
    }

    #[test]
    fn after_failures_an_answered_probe_lets_one_request_try_and_its_failure_opens_it_for_longer() {
        let (mut breaker, now) = start();
        for _ in 0..5 {
            breaker.observe(Sign::Failing(failed()), now, 1.0);
        }
        let first = breaker.probe_at().unwrap() - now;
        breaker.probed(Sign::Answered, now, 1.0);

        let Verdict::Try(_) = breaker.admit(now) else {
            panic!("{:?}", breaker.phase())
        };
        assert!(matches!(breaker.admit(now), Verdict::Queue(_)));
        breaker.observe(Sign::Failing(failed()), now, 1.0);

        assert!(breaker.probe_at().unwrap() - now > first);
    }

    #[test]
    fn a_turn_that_told_nothing_is_given_back_and_an_older_one_frees_no_newer() {
        let (mut breaker, now) = start();
        breaker.observe(limits(Some(1)), now, 0.0);
        let later = now + SECOND;
        let Verdict::Try(first) = breaker.admit(later) else {
            panic!()
        };
        breaker.leave(first);
        let Verdict::Try(second) = breaker.admit(later) else {
            panic!()
        };

        breaker.leave(first);

        assert_ne!(first, second);
        assert!(matches!(breaker.admit(later), Verdict::Queue(_)));
    }

    #[test]
    fn a_wish_to_rest_is_kept_to_the_second_then_one_tries_and_its_answer_closes_it() {
        let (mut breaker, now) = start();
        breaker.observe(limits(Some(7)), now, 0.0);

        let Verdict::Refuse(error) = breaker.admit(now + 2 * SECOND) else {
            panic!()
        };
        assert_eq!(error.retry_after(), Some(5 * SECOND));
        // What was under way when the wish came changes nothing.
        breaker.observe(Sign::Answered, now + 2 * SECOND, 0.0);
        breaker.observe(Sign::Away(away()), now + 2 * SECOND, 0.0);
        assert!(matches!(breaker.admit(now + 6 * SECOND), Verdict::Refuse(_)));
        assert!(breaker.away(now + 7 * SECOND).is_none());
        assert!(matches!(breaker.admit(now + 7 * SECOND), Verdict::Try(_)));
        assert!(breaker.away(now + 7 * SECOND).is_some());
        breaker.observe(Sign::Answered, now + 7 * SECOND, 0.0);
        assert!(matches!(breaker.admit(now + 7 * SECOND), Verdict::Go));
    }

    #[test]
    fn a_rest_without_a_wish_grows_from_a_second_to_five_minutes_and_many_at_once_count_as_one() {
        let rest = |breaker: &mut Breaker, now| match breaker.admit(now) {
            Verdict::Refuse(error) => error.retry_after().unwrap(),
            other => panic!("{other:?}"),
        };
        let (mut breaker, mut now) = start();
        for _ in 0..50 {
            breaker.observe(limits(None), now, 0.0);
        }
        assert_eq!(rest(&mut breaker, now), REST_LEAST);

        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            now += REST_MOST;
            assert!(matches!(breaker.admit(now), Verdict::Try(_)));
            breaker.observe(limits(None), now, 1.0);
            assert!(rest(&mut breaker, now) >= longest);
            longest = rest(&mut breaker, now);
        }
        assert_eq!(longest, REST_MOST);
    }

    #[test]
    fn no_wish_is_longer_than_an_hour_and_one_for_nothing_is_none() {
        for (wish, kept) in [(99_999, REST_WISHED), (0, REST_LEAST)] {
            let (mut breaker, now) = start();
            breaker.observe(limits(Some(wish)), now, 0.0);

            let Verdict::Refuse(error) = breaker.admit(now) else {
                panic!()
            };
            assert_eq!(error.retry_after(), Some(kept));
        }
    }

    #[test]
    fn probes_grow_rare_up_to_fifteen_seconds() {
        let (mut breaker, mut now) = start();
        breaker.observe(Sign::Away(away()), now, 0.5);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let at = breaker.probe_at().unwrap();
            pauses.push(at - now);
            now = at;
            breaker.probed(Sign::Away(away()), now, 0.5);
        }

        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses[0] < Duration::from_millis(250) && pauses[11] > 10 * SECOND);
        assert!(pauses.iter().all(|pause| *pause <= PROBE_MOST));
    }
}
