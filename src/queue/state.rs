//! How attempts stand: in memory only, as a restart may try everything anew.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fail::fail_point;

use crate::oci::{Digest, Repository};

/// After a failure it is tried again after a pause that doubles between these, give or take a half by chance.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Who could not be reached is tried soon: whether it is there, others find out.
const SOON: Duration = Duration::from_secs(1);

/// Where it breaks off again and again, what is sent anew each time may be all that the line can carry.
const LONGEST_BREAK: Duration = Duration::from_secs(10);

/// How often a parent that is away is looked for while something waits for it.
pub(super) const SEEK: Duration = Duration::from_secs(2);

/// What takes an operator is tried again all the same: he may have mended it.
const FIRST_DENIAL: Duration = Duration::from_secs(30);
const LONGEST_DENIAL: Duration = Duration::from_secs(10 * 60);
const AFTER_OTHERS: Duration = Duration::from_secs(5);

/// What is parked is tried again after these, as nobody may come to look at it.
const FIRST_PARKING: Duration = Duration::from_secs(60 * 60);
const LONGEST_PARKING: Duration = Duration::from_secs(24 * 60 * 60);

/// Who pays, who waits, and why.
#[derive(Default)]
pub(super) struct State {
    paying: HashMap<Repository, Paying>,
    later: HashMap<Repository, Later>,
    paused: Option<Later>,
    /// Whether the parent took no pushes at all when that was last looked at.
    is_closed: bool,
    /// When each of what is parked is tried again, and how often it was parked.
    parked: HashMap<(Repository, u64), (Instant, u32)>,
    /// How far blobs have got that are not delivered yet.
    reached: HashMap<(Repository, Digest), u64>,
    /// When each repository had its last turn, in turns.
    turns: HashMap<Repository, u64>,
    turn: u64,
    /// When a parent that is away was last sought.
    sought: Option<Instant>,
    /// Debts paid since the start.
    paid: u64,
}

/// What is paid just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Paying {
    pub(super) number: u64,
    /// The blob that began last: it, its bytes, and those of them that the parent had by then.
    pub(super) blob: Option<(Digest, u64, u64)>,
}

/// How an attempt came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The parent could not be reached.
    Way,
    /// It broke off, or said nothing.
    Break,
    /// It had a bad moment.
    Moment,
    /// It does not take this one thing.
    Refusal,
}

/// What is tried again.
#[derive(Clone, Debug)]
pub(super) struct Later {
    pub(super) number: u64,
    failure: Failure,
    until: Instant,
    /// Attempts in a row that came to nothing in the same way.
    pub(super) tries: u32,
    pub(super) words: String,
    /// Whether an operator has to do something.
    pub(super) is_denied: bool,
    /// Debts that were paid before.
    paid: u64,
}

impl Later {
    /// So often something is tried that the parent refuses.
    pub(super) const TRIES: u32 = 3;

    /// So many bad moments in a row are more than that: some four minutes.
    pub(super) const MANY: u32 = 10;

    /// Whether it fails for longer than a moment.
    pub(super) fn is_lasting(&self) -> bool {
        self.failure == Failure::Moment && self.tries >= Self::MANY
    }

    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

impl State {
    /// Whether it is time to look for a parent that is away.
    pub(super) fn seeks(&mut self, now: Instant) -> bool {
        let is_due = self
            .sought
            .is_none_or(|sought| now.saturating_duration_since(sought) >= SEEK);
        if is_due {
            self.sought = Some(now);
        }
        is_due
    }

    pub(super) fn payers(&self) -> usize {
        self.paying.len()
    }

    pub(super) fn is_paying(&self, repository: &Repository) -> bool {
        self.paying.contains_key(repository)
    }

    pub(super) fn paying(&self, repository: &Repository) -> Option<&Paying> {
        self.paying.get(repository)
    }

    pub(super) fn later(&self, repository: &Repository) -> Option<&Later> {
        self.later.get(repository)
    }

    pub(super) fn paused(&self) -> Option<&Later> {
        self.paused.as_ref()
    }

    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        let until = self.paused.as_ref()?.until;
        (until > now).then_some(until)
    }

    pub(super) fn waits_until(&self, repository: &Repository, now: Instant) -> Option<Instant> {
        let until = self.later.get(repository)?.until;
        (until > now).then_some(until)
    }

    /// Who had no turn for longest comes first.
    pub(super) fn in_turn(&self, repositories: &mut [Repository]) {
        repositories.sort_by_key(|repository| self.turns.get(repository).copied());
    }

    pub(super) fn begins(&mut self, repository: &Repository) {
        self.turn += 1;
        self.turns.insert(repository.clone(), self.turn);
        self.paying.insert(repository.clone(), Paying::default());
    }

    pub(super) fn pays(&mut self, repository: &Repository, number: u64) {
        let blob = None;
        self.paying.insert(repository.clone(), Paying { number, blob });
    }

    pub(super) fn sends(&mut self, repository: &Repository, digest: Digest, size: u64, sent: u64) {
        if let Some(paying) = self.paying.get_mut(repository) {
            paying.blob = Some((digest, size, sent));
        }
    }

    pub(super) fn ends(&mut self, repository: &Repository) {
        self.paying.remove(repository);
    }

    /// An attempt came to nothing for a reason that passes.
    pub(super) fn fails(
        &mut self,
        repository: &Repository,
        number: u64,
        words: &str,
        now: Instant,
        wish: Option<Duration>,
        failure: Failure,
    ) -> Later {
        let before = self.before(repository, number, failure);
        let (tries, paid) = before.map_or((1, self.paid), |later| (later.tries + 1, later.paid));
        let longest = match failure {
            Failure::Way => SOON,
            Failure::Break => LONGEST_BREAK,
            Failure::Moment | Failure::Refusal => LONGEST,
        };
        let pause = doubled(FIRST, tries, longest).mul_f64(0.5 + rand::random::<f64>());
        let later = Later {
            number,
            failure,
            until: now + pause.max(wish.unwrap_or_default()),
            tries,
            words: words.to_owned(),
            is_denied: false,
            paid,
        };
        self.later.insert(repository.clone(), later.clone());
        later
    }

    /// Our account may not push there; whether that is new.
    pub(super) fn denies(&mut self, repository: &Repository, number: u64, words: &str, now: Instant) -> bool {
        let before = self.later.get(repository).filter(|later| later.is_denied);
        let (tries, paid) = before.map_or((1, self.paid), |later| (later.tries + 1, later.paid));
        let later = denied(number, tries, words, now, paid);
        self.later.insert(repository.clone(), later);
        tries == 1
    }

    /// Whether others were paid since this repository was first denied.
    pub(super) fn is_shut_alone(&self, repository: &Repository) -> bool {
        let before = self.later.get(repository).filter(|later| later.is_denied);
        before.is_some_and(|later| self.paid > later.paid)
    }

    /// Our account is not let in, as far as this repository can tell: others are tried first after the pause.
    pub(super) fn shuts(&mut self, repository: &Repository, number: u64, words: &str, now: Instant) {
        self.denies(repository, number, words, now + AFTER_OTHERS);
    }

    /// Nothing can be pushed; whether that is new.
    pub(super) fn pauses(&mut self, words: &str, now: Instant) -> bool {
        if let Some(paused) = self.paused.as_mut().filter(|paused| paused.until > now) {
            // Others began before the first failed.
            words.clone_into(&mut paused.words);
            return false;
        }
        let tries = self.paused.as_ref().map_or(0, |paused| paused.tries) + 1;
        self.paused = Some(denied(0, tries, words, now, self.paid));
        tries == 1
    }

    /// Whether the parent takes no pushes at all; once it does, what that kept is tried.
    pub(super) fn sees_closed(&mut self, is_closed: bool) {
        if self.is_closed && !is_closed {
            self.paused = None;
            self.later.retain(|_, later| !later.is_denied);
        }
        self.is_closed = is_closed;
    }

    /// A debt waits for an operator.
    pub(super) fn parks(&mut self, repository: &Repository, number: u64, now: Instant) {
        let (until, times) = self.parked.entry((repository.clone(), number)).or_insert((now, 0));
        *times += 1;
        *until = now + doubled(first_parking(), *times, LONGEST_PARKING);
    }

    /// What is parked and may be tried again; the next time, if it is parked again.
    pub(super) fn unparks(&mut self, now: Instant) -> Vec<(Repository, u64)> {
        let mut due = Vec::new();
        for (item, (until, _)) in &mut self.parked {
            if *until <= now {
                *until = now + LONGEST_PARKING;
                due.push(item.clone());
            }
        }
        due
    }

    /// A debt is parked no more.
    pub(super) fn leaves(&mut self, repository: &Repository, number: u64) {
        self.parked.remove(&(repository.clone(), number));
    }

    /// A debt was paid: what the parent refused it takes again.
    pub(super) fn succeeds(&mut self, repository: &Repository, now: Instant) {
        self.paid += 1;
        self.later.remove(repository);
        self.reached.retain(|(of, _), _| of != repository);
        if self.paused.take().is_some() {
            tracing::info!("the parent takes pushes of this node again");
            self.parked.values_mut().for_each(|(until, _)| *until = now);
        }
    }

    /// The parent has so many bytes of a blob. Where that is more than ever before, it had no bad moment.
    pub(super) fn gets_on(&mut self, repository: &Repository, digest: &Digest, size: u64) {
        let best = self.reached.entry((repository.clone(), *digest)).or_default();
        if size <= *best {
            return;
        }
        *best = size;
        let later = self.later.get_mut(repository);
        if let Some(later) = later.filter(|later| later.failure != Failure::Refusal) {
            later.tries = 0;
        }
    }

    /// Forgets how a repository failed.
    pub(super) fn forget(&mut self, repository: &Repository) {
        self.later.remove(repository);
    }

    /// Forgets all failures: all is tried now.
    pub(super) fn forget_all(&mut self) {
        self.later.clear();
        self.parked.clear();
        self.reached.clear();
        self.turns.clear();
        self.paused = None;
    }

    /// The parent is tried at once.
    pub(super) fn unpause(&mut self) {
        self.paused = None;
    }

    /// Bad moments in a row that the parent had when a repository was to be paid for.
    pub(super) fn moments(&self, repository: &Repository) -> u32 {
        let later = self.later.get(repository);
        let later = later.filter(|later| later.failure == Failure::Moment);
        later.map_or(0, |later| later.tries)
    }

    /// How the same was failed before.
    fn before(&self, repository: &Repository, number: u64, failure: Failure) -> Option<&Later> {
        let later = self.later.get(repository);
        later.filter(|later| later.number == number && later.failure == failure)
    }

    /// Whether others were paid since a push began to fail that never comes through.
    pub(super) fn is_poison(&self, later: &Later) -> bool {
        later.is_lasting() && self.paid > later.paid
    }
}

fn denied(number: u64, tries: u32, words: &str, now: Instant, paid: u64) -> Later {
    Later {
        number,
        failure: Failure::Refusal,
        until: now + doubled(FIRST_DENIAL, tries, LONGEST_DENIAL),
        tries,
        words: words.to_owned(),
        is_denied: true,
        paid,
    }
}

fn first_parking() -> Duration {
    fail_point!("queue.first_parking", |_| Duration::ZERO);
    FIRST_PARKING
}

fn doubled(first: Duration, tries: u32, longest: Duration) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    #[test]
    fn pauses_double_up_to_a_minute_and_a_wish_is_kept() {
        let mut state = State::default();
        let repository = Repository::new(Registry::own(), "a".parse().unwrap());
        let now = crate::units::Clock::manual().0.now();
        let mut wait = |wish: Option<u64>| {
            let wish = wish.map(Duration::from_secs);
            state.fails(&repository, 1, "x", now, wish, Failure::Moment).wait(now)
        };

        assert!((250..=750).contains(&wait(None).as_millis()));
        assert!((500..=1500).contains(&wait(None).as_millis()));
        assert!(wait(Some(100)) >= Duration::from_secs(100));
        for _ in 0..20 {
            assert!(wait(None) <= LONGEST * 3 / 2);
        }
        assert!(wait(None) >= LONGEST / 2);
    }

    #[test]
    fn a_repository_that_alone_is_not_let_in_pauses_nobody_a_second_time() {
        let mut state = State::default();
        let [bad, good] = ["bad", "good"].map(|name| Repository::new(Registry::own(), name.parse().unwrap()));
        let now = crate::units::Clock::manual().0.now();

        assert!(!state.is_shut_alone(&bad));
        state.shuts(&bad, 1, "401", now);
        assert!(!state.is_shut_alone(&bad), "nobody was let in since");
        assert!(
            state.waits_until(&bad, now).unwrap() > now + FIRST_DENIAL,
            "others come first"
        );
        state.succeeds(&good, now);
        assert!(state.is_shut_alone(&bad));
        state.shuts(&bad, 1, "401", now);
        assert!(
            state.is_shut_alone(&bad),
            "nor a third time, where nothing is pushed meanwhile"
        );
    }

    #[test]
    fn what_got_on_is_tried_soon_and_what_only_comes_as_far_as_before_is_not() {
        let mut state = State::default();
        let repository = Repository::new(Registry::own(), "a".parse().unwrap());
        let (now, blob) = (crate::units::Clock::manual().0.now(), Digest::of(b"blob"));
        state.gets_on(&repository, &blob, 10);
        for tries in 1..=4 {
            state.gets_on(&repository, &blob, 10);
            assert_eq!(
                state.fails(&repository, 1, "x", now, None, Failure::Moment).tries,
                tries
            );
        }
        state.gets_on(&repository, &blob, 11);
        assert_eq!(state.fails(&repository, 1, "x", now, None, Failure::Moment).tries, 1);
        for tries in 1..=3 {
            let size = 20 + u64::from(tries);
            state.gets_on(&repository, &blob, size);
            let later = state.fails(&repository, 1, "x", now, None, Failure::Refusal);
            assert_eq!(later.tries, tries, "what is refused is refused");
        }
    }

    #[test]
    fn what_fails_while_others_are_paid_is_poison_and_not_a_parent_that_fails_for_all() {
        let mut state = State::default();
        let [bad, good] = ["bad", "good"].map(|name| Repository::new(Registry::own(), name.parse().unwrap()));
        let now = crate::units::Clock::manual().0.now();
        let mut later = state.fails(&bad, 1, "500", now, None, Failure::Moment);
        for _ in 1..Later::MANY {
            later = state.fails(&bad, 1, "500", now, None, Failure::Moment);
        }
        assert!(!state.is_poison(&later));
        state.succeeds(&good, now);
        let later = state.fails(&bad, 1, "500", now, None, Failure::Moment);
        assert!(state.is_poison(&later));
    }

    #[test]
    fn that_a_parent_was_away_for_long_makes_nothing_of_what_it_says_first() {
        let mut state = State::default();
        let repository = Repository::new(Registry::own(), "a".parse().unwrap());
        let now = crate::units::Clock::manual().0.now();
        let mut fails = |failure| state.fails(&repository, 1, "x", now, None, failure);
        for _ in 0..20 {
            assert!(fails(Failure::Way).wait(now) <= SOON * 3 / 2);
        }
        for _ in 0..20 {
            assert!(fails(Failure::Break).wait(now) <= LONGEST_BREAK * 3 / 2);
        }

        assert_eq!(fails(Failure::Refusal).tries, 1);
        assert_eq!(fails(Failure::Refusal).tries, 2);
        assert!(fails(Failure::Moment).wait(now) <= FIRST * 3 / 2);
    }

    #[test]
    fn what_is_parked_is_tried_after_an_hour_and_each_time_later_up_to_a_day() {
        let mut state = State::default();
        let repository = Repository::new(Registry::own(), "a".parse().unwrap());
        let mut now = crate::units::Clock::manual().0.now();
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            state.parks(&repository, 1, now);
            let due = now + FIRST_PARKING * hours;
            assert_eq!(state.unparks(due - Duration::from_secs(1)), []);
            assert_eq!(state.unparks(due), [(repository.clone(), 1)]);
            assert_eq!(state.unparks(due), []);
            now = due;
        }
        state.leaves(&repository, 1);
        assert_eq!(state.unparks(now + 2 * LONGEST_PARKING), []);
    }

    #[test]
    fn of_all_who_find_the_parent_shut_at_once_one_says_so() {
        let mut state = State::default();
        let now = crate::units::Clock::manual().0.now();

        assert!(state.pauses("401", now));
        assert!(!state.pauses("401", now));
        assert_eq!(state.paused_until(now), Some(now + FIRST_DENIAL));
        let later = now + FIRST_DENIAL;
        assert!(!state.pauses("401", later), "it is the same trouble");
        assert_eq!(state.paused_until(later), Some(later + FIRST_DENIAL * 2));
    }
}
