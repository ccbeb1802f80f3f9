//! What a pass would do, said and not done.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::Shared;
use super::closure::{Want, sum};
use super::pass::{Miss, Spread};
use super::selection::{Selection, Wanted};
use super::state::Scope;
use crate::oci::{Digest, Reference, Repository};
use crate::parent::Class;

/// What a pass would do.
#[derive(Debug, Default, Serialize)]
pub struct Planned {
    /// Tags that would be fetched, or moved.
    pub fetch: Vec<PlannedTag>,
    /// Tags that would be taken away.
    pub drop: Vec<PlannedDrop>,
    /// Tags of which all is here.
    pub unchanged: u64,
    /// Bytes that would be fetched, each blob once.
    pub bytes: u64,
    /// Bytes that would leave the disk at once, each blob once.
    pub drop_bytes: u64,
    /// What could not be looked at.
    pub errors: Vec<String>,
}

/// A tag that would be fetched.
#[derive(Debug, Serialize)]
pub struct PlannedTag {
    /// As clients write it.
    pub name: String,
    /// What it names at the parent.
    pub digest: Digest,
    /// Blobs that are missing.
    pub blobs: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// A tag that would be taken away.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PlannedDrop {
    /// As clients write it.
    pub name: String,
    /// Why.
    pub why: Why,
    /// Bytes that lie here of it, also for others.
    pub bytes: u64,
}

/// Why a tag would be taken away.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The parent has it no longer. Its content makes way for other.
    Gone,
    /// No rule selects it any more, or has for long enough. Its content goes at once.
    Unselected,
}

impl Shared {
    /// What a pass over what `scope` names would do.
    pub(super) async fn planned(self: &Arc<Self>, scope: &Scope) -> Planned {
        let rules = self.rules();
        let Selection {
            wanted,
            mut gone,
            troubles,
            ..
        } = self.select(&rules, scope, Class::Manual).await;
        let mut planned = Planned {
            errors: troubles,
            ..Planned::default()
        };
        let mut looks = Spread::over(&wanted);
        let work = |wanted: Arc<Wanted>| {
            let (shared, rules) = (Arc::clone(self), Arc::clone(&rules));
            async move { shared.look(&wanted, &rules).await }
        };
        let (mut counted, mut kept, mut selected) = (HashSet::new(), HashSet::new(), BTreeMap::new());
        while let Some((wanted, seen)) = looks.next(work).await {
            let takers = seen.as_ref().map_or(&wanted.rules, |look| &look.sifted.rules);
            selected.extend(self.leaving_of(&wanted, takers, &rules));
            let look = match seen {
                Ok(look) if look.sifted.rules.is_empty() && !wanted.is_named => continue,
                Ok(look) => look,
                Err(Miss::Gone) => {
                    gone.extend(wanted.tag().map(|tag| (wanted.repository.clone(), tag.clone())));
                    continue;
                }
                Err(Miss::Failed(why)) => {
                    planned.errors.push(format!("{}: {why}", self.name_of(&wanted)));
                    continue;
                }
            };
            let closure = &look.sifted.closure;
            kept.extend(closure.items.keys());
            if self.named_here(&wanted.repository, &wanted.reference) == Some(look.digest) && closure.missing.is_empty()
            {
                planned.unchanged += 1;
                continue;
            }
            let new = closure.missing.iter().filter(|(digest, _)| counted.insert(*digest));
            planned.bytes = planned.bytes.saturating_add(sum(new.map(|(_, bytes)| bytes)));
            planned.fetch.push(PlannedTag {
                name: self.name_of(&wanted),
                digest: look.digest,
                blobs: closure.missing.len(),
                bytes: closure.missing_bytes(),
            });
        }
        gone.retain(|(repository, tag)| self.is_parents(repository, tag));
        if let Err(why) = self.is_little(&wanted, &gone)
            && !scope.is_ordered()
        {
            planned.errors.push(why);
            gone.clear();
        }
        let left = match scope.is_whole() && planned.errors.is_empty() {
            true => self.would_leave(selected),
            false => Vec::new(),
        };
        planned.drop_bytes = self.store.would_purge(&self.only_theirs(&left).await, &kept);
        let left = left.into_iter().map(|left| (left, Why::Unselected));
        let gone = gone
            .into_iter()
            .map(|(repository, tag)| ((repository, Reference::Tag(tag)), Why::Gone));
        for ((repository, reference), why) in left.chain(gone).collect::<BTreeMap<_, _>>() {
            planned
                .drop
                .extend(self.planned_drop(&repository, &reference, why).await);
        }
        planned.drop.sort();
        planned
    }

    async fn planned_drop(&self, repository: &Repository, reference: &Reference, why: Why) -> Option<PlannedDrop> {
        let digest = self.named_here(repository, reference)?;
        let closure = self.closure(repository, &digest, &Want::everything(), None).await;
        let bytes = closure.map_or(0, |closure| closure.bytes().saturating_sub(closure.missing_bytes()));
        let name = self.written(repository, reference);
        Some(PlannedDrop { name, why, bytes })
    }
}
