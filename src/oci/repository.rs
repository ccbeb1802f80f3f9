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
