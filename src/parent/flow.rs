//! How fast bytes cross the line to one upstream, one way: no faster than the settings say, and what somebody waits for first.
//!
//! A transfer over a line with a rate pays before it asks, for a part of a blob at a time: what was asked for crosses as fast as the
//! line can, and the kernel takes in more than anybody reads. Short answers are paid for afterwards. Among classes the share is by
//! weight, so that none is starved for good; a class that does not want anything leaves its share to the others. Without a rate there
//! is nothing to pay, and the lower classes still wait for the higher ones, at whatever speed those are served: that is the speed of
//! the line.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::bandwidth::{Bandwidth, Direction};
use super::gate::Class;
use super::hours::Hours;
use super::place::Urgency;
use crate::units::{Clock, Live, Notes};

/// So much time's bytes may come at once after a pause: on a long way a part is asked for while none comes.
const BURST: Duration = Duration::from_millis(60);

/// So much time's bytes are asked for at once, and never less than so many: each part costs a question.
const PART: Duration = Duration::from_millis(40);
const LEAST_PART: f64 = 32.0 * 1024.0;
const LONGEST_PART: Duration = Duration::from_secs(2);

/// Which class wants something is looked at so often.
const LOOK: Duration = Duration::from_millis(5);

/// Whoever wanted bytes a moment ago will want more.
const GAP: Duration = Duration::from_millis(250);

/// Who wants bytes and gets none for so long does not keep the others.
const STALLED: Duration = Duration::from_secs(1);

/// Who has to wait for others for so long hangs up: what is on its way to it takes the line from them.
const PATIENCE: Duration = Duration::from_millis(200);

/// What would have to make way waits so long before it begins all the same.
const LONGEST: Duration = Duration::from_secs(30);

/// A class is never further ahead of those above it than by so many bytes: what it had while they wanted little is not held against it.
const MOST_AHEAD: f64 = 4.0 * 1024.0 * 1024.0;

/// What each class gets of a line that all want, in the order of [`Class::ALL`].
const WEIGHTS: [f64; 4] = [950.0, 30.0, 10.0, 10.0];

/// The rate by the settings, and the day, are looked at so often.
const SETTLED: Duration = Duration::from_millis(500);

/// The bytes of a day are written down whenever so many more have crossed.
const NOTED: u64 = 8 << 20;

/// One way of one line.
#[derive(Debug)]
pub(super) struct Flow {
    way: Direction,
    /// Under this name the bytes of a day are noted.
    name: String,
    state: Mutex<State>,
    settings: Live<Bandwidth>,
    hours: Hours,
    notes: Notes,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    /// Bytes that may cross at once; what came unpaid is below nought.
    credit: f64,
    since: Instant,
    /// In the order of [`Class::ALL`].
    lanes: [Lane; 4],
    rate: Option<f64>,
    /// How much time's bytes may be saved up: on a long way more.
    burst: Duration,
    /// Since when the rate and the day are as they are.
    settled: Instant,
    day: Day,
}

/// What a class has had.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Bytes by weight.
    had: f64,
    /// How many want bytes at this moment.
    wanting: u32,
    /// When it last got some, or began to want them.
    last: Option<Instant>,
    /// When one last stopped to want them.
    wanted: Option<Instant>,
}

/// What has crossed today, where the node's clock hangs.
#[derive(Clone, Debug, Default)]
struct Day {
    name: String,
    bytes: u64,
    noted: u64,
}

/// What whoever wants to read is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Go,
    Wait(Duration),
    /// Others come first.
    Behind,
}

/// The wish of a class for bytes, while it lives.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    flow: &'a Flow,
    class: Class,
}

impl Flow {
    pub(super) fn new(
        way: Direction,
        upstream: &str,
        settings: Live<Bandwidth>,
        hours: Hours,
        notes: Notes,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        let name = format!("bytes-{}-{upstream}", way.as_str());
        let noted = notes.get(&name);
        let noted = noted.as_deref().and_then(|text| {
            let (day, bytes) = text.split_once(' ')?;
            Some((day.to_owned(), bytes.parse().ok()?))
        });
        let (day, bytes) = noted.unwrap_or_default();
        let flow = Self {
            way,
            name,
            state: Mutex::new(State {
                credit: 0.0,
                since: now,
                lanes: [Lane::default(); 4],
                rate: None,
                burst: BURST,
                settled: now,
                day: Day {
                    name: day,
                    bytes,
                    noted: bytes,
                },
            }),
            settings,
            hours,
            notes,
            clock,
        };
        flow.settle(&mut flow.state.lock(), now);
        flow
    }

    /// Says that the class wants bytes, until that is dropped.
    pub(super) fn wish(&self, class: Class) -> Wish<'_> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let most = state.lanes.iter().map(|lane| lane.had).fold(0.0, f64::max);
        let lane = &mut state.lanes[class as usize];
        // What it did not want while others had it is not owed to it.
        if lane.wanting == 0
            && lane
                .last
                .is_none_or(|last| now.saturating_duration_since(last) > STALLED)
        {
            lane.had = most;
            lane.last = Some(now);
        }
        lane.wanting += 1;
        Wish { flow: self, class }
    }

    /// Waits, for some time, while a class above is served: what begins now would have to make way.
    pub(super) async fn clear(&self, urgency: &Urgency) {
        let most = self.clock.now() + LONGEST;
        loop {
            let now = self.clock.now();
            if now >= most || !self.state.lock().serves_above(urgency.get(), now) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a part of a blob may be asked for, and pays for it: how many bytes. `None`: the line has no rate. `header`: how long
    /// the upstream takes until it sends.
    pub(super) async fn buy(&self, urgency: &Urgency, header: Duration) -> Option<u64> {
        // None comes until the header does: as much more has to be under way.
        let span = (header * 3 / 2).clamp(PART, LONGEST_PART);
        loop {
            let class = urgency.get();
            let wish = self.wish(class);
            let wait = {
                let now = self.clock.now();
                let mut state = self.state.lock();
                self.settle_now_and_then(&mut state, now);
                state.refill(now);
                let rate = state.rate?;
                state.burst = (span * 3 / 2).max(BURST);
                let part = (rate * span.as_secs_f64()).max(LEAST_PART);
                if state.is_behind(class, now) {
                    LOOK
                } else if state.credit < part {
                    Duration::from_secs_f64((part - state.credit) / rate).clamp(Duration::from_millis(1), SETTLED)
                } else {
                    let amount = state.credit.floor();
                    state.credit -= amount;
                    state.had(class, amount);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "whole, and above nought"
                    )]
                    return Some(amount as u64);
                }
            };
            tokio::time::sleep(wait).await;
            drop(wish);
        }
    }

    /// Of what was bought so many bytes did not come.
    pub(super) fn refund(&self, class: Class, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "bytes of a part")]
        let amount = bytes as f64;
        let mut state = self.state.lock();
        state.credit += amount;
        let lane = &mut state.lanes[class as usize];
        lane.had = (lane.had - amount / WEIGHTS[class as usize]).max(0.0);
    }

    /// So many bytes of the class have crossed; so many of them were paid for before.
    pub(super) fn crossed(&self, class: Class, bytes: u64, paid: u64) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        self.settle_now_and_then(&mut state, now);
        state.refill(now);
        // Of sizes that are read in one go nothing is lost.
        #[expect(clippy::cast_precision_loss, reason = "bytes of one read")]
        let amount = bytes.saturating_sub(paid) as f64;
        if state.rate.is_some() {
            state.credit -= amount;
        }
        state.had(class, amount);
        state.lanes[class as usize].last = Some(now);
        state.day.bytes = state.day.bytes.saturating_add(bytes);
        if state.day.bytes - state.day.noted >= NOTED && self.settings.get().per_day(self.way).is_some() {
            state.day.noted = state.day.bytes;
            self.notes
                .set(&self.name, format!("{} {}", state.day.name, state.day.bytes));
        }
    }

    /// Until when the class waits, as what may cross today has; as far as anyone knows.
    pub(super) fn spent(&self, class: Class) -> Option<Option<SystemTime>> {
        if matches!(class, Class::Interactive | Class::Manual) {
            return None;
        }
        let most = self.settings.get().per_day(self.way)?;
        let mut state = self.state.lock();
        self.settle_now_and_then(&mut state, self.clock.now());
        (state.day.bytes >= most).then(|| self.hours.zone().midnight(self.clock.wall()))
    }

    fn settle_now_and_then(&self, state: &mut State, now: Instant) {
        if now.saturating_duration_since(state.settled) >= SETTLED {
            self.settle(state, now);
        }
    }

    fn settle(&self, state: &mut State, now: Instant) {
        state.settled = now;
        let (settings, wall, zone) = (self.settings.get(), self.clock.wall(), self.hours.zone());
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = settings.rate(self.way, wall, zone).map(|rate| rate.bytes() as f64);
        if state.rate != rate {
            state.rate = rate;
            state.credit = 0.0;
            state.since = now;
        }
        if settings.per_day(self.way).is_some() {
            let day = zone.day(wall);
            if state.day.name != day {
                state.day = Day {
                    name: day,
                    ..Day::default()
                };
            }
        }
    }

    fn verdict(&self, class: Class) -> Verdict {
        let now = self.clock.now();
        let mut state = self.state.lock();
        self.settle_now_and_then(&mut state, now);
        state.refill(now);
        if state.is_behind(class, now) {
            return Verdict::Behind;
        }
        match state.rate {
            Some(rate) if state.credit < 0.0 => {
                Verdict::Wait(Duration::from_secs_f64((-state.credit / rate).min(60.0)))
            }
            _ => Verdict::Go,
        }
    }
}

impl State {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        if let Some(rate) = self.rate {
            self.credit = (self.credit + passed * rate).min((rate * self.burst.as_secs_f64()).max(LEAST_PART));
        }
    }

    /// The class has had so many bytes more.
    fn had(&mut self, class: Class, bytes: f64) {
        let (above, rest) = self.lanes.split_at_mut(class as usize);
        let weight = WEIGHTS[class as usize];
        rest[0].had += bytes / weight;
        if !above.is_empty() {
            let most = above.iter().map(|lane| lane.had).fold(0.0, f64::max);
            rest[0].had = rest[0].had.min(most + MOST_AHEAD / weight);
        }
    }

    /// Whether a class above this one wants bytes, gets them, and has had less.
    fn is_behind(&self, class: Class, now: Instant) -> bool {
        let had = self.lanes[class as usize].had;
        self.served_above(class, now).any(|lane| had > lane.had)
    }

    fn serves_above(&self, class: Class, now: Instant) -> bool {
        self.served_above(class, now).next().is_some()
    }

    /// Of the classes above this one, those that want bytes and get them.
    fn served_above(&self, class: Class, now: Instant) -> impl Iterator<Item = &Lane> {
        self.lanes[..class as usize].iter().filter(move |lane| {
            let is_served = lane
                .last
                .is_some_and(|last| now.saturating_duration_since(last) < STALLED);
            let wants = |at: Instant| now.saturating_duration_since(at) < GAP;
            (lane.wanting > 0 || lane.wanted.is_some_and(wants)) && is_served
        })
    }
}

impl Wish<'_> {
    /// Waits until more may be read; `false`: it has to wait for others, for so long that it had better hang up. Nothing is lost if
    /// it is dropped.
    pub(super) async fn granted(&self) -> bool {
        let began = self.flow.clock.now();
        loop {
            let wait = match self.flow.verdict(self.class) {
                Verdict::Go => return true,
                // A longer one may change meanwhile.
                Verdict::Wait(wait) => wait.clamp(Duration::from_millis(1), Duration::from_millis(100)),
                Verdict::Behind if self.flow.clock.now() >= began + PATIENCE => return false,
                Verdict::Behind => LOOK,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The same, however long it takes.
    pub(super) async fn granted_at_last(&self) {
        while !self.granted().await {}
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let now = self.flow.clock.now();
        let lane = &mut self.flow.state.lock().lanes[self.class as usize];
        lane.wanting -= 1;
        lane.wanted = Some(now);
    }
}

/// Both ways of one line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) down: Arc<Flow>,
    pub(super) up: Arc<Flow>,
}

impl Line {
    pub(super) fn new(upstream: &str, settings: &Live<Bandwidth>, hours: &Hours, notes: &Notes, clock: &Clock) -> Self {
        let one = |way| {
            let (settings, hours, notes) = (settings.clone(), hours.clone(), notes.clone());
            Arc::new(Flow::new(way, upstream, settings, hours, notes, clock.clone()))
        };
        Self {
            down: one(Direction::Down),
            up: one(Direction::Up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Hands;

    fn flow(settings: &str) -> (Flow, Hands) {
        let (clock, hand) = Clock::manual();
        let hours = Hours::always(clock.clone());
        let settings = Live::new(toml::from_str(settings).unwrap());
        let flow = Flow::new(Direction::Down, "l5", settings, hours, Notes::forgotten(), clock);
        (flow, hand)
    }

    #[test]
    fn what_came_is_paid_for_before_more_is_read() {
        let (flow, hand) = flow("down = \"1MB/s\"");

        flow.crossed(Class::Synchronisation, 500_000, 0);

        assert_eq!(
            flow.verdict(Class::Interactive),
            Verdict::Wait(Duration::from_millis(500))
        );
        hand.advance(Duration::from_millis(500));
        assert_eq!(flow.verdict(Class::Interactive), Verdict::Go);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_moments_bytes() {
        let (flow, hand) = flow("down = \"1MB/s\"");
        hand.advance(Duration::from_secs(3600));

        flow.crossed(Class::Interactive, 120_000, 0);

        assert_eq!(
            flow.verdict(Class::Interactive),
            Verdict::Wait(Duration::from_millis(60))
        );
    }

    #[test]
    fn a_lower_class_waits_while_a_higher_one_is_served_and_gets_a_twentieth() {
        let (flow, hand) = flow("");
        let (_pull, _pass) = (flow.wish(Class::Interactive), flow.wish(Class::Synchronisation));
        let (mut pulled, mut fetched) = (0_u64, 0_u64);

        for _ in 0..10_000 {
            hand.advance(Duration::from_millis(1));
            flow.crossed(Class::Interactive, 1000, 0);
            pulled += 1000;
            if flow.verdict(Class::Synchronisation) == Verdict::Go {
                flow.crossed(Class::Synchronisation, 1000, 0);
                fetched += 1000;
            }
        }

        let share = pulled as f64 / (pulled + fetched) as f64;
        assert!((0.98..0.999).contains(&share), "{share}");
        assert_eq!(flow.verdict(Class::Interactive), Verdict::Go);
    }

    #[test]
    fn who_is_served_nothing_keeps_nobody_waiting_and_has_no_claim_to_what_it_did_not_want() {
        let (flow, hand) = flow("");
        flow.crossed(Class::Synchronisation, 1 << 30, 0);
        let pull = flow.wish(Class::Interactive);
        flow.crossed(Class::Synchronisation, 1000, 0);
        assert_eq!(flow.verdict(Class::Synchronisation), Verdict::Behind);

        hand.advance(STALLED);
        assert_eq!(flow.verdict(Class::Synchronisation), Verdict::Go);

        flow.crossed(Class::Interactive, 100_000, 0);
        assert_eq!(flow.verdict(Class::Synchronisation), Verdict::Go);
        drop(pull);
    }

    #[test]
    fn settings_that_change_hold_at_once() {
        let (flow, hand) = flow("down = \"1MB/s\"");
        flow.crossed(Class::Interactive, 60_000_000, 0);
        assert!(matches!(flow.verdict(Class::Interactive), Verdict::Wait(_)));

        flow.settings.set(Bandwidth::default());
        hand.advance(SETTLED);

        assert_eq!(flow.verdict(Class::Interactive), Verdict::Go);
    }

    #[test]
    fn the_bytes_of_a_day_stop_what_nobody_waits_for_until_midnight_also_after_a_restart() {
        let (clock, hand) = Clock::manual();
        let hours = Hours::always(clock.clone());
        let settings: Live<Bandwidth> = Live::new(toml::from_str("down_per_day = \"10MiB\"").unwrap());
        let notes = Notes::forgotten();
        let made = || {
            let (settings, hours, notes) = (settings.clone(), hours.clone(), notes.clone());
            Flow::new(Direction::Down, "l5", settings, hours, notes, clock.clone())
        };
        let flow = made();
        flow.crossed(Class::Synchronisation, 8 << 20, 0);
        assert!(flow.spent(Class::Synchronisation).is_none());
        flow.crossed(Class::Interactive, 8 << 20, 0);

        for flow in [flow, made()] {
            let until = flow.spent(Class::WriteBack).unwrap().unwrap();
            assert!(until > clock.wall() && until <= clock.wall() + Duration::from_secs(86_400));
            assert!(flow.spent(Class::Interactive).is_none());
        }
        hand.advance(Duration::from_secs(86_400));
        assert!(made().spent(Class::WriteBack).is_none());
    }
}
