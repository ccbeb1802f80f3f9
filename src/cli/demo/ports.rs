//! Ports on loopback for the plant.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::cli::demo::Error;

/// For each wanted port that port where it is free, else any free one. No two are the same.
///
/// They are free when this returns, and not held: let them be bound at once.
///
/// # Errors
///
/// [`Error::Io`]: loopback has no free port.
pub(super) fn free<const N: usize>(wanted: [u16; N]) -> Result<[SocketAddr; N], Error> {
    let bound = wanted.map(bind);
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, bound) in addresses.iter_mut().zip(&bound) {
        *address = match bound {
            Ok((address, _)) => *address,
            Err(error) => return Err(refused(error)),
        };
    }
    Ok(addresses)
}

fn bind(wanted: u16) -> io::Result<(SocketAddr, TcpListener)> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = at(wanted).or_else(|_| at(0))?;
    Ok((listener.local_addr()?, listener))
}

fn refused(error: &io::Error) -> Error {
    Error::Io {
        action: "finding a free port of",
        path: PathBuf::from("127.0.0.1"),
        source: error.kind().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wanted = taken.local_addr().unwrap().port();

        let [first, second] = free([wanted, wanted]).unwrap();

        assert_ne!(first.port(), wanted);
        assert_ne!(first, second);
    }
}
