//! The parent's word that this node may have a repository, and how long it counts: `freshness.access_ttl`.
//!
//! Without that setting what lies here is served by digest whatever the parent says by now. With it, each answer of the
//! parent to a question for content of a repository is its word on that: content says yes, 403 says no, and 404 for content
//! that it once gave takes that content back. A yes is asked for again once it is as old as a tag may be, and counts for
//! `access_ttl` while the parent cannot be asked; a no counts until there is a yes. What was pushed here needs no word.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::flight::Kind;
use super::{Asker, Error, Fetch, Shared};
use crate::oci::{Digest, Reference, Registry, Repository};
use crate::parent::{self, Answer, Ask, Parent};
use crate::store::{Kept, Store};
use crate::units::Span;

/// How much older than what is in memory a word on the disk may be, in parts of the time that it counts.
const PARTS: u32 = 20;

/// How long words gather before they are written down. That somebody is refused is written at once.
const GATHER: Duration = Duration::from_secs(10);

/// What the parent said last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Word {
    is_yes: bool,
    /// Seconds since 1970.
    at: u64,
}

/// All words, for as long as they count.
pub(super) struct Words {
    ttl: Span,
    said: Mutex<Said>,
    /// One writes at a time.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Said {
    words: HashMap<Repository, Word>,
    /// As they are on the disk.
    written: HashMap<Repository, Word>,
    /// Somebody will write them.
    is_due: bool,
}

/// One, as it is kept.
#[derive(Deserialize, Serialize)]
struct Line {
    registry: String,
    name: String,
    yes: bool,
    at: u64,
}

impl Words {
    /// Those that were kept, where words count for `ttl`.
    pub(super) fn load(store: &Store, ttl: Span) -> Self {
        let lines = store.kept(Kept::Words).unwrap_or_else(|error| {
            tracing::error!(%error, "what the parent said of repositories cannot be read; it is asked again");
            Vec::new()
        });
        let words: HashMap<_, _> = lines.iter().filter_map(|line| read(line)).collect();
        let said = Said {
            written: words.clone(),
            words,
            is_due: false,
        };
        Self {
            ttl,
            said: Mutex::new(said),
            writing: Mutex::default(),
        }
    }

    fn of(&self, repository: &Repository) -> Option<Word> {
        self.said.lock().words.get(repository).copied()
    }

    /// Remembers a word; in how long all are to be written down, if they are.
    fn hear(&self, repository: &Repository, word: Word) -> Option<Duration> {
        let mut said = self.said.lock();
        let before = said.words.insert(repository.clone(), word);
        let is_known = said.written.get(repository).is_some_and(|written| {
            let newer = Duration::from_secs(word.at.saturating_sub(written.at));
            written.is_yes == word.is_yes && newer < self.ttl.duration() / PARTS
        });
        if is_known {
            return None;
        }
        if !word.is_yes && before.is_none_or(|before| before.is_yes) {
            return Some(Duration::ZERO);
        }
        (!std::mem::replace(&mut said.is_due, true)).then_some(GATHER)
    }

    /// Writes all down. Blocks.
    fn write(&self, store: &Store, now: u64) {
        let _turn = self.writing.lock();
        let words = {
            let mut said = self.said.lock();
            said.is_due = false;
            // A no counts for as long as something of it lies here.
            let (ttl, here) = (self.ttl.duration().as_secs(), store.repositories());
            said.words
                .retain(|repository, word| now.saturating_sub(word.at) < ttl || here.contains(repository));
            said.words.clone()
        };
        let mut lines: Vec<String> = words
            .iter()
            .map(|(repository, word)| written(repository, *word))
            .collect();
        lines.sort_unstable();
        match store.keep(Kept::Words, &lines) {
            Ok(()) => self.said.lock().written = words,
            Err(error) => {
                tracing::warn!(%error, "what the parent said of repositories is not on the disk; it is tried again with its next word");
            }
        }
    }
}

fn read(line: &str) -> Option<(Repository, Word)> {
    let Line {
        registry,
        name,
        yes: is_yes,
        at,
    } = serde_json::from_str(line).ok()?;
    let registry = match registry.as_str() {
        "" => Registry::own(),
        named => named.parse().ok()?,
    };
    let name = name.parse().ok()?;
    Some((Repository { registry, name }, Word { is_yes, at }))
}

fn written(repository: &Repository, word: Word) -> String {
    let line = Line {
        registry: repository.registry.as_str().to_owned(),
        name: repository.name.as_str().to_owned(),
        yes: word.is_yes,
        at: word.at,
    };
    serde_json::to_string(&line).expect("texts and numbers are JSON")
}

impl Fetch {
    /// Whether content that lies here may become another repository's without asking the parent.
    pub fn may_lend(&self, repository: &Repository, digest: &Digest) -> bool {
        let shared = &self.shared;
        shared.is_free(repository, digest) || shared.counts(repository)
    }
}

impl Shared {
    /// The parent's answer to a question for content; what it says of the repository is remembered.
    pub(super) async fn put_to(self: &Arc<Self>, parent: &Parent, ask: Ask<'_>) -> Result<Answer, parent::Error> {
        let repository = ask.repository;
        let outcome = parent.ask(ask).await;
        let is_yes = match &outcome {
            Ok(_) => true,
            Err(error) if error.is_forbidden() => false,
            Err(_) => return outcome,
        };
        self.hear(repository, is_yes);
        outcome
    }

    fn hear(self: &Arc<Self>, repository: &Repository, is_yes: bool) {
        let Some(words) = &self.words else { return };
        // Of what there never was anything here, it need not be remembered that it is refused.
        if !is_yes && !self.store.knows(repository) {
            return;
        }
        let at = self.seconds();
        if let Some(wait) = words.hear(repository, Word { is_yes, at }) {
            let shared = self.clone();
            self.runtime.spawn(async move {
                tokio::time::sleep(wait).await;
                let write = move || {
                    let words = shared.words.as_ref();
                    words.map(|words| words.write(&shared.store, shared.seconds()))
                };
                let _ = tokio::task::spawn_blocking(write).await;
            });
        }
    }

    fn seconds(&self) -> u64 {
        let since = self.clock.wall().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }

    /// Whether the parent said yes within `span`.
    fn is_vouched(&self, words: &Words, repository: &Repository, span: Duration) -> bool {
        let word = words.of(repository).filter(|word| word.is_yes);
        word.is_some_and(|word| Duration::from_secs(self.seconds().saturating_sub(word.at)) < span)
    }

    /// Whether the parent need not be asked.
    pub(super) fn is_vouched_lately(&self, repository: &Repository) -> bool {
        let Some(words) = &self.words else { return true };
        self.parent(repository).is_err() || self.is_vouched(words, repository, self.config.tag_ttl)
    }

    /// Whether the parent's last word counts, if it cannot be asked.
    fn counts(&self, repository: &Repository) -> bool {
        let Some(words) = &self.words else { return true };
        self.parent(repository).is_err() || self.is_vouched(words, repository, words.ttl.duration())
    }

    /// Whether this is served without anybody's word.
    fn is_free(&self, repository: &Repository, digest: &Digest) -> bool {
        self.words.is_none() || self.is_pushed_content(repository, digest)
    }

    fn is_pushed_content(&self, repository: &Repository, digest: &Digest) -> bool {
        let store = &self.store;
        self.pushed_to(repository).is_some()
            && (store.was_pushed(repository, &Reference::Digest(*digest)) || store.has_blob(repository, digest))
    }

    /// Refuses what lies here and the parent takes back, or has not vouched for in too long a time.
    pub(super) async fn vouch(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<(), Error> {
        if self.is_vouched_lately(repository)
            || self.is_free(repository, digest)
            || self.store.linked(repository, digest).is_none()
        {
            return Ok(());
        }
        let parent = self.parent(repository)?;
        let asked = match parent.away() {
            Some(error) => Err(error.into()),
            None => {
                let asked = self.confirm(repository, digest, kind, asker);
                self.within(self.config.stale_after, repository, asker, asked).await
            }
        };
        match asked {
            Ok(_) => Ok(()),
            Err(error) => self.or_old_word(repository, error),
        }
    }

    /// `error` if it takes the repository, or what was asked for, back, or says only that the parent cannot tell, and its
    /// old word does not count any more.
    pub(super) fn or_old_word(&self, repository: &Repository, error: Error) -> Result<(), Error> {
        let Some(words) = &self.words else { return Ok(()) };
        let is_final = match &error {
            Error::Parent(error) => error.is_forbidden(),
            Error::Unvouched { .. } => true,
            error => !error.allows_stale(),
        };
        if is_final {
            return Err(error);
        }
        if self.counts(repository) {
            return Ok(());
        }
        let layer = self.layer(repository);
        Err(match words.of(repository) {
            Some(Word { is_yes: false, .. }) => Error::Absent { layer },
            _ => Error::Unvouched {
                layer,
                ttl: words.ttl,
                reason: error.to_string(),
            },
        })
    }

    /// Content that the parent has no more for this repository is not this repository's.
    pub(super) fn take_back(&self, repository: &Repository, digest: &Digest) {
        if self.words.is_some() && !self.is_pushed_content(repository, digest) {
            self.store.unlink(repository, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_back_as_it_was_written_and_anything_else_is_none() {
        let name = "plant/app".parse().unwrap();
        let registry = "quay.io".parse().unwrap();
        for registry in [Registry::own(), registry] {
            for is_yes in [true, false] {
                let repository = Repository {
                    registry: registry.clone(),
                    name: Clone::clone(&name),
                };
                let word = Word {
                    is_yes,
                    at: 1_800_000_000,
                };
                assert_eq!(read(&written(&repository, word)), Some((repository, word)));
            }
        }
        for line in ["", "{}", r#"{"registry":"","name":"A","yes":true,"at":1}"#] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
