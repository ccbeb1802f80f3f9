//! Whoever guesses passwords has to wait; who shares an address with them does not, as long as that can be told.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures for one name from one address that cost nothing: people mistype, and scripts have an old password.
const OF_NAME: Bounds = Bounds {
    free: 10,
    longest: Duration::from_secs(5),
    at_a_time: 32,
};
/// The same for all names: many may be behind one address, and one of them may have a list of names.
const OF_ADDRESS: Bounds = Bounds {
    free: 100,
    longest: Duration::from_secs(10),
    at_a_time: 128,
};
/// The first wait, which doubles with each further failure.
const FIRST: Duration = Duration::from_millis(250);
/// For so long after its last failure it is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Counts that are remembered.
const MOST: usize = 20_000;

/// What is put up with.
struct Bounds {
    free: u32,
    longest: Duration,
    /// Logins that are looked at, or wait for it, at a time.
    at_a_time: u32,
}

/// Failed logins, and those under way, by where they come from and whose they claim to be. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Attempts {
    all: Arc<Mutex<HashMap<Key, Count>>>,
    /// Names are as long as whoever comes likes.
    names: Arc<RandomState>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    from: IpAddr,
    /// A hash; `None`: whatever the name.
    name: Option<u64>,
}

struct Count {
    failed: u32,
    under_way: u32,
    last: Instant,
}

/// One login that is looked at. Whether it failed is said before it goes.
pub(super) struct Attempt {
    attempts: Attempts,
    /// Of whom it counts: who is guessed at alone already waits for it, and others behind the address need not.
    keys: Vec<Key>,
    /// How long it has to wait before.
    pub(super) wait: Duration,
}

impl Attempts {
    /// Begins one; `None` if there are enough from there. Those under way count as failed until they are known not to be, so that a
    /// burst waits like a row.
    pub(super) fn begin(&self, from: IpAddr, name: &str, now: Instant) -> Option<Attempt> {
        let from = network(from);
        let name = Some(self.names.hash_one(name));
        let keys = [Key { from, name: None }, Key { from, name }];
        let mut all = self.all.lock();
        if all.len() + keys.len() > MOST {
            forget(&mut all, now);
        }
        let is_guessed_at = all.get(&keys[1]).is_some_and(|count| {
            let failed = if now.duration_since(count.last) < REMEMBERED {
                count.failed
            } else {
                0
            };
            failed.saturating_add(count.under_way) >= OF_NAME.free
        });
        let keys = if is_guessed_at { vec![keys[1]] } else { keys.to_vec() };
        let mut wait = Duration::ZERO;
        for key in &keys {
            let bounds = key.bounds();
            let Some(count) = all.get_mut(key) else { continue };
            if now.duration_since(count.last) >= REMEMBERED {
                count.failed = 0;
            }
            if count.under_way >= bounds.at_a_time {
                return None;
            }
            wait = wait.max(bounds.wait(count.failed.saturating_add(count.under_way)));
        }
        for key in &keys {
            let new = Count {
                failed: 0,
                under_way: 0,
                last: now,
            };
            all.entry(*key).or_insert(new).under_way += 1;
        }
        Some(Attempt {
            attempts: self.clone(),
            keys,
            wait,
        })
    }
}

impl Attempt {
    /// It was a wrong one.
    pub(super) fn failed(&self, now: Instant) {
        let mut all = self.attempts.all.lock();
        for key in &self.keys {
            if let Some(count) = all.get_mut(key) {
                count.failed = count.failed.saturating_add(1);
                count.last = now;
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut all = self.attempts.all.lock();
        for key in &self.keys {
            let Some(count) = all.get_mut(key) else { continue };
            count.under_way -= 1;
            if count.under_way == 0 && count.failed == 0 {
                all.remove(key);
            }
        }
    }
}

impl Key {
    fn bounds(&self) -> &'static Bounds {
        match self.name {
            Some(_) => &OF_NAME,
            None => &OF_ADDRESS,
        }
    }
}

impl Bounds {
    fn wait(&self, failed: u32) -> Duration {
        match failed.checked_sub(self.free) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => (FIRST * 2u32.saturating_pow((beyond - 1).min(8))).min(self.longest),
        }
    }
}

/// Makes room: what is over goes, else the half that is older. Nobody is sent away because others are many.
fn forget(all: &mut HashMap<Key, Count>, now: Instant) {
    all.retain(|_, count| count.under_way > 0 || now.duration_since(count.last) < REMEMBERED);
    if all.len() < MOST / 2 {
        return;
    }
    let mut ends: Vec<Instant> = all.values().map(|count| count.last).collect();
    let middle = ends.len() / 2;
    let (_, middle, _) = ends.select_nth_unstable(middle);
    let middle = *middle;
    all.retain(|_, count| count.under_way > 0 || count.last > middle);
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

    fn failing(attempts: &Attempts, from: &str, name: &str, now: Instant) -> Duration {
        let attempt = attempts.begin(from.parse().unwrap(), name, now).unwrap();
        attempt.failed(now);
        attempt.wait
    }

    #[test]
    fn a_few_failures_cost_nothing_and_more_cost_more_and_more_up_to_a_bound() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let waits: Vec<Duration> = (0..30).map(|_| failing(&attempts, "192.0.2.1", "a", now)).collect();

        assert!(waits[..=10].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[11], FIRST);
        assert!(waits.is_sorted() && waits[29] == OF_NAME.longest);
        assert_eq!(failing(&attempts, "192.0.2.2", "a", now), Duration::ZERO);
        assert_eq!(failing(&attempts, "::ffff:192.0.2.1", "a", now), OF_NAME.longest);
        assert_eq!(failing(&attempts, "192.0.2.1", "a", now + REMEMBERED), Duration::ZERO);
    }

    #[test]
    fn who_guesses_one_name_slows_down_no_other_behind_the_same_address() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let from = "192.0.2.1";
        for _ in 0..300 {
            failing(&attempts, from, "guessed", now);
        }
        let held: Vec<Option<Attempt>> = (0..40)
            .map(|_| attempts.begin(from.parse().unwrap(), "guessed", now))
            .collect();
        assert_eq!(held.iter().flatten().count(), OF_NAME.at_a_time as usize);

        let honest = attempts.begin(from.parse().unwrap(), "line-2", now);

        assert_eq!(honest.map(|attempt| attempt.wait), Some(Duration::ZERO));
        assert_eq!(failing(&attempts, from, "line-1", now), Duration::ZERO);
    }

    #[test]
    fn who_tries_many_names_waits_as_well_and_later() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let waits: Vec<Duration> = (0..200)
            .map(|name| failing(&attempts, "192.0.2.1", &name.to_string(), now))
            .collect();

        assert!(waits[..=100].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!((waits[101], waits[199]), (FIRST, OF_ADDRESS.longest));
        assert_eq!(failing(&attempts, "192.0.2.2", "0", now), Duration::ZERO);
    }

    #[test]
    fn a_burst_waits_like_a_row_and_has_an_end() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        let from = IpAddr::from([192, 0, 2, 1]);

        let burst: Vec<Option<Attempt>> = (0..40).map(|_| attempts.begin(from, "a", now)).collect();

        let waits: Vec<Duration> = burst.iter().flatten().map(|attempt| attempt.wait).collect();
        assert_eq!(waits.len(), OF_NAME.at_a_time as usize);
        assert!(
            waits[10].is_zero() && waits[11] == FIRST && waits[31] == OF_NAME.longest,
            "{waits:?}"
        );
        drop(burst);
        assert_eq!(
            attempts.begin(from, "a", now).unwrap().wait,
            Duration::ZERO,
            "none of them failed"
        );
        assert!(attempts.all.lock().is_empty(), "nothing is remembered of them");
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_nobody_is_sent_away_for_it() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());

        for number in 0..3 * u32::try_from(MOST).unwrap() {
            let from = IpAddr::from(number.to_be_bytes());
            let at = now + Duration::from_micros(u64::from(number));
            let attempt = attempts.begin(from, "a", at).expect("it is looked at");
            attempt.failed(at);
            drop(attempt);
            assert!(attempts.all.lock().len() <= MOST);
        }

        let last = IpAddr::from((3 * u32::try_from(MOST).unwrap() - 1).to_be_bytes());
        let key = Key { from: last, name: None };
        assert_eq!(attempts.all.lock().get(&key).map(|count| count.failed), Some(1));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let (attempts, now) = (Attempts::default(), Clock::system().now());
        for host in 0..20 {
            failing(&attempts, &format!("2001:db8::{host}"), "a", now);
        }

        assert!(!failing(&attempts, "2001:db8::ffff", "a", now).is_zero());
        assert!(failing(&attempts, "2001:db8:0:1::1", "a", now).is_zero());
    }
}
