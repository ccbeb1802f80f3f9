//! Whether a body comes fast enough ever to end.
//!
//! Only the time spent waiting for the upstream counts: a reader who takes his time slows nobody.

use std::time::{Duration, Instant};

use crate::units::Clock;

/// Less than this in a window of waiting is no progress.
const LEAST_BYTES: usize = 1024;

/// Of one body.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    /// How long so little is borne.
    window: Duration,
    /// Of the current window.
    waited: Duration,
    bytes: usize,
}

/// Since when it is being waited for the next bytes.
pub(super) struct Wait(Instant);

impl Pace {
    pub(super) fn new(clock: Clock, window: Duration) -> Self {
        Self {
            clock,
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long nothing at all is borne.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    pub(super) fn wait(&self) -> Wait {
        Wait(self.clock.now())
    }

    /// `bytes` have come. Fails with the time that was waited, if that is no progress.
    pub(super) fn came(&mut self, wait: Wait, bytes: usize) -> Result<(), Duration> {
        self.waited += self.clock.now().saturating_duration_since(wait.0);
        self.bytes += bytes;
        if self.waited < self.window {
            return Ok(());
        }
        if self.bytes < LEAST_BYTES {
            return Err(self.waited);
        }
        self.waited = Duration::ZERO;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_given_up_after_thirty_seconds_of_waiting_and_a_slow_reader_is_not() {
        let (clock, hand) = Clock::manual();
        let mut pace = Pace::new(clock, Duration::from_secs(30));

        for _ in 0..5 {
            let wait = pace.wait();
            assert!(pace.came(wait, 1).is_ok());
            hand.advance(Duration::from_secs(3600));
        }
        for _ in 0..29 {
            let wait = pace.wait();
            hand.advance(Duration::from_secs(1));
            assert!(pace.came(wait, 1).is_ok());
        }
        let wait = pace.wait();
        hand.advance(Duration::from_secs(1));

        assert_eq!(pace.came(wait, 1), Err(Duration::from_secs(30)));
    }

    #[test]
    fn a_kibibyte_in_half_a_minute_is_enough() {
        let (clock, hand) = Clock::manual();
        let mut pace = Pace::new(clock, Duration::from_secs(30));

        for _ in 0..100 {
            let wait = pace.wait();
            hand.advance(Duration::from_secs(30));
            assert!(pace.came(wait, LEAST_BYTES).is_ok());
        }
    }
}
