//! Letting go of what the parent has, or is not to have: it may be evicted, and after a while it is forgotten.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::debt::{Debt, State, What};
use super::fact::{Fact, Key, stamp};
use super::index::Row;
use super::own::Wish;
use super::records::Records;
use super::{Error, Link, Slot, Store};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};

/// What is to leave a repository.
#[derive(Debug)]
pub struct Purge {
    /// Which.
    pub repository: Repository,
    /// Manifests and blobs.
    pub digests: HashSet<Digest>,
    /// The tags that stay, with what they named when it was found out that they do not need it; in the order of their names.
    pub staying: Vec<(Tag, Digest)>,
}

impl Purge {
    /// Whether the tags that stay are those that are there.
    fn is_as_seen(&self, records: &Records) -> bool {
        let digest = |tag: &Tag| {
            records
                .tag(&self.repository, &Slot::Tag(tag.clone()))
                .map(|row| row.digest)
        };
        let tags = records.tags(&self.repository);
        tags.len() == self.staying.len() && self.staying.iter().all(|(tag, seen)| digest(tag) == Some(*seen))
    }

    /// Whether it was pushed there.
    fn is_pushed(&self, records: &Records, of: &Digest) -> bool {
        let keys = [Key::Blob(*of), Key::Manifest(*of)];
        keys.iter().any(|key| records.fact(&self.repository, key).is_some())
    }
}

impl Store {
    /// Takes from a repository what was pulled into it and is not to be there any more; nothing, if its tags are not what they were.
    /// What no other repository has and nobody reads just now leaves the disk at once, the rest when there is need of room. What is
    /// pushed, or selected anywhere, stays. Bytes that left. Blocks.
    pub fn purge(&self, purge: &Purge) -> u64 {
        let shared = &self.shared;
        let mut victims = Vec::new();
        let mut freed = 0;
        {
            let records = shared.records.lock();
            let Some(id) = records.repository_id(&purge.repository) else {
                return 0;
            };
            if !purge.is_as_seen(&records) {
                return 0;
            }
            let mut ledger = shared.ledger.lock();
            for digest in &purge.digests {
                if ledger.is_selected(digest) || purge.is_pushed(&records, digest) || !ledger.holds(digest) {
                    continue;
                }
                ledger.unlink(digest, id);
                shared.index.write(Row::NoLink {
                    repository: id,
                    digest: *digest,
                });
                let size = ledger.entry(digest).map_or(0, |entry| entry.size);
                if let Some(victim) = ledger.drop_unowned(digest) {
                    victims.push(victim);
                    freed += size;
                }
            }
        }
        shared.unlink(victims);
        freed
    }

    /// Bytes of what all of these would take from the disk, if nobody read it and these were selected.
    pub fn would_purge(&self, purges: &[Purge], selected: &HashSet<Digest>) -> u64 {
        let records = self.shared.records.lock();
        let mut leaving: HashMap<&Digest, usize> = HashMap::new();
        for purge in purges {
            let digests = purge.digests.iter().filter(|digest| !purge.is_pushed(&records, digest));
            digests.for_each(|digest| *leaving.entry(digest).or_default() += 1);
        }
        let ledger = self.shared.ledger.lock();
        let sizes = leaving.into_iter().filter_map(|(digest, repositories)| {
            let entry = ledger.entry(digest)?;
            let stays = ledger.is_owned(digest) || selected.contains(digest) || entry.repositories.len() > repositories;
            (!stays).then_some(entry.size)
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// All that the repository may hand out of what lies here, and whether it is a manifest. Looks at everything.
    pub fn linked_in(&self, repository: &Repository) -> Vec<(Digest, bool)> {
        let Some(id) = self.shared.records.lock().repository_id(repository) else {
            return Vec::new();
        };
        self.shared.ledger.lock().linked_in(id)
    }

    /// Lets go of what was pushed to `repository` and is no more owed: the parent has it, so it may be evicted like
    /// everything that was pulled. What a manifest still needs that nobody else has stays. Whether all of it could go: not
    /// while more is pushed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: a manifest could not be read, or the disk refused. Nothing has changed.
    pub async fn release(&self, repository: &Repository) -> Result<bool, Error> {
        let (facts, accepted, [settled, paid, owed]) = {
            let records = self.shared.records.lock();
            let pushed = |of: fn(&Debt) -> bool| {
                let those = records.debts(repository).filter(|debt| of(debt));
                those.filter_map(|debt| debt.pushed().copied()).collect::<HashSet<_>>()
            };
            let facts: Vec<Fact> = records.facts_of(repository).cloned().collect();
            let sets = [
                pushed(Debt::is_settled),
                pushed(Debt::is_paid),
                pushed(|debt| !debt.is_settled()),
            ];
            (facts, records.accepted(repository), sets)
        };
        // What was given up stays as long as a tag that was pushed before names it.
        let tagged: HashSet<Digest> = facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Tag { digest, .. } => Some(*digest),
                _ => None,
            })
            .collect();
        let is_pushed = |fact: &&Fact| matches!(fact, Fact::Manifest { .. });
        let manifests = || facts.iter().filter(is_pushed).filter_map(Fact::content);
        let goes = |digest: &&Digest| {
            settled.contains(*digest)
                && !owed.contains(*digest)
                && (paid.contains(*digest) || !tagged.contains(*digest))
        };
        if !manifests().any(|digest| goes(&digest)) {
            return Ok(true);
        }
        let stays: Vec<Digest> = manifests().filter(|digest| !goes(digest)).copied().collect();
        // What is pushed meanwhile says all that it needs again, and is seen below. What cannot be read now may need anything.
        let Some(needed) = self.closure(stays).await? else {
            return Ok(false);
        };
        let is_free = |digest: &&Digest| goes(digest) && !needed.contains(*digest);
        let going: Vec<Digest> = manifests().filter(is_free).copied().collect();
        let freed = self.closure(going.clone()).await?.unwrap_or_default();
        let wish = |records: &Records| {
            if records.accepted(repository) != accepted {
                // Another time.
                return None;
            }
            let pushed_at = |key: Key| match records.fact(repository, &key) {
                Some(Fact::Manifest { at, .. } | Fact::Blob { at, .. }) => Some(*at),
                _ => None,
            };
            // What was pushed again since is for a manifest to come.
            let last = going
                .iter()
                .filter_map(|digest| pushed_at(Key::Manifest(*digest)))
                .max();
            let is_free = |digest: &&Digest| !needed.contains(*digest) && pushed_at(Key::Blob(**digest)) <= last;
            let blobs = freed.iter().filter(is_free).copied();
            Some(Wish {
                unsay: going
                    .iter()
                    .copied()
                    .map(Key::Manifest)
                    .chain(blobs.map(Key::Blob))
                    .collect(),
                is_kept: true,
                ..Wish::default()
            })
        };
        Ok(self.shared.say_if(repository, wish)?.is_some())
    }

    /// Forgets what was dropped, what was paid more than `age` ago, and all but the last `most` that were.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn forget_paid(&self, repository: &Repository, age: Duration, most: usize) -> Result<(), Error> {
        let oldest = stamp().saturating_sub(age.as_secs());
        let wish = |records: &Records| {
            // By what is remembered it is known that a manifest can go.
            let is_kept = |digest: &Digest| records.fact(repository, &Key::Manifest(*digest)).is_some();
            let paid: Vec<&Debt> = records
                .debts(repository)
                .filter(|debt| debt.is_settled() && !debt.pushed().is_some_and(is_kept))
                .collect();
            let many = paid.len().saturating_sub(most);
            let is_old = |debt: &Debt| match debt.state {
                State::Paid { at } | State::Undone { at } => at < oldest,
                _ => true,
            };
            let old = paid
                .iter()
                .enumerate()
                .filter(|(place, debt)| *place < many || is_old(debt));
            let unsay: Vec<Key> = old.map(|(_, debt)| Key::Debt(debt.number)).collect();
            (!unsay.is_empty()).then(|| Wish::to_unsay(unsay))
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Shows again what the parent has under names whose delete it carried out more than `age` ago: it is something new.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn unbury(&self, repository: &Repository, age: Duration) -> Result<(), Error> {
        let oldest = stamp().saturating_sub(age.as_secs());
        let wish = |records: &Records| {
            let carried_out = |debt: &Debt| match (&debt.what, &debt.state) {
                (What::Delete { name, .. }, State::Paid { at }) if *at < oldest => Some(name.clone()),
                _ => None,
            };
            let gone: HashSet<Reference> = records.debts(repository).filter_map(carried_out).collect();
            let is_gone = |name: &Reference, parent: Option<Digest>| {
                // A manifest took its tags with it.
                gone.contains(name) || parent.is_some_and(|parent| gone.contains(&Reference::Digest(parent)))
            };
            let buried = records.buried(repository).into_iter();
            let shown = buried.filter(|(name, parent)| is_gone(name, *parent));
            let unsay: Vec<Key> = shown.map(|(name, _)| Key::Buried(name)).collect();
            (!unsay.is_empty()).then(|| Wish::to_unsay(unsay))
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Room of all that is pushed by debts that are not paid, and of `more`, which is about to be, in bytes. Reads their
    /// manifests.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    pub async fn owed_room(&self, more: &[Digest]) -> Result<u64, Error> {
        let mut pushed: Vec<Digest> = {
            let records = self.shared.records.lock();
            let indebted = records.indebted();
            let debts = indebted.iter().flat_map(|repository| records.unpaid(repository));
            debts.filter_map(|debt| debt.pushed().copied()).collect()
        };
        pushed.sort_unstable();
        pushed.dedup();
        // What cannot be read now is not counted.
        let mut owed = self.closure(pushed.clone()).await?.unwrap_or_default();
        owed.extend(pushed);
        owed.extend(more);
        let ledger = self.shared.ledger.lock();
        let room = |digest: &Digest| ledger.entry(digest).map_or(0, |entry| entry.room);
        Ok(owed.iter().map(room).sum())
    }

    /// Everything that these manifests need, and the manifests among it that others need. `None` if one of them lies here and
    /// cannot be read.
    async fn closure(&self, mut manifests: Vec<Digest>) -> Result<Option<HashSet<Digest>>, Error> {
        let mut needed = HashSet::new();
        while let Some(digest) = manifests.pop() {
            let Some(held) = self.held(&Link::new(digest)).await? else {
                if self.is_on_record(&digest) {
                    return Ok(None);
                }
                continue;
            };
            let Ok(manifest) = Manifest::parse(held.bytes()) else {
                continue;
            };
            for child in manifest.children() {
                if needed.insert(child.digest) && crate::oci::media::is_manifest(&child.media_type) {
                    manifests.push(child.digest);
                }
            }
        }
        Ok(Some(needed))
    }
}
