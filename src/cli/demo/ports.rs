//! Ports on loopback for the plant.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::cli::demo::Error;

/// Ports that were free a moment ago, held until they are released all at once.
#[derive(Debug, Default)]
pub(super) struct Ports(Vec<TcpListener>);

impl Ports {
    /// The wanted port where it is free, else any free one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: loopback has no free port.
    pub(super) fn take(&mut self, wanted: u16) -> Result<SocketAddr, Error> {
        let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let bound = at(wanted).or_else(|_| at(0));
        let taken = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let failed = |source| Error::Io {
            action: "taking a port of",
            path: PathBuf::from("127.0.0.1"),
            source,
        };
        let (address, listener) = taken.map_err(failed)?;
        self.0.push(listener);
        Ok(address)
    }

    /// Lets go of all, for those who were promised them. A listener that accepted nothing leaves no trace.
    pub(super) fn release(self) {
        drop(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_replaced_by_a_free_one() {
        let mut ports = Ports::default();
        let first = ports.take(0).unwrap();

        let second = ports.take(first.port()).unwrap();

        assert_ne!(first, second);
    }
}
