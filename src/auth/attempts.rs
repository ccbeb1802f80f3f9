//! Whoever guesses passwords has to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures of one address that cost nothing: people mistype, and scripts have an old password.
const FREE: u32 = 10;
/// The first wait, which doubles with each further failure.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
/// For so long after its last failure an address is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Addresses that are remembered.
const MOST: usize = 10_000;
/// Of one address, logins that are looked at, or wait for it, at a time.
const AT_A_TIME: u32 = 32;

/// Failed logins, and those under way, by where they come from. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Attempts {
    all: Arc<Mutex<HashMap<IpAddr, Address>>>,
}

struct Address {
    failed: u32,
    under_way: u32,
    last: Instant,
}

/// One login that is looked at. Whether it failed is said before it goes.
pub(super) struct Attempt {
    attempts: Attempts,
    from: IpAddr,
    /// How long it has to wait before.
    pub(super) wait: Duration,
}

impl Attempts {
    /// Begins one; `None` if there are enough from there. Those under way count as failed until they are known not to be, so that a
    /// burst waits like a row.
    pub(super) fn begin(&self, from: IpAddr, now: Instant) -> Option<Attempt> {
        let from = network(from);
        let mut all = self.all.lock();
        if all.len() >= MOST {
            all.retain(|_, address| address.under_way > 0 || now.duration_since(address.last) < REMEMBERED);
            if all.len() >= MOST {
                return None;
            }
        }
        let address = all.entry(from).or_insert(Address {
            failed: 0,
            under_way: 0,
            last: now,
        });
        if now.duration_since(address.last) >= REMEMBERED {
            address.failed = 0;
        }
        if address.under_way >= AT_A_TIME {
            return None;
        }
        let wait = wait(address.failed.saturating_add(address.under_way));
        address.under_way += 1;
        Some(Attempt {
            attempts: self.clone(),
            from,
            wait,
        })
    }
}

impl Attempt {
    /// It was a wrong one.
    pub(super) fn failed(&self, now: Instant) {
        if let Some(address) = self.attempts.all.lock().get_mut(&self.from) {
            address.failed = address.failed.saturating_add(1);
            address.last = now;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut all = self.attempts.all.lock();
        if let Some(address) = all.get_mut(&self.from) {
            address.under_way -= 1;
            if address.under_way == 0 && address.failed == 0 {
                all.remove(&self.from);
            }
        }
    }
}

fn wait(failed: u32) -> Duration {
    match failed.checked_sub(FREE) {
        None | Some(0) => Duration::ZERO,
        Some(beyond) => (FIRST * 2u32.saturating_pow((beyond - 1).min(8))).min(LONGEST),
    }
}

/// Of IPv6, the /64: whoever has one address of it has all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Clock;

    fn failing(attempts: &Attempts, from: &str, now: Instant) -> Duration {
        let attempt = attempts.begin(from.parse().unwrap(), now).unwrap();
        attempt.failed(now);
        attempt.wait
    }

    #[test]
    fn a_few_failures_cost_nothing_and_more_cost_more_and_more_up_to_a_bound() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let waits: Vec<Duration> = (0..30).map(|_| failing(&attempts, "192.0.2.1", now)).collect();

        assert!(waits[..=10].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[11], FIRST);
        assert!(waits.is_sorted() && waits[29] == LONGEST);
        assert_eq!(failing(&attempts, "192.0.2.2", now), Duration::ZERO);
        assert_eq!(failing(&attempts, "::ffff:192.0.2.1", now), LONGEST);
        assert_eq!(failing(&attempts, "192.0.2.1", now + REMEMBERED), Duration::ZERO);
    }

    #[test]
    fn a_burst_waits_like_a_row_and_has_an_end() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let from = IpAddr::from([192, 0, 2, 1]);

        let burst: Vec<Option<Attempt>> = (0..40).map(|_| attempts.begin(from, now)).collect();

        let waits: Vec<Duration> = burst.iter().flatten().map(|attempt| attempt.wait).collect();
        assert_eq!(waits.len(), AT_A_TIME as usize);
        assert!(
            waits[10].is_zero() && waits[11] == FIRST && waits[31] == LONGEST,
            "{waits:?}"
        );
        drop(burst);
        assert_eq!(
            attempts.begin(from, now).unwrap().wait,
            Duration::ZERO,
            "none of them failed"
        );
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        for host in 0..20 {
            failing(&attempts, &format!("2001:db8::{host}"), now);
        }

        assert!(!failing(&attempts, "2001:db8::ffff", now).is_zero());
        assert!(failing(&attempts, "2001:db8:0:1::1", now).is_zero());
    }
}
