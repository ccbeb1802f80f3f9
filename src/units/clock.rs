//! The clock, as an argument: the system's, or one that a test moves by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    started: Instant,
    started_wall: SystemTime,
    /// Nanoseconds since `started`.
    passed: AtomicU64,
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still, and the hands that move it.
    pub fn manual() -> (Self, Hands) {
        let system = Self::system();
        let manual = Arc::new(Manual {
            started: system.now(),
            started_wall: system.wall(),
            passed: AtomicU64::new(0),
        });
        (Self(Source::Manual(Arc::clone(&manual))), Hands(manual))
    }

    /// Now, on the clock that never goes back: for spans and deadlines.
    #[expect(clippy::disallowed_methods, reason = "here the time comes in")]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(manual) => manual.started + manual.passed(),
        }
    }

    /// Now, on the clock on the wall, which may jump: for what people and other machines read.
    #[expect(clippy::disallowed_methods, reason = "here the time comes in")]
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Manual(manual) => manual.started_wall + manual.passed(),
        }
    }
}

impl Clock {
    /// Whether the clock on the wall can be right: no machine runs a program before it was built.
    pub fn is_set(&self) -> bool {
        is_plausible(self.wall())
    }

    /// In words, for an operator, where it [is not set](Self::is_set): what follows, and what to do.
    pub fn unset(&self) -> String {
        format!(
            "the clock is not set: it says {}, before this program was built; https:// upstreams may fail, as no certificate can be judged, while all else works: set the clock",
            httpdate::fmt_http_date(self.wall().max(UNIX_EPOCH))
        )
    }
}

/// Whether it can be so early: the day of this version (`build.rs`) has come.
pub(crate) fn is_plausible(wall: SystemTime) -> bool {
    let built = env!("WHARF_BUILT").parse().expect("build.rs writes a number");
    wall >= UNIX_EPOCH + Duration::from_secs(built)
}

/// What moves a [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct Hands(Arc<Manual>);

impl Hands {
    /// Lets `span` pass for every clone of the clock.
    pub fn advance(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.0.passed.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Manual {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_its_hands_and_all_clones_move_with_it() {
        let (clock, hands) = Clock::manual();
        let twin = clock.clone();
        let (now, wall) = (clock.now(), clock.wall());
        assert_eq!(clock.now(), now);

        hands.advance(Duration::from_secs(60));

        assert_eq!(twin.now() - now, Duration::from_secs(60));
        assert_eq!(twin.wall().duration_since(wall).unwrap(), Duration::from_secs(60));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let clock = Clock::system();
        let earlier = clock.now();

        assert!(clock.now() >= earlier);
    }
}
