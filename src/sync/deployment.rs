//! A selection that is made elsewhere: the images that a file names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::leave::is_too_much;
use crate::oci::{Digest, Name, Reference, Registry, Repository};
use crate::router::Names;
use crate::select::{Chosen, Globs, Host, Image, Images};

/// Why a file is not believed that can be read.
const SHRUNK: &str =
    "it has lost more than half of its images; if that is meant, ask for it by SIGHUP or POST /api/reload";

/// A file, and the images that it named when it was last read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "PathBuf")]
pub struct Deployment {
    /// Where it lies.
    pub path: PathBuf,
    read: Result<Images, String>,
    /// Why what was read last counts still, and not what lies there, in words.
    lags: Option<String>,
}

/// What it comes to on this node: by repositories as clients write them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Deployed {
    repositories: BTreeMap<String, Part>,
    /// In words, what of it cannot be had here.
    pub(super) amiss: Vec<String>,
}

/// What is wanted of a repository.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Part {
    tags: Option<Chosen>,
    digests: Vec<Digest>,
}

impl From<PathBuf> for Deployment {
    fn from(path: PathBuf) -> Self {
        let read = Images::read(&path);
        Self { path, read, lags: None }
    }
}

impl Deployment {
    /// As it lies there now; what was read before, where that cannot be read or is not to be believed without somebody's word.
    /// Blocks.
    pub fn read_anew(&self) -> Self {
        let anew = Self::from(self.path.clone());
        match self.shrinks_to(&anew) {
            true => Self {
                lags: Some(SHRUNK.to_owned()),
                ..self.clone()
            },
            false => anew.or(Some(self)),
        }
    }

    /// In words, why it is not as it lies there.
    pub fn trouble(&self) -> Option<String> {
        let why = self.lags.as_ref().or(self.read.as_ref().err())?;
        Some(format!("from {}: {why}", self.path.display()))
    }

    /// Whether it is what lies there. Blocks.
    pub fn is_as_it_lies(&self) -> bool {
        self.read_anew() == *self
    }

    /// Whether it could be read.
    pub fn is_read(&self) -> bool {
        self.read.is_ok()
    }

    /// The same, if it was read, else as it was before, if that was: of the same file.
    pub fn or(self, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.is_read() && before.path == self.path);
        match (&self.read, before) {
            (Err(why), Some(before)) => Self {
                lags: Some(why.clone()),
                ..before.clone()
            },
            _ => self,
        }
    }

    /// Whether `next` names so much less that it is more likely half a file than what somebody wants.
    fn shrinks_to(&self, next: &Self) -> bool {
        let (Ok(before), Ok(after)) = (&self.read, &next.read) else {
            return false;
        };
        let lost = before.all.difference(&after.all).count();
        is_too_much(lost, before.all.len())
    }

    /// In words, what of it is not taken.
    pub fn doubts(&self) -> Vec<String> {
        match &self.read {
            Ok(images) => images.refused.clone(),
            Err(why) => vec![format!(
                "{}: {why}; what it selected before stays until it can be read",
                self.path.display()
            )],
        }
    }

    /// What it comes to on a node that has these names. `hosts`: where what is meant without any name is, as others say.
    pub(super) fn on(&self, names: &Names, hosts: &[String]) -> Deployed {
        let mut deployed = Deployed::default();
        let images = match &self.read {
            Ok(images) => images,
            Err(why) => {
                deployed.amiss.push(format!("{}: {why}", self.path.display()));
                return deployed;
            }
        };
        let place = |words: &String| format!("{}: {words}", self.path.display());
        deployed.amiss.extend(self.lags.iter().map(place));
        deployed.amiss.extend(images.refused.iter().map(place));
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for image in &images.all {
            match repository_of(image, names, hosts) {
                Ok(repository) => {
                    let name = names.spell(&repository);
                    match &image.reference {
                        Reference::Tag(tag) => tags.entry(name).or_default().push(tag.to_string()),
                        Reference::Digest(digest) => {
                            deployed.repositories.entry(name).or_default().digests.push(*digest);
                        }
                    }
                }
                Err(why) => deployed.amiss.push(place(&why)),
            }
        }
        for (name, tags) in tags {
            let chosen = Chosen {
                // Tags have no letters that mean anything in a pattern.
                named: Globs::new(&tags).unwrap_or_default(),
                ..Chosen::default()
            };
            deployed.repositories.entry(name).or_default().tags = Some(chosen);
        }
        deployed
    }
}

impl Deployed {
    /// The repositories of which it names anything.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.repositories.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.repositories.contains_key(name)
    }

    /// The tags that it names of a repository, if there are any.
    pub(super) fn tags(&self, name: &str) -> Option<&Chosen> {
        self.repositories.get(name)?.tags.as_ref()
    }

    /// What it names by its digest.
    pub(super) fn digests(&self, name: &str) -> &[Digest] {
        self.repositories.get(name).map_or(&[], |part| &part.digests)
    }
}

/// The repository on this node that has the image.
fn repository_of(image: &Image, names: &Names, hosts: &[String]) -> Result<Repository, String> {
    let Image { host, name, .. } = image;
    match host {
        Host::Named(host) if hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) => named(name, names),
        Host::Named(host) => {
            let registry = names.find(host).or_else(|| names.bound_to(host));
            let registry = registry.ok_or_else(|| {
                format!(
                    "{host}/{name}: nothing is called {host} here; it may be an alias of an [[upstream]], or this node's login_server under [listen]"
                )
            })?;
            Ok(Repository::new(registry.clone(), name.clone()))
        }
        Host::Upstream => named(name, names),
        // As Docker would ask for it, where this node knows Docker Hub.
        Host::Unsaid => match names.find(HUB) {
            Some(hub) => Ok(at_hub(hub, name)),
            None => named(name, names),
        },
    }
}

const HUB: &str = "docker.io";

fn at_hub(hub: &Registry, name: &Name) -> Repository {
    let whole = match name.as_str().contains('/') {
        true => None,
        false => format!("library/{name}").parse().ok(),
    };
    Repository::new(hub.clone(), whole.unwrap_or_else(|| name.clone()))
}

fn named(name: &Name, names: &Names) -> Result<Repository, String> {
    names
        .meant(name.as_str())
        .ok_or_else(|| format!("{name}: nothing can be called so here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Named;

    fn names(registries: &[(&str, &[&str])]) -> Names {
        let named = |(registry, aliases): &(&str, &[&str])| Named {
            registry: registry.parse().unwrap(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            hosts: if *registry == "quay.example" {
                vec!["gateway.example:5000".to_owned()]
            } else {
                Vec::new()
            },
        };
        Names::new(registries.iter().map(named), Registry::own()).unwrap()
    }

    fn deployed(text: &str, names: &Names) -> Deployed {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployment.json");
        std::fs::write(&path, text).unwrap();
        Deployment::from(path).on(names, &["parent.example".to_owned()])
    }

    fn services(images: &[&str]) -> String {
        let service = |(place, image): (usize, &&str)| format!("s{place}: {{image: '{image}'}}");
        let services: Vec<String> = images.iter().enumerate().map(service).collect();
        format!("services: {{{}}}", services.join(", "))
    }

    #[test]
    fn images_are_looked_for_where_the_node_has_what_is_called_so() {
        let images = services(&[
            "redis:7",
            "plant/app",
            "$upstream:8000/press:v2",
            "quay.example/tools/x:1",
            "q/x:2",
        ]);

        let hub = names(&[("docker.io", &[]), ("quay.example", &["q"])]);
        let found = deployed(&images, &hub);
        let all: Vec<&str> = found.names().collect();
        assert_eq!(
            all,
            [
                "docker.io/library/redis",
                "docker.io/plant/app",
                "docker.io/q/x",
                "press",
                "quay.example/tools/x"
            ]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
        );

        let none = names(&[("quay.example", &["q"])]);
        let found = deployed(&images, &none);
        assert!(found.has("redis") && found.has("plant/app") && found.has("quay.example/x"));
        assert!(found.tags("redis").unwrap().may_have("7") && !found.tags("redis").unwrap().may_have("8"));
    }

    #[test]
    fn this_node_may_be_called_by_its_own_address_and_a_stranger_is_told() {
        let found = deployed(
            &services(&["gateway.example:5000/a:1", "Parent.example/c:1", "nobody.example/b:1"]),
            &names(&[("quay.example", &[])]),
        );

        assert!(found.has("quay.example/a") && found.has("c"));
        assert_eq!(found.amiss.len(), 1);
        assert!(
            found.amiss[0].contains("nothing is called nobody.example here"),
            "{:?}",
            found.amiss
        );
    }

    #[test]
    fn what_is_named_by_digest_needs_no_tag() {
        let digest = Digest::of(b"x");
        let found = deployed(&services(&[&format!("a:1@{digest}")]), &names(&[]));

        assert_eq!(found.digests("a"), [digest]);
        assert!(found.tags("a").is_none());
    }

    #[test]
    fn half_of_a_long_file_is_not_believed_and_what_cannot_be_read_gives_way_to_what_could() {
        let of = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            std::fs::write(&path, services(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
            let mut read = Deployment::from(path);
            read.path = PathBuf::from("/x");
            read
        };
        assert!(of(30).shrinks_to(&of(14)) && !of(30).shrinks_to(&of(16)) && !of(11).shrinks_to(&of(1)));

        let (gone, other) = (
            Deployment::from(PathBuf::from("/x")),
            Deployment::from(PathBuf::from("/y")),
        );
        assert!(gone.clone().or(Some(&of(1))).is_read());
        assert!(!other.or(Some(&of(1))).is_read());
        assert!(!gone.or(None).is_read());
    }

    #[test]
    fn a_file_that_cannot_be_read_selects_nothing_and_says_so() {
        let found = Deployment::from(PathBuf::from("/nowhere/deployment.json")).on(&names(&[]), &[]);

        assert_eq!(found.names().count(), 0);
        assert!(found.amiss[0].contains("/nowhere/deployment.json"));
    }
}
