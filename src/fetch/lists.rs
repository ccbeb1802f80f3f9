//! Lists of tags and referrers: fetched whole, kept as documents, cut into pages by us.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::freshness::{Head, Refreshed};
use super::manifest::{Document, Stale};
use super::{Asker, Error, Fetch, Outcome, Shared};
use crate::oci::{Digest, Repository, Tag, media};
use crate::parent::{Ask, What};
use crate::store::{Held, Slot};

/// Pages followed at the most; a list without end is cut off as nonsense.
const PAGES: usize = 1000;
/// Tags asked for at a time.
const PAGE: usize = 1000;
/// Bytes that one page may have.
const PAGE_BYTES: usize = 4 << 20;

impl Fetch {
    /// All tags of `repository`, a JSON array in ASCII order.
    ///
    /// With the parent away and no list kept from before: the tags that were pulled here, as stale.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn tags(&self, repository: &Repository, asker: &Asker) -> Result<Document, Error> {
        match self.shared.fresh(repository, &Slot::Tags, asker).await {
            Err(error) if error.allows_stale() => {
                let tags = self.shared.store.tags(repository);
                if tags.is_empty() {
                    return Err(error);
                }
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
        self.shared.fresh(repository, &Slot::Referrers(*digest), asker).await
    }
}

impl Shared {
    pub(super) async fn ask_for_tags(
        self: &Arc<Self>,
        repository: &Repository,
        asker: &Asker,
    ) -> Result<Refreshed, Error> {
        #[derive(Deserialize)]
        struct Page {
            /// Some registries say null for none.
            tags: Option<Vec<String>>,
        }

        let asked = self.clock.now();
        let mut tags = BTreeSet::new();
        let mut next: Option<String> = None;
        let mut head = None;
        for _ in 0..PAGES {
            let what = next
                .as_deref()
                .map_or(What::Tags { n: PAGE, last: None }, What::TagsPage);
            let (bytes, page_head, more) = self.page(repository, what, asker).await?;
            head.get_or_insert(page_head);
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| self.nonsense(repository, "a list of tags"))?;
            tags.extend(
                page.tags
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|tag| tag.parse::<Tag>().is_ok()),
            );
            let ends = more.is_none() || more == next;
            next = more;
            if ends {
                let held = tag_list(tags.into_iter().collect());
                self.keep(repository, held.clone()).await;
                return Ok(self.settle(repository, &Slot::Tags, held, asked, &head.unwrap_or(Head::ours())));
            }
        }
        Err(self.nonsense(repository, "a list of tags that ends"))
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
        self.keep(repository, held.clone()).await;
        Ok(self.settle(repository, &Slot::Referrers(*digest), held, asked, &head))
    }

    async fn all_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(Vec<Box<RawValue>>, Head), Error> {
        let mut manifests = Vec::new();
        let mut head = None;
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let what = next
                .as_deref()
                .map_or(What::Referrers(digest), |query| What::ReferrersPage(digest, query));
            let (bytes, page_head, more) = self.page(repository, what, asker).await?;
            manifests.extend(descriptors(&bytes).ok_or_else(|| self.nonsense(repository, "a list of referrers"))?);
            let head = head.get_or_insert(page_head);
            if more.is_none() || more == next {
                return Ok((manifests, head.clone()));
            }
            next = more;
        }
        Err(self.nonsense(repository, "a list of referrers that ends"))
    }

    /// The tag `sha256-<hex>` that clients keep where the API is missing.
    async fn fallback_referrers(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(Vec<Box<RawValue>>, Head), Error> {
        let nothing = Head::ours();
        match self
            .fresh_boxed(repository, Slot::Tag(Tag::of_referrers(digest)), asker)
            .await
        {
            Ok(document) => {
                let head = Head {
                    age: document.age.unwrap_or_default(),
                    cache_status: document.cache_status,
                    stale: document.stale,
                };
                Ok((descriptors(document.held.bytes()).unwrap_or_default(), head))
            }
            Err(Error::Absent { .. }) => Ok((Vec::new(), nothing)),
            Err(error) => Err(error),
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

    async fn page(
        &self,
        repository: &Repository,
        what: What<'_>,
        asker: &Asker,
    ) -> Result<(Bytes, Head, Option<String>), Error> {
        let ask = Ask {
            class: asker.class,
            head: false,
            repository,
            what,
            range: None,
            hops: &asker.hops,
            budget: self.config.answer_within,
        };
        let answer = self.parent(repository)?.ask(ask).await?;
        let (head, next) = (Head::of(&answer), answer.head.link.clone());
        Ok((answer.bytes(PAGE_BYTES).await?, head, next))
    }

    fn nonsense(&self, repository: &Repository, expected: &'static str) -> Error {
        let layer = self
            .parent(repository)
            .map_or_else(|_| repository.registry.to_string(), |parent| parent.name().to_owned());
        Error::Nonsense { layer, expected }
    }
}

fn tag_list(tags: Vec<String>) -> Arc<Held> {
    let bytes: Bytes = serde_json::to_vec(&tags).expect("strings are JSON").into();
    Arc::new(Held::new(Digest::of(&bytes), Some("application/json"), bytes))
}

fn referrers_list(manifests: &[Box<RawValue>]) -> Arc<Held> {
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
fn descriptors(index: &[u8]) -> Option<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Option<Vec<Box<RawValue>>>,
    }
    serde_json::from_slice::<Index>(index)
        .ok()
        .map(|index| index.manifests.unwrap_or_default())
}
