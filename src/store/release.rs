//! Letting go of what the parent has, or is not to have: it may be evicted, and after a while it is forgotten.

use std::collections::HashSet;
use std::time::Duration;

use super::debt::{Debt, State, What};
use super::fact::{Fact, Key, stamp};
use super::own::Wish;
use super::records::Records;
use super::{Error, Link, Store};
use crate::oci::{Digest, Manifest, Reference, Repository};

impl Store {
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
