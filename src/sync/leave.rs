//! What becomes of a tag that no rule selects any more: by the word of the rules that did, as it was said then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Shared;
use super::closure::Want;
use super::config::Rule;
use super::selection::Wanted;
use crate::oci::{Digest, Reference, Repository, Tag};
use crate::store::{Kept, Purge, Slot, Store};
use crate::units::{Moment, Span, written_as_text};

/// Of what was there before, so much may go at once: one in so many, and always as many as [`FEW`]. Whoever seems to have lost more
/// than that, a parent or a file, has more likely lost its head.
const MOST_GONE: usize = 2;
const FEW: usize = 10;

/// Whether so many of all are more than may go at once.
pub(super) fn is_too_much(gone: usize, all: usize) -> bool {
    gone > FEW && gone * MOST_GONE > all
}

/// What becomes of what leaves a selection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Leaving {
    /// It goes after so long, and with it what nothing else needs.
    Purge(Span),
    /// It stays, as if it had been pulled.
    Keep,
}

/// Why a text says neither. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is none of keep, purge and a span of time after which it is purged, like 30d")]
pub struct LeavingError(String);

impl FromStr for Leaving {
    type Err = LeavingError;

    fn from_str(text: &str) -> Result<Self, LeavingError> {
        match text {
            "keep" => Ok(Self::Keep),
            "purge" => Ok(Self::Purge(Span::default())),
            span => span.parse().map(Self::Purge).map_err(|_| LeavingError(text.to_owned())),
        }
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Purge(after) if *after == Span::default() => f.write_str("purge"),
            Self::Purge(after) => after.fmt(f),
        }
    }
}

written_as_text!(Leaving);

/// What is or was selected, as it is on record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Line {
    name: String,
    /// A tag, or a digest.
    #[serde(rename = "tag")]
    reference: String,
    leaving: Leaving,
    /// Since when it is not any more: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

/// All that is selected, and what was and has not gone yet.
#[derive(Clone, Default)]
pub(super) struct Selected(BTreeMap<Key, (Leaving, Option<u64>)>);

/// A repository as clients write it, and a tag or a digest there.
pub(super) type Key = (String, Reference);

impl Selected {
    /// As it was written down last. Blocks.
    pub(super) fn read(store: &Store) -> Self {
        let lines = store.kept(Kept::Selected).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was selected before is not known: none of it is purged");
            Vec::new()
        });
        let read = |line: &String| {
            let line: Line = serde_json::from_str(line).ok()?;
            Some(((line.name, line.reference.parse().ok()?), (line.leaving, line.left)))
        };
        Self(lines.iter().filter_map(read).collect())
    }

    fn lines(&self) -> Vec<String> {
        let line = |((name, reference), (leaving, left)): (&Key, &(Leaving, Option<u64>))| {
            let line = Line {
                name: name.clone(),
                reference: reference.to_string(),
                leaving: *leaving,
                left: *left,
            };
            serde_json::to_string(&line).expect("strings and numbers are JSON")
        };
        self.0.iter().map(line).collect()
    }

    /// Whether nothing is, or was.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From now on these are selected, whatever else.
    fn also(&mut self, selected: BTreeMap<Key, Leaving>) {
        self.0
            .extend(selected.into_iter().map(|(key, leaving)| (key, (leaving, None))));
    }

    /// From now on these are selected and nothing else; those that have to go, as they have been no longer for long enough.
    fn now(&mut self, selected: BTreeMap<Key, Leaving>, now: u64) -> Vec<Key> {
        for (key, (_, left)) in &mut self.0 {
            if !selected.contains_key(key) {
                left.get_or_insert(now);
            }
        }
        self.also(selected);
        let is_due = |(leaving, left): &(Leaving, Option<u64>)| match (leaving, left) {
            (Leaving::Purge(after), Some(left)) => now >= left.saturating_add(after.duration().as_secs()),
            _ => false,
        };
        let gone: Vec<Key> = self
            .0
            .iter()
            .filter(|(_, state)| is_due(state))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.0.remove(key);
        }
        // What stays for good need not be remembered.
        self.0
            .retain(|_, (leaving, left)| !(*leaving == Leaving::Keep && left.is_some()));
        gone
    }
}

impl Shared {
    /// What becomes of what these rules select, once none does.
    pub(super) fn leaving_of(&self, wanted: &Wanted, takers: &[usize], rules: &[Rule]) -> Option<(Key, Leaving)> {
        let said = takers.iter().map(|place| rules[*place].leaving.unwrap_or(self.leaving));
        let name = self.names.spell(&wanted.repository);
        Some(((name, wanted.reference.clone()), said.max()?))
    }

    /// What was selected by the last look that was well, and since.
    pub(super) fn remembered(&self) -> Vec<(Repository, Reference)> {
        let selected = self.selected.lock();
        let still = selected.0.iter().filter(|(_, (_, left))| left.is_none());
        let meant = |(name, reference): &Key| Some((self.names.meant(name)?, reference.clone()));
        still.filter_map(|(key, _)| meant(key)).collect()
    }

    /// After a look at everything: what is selected is remembered. If all was well, what is so no longer goes when it is time, with
    /// what nothing else here needs; how many tags and digests.
    pub(super) async fn let_go(&self, selected: BTreeMap<Key, Leaving>, is_well: bool) -> u64 {
        let now = Moment::from(self.clock.wall()).seconds();
        let (gone, before, after) = {
            let mut known = self.selected.lock();
            let before = known.lines();
            let gone = match is_well {
                true => known.now(selected, now),
                false => {
                    known.also(selected);
                    Vec::new()
                }
            };
            (gone, before, known.lines())
        };
        let gone = self.parents_of(gone);
        let theirs = self.only_theirs(&gone).await;
        for (repository, reference) in &gone {
            let name = self.names.spell(repository);
            tracing::info!(repository = name, %reference, "no rule selects this any more: it is purged");
            if let Reference::Tag(tag) = reference {
                self.fetch.hide(repository, tag);
            }
        }
        let store = self.store.clone();
        let is_changed = before != after;
        let purging = tokio::task::spawn_blocking(move || {
            let freed = theirs.iter().map(|theirs| store.purge(theirs));
            let freed = freed.fold(0, u64::saturating_add);
            let written = match is_changed {
                true => store.keep(Kept::Selected, &after),
                false => Ok(()),
            };
            (freed, written)
        });
        if let Ok((freed, written)) = purging.await {
            if freed > 0 {
                tracing::info!(bytes = freed, "what was purged has left the disk");
            }
            if let Err(error) = written {
                tracing::warn!(%error, "what is selected could not be written down; it is with the next change");
            }
        }
        gone.len() as u64
    }

    /// What would go, if these were selected and nothing else.
    pub(super) fn would_leave(&self, selected: BTreeMap<Key, Leaving>) -> Vec<(Repository, Reference)> {
        let now = Moment::from(self.clock.wall()).seconds();
        let gone = self.selected.lock().clone().now(selected, now);
        self.parents_of(gone)
    }

    /// Those of them that are here because the parent has them.
    fn parents_of(&self, named: Vec<Key>) -> Vec<(Repository, Reference)> {
        let meant = |(name, reference): Key| Some((self.names.meant(&name)?, reference));
        let meant = named.into_iter().filter_map(meant);
        let is_parents = |(repository, reference): &(Repository, Reference)| match reference {
            Reference::Tag(tag) => self.is_parents(repository, tag),
            Reference::Digest(digest) => self.store.linked(repository, digest).is_some(),
        };
        meant.filter(is_parents).collect()
    }

    /// What lies in repositories for these alone: for no other tag there, nor for anything that was pulled by its digest. Of a
    /// repository that cannot be read now: nothing.
    pub(super) async fn only_theirs(&self, gone: &[(Repository, Reference)]) -> Vec<Purge> {
        let mut by_repository: HashMap<&Repository, HashSet<&Reference>> = HashMap::new();
        for (repository, reference) in gone {
            by_repository.entry(repository).or_default().insert(reference);
        }
        let (mut theirs, rules) = (Vec::new(), self.rules());
        for (repository, gone) in by_repository {
            let (mut going, mut staying) = (Vec::new(), Vec::new());
            let mut tags = Vec::new();
            for tag in self.store.tags(repository) {
                let Ok(tag) = tag.parse::<Tag>() else { continue };
                let Some(row) = self.store.tag(repository, &Slot::Tag(tag.clone())) else {
                    continue;
                };
                match gone.contains(&Reference::Tag(tag.clone())) {
                    true => going.push(row.digest),
                    false => {
                        staying.push(row.digest);
                        tags.push((tag, row.digest));
                    }
                }
            }
            going.extend(gone.iter().filter_map(|reference| match reference {
                Reference::Digest(digest) => Some(*digest),
                Reference::Tag(_) => None,
            }));
            let name = self.names.spell(repository);
            let is_whole = tags.is_empty() && !rules.iter().any(|rule| rule.has(&name));
            let here = self.store.linked_in(repository);
            let digests = match is_whole {
                // Nobody has anything there any more.
                true => here.into_iter().map(|(digest, _)| digest).collect(),
                false => {
                    let Some(mut digests) = self.needed_by(repository, &going).await else {
                        continue;
                    };
                    staying.extend(rules.iter().flat_map(|rule| rule.digests_of(&name)));
                    let others = here
                        .into_iter()
                        .filter(|(digest, is_manifest)| *is_manifest && !digests.contains(digest));
                    staying.extend(others.map(|(digest, _)| digest));
                    let Some(needed) = self.needed_by(repository, &staying).await else {
                        continue;
                    };
                    digests.retain(|digest| !needed.contains(digest));
                    digests
                }
            };
            theirs.push(Purge {
                repository: repository.clone(),
                digests,
                staying: tags,
            });
        }
        theirs
    }

    /// All that these manifests need, as far as what lies here tells. `None`: one of them lies here and cannot be read now.
    async fn needed_by(&self, repository: &Repository, manifests: &[Digest]) -> Option<HashSet<Digest>> {
        let mut needed = HashSet::new();
        for digest in manifests {
            let closure = self.closure(repository, digest, &Want::everything(), None).await.ok()?;
            let is_unread = |digest: &Digest| {
                let is_shunned = self.store.is_on_record(digest) && !self.store.holds(digest);
                is_shunned || self.store.linked(repository, digest).is_some()
            };
            if closure.missing.iter().any(|(digest, _)| is_unread(digest)) {
                return None;
            }
            needed.extend(closure.items.into_keys());
        }
        Some(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tags: &[(&str, &str)]) -> BTreeMap<Key, Leaving> {
        let one = |(tag, leaving): &(&str, &str)| (("a".to_owned(), tag.parse().unwrap()), leaving.parse().unwrap());
        tags.iter().map(one).collect()
    }

    fn gone(known: &mut Selected, tags: &[(&str, &str)], now: u64) -> Vec<String> {
        let gone = known.now(of(tags), now);
        gone.into_iter().map(|(_, reference)| reference.to_string()).collect()
    }

    #[test]
    fn what_leaves_goes_at_once_later_or_never_as_the_rule_said_that_selected_it() {
        let mut known = Selected::default();
        let all = [("now", "purge"), ("later", "1d"), ("never", "keep"), ("stays", "purge")];
        assert!(gone(&mut known, &all, 1000).is_empty());

        assert_eq!(gone(&mut known, &all[3..], 2000), ["now"]);
        assert!(gone(&mut known, &all[3..], 2000 + 86_399).is_empty());
        assert_eq!(gone(&mut known, &all[3..], 2000 + 86_400), ["later"]);
        assert_eq!(known.0.len(), 1);
    }

    #[test]
    fn what_comes_back_in_time_does_not_go() {
        let mut known = Selected::default();
        gone(&mut known, &[("v1", "1d")], 0);
        gone(&mut known, &[], 1000);
        gone(&mut known, &[("v1", "1d")], 2000);

        assert!(gone(&mut known, &[], 86_500).is_empty());
        assert_eq!(gone(&mut known, &[], 86_500 + 86_400), ["v1"]);
    }

    #[test]
    fn a_look_that_was_not_well_remembers_more_and_lets_nothing_go() {
        let mut known = Selected::default();
        gone(&mut known, &[("v1", "purge")], 0);

        known.also(of(&[("v2", "purge")]));

        assert_eq!(known.0.len(), 2);
        assert_eq!(gone(&mut known, &[("v2", "purge")], 10), ["v1"]);
    }

    #[test]
    fn the_word_reads_back_and_anything_else_is_refused() {
        for text in ["keep", "purge", "30d"] {
            assert_eq!(text.parse::<Leaving>().unwrap().to_string(), text);
        }
        assert!("drop".parse::<Leaving>().unwrap_err().to_string().contains("like 30d"));
    }
}
