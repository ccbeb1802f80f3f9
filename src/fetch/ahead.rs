//! What is fetched before anyone asks: looked for at the parent itself, and shown once it is whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;

use super::freshness::{Head, WORK};
use super::lists::List;
use super::{Asker, Error, Fetch};
use crate::oci::{Digest, Name, Reference, Registry, Repository, Tag};
use crate::parent::{self, Ask, Class, Since, What};
use crate::store::{Held, Slot};

/// An answer of a feed is no longer than that.
const MOST_TOLD: usize = 4 << 20;

/// How long it may take beside what it waits for something to happen.
const ON_THE_WAY: Duration = Duration::from_secs(15);

/// A tag as the parent has it.
pub struct Sighting {
    /// What it names.
    pub digest: Digest,
    /// Whether the parent could not ask its own for it.
    pub is_stale: bool,
    asked: Instant,
    head: Head,
}

impl Fetch {
    /// The names of the repositories that the registry says it has, in ASCII order: a node those that lie there.
    ///
    /// # Errors
    ///
    /// Why it could not be asked, or that it has no such list.
    pub async fn catalog(&self, registry: &Registry, asker: &Asker) -> Result<Vec<Name>, Error> {
        let shared = &self.shared;
        let asker = asker.for_all(shared.clock.now() + WORK, false);
        // Any will do: the registry alone counts.
        let nobodys = Repository::new(registry.clone(), "catalog".parse().expect("a name"));
        let mut names = BTreeSet::new();
        let take = |page: &[u8]| {
            let before = names.len();
            names.extend(names_of(page)?);
            Some(names.len() - before)
        };
        shared.walk(&nobodys, List::Catalog, &asker, take).await?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The same, asked for a few seconds ago at the most: each node below asks for each page of it. None if it has no such list, or there
    /// is nobody to ask.
    ///
    /// # Errors
    ///
    /// Why it could not be asked.
    pub async fn catalog_lately(&self, registry: &Registry, asker: &Asker) -> Result<Arc<Vec<Name>>, Error> {
        if !self.asks(registry) {
            return Ok(Arc::default());
        }
        let (fetch, asker) = (self.clone(), asker.clone());
        let asked = self.shared.catalogs.try_get_with(registry.clone(), async move {
            // Boxed, like all that is deep.
            let names = Box::pin(fetch.catalog(registry, &asker)).await;
            match names {
                Ok(names) => Ok(Arc::new(names)),
                Err(Error::Absent { .. } | Error::Nonsense { .. }) => Ok(Arc::default()),
                Err(error) if error.is_refusal() => Ok(Arc::default()),
                Err(error) => Err(error),
            }
        });
        asked.await.map_err(|error| (*error).clone())
    }

    /// What a parent that is a node tells of what has changed there, as soon as it has something to tell; `None`: it has no feed.
    ///
    /// # Errors
    ///
    /// Why it could not be asked.
    pub async fn feed(&self, registry: &Registry, since: Since<'_>, asker: &Asker) -> Result<Option<Bytes>, Error> {
        let shared = &self.shared;
        let Some(parent) = shared.parents.get(registry) else {
            return Ok(None);
        };
        // Any will do, as above.
        let nobodys = Repository::new(registry.clone(), "feed".parse().expect("a name"));
        let budget = since.wait + ON_THE_WAY;
        let ask = Ask {
            budget,
            patience: budget,
            ..shared.ask(asker, &nobodys, What::Feed(since))
        };
        if !parent.is_wharf() {
            parent.ping().await?;
        }
        if !parent.is_wharf() {
            return Ok(None);
        }
        match parent.ask(ask).await {
            Ok(answer) => Ok(Some(answer.bytes(MOST_TOLD).await?)),
            // An older node, or an account that may not list.
            Err(parent::Error::Absent { .. } | parent::Error::Denied { .. }) => Ok(None),
            Err(parent::Error::Failed { status: 400..=499, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The tags that the parent has now, however fresh the list here is, and whether it could not ask its own for them.
    ///
    /// # Errors
    ///
    /// As [`Fetch::tags`], and nothing old in the place of what could not be asked for.
    pub async fn tags_now(&self, repository: &Repository, asker: &Asker) -> Result<(Vec<String>, bool), Error> {
        let (refreshed, _) = self.shared.refresh(repository, &Slot::Tags, asker, false).await?;
        let tags = serde_json::from_slice(refreshed.held.bytes()).unwrap_or_default();
        Ok((tags, refreshed.stale.is_some()))
    }

    /// What the parent has under a tag now; `None`: nothing. `known`: what it named when it was last seen.
    ///
    /// # Errors
    ///
    /// It does not say.
    pub async fn sight(
        &self,
        repository: &Repository,
        tag: &Tag,
        known: Option<&Digest>,
        asker: &Asker,
    ) -> Result<Option<Sighting>, Error> {
        let shared = &self.shared;
        let (asked, reference) = (shared.clock.now(), Reference::Tag(tag.clone()));
        let ask = Ask {
            head: true,
            known,
            ..shared.ask(asker, repository, What::Manifest(&reference))
        };
        let answer = match shared
            .put_to(shared.parent(repository)?, ask)
            .await
            .map_err(Error::from)
        {
            Err(Error::Absent { .. }) => return Ok(None),
            answer => answer?,
        };
        let head = Head::of(&answer);
        let digest = match answer.head.digest {
            Some(digest) => digest,
            // A registry that tells no digest: as for a client.
            None => *shared.ask_for_tag(repository, tag, asker).await?.held.digest(),
        };
        Ok(Some(Sighting {
            digest,
            is_stale: head.stale.is_some(),
            asked,
            head,
        }))
    }

    /// The manifest of that digest, brought here if it is not.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn bring_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<Arc<Held>, Error> {
        let shared = &self.shared;
        let asker = asker.for_all(shared.clock.now() + WORK, false);
        let document = shared.manifest(repository, digest, &asker).await?;
        Ok(document.held)
    }

    /// What refers to a manifest, an index: as the parent says now, or, without an asker, as it said last. `None`: nothing is known.
    ///
    /// # Errors
    ///
    /// As [`Fetch::referrers`], and nothing old in the place of what could not be asked for.
    pub async fn referrers_ahead(
        &self,
        repository: &Repository,
        digest: &Digest,
        asker: Option<&Asker>,
    ) -> Result<Option<Arc<Held>>, Error> {
        let (shared, slot) = (&self.shared, Slot::Referrers(*digest));
        if let Some(asker) = asker {
            return match shared.refresh(repository, &slot, asker, false).await {
                Ok((refreshed, _)) => Ok(Some(refreshed.held)),
                // It has no such list, or a senseless one.
                Err(error) if error.is_useless() || !error.allows_stale() => Ok(None),
                Err(error) => Err(error),
            };
        }
        let Some(row) = shared.store.tag(repository, &slot) else {
            return Ok(None);
        };
        Ok(shared.held_list(repository, &row.digest).await)
    }

    /// Has the tag name what was seen under it, from now on.
    pub fn show(&self, repository: &Repository, tag: &Tag, seen: &Sighting) {
        let shared = &self.shared;
        let slot = Slot::Tag(tag.clone());
        shared.absent.invalidate(&(repository.clone(), slot.clone()));
        let confirmed = shared.confirmed(seen.asked, &seen.head);
        shared.store.confirm(repository, &slot, &seen.digest, confirmed);
    }

    /// Has the tag name nothing any more, but for what was pushed here: the parent has it no longer.
    pub fn hide(&self, repository: &Repository, tag: &Tag) {
        self.shared.store.untag(repository, &Slot::Tag(tag.clone()));
    }

    /// Waits until a question of this class may be asked of the registry: nobody waits for it.
    pub async fn turn(&self, registry: &Registry, class: Class) {
        if let Some(parent) = self.shared.parents.get(registry) {
            parent.turn(class).await;
        }
    }

    /// Has the registry looked for at once, if it is away: somebody wants something of it.
    pub fn seek(&self, registry: &Registry) {
        if let Some(parent) = self.shared.parents.get(registry) {
            parent.seek();
        }
    }

    /// Whether the tag never moves there: what was seen of it once is true.
    pub fn is_immutable(&self, repository: &Repository, tag: &Tag) -> bool {
        self.shared.is_immutable(repository, tag)
    }

    /// Whether there is anybody to ask for what the registry has.
    pub fn asks(&self, registry: &Registry) -> bool {
        self.shared.parents.contains_key(registry)
    }

    /// Whether what `other` has is asked of the same upstream as what `registry` has.
    pub fn is_through(&self, registry: &Registry, other: &Registry) -> bool {
        let parents = &self.shared.parents;
        let both = parents.get(registry).zip(parents.get(other));
        both.is_some_and(|(one, two)| one.is_same(two))
    }

    /// Why it is not asked for what is so urgent, as the settings want it, in words.
    pub fn closed(&self, registry: &Registry, class: Class) -> Option<String> {
        self.shared
            .parents
            .get(registry)?
            .closed(class)
            .map(|error| error.to_string())
    }

    /// Why the registry cannot be asked now, in words.
    pub fn away(&self, registry: &Registry) -> Option<String> {
        self.shared.parents.get(registry)?.away().map(|error| error.to_string())
    }
}

/// The names of a page.
fn names_of(page: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        /// Some registries say null for none.
        repositories: Option<Vec<String>>,
    }
    let page: Page = serde_json::from_slice(page).ok()?;
    Some(page.repositories.unwrap_or_default())
}
