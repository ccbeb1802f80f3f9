//! A manifest for a client, by digest; whole in memory, as manifests are small.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::flight::Kind;
use super::here::PUSH_PATIENCE;
use super::{Asker, Error, Fetch, Limit, Outcome, Piece, Shared, Source};
use crate::oci::{Digest, Reference, Repository, Tag};
use crate::parent::{Ask, What};
use crate::store::{Held, Slot};

/// A manifest, or a list, with how it came about.
#[derive(Clone)]
pub struct Document {
    /// The bytes.
    pub held: Arc<Held>,
    /// How it came about.
    pub outcome: Outcome,
    /// How old the parent's word is; `None` for what never changes.
    pub age: Option<Duration>,
    /// Why it could not be confirmed, if it is stale.
    pub stale: Option<Stale>,
    /// What the upstream's `Cache-Status` said, entries of the nodes above.
    pub cache_status: Option<String>,
}

/// What kept an old answer from being confirmed.
#[derive(Clone, Debug)]
pub enum Stale {
    /// Our parent could not be asked; in words, with the layer that failed.
    Here(String),
    /// A node above could not ask its own: its `Warning`, as it came.
    Above(String),
}

/// How long a HEAD for a manifest waits for a parent where things are pushed: longer than for a blob, as those who pull ask
/// it too.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

impl Fetch {
    /// The manifest that `reference` names in `repository`.
    ///
    /// By digest it is served from here without asking. By tag, the parent is asked by HEAD once the
    /// tag is older than its time to live; if the parent cannot answer, the old one is served as stale.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] if the upstream says that it does not exist; else why it could not be asked.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        asker: &Asker,
    ) -> Result<Document, Error> {
        match reference {
            Reference::Digest(digest) => {
                let wanted = async {
                    self.shared.vouch(repository, digest, Kind::Manifest, asker).await?;
                    self.shared.manifest(repository, digest, asker).await
                };
                self.shared.in_time(repository, asker, wanted).await
            }
            Reference::Tag(tag) => {
                let outcome = self.shared.fresh(repository, &Slot::Tag(tag.clone()), asker).await;
                self.shared.or_it_was_deleted(repository, reference, outcome)
            }
        }
    }
}

impl Fetch {
    /// The same, for a HEAD of what is pushed here: whoever pushes asks it too, and is told that it is not here where nobody
    /// can tell: the parent or a node above it is away, does not let us in, or says nothing for some seconds.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn manifest_head(
        &self,
        repository: &Repository,
        reference: &Reference,
        asker: &Asker,
    ) -> Result<Document, Error> {
        let shared = &self.shared;
        let asked = self.manifest(repository, reference, asker);
        // A node below does not push, and would believe that it is gone.
        if shared.pushed_to(repository).is_none() || !asker.hops.is_empty() {
            return asked.await;
        }
        let outcome = shared.within(HEAD_PATIENCE, repository, asker, asked).await;
        shared.or_it_lacks(repository, outcome, |error| {
            matches!(error, Error::Parent(_) | Error::Unvouched { .. })
        })
    }

    /// The digest that the parent has under a tag, `None` if it has none. Nobody waits long for it.
    ///
    /// # Errors
    ///
    /// It does not say.
    pub async fn parent_has(&self, repository: &Repository, tag: &Tag, asker: &Asker) -> Result<Option<Digest>, Error> {
        let shared = &self.shared;
        let reference = Reference::Tag(tag.clone());
        let ask = Ask {
            head: true,
            ..shared.ask(asker, repository, What::Manifest(&reference))
        };
        let asked = async { Ok(shared.put_to(shared.parent(repository)?, ask).await?) };
        match shared.within(PUSH_PATIENCE, repository, asker, asked).await {
            Ok(answer) => answer.head.digest.map(Some).ok_or(Error::Interrupted),
            Err(Error::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A manifest without waiting: `None` if anything is missing, old, or not in memory.
    pub fn manifest_at_once(&self, repository: &Repository, reference: &Reference) -> Option<Document> {
        match reference {
            Reference::Digest(digest) => self
                .shared
                .held_at_once(repository, digest)
                .filter(|_| self.shared.is_vouched_lately(repository))
                .map(|held| Document::of(held, Outcome::Hit)),
            Reference::Tag(tag) => self.shared.fresh_at_once(repository, &Slot::Tag(tag.clone())),
        }
    }
}

impl Shared {
    /// A linked document that is in memory.
    pub(super) fn held_at_once(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Held>> {
        let held = self.store.held_at_once(&self.store.linked(repository, digest)?)?;
        self.objection(&held).is_none().then_some(held)
    }

    /// A manifest by digest: from here, or along a flight.
    pub(super) async fn manifest(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<Document, Error> {
        self.stays_away(repository, &Reference::Digest(*digest), digest)?;
        if let Some(here) = self.pushed_to(repository)
            && self.store.is_no_manifest(repository, digest)
        {
            return Err(here.lacks());
        }
        let document = self.any_manifest(repository, digest, asker).await?;
        self.judge(repository, &document.held)?;
        Ok(document)
    }

    /// Refuses what clients would read in different ways, or choke on. It is not asked for again: it lies here.
    pub(super) fn judge(&self, repository: &Repository, held: &Held) -> Result<(), Error> {
        match self.objection(held) {
            None => Ok(()),
            Some(Objection::Ambiguous(expected)) => Err(self.nonsense(repository, expected)),
            Some(Objection::Beyond(limit)) => Err(self.beyond(repository, "a manifest", limit)),
        }
    }

    fn objection(&self, held: &Held) -> Option<Objection> {
        let limits = self.limits.get();
        let beyond = [
            (held.bytes().len() as u64 > limits.manifest.bytes(), Limit::Manifest),
            (held.depth() > limits.json_depth, Limit::JsonDepth),
            (held.entries() > limits.descriptors, Limit::Descriptors),
        ];
        let beyond = beyond.into_iter().find(|(is_beyond, _)| *is_beyond);
        beyond
            .map(|(_, limit)| Objection::Beyond(limit))
            .or_else(|| held.ambiguity().map(Objection::Ambiguous))
    }

    async fn any_manifest(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<Document, Error> {
        let most = self.limits.get().manifest.bytes();
        loop {
            if self
                .store
                .linked(repository, digest)
                .is_some_and(|link| self.store.size(&link) > Some(most))
            {
                return Err(too_large(self, repository));
            }
            if let Some(held) = self.held(repository, digest).await? {
                return Ok(Document::of(held, Outcome::Hit));
            }
            if self.store.holds(digest) {
                self.confirm(repository, digest, Kind::Manifest, asker).await?;
                if let Some(held) = self.held(repository, digest).await? {
                    return Ok(Document::of(held, Outcome::Miss));
                }
            }
            let Some((flight, head, outcome)) = self.join(repository, digest, Kind::Manifest, asker).await? else {
                continue;
            };
            let Some(mut source) = Source::flight(self, &flight, &head, asker, outcome, 0) else {
                drop(flight.landed().await);
                continue;
            };
            if source.size().is_some_and(|size| size > most) {
                return Err(too_large(self, repository));
            }
            let Some(bytes) = whole(&mut source, most).await? else {
                return Err(too_large(self, repository));
            };
            // The stored one first: it may be held already, and then there is one copy of it.
            let held = match self.held(repository, digest).await? {
                Some(held) => held,
                None => {
                    let held = Arc::new(Held::new(*digest, head.media_type.as_deref(), bytes));
                    self.note_sizes(repository, &held);
                    held
                }
            };
            return Ok(Document {
                cache_status: head.cache_status.clone(),
                ..Document::of(held, outcome)
            });
        }
    }

    /// A linked document that lies here.
    pub(super) async fn held(&self, repository: &Repository, digest: &Digest) -> Result<Option<Arc<Held>>, Error> {
        let Some(link) = self.store.linked(repository, digest) else {
            return Ok(None);
        };
        if let Some(held) = self.store.held_at_once(&link) {
            return Ok(Some(held));
        }
        let held = self.store.held(&link).await?;
        if let Some(held) = &held {
            self.note_sizes(repository, held);
        }
        Ok(held)
    }

    /// Remembers what a manifest announces, for its own repository.
    fn note_sizes(&self, repository: &Repository, held: &Held) {
        for (child, bytes) in held.announced() {
            self.announced.insert((repository.clone(), child), bytes);
        }
    }
}

/// Why a document is not handed out as a manifest.
enum Objection {
    /// What it should have been instead.
    Ambiguous(&'static str),
    Beyond(Limit),
}

impl Document {
    pub(super) fn of(held: Arc<Held>, outcome: Outcome) -> Self {
        Self {
            held,
            outcome,
            age: None,
            stale: None,
            cache_status: None,
        }
    }
}

/// A blob of that digest exists perhaps, but no manifest.
fn too_large(shared: &Shared, repository: &Repository) -> Error {
    let layer = shared.layer(repository);
    Error::Absent { layer }
}

/// All of it; `None` if it is more than a document may have.
async fn whole(source: &mut Source, most: u64) -> Result<Option<Bytes>, Error> {
    let mut whole = BytesMut::new();
    while let Some(piece) = source.piece(whole.len() as u64..u64::MAX).await? {
        if whole.len() as u64 + piece.len() > most {
            return Ok(None);
        }
        match piece {
            Piece::Bytes(bytes) => whole.extend_from_slice(&bytes),
            Piece::File(file, range) => whole.extend_from_slice(&super::piece::read(file, range).await?),
        }
    }
    Ok(Some(whole.freeze()))
}
