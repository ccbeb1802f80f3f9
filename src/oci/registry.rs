//! The canonical name of a registry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::units::written_as_text;

/// A registry by the one name that all its spellings share, so that one image has one identity:
/// lower case, without the default port, `docker.io` for every name of Docker Hub.
///
/// It is a key in closed lists, never an address to dial.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Registry(Arc<str>);

/// Docker Hub, and what it is called too.
const DOCKER_IO: &str = "docker.io";
const DOCKER_IO_TOO: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

impl Registry {
    /// The parent's own registry: what it means by a name without any other. Written "".
    pub fn own() -> Self {
        Self("".into())
    }

    /// Docker Hub.
    pub fn docker_io() -> Self {
        Self(DOCKER_IO.into())
    }

    /// Whether it is the parent's own.
    pub fn is_own(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is Docker Hub, whose single-component names live under `library/`.
    pub fn is_docker_io(&self) -> bool {
        &*self.0 == DOCKER_IO
    }

    /// The canonical name; "" for the parent's own.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no registry's name. The caller's or the operator's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a registry name; write a host name, with a port if need be, like quay.io or mcr.example.com:8443")]
pub struct RegistryError;

impl FromStr for Registry {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let lower = text.to_ascii_lowercase();
        let (host, port) = split_port(&lower);
        if text.len() > 255 || !is_host(host) || !port.is_none_or(is_port) {
            return Err(RegistryError);
        }
        match port {
            None | Some("443") if DOCKER_IO_TOO.contains(&host) => Ok(Self::docker_io()),
            None | Some("443") => Ok(Self(host.into())),
            Some(_) => Ok(Self(lower.into())),
        }
    }
}

/// Cuts at the last colon, unless it stands inside the brackets of an IPv6 address.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_edge(c) || matches!(c, '-' | '_');
    let is_label = |label: &str| label.starts_with(is_edge) && label.ends_with(is_edge) && label.chars().all(is_inner);
    text.split('.').all(is_label)
}

fn is_port(text: &str) -> bool {
    !text.starts_with(['0', '+']) && text.parse::<u16>().is_ok()
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

written_as_text!(Registry);
