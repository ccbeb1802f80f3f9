use std::net::SocketAddr;

use serde::Deserialize;

/// Where operators look.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    pub address: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5001)),
        }
    }
}
