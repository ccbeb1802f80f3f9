//! A tag, last of all; and what else changes at the parent under a name that others may have moved.

use super::config::Conflict;
use super::trouble::Trouble;
use super::{Queue, Seen};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};
use crate::parent::Parent;
use crate::store::{Confirmed, Debt, Named, Slot, What};

/// So many images may stand beside one of the parent's.
const NAMES: usize = 9;

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
            tracing::info!(%repository, %tag, %digest, "a tag that was moved again or deleted here is not delivered");
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
            let policy = match named.fixed {
                true => Conflict::ParentWins,
                false => self.shared.config.get().policy_of(repository).conflict,
            };
            self.shared.metrics.conflict(policy);
            tracing::warn!(
                %repository, %tag, here = %digest, there = %there, policy = policy.as_str(),
                "a tag that was pushed here was moved at the parent too"
            );
            match policy {
                Conflict::LastWriter => {}
                Conflict::ParentWins => return Ok(store.yield_tag(repository, tag, digest)?),
                Conflict::KeepBoth => name = self.free_name(parent, repository, tag, digest).await?,
            }
        }
        self.put_tag(parent, repository, &name, digest).await?;
        tracing::info!(%repository, tag = %name, %digest, "the parent has the tag");
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

    /// What ours is called where both are kept: a name that the parent gives to nothing else.
    async fn free_name(
        &self,
        parent: &Parent,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<Tag, Trouble> {
        for place in 1..=NAMES {
            let name = self.beside(tag, digest, place);
            let seen = self.look(parent, repository, &Reference::Tag(name.clone())).await?;
            if matches!(seen, Seen::Missing | Seen::Unknown) || seen == Seen::There(Some(*digest)) {
                return Ok(name);
            }
        }
        let last = self.beside(tag, digest, NAMES);
        Err(Trouble::Refused(format!(
            "{tag} was moved at {} too, and all names for ours up to {last} are taken there",
            parent.name()
        )))
    }

    /// The suffix of the settings, and from the second place on its number.
    fn beside(&self, tag: &Tag, digest: &Digest, place: usize) -> Tag {
        let suffix = self.shared.config.get().suffix.replace("{node}", &self.shared.node);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let mut suffix: String = suffix.chars().map(|c| if fits(c) { c } else { '-' }).collect();
        if place > 1 {
            suffix.push_str(&format!("-{place}"));
        }
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
