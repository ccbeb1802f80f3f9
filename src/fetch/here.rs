//! What was pushed here, before and beside what the parent has: lists are of both, and what was deleted here stays away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::freshness::WORK;
use super::lists::{descriptors, referrers_list, tag_list};
use super::manifest::{Document, Stale};
use super::{Asker, Error, Outcome, Shared};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Registry, Repository, Tag};
use crate::store::{Held, Origin, Slot, TagRow};

/// How long whoever pushes waits to hear whether the parent has a blob.
pub(super) const PUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The repositories that are pushed to here.
#[derive(Clone, Debug)]
pub struct Here {
    /// All of this registry.
    pub registry: Registry,
    /// The node's name.
    pub node: String,
}

impl Here {
    /// It is not here, and nobody else is asked, or answers.
    pub(super) fn lacks(&self) -> Error {
        Error::Absent {
            layer: self.node.clone(),
        }
    }
}

impl Shared {
    /// What is pushed here, if `repository` is of it.
    pub(super) fn pushed_to(&self, repository: &Repository) -> Option<&Here> {
        self.here.as_ref().filter(|here| here.registry == repository.registry)
    }

    /// Whether a tag is what was pushed here, whatever the parent says.
    pub(super) fn is_pushed(row: &TagRow) -> bool {
        row.origin == Origin::Pushed
    }

    /// Refuses content that was deleted here, if that is what the parent has.
    pub(super) fn stays_away(&self, repository: &Repository, name: &Reference, digest: &Digest) -> Result<(), Error> {
        match self.pushed_to(repository) {
            Some(here) if self.store.hides(repository, name, digest) => Err(here.lacks()),
            _ => Ok(()),
        }
    }

    /// When a list from above was asked for, in seconds since 1970: it may lack what was delivered since.
    fn since(&self, above: &Result<Document, Error>) -> u64 {
        let age = match above {
            // From before a restart: who knows when.
            Ok(document) => document.age.unwrap_or(Duration::MAX),
            // That there is none may be known for a while, and was asked before that.
            Err(Error::Absent { .. }) => self.config.absent_ttl + WORK,
            Err(_) => Duration::MAX,
        };
        let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(age).as_secs()
    }

    /// The list of tags from above, with those that were pushed here and without those that were deleted.
    pub(super) fn with_pushed_tags(
        &self,
        repository: &Repository,
        above: Result<Document, Error>,
    ) -> Result<Document, Error> {
        let Some(here) = self.pushed_to(repository) else {
            return above;
        };
        let delivered = self.store.delivered_tags(repository, self.since(&above));
        let mut pushed = BTreeSet::from_iter(self.store.pushed_tags(repository));
        pushed.extend(delivered.iter().map(Tag::to_string));
        let hidden = self.store.hidden(repository);
        let (mut tags, above) = match above {
            Ok(document) if pushed.is_empty() && hidden.is_empty() => return Ok(document),
            Ok(document) => {
                let tags: Vec<String> = serde_json::from_slice(document.held.bytes()).unwrap_or_default();
                (BTreeSet::from_iter(tags), Some(document))
            }
            Err(error) if !self.store.knows(repository) => return Err(error),
            Err(Error::Absent { .. }) => (BTreeSet::new(), None),
            Err(error) if error.allows_stale() => {
                let list = tag_list(pushed.into_iter().collect());
                return Ok(Document {
                    stale: Some(Stale::Here(error.to_string())),
                    ..Document::of(list, Outcome::Stale)
                });
            }
            Err(_) => return Err(here.lacks()),
        };
        for name in &hidden {
            if let Reference::Tag(tag) = name {
                tags.remove(tag.as_str());
            }
        }
        tags.extend(pushed);
        Ok(merged(above, tag_list(tags.into_iter().collect())))
    }

    /// The list of what refers to `digest` from above, with what was pushed here and without what was deleted.
    pub(super) async fn with_pushed_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        above: Result<Document, Error>,
    ) -> Result<Document, Error> {
        if self.pushed_to(repository).is_none() {
            return above;
        }
        let since = self.since(&above);
        let pushed = self.pushed_referrers(repository, digest, since).await?;
        let hidden = self.store.hidden(repository);
        let (mut entries, above) = match above {
            Ok(document) if pushed.is_empty() && hidden.is_empty() => return Ok(document),
            Ok(document) => (descriptors(document.held.bytes()).unwrap_or_default(), Some(document)),
            Err(error @ Error::Absent { .. }) => {
                drop(error);
                (Vec::new(), None)
            }
            Err(error) if error.allows_stale() => {
                return Ok(Document {
                    stale: Some(Stale::Here(error.to_string())),
                    ..Document::of(referrers_list(&pushed), Outcome::Stale)
                });
            }
            Err(error) => return Err(error),
        };
        let name = |entry: &RawValue| {
            let descriptor: Option<Descriptor> = serde_json::from_str(entry.get()).ok();
            descriptor.map(|descriptor| descriptor.digest)
        };
        let is_hidden = |digest: &Digest| hidden.contains(&Reference::Digest(*digest));
        entries.retain(|entry| name(entry).is_none_or(|digest| !is_hidden(&digest)));
        let known: BTreeSet<Digest> = entries.iter().filter_map(|entry| name(entry)).collect();
        let is_new = |entry: &RawValue| name(entry).is_none_or(|digest| !known.contains(&digest));
        entries.extend(pushed.into_iter().filter(|entry| is_new(entry)));
        Ok(merged(above, referrers_list(&entries)))
    }

    /// The descriptors of what was pushed here and refers to `digest`: by its subject, or by the tag that clients keep for
    /// registries without the list (distribution spec, "Enabling the Referrers API").
    async fn pushed_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        since: u64,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let mut entries = Vec::new();
        let mut known = BTreeSet::new();
        let mut links = self.store.pushed_referrers(repository, digest);
        links.extend(self.store.delivered_referrers(repository, digest, since));
        for link in links {
            if known.contains(link.digest()) {
                continue;
            }
            if let Some(held) = self.store.held(&link).await?
                && let Some(entry) = describe(&held)
            {
                known.insert(*held.digest());
                entries.push(entry);
            }
        }
        let slot = Slot::Tag(Tag::of_referrers(digest));
        let Some(row) = self.store.tag(repository, &slot).filter(Self::is_pushed) else {
            return Ok(entries);
        };
        if let Some(held) = self.held(repository, &row.digest).await? {
            let listed = descriptors(held.bytes()).unwrap_or_default();
            let is_new = |entry: &RawValue| {
                let descriptor: Option<Descriptor> = serde_json::from_str(entry.get()).ok();
                descriptor.is_some_and(|descriptor| !known.contains(&descriptor.digest))
            };
            entries.extend(listed.into_iter().filter(|entry| is_new(entry)));
        }
        Ok(entries)
    }

    /// What was deleted here is not there, whether the parent can be asked what it has or not.
    pub(super) fn or_it_was_deleted<T>(
        &self,
        repository: &Repository,
        name: &Reference,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        let is_hidden = || self.store.hidden(repository).contains(name);
        self.or_it_lacks(repository, outcome, |error| error.allows_stale() && is_hidden())
    }

    /// That it is not here, where things are pushed and this holds of the error.
    pub(super) fn or_it_lacks<T>(
        &self,
        repository: &Repository,
        outcome: Result<T, Error>,
        holds: impl FnOnce(&Error) -> bool,
    ) -> Result<T, Error> {
        match (outcome, self.pushed_to(repository)) {
            (Err(error), Some(here)) if holds(&error) => Err(here.lacks()),
            (outcome, _) => outcome,
        }
    }

    /// Nobody waits long for a parent that may have a blob: it is pushed instead. A node below does not push, and would
    /// believe that it is gone.
    pub(super) fn or_push_it<T>(
        &self,
        repository: &Repository,
        asker: &Asker,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        self.or_it_lacks(repository, outcome, |error| {
            error.allows_stale() && asker.hops.is_empty()
        })
    }
}

fn merged(above: Option<Document>, list: Arc<Held>) -> Document {
    match above {
        Some(document) => Document { held: list, ..document },
        None => Document::of(list, Outcome::Hit),
    }
}

/// As it stands in the list of referrers (distribution spec, "Listing Referrers").
fn describe(held: &Held) -> Option<Box<RawValue>> {
    let manifest = Manifest::parse(held.bytes()).ok()?;
    let descriptor = Descriptor {
        media_type: held.media_type().to_owned(),
        digest: *held.digest(),
        size: held.bytes().len() as u64,
        artifact_type: manifest.effective_artifact_type().map(str::to_owned),
        annotations: manifest.annotations,
        platform: None,
    };
    serde_json::value::to_raw_value(&descriptor).ok()
}
