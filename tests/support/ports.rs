//! Ports below the range from which the kernel takes those of outgoing connections, so that one that was free stays
//! free until the program under test binds it, and while a stopped parent is away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

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
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
