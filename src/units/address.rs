//! Where to listen, written `127.0.0.1:5000`, `[::]:5000` or `localhost:5000`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::units::written_as_text;

/// An IP address and a port. `localhost` is 127.0.0.1; no other name is resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address(SocketAddr);

impl Address {
    /// The address as the standard library's type.
    pub const fn socket(self) -> SocketAddr {
        self.0
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

/// Why a text is no address to listen on. The operator's: the message says what may be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// An IP address alone.
    #[error("{text:?} has no port; write {with_port}")]
    NoPort {
        /// As it was written.
        text: String,
        /// What was probably meant.
        with_port: SocketAddr,
    },

    /// A port alone.
    #[error(
        "{text:?} has no address; write 127.0.0.1:{port} for this machine alone, or 0.0.0.0:{port} for all networks"
    )]
    NoAddress {
        /// As it was written.
        text: String,
        /// The port.
        port: u16,
    },

    /// A name.
    #[error(
        "{text:?} is not an IP address and a port; write 0.0.0.0:5000 for all networks, [::]:5000 with IPv6, or 127.0.0.1:5000 for this machine alone"
    )]
    Malformed {
        /// As it was written.
        text: String,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let port = |digits: &str| digits.parse::<u16>().ok();
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Ok(Self((Ipv4Addr::LOCALHOST, port).into()));
        }
        let text = text.to_owned();
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let with_port = SocketAddr::new(ip, 5000);
            return Err(AddressError::NoPort { text, with_port });
        }
        match port(text.strip_prefix(':').unwrap_or(&text)) {
            Some(port) => Err(AddressError::NoAddress { text, port }),
            None => Err(AddressError::Malformed { text }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

written_as_text!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_and_a_port_or_localhost() {
        for (text, meant) in [
            ("0.0.0.0:5000", "0.0.0.0:5000"),
            ("[::]:5000", "[::]:5000"),
            ("localhost:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), meant);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_one_that_was_meant() {
        for (text, remedy) in [
            ("127.0.0.1", "write 127.0.0.1:5000"),
            ("::1", "write [::1]:5000"),
            (":8080", "0.0.0.0:8080"),
            ("8080", "0.0.0.0:8080"),
            ("gateway:5000", "0.0.0.0:5000"),
            ("localhost", "127.0.0.1:5000"),
            ("127.0.0.1:70000", "127.0.0.1:5000"),
            ("", "0.0.0.0:5000"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();

            assert!(error.contains(remedy), "{text}: {error}");
        }
    }
}
