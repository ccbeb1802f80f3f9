//! A blob on its way up: asked for first, lent by another repository if one has it, sent from where an earlier attempt
//! ended.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::trouble::Trouble;
use super::{CLASS, Queue, Seen};
use crate::oci::{Digest, Name, Repository};
use crate::parent::{self, Opened, Parent, Part, Session};
use crate::store::{self, Blob};

/// What is no larger goes with the request that ends the upload.
const SMALL: u64 = 256 << 10;

/// Bytes that a request to a node brings: it keeps them through a restart, and passes the whole on as its own.
const CHUNK: u64 = 32 << 20;

/// Bytes that are sent to see whether an upload goes on: those that are refused were sent for nothing.
const TRIED: u64 = 32 << 10;

/// Bytes read at a time.
const PIECE: usize = 512 << 10;

/// Repositories that are asked for whether they can lend a blob.
const ASKED: usize = 16;

/// An upload that is over, or is not where it was, is begun anew so often before it counts as a failure.
const ANEW: u32 = 3;

/// Attempts, about two minutes, after which it is not waited any more for what an earlier one began.
const HELD: u32 = 8;

impl Queue {
    /// Has the parent have a blob in `repository`.
    pub(super) async fn send_blob(
        &self,
        parent: &Parent,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Trouble> {
        if self.shared.seen.has(repository, digest) {
            return Ok(());
        }
        let _turn = self.shared.turns.take(digest).await;
        if let Some(begun) = self.begun_elsewhere(parent, repository, digest) {
            // What is there of it is not sent again: once it is whole, it is lent.
            match self.send_in_turn(parent, &begun, digest).await {
                Err(trouble @ Trouble::Moment { .. }) if self.is_patient(repository) => return Err(trouble),
                // That is for whoever pays there.
                Ok(()) | Err(Trouble::Moment { .. }) => {}
                Err(_) => self.forget_session(&begun, digest),
            }
        }
        self.send_in_turn(parent, repository, digest).await
    }

    /// Another repository to which a part of the blob was sent, if none was to this one.
    fn begun_elsewhere(&self, parent: &Parent, repository: &Repository, digest: &Digest) -> Option<Repository> {
        let (store, to) = (&self.shared.store, parent.address());
        if store.sending(repository, digest, &to).is_some() {
            return None;
        }
        let mut others = self.others(repository, digest).into_iter();
        others.find(|other| store.sending(other, digest, &to).is_some())
    }

    /// The same, while nobody else sends it.
    async fn send_in_turn(&self, parent: &Parent, repository: &Repository, digest: &Digest) -> Result<(), Trouble> {
        if self.has_blob(parent, repository, digest).await? {
            self.forget_session(repository, digest);
            self.shared.seen.note(repository, digest);
            return Ok(());
        }
        let store = &self.shared.store;
        let blob = match store.linked(repository, digest) {
            Some(link) => store.read(&link)?,
            None => None,
        };
        let blob = Arc::new(blob.ok_or_else(|| self.lost(digest))?);
        let mut anew = 0;
        loop {
            let outcome = Box::pin(self.send_bytes(parent, repository, &blob)).await;
            let Err(error) = outcome else { break };
            let is_over = matches!(
                error,
                parent::Error::Absent { .. }
                    | parent::Error::RangeUnsatisfiable { .. }
                    | parent::Error::Failed {
                        status: 400 | 404 | 409,
                        ..
                    }
            );
            // What is to go on is written down, and is not there any more.
            let was_known = store.sending(repository, digest, &parent.address()).is_some();
            if !is_over || (was_known && self.is_held(repository, &error)) {
                return Err(error.into());
            }
            // It may have got on when it was asked how far it is.
            if !matches!(error, parent::Error::RangeUnsatisfiable { .. }) || anew > 0 {
                self.forget_session(repository, digest);
            }
            anew += 1;
            if !was_known || anew >= ANEW {
                self.judge_blob(&blob).await?;
                return Err(error.into());
            }
            // It may be over because it ended well, and that was not heard.
            if self.has_blob(parent, repository, digest).await? {
                break;
            }
            tracing::info!(%repository, %digest, %error, "an upload to the parent is begun anew");
        }
        self.forget_session(repository, digest);
        self.shared.seen.note(repository, digest);
        Ok(())
    }

    /// Whether the parent may not have heard yet that an earlier attempt broke off, and keeps the upload for that.
    fn is_held(&self, repository: &Repository, error: &parent::Error) -> bool {
        matches!(error, parent::Error::Failed { status: 409, .. }) && self.is_patient(repository)
    }

    /// Whether what keeps a repository from being paid for may be a moment.
    fn is_patient(&self, repository: &Repository) -> bool {
        self.shared.state.lock().moments(repository) < HELD
    }

    /// Whether our own copy is to blame for what the parent refuses.
    async fn judge_blob(&self, blob: &Arc<Blob>) -> Result<(), Trouble> {
        let (blob, digest) = (Arc::clone(blob), *blob.digest());
        let is_whole = tokio::task::spawn_blocking(move || blob.verify(|_| {})).await;
        match is_whole {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(_)) => Err(Trouble::Lost(digest)),
        }
    }

    async fn has_blob(&self, parent: &Parent, repository: &Repository, digest: &Digest) -> Result<bool, Trouble> {
        match self.ask(parent, repository, parent::What::Blob(digest)).await? {
            Seen::There(_) => Ok(true),
            Seen::Missing | Seen::Unknown => Ok(false),
        }
    }

    async fn send_bytes(
        &self,
        parent: &Parent,
        repository: &Repository,
        blob: &Arc<Blob>,
    ) -> Result<(), parent::Error> {
        let digest = blob.digest();
        let Some(mut session) = self.session(parent, repository, digest).await? else {
            return Ok(());
        };
        if session.size > blob.size() {
            return Err(parent::Error::RangeUnsatisfiable {
                layer: parent.name().to_owned(),
            });
        }
        if session.size == 0 && blob.size() <= SMALL {
            let bytes = read_piece(blob, 0, SMALL).await?;
            self.report(repository, digest, blob.size(), 0);
            let finished = parent.finish(CLASS, repository, &session, digest, Some(bytes)).await;
            if finished.is_err() {
                // The next attempt takes it up: none is left behind there.
                self.keep_session(parent, repository, digest, &session);
            }
            return finished;
        }
        // Of what an earlier attempt began it may not be true how far it is, or it may be kept for that one.
        let mut most = match self.shared.store.sending(repository, digest, &parent.address()) {
            Some(_) => TRIED,
            None => CHUNK,
        };
        self.keep_session(parent, repository, digest, &session);
        while session.size < blob.size() {
            let left = blob.size() - session.size;
            let length = if parent.is_wharf() { left.min(most) } else { left };
            most = CHUNK;
            self.report(repository, digest, blob.size(), session.size);
            let part = part(blob, session.size, length);
            let before = session.size;
            session = parent.append(CLASS, repository, &session, part).await?;
            if session.size <= before || session.size > blob.size() {
                return Err(parent::Error::RangeUnsatisfiable {
                    layer: parent.name().to_owned(),
                });
            }
            self.keep_session(parent, repository, digest, &session);
            self.got_on(repository, digest, session.size);
        }
        parent.finish(CLASS, repository, &session, digest, None).await
    }

    /// The upload that an earlier attempt left, or another; `None`: the parent had the blob elsewhere.
    async fn session(
        &self,
        parent: &Parent,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Session>, parent::Error> {
        if let Some(location) = self.shared.store.sending(repository, digest, &parent.address()) {
            match parent.find_upload(CLASS, repository, &location).await {
                Ok(session) => return Ok(Some(session)),
                Err(
                    error @ (parent::Error::Absent { .. }
                    | parent::Error::Denied { .. }
                    | parent::Error::Failed { status: 400..500, .. }),
                ) => {
                    tracing::info!(%repository, %digest, %error, "an upload to the parent is begun anew");
                    self.forget_session(repository, digest);
                }
                Err(error) => return Err(error),
            }
        }
        let from = self.lender(parent, repository, digest).await;
        let mount = from.as_ref().map(|from| (digest, from));
        let opened = match parent.open_upload(CLASS, repository, mount).await {
            // It may not be known to us what we may read there.
            Err(parent::Error::Denied { .. } | parent::Error::Absent { .. }) if mount.is_some() => {
                parent.open_upload(CLASS, repository, None).await?
            }
            opened => opened?,
        };
        Ok(match opened {
            Opened::Mounted => None,
            Opened::Session(session) => Some(session),
        })
    }

    /// A repository that has the blob at the parent. Which one does is asked, as to be wrong is to send it again.
    async fn lender(&self, parent: &Parent, repository: &Repository, digest: &Digest) -> Option<Name> {
        let others = self.others(repository, digest);
        let lender = match others.iter().find(|other| self.shared.seen.has(other, digest)) {
            Some(known) => Some(known),
            None => self.first_with(parent, &others, digest).await,
        };
        lender.map(|lender| lender.name.clone())
    }

    async fn first_with<'a>(
        &self,
        parent: &Parent,
        repositories: &'a [Repository],
        digest: &Digest,
    ) -> Option<&'a Repository> {
        for repository in repositories.iter().take(ASKED) {
            if matches!(self.has_blob(parent, repository, digest).await, Ok(true)) {
                self.shared.seen.note(repository, digest);
                return Some(repository);
            }
        }
        None
    }

    /// The other repositories that hold the blob here; those last of which something is owed.
    fn others(&self, repository: &Repository, digest: &Digest) -> Vec<Repository> {
        let store = &self.shared.store;
        let mut others = store.holders(digest);
        others.retain(|other| other != repository && other.registry == repository.registry);
        let indebted = store.indebted();
        others.sort_by_key(|other| indebted.contains(other));
        others
    }

    fn keep_session(&self, parent: &Parent, repository: &Repository, digest: &Digest, session: &Session) {
        let (store, to) = (&self.shared.store, parent.address());
        let location = session.location();
        if store.sending(repository, digest, &to).as_deref() != Some(location) {
            not_written(repository, digest, store.set_sending(repository, digest, &to, location));
        }
    }

    fn forget_session(&self, repository: &Repository, digest: &Digest) {
        not_written(repository, digest, self.shared.store.forget_sending(repository, digest));
    }
}

/// Without it an upload is begun anew where it could go on, or the other way round.
fn not_written(repository: &Repository, digest: &Digest, outcome: Result<(), store::Error>) {
    if let Err(error) = outcome {
        tracing::warn!(%repository, %digest, %error, "where an upload goes on could not be written down");
    }
}

/// Reads the blob from `first` on each time that it is sent.
fn part(blob: &Arc<Blob>, first: u64, length: u64) -> Part {
    let blob = Arc::clone(blob);
    let open = move || -> parent::Pieces {
        let pieces = stream::unfold((Arc::clone(&blob), first), move |(blob, at)| async move {
            let left = first + length - at;
            if left == 0 {
                return None;
            }
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let reader = Arc::clone(&blob);
            let read = tokio::task::spawn_blocking(move || reader.piece(at, piece)).await;
            let read = read.map_err(std::io::Error::other).and_then(|read| read);
            let next = at + read.as_ref().map_or(left, |bytes| bytes.len() as u64);
            Some((read, (blob, next)))
        });
        pieces.boxed()
    };
    Part {
        first,
        length,
        open: Arc::new(open),
    }
}

async fn read_piece(blob: &Arc<Blob>, first: u64, most: u64) -> Result<bytes::Bytes, parent::Error> {
    let (blob, most) = (Arc::clone(blob), usize::try_from(most).unwrap_or(PIECE));
    let read = tokio::task::spawn_blocking(move || blob.piece(first, most)).await;
    let read = read.map_err(std::io::Error::other).and_then(|read| read);
    read.map_err(|source| parent::Error::Cut {
        layer: "this node's disk".to_owned(),
        source: Arc::new(source),
    })
}
