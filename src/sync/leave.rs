//! What becomes of a tag that no rule selects any more: by the word of the rules that did, as it was said then.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Shared;
use crate::oci::Tag;
use crate::store::{Kept, Store};
use crate::units::{Moment, Span, written_as_text};

/// What becomes of what leaves a selection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Leaving {
    /// Its tag goes after so long; its content makes way for other.
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

/// A tag that is or was selected, as it is on record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Line {
    name: String,
    tag: Tag,
    leaving: Leaving,
    /// Since when it is not any more: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

/// All tags that are selected, and those that were and have not gone yet.
#[derive(Default)]
pub(super) struct Selected(BTreeMap<(String, Tag), (Leaving, Option<u64>)>);

impl Selected {
    /// As it was written down last. Blocks.
    pub(super) fn read(store: &Store) -> Self {
        let lines = store.kept(Kept::Selected).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was selected before is not known: none of it is purged");
            Vec::new()
        });
        let read = lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Self(
            read.map(|line| ((line.name, line.tag), (line.leaving, line.left)))
                .collect(),
        )
    }

    fn lines(&self) -> Vec<String> {
        let line = |((name, tag), (leaving, left)): (&(String, Tag), &(Leaving, Option<u64>))| {
            let line = Line {
                name: name.clone(),
                tag: tag.clone(),
                leaving: *leaving,
                left: *left,
            };
            serde_json::to_string(&line).expect("strings and numbers are JSON")
        };
        self.0.iter().map(line).collect()
    }

    /// From now on these are selected; those that have to go, as they have been no longer for long enough.
    fn now(&mut self, selected: BTreeMap<(String, Tag), Leaving>, now: u64) -> Vec<(String, Tag)> {
        for (key, (_, left)) in &mut self.0 {
            if !selected.contains_key(key) {
                left.get_or_insert(now);
            }
        }
        for (key, leaving) in selected {
            self.0.insert(key, (leaving, None));
        }
        let is_due = |(leaving, left): &(Leaving, Option<u64>)| match (leaving, left) {
            (Leaving::Purge(after), Some(left)) => now >= left.saturating_add(after.duration().as_secs()),
            _ => false,
        };
        let gone: Vec<(String, Tag)> = self
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
    /// After a look at everything: what is not selected any more goes when it is time; how many tags.
    pub(super) async fn let_go(&self, selected: BTreeMap<(String, Tag), Leaving>) -> u64 {
        let now = Moment::from(self.clock.wall()).seconds();
        let (gone, before, after) = {
            let mut known = self.selected.lock();
            let before = known.lines();
            let gone = known.now(selected, now);
            (gone, before, known.lines())
        };
        let mut purged = 0;
        for (name, tag) in &gone {
            if let Some(repository) = self
                .names
                .meant(name)
                .filter(|repository| self.is_parents(repository, tag))
            {
                tracing::info!(repository = name, %tag, "no rule selects this tag any more: it is purged");
                self.fetch.hide(&repository, tag);
                purged += 1;
            }
        }
        if before != after {
            let store = self.store.clone();
            let writing = tokio::task::spawn_blocking(move || store.keep(Kept::Selected, &after));
            if let Ok(Err(error)) = writing.await {
                tracing::warn!(%error, "what is selected could not be written down; it is with the next change");
            }
        }
        purged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tags: &[(&str, &str)]) -> BTreeMap<(String, Tag), Leaving> {
        let one = |(tag, leaving): &(&str, &str)| (("a".to_owned(), tag.parse().unwrap()), leaving.parse().unwrap());
        tags.iter().map(one).collect()
    }

    fn gone(known: &mut Selected, tags: &[(&str, &str)], now: u64) -> Vec<String> {
        let gone = known.now(of(tags), now);
        gone.into_iter().map(|(_, tag)| tag.to_string()).collect()
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
    fn the_word_reads_back_and_anything_else_is_refused() {
        for text in ["keep", "purge", "30d"] {
            assert_eq!(text.parse::<Leaving>().unwrap().to_string(), text);
        }
        assert!("drop".parse::<Leaving>().unwrap_err().to_string().contains("like 30d"));
    }
}
