use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::units::{Size, Span};

/// Where the registry listens, and what it puts up with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Address and port.
    pub address: SocketAddr,
    /// Certificate chain and key, PEM. Both or neither.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A request's header is here by then.
    pub header_timeout: Duration,
    /// A connection without a request is closed after.
    pub idle_timeout: Duration,
    /// A client that takes nothing for so long is cut off.
    pub write_timeout: Duration,
    /// A second: so is one that takes less, on average over `write_timeout`.
    pub min_rate: Size,
    /// Connections at a time; 0 derives them from the limit of open files.
    pub connections: usize,
}

/// What may stand in the file, before it is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    address: SocketAddr,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    header_timeout: Span,
    idle_timeout: Span,
    write_timeout: Span,
    min_rate: Size,
    connections: usize,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5000)),
            cert_file: None,
            key_file: None,
            header_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(75),
            write_timeout: Span::seconds(30),
            min_rate: Size::kib(1),
            connections: 0,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Written::default().try_into().expect("the defaults are allowed")
    }
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let certificate = match (written.cert_file, written.key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err("listen.cert_file stands without listen.key_file; write both, or neither for plain HTTP");
            }
            (None, Some(_)) => {
                return Err("listen.key_file stands without listen.cert_file; write both, or neither for plain HTTP");
            }
        };
        let timeouts = [written.header_timeout, written.idle_timeout, written.write_timeout];
        if timeouts.iter().any(|span| span.duration() < Duration::from_secs(1)) {
            return Err("a timeout of [listen] is below 1s, too short for any client; write 1s or more");
        }
        Ok(Self {
            address: written.address,
            certificate,
            header_timeout: written.header_timeout.duration(),
            idle_timeout: written.idle_timeout.duration(),
            write_timeout: written.write_timeout.duration(),
            min_rate: written.min_rate,
            connections: written.connections,
        })
    }
}
