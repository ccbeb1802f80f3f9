//! Lists of tags and referrers: fetched whole, kept as documents, cut into pages by us.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::freshness::{Head, Refreshed};
use super::manifest::{Document, Stale};
use super::{Asker, Error, Fetch, Limit, Outcome, Shared};
use crate::oci::{Digest, Reference, Repository, Tag, media};
use crate::parent::{self, What};
use crate::store::{Held, Slot};

/// Pages in a row that may bring nothing new: some registries cut their pages first and filter them afterwards.
const BARREN: usize = 10;
/// Tags asked for at a time.
const PAGE: usize = 1000;

/// What is listed.
#[derive(Clone, Copy)]
pub(super) enum List<'a> {
    Tags,
    Referrers(&'a Digest),
    /// Of repositories; of what one is asked about the registry alone counts.
    Catalog,
}

impl Fetch {
    /// All tags of `repository`, a JSON array in ASCII order.
    ///
    /// With the parent away and no list kept from before: the tags that were pulled here, as stale.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn tags(&self, repository: &Repository, asker: &Asker) -> Result<Document, Error> {
        let above = self.tags_above(repository, asker).await;
        self.shared.with_pushed_tags(repository, above)
    }

    async fn tags_above(&self, repository: &Repository, asker: &Asker) -> Result<Document, Error> {
        match self.shared.fresh(repository, &Slot::Tags, asker).await {
            Err(error) if error.allows_stale() => {
                let tags = self.shared.store.tags(repository);
                if tags.is_empty() {
                    return Err(error);
                }
                self.shared.or_old_word(repository, error.clone())?;
                let stale = Some(Stale::Here(error.to_string()));
                Ok(Document {
                    stale,
                    ..Document::of(tag_list(tags), Outcome::Stale)
                })
            }
            other => other,
        }
    }

    /// What refers to `digest`, an OCI index; empty if nothing does.
    ///
    /// A parent without the API is asked for the fallback tag (distribution spec, "Listing Referrers").
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn referrers(&self, repository: &Repository, digest: &Digest, asker: &Asker) -> Result<Document, Error> {
        let above = match self.shared.unreferred.get(&(repository.clone(), *digest)) {
            Some(refreshed) => Ok(self.shared.document(refreshed, Outcome::Hit)),
            None => self.shared.fresh(repository, &Slot::Referrers(*digest), asker).await,
        };
        self.shared.with_pushed_referrers(repository, digest, above).await
    }
}

impl Shared {
    pub(super) async fn ask_for_tags(
        self: &Arc<Self>,
        repository: &Repository,
        asker: &Asker,
    ) -> Result<Refreshed, Error> {
        let asked = self.clock.now();
        let mut tags = BTreeSet::new();
        let take = |page: &[u8]| {
            let before = tags.len();
            tags.extend(tags_of(page)?);
            Some(tags.len() - before)
        };
        let head = self.walk(repository, List::Tags, asker, take).await?;
        let held = tag_list(tags.into_iter().collect());
        self.keep(repository, held.clone()).await;
        Ok(self.settle(repository, &Slot::Tags, held, asked, &head))
    }

    pub(super) async fn ask_for_referrers(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<Refreshed, Error> {
        let asked = self.clock.now();
        let (manifests, head) = match self.all_referrers(repository, digest, asker).await {
            Err(Error::Absent { .. }) => self.fallback_referrers(repository, digest, asker).await?,
            other => other?,
        };
        let held = referrers_list(&manifests);
        let slot = Slot::Referrers(*digest);
        if manifests.is_empty() && self.store.linked(repository, digest).is_none() {
            // Anyone can ask for what refers to nothing: no record is made of that.
            let refreshed = self.vouched(held, asked, &head);
            self.unreferred.insert((repository.clone(), *digest), refreshed.clone());
            return Ok(refreshed);
        }
        self.keep(repository, held.clone()).await;
        Ok(self.settle(repository, &slot, held, asked, &head))
    }

    async fn all_referrers(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(Vec<Box<RawValue>>, Head), Error> {
        let mut manifests = Vec::new();
        let mut known = HashSet::new();
        let take = |page: &[u8]| {
            let before = manifests.len();
            let entries = descriptors(page)?.into_iter();
            manifests.extend(entries.filter(|entry| known.insert(Digest::of(entry.get().as_bytes()))));
            Some(manifests.len() - before)
        };
        let head = self.walk(repository, List::Referrers(digest), asker, take).await?;
        Ok((manifests, head))
    }

    /// Goes from page to page and gives each to `take`, which says how many of its entries are new, or `None` if it
    /// is no list. The head is that of the first.
    ///
    /// A link that leads back to where it has been ends the list.
    pub(super) async fn walk(
        self: &Arc<Self>,
        repository: &Repository,
        list: List<'_>,
        asker: &Asker,
        mut take: impl FnMut(&[u8]) -> Option<usize> + Send,
    ) -> Result<Head, Error> {
        let (mut first, mut next) = (None, None);
        let mut been = HashSet::new();
        // Of all pages together. What is kept of them has no more.
        let mut left = usize::try_from(self.limits.get().list.bytes()).unwrap_or(usize::MAX);
        let mut barren = 0;
        for _ in 0..self.limits.get().list_pages {
            let what = list.page(next.as_deref());
            let (bytes, head, link) = self.page(repository, list, what, asker, left).await?;
            left -= bytes.len();
            let head = first.get_or_insert(head);
            let new = take(&bytes).ok_or_else(|| self.nonsense(repository, list.name()))?;
            barren = if new == 0 { barren + 1 } else { 0 };
            next = link.filter(|link| been.insert(link.clone()));
            if next.is_none() {
                return Ok(head.clone());
            }
            if barren == BARREN {
                return Err(self.nonsense(repository, list.name_of_whole()));
            }
        }
        Err(self.beyond(repository, list.name(), Limit::ListPages))
    }

    /// The tag `sha256-<hex>` that clients keep where the API is missing.
    async fn fallback_referrers(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(Vec<Box<RawValue>>, Head), Error> {
        let tag = Tag::of_referrers(digest);
        let slot = Slot::Tag(tag.clone());
        let pushed = self.store.tag(repository, &slot).filter(Self::is_pushed);
        let list = if pushed.is_some() {
            self.hidden_list(repository, &tag.into(), asker).await
        } else {
            self.fresh_boxed(repository, slot, asker).await.map(|document| {
                let head = Head {
                    age: document.age.unwrap_or_default(),
                    cache_status: document.cache_status,
                    stale: document.stale,
                };
                (descriptors(document.held.bytes()).unwrap_or_default(), head)
            })
        };
        match list {
            Err(Error::Absent { .. }) => Ok((Vec::new(), Head::ours())),
            other => other,
        }
    }

    /// What the parent has under a tag that was pushed here: it has its list of referrers, and this node one of its own.
    async fn hidden_list(
        self: &Arc<Self>,
        repository: &Repository,
        name: &Reference,
        asker: &Asker,
    ) -> Result<(Vec<Box<RawValue>>, Head), Error> {
        let ask = self.ask(asker, repository, What::Manifest(name));
        let answer = self.put_to(self.parent(repository)?, ask).await?;
        let head = Head::of(&answer);
        let most = usize::try_from(self.limits.get().manifest.bytes()).unwrap_or(usize::MAX);
        match answer.bytes(most).await {
            Ok(bytes) => Ok((descriptors(&bytes).unwrap_or_default(), head)),
            Err(parent::Error::TooLarge { .. }) => Err(self.beyond(repository, "a manifest", Limit::Manifest)),
            Err(error) => Err(error.into()),
        }
    }

    /// Boxed, as here freshness asks for a tag while it asks for a list.
    fn fresh_boxed<'a>(
        self: &'a Arc<Self>,
        repository: &'a Repository,
        slot: Slot,
        asker: &'a Asker,
    ) -> Pin<Box<dyn Future<Output = Result<Document, Error>> + Send + 'a>> {
        Box::pin(async move { self.fresh(repository, &slot, asker).await })
    }

    /// A page of at most `left` bytes, its head, and the query of the next.
    async fn page(
        self: &Arc<Self>,
        repository: &Repository,
        list: List<'_>,
        what: What<'_>,
        asker: &Asker,
        left: usize,
    ) -> Result<(Bytes, Head, Option<String>), Error> {
        let ask = self.ask(asker, repository, what);
        let parent = self.parent(repository)?;
        let answer = match list {
            // No word on any repository.
            List::Catalog => parent.ask(ask).await?,
            List::Tags | List::Referrers(_) => self.put_to(parent, ask).await?,
        };
        let (head, next) = (Head::of(&answer), answer.head.link.clone());
        match answer.bytes(left).await {
            Ok(bytes) => Ok((bytes, head, next)),
            Err(parent::Error::TooLarge { .. }) => Err(self.beyond(repository, list.name(), Limit::List)),
            Err(error) => Err(error.into()),
        }
    }

    /// A linked list that lies here. It may be larger than what the store reads whole.
    pub(super) async fn held_list(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Held>> {
        let link = self.store.linked(repository, digest)?;
        let size = self.store.size(&link)?;
        if size <= Held::MOST {
            return self.held(repository, digest).await.ok()?;
        }
        if let Some(held) = self.store.held_at_once(&link) {
            return Some(held);
        }
        let blob = self.store.read(&link).ok()??;
        let read = tokio::task::spawn_blocking(move || {
            let bytes = blob.checked_bytes().ok()?;
            Some(Arc::new(Held::new(*blob.digest(), blob.media_type(), bytes)))
        });
        read.await.ok()?
    }

    pub(super) fn nonsense(&self, repository: &Repository, expected: &'static str) -> Error {
        let layer = self.layer(repository);
        Error::Nonsense { layer, expected }
    }

    /// What a limit refused, counted.
    pub(super) fn beyond(&self, repository: &Repository, what: &'static str, limit: Limit) -> Error {
        self.metrics.refused(limit);
        let layer = self.layer(repository);
        Error::Beyond { layer, what, limit }
    }

    /// Who is asked for a repository.
    pub(super) fn layer(&self, repository: &Repository) -> String {
        self.parent(repository)
            .map_or_else(|_| repository.registry.to_string(), |parent| parent.name().to_owned())
    }
}

impl List<'_> {
    fn page<'q>(&'q self, next: Option<&'q str>) -> What<'q> {
        match (self, next) {
            (Self::Tags, None) => What::Tags { n: PAGE, last: None },
            (Self::Tags, Some(query)) => What::TagsPage(query),
            (Self::Referrers(digest), None) => What::Referrers(digest),
            (Self::Referrers(digest), Some(query)) => What::ReferrersPage(digest, query),
            (Self::Catalog, None) => What::Catalog(PAGE),
            (Self::Catalog, Some(query)) => What::CatalogPage(query),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Tags => "a list of tags",
            Self::Referrers(_) => "a list of referrers",
            Self::Catalog => "a list of repositories",
        }
    }

    fn name_of_whole(&self) -> &'static str {
        match self {
            Self::Tags => "a list of tags that ends",
            Self::Referrers(_) => "a list of referrers that ends",
            Self::Catalog => "a list of repositories that ends",
        }
    }
}

/// The tags of a page, but for what can be none.
fn tags_of(page: &[u8]) -> Option<impl Iterator<Item = String>> {
    #[derive(Deserialize)]
    struct Page<'a> {
        /// Some registries say null for none.
        #[serde(borrow)]
        tags: Option<Vec<Entry<'a>>>,
    }
    /// Without a copy, as there may be very many on a page, each perhaps many times.
    #[derive(Deserialize)]
    struct Entry<'a>(#[serde(borrow)] Cow<'a, str>);

    let page: Page<'_> = serde_json::from_slice(page).ok()?;
    let entries = page.tags.unwrap_or_default().into_iter();
    Some(
        entries
            .map(|Entry(tag)| tag.into_owned())
            .filter(|tag| tag.parse::<Tag>().is_ok()),
    )
}

pub(super) fn tag_list(tags: Vec<String>) -> Arc<Held> {
    let bytes: Bytes = serde_json::to_vec(&tags).expect("strings are JSON").into();
    Arc::new(Held::new(Digest::of(&bytes), Some("application/json"), bytes))
}

pub(super) fn referrers_list(manifests: &[Box<RawValue>]) -> Arc<Held> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: &'a [Box<RawValue>],
    }
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX,
        manifests,
    };
    let bytes: Bytes = serde_json::to_vec(&index).expect("JSON is JSON").into();
    Arc::new(Held::new(Digest::of(&bytes), Some(media::OCI_INDEX), bytes))
}

/// The descriptors of an index, each as it stands there.
pub(super) fn descriptors(index: &[u8]) -> Option<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Option<Vec<Box<RawValue>>>,
    }
    serde_json::from_slice::<Index>(index)
        .ok()
        .map(|index| index.manifests.unwrap_or_default())
}
