//! How often questions are asked that nobody waits for: a registry counts them, and leaves alone who asks too much.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::units::Clock;

/// After a pause so much time's questions may be asked at once.
const BURST: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

/// Turns, so many a minute.
#[derive(Debug)]
pub(super) struct Pulse {
    pause: Duration,
    /// When the next turn is.
    next: Mutex<Instant>,
    clock: Clock,
}

impl Pulse {
    pub(super) fn new(per_minute: usize, clock: Clock) -> Self {
        let per_minute = u32::try_from(per_minute).unwrap_or(u32::MAX).max(1);
        Self {
            pause: MINUTE / per_minute,
            next: Mutex::new(clock.now()),
            clock,
        }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) {
        tokio::time::sleep(self.take()).await;
    }

    /// Takes the next turn; how long it is until then.
    fn take(&self) -> Duration {
        let now = self.clock.now();
        let mut next = self.next.lock();
        // What was not asked in the last second may be asked now.
        let earliest = now.checked_sub(BURST.saturating_sub(self.pause)).unwrap_or(now);
        let turn = (*next).max(earliest);
        *next = turn + self.pause;
        turn.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_as_many_turns_as_it_may_and_a_second_more_after_a_pause() {
        let (clock, hand) = Clock::manual();
        let pulse = Pulse::new(600, clock);
        hand.advance(Duration::from_secs(100));

        let waits: Vec<Duration> = (0..30).map(|_| pulse.take()).collect();
        let at_once = waits.iter().filter(|wait| wait.is_zero()).count();
        assert_eq!(at_once, 10);
        assert_eq!(waits[29], Duration::from_secs(2));

        hand.advance(Duration::from_secs(60));
        assert_eq!(pulse.take(), Duration::ZERO);
    }

    #[test]
    fn of_few_a_minute_one_comes_at_once_and_the_next_one_waits() {
        let (clock, _hand) = Clock::manual();
        let pulse = Pulse::new(2, clock);

        assert_eq!(pulse.take(), Duration::ZERO);
        assert_eq!(pulse.take(), Duration::from_secs(30));
    }
}
