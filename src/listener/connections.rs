//! How many connections there are, may be, and when none are taken any more.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use pingora::listeners::ConnectionFilter;
use tokio::sync::watch;

use super::refused::{Limit, Refused};

/// Descriptors kept for files, upstreams and the index.
const RESERVED: u64 = 256;

/// The task of a connection that was accepted begins long before; if not, there was none.
const BEGINS: Duration = Duration::from_secs(10);

/// Counts connections and requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    /// Of one address.
    each: usize,
    /// Behind these are many clients.
    proxies: Vec<IpNet>,
    open: watch::Sender<usize>,
    clients: Mutex<Clients>,
    refused: Refused,
    /// Requests that are being answered.
    busy: AtomicUsize,
    draining: watch::Sender<bool>,
}

/// Whose connections there are.
#[derive(Debug, Default)]
struct Clients {
    /// Those whose task has not begun, and since when.
    accepted: VecDeque<(Instant, Option<IpAddr>)>,
    open: HashMap<IpAddr, usize>,
}

impl Connections {
    /// At most `most` at a time, beyond which accepting pauses; of one address `each`, beyond which they are closed; of
    /// `proxies` any number.
    pub fn new(most: usize, each: usize, proxies: Vec<IpNet>, refused: Refused) -> Self {
        let shared = Shared {
            most,
            each,
            proxies,
            open: watch::Sender::new(0),
            clients: Mutex::default(),
            refused,
            busy: AtomicUsize::new(0),
            draining: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// As many as `descriptors` allow, when each may also read a file or ask an upstream.
    pub fn within(descriptors: u64) -> usize {
        usize::try_from(descriptors.saturating_sub(RESERVED) / 2)
            .unwrap_or(usize::MAX)
            .max(16)
    }

    /// Takes no more connections, closes each after the answer it is sending, and waits for the last
    /// answer, or for `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.send_replace(true);
        let mut open = self.shared.open.subscribe();
        let idle = async { while self.shared.busy.load(Ordering::Acquire) > 0 && open.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, idle).await;
    }

    /// Whether connections are being closed.
    pub fn is_draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// A request being answered, until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
        Busy {
            shared: self.shared.clone(),
        }
    }
}

impl Shared {
    /// Connections, and those about to be.
    fn taken(&self) -> usize {
        let mut clients = self.clients.lock();
        let is_late = |(since, _): &(Instant, _)| now().duration_since(*since) > BEGINS;
        while clients.accepted.front().is_some_and(is_late) {
            clients.accepted.pop_front();
        }
        clients.accepted.len() + *self.open.borrow()
    }
}

impl Clients {
    /// Connections of an address, and those about to be.
    fn of(&self, client: IpAddr) -> usize {
        let about = self.accepted.iter().filter(|(_, other)| *other == Some(client));
        self.open.get(&client).copied().unwrap_or(0) + about.count()
    }
}

impl Shared {
    /// As whom it is counted; `None`: as nobody.
    fn client(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|network| network.contains(&address));
        (!is_proxy).then(|| client(address))
    }
}

/// Who is counted as one client: an address of IPv4, the network of a host of IPv6 (RFC 6177: never less than /64).
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
    }
}

/// Counts one request.
pub(super) struct Busy {
    shared: Arc<Shared>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let last = self.shared.busy.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && *self.shared.draining.borrow() {
            // Wakes whoever drains.
            self.shared.open.send_modify(|_| {});
        }
    }
}

/// Accepting waits here, before it takes the next connection.
#[async_trait]
impl ConnectionFilter for Connections {
    async fn should_accept(&self, address: Option<&SocketAddr>) -> bool {
        let client = address.and_then(|address| self.shared.client(address.ip()));
        if self.is_draining() {
            return false;
        }
        if client.is_some_and(|client| self.shared.clients.lock().of(client) >= self.shared.each) {
            self.shared.refused.count(Limit::PerAddress);
            return false;
        }
        if self.shared.taken() >= self.shared.most {
            tracing::warn!(
                connections = self.shared.most,
                "as many connections as allowed; accepting pauses"
            );
            self.shared.refused.count(Limit::Connections);
            let mut open = self.shared.open.subscribe();
            while self.shared.taken() >= self.shared.most {
                // Also looked at anew now and then, as a connection that never began tells nobody.
                let _ = tokio::time::timeout(Duration::from_secs(1), open.changed()).await;
            }
        }
        self.shared.clients.lock().accepted.push_back((now(), client));
        true
    }
}

/// Counts one connection.
pub(super) struct Open {
    shared: Arc<Shared>,
    client: Option<IpAddr>,
}

impl Open {
    /// From its task's first moment on.
    pub(super) fn new(connections: &Connections, address: Option<IpAddr>) -> Self {
        let shared = connections.shared.clone();
        let client = address.and_then(|address| shared.client(address));
        let mut clients = shared.clients.lock();
        if let Some(at) = clients.accepted.iter().position(|(_, other)| *other == client) {
            clients.accepted.remove(at);
        }
        drop(clients);
        Self::counted(shared, client)
    }

    /// For one more thing that the same client has in work at the same time, which costs about as much as a
    /// connection. `None` if that would be one too many.
    pub(super) fn another(&self) -> Option<Self> {
        let shared = &self.shared;
        let one_more = |client| shared.clients.lock().of(client) < shared.each;
        let is_free = self.client.is_none_or(one_more) && shared.taken() < shared.most;
        is_free.then(|| Self::counted(shared.clone(), self.client))
    }

    fn counted(shared: Arc<Shared>, client: Option<IpAddr>) -> Self {
        if let Some(client) = client {
            *shared.clients.lock().open.entry(client).or_default() += 1;
        }
        shared.open.send_modify(|open| *open += 1);
        Self { shared, client }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock();
        if let Some(client) = self.client
            && let Some(open) = clients.open.get_mut(&client)
        {
            *open -= 1;
            if *open == 0 {
                clients.open.remove(&client);
            }
        }
        drop(clients);
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

/// Raises the soft limit of open files to the hard one; the limit that holds now.
pub fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is decided by it but how long a slot is held"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_of_version_six_are_one_client() {
        let same = |one: &str, other: &str| client(one.parse().unwrap()) == client(other.parse().unwrap());

        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
