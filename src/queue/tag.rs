//! A tag, last of all; and what else changes at the parent under a name that others may have moved.

use super::config::Conflict;
use super::trouble::Trouble;
use super::{Queue, Seen};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};
use crate::parent::Parent;
use crate::store::{Confirmed, Debt, Named, Slot, What};

impl Queue {
    /// Has a tag of the parent mean what it means here, if nobody else moved it; else by the policy.
    pub(super) async fn send_tag(
        &self,
        parent: &Parent,
        repository: &Repository,
        debt: &Debt,
        digest: &Digest,
        named: &Named,
    ) -> Result<(), Trouble> {
        let store = &self.shared.store;
        let tag = &named.tag;
        let row = store.tag(repository, &Slot::Tag(tag.clone()));
        // It was moved here since, or deleted: what came later is sent later.
        if row.is_none_or(|row| row.digest != *digest) {
            return Ok(());
        }
        let reference = Reference::Tag(tag.clone());
        let asked = self.shared.clock.now();
        let there = match self.look(parent, repository, &reference).await? {
            Seen::There(there) => there,
            Seen::Missing | Seen::Unknown => None,
        };
        if there == Some(*digest) {
            self.agree(repository, tag, digest, asked);
            return Ok(());
        }
        let mut name = tag.clone();
        if let Some(there) = there
            && !self.is_ours(repository, debt.number, tag, named.was, &there)
        {
            let policy = self.shared.config.policy_of(repository).conflict;
            self.shared.metrics.conflict(policy);
            tracing::warn!(
                %repository, %tag, here = %digest, there = %there, policy = policy.as_str(),
                "a tag that was pushed here was moved at the parent too"
            );
            match policy {
                Conflict::LastWriter => {}
                Conflict::ParentWins => return Ok(store.yield_tag(repository, tag, digest)?),
                Conflict::KeepBoth => name = self.beside(tag, digest),
            }
        }
        self.put_tag(parent, repository, &name, digest).await?;
        if name == *tag {
            self.agree(repository, tag, digest, asked);
            return Ok(());
        }
        // Not before ours is there: what is not the meaning of a tag here is not sent.
        Ok(store.yield_tag(repository, tag, digest)?)
    }

    async fn put_tag(
        &self,
        parent: &Parent,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), Trouble> {
        let reference = Reference::Tag(tag.clone());
        let held = self.shared.store.manifest_of(repository, digest).await?;
        let held = held.ok_or_else(|| self.lost(digest))?;
        let manifest = Manifest::parse(held.bytes())
            .map_err(|error| Trouble::Refused(format!("{digest} is no manifest: {error}")))?;
        let put = self.put(parent, repository, &reference, &held, &manifest).await;
        put.map_err(|trouble| match trouble {
            // The manifest itself it took: it minds this name.
            Trouble::Denied(words) => Trouble::Refused(words),
            trouble => trouble,
        })?;
        match self.has_manifest(parent, repository, &reference, digest).await? {
            true => Ok(()),
            false => Err(self.not_kept(parent, &reference)),
        }
    }

    fn agree(&self, repository: &Repository, tag: &Tag, digest: &Digest, asked: std::time::Instant) {
        let confirmed = Confirmed {
            at: asked,
            age: std::time::Duration::ZERO,
        };
        self.shared.store.agree(repository, tag, digest, confirmed);
    }

    /// Whether what the parent has under a tag is what it had when ours was pushed, or what we put there since.
    pub(super) fn is_ours(
        &self,
        repository: &Repository,
        number: u64,
        tag: &Tag,
        was: Option<Digest>,
        there: &Digest,
    ) -> bool {
        if was == Some(*there) {
            return true;
        }
        let debts = self.shared.store.debts(repository);
        debts.iter().any(|other| {
            // What it had when an earlier of ours was pushed, or what that put there.
            let is_known = |other: &Named| other.tag == *tag && other.was == Some(*there);
            let put = other.pushed() == Some(there) && other.tags().iter().any(|other| other.tag == *tag);
            let deleted = matches!(
                &other.what,
                What::Delete { name: Reference::Tag(deleted), was, .. } if deleted == tag && *was == Some(*there)
            );
            other.number < number && (put || deleted || other.tags().iter().any(is_known))
        })
    }

    /// What ours is called where both are kept.
    fn beside(&self, tag: &Tag, digest: &Digest) -> Tag {
        let suffix = self.shared.config.suffix.replace("{node}", &self.shared.node);
        let suffix: String = suffix
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        /// A tag is no longer (distribution spec, "Pulling manifests").
        const LONGEST: usize = 128;
        let room = LONGEST.saturating_sub(suffix.len());
        let stem: String = tag.as_str().chars().take(room.max(1)).collect();
        // A suffix that is no end of a tag was refused with the settings.
        format!("{stem}{suffix}")
            .parse()
            .unwrap_or_else(|_| digest.hex()[..32].parse().expect("hexadecimal digits are a tag"))
    }
}
