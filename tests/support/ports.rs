//! Ports below the range from which the kernel takes those of outgoing connections, so that one that was free stays
//! free until the program under test binds it, and while a stopped parent is away.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Where a test lets something listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

/// An address of the loopback interface on which nobody listens and which no other test is given.
pub fn free(family: Family) -> SocketAddr {
    // Two runs at the same time begin in different places.
    let offset = (std::process::id().wrapping_mul(613) % u32::from(COUNT)) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + ((u32::from(offset) + u32::from(step)) % u32::from(COUNT)) as u16;
        let address = SocketAddr::new(family.loopback(), port);
        if is_free(address) {
            return address;
        }
    }
}

/// Nothing listens while this looks: a child that is being started meanwhile would hold that open, and nobody could listen there
/// until it is another program.
fn is_free(address: SocketAddr) -> bool {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.expect("a socket");
    socket.set_reuseaddr(true).is_ok() && socket.bind(address).is_ok()
}

/// Listens there, also where this process did so before: what was closed here may still be held by a child that is being started.
pub async fn listen_again(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < Duration::from_secs(5) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bound => return bound.unwrap_or_else(|error| panic!("{address} was free: {error}")),
        }
    }
}
