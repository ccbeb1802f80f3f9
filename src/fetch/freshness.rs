//! How old a tag may be, and asking again: one request for all who wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::asker::late;
use super::error::is_method_refused;
use super::manifest::{Document, Stale};
use super::{Asker, Error, Limit, Outcome, Shared};
use crate::oci::{Digest, Reference, Repository, Tag};
use crate::parent::{self, Answer, Ask, What};
use crate::store::{Confirmed, Held, Origin, Slot, TagRow};

/// How long a refresh may go on when nobody waits for it any more: for all its questions and their bytes.
pub(super) const WORK: Duration = Duration::from_secs(5 * 60);

/// How often a parent is asked whether it has by now what was pushed here, however many pull it.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// What asking the parent brought.
#[derive(Clone)]
pub(super) struct Refreshed {
    pub(super) held: Arc<Held>,
    pub(super) confirmed: Confirmed,
    pub(super) cache_status: Option<String>,
    /// The parent's own answer was stale.
    pub(super) stale: Option<Stale>,
}

/// What a slot points at, and since when.
struct Old {
    row: TagRow,
    held: Arc<Held>,
}

impl Shared {
    /// What `slot` points at, if that is fresh and in memory.
    pub(super) fn fresh_at_once(&self, repository: &Repository, slot: &Slot) -> Option<Document> {
        let row = self.store.tag(repository, slot)?;
        if Self::is_pushed(&row) {
            if !self.is_settled(repository, slot, &row) {
                return None;
            }
            let held = self.held_at_once(repository, &row.digest)?;
            return Some(Document::of(held, Outcome::Hit));
        }
        let age = self
            .fresh_age(repository, slot, &row)
            .filter(|_| self.needs_no_asking(repository, &row))?;
        let held = self.held_at_once(repository, &row.digest)?;
        Some(Document {
            age: Some(age),
            ..Document::of(held, Outcome::Hit)
        })
    }

    /// What `slot` points at: from memory while fresh, else confirmed, else stale.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        repository: &Repository,
        slot: &Slot,
        asker: &Asker,
    ) -> Result<Document, Error> {
        let old = self.old(repository, slot).await;
        if let Some(Old { row, held }) = &old
            && Self::is_pushed(row)
        {
            if !self.is_settled(repository, slot, row) {
                self.look_above(repository, slot, asker);
            }
            return Ok(Document::of(held.clone(), Outcome::Hit));
        }
        if let Some(Old { row, held }) = &old
            && let Some(age) = self.fresh_age(repository, slot, row)
            && self.needs_no_asking(repository, row)
        {
            return Ok(Document {
                age: Some(age),
                ..Document::of(held.clone(), Outcome::Hit)
            });
        }
        let key = (repository.clone(), slot.clone());
        // What there is of it came later: it was pushed, and the parent has it by now.
        if let Some(layer) = self.absent.get(&key).filter(|_| old.is_none()) {
            return Err(Error::Absent { layer });
        }
        if let Some(error) = self.useless.get(&key) {
            return self.stale(repository, old, error);
        }
        // There is something to serve instead, or there is not.
        let patience = match &old {
            Some(_) => self.config.stale_after,
            None => self.config.answer_within,
        };
        let parent = self.parent(repository)?;
        if let Some(error) = parent.is_shut(asker.class).filter(|_| old.is_some()) {
            return self.stale(repository, old, error.into());
        }
        let refreshed = self.refresh(repository, slot, asker, old.is_some());
        if old.is_some() && parent.is_silent() {
            // It is asked all the same: its answer ends the silence.
            return match refreshed.now_or_never() {
                Some(Ok((refreshed, outcome))) => Ok(self.document(refreshed, outcome)),
                Some(Err(error)) if !error.allows_stale() => Err(error),
                _ => self.stale(repository, old, late(parent, self.config.stale_after)),
            };
        }
        match self.within(patience, repository, asker, refreshed).await {
            Ok((refreshed, outcome)) => Ok(self.document(refreshed, outcome)),
            Err(error) if old.is_some() && error.is_late() => {
                parent.let_down();
                self.stale(repository, old, error)
            }
            Err(error) if error.allows_stale() => self.stale(repository, old, error),
            Err(error) => Err(error),
        }
    }

    /// Whether the parent need not be asked for a tag that was pushed here.
    fn is_settled(&self, repository: &Repository, slot: &Slot, row: &TagRow) -> bool {
        self.parent(repository).is_err() || self.fresh_age(repository, slot, row).is_some()
    }

    /// Asks the parent whether it has by now what was pushed here, while that is served.
    fn look_above(self: &Arc<Self>, repository: &Repository, slot: &Slot, asker: &Asker) {
        let key = (repository.clone(), slot.clone());
        let Ok(parent) = self.parent(repository) else { return };
        let is_known = self.absent.get(&key).is_some() || self.useless.get(&key).is_some();
        let was_asked = self.looked.get(&key).is_some();
        if is_known || was_asked || parent.is_shut(asker.class).is_some() || parent.is_silent() {
            return;
        }
        self.looked.insert(key.clone(), ());
        let (shared, asker) = (self.clone(), asker.clone());
        self.runtime.spawn(async move {
            let (repository, slot) = key;
            let _ = shared.refresh(&repository, &slot, &asker, true).await;
        });
    }

    pub(super) fn document(&self, refreshed: Refreshed, outcome: Outcome) -> Document {
        let Refreshed {
            held,
            confirmed,
            cache_status,
            stale,
        } = refreshed;
        Document {
            age: Some(self.age(confirmed)),
            cache_status,
            stale,
            ..Document::of(held, outcome)
        }
    }

    /// Keeps what the parent vouched for at `asked`, if the content came to lie here: what was there before can
    /// still be served, and what passed by cannot.
    pub(super) fn settle(
        &self,
        repository: &Repository,
        slot: &Slot,
        held: Arc<Held>,
        asked: Instant,
        answer: &Head,
    ) -> Refreshed {
        let refreshed = self.vouched(held, asked, answer);
        if self.store.linked(repository, refreshed.held.digest()).is_some() {
            let digest = refreshed.held.digest();
            self.store.confirm(repository, slot, digest, refreshed.confirmed);
        }
        refreshed
    }

    /// What the parent vouched for at `asked`.
    pub(super) fn vouched(&self, held: Arc<Held>, asked: Instant, answer: &Head) -> Refreshed {
        Refreshed {
            held,
            confirmed: self.confirmed(asked, answer),
            cache_status: answer.cache_status.clone(),
            stale: answer.stale.clone(),
        }
    }

    /// What an answer to a question of `asked` is worth.
    pub(super) fn confirmed(&self, asked: Instant, answer: &Head) -> Confirmed {
        // A parent that serves old content itself vouches for nothing: it is asked again next time.
        let stale_age = answer.stale.as_ref().map_or(Duration::ZERO, |_| self.config.tag_ttl);
        Confirmed {
            at: asked,
            age: stale_age.max(answer.age),
        }
    }

    /// Asks the parent, once for all who wait. That goes on when they have left, and what it brings is there for
    /// the next.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        repository: &Repository,
        slot: &Slot,
        asker: &Asker,
        is_spare: bool,
    ) -> Result<(Refreshed, Outcome), Error> {
        let key = (repository.clone(), slot.clone());
        let shared = self.clone();
        let asker = asker.for_all(self.clock.now() + WORK, is_spare);
        let urgent = asker.is_urgent();
        let work = || {
            let ((repository, slot), shared, asker) = (key.clone(), shared.clone(), asker.clone());
            async move {
                let began = shared.clock.now();
                let asked = shared.ask_again(&repository, &slot, &asker);
                let outcome = shared.within(WORK, &repository, &asker, asked).await;
                match &outcome {
                    // It has changed since.
                    Err(_) if shared.doubts.cover(&repository, &slot, began) => {}
                    Err(Error::Absent { layer }) => {
                        shared.store.untag(&repository, &slot);
                        shared.absent.insert((repository, slot), layer.clone());
                    }
                    Ok(_) => shared.absent.invalidate(&(repository, slot)),
                    Err(error) if error.is_useless() => shared.useless.insert((repository, slot), error.clone()),
                    _ => {}
                }
                outcome
            }
        };
        let joined = self.refreshing.join(&self.runtime, key.clone(), &work).await;
        let (mut result, mut outcome) = joined.ok_or(Error::Interrupted)?;
        // It was asked for nobody in particular, and the window closed.
        if urgent && outcome == Outcome::Collapsed && result.as_ref().is_err_and(Error::is_closed) {
            let joined = self.refreshing.join(&self.runtime, key.clone(), &work).await;
            (result, outcome) = joined.ok_or(Error::Interrupted)?;
        }
        Ok((result?, outcome))
    }

    async fn ask_again(
        self: &Arc<Self>,
        repository: &Repository,
        slot: &Slot,
        asker: &Asker,
    ) -> Result<Refreshed, Error> {
        match slot {
            Slot::Tag(tag) => self.ask_for_tag(repository, tag, asker).await,
            Slot::Tags => self.ask_for_tags(repository, asker).await,
            Slot::Referrers(digest) => self.ask_for_referrers(repository, digest, asker).await,
        }
    }

    /// A HEAD tells the digest; the manifest is fetched by it, once, if it is not here.
    pub(super) async fn ask_for_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        asker: &Asker,
    ) -> Result<Refreshed, Error> {
        let asked = self.clock.now();
        let reference = Reference::Tag(tag.clone());
        let slot = Slot::Tag(tag.clone());
        let parent = self.parent(repository)?;
        let ask = |head| Ask {
            head,
            ..self.ask(asker, repository, What::Manifest(&reference))
        };
        let answer = match self.put_to(parent, ask(true)).await {
            Err(error) if is_method_refused(&error) => self.put_to(parent, ask(false)).await?,
            other => other?,
        };
        let head = Head::of(&answer);
        match answer.head.digest {
            Some(digest) => {
                drop(answer);
                self.stays_away(repository, &reference, &digest)?;
                self.stays_away(repository, &Reference::Digest(digest), &digest)?;
                let document = self.manifest(repository, &digest, asker).await;
                let document = document.map_err(|error| contradiction(error, &digest))?;
                Ok(self.settle(repository, &slot, document.held, asked, &head))
            }
            // A registry that tells no digest: the bytes do.
            None => {
                let answer = self.put_to(parent, ask(false)).await?;
                let head = Head::of(&answer);
                let media_type = answer.head.media_type.clone();
                let most = usize::try_from(self.limits.get().manifest.bytes()).unwrap_or(usize::MAX);
                let bytes = answer.bytes(most).await.map_err(|error| match error {
                    parent::Error::TooLarge { .. } => self.beyond(repository, "a manifest", Limit::Manifest),
                    other => other.into(),
                })?;
                let held = Arc::new(Held::new(Digest::of(&bytes), media_type.as_deref(), bytes));
                self.stays_away(repository, &reference, held.digest())?;
                self.stays_away(repository, &Reference::Digest(*held.digest()), held.digest())?;
                self.judge(repository, &held)?;
                self.keep(repository, held.clone()).await;
                Ok(self.settle(repository, &slot, held, asked, &head))
            }
        }
    }

    /// Stores a document. When the disk refuses it is served all the same.
    pub(super) async fn keep(&self, repository: &Repository, held: Arc<Held>) {
        let (store, repository) = (self.store.clone(), repository.clone());
        let digest = *held.digest();
        let put = tokio::task::spawn_blocking(move || store.put(&repository, held)).await;
        if let Ok(Err(error)) = put {
            self.metrics.unkept.inc();
            tracing::warn!(%digest, %error, "a document goes through unkept");
        }
    }

    fn stale(&self, repository: &Repository, old: Option<Old>, error: Error) -> Result<Document, Error> {
        let Some(Old { row, held }) = old else {
            return Err(error);
        };
        if !self.needs_no_word(repository, &row.digest) {
            self.or_old_word(repository, error.clone())?;
        }
        let age = row.confirmed.map(|confirmed| self.age(confirmed));
        let stale = Some(Stale::Here(error.to_string()));
        Ok(Document {
            age,
            stale,
            ..Document::of(held, Outcome::Stale)
        })
    }

    /// Whether the parent need not be asked for its word on what lies here.
    fn needs_no_asking(&self, repository: &Repository, row: &TagRow) -> bool {
        self.is_vouched_lately(repository) || self.needs_no_word(repository, &row.digest)
    }

    /// What `slot` points at, if that lies here, however old it is.
    async fn old(&self, repository: &Repository, slot: &Slot) -> Option<Old> {
        let row = self.store.tag(repository, slot)?;
        let held = match slot {
            Slot::Tag(_) => self.held(repository, &row.digest).await.ok()??,
            Slot::Tags | Slot::Referrers(_) => self.held_list(repository, &row.digest).await?,
        };
        Some(Old { row, held })
    }

    /// The age of a row, if it is fresh.
    fn fresh_age(&self, repository: &Repository, slot: &Slot, row: &TagRow) -> Option<Duration> {
        let is_fixed =
            row.origin == Origin::Parent && matches!(slot, Slot::Tag(tag) if self.is_immutable(repository, tag));
        let Some(confirmed) = row.confirmed else {
            // An earlier process was told.
            return is_fixed.then_some(Duration::ZERO);
        };
        let age = self.age(confirmed);
        let is_young = || age < self.config.tag_ttl && !self.doubts.cover(repository, slot, confirmed.at);
        (is_fixed || is_young()).then_some(age)
    }

    /// Whether the tag never moves at the parent.
    pub(super) fn is_immutable(&self, repository: &Repository, tag: &Tag) -> bool {
        let tags = &self.config.immutable_tags;
        tags.matches(repository.name.as_str(), tag.as_str())
    }

    fn age(&self, confirmed: Confirmed) -> Duration {
        self.clock.now().saturating_duration_since(confirmed.at) + confirmed.age
    }
}

/// A parent that names a digest for a tag, and says that there is no such content, does not say that the tag is gone.
fn contradiction(error: Error, digest: &Digest) -> Error {
    match error {
        Error::Absent { layer } => Error::Parent(Arc::new(parent::Error::Garbled {
            layer,
            reason: format!("{digest} for the tag, and does not have it"),
        })),
        other => other,
    }
}

/// What of an answer's header matters for freshness.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) age: Duration,
    pub(super) cache_status: Option<String>,
    pub(super) stale: Option<Stale>,
}

impl Head {
    /// Of an answer that we gave ourselves.
    pub(super) fn ours() -> Self {
        Self {
            age: Duration::ZERO,
            cache_status: None,
            stale: None,
        }
    }

    pub(super) fn of(answer: &Answer) -> Self {
        Self {
            age: answer.head.age,
            cache_status: answer.head.cache_status.clone(),
            stale: answer.head.warning.clone().map(Stale::Above),
        }
    }
}
