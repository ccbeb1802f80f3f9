//! Names: repositories, tags and what they point at. In memory whole, written behind to the index.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::index::{Index, Row};
use crate::oci::{Digest, Repository, Tag};

/// A repository's number in the index.
pub(super) type RepositoryId = u32;

/// Proof that a repository may hand out a digest. Only the store makes one.
#[derive(Clone, Debug)]
pub struct Link {
    digest: Digest,
}

impl Link {
    pub(super) fn new(digest: Digest) -> Self {
        Self { digest }
    }

    /// What may be handed out.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// A name within a repository whose meaning changes with time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Slot {
    /// A tag.
    Tag(Tag),
    /// The list of all tags, kept as a document.
    Tags,
    /// The list of what refers to a digest, kept as a document.
    Referrers(Digest),
}

impl Slot {
    /// As it stands in the index. No tag begins with `@`.
    fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Tag(tag) => Cow::Borrowed(tag.as_str()),
            Self::Tags => Cow::Borrowed("@tags"),
            Self::Referrers(digest) => Cow::Owned(format!("@referrers/{digest}")),
        }
    }
}

/// Who made a tag what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The parent said so.
    Parent,
    /// It was pushed here.
    Pushed,
}

/// What a slot points at.
#[derive(Clone, Debug)]
pub struct TagRow {
    /// The content.
    pub digest: Digest,
    /// Who made it so.
    pub origin: Origin,
    /// What the parent pointed at when it was last heard.
    pub parent_digest: Option<Digest>,
    /// Of the event that last moved it.
    pub sequence: u64,
    /// When the parent last vouched for it; `None` since a start.
    pub confirmed: Option<Confirmed>,
}

/// The parent's word at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed {
    /// When its answer came.
    pub at: Instant,
    /// How old the answer was by then: what its `Age` header said.
    pub age: Duration,
}

/// All names.
pub(super) struct Records {
    repositories: HashMap<Repository, Entry>,
    next: RepositoryId,
    sequence: watch::Sender<u64>,
}

struct Entry {
    id: RepositoryId,
    slots: BTreeMap<Box<str>, TagRow>,
}

impl Records {
    /// Numbers up to `highest` are not given to any repository anew.
    pub(super) fn new(sequence: u64, highest: RepositoryId) -> Self {
        Self {
            repositories: HashMap::new(),
            next: highest.saturating_add(1),
            sequence: watch::Sender::new(sequence),
        }
    }

    pub(super) fn repository_id(&self, repository: &Repository) -> Option<RepositoryId> {
        self.repositories.get(repository).map(|entry| entry.id)
    }

    /// The number of a repository, given now if it has none.
    pub(super) fn enrol(&mut self, repository: &Repository, index: &Index) -> RepositoryId {
        if let Some(id) = self.repository_id(repository) {
            return id;
        }
        let id = self.next;
        self.adopt_repository(id, repository.clone());
        index.write(Row::Repository {
            id,
            repository: repository.clone(),
        });
        id
    }

    pub(super) fn adopt_repository(&mut self, id: RepositoryId, repository: Repository) {
        self.next = self.next.max(id.saturating_add(1));
        self.repositories.insert(
            repository,
            Entry {
                id,
                slots: BTreeMap::new(),
            },
        );
    }

    pub(super) fn adopt_slot(&mut self, repository: &Repository, key: &str, row: TagRow) {
        if let Some(entry) = self.repositories.get_mut(repository) {
            entry.slots.insert(key.into(), row);
        }
    }

    pub(super) fn tag(&self, repository: &Repository, slot: &Slot) -> Option<&TagRow> {
        self.repositories.get(repository)?.slots.get(&*slot.key())
    }

    pub(super) fn confirm(
        &mut self,
        repository: &Repository,
        slot: &Slot,
        digest: &Digest,
        confirmed: Confirmed,
        index: &Index,
    ) {
        let id = self.enrol(repository, index);
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        let key = slot.key();
        if let Some(row) = entry.slots.get_mut(&*key)
            && row.digest == *digest
        {
            row.confirmed = Some(confirmed);
            return;
        }
        let sequence = advance(&self.sequence);
        let row = TagRow {
            digest: *digest,
            origin: Origin::Parent,
            parent_digest: Some(*digest),
            sequence,
            confirmed: Some(confirmed),
        };
        index.write(Row::Slot {
            repository: id,
            key: (*key).into(),
            row: row.clone(),
        });
        entry.slots.insert((*key).into(), row);
    }

    pub(super) fn untag(&mut self, repository: &Repository, slot: &Slot, index: &Index) {
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        let key = slot.key();
        if entry.slots.remove(&*key).is_some() {
            let sequence = advance(&self.sequence);
            index.write(Row::NoSlot {
                repository: entry.id,
                key: (*key).into(),
                sequence,
            });
        }
    }

    pub(super) fn tags(&self, repository: &Repository) -> Vec<String> {
        let slots = self
            .repositories
            .get(repository)
            .into_iter()
            .flat_map(|entry| entry.slots.keys());
        slots
            .filter(|key| !key.starts_with('@'))
            .map(|key| key.to_string())
            .collect()
    }

    pub(super) fn repositories(&self) -> Vec<Repository> {
        let named = self
            .repositories
            .iter()
            .filter(|(_, entry)| entry.slots.keys().any(|key| !key.starts_with('@')));
        named.map(|(repository, _)| repository.clone()).collect()
    }

    /// Every repository, with a tag or without.
    pub(super) fn all(&self) -> Vec<Repository> {
        self.repositories.keys().cloned().collect()
    }

    /// All that is to be on record of these.
    pub(super) fn whole(&self, repositories: &[Repository]) -> Vec<Row> {
        let row = |repository: &Repository| {
            let entry = self.repositories.get(repository)?;
            let slots = entry.slots.iter().map(|(key, row)| (key.clone(), row.clone()));
            Some(Row::WholeRepository {
                id: entry.id,
                repository: repository.clone(),
                slots: slots.collect(),
            })
        };
        repositories.iter().filter_map(row).collect()
    }

    pub(super) fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }
}

fn advance(sequence: &watch::Sender<u64>) -> u64 {
    let next = *sequence.borrow() + 1;
    sequence.send_replace(next);
    next
}
