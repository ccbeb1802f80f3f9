//! Whoever guesses passwords has to wait.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;

/// Failures of one address that cost nothing: people mistype, and scripts have an old password.
const FREE: u32 = 10;
/// The first wait, which doubles with each further failure.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
/// For so long after its last failure an address is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Addresses that are remembered.
const MOST: u64 = 10_000;
/// Of one address, logins that wait at a time.
const WAITING: u32 = 8;

/// Failed logins, by where they came from.
pub(super) struct Attempts {
    failed: Cache<IpAddr, u32>,
    waiting: Cache<IpAddr, u32>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            failed: Cache::builder().max_capacity(MOST).time_to_live(REMEMBERED).build(),
            waiting: Cache::builder().max_capacity(MOST).time_to_live(LONGEST * 4).build(),
        }
    }

    /// How long a login from there has to wait before it is looked at.
    pub(super) fn wait(&self, from: IpAddr) -> Duration {
        let failed = self.failed.get(&network(from)).unwrap_or_default();
        match failed.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => (FIRST * 2u32.saturating_pow((beyond - 1).min(8))).min(LONGEST),
        }
    }

    /// Another one waits; false if there are enough of them.
    pub(super) fn begin_waiting(&self, from: IpAddr) -> bool {
        let from = network(from);
        let waiting = self.waiting.get(&from).unwrap_or_default();
        if waiting >= WAITING {
            return false;
        }
        self.waiting.insert(from, waiting + 1);
        true
    }

    pub(super) fn end_waiting(&self, from: IpAddr) {
        let from = network(from);
        let waiting = self.waiting.get(&from).unwrap_or_default();
        self.waiting.insert(from, waiting.saturating_sub(1));
    }

    pub(super) fn failed(&self, from: IpAddr) {
        let from = network(from);
        let failed = self.failed.get(&from).unwrap_or_default();
        self.failed.insert(from, failed.saturating_add(1));
    }
}

/// Of IPv6, the /64: whoever has one address of it has all.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
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

    #[test]
    fn a_few_failures_cost_nothing_and_more_cost_more_and_more_up_to_a_bound() {
        let (attempts, from) = (Attempts::new(), IpAddr::from([192, 0, 2, 1]));
        let mut waits = Vec::new();
        for _ in 0..30 {
            waits.push(attempts.wait(from));
            attempts.failed(from);
        }

        assert!(waits[..=10].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[11], FIRST);
        assert!(waits.is_sorted() && waits[29] == LONGEST);
        assert_eq!(attempts.wait(IpAddr::from([192, 0, 2, 2])), Duration::ZERO);
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let attempts = Attempts::new();
        for host in 0..20 {
            attempts.failed(format!("2001:db8::{host}").parse().unwrap());
        }

        assert!(!attempts.wait("2001:db8::ffff".parse().unwrap()).is_zero());
        assert!(attempts.wait("2001:db8:0:1::1".parse().unwrap()).is_zero());
    }
}
