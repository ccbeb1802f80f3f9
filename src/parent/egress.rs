//! To which addresses the names of an upstream, its token service and its redirects may lead.
//!
//! The upstream and the hosts of the settings are reached wherever they are. Any other host comes
//! from an answer, and its address must lie no further inside the network than the upstream's own:
//! a registry on the Internet cannot send us to the plant, nor to a cloud's metadata service.
//! Names are checked after resolving, so that a name cannot hide an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::units::Clock;

/// The system's resolver is not waited for any longer, nor for more than half of what a connection may
/// take; the last good answer is used instead.
const RESOLVE_WITHIN: Duration = Duration::from_secs(3);

/// The last good answer is used for so long.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);

/// A name service that failed is not asked for the same name within this, if there is an old answer.
const PAUSE: Duration = Duration::from_secs(5);

/// So many names are remembered for the time when the name service is away.
const MOST_NAMES: usize = 256;

/// How far inside the network an address lies.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Depth {
    Public,
    Private,
    Loopback,
    /// Link-local, where clouds keep their metadata service, and what no host has.
    Link,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NameError {
    /// Passes with time.
    #[error("the name service does not help: {0}")]
    Away(String),

    /// The operator's, who wrote the name, or the upstream's.
    #[error("the name has no address")]
    Nowhere,

    /// The upstream sends us where we do not go.
    #[error("the name leads to an address inside the network")]
    Inside,
}

/// The rule, and what is remembered to judge by it. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Egress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The upstream's host.
    home: String,
    /// Hosts that the settings name.
    listed: Vec<Listed>,
    memory: Mutex<Memory>,
    within: Duration,
    clock: Clock,
}

/// A host of the settings: at one port, or at any.
#[derive(Debug)]
struct Listed {
    host: String,
    port: Option<u16>,
}

/// One lock, never held across an await.
#[derive(Debug)]
struct Memory {
    /// Of the upstream itself, as last resolved.
    home: Depth,
    /// The last good answer for each name.
    addresses: HashMap<String, Good>,
}

/// A good answer of the name service.
#[derive(Debug)]
struct Good {
    addresses: Vec<SocketAddr>,
    since: Instant,
    /// When it was last asked in vain.
    failed: Option<Instant>,
}

impl Egress {
    /// `listed` are hosts of the settings, with or without a port; `connect_timeout` is what a
    /// connection may take with its name.
    pub(super) fn new(
        upstream: &Url,
        listed: impl Iterator<Item = String>,
        connect_timeout: Duration,
        clock: Clock,
    ) -> Self {
        let home = match upstream.host() {
            Some(Host::Ipv4(ip)) => Depth::of(ip.into()),
            Some(Host::Ipv6(ip)) => Depth::of(ip.into()),
            _ => Depth::Public,
        };
        Self(Arc::new(Shared {
            home: upstream.host_str().unwrap_or_default().to_owned(),
            listed: listed.map(|written| Listed::parse(&written)).collect(),
            memory: Mutex::new(Memory {
                home,
                addresses: HashMap::new(),
            }),
            within: RESOLVE_WITHIN.min(connect_timeout / 2),
            clock,
        }))
    }

    /// Whether a URL from an answer may be asked as far as one can tell before resolving: an
    /// address that stands in the URL itself never meets the resolver.
    pub(super) fn admits(&self, url: &Url) -> bool {
        let address = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::from(ip),
            Some(Host::Ipv6(ip)) => IpAddr::from(ip),
            // Where it leads is judged once it is resolved, by its name alone: the port is judged here.
            Some(Host::Domain(_)) => return !self.0.is_at_another_port(url),
            None => return false,
        };
        let host = url.host_str().unwrap_or_default();
        let is_named = self.0.is_named(host) && !self.0.is_at_another_port(url);
        is_named || Depth::of(address) <= self.0.memory.lock().home
    }

    /// Has `host` stand for these addresses while the name service does not know it.
    #[cfg(test)]
    pub(super) fn remember(&self, host: &str, addresses: Vec<SocketAddr>) {
        let mut memory = self.0.memory.lock();
        let good = Good::new(addresses, self.0.clock.now());
        memory.addresses.insert(host.to_owned(), good);
    }

    async fn resolve_name(&self, host: &str) -> Result<Vec<SocketAddr>, NameError> {
        let found = match self.is_pausing(host) {
            true => Err("it failed a moment ago".to_owned()),
            false => match tokio::time::timeout(self.0.within, look_up(host)).await {
                Ok(found) => found,
                Err(_) => Err("it does not answer".to_owned()),
            },
        };
        let now = self.0.clock.now();
        let mut memory = self.0.memory.lock();
        let addresses = match found {
            Ok(addresses) if addresses.is_empty() => return Err(NameError::Nowhere),
            Ok(addresses) => {
                memory.remember(host, Good::new(addresses.clone(), now));
                addresses
            }
            Err(reason) => memory.last_good(host, now).ok_or(NameError::Away(reason))?,
        };
        self.0.judge(&mut memory, host, addresses)
    }

    fn is_pausing(&self, host: &str) -> bool {
        let memory = self.0.memory.lock();
        let failed = memory.addresses.get(host).and_then(|good| good.failed);
        failed.is_some_and(|failed| self.0.clock.now().saturating_duration_since(failed) < PAUSE)
    }
}

async fn look_up(host: &str) -> Result<Vec<SocketAddr>, String> {
    #[cfg(feature = "failpoints")]
    if let Some(scripted) = super::script::look_up(host).await {
        return scripted;
    }
    let found = tokio::net::lookup_host((host, 0)).await;
    found.map(Iterator::collect).map_err(|error| error.to_string())
}

impl Memory {
    fn remember(&mut self, host: &str, good: Good) {
        if self.addresses.len() >= MOST_NAMES && !self.addresses.contains_key(host) {
            self.addresses.clear();
        }
        self.addresses.insert(host.to_owned(), good);
    }

    /// What a name that cannot be resolved now last led to.
    fn last_good(&mut self, host: &str, now: Instant) -> Option<Vec<SocketAddr>> {
        let good = self.addresses.get_mut(host)?;
        if now.saturating_duration_since(good.since) > GOOD_FOR {
            self.addresses.remove(host);
            return None;
        }
        let is_paused = good
            .failed
            .is_some_and(|failed| now.saturating_duration_since(failed) < PAUSE);
        if !is_paused {
            good.failed = Some(now);
            tracing::warn!(
                host,
                retry_s = PAUSE.as_secs(),
                "name not resolved, last good address used"
            );
        }
        Some(good.addresses.clone())
    }
}

impl Good {
    fn new(addresses: Vec<SocketAddr>, since: Instant) -> Self {
        Self {
            addresses,
            since,
            failed: None,
        }
    }
}

impl Resolve for Egress {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.clone();
        Box::pin(async move {
            let addresses = egress.resolve_name(name.as_str()).await?;
            #[cfg(feature = "failpoints")]
            if let Some(behind) = super::script::behind(name.as_str()) {
                return Ok(Box::new(std::iter::once(behind)) as Addrs);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Shared {
    fn is_named(&self, host: &str) -> bool {
        host.eq_ignore_ascii_case(&self.home) || self.listed_as(host).next().is_some()
    }

    /// Whether the settings name the host, and other ports of it.
    fn is_at_another_port(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default();
        let mut ports = self.listed_as(host).map(|listed| listed.port).peekable();
        let is_listed = ports.peek().is_some() && !host.eq_ignore_ascii_case(&self.home);
        is_listed && !ports.any(|listed| listed.is_none() || listed == port)
    }

    fn listed_as(&self, host: &str) -> impl Iterator<Item = &Listed> {
        self.listed
            .iter()
            .filter(move |listed| host.eq_ignore_ascii_case(&listed.host))
    }

    /// The addresses that may be connected to; none left is an error.
    fn judge(
        &self,
        memory: &mut Memory,
        host: &str,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, NameError> {
        if host.eq_ignore_ascii_case(&self.home) {
            let depths = addresses.iter().map(|address| Depth::of(address.ip()));
            memory.home = depths.min().unwrap_or(Depth::Public);
        } else if !self.is_named(host) {
            addresses.retain(|address| Depth::of(address.ip()) <= memory.home);
        }
        if addresses.is_empty() {
            return Err(NameError::Inside);
        }
        Ok(addresses)
    }
}

impl Depth {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        if address.is_loopback() || a == 0 {
            return Self::Loopback;
        }
        if address.is_link_local() || a >= 224 {
            return Self::Link;
        }
        let is_carrier_grade = a == 100 && (64..128).contains(&b);
        if address.is_private() || is_carrier_grade {
            return Self::Private;
        }
        Self::Public
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        // An IPv4 address in IPv6 clothes: mapped, or behind NAT64 (RFC 6052).
        if let Some(v4) = address.to_ipv4_mapped() {
            return Self::of_v4(v4);
        }
        let [first, second, .., high, low] = address.segments();
        if (first, second) == (0x64, 0xff9b) {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            return Self::of_v4(Ipv4Addr::new(a, b, c, d));
        }
        if address.is_loopback() || address.is_unspecified() {
            return Self::Loopback;
        }
        if address.is_unicast_link_local() || address.is_multicast() {
            return Self::Link;
        }
        if address.is_unique_local() {
            return Self::Private;
        }
        Self::Public
    }
}

impl Listed {
    /// From `host:port`, `[v6]:port` or `host`.
    fn parse(written: &str) -> Self {
        let split = written.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = split.map_or((written, None), |(host, port)| (host, port.parse().ok()));
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(upstream: &str, listed: &[&str]) -> Egress {
        let listed: Vec<String> = listed.iter().map(|&host| host.to_owned()).collect();
        let upstream = Url::parse(upstream).unwrap();
        Egress::new(&upstream, listed.into_iter(), Duration::from_secs(5), Clock::system())
    }

    fn admits(egress: &Egress, url: &str) -> bool {
        egress.admits(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_public_upstream_cannot_send_us_inside() {
        let hub = egress("https://registry-1.docker.io/", &[]);

        for inside in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://10.1.2.3/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://0.0.0.0/",
        ] {
            assert!(!admits(&hub, inside), "{inside}");
        }
        assert!(admits(&hub, "https://93.184.216.34/"));
    }

    #[test]
    fn an_upstream_inside_may_send_us_as_far_in_as_it_is_itself() {
        let private = egress("https://10.0.0.5/", &[]);
        let local = egress("http://127.0.0.1:5000/", &[]);

        assert!(admits(&private, "https://192.168.3.4/"));
        assert!(!admits(&private, "http://127.0.0.1/"));
        assert!(!admits(&private, "http://169.254.169.254/"));
        assert!(admits(&local, "http://127.0.0.2:9000/"));
        assert!(!admits(&local, "http://169.254.169.254/"));
    }

    #[test]
    fn a_listed_host_is_reached_wherever_it_is() {
        let listed = egress("https://registry-1.docker.io/", &["10.0.0.9:8443", "[fd00::9]"]);

        assert!(admits(&listed, "https://10.0.0.9:8443/"));
        assert!(admits(&listed, "https://[fd00::9]/"));
        assert!(!admits(&listed, "https://10.0.0.8:8443/"));
        assert!(admits(&listed, "https://[fd00::9]:9443/"));
    }

    #[test]
    fn a_host_that_is_listed_with_a_port_is_reached_at_that_port_alone() {
        let listed = egress("https://registry-1.docker.io/", &["10.0.0.9:8443", "storage.plant:443"]);

        assert!(!admits(&listed, "https://10.0.0.9/"));
        assert!(!admits(&listed, "http://10.0.0.9:9000/"));
        assert!(admits(&listed, "https://storage.plant/"));
        assert!(!admits(&listed, "http://storage.plant:9000/"));
        assert!(admits(&listed, "https://elsewhere.plant:9000/"));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_after_resolving() {
        let hub = egress("https://registry-1.docker.io/", &[]);
        let local = egress("http://127.0.0.1:5000/", &[]);

        let error = hub.resolve_name("localhost").await.unwrap_err();

        assert!(matches!(error, NameError::Inside), "{error}");
        assert!(local.resolve_name("localhost").await.is_ok());
    }

    #[tokio::test]
    async fn the_upstream_itself_may_be_anywhere_and_sets_the_depth() {
        let here = egress("http://localhost:5000/", &[]);
        assert!(!admits(&here, "http://127.0.0.1:9000/"));

        here.resolve_name("localhost").await.unwrap();

        assert!(admits(&here, "http://127.0.0.1:9000/"));
    }

    #[tokio::test]
    async fn the_last_good_address_serves_while_the_name_service_is_away() {
        let (clock, hand) = Clock::manual();
        let upstream = Url::parse("http://wharf.invalid:5000/").unwrap();
        let here = Egress::new(&upstream, std::iter::empty(), Duration::from_secs(5), clock);
        let known = SocketAddr::from(([10, 0, 0, 1], 0));
        here.remember("wharf.invalid", vec![known]);

        assert_eq!(here.resolve_name("wharf.invalid").await.unwrap(), vec![known]);
        assert!(here.resolve_name("other.invalid").await.is_err());

        hand.advance(GOOD_FOR + PAUSE);
        assert!(here.resolve_name("wharf.invalid").await.is_err());
    }
}
