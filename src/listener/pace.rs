use std::os::fd::RawFd;
use std::pin::pin;
use std::time::{Duration, Instant};

// Unlike tokio's it does not wake the thread that it runs on: measured half a system call a request.
use pingora::time::timeout;

use super::broken::Broken;
use super::{Config, kernel};

/// Judges whether a client takes enough of a reply.
///
/// Time counts only while the client is waited for, not while the content is. What the client took is what its
/// kernel acknowledged: what ours still holds says little, as it may be megabytes.
pub(super) struct Pace {
    window: Duration,
    /// Bytes to be taken in a window.
    least: u64,
    /// Of the current window.
    waited: Duration,
    /// What was taken before the current window; unknown until the client was waited for a while.
    mark: Option<u64>,
    /// Of the connection, if it carries one reply at a time.
    socket: Option<RawFd>,
}

impl Pace {
    /// For a reply that goes over `socket`, or over a stream of HTTP/2.
    pub(super) fn new(config: &Config, socket: Option<RawFd>) -> Self {
        let window = config.write_timeout;
        let least = u128::from(config.min_rate.bytes()) * window.as_millis() / 1000;
        Self {
            window,
            // Who takes nothing at all is never quick enough.
            least: u64::try_from(least).unwrap_or(u64::MAX).max(1),
            waited: Duration::ZERO,
            mark: None,
            socket,
        }
    }

    /// Sends, as long as the client takes enough. `given` has been sent before, in bytes.
    ///
    /// # Errors
    ///
    /// [`Broken::Slow`].
    pub(super) async fn wait<T>(&mut self, given: u64, sending: impl Future<Output = T>) -> Result<T, Broken> {
        let mut sending = pin!(sending);
        loop {
            let began = now();
            let sent = timeout(self.left(), &mut sending).await;
            self.waited += now().duration_since(began);
            match sent {
                Ok(sent) => return Ok(sent),
                Err(_) => self.judge(given)?,
            }
        }
    }

    /// Of the window. The first one is short: it ends with the mark, and most clients never see its end.
    fn left(&self) -> Duration {
        let window = if self.mark.is_some() {
            self.window
        } else {
            self.window / 16
        };
        window.saturating_sub(self.waited)
    }

    fn judge(&mut self, given: u64) -> Result<(), Broken> {
        let taken = self.taken(given);
        self.waited = Duration::ZERO;
        match self.mark.replace(taken) {
            Some(mark) if taken.saturating_sub(mark) < self.least => Err(Broken::Slow),
            _ => Ok(()),
        }
    }

    fn taken(&mut self, given: u64) -> u64 {
        // A kernel that does not count says nothing, or nought.
        let acknowledged = self.socket.and_then(kernel::acknowledged);
        if let Some(acknowledged @ 1..) = acknowledged {
            return acknowledged;
        }
        self.socket = None;
        given
    }
}

#[expect(clippy::disallowed_methods, reason = "the outermost function reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let config = Config {
            write_timeout: Duration::from_secs(10),
            min_rate: crate::units::Size::kib(1),
            ..Config::default()
        };
        Pace::new(&config, None)
    }

    #[test]
    fn who_takes_the_least_in_each_window_goes_on_and_who_takes_less_is_cut_off() {
        let mut pace = pace();

        assert!(pace.judge(5000).is_ok());
        assert!(pace.judge(5000 + 10_240).is_ok());
        assert!(pace.judge(5000 + 2 * 10_240).is_ok());
        assert!(matches!(pace.judge(5000 + 3 * 10_240 - 1), Err(Broken::Slow)));
    }

    #[test]
    fn only_waiting_uses_up_a_window() {
        let mut pace = pace();
        pace.judge(0).unwrap();

        pace.waited += Duration::from_secs(4);

        assert_eq!(pace.left(), Duration::from_secs(6));
        pace.judge(20_000).unwrap();
        assert_eq!(pace.left(), Duration::from_secs(10));
    }
}
