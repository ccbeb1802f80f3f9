//! Uploads under way: found by their name and whose they are, written by one request at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use super::{Error, Shared};
use crate::auth::Permit;
use crate::oci::{Algorithm, SessionId};
use crate::store::{LeftUpload, Scope, Upload};

/// How long an upload may lie while all of them together hold much of what they may.
const CROWDED_TTL: Duration = Duration::from_secs(10 * 60);

/// How far an upload is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Which.
    pub id: SessionId,
    /// Bytes that are here, and stay through a restart.
    pub size: u64,
}

pub(super) type Key = (SessionId, Scope);

/// The open ones.
pub(super) struct Sessions {
    open: Mutex<HashMap<Key, Arc<Session>>>,
    most: usize,
}

/// One upload.
pub(super) struct Session {
    id: SessionId,
    /// Who began it, empty for who did not log in; `None`: an earlier process was told, and it counts for nobody in particular.
    owner: Option<Box<str>>,
    /// Taken by who writes. `None`: it lies on the disk, as an earlier process left it.
    upload: Arc<Turns<Option<Upload>>>,
    size: AtomicU64,
    touched: Mutex<Instant>,
}

/// The right to write an upload, while nobody else does.
pub(super) struct Turn {
    pub(super) key: Key,
    pub(super) session: Arc<Session>,
    pub(super) upload: OwnedMutexGuard<Option<Upload>>,
}

impl Sessions {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: Mutex::default(),
            most,
        }
    }

    fn find(&self, key: &Key) -> Result<Arc<Session>, Error> {
        self.open.lock().get(key).cloned().ok_or(Error::UnknownUpload)
    }

    pub(super) fn end(&self, key: &Key) {
        self.open.lock().remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether one more of `owner` may be begun, who may have `each`.
    fn admit(&self, owner: &str, each: usize) -> Result<(), Error> {
        admit(&self.open.lock(), owner, self.most, each)
    }

    /// The same, and enters it in the same step: of two who race for the last place one gets it.
    fn enter(&self, key: Key, session: Arc<Session>, owner: &str, each: usize) -> Result<(), Error> {
        let mut open = self.open.lock();
        admit(&open, owner, self.most, each)?;
        open.insert(key, session);
        Ok(())
    }
}

impl Session {
    fn new(id: SessionId, owner: Option<&str>, upload: Option<Upload>, size: u64, touched: Instant) -> Arc<Self> {
        Arc::new(Self {
            id,
            owner: owner.map(Into::into),
            upload: Arc::new(Turns::new(upload)),
            size: AtomicU64::new(size),
            touched: Mutex::new(touched),
        })
    }

    /// So many bytes are here now.
    pub(super) fn has(&self, size: u64, now: Instant) {
        self.size.store(size, Ordering::Relaxed);
        *self.touched.lock() = now;
    }

    /// Throws it away, if nobody writes it.
    fn cancel(&self) {
        if let Some(upload) = self.upload.try_lock().ok().and_then(|mut upload| upload.take()) {
            upload.cancel();
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            id: self.id,
            size: self.size.load(Ordering::Relaxed),
        }
    }
}

/// Whether one more fits, of all and of `owner`.
fn admit(open: &HashMap<Key, Arc<Session>>, owner: &str, most: usize, each: usize) -> Result<(), Error> {
    if open.len() >= most {
        return Err(Error::TooManyUploads { most });
    }
    let theirs = |session: &&Arc<Session>| session.owner.as_deref() == Some(owner);
    if open.len() >= each && open.values().filter(theirs).count() >= each {
        return Err(Error::TooManyOfOne {
            principal: owner.to_owned(),
            most: each,
        });
    }
    Ok(())
}

impl Shared {
    pub(super) fn begin(&self, permit: &Permit, algorithm: Algorithm) -> Result<SessionId, Error> {
        let (owner, each) = (permit.principal().name(), self.uploads_each());
        if self.sessions.admit(owner, each).is_err() {
            self.expire_sessions(Some(owner));
        }
        self.sessions.admit(owner, each)?;
        let (id, scope) = (SessionId::random(), self.scope(permit));
        let upload = self.store.begin_upload(id, scope, algorithm)?;
        let session = Session::new(id, Some(owner), Some(upload), 0, self.clock.now());
        let entered = self.sessions.enter((id, scope), session.clone(), owner, each);
        if let Err(error) = entered {
            session.cancel();
            return Err(error);
        }
        self.count_sessions();
        Ok(id)
    }

    /// How many one may have: who does not log in where nobody does is not one.
    fn uploads_each(&self) -> usize {
        match self.guard.is_on() {
            true => self.config.get().uploads_each,
            false => usize::MAX,
        }
    }

    pub(super) fn progress(&self, permit: &Permit, id: SessionId) -> Result<Progress, Error> {
        let session = self.sessions.find(&(id, self.scope(permit)))?;
        Ok(session.progress())
    }

    pub(super) fn cancel(&self, permit: &Permit, id: SessionId) -> Result<(), Error> {
        let key = (id, self.scope(permit));
        let mut turn = self.turn(&key)?;
        self.end(&key);
        if let Some(upload) = turn.upload.take() {
            upload.cancel();
        }
        Ok(())
    }

    /// The right to write, with what is to be written.
    pub(super) fn turn(&self, key: &Key) -> Result<Turn, Error> {
        let session = self.sessions.find(key)?;
        let mut upload = session.upload.clone().try_lock_owned().map_err(|_| Error::Busy)?;
        if upload.is_none() {
            let (id, scope) = *key;
            let left = self.store.continue_upload(id, scope)?;
            let Some(left) = left else {
                self.end(key);
                return Err(Error::UnknownUpload);
            };
            session.has(left.size(), self.clock.now());
            *upload = Some(left);
        }
        // It may have ended while this waited for nothing but its turn.
        self.sessions.find(key)?;
        Ok(Turn {
            key: *key,
            session,
            upload,
        })
    }

    /// It is over, one way or the other.
    pub(super) fn end(&self, key: &Key) {
        self.sessions.end(key);
        self.count_sessions();
    }

    /// Enters what an earlier process left.
    pub(super) fn find_sessions(&self) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        for LeftUpload {
            id,
            scope,
            size,
            written,
            ..
        } in self.store.left_uploads()
        {
            let age = wall.duration_since(written).unwrap_or(Duration::ZERO);
            let session = Session::new(id, None, None, size, now.checked_sub(age).unwrap_or(now));
            self.sessions.open.lock().insert((id, scope), session);
        }
        self.expire_sessions(None);
        self.count_sessions();
    }

    /// Throws away what nothing came for. `full`: who may have no more of them.
    pub(super) fn expire_sessions(&self, full: Option<&str>) {
        // Most clients begin anew and never go on: what lies there must not keep others from pushing for a day.
        let crowd = self.store.uploads_crowd() || self.sessions.len() >= self.sessions.most;
        let (now, ttl) = (self.clock.now(), self.config.get().upload_ttl);
        let is_old = |session: &Session| {
            let is_in_the_way = crowd || (full.is_some() && session.owner.as_deref() == full);
            let ttl = if is_in_the_way { ttl.min(CROWDED_TTL) } else { ttl };
            now.saturating_duration_since(*session.touched.lock()) > ttl
        };
        let expired: Vec<Key> = {
            let open = self.sessions.open.lock();
            let old = open.iter().filter(|(_, session)| is_old(session));
            old.map(|(key, _)| *key).collect()
        };
        for key in expired {
            // Whoever is just writing it is not idle.
            let Ok(mut turn) = self.turn(&key) else { continue };
            self.end(&key);
            if let Some(upload) = turn.upload.take() {
                tracing::info!(upload = %key.0, bytes = upload.size(), "an upload took too long and is thrown away");
                upload.cancel();
                self.metrics.expired.inc();
            }
        }
    }

    fn count_sessions(&self) {
        self.metrics
            .uploads
            .set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
    }
}
