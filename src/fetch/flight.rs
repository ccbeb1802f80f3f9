//! A transfer under way: what those who follow it see.
//!
//! ```text
//! Asking --head--> Running --bytes--> Running ... --digest agrees--> Done
//!    \________________\___________________________________________-> Failed
//! ```

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use super::window::HELD_BACK;
use super::window::{Budget, Seat, Window};
use super::{Asker, Error, Piece, Readable};
use crate::oci::{Digest, Repository};
use crate::parent::{Class, Urgency};

/// Bytes given out at a time while the digest may still fail.
const SHORT: u64 = 1 << 20;

/// Whether the digest is asked for as a manifest or as a blob.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Manifest,
    Blob,
}

/// One transfer of one digest.
pub(super) struct Flight {
    pub(super) digest: Digest,
    /// Whose upstream is asked.
    pub(super) repository: Repository,
    /// Who asked first, if anyone is asked.
    pub(super) asker: Option<Asker>,
    /// Repositories that may follow: their own upstream has the digest.
    admitted: Mutex<HashSet<Repository>>,
    /// What the bytes go into, as long as the disk takes them.
    file: OnceLock<Arc<dyn Readable>>,
    /// What they pass through from then on.
    pub(super) window: Arc<Window>,
    progress: watch::Sender<Progress>,
    /// For whom, by now.
    pub(super) urgency: Urgency,
    /// What the upstream is asked for; nobody is asked for bytes that lie here and are only hashed.
    pub(super) kind: Option<Kind>,
}

/// How far a transfer is.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) head: Option<Arc<Head>>,
    /// Followers may read up to here.
    pub(super) available: u64,
    /// Bytes that an earlier flight left, which are shown once they are hashed.
    left: u64,
    pub(super) state: State,
}

impl Progress {
    fn shows_head(&self) -> bool {
        let ended = !matches!(self.state, State::Running);
        self.head.as_ref().is_some_and(|head| ended || head.total != Some(0))
    }
}

/// What the upstream's header said.
pub(super) struct Head {
    /// Bytes of the content, if that is known beforehand.
    pub(super) total: Option<u64>,
    pub(super) media_type: Option<String>,
    pub(super) cache_status: Option<String>,
}

#[derive(Clone)]
pub(super) enum State {
    Running,
    /// All is here, and it hashes to the digest. Bytes of the content.
    Done(u64),
    Failed(Error),
}

/// One who reads along.
pub(super) struct Follower {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
    seat: Seat,
}

impl Flight {
    /// One for `asker`, and for all who join. What is not kept of it passes within `budget`.
    pub(super) fn new(digest: Digest, repository: Repository, kind: Kind, asker: Asker, budget: Budget) -> Self {
        Self {
            urgency: Urgency::of(asker.class),
            asker: Some(asker),
            window: Arc::new(Window::within(budget)),
            kind: Some(kind),
            ..Self::of_stored(digest, repository)
        }
    }

    /// One whose bytes lie here, to be hashed.
    pub(super) fn of_stored(digest: Digest, repository: Repository) -> Self {
        let admitted = Mutex::new(HashSet::from([repository.clone()]));
        let progress = watch::Sender::new(Progress {
            head: None,
            available: 0,
            left: 0,
            state: State::Running,
        });
        Self {
            digest,
            repository,
            asker: None,
            admitted,
            file: OnceLock::new(),
            window: Arc::default(),
            progress,
            urgency: Urgency::of(Class::Interactive),
            kind: None,
        }
    }

    pub(super) fn admits(&self, repository: &Repository) -> bool {
        self.admitted.lock().contains(repository)
    }

    /// Lets a repository follow, as its own upstream has the content.
    pub(super) fn admit(&self, repository: &Repository) {
        self.admitted.lock().insert(repository.clone());
    }

    pub(super) fn admitted(&self) -> Vec<Repository> {
        self.admitted.lock().iter().cloned().collect()
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress.borrow().state, State::Done(_))
    }

    /// The header has come, and it is known whether there is a file, and how much of it is `left` from an earlier flight.
    pub(super) fn begin(&self, head: Head, file: Option<Arc<dyn Readable>>, left: u64) {
        if let Some(file) = file {
            // A flight begins once; a resumed transfer keeps its file.
            let _ = self.file.set(file);
        }
        self.progress.send_modify(|progress| {
            progress.head = Some(Arc::new(head));
            progress.left = left;
        });
    }

    /// What is left of an earlier flight is of no use.
    pub(super) fn forget_left(&self) {
        self.progress.send_modify(|progress| progress.left = 0);
    }

    /// `written` bytes are in the sink, of `total`.
    pub(super) fn advance(&self, written: u64, total: Option<u64>) {
        let end = total.unwrap_or(written);
        let available = written.min(end.saturating_sub(HELD_BACK));
        self.progress
            .send_modify(|progress| progress.available = progress.available.max(available));
    }

    /// Followers may read up to here.
    pub(super) fn shown(&self) -> u64 {
        self.progress.borrow().available
    }

    /// The digest agrees.
    pub(super) fn land(&self, size: u64) {
        self.progress.send_modify(|progress| {
            progress.available = size;
            progress.state = State::Done(size);
        });
    }

    pub(super) fn fail(&self, error: Error) {
        self.progress
            .send_modify(|progress| progress.state = State::Failed(error));
    }

    /// Reads along from `position`; `None` if the bytes there went by unkept.
    pub(super) fn follow(self: &Arc<Self>, position: u64) -> Option<Follower> {
        Some(Follower {
            flight: self.clone(),
            progress: self.progress.subscribe(),
            seat: self.window.seat(position)?,
        })
    }

    /// Waits for the upstream's header; for what is said to be empty to its end, as no byte can be held back.
    pub(super) async fn head(&self) -> Result<Arc<Head>, Error> {
        let mut progress = self.progress.subscribe();
        let seen = progress
            .wait_for(|progress| progress.shows_head() || matches!(progress.state, State::Failed(_)))
            .await
            .map_err(|_| Error::Interrupted)?;
        match (&seen.head, &seen.state) {
            (_, State::Failed(error)) => Err(error.clone()),
            (Some(head), _) => Ok(head.clone()),
            (None, _) => Err(Error::Interrupted),
        }
    }

    /// Waits for the last byte; bytes of the content.
    pub(super) async fn landed(&self) -> Result<u64, Error> {
        let mut progress = self.progress.subscribe();
        let seen = progress
            .wait_for(|progress| !matches!(progress.state, State::Running))
            .await
            .map_err(|_| Error::Interrupted)?;
        match &seen.state {
            State::Done(size) => Ok(*size),
            State::Failed(error) => Err(error.clone()),
            State::Running => Err(Error::Interrupted),
        }
    }
}

impl Follower {
    /// The next bytes between `position` and `end`; `None` at the end of the content.
    ///
    /// Waits until there are some. `position` must not go back.
    ///
    /// # Errors
    ///
    /// Why the transfer failed: the reply must be broken off.
    pub(super) async fn piece(&mut self, position: u64, end: u64) -> Result<Option<Piece>, Error> {
        // The sender must not wait for a reader that waits for later bytes.
        self.seat.move_to(position);
        let ready = |progress: &Progress| progress.available > position || !matches!(progress.state, State::Running);
        let seen = self
            .progress
            .wait_for(ready)
            .await
            .map_err(|_| Error::Interrupted)?
            .clone();
        if let State::Failed(error) = seen.state {
            return Err(error);
        }
        let mut end = end.min(seen.available);
        if matches!(seen.state, State::Running) {
            // In short pieces: who reads slowly must hear in time that the digest failed.
            end = end.min(position + SHORT);
        }
        if position >= end {
            return Ok(None);
        }
        let passes_from = self.flight.window.begins().unwrap_or(u64::MAX);
        if position < passes_from {
            let file = self.flight.file.get().ok_or(Error::Interrupted)?;
            return Ok(Some(Piece::File(file.clone(), position..end.min(passes_from))));
        }
        let bytes = self.seat.read(position, end);
        bytes.map(|bytes| Some(Piece::Bytes(bytes))).ok_or(Error::TooSlow)
    }

    /// Whether the bytes at `position` are so far off that waiting for them takes long. Never where bytes pass by:
    /// nothing could tell in the end whether bytes of another request were the same.
    pub(super) fn is_far(&self, position: u64, distance: u64) -> bool {
        let progress = self.progress.borrow();
        let running = matches!(progress.state, State::Running) && self.flight.window.begins().is_none();
        running && position > progress.available.max(progress.left) + distance
    }

    /// Nothing before `position` is wanted any more.
    pub(super) fn move_to(&self, position: u64) {
        self.seat.move_to(position);
    }

    /// The file, if all of the content came to lie in it.
    pub(super) fn whole_file(&self) -> Option<Arc<dyn Readable>> {
        let kept = self.flight.window.begins().is_none() && self.flight.is_done();
        kept.then(|| self.flight.file.get().cloned()).flatten()
    }
}
