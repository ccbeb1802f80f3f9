use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::oci::Registry;

/// Which upstream is meant by the address at which a client came in.
pub(super) struct Bound {
    /// Every address that is listened on, so that the one that means none is told from one that means an
    /// upstream everywhere; empty if none means any.
    addresses: HashMap<SocketAddr, Option<Registry>>,
}

impl Bound {
    pub(super) fn new(addresses: &[(SocketAddr, Option<Registry>)]) -> Self {
        let any = addresses.iter().any(|(_, registry)| registry.is_some());
        let addresses = addresses.iter().filter(|_| any);
        Self {
            addresses: addresses
                .map(|(address, registry)| (canonical(*address), registry.clone()))
                .collect(),
        }
    }

    /// The upstream, by the connection's local address, which is looked up only if any is bound.
    ///
    /// An address of its own counts before its port on every address. `[::]` may take IPv4 as well.
    pub(super) fn to(&self, local: impl FnOnce() -> Option<SocketAddr>) -> Option<&Registry> {
        if self.addresses.is_empty() {
            return None;
        }
        let local = canonical(local()?);
        let every = |ip: IpAddr| SocketAddr::new(ip, local.port());
        let candidates = [
            Some(local),
            local.is_ipv4().then(|| every(Ipv4Addr::UNSPECIFIED.into())),
            Some(every(Ipv6Addr::UNSPECIFIED.into())),
        ];
        let found = candidates
            .into_iter()
            .flatten()
            .find_map(|address| self.addresses.get(&address));
        found?.as_ref()
    }
}

/// IPv4 is IPv4, also where a socket of IPv6 took it.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(six) => match six.ip().to_ipv4_mapped() {
            Some(four) => SocketAddr::new(four.into(), six.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(bound: &Bound, local: &str) -> Option<String> {
        let registry = bound.to(|| Some(local.parse().unwrap()));
        registry.map(|registry| registry.as_str().to_owned())
    }

    fn bound(addresses: &[(&str, Option<&str>)]) -> Bound {
        let parsed = addresses.iter().map(|(address, registry)| {
            let registry = registry.map(|registry| registry.parse().unwrap());
            (address.parse().unwrap(), registry)
        });
        Bound::new(&parsed.collect::<Vec<_>>())
    }

    #[test]
    fn an_address_means_what_it_is_bound_to_and_its_port_elsewhere_does_not() {
        let bound = bound(&[
            ("127.0.0.1:5000", None),
            ("127.0.0.1:5005", Some("quay.io")),
            ("[::1]:5005", Some("ghcr.io")),
        ]);

        assert_eq!(means(&bound, "127.0.0.1:5000"), None);
        assert_eq!(means(&bound, "127.0.0.1:5005").as_deref(), Some("quay.io"));
        assert_eq!(means(&bound, "[::1]:5005").as_deref(), Some("ghcr.io"));
        assert_eq!(means(&bound, "127.0.0.2:5005"), None);
        assert_eq!(means(&bound, "[::1]:5000"), None);
    }

    #[test]
    fn a_port_on_every_address_leaves_those_that_are_named_to_others() {
        let bound = bound(&[("127.0.0.1:5000", None), ("0.0.0.0:5000", Some("quay.io"))]);

        assert_eq!(means(&bound, "127.0.0.1:5000"), None);
        assert_eq!(means(&bound, "10.0.0.1:5000").as_deref(), Some("quay.io"));
        assert_eq!(means(&bound, "[fd00::1]:5000"), None);
    }

    #[test]
    fn ipv4_that_came_by_a_socket_of_ipv6_is_ipv4() {
        let bound = bound(&[("[::]:5000", Some("quay.io")), ("127.0.0.1:5001", Some("ghcr.io"))]);

        assert_eq!(means(&bound, "[::ffff:10.0.0.1]:5000").as_deref(), Some("quay.io"));
        assert_eq!(means(&bound, "10.0.0.1:5000").as_deref(), Some("quay.io"));
        assert_eq!(means(&bound, "[fd00::1]:5000").as_deref(), Some("quay.io"));
        assert_eq!(means(&bound, "[::ffff:127.0.0.1]:5001").as_deref(), Some("ghcr.io"));
    }

    #[test]
    fn nothing_is_looked_up_while_nothing_is_bound() {
        let bound = bound(&[("0.0.0.0:5000", None)]);

        assert!(bound.to(|| panic!("the address was looked up")).is_none());
    }
}
