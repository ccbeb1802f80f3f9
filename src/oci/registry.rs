//! The canonical name of a registry.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
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
        let host = canonical_host(host).ok_or(RegistryError)?;
        if text.len() > 255 || !port.is_none_or(is_port) {
            return Err(RegistryError);
        }
        match port {
            None | Some("443") if DOCKER_IO_TOO.contains(&&*host) => Ok(Self::docker_io()),
            None | Some("443") => Ok(Self((*host).into())),
            Some(port) => Ok(Self(format!("{host}:{port}").into())),
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

/// The one spelling of a host; `None` if it is none.
fn canonical_host(text: &str) -> Option<Cow<'_, str>> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(format!("[{address}]").into());
    }
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_edge(c) || matches!(c, '-' | '_');
    let is_label = |label: &str| label.starts_with(is_edge) && label.ends_with(is_edge) && label.chars().all(is_inner);
    text.split('.').all(is_label).then_some(text.into())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Registry>().unwrap().to_string()
    }

    #[test]
    fn all_spellings_of_docker_hub_are_one() {
        for text in [
            "docker.io",
            "Docker.IO",
            "index.docker.io",
            "registry-1.docker.io",
            "docker.io:443",
        ] {
            assert_eq!(text.parse(), Ok(Registry::docker_io()), "{text}");
        }
        assert_ne!("docker.io:5000".parse(), Ok(Registry::docker_io()));
    }

    #[test]
    fn the_default_port_is_cut_and_any_other_kept() {
        assert_eq!(canonical("Quay.io:443"), "quay.io");
        assert_eq!(canonical("mcr.example.com:8443"), "mcr.example.com:8443");
        assert_eq!(canonical("[::1]:443"), "[::1]");
        assert_eq!(canonical("[::1]:5000"), "[::1]:5000");
        assert_eq!(canonical("[::1]"), "[::1]");
    }

    #[test]
    fn one_address_has_one_spelling() {
        assert_eq!(canonical("[0:0:0:0:0:0:0:1]:5000"), "[::1]:5000");
        assert_eq!(canonical("[2001:DB8::0001]"), "[2001:db8::1]");
    }

    #[test]
    fn what_could_be_dialled_but_is_no_name_is_refused() {
        for text in [
            "",
            " ",
            "quay.io ",
            "https://quay.io",
            "quay.io/",
            "quay.io/x",
            "user@quay.io",
            "quay.io?x",
            "quay.io:",
            "quay.io:0",
            "quay.io:65536",
            "quay.io:+80",
            "quay.io:080",
            ":443",
            "a..b",
            ".a",
            "a.",
            "-a",
            "::1",
            "[::1",
            "[x]",
            "[]",
            "a:b:1",
            "a\r\nb",
            "\u{e9}.io",
        ] {
            assert_eq!(text.parse::<Registry>(), Err(RegistryError), "{text:?}");
        }
    }

    #[test]
    fn the_parents_own_registry_has_no_name_that_a_client_could_write() {
        assert!(Registry::own().is_own());
        assert!("".parse::<Registry>().is_err());
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_canonical_name(
            text in "[a-zA-Z0-9]{1,4}(\\.[a-zA-Z0-9_-]{1,4}){0,3}(:[0-9]{1,5})?|\\PC*",
        ) {
            if let Ok(registry) = text.parse::<Registry>() {
                prop_assert_eq!(registry.as_str().parse(), Ok(registry.clone()));
            }
        }
    }
}
