//! The parent's word that this node may have a repository, and how long it counts: `freshness.access_ttl`.
//!
//! Without that setting what lies here is served by digest whatever the parent says by now. With it, an answer that the
//! parent vouches for itself is a yes, and so is a push that it took; that it forbids the repository to somebody whom it
//! lets in is a no, which only content lifts. Anything else, and so 404 for one thing, says nothing of a repository. A yes is asked for again once it is
//! as old as a tag may be, and counts for `access_ttl` if none comes; a no counts until there is a yes. What was pushed here
//! and is owed needs no word.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::FutureExt;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::asker::late;
use super::flight::Kind;
use super::{Asker, Error, Fetch, Shared};
use crate::oci::{Digest, Reference, Registry, Repository};
use crate::parent::{self, Answer, Ask, Parent};
use crate::store::{Kept, Store};
use crate::units::{Clock, Span, is_plausible};

/// How much older than what is in memory a word on the disk may be, in parts of the time that it counts.
const PARTS: u32 = 20;

/// How long words gather before they are written down, and how long it is waited after a disk that took none. That
/// somebody is refused is on the disk before it is answered, unless that takes too long.
const GATHER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_secs(5);

/// What the parent said last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Word {
    is_yes: bool,
    /// When, in seconds since 1970: for the disk.
    at: u64,
    /// From here on it is counted how old it is.
    since: Instant,
    /// How old it was then; `None`: this process heard it itself.
    before: Option<Duration>,
}

impl Word {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since) + self.before.unwrap_or_default()
    }
}

/// All words, for as long as they count.
pub(super) struct Words {
    ttl: Span,
    said: RwLock<Said>,
    /// One writes at a time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Said {
    words: HashMap<Repository, Word>,
    /// As they are on the disk.
    kept: HashMap<Repository, Word>,
    /// Counts what is to be written, and what of it is.
    heard: u64,
    written: u64,
    /// Somebody will write, some time from now.
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

/// How soon a word is to be on the disk.
#[derive(Debug, Eq, PartialEq)]
enum Haste {
    None,
    /// Within [`GATHER`].
    Some,
    /// Before it is answered.
    Most,
}

impl Words {
    /// Those that were kept, where words count for `ttl`.
    pub(super) fn load(store: &Store, ttl: Span, clock: &Clock) -> Self {
        let lines = store.kept(Kept::Words).unwrap_or_else(|error| {
            tracing::error!(%error, "what the parent said of repositories cannot be read; it is asked again");
            Vec::new()
        });
        let words: HashMap<_, _> = lines.iter().filter_map(|line| read(line, clock)).collect();
        let said = Said {
            kept: words.clone(),
            words,
            ..Said::default()
        };
        Self {
            ttl,
            said: RwLock::new(said),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn of(&self, repository: &Repository) -> Option<Word> {
        self.said.read().words.get(repository).copied()
    }

    /// Whether the last word is no.
    fn is_no(&self, repository: &Repository) -> bool {
        self.of(repository).is_some_and(|word| !word.is_yes)
    }

    fn hear(&self, repository: &Repository, word: Word) -> Haste {
        let mut said = self.said.write();
        let before = said.words.insert(repository.clone(), word);
        let is_kept = said.kept.get(repository).is_some_and(|kept| {
            let newer = word.at.checked_sub(kept.at).map(Duration::from_secs);
            kept.is_yes == word.is_yes && newer.is_some_and(|newer| newer < self.ttl.duration() / PARTS)
        });
        if is_kept {
            return Haste::None;
        }
        said.heard += 1;
        if !word.is_yes && before.is_none_or(|before| before.is_yes) {
            return Haste::Most;
        }
        match std::mem::replace(&mut said.is_due, true) {
            true => Haste::None,
            false => Haste::Some,
        }
    }

    /// What is to be written, if anything is, and the count that it covers.
    fn unwritten(&self, store: &Store, now: Instant) -> Option<(u64, HashMap<Repository, Word>)> {
        let (heard, mut words) = {
            let said = self.said.read();
            (said.heard, said.words.clone())
        };
        if heard == self.said.read().written {
            return None;
        }
        let ttl = self.ttl.duration();
        // A no counts for as long as anything is known of the repository.
        words.retain(|repository, word| word.age(now) < ttl || (!word.is_yes && store.knows(repository)));
        Some((heard, words))
    }

    /// Writes down what is not. Blocks.
    fn write(&self, store: &Store, now: Instant) -> bool {
        let Some((heard, words)) = self.unwritten(store, now) else {
            return true;
        };
        let mut lines: Vec<String> = words
            .iter()
            .map(|(repository, word)| written(repository, *word))
            .collect();
        lines.sort_unstable();
        if let Err(error) = store.keep(Kept::Words, &lines) {
            tracing::warn!(%error, "what the parent said of repositories is not on the disk; it is tried again");
            return false;
        }
        let mut said = self.said.write();
        said.written = heard;
        // What was heard meanwhile is there yet.
        said.words
            .retain(|repository, word| words.contains_key(repository) || word.age(now) < self.ttl.duration());
        said.kept = words;
        true
    }
}

fn read(line: &str, clock: &Clock) -> Option<(Repository, Word)> {
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
    // By a clock that is not set, now or then, nobody knows: it counts from the start.
    let (then, now) = (UNIX_EPOCH + Duration::from_secs(at), clock.wall());
    let is_known = is_plausible(then) && is_plausible(now);
    let before = if is_known { now.duration_since(then).ok() } else { None };
    let word = Word {
        is_yes,
        at,
        since: clock.now(),
        before: Some(before.unwrap_or_default()),
    };
    Some((Repository { registry, name }, word))
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
    /// Refuses content that lies here and that the parent takes back, or has not vouched for in too long a time.
    ///
    /// # Errors
    ///
    /// [`Error::Unvouched`]; as [`Fetch::blob`].
    pub async fn vouch(&self, repository: &Repository, digest: &Digest, asker: &Asker) -> Result<(), Error> {
        self.shared.vouch(repository, digest, Kind::Blob, asker).await
    }

    /// The parent took a push to `repository`: it lets us in, unless it said that we may not read there.
    pub fn vouched(&self, repository: &Repository) {
        let is_no = |words: &Words| words.is_no(repository);
        if self.shared.words.as_ref().is_some_and(is_no) {
            return;
        }
        if self.shared.hear(repository, true) == Haste::Some {
            self.shared.write_soon(GATHER);
        }
    }

    /// Whether lists name it: the parent did not forbid it, or it is not the parent's alone.
    pub fn shows(&self, repository: &Repository) -> bool {
        let Shared { words, store, .. } = &*self.shared;
        let is_no = words.as_ref().is_some_and(|words| words.is_no(repository));
        !is_no || !store.pushed_tags(repository).is_empty()
    }

    /// Writes down what is not. Blocks.
    pub fn flush(&self) {
        let Shared {
            words, store, clock, ..
        } = &*self.shared;
        if let Some(words) = words {
            words.write(store, clock.now());
        }
    }
}

impl Shared {
    /// The parent's answer; what it says of the repository is remembered.
    pub(super) async fn put_to(self: &Arc<Self>, parent: &Parent, ask: Ask<'_>) -> Result<Answer, parent::Error> {
        let repository = ask.repository;
        // Accounts may read and not list, and parts are mangled by who stands in between.
        let is_whole = ask.asks_for_content() && ask.range.is_none_or(|_| ask.is_first_part());
        let outcome = parent.ask(ask).await;
        let is_no = |words: &Words| words.is_no(repository);
        let is_yes = match &outcome {
            // What it cannot vouch for itself it may not have either.
            Ok(answer) if answer.head.warning.is_some() => return outcome,
            Ok(_) if is_whole => true,
            // Who may list may not therefore read.
            Ok(_) if !self.words.as_ref().is_some_and(is_no) => true,
            Err(error) if is_whole && is_refused(error) => false,
            _ => return outcome,
        };
        match self.hear(repository, is_yes) {
            Haste::None => {}
            Haste::Some => self.write_soon(GATHER),
            Haste::Most => drop(tokio::time::timeout(AT_ONCE, self.write_words()).await),
        }
        outcome
    }

    fn hear(&self, repository: &Repository, is_yes: bool) -> Haste {
        let Some(words) = &self.words else { return Haste::None };
        // Of what there never was anything here, it need not be remembered that it is refused.
        if !is_yes && !self.store.knows(repository) {
            return Haste::None;
        }
        let since = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let word = Word {
            is_yes,
            at: since.as_secs(),
            since: self.clock.now(),
            before: None,
        };
        words.hear(repository, word)
    }

    fn write_soon(self: &Arc<Self>, wait: Duration) {
        let shared = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(words) = &shared.words {
                words.said.write().is_due = false;
            }
            shared.write_words().await;
        });
    }

    /// Has all words written down. It goes on when the caller leaves.
    async fn write_words(self: &Arc<Self>) {
        let shared = self.clone();
        let writing = self.runtime.spawn(async move {
            let Some(words) = &shared.words else { return };
            let _turn = words.writing.lock().await;
            let by = shared.clone();
            let write = move || {
                by.words
                    .as_ref()
                    .is_none_or(|words| words.write(&by.store, by.clock.now()))
            };
            let is_written = tokio::task::spawn_blocking(write).await.unwrap_or(false);
            if !is_written && !std::mem::replace(&mut words.said.write().is_due, true) {
                shared.write_soon(AGAIN);
            }
        });
        let _ = writing.await;
    }

    /// Whether the parent said yes to this process itself, and lately: it need not be asked.
    pub(super) fn is_vouched_lately(&self, repository: &Repository) -> bool {
        let Some(words) = &self.words else { return true };
        let is_lately = |word: Word| word.before.is_none() && word.age(self.clock.now()) < self.config.tag_ttl;
        let word = words.of(repository).filter(|word| word.is_yes);
        word.is_some_and(is_lately) || self.parent(repository).is_err()
    }

    /// Whether the parent's last word counts, if there is no new one.
    fn counts(&self, words: &Words, repository: &Repository) -> bool {
        let word = words.of(repository).filter(|word| word.is_yes);
        word.is_some_and(|word| word.age(self.clock.now()) < words.ttl.duration()) || self.parent(repository).is_err()
    }

    /// Whether this is served without the parent's word: it was pushed here, and the parent does not have it yet.
    pub(super) fn needs_no_word(&self, repository: &Repository, digest: &Digest) -> bool {
        let store = &self.store;
        self.words.is_none()
            || (self.pushed_to(repository).is_some()
                && (store.was_pushed(repository, &Reference::Digest(*digest)) || store.has_blob(repository, digest)))
    }

    /// As [`Fetch::vouch`]; `kind`: what it was asked for as, if nobody knows better.
    pub(super) async fn vouch(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<(), Error> {
        let Some(words) = &self.words else { return Ok(()) };
        if self.is_vouched_lately(repository) || self.needs_no_word(repository, digest) {
            return Ok(());
        }
        let kind = match self.store.linked(repository, digest) {
            Some(_) if self.store.is_manifest(repository, digest) => Kind::Manifest,
            Some(_) => Kind::Blob,
            // The parent is asked for it anyway, unless it is under way for others.
            None if !words.is_no(repository) => return Ok(()),
            None => kind,
        };
        let parent = self.parent(repository)?;
        let asked = match parent.is_shut(asker.class) {
            Some(error) => Err(error.into()),
            None => self.word_in_time(parent, repository, digest, kind, asker).await,
        };
        match asked {
            Ok(()) => Ok(()),
            Err(error) => self.or_old_word(repository, error),
        }
    }

    /// Asks for it by a HEAD. Nobody waits for a parent that let others down just now.
    async fn word_in_time(
        self: &Arc<Self>,
        parent: &Parent,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<(), Error> {
        let patience = self.config.stale_after;
        let asked = self.confirm(repository, digest, kind, asker);
        let outcome = if parent.is_silent() {
            asked.now_or_never().unwrap_or_else(|| Err(late(parent, patience)))
        } else {
            self.within(patience, repository, asker, asked).await
        };
        if outcome.as_ref().is_err_and(Error::is_late) {
            parent.let_down();
        }
        outcome.map(drop)
    }

    /// `error`, unless it says nothing of the repository and the parent's old word counts.
    pub(super) fn or_old_word(&self, repository: &Repository, error: Error) -> Result<(), Error> {
        let Some(words) = &self.words else { return Ok(()) };
        match &error {
            Error::Parent(error) if is_refused(error) => {}
            Error::Unvouched { .. } => {}
            _ if self.counts(words, repository) => return Ok(()),
            _ => {}
        }
        let layer = self.layer(repository);
        Err(match error {
            _ if words.is_no(repository) => Error::Parent(Arc::new(parent::Error::Denied {
                layer,
                status: 403,
                anonymous: false,
                words: None,
            })),
            Error::Parent(denied) if is_refused(&denied) => Error::Parent(denied),
            error @ (Error::Unvouched { .. } | Error::Absent { .. }) => error,
            error => Error::Unvouched {
                layer,
                ttl: words.ttl,
                reason: error.to_string(),
            },
        })
    }
}

/// Whether the parent let us in, and forbids the repository. A stranger who is refused may be one to all of it by now.
fn is_refused(error: &parent::Error) -> bool {
    matches!(error, parent::Error::Denied { status: 403, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(registry: Registry) -> Repository {
        let name = "plant/app".parse().unwrap();
        Repository { registry, name }
    }

    fn word(is_yes: bool, at: u64, clock: &Clock) -> Word {
        Word {
            is_yes,
            at,
            since: clock.now(),
            before: None,
        }
    }

    fn words(ttl: Span) -> Words {
        Words {
            ttl,
            said: RwLock::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    #[test]
    fn a_word_is_read_back_as_it_was_written_and_anything_else_is_none() {
        let (clock, _) = Clock::manual();
        for registry in [Registry::own(), "quay.io".parse().unwrap()] {
            for is_yes in [true, false] {
                let repository = repository(registry.clone());
                let line = written(&repository, word(is_yes, 1_800_000_000, &clock));
                let (named, read) = read(&line, &clock).unwrap();
                assert_eq!((named, read.is_yes, read.at), (repository, is_yes, 1_800_000_000));
                assert!(read.before.is_some(), "nobody heard it here");
            }
        }
        for line in ["", "{}", r#"{"registry":"","name":"A","yes":true,"at":1}"#] {
            assert_eq!(read(line, &clock), None, "{line}");
        }
    }

    #[test]
    fn a_no_is_written_at_once_and_a_yes_when_the_one_on_the_disk_is_old_or_from_the_future() {
        let ((clock, _), of) = (Clock::manual(), repository(Registry::own()));
        let words = words(Span::seconds(2000));
        let hear = |is_yes, at| words.hear(&of, word(is_yes, at, &clock));
        let keep = || {
            let mut said = words.said.write();
            said.kept = said.words.clone();
            said.is_due = false;
        };

        assert_eq!(hear(true, 1000), Haste::Some);
        assert_eq!(hear(true, 1000), Haste::None, "somebody will write");
        keep();
        assert_eq!(hear(true, 1099), Haste::None);
        assert_eq!(hear(true, 1100), Haste::Some);
        keep();
        assert_eq!(hear(true, 1000), Haste::Some, "the clock was set back");
        keep();
        assert_eq!(hear(false, 1000), Haste::Most);
        assert!(words.is_no(&of));
        keep();
        assert_eq!(hear(false, 1001), Haste::None);
        assert_eq!(hear(true, 1002), Haste::Some);
    }
}
