//! What a client must know of the node: where it is, how it is secured, and which names it understands.

use crate::cli::client::Error;
use crate::cli::client::address::Address;
use crate::oci::Registry;

/// The node as its clients see it.
#[derive(Debug)]
pub(super) struct Node {
    /// The registry port.
    pub(super) address: Address,
    pub(super) tls: bool,
    /// The authority that signed the node's certificate, in PEM; `None`: one that the client's system trusts.
    pub(super) ca: Option<String>,
    /// What an unprefixed name means; [`Registry::own`]: what the parent calls its own.
    pub(super) namespace: Registry,
    /// The registries that are reached by name, without `namespace`.
    pub(super) upstreams: Vec<Upstream>,
}

/// A registry that the node reaches by name.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) registry: Registry,
    /// Further names of it.
    pub(super) aliases: Vec<String>,
    /// A port of the node that means this registry.
    pub(super) port: Option<u16>,
    /// A host name of the node that means this registry.
    pub(super) host: Option<String>,
}

/// Where a client that can send neither `ns` nor a path prefix finds one registry.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Mirror {
    /// Here an unprefixed name means that registry.
    At(Address),
    /// The node knows the registry, but only by its name.
    ByNameOnly,
    /// The node does not know the registry: an unprefixed name is asked of the parent all the same.
    Unknown(Address),
}

impl Upstream {
    /// A registry that is reached by its name alone.
    pub(super) fn named(registry: Registry) -> Self {
        Self {
            registry,
            aliases: Vec::new(),
            port: None,
            host: None,
        }
    }
}

impl Node {
    /// A plain HTTP node that mirrors Docker Hub, as `wharf serve` is without any settings.
    #[cfg(test)]
    pub(super) fn at(address: Address) -> Self {
        Self {
            address,
            tls: false,
            ca: None,
            namespace: Registry::docker_io(),
            upstreams: Vec::new(),
        }
    }

    /// The URL of `address` on this node.
    pub(super) fn url_of(&self, address: &Address) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// The URL of the registry port.
    pub(super) fn url(&self) -> String {
        self.url_of(&self.address)
    }

    /// Every registry that clients may name, with the path component that means it.
    ///
    /// A name with a port cannot stand in a path (distribution spec, "Pulling manifests": the grammar of names), so
    /// an alias stands for it; without one it is `None` and only `ns` reaches it.
    pub(super) fn names(&self) -> Vec<(&Registry, Option<&str>)> {
        let namespace = (!self.namespace.is_own()).then_some((&self.namespace, &[][..]));
        let upstreams = self
            .upstreams
            .iter()
            .map(|upstream| (&upstream.registry, &upstream.aliases[..]));
        let named = namespace.into_iter().chain(upstreams);
        named
            .map(|(registry, aliases)| (registry, path_component(registry, aliases)))
            .collect()
    }

    /// Whether `registry` is reached by its name, in a path or by `ns`.
    pub(super) fn knows(&self, registry: &Registry) -> bool {
        self.names().iter().any(|(known, _)| *known == registry)
    }

    /// Where unprefixed names mean `registry`.
    pub(super) fn mirror_of(&self, registry: &Registry) -> Result<Mirror, Error> {
        if self.namespace == *registry {
            return Ok(Mirror::At(self.address.clone()));
        }
        let Some(upstream) = self.upstreams.iter().find(|upstream| upstream.registry == *registry) else {
            return Ok(Mirror::Unknown(self.address.clone()));
        };
        match (upstream.port, &upstream.host) {
            (Some(port), _) => Ok(Mirror::At(self.address.on_port(port))),
            (None, Some(host)) => {
                let address = self.address.named(host);
                let refused = |source| Error::Address {
                    text: host.clone(),
                    source,
                };
                Ok(Mirror::At(address.map_err(refused)?))
            }
            (None, None) => Ok(Mirror::ByNameOnly),
        }
    }
}

fn path_component<'a>(registry: &'a Registry, aliases: &'a [String]) -> Option<&'a str> {
    let names = std::iter::once(registry.as_str()).chain(aliases.iter().map(String::as_str));
    names.into_iter().find(|name| !name.contains([':', '[']))
}
