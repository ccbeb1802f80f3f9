//! The repository: a registry and a name within it.

use std::fmt;

use crate::oci::{Name, Registry};

/// The identity of a repository in every cache and record, however a client named it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Repository {
    /// Where it lives.
    pub registry: Registry,
    /// What it is called there.
    pub name: Name,
}

impl Repository {
    /// The repository `name` of `registry`. On Docker Hub a single component means `library/` and
    /// that component; one so long that the result were no name any more stays as it is.
    pub fn new(registry: Registry, name: Name) -> Self {
        if !registry.is_docker_io() || name.as_str().contains('/') {
            return Self { registry, name };
        }
        let name = format!("library/{name}").parse().unwrap_or(name);
        Self { registry, name }
    }
}

/// Writes `quay.io/a/b`, or `a/b` in the parent's own registry: for people, not to be read back.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.registry.is_own() {
            return self.name.fmt(f);
        }
        write!(f, "{}/{}", self.registry, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: Registry, name: &str) -> String {
        Repository::new(registry, name.parse().unwrap()).to_string()
    }

    #[test]
    fn a_single_component_means_library_on_docker_hub_and_nowhere_else() {
        assert_eq!(shown(Registry::docker_io(), "alpine"), "docker.io/library/alpine");
        assert_eq!(
            shown(Registry::docker_io(), "library/alpine"),
            "docker.io/library/alpine"
        );
        assert_eq!(
            shown(Registry::docker_io(), "grafana/grafana"),
            "docker.io/grafana/grafana"
        );
        assert_eq!(shown("quay.io".parse().unwrap(), "alpine"), "quay.io/alpine");
        assert_eq!(shown(Registry::own(), "alpine"), "alpine");
    }

    #[test]
    fn library_never_makes_a_name_too_long() {
        let longest = "a".repeat(Name::LONGEST);

        assert_eq!(shown(Registry::docker_io(), &longest), format!("docker.io/{longest}"));
    }
}
