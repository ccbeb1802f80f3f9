//! The closed list of registries, and the words that clients may name them by.

use std::collections::HashMap;

use crate::oci::{Registry, Repository};

/// One registry and what it is called beside its own name.
#[derive(Clone, Debug)]
pub struct Named {
    /// The registry; [`Registry::own`] is what the parent itself calls its own.
    pub registry: Registry,
    /// Further names in `ns` and before a repository's name.
    pub aliases: Vec<String>,
    /// Names of this node under which every request means this registry; with or without a port.
    pub hosts: Vec<String>,
}

/// Which registry a word means.
#[derive(Clone, Debug)]
pub struct Names {
    /// Keys are canonical spellings.
    words: HashMap<String, Registry>,
    /// Keys are in lower case.
    hosts: HashMap<String, Registry>,
    unprefixed: Registry,
}

impl Names {
    /// The list of all registries; `unprefixed` is the one that is meant when nothing is named.
    ///
    /// # Errors
    ///
    /// [`NamesError`]: an alias that is no name, or one word for two registries.
    pub fn new(all: impl IntoIterator<Item = Named>, unprefixed: Registry) -> Result<Self, NamesError> {
        let mut names = Self {
            words: HashMap::new(),
            hosts: HashMap::new(),
            unprefixed,
        };
        for Named {
            registry,
            aliases,
            hosts,
        } in all
        {
            if !registry.is_own() {
                enter(&mut names.words, registry.as_str().to_owned(), &registry)?;
            }
            for alias in aliases {
                let canonical: Registry = alias.parse().map_err(|_| NamesError::Malformed { word: alias })?;
                enter(&mut names.words, canonical.as_str().to_owned(), &registry)?;
            }
            for host in hosts {
                enter(&mut names.hosts, normal_host(&host), &registry)?;
            }
        }
        if !names.unprefixed.is_own() && !names.words.contains_key(names.unprefixed.as_str()) {
            names
                .words
                .insert(names.unprefixed.as_str().to_owned(), names.unprefixed.clone());
        }
        Ok(names)
    }

    /// The registry that `word` names, in any of its spellings.
    pub fn find(&self, word: &str) -> Option<&Registry> {
        self.words.get(word).or_else(|| {
            let canonical: Registry = word.parse().ok()?;
            self.words.get(canonical.as_str())
        })
    }

    /// The registry that the value of a Host header is bound to: with its port, else without.
    pub fn bound_to(&self, host: &str) -> Option<&Registry> {
        if self.hosts.is_empty() {
            return None;
        }
        let host = normal_host(host);
        self.hosts.get(&host).or_else(|| self.hosts.get(without_port(&host)))
    }

    /// How a client names the repository to this node: bare if that is enough.
    pub fn spell(&self, repository: &Repository) -> String {
        if repository.registry == self.unprefixed {
            repository.name.to_string()
        } else {
            format!("{}/{}", repository.registry, repository.name)
        }
    }

    /// The same name in the spelling of [`Names::spell`], however a client writes it; `None` if nothing can be called so.
    pub fn respell(&self, name: &str) -> Option<String> {
        Some(self.spell(&self.meant(name)?))
    }

    /// The repository that a client means by this name; `None` if nothing can be called so.
    pub fn meant(&self, name: &str) -> Option<Repository> {
        let prefix = name.split_once('/').and_then(|(first, _)| self.find(first));
        let registry = prefix.unwrap_or(&self.unprefixed);
        let mut rest = name;
        while let Some((first, below)) = rest.split_once('/')
            && self.find(first) == Some(registry)
        {
            rest = below;
        }
        Some(Repository::new(registry.clone(), rest.parse().ok()?))
    }

    /// The registry that is meant when nothing is named.
    pub fn unprefixed(&self) -> &Registry {
        &self.unprefixed
    }
}

/// Why a list of names cannot be used. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// An alias that no client could write.
    #[error("the alias {word:?} is no name; write a host name or a single word")]
    Malformed {
        /// The alias as it was written.
        word: String,
    },

    /// Nobody could tell which one is meant.
    #[error("{word:?} is the name of two registries; rename one")]
    Twice {
        /// The name in its canonical spelling.
        word: String,
    },
}

/// Enters a word that no other registry may have.
fn enter(words: &mut HashMap<String, Registry>, word: String, registry: &Registry) -> Result<(), NamesError> {
    match words.get(&word) {
        Some(other) if other != registry => Err(NamesError::Twice { word }),
        _ => {
            words.insert(word, registry.clone());
            Ok(())
        }
    }
}

fn normal_host(host: &str) -> String {
    host.to_ascii_lowercase()
}

/// Cuts the port, but nothing inside the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(registry: &str, aliases: &[&str], hosts: &[&str]) -> Named {
        Named {
            registry: registry.parse().unwrap(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_registry_is_found_in_every_spelling_and_by_its_aliases() {
        let names = Names::new([named("docker.io", &["hub", "dh.example:5000"], &[])], Registry::own()).unwrap();

        for word in [
            "docker.io",
            "Docker.io:443",
            "registry-1.docker.io",
            "hub",
            "HUB",
            "dh.example:5000",
        ] {
            assert_eq!(names.find(word), Some(&Registry::docker_io()), "{word}");
        }
        for word in ["", "quay.io", "dh.example", "docker.io:80", "a b"] {
            assert_eq!(names.find(word), None, "{word}");
        }
    }

    #[test]
    fn a_host_is_bound_with_its_port_before_without_and_in_any_case() {
        let all = [
            named("docker.io", &[], &["p.example", "[::1]"]),
            named("quay.io", &[], &["P.example:5001"]),
        ];
        let names = Names::new(all, Registry::own()).unwrap();
        let bound = |host| names.bound_to(host).map(Registry::as_str);

        assert_eq!(bound("p.example"), Some("docker.io"));
        assert_eq!(bound("p.EXAMPLE:5000"), Some("docker.io"));
        assert_eq!(bound("p.example:5001"), Some("quay.io"));
        assert_eq!(bound("[::1]:5000"), Some("docker.io"));
        assert_eq!(bound("[::1]"), Some("docker.io"));
        assert_eq!(bound("other.example"), None);
        assert_eq!(bound(""), None);
    }

    #[test]
    fn one_word_for_two_registries_is_refused() {
        let twice = |all: [Named; 2]| Names::new(all, Registry::own()).unwrap_err();

        let by_alias = twice([named("docker.io", &["hub"], &[]), named("quay.io", &["HUB"], &[])]);
        let by_name = twice([
            named("docker.io", &[], &[]),
            named("quay.io", &["index.docker.io"], &[]),
        ]);
        let by_host = twice([named("docker.io", &[], &["p:1"]), named("quay.io", &[], &["P:1"])]);

        assert_eq!(by_alias, NamesError::Twice { word: "hub".to_owned() });
        assert_eq!(
            by_name,
            NamesError::Twice {
                word: "docker.io".to_owned()
            }
        );
        assert_eq!(by_host, NamesError::Twice { word: "p:1".to_owned() });
    }

    #[test]
    fn an_alias_that_no_client_could_write_is_refused() {
        let error = Names::new([named("docker.io", &["a/b"], &[])], Registry::own()).unwrap_err();

        assert_eq!(error, NamesError::Malformed { word: "a/b".to_owned() });
    }

    #[test]
    fn a_repository_is_spelled_bare_only_in_the_registry_of_unprefixed_names() {
        let names = Names::new([named("quay.io", &[], &[])], Registry::docker_io()).unwrap();
        let spelled = |registry: &str| names.spell(&Repository::new(registry.parse().unwrap(), "a/b".parse().unwrap()));

        assert_eq!(spelled("docker.io"), "a/b");
        assert_eq!(spelled("quay.io"), "quay.io/a/b");
    }

    #[test]
    fn the_registry_of_unprefixed_names_can_be_named_too() {
        let names = Names::new([], Registry::docker_io()).unwrap();

        assert_eq!(names.find("docker.io"), Some(&Registry::docker_io()));
    }
}
