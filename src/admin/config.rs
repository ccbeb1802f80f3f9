use std::net::SocketAddr;

use serde::Deserialize;

use crate::units::Address;

/// Where operators look.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "Written")]
pub struct Config {
    /// Address and port.
    pub address: SocketAddr,
}

/// What may stand in the file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    address: Address,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            address: Config::default().address.into(),
        }
    }
}

impl From<Written> for Config {
    fn from(written: Written) -> Self {
        Self {
            address: written.address.socket(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5001)),
        }
    }
}
