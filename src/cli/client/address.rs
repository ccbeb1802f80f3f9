//! Where clients find the node: a host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host name or IP address with a port, fit for a URL, an image name and a folder's name as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    /// An IPv6 address stands in brackets.
    host: String,
    port: u16,
}

/// Not an address. The operator's: the text says how one is written.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not an address; write the host and the port that clients use, like l3.plant.example:5000 or [fd00::3]:5000")]
pub(super) struct Malformed;

impl Address {
    /// The host as it stands in a URL.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The same host on another port.
    pub(super) fn on_port(&self, port: u16) -> Self {
        Self {
            host: self.host.clone(),
            port,
        }
    }

    /// Another host on the same port.
    pub(super) fn named(&self, host: &str) -> Result<Self, Malformed> {
        format!("{host}:{}", self.port).parse()
    }

    /// Whether it is an IPv6 address, which some clients cannot be given.
    pub(super) fn is_ipv6(&self) -> bool {
        self.host.starts_with('[')
    }

    /// Whether it means every address of the machine, which is nothing that a client could connect to.
    pub(super) fn is_wildcard(&self) -> bool {
        let bare = self.host.trim_matches(['[', ']']);
        bare.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl FromStr for Address {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (host, port) = text.rsplit_once(':').ok_or(Malformed)?;
        let port = port.parse().map_err(|_| Malformed)?;
        if port == 0 || !is_host(host) {
            return Err(Malformed);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let outer = text.starts_with(['-', '.']) || text.ends_with(['-', '.']);
    !text.is_empty()
        && !outer
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port_that_can_be_dialled() {
        for text in ["l3.plant.example:5000", "10.0.0.4:443", "[::1]:5000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "l3.plant.example",
            "10.0.0.4:0",
            ":5000",
            "::1:5000",
            "a b:5000",
            "a/b:5000",
            "a\":1",
            "[x]:1",
            ".:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_means_every_address_is_seen() {
        assert!("0.0.0.0:5000".parse::<Address>().unwrap().is_wildcard());
        assert!("[::]:5000".parse::<Address>().unwrap().is_wildcard());
        assert!(!"127.0.0.1:5000".parse::<Address>().unwrap().is_wildcard());
    }
}
