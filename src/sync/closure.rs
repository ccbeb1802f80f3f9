//! All that an image needs, as far as it is selected.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::Shared;
use crate::fetch::Error;
use crate::oci::{Descriptor, Digest, Manifest, Repository, media};
use crate::parent::Class;
use crate::select::Platform;
use crate::store::Held;

/// Indexes within indexes, and what refers to what refers.
const DEEPEST: usize = 4;

/// Items beyond which nobody asks what refers to them.
const MOST: usize = 10_000;

/// How BuildKit says which entry of an index another is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// What is wanted of a tag.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Want {
    /// Of an index; empty: all.
    pub(super) platforms: Vec<Platform>,
    /// Whether what refers to it comes too.
    pub(super) referrers: bool,
}

/// What it comes to.
#[derive(Default)]
pub(super) struct Closure {
    /// All of it that is selected, manifests and blobs, with the bytes that each has, or is said to have.
    pub(super) items: HashMap<Digest, u64>,
    /// What of it is not here. Manifests are only where nobody is asked for them.
    pub(super) missing: Vec<(Digest, u64)>,
    /// Whether a manifest is among that, so that more may be missing.
    pub(super) is_partial: bool,
}

impl Closure {
    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        sum(self.items.values())
    }

    /// Bytes of what is missing.
    pub(super) fn missing_bytes(&self) -> u64 {
        sum(self.missing.iter().map(|(_, bytes)| bytes))
    }
}

/// A manifest may claim any number: their sum goes no further than there are numbers.
pub(super) fn sum<'a>(bytes: impl IntoIterator<Item = &'a u64>) -> u64 {
    bytes.into_iter().fold(0, |all, bytes| all.saturating_add(*bytes))
}

impl Want {
    /// All of it, and all that refers to it.
    pub(super) fn everything() -> Self {
        Self {
            platforms: Vec::new(),
            referrers: true,
        }
    }

    /// What either wants.
    pub(super) fn or(&self, other: &Self) -> Self {
        let platforms = match self.platforms.is_empty() || other.platforms.is_empty() {
            true => Vec::new(),
            false => [&self.platforms[..], &other.platforms].concat(),
        };
        Self {
            platforms,
            referrers: self.referrers || other.referrers,
        }
    }

    /// Whether this entry of an index is wanted: what is for no platform always is.
    fn has(&self, entry: &Descriptor) -> bool {
        /// As in an index (image spec, "Image Index").
        #[derive(Deserialize)]
        struct There {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            variant: String,
        }

        let there = entry.platform.as_deref();
        let there = there.and_then(|raw| serde_json::from_str::<There>(raw.get()).ok());
        match there {
            // What BuildKit attests is about one of the others, and follows it.
            Some(there) if there.os != "unknown" => {
                let names = |platform: &Platform| platform.names(&there.os, &there.architecture, &there.variant);
                self.platforms.is_empty() || self.platforms.iter().any(names)
            }
            _ => true,
        }
    }

    /// Platforms that are wanted and that no entry of this index is for; of what is no index, none.
    pub(super) fn not_among(&self, manifest: &[u8]) -> Vec<String> {
        let entries = Manifest::parse(manifest).map_or_else(|_| Vec::new(), |manifest| manifest.manifests);
        let has_any = |platform: &&Platform| {
            let alone = Self {
                platforms: vec![(*platform).clone()],
                referrers: false,
            };
            entries.iter().any(|entry| entry.platform.is_some() && alone.has(entry))
        };
        match entries.iter().any(|entry| entry.platform.is_some()) {
            true => self
                .platforms
                .iter()
                .filter(|one| !has_any(one))
                .map(ToString::to_string)
                .collect(),
            false => Vec::new(),
        }
    }

    /// The entries of an index that are wanted.
    fn among<'a>(&self, entries: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let wanted: Vec<&Descriptor> = entries.iter().filter(|entry| self.has(entry)).collect();
        let is_wanted = |digest: &str| wanted.iter().any(|entry| entry.digest.to_string() == digest);
        let follows = |entry: &&Descriptor| entry.annotations.get(ABOUT).is_none_or(|digest| is_wanted(digest));
        wanted.iter().copied().filter(follows).collect()
    }
}

impl Shared {
    /// What the manifest of that digest needs. Manifests that are missing are fetched, blobs are not; without `asking`, which says how
    /// urgent it is, nothing is.
    ///
    /// # Errors
    ///
    /// Why a manifest could not be had.
    pub(super) async fn closure(
        &self,
        repository: &Repository,
        digest: &Digest,
        want: &Want,
        asking: Option<Class>,
    ) -> Result<Closure, Error> {
        let mut closure = Closure::default();
        let mut left = vec![Step::to(digest)];
        while let Some(step) = left.pop() {
            let digest = step.digest;
            if closure.items.contains_key(&digest) {
                continue;
            }
            let held = match self.manifest(repository, &digest, asking).await {
                // What is said about an image may be gone, and the image is not.
                Err(Error::Absent { .. }) if step.is_about => continue,
                held => held?,
            };
            let Some(held) = held else {
                closure.items.insert(digest, step.bytes);
                closure.missing.push((digest, step.bytes));
                closure.is_partial = true;
                continue;
            };
            closure.items.insert(digest, held.bytes().len() as u64);
            if want.referrers && step.depth < DEEPEST && closure.items.len() < MOST {
                let referrers = self.referrers(repository, &digest, asking, &mut closure).await?;
                left.extend(referrers.iter().map(|entry| step.down(entry, true)));
            }
            let Some(manifest) = parsed(&held) else { continue };
            for entry in want.among(&manifest.manifests) {
                if !is_manifest(entry) {
                    self.blob(repository, entry, &mut closure);
                } else if step.depth < DEEPEST {
                    let is_about = step.is_about || entry.annotations.contains_key(ABOUT);
                    left.push(step.down(entry, is_about));
                }
            }
            for entry in manifest.config.iter().chain(&manifest.layers) {
                self.blob(repository, entry, &mut closure);
            }
        }
        Ok(closure)
    }

    /// A manifest, brought here if it may be. `None`: it does not lie here, or cannot be read now.
    pub(super) async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        asking: Option<Class>,
    ) -> Result<Option<Arc<Held>>, Error> {
        let link = self.store.linked(repository, digest);
        let asker = match (asking, &link) {
            (Some(class), Some(_)) => self.asker_at_once(class),
            (Some(class), None) => self.asker(&repository.registry, class).await,
            (None, Some(link)) => return Ok(self.store.held(link).await?),
            (None, None) => return Ok(None),
        };
        self.fetch.bring_manifest(repository, digest, &asker).await.map(Some)
    }

    /// What refers to a manifest, as the parent says, who is asked now and then; else as it said last.
    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        asking: Option<Class>,
        closure: &mut Closure,
    ) -> Result<Vec<Descriptor>, Error> {
        let key = (repository.clone(), *digest);
        let asker = match asking.filter(|_| self.referred.get(&key).is_none()) {
            Some(class) => Some(self.asker(&repository.registry, class).await),
            None => None,
        };
        let list = self.fetch.referrers_ahead(repository, digest, asker.as_ref()).await?;
        if asker.is_some() {
            self.referred.insert(key, ());
        }
        let Some(list) = list else { return Ok(Vec::new()) };
        // Of what nothing refers to there may be no record.
        if self.store.linked(repository, list.digest()).is_some() {
            closure.items.insert(*list.digest(), list.bytes().len() as u64);
        }
        Ok(parsed(&list).map_or_else(Vec::new, |index| index.manifests))
    }

    fn blob(&self, repository: &Repository, entry: &Descriptor, closure: &mut Closure) {
        // What may not be distributed lies elsewhere.
        if entry.is_foreign() || closure.items.insert(entry.digest, entry.size).is_some() {
            return;
        }
        if self.store.linked(repository, &entry.digest).is_none() {
            closure.missing.push((entry.digest, entry.size));
        }
    }
}

/// The way to a manifest.
struct Step {
    digest: Digest,
    /// As it is said to have.
    bytes: u64,
    depth: usize,
    /// Whether it only says something about the image.
    is_about: bool,
}

impl Step {
    fn to(digest: &Digest) -> Self {
        Self {
            digest: *digest,
            bytes: 0,
            depth: 0,
            is_about: false,
        }
    }

    fn down(&self, entry: &Descriptor, is_about: bool) -> Self {
        Self {
            digest: entry.digest,
            bytes: entry.size,
            depth: self.depth + 1,
            is_about,
        }
    }
}

/// An entry without a type is a manifest, as in any index.
fn is_manifest(entry: &Descriptor) -> bool {
    entry.media_type.is_empty() || media::is_manifest(&entry.media_type)
}

fn parsed(held: &Arc<Held>) -> Option<Manifest> {
    Manifest::parse(held.bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, platform: &str, about: Option<&str>) -> Descriptor {
        let digest = Digest::of(name.as_bytes());
        let annotations = about.map_or_else(String::new, |about| {
            let digest = Digest::of(about.as_bytes());
            format!(r#","annotations":{{"vnd.docker.reference.digest":"{digest}"}}"#)
        });
        let text = format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":1{platform}{annotations}}}"#,
            media::OCI_MANIFEST
        );
        serde_json::from_str(&text).unwrap()
    }

    fn of(os: &str, architecture: &str) -> String {
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    }

    #[test]
    fn of_an_index_the_selected_platforms_are_wanted_with_what_is_about_them_and_what_is_for_none() {
        let entries = [
            entry("amd64", &of("linux", "amd64"), None),
            entry("arm64", &of("linux", "arm64"), None),
            entry("about amd64", &of("unknown", "unknown"), Some("amd64")),
            entry("about arm64", &of("unknown", "unknown"), Some("arm64")),
            entry("chart", "", None),
        ];
        let names = |want: &Want| {
            let name = |entry: &Descriptor| {
                let known = ["amd64", "arm64", "about amd64", "about arm64", "chart"];
                let is = |name: &&str| Digest::of(name.as_bytes()) == entry.digest;
                known.into_iter().find(is).unwrap()
            };
            want.among(&entries).into_iter().map(name).collect::<Vec<_>>()
        };
        let want = |platforms: &[&str]| Want {
            platforms: platforms.iter().map(|text| text.parse().unwrap()).collect(),
            referrers: true,
        };

        assert_eq!(names(&want(&["linux/amd64"])), ["amd64", "about amd64", "chart"]);
        assert_eq!(names(&want(&[])).len(), 5);
        let both = want(&["linux/amd64"]).or(&want(&["linux/arm64"]));
        assert_eq!(names(&both).len(), 5);
        assert_eq!(names(&want(&["linux/amd64"]).or(&want(&[]))).len(), 5);
        assert_eq!(names(&want(&["windows/amd64"])), ["chart"]);
    }
}
