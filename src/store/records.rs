//! Names: repositories, tags and what they point at, and what was pushed or deleted here. In memory whole, written behind to
//! the index; what nobody else could tell goes to the journal first.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Error;
use super::debt::Debt;
use super::events::Events;
use super::fact::{Change, Fact, Key};
use super::index::{Index, Row};
use super::journal::{Journal, Mark};
use crate::oci::{Digest, Reference, Repository, Tag};

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
    /// Counts what became of debts.
    debts: watch::Sender<u64>,
    pub(super) events: Events,
}

struct Entry {
    id: RepositoryId,
    slots: BTreeMap<Box<str>, TagRow>,
    /// What nobody else could tell.
    facts: BTreeMap<Key, Fact>,
    /// Of the manifests among them, those that are about another.
    referrers: HashMap<Digest, BTreeSet<Digest>>,
    /// Numbers of the debts among them that are not paid.
    unpaid: BTreeSet<u64>,
    /// Manifests taken in since the start: what nobody needed before may be needed now.
    accepted: u64,
}

impl Records {
    /// Numbers up to `highest` are not given to any repository anew.
    pub(super) fn new(sequence: u64, highest: RepositoryId) -> Self {
        Self {
            repositories: HashMap::new(),
            next: highest.saturating_add(1),
            sequence: watch::Sender::new(sequence),
            debts: watch::Sender::new(0),
            events: Events::new(),
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
                facts: BTreeMap::new(),
                referrers: HashMap::new(),
                unpaid: BTreeSet::new(),
                accepted: 0,
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

    /// What `tag` names, if that is not `digest`: here, or else at the parent, which was asked and said `above`.
    pub(super) fn taken(
        &self,
        repository: &Repository,
        tag: &Tag,
        above: Option<&Digest>,
        digest: &Digest,
    ) -> Option<(Tag, Digest)> {
        let here = self.tag(repository, &Slot::Tag(tag.clone())).map(|row| row.digest);
        let is_buried = || {
            self.fact(repository, &Key::Buried(Reference::Tag(tag.clone())))
                .is_some()
        };
        let named = here.or_else(|| above.copied().filter(|_| !is_buried()))?;
        (named != *digest).then(|| (tag.clone(), named))
    }

    pub(super) fn confirm(
        &mut self,
        repository: &Repository,
        slot: &Slot,
        digest: &Digest,
        confirmed: Confirmed,
        index: &Index,
    ) {
        self.enrol(repository, index);
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        if entry.buries(slot, digest) {
            return;
        }
        let key = slot.key();
        match entry.slots.get_mut(&*key) {
            // What was pushed here hides what the parent has.
            Some(row) if row.origin == Origin::Pushed => {
                row.parent_digest = Some(*digest);
                row.confirmed = Some(confirmed);
                return;
            }
            // It was asked before.
            Some(row) if row.confirmed.is_some_and(|known| known.at > confirmed.at) => return,
            Some(row) if row.digest == *digest => {
                row.confirmed = Some(confirmed);
                return;
            }
            _ => {}
        }
        let sequence = advance(&self.sequence);
        let row = TagRow {
            digest: *digest,
            origin: Origin::Parent,
            parent_digest: Some(*digest),
            sequence,
            confirmed: Some(confirmed),
        };
        let is_first = !entry.slots.contains_key(&*key);
        entry.move_slot(&key, row, index);
        // A list that nobody has asked for before is none that has changed.
        if !is_first || matches!(slot, Slot::Tag(_)) {
            self.events.slot(repository, slot, Some(*digest));
        }
    }

    pub(super) fn untag(&mut self, repository: &Repository, slot: &Slot, index: &Index) {
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        let key = slot.key();
        match entry.slots.get_mut(&*key) {
            Some(row) if row.origin == Origin::Pushed => row.parent_digest = None,
            Some(_) => {
                entry.remove_slot(&key, &self.sequence, index);
                self.events.slot(repository, slot, None);
            }
            None => {}
        }
    }

    /// Writes down what holds from now on and what holds no more, where a kill leaves it. When all rows that follow from it
    /// were sent to the index, the number of the change is to be sent as well.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`]: then nothing has changed.
    pub(super) fn change(
        &mut self,
        repository: &Repository,
        say: Vec<Fact>,
        unsay: Vec<Key>,
        journal: &Journal,
        index: &Index,
    ) -> Result<(Mark, u64), Error> {
        self.enrol(repository, index);
        let (mark, change) = journal.append(repository, say, unsay)?;
        let number = change.number;
        let is_debt = |fact: &Fact| matches!(fact, Fact::Debt(_));
        let is_of_debts = change.say.iter().any(is_debt) || change.unsay.iter().any(|key| matches!(key, Key::Debt(_)));
        self.take(repository, change, index);
        if is_of_debts {
            self.debts.send_modify(|times| *times += 1);
        }
        Ok((mark, number))
    }

    fn take(&mut self, repository: &Repository, change: Change, index: &Index) {
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        for key in change.unsay {
            entry.unsay(&key);
            if let Key::Tag(tag) = &key {
                entry.remove_slot(tag.as_str(), &self.sequence, index);
                self.events.slot(repository, &Slot::Tag(tag.clone()), None);
            }
            index.write(Row::NoFact {
                repository: entry.id,
                key: key.text(),
            });
        }
        for fact in change.say {
            if let Fact::Tag { tag, digest } = &fact {
                let sequence = advance(&self.sequence);
                let before = entry.slots.get(tag.as_str());
                let row = TagRow {
                    digest: *digest,
                    origin: Origin::Pushed,
                    parent_digest: before.and_then(|row| row.parent_digest),
                    sequence,
                    confirmed: None,
                };
                entry.move_slot(tag.as_str(), row, index);
                self.events.slot(repository, &Slot::Tag(tag.clone()), Some(*digest));
            }
            if let Fact::Manifest {
                subject: Some(subject), ..
            } = &fact
            {
                self.events.slot(repository, &Slot::Referrers(*subject), None);
            }
            index.write(Row::Fact {
                repository: entry.id,
                fact: fact.clone(),
            });
            entry.say(fact);
        }
    }

    /// Drops the tags of which the index says that they were pushed, and no fact does.
    pub(super) fn forget_unsaid_tags(&mut self) {
        for entry in self.repositories.values_mut() {
            let Entry { slots, facts, .. } = entry;
            let is_said = |key: &str| key.parse().is_ok_and(|tag| facts.contains_key(&Key::Tag(tag)));
            slots.retain(|key, row| row.origin == Origin::Parent || is_said(key));
        }
    }

    /// The names of these.
    pub(super) fn named(&self, ids: &[RepositoryId]) -> Vec<Repository> {
        let known = self.repositories.iter().filter(|(_, entry)| ids.contains(&entry.id));
        known.map(|(repository, _)| repository.clone()).collect()
    }

    /// What a start found on record: a fact, with the tag that it makes.
    pub(super) fn adopt_fact(&mut self, repository: &Repository, fact: Fact) {
        let Some(entry) = self.repositories.get_mut(repository) else {
            return;
        };
        if let Fact::Tag { tag, digest } = &fact {
            let row = entry.slots.get(tag.as_str()).filter(|row| row.origin == Origin::Pushed);
            let (sequence, parent_digest) = row.map_or((0, None), |row| (row.sequence, row.parent_digest));
            let row = TagRow {
                digest: *digest,
                origin: Origin::Pushed,
                parent_digest,
                sequence,
                confirmed: None,
            };
            entry.slots.insert(tag.as_str().into(), row);
        }
        entry.say(fact);
    }

    /// Everything that is on record here and nowhere else.
    pub(super) fn facts(&self) -> Vec<(Repository, Vec<Fact>)> {
        let known = self.repositories.iter().filter(|(_, entry)| !entry.facts.is_empty());
        known
            .map(|(repository, entry)| (repository.clone(), entry.facts.values().cloned().collect()))
            .collect()
    }

    /// Manifests taken in since the start.
    pub(super) fn accepted(&self, repository: &Repository) -> u64 {
        self.repositories.get(repository).map_or(0, |entry| entry.accepted)
    }

    /// What is on record here of one thing.
    pub(super) fn fact(&self, repository: &Repository, key: &Key) -> Option<&Fact> {
        self.repositories.get(repository)?.facts.get(key)
    }

    /// The repositories of which a fact says that this is here.
    pub(super) fn claimants(&self, digest: &Digest) -> Vec<RepositoryId> {
        let keys = [Key::Blob(*digest), Key::Manifest(*digest)];
        let has = |entry: &&Entry| keys.iter().any(|key| entry.facts.contains_key(key));
        self.repositories.values().filter(has).map(|entry| entry.id).collect()
    }

    /// Everything on record here of a repository.
    pub(super) fn facts_of(&self, repository: &Repository) -> impl Iterator<Item = &Fact> {
        let entry = self.repositories.get(repository).into_iter();
        entry.flat_map(|entry| entry.facts.values())
    }

    /// The manifests pushed here that are about `digest`.
    pub(super) fn referrers(&self, repository: &Repository, digest: &Digest) -> Vec<Digest> {
        let entry = self.repositories.get(repository);
        let referrers = entry.and_then(|entry| entry.referrers.get(digest));
        referrers.into_iter().flatten().copied().collect()
    }

    /// The tags that were pushed here.
    pub(super) fn pushed_tags(&self, repository: &Repository) -> Vec<String> {
        let tag = |fact: &Fact| match fact {
            Fact::Tag { tag, .. } => Some(tag.to_string()),
            _ => None,
        };
        self.facts_of(repository).filter_map(tag).collect()
    }

    pub(super) fn debts_changed(&self) -> watch::Receiver<u64> {
        self.debts.subscribe()
    }

    /// The repositories with debts that are not paid, the one with the oldest first.
    pub(super) fn indebted(&self) -> Vec<Repository> {
        let oldest = self
            .repositories
            .iter()
            .filter_map(|(repository, entry)| Some((*entry.unpaid.first()?, repository)));
        let ordered: BTreeMap<u64, &Repository> = oldest.collect();
        ordered.into_values().cloned().collect()
    }

    /// Every repository that has debts, paid ones included.
    pub(super) fn with_debts(&self) -> Vec<Repository> {
        let named = self.repositories.iter();
        let those = named.filter(|(_, entry)| entry.debts().next().is_some());
        those.map(|(repository, _)| repository.clone()).collect()
    }

    /// Those of a repository, in their order.
    pub(super) fn debts(&self, repository: &Repository) -> impl DoubleEndedIterator<Item = &Debt> {
        self.repositories.get(repository).into_iter().flat_map(Entry::debts)
    }

    /// The same, without those that are paid.
    pub(super) fn unpaid(&self, repository: &Repository) -> impl Iterator<Item = &Debt> {
        let entry = self.repositories.get(repository).into_iter();
        entry.flat_map(|entry| {
            let debt = |number: &u64| match entry.facts.get(&Key::Debt(*number)) {
                Some(Fact::Debt(debt)) => Some(debt),
                _ => None,
            };
            entry.unpaid.iter().filter_map(debt)
        })
    }

    /// The tags that name `digest`, whoever said so.
    pub(super) fn tags_of(&self, repository: &Repository, digest: &Digest) -> Vec<Tag> {
        let entry = self.repositories.get(repository).into_iter();
        let slots = entry.flat_map(|entry| &entry.slots);
        slots
            .filter(|(_, row)| row.digest == *digest)
            .filter_map(|(key, _)| key.parse().ok())
            .collect()
    }

    /// What the parent has under these names is hidden.
    pub(super) fn buried(&self, repository: &Repository) -> Vec<(Reference, Option<Digest>)> {
        let buried = |fact: &Fact| match fact {
            Fact::Buried { name, parent, .. } => Some((name.clone(), *parent)),
            _ => None,
        };
        self.facts_of(repository).filter_map(buried).collect()
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
                facts: entry.facts.values().cloned().collect(),
            })
        };
        repositories.iter().filter_map(row).collect()
    }

    pub(super) fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }
}

impl Entry {
    /// Whether this was deleted here while the parent was asked for it.
    fn buries(&self, slot: &Slot, digest: &Digest) -> bool {
        let Slot::Tag(tag) = slot else { return false };
        let names = [Reference::Tag(tag.clone()), Reference::Digest(*digest)];
        names
            .iter()
            .any(|name| match self.facts.get(&Key::Buried(name.clone())) {
                Some(Fact::Buried { parent, sent, .. }) => {
                    parent.is_none_or(|parent| parent == *digest) || *sent == Some(*digest)
                }
                _ => false,
            })
    }

    fn debts(&self) -> impl DoubleEndedIterator<Item = &Debt> {
        let debts = self.facts.range(Key::Debt(0)..=Key::Debt(u64::MAX));
        debts.filter_map(|(_, fact)| match fact {
            Fact::Debt(debt) => Some(debt),
            _ => None,
        })
    }

    fn say(&mut self, fact: Fact) {
        if let Fact::Debt(debt) = &fact {
            match debt.is_settled() {
                true => self.unpaid.remove(&debt.number),
                false => self.unpaid.insert(debt.number),
            };
        }
        self.accepted += u64::from(matches!(fact, Fact::Manifest { .. }));
        if let Fact::Manifest {
            digest,
            subject: Some(subject),
            ..
        } = &fact
        {
            self.referrers.entry(*subject).or_default().insert(*digest);
        }
        self.facts.insert(fact.key(), fact);
    }

    fn unsay(&mut self, key: &Key) {
        if let Key::Debt(number) = key {
            self.unpaid.remove(number);
        }
        if let Some(Fact::Manifest {
            digest,
            subject: Some(subject),
            ..
        }) = self.facts.remove(key)
            && let Some(referrers) = self.referrers.get_mut(&subject)
        {
            referrers.remove(&digest);
            if referrers.is_empty() {
                self.referrers.remove(&subject);
            }
        }
    }

    fn move_slot(&mut self, key: &str, row: TagRow, index: &Index) {
        index.write(Row::Slot {
            repository: self.id,
            key: key.into(),
            row: row.clone(),
        });
        self.slots.insert(key.into(), row);
    }

    fn remove_slot(&mut self, key: &str, sequence: &watch::Sender<u64>, index: &Index) {
        if self.slots.remove(key).is_some() {
            index.write(Row::NoSlot {
                repository: self.id,
                key: key.into(),
                sequence: advance(sequence),
            });
        }
    }
}

fn advance(sequence: &watch::Sender<u64>) -> u64 {
    let next = *sequence.borrow() + 1;
    sequence.send_replace(next);
    next
}
