//! Whether a window is open, and what may cross the line to the registries above while none is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::gate::Class;
use super::schedule::{Interactive, Missed, Schedule};
use crate::calendar::{Phase, Stretch, Zone};
use crate::units::{Clock, Live, Moment, Notes};

/// It is looked at the clock so often, which somebody may have set.
const LOOK: Duration = Duration::from_secs(1);

/// A step of the clock on the wall that is none of passing time.
const JUMP: Duration = Duration::from_secs(5);

/// Under this name it is on record when a window was last used: seconds since 1970.
const USED: &str = "window-used";

/// The windows of one node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hours(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    schedule: Live<Schedule>,
    now: watch::Sender<Now>,
    made_up: Mutex<MadeUp>,
    /// Somebody has used the window that is open.
    is_used: AtomicBool,
    notes: Notes,
    clock: Clock,
}

/// How it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Whether a window is open.
    pub is_open: bool,
    /// Whether it is one that makes up for a missed one.
    pub is_made_up: bool,
    /// When that changes, as far as anyone knows.
    pub until: Option<SystemTime>,
    /// Whether clients' pulls wait outside, too.
    denies: bool,
}

/// What is known of windows that went by.
#[derive(Debug, Default)]
struct MadeUp {
    /// When one was last used.
    used: Option<SystemTime>,
    /// The last one that was missed, and until when it is made up for: once the parent answers it is known.
    missed: Option<(Stretch, Option<SystemTime>)>,
}

impl Hours {
    /// By `schedule`, which may change. What has to outlive the process goes into `notes`.
    pub fn new(schedule: Live<Schedule>, notes: Notes, clock: Clock) -> Self {
        let seconds = notes.get(USED).and_then(|text| text.parse().ok());
        let used = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let hours = Self(Arc::new(Inner {
            schedule,
            now: watch::Sender::new(Now {
                is_open: true,
                is_made_up: false,
                until: None,
                denies: false,
            }),
            made_up: Mutex::new(MadeUp { used, missed: None }),
            is_used: AtomicBool::new(false),
            notes,
            clock,
        }));
        hours.look();
        hours
    }

    /// Without any window: always open.
    pub fn always(clock: Clock) -> Self {
        Self::new(Live::new(Schedule::default()), Notes::forgotten(), clock)
    }

    /// How it is now.
    pub fn now(&self) -> Now {
        *self.0.now.borrow()
    }

    /// Where the node's clock hangs.
    pub(super) fn zone(&self) -> Zone {
        self.0.schedule.get().windows.zone
    }

    /// Hears of each change.
    pub fn subscribe(&self) -> watch::Receiver<Now> {
        self.0.now.subscribe()
    }

    /// Whether requests of this class wait, and until when, as far as anyone knows.
    pub fn closed(&self, class: Class) -> Option<Closed> {
        let now = self.0.now.borrow();
        now.keeps_out(class).then_some(Closed { until: now.until })
    }

    /// Whether requests of this class wait for no window.
    pub(super) fn lets_through(&self, class: Class) -> bool {
        class == Class::Manual || (class == Class::Interactive && !self.0.now.borrow().denies)
    }

    /// Opens and closes, for as long as the node runs.
    pub async fn watch(self) {
        let mut schedule = self.0.schedule.get().clone();
        let (mut seen, mut next) = (self.0.clock.wall(), None);
        loop {
            let now = self.0.clock.wall();
            let is_new = !Arc::ptr_eq(&schedule, &self.0.schedule.get());
            let is_jump = now < seen || now > seen + JUMP;
            if is_new || is_jump || next.is_none_or(|next| now >= next) {
                schedule = self.0.schedule.get().clone();
                next = self.look().or(Some(now + Duration::from_secs(3600)));
            }
            seen = now;
            let left = next.and_then(|next| next.duration_since(now).ok());
            tokio::time::sleep(left.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK)).await;
        }
    }

    /// The parent answered something that nobody waits for: the window is not missed.
    pub(super) fn used(&self) {
        if !self.now().is_open || self.0.is_used.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = self.0.clock.wall();
        let mut made_up = self.0.made_up.lock();
        made_up.used = Some(now);
        if let Some((stretch, until @ None)) = &mut made_up.missed {
            *until = Some(now + stretch.length());
        }
        drop(made_up);
        if !self.0.schedule.get().windows.is_always_open() {
            self.0.notes.set(USED, Moment::from(now).seconds().to_string());
        }
        self.look();
    }

    /// Finds out how it is, and tells whoever listens; when to look again.
    fn look(&self) -> Option<SystemTime> {
        let schedule = self.0.schedule.get().clone();
        let wall = self.0.clock.wall();
        let now = self.0.how_it_is(&schedule, wall);
        let was = self.0.now.send_replace(now);
        if was != now {
            self.0.is_used.store(false, Ordering::Relaxed);
        }
        if was.is_open != now.is_open {
            let until = now
                .until
                .map_or_else(|| "further notice".to_owned(), |until| Moment::from(until).to_string());
            match now.is_open {
                true => tracing::info!(until, made_up = now.is_made_up, "the window to the parent opens"),
                false => tracing::info!(
                    until,
                    "the window to the parent closes: nothing is synchronised or written back"
                ),
            }
        }
        now.until
    }
}

/// Why something waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Closed {
    /// When the next window opens, as far as anyone knows.
    pub until: Option<SystemTime>,
}

impl Now {
    fn keeps_out(self, class: Class) -> bool {
        let waits = match class {
            Class::Manual => false,
            Class::Interactive => self.denies,
            Class::WriteBack | Class::Synchronisation => true,
        };
        !self.is_open && waits
    }
}

impl Inner {
    fn how_it_is(&self, schedule: &Schedule, wall: SystemTime) -> Now {
        let denies = schedule.interactive == Interactive::Deny;
        let opens = match schedule.windows.at(wall) {
            Phase::Open { until } => {
                self.made_up.lock().missed = None;
                return Now {
                    is_open: true,
                    is_made_up: false,
                    until,
                    denies,
                };
            }
            Phase::Closed { until } => until,
        };
        let closed = Now {
            is_open: false,
            is_made_up: false,
            until: opens,
            denies,
        };
        if schedule.missed == Missed::Wait {
            return closed;
        }
        let mut made_up = self.made_up.lock();
        let last = schedule.windows.last_closed(wall);
        let is_missed = |last: &Stretch| made_up.used.is_none_or(|used| used < last.from);
        if made_up.missed.is_none() {
            made_up.missed = last.filter(is_missed).map(|last| (last, None));
        }
        match made_up.missed {
            Some((_, until)) if until.is_none_or(|until| wall < until) => Now {
                is_open: true,
                is_made_up: true,
                until: until.or(opens),
                denies,
            },
            _ => closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Hands;

    const HOUR: Duration = Duration::from_secs(3600);

    fn noted(lines: &[&str]) -> (Notes, Arc<Mutex<Vec<String>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&written);
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        (Notes::new(lines, move |lines| *kept.lock() = lines), written)
    }

    /// Open in the first hour of each day; the clock stands at the beginning of one.
    fn hours(more: &str, notes: Notes) -> (Hours, Hands) {
        let schedule = format!("cron = \"0 0 * * *\"\nwindow = \"1h\"\n{more}");
        let (clock, hand) = Clock::manual();
        let since = clock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs();
        hand.advance(Duration::from_secs(86_400 - since % 86_400 + 1));
        let schedule = Live::new(toml::from_str(&schedule).unwrap());
        (Hours::new(schedule, notes, clock), hand)
    }

    #[test]
    fn outside_the_window_only_clients_and_operators_are_let_through_and_clients_only_if_they_may() {
        for (more, clients) in [("", true), ("interactive = \"deny\"", false)] {
            let (hours, hand) = hours(more, Notes::forgotten());
            assert!(Class::ALL.iter().all(|class| hours.closed(*class).is_none()));

            hand.advance(HOUR);
            hours.look();

            assert_eq!(hours.closed(Class::Interactive).is_none(), clients, "{more}");
            assert!(hours.closed(Class::Manual).is_none());
            let until = hours.closed(Class::Synchronisation).unwrap().until.unwrap();
            let left = until.duration_since(hours.0.clock.wall()).unwrap();
            assert!(left > 22 * HOUR && left < 23 * HOUR, "{left:?}");
            assert!(hours.closed(Class::WriteBack).is_some());
        }
    }

    #[test]
    fn a_window_that_went_by_unused_is_made_up_for_once_from_when_the_parent_answers() {
        let (notes, written) = noted(&["window-used 1"]);
        let (hours, hand) = hours("missed = \"catch-up\"", notes);
        hand.advance(2 * HOUR);
        hours.look();
        assert!(hours.now().is_made_up);

        // The parent is away for another while.
        hand.advance(3 * HOUR);
        hours.look();
        assert!(hours.now().is_open);
        hours.used();

        let now = hours.0.clock.wall();
        assert_eq!(hours.now().until.unwrap(), now + HOUR);
        assert_eq!(written.lock().len(), 1);
        hand.advance(HOUR);
        hours.look();
        assert!(!hours.now().is_open);
        hand.advance(HOUR);
        hours.look();
        assert!(!hours.now().is_open);
    }

    #[test]
    fn a_window_that_was_used_is_not_made_up_for_and_none_is_unless_the_settings_say_so() {
        for (more, uses) in [("missed = \"catch-up\"", true), ("", false)] {
            let (hours, hand) = hours(more, Notes::forgotten());
            if uses {
                hours.used();
            }
            hand.advance(2 * HOUR);

            hours.look();

            assert!(!hours.now().is_open, "{more}");
        }
    }
}
