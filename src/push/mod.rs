//! What clients bring: upload sessions, the manifest that makes an image of them, deletes.
//!
//! A blob's answer survives a kill; a manifest's is the promise that it and all it needs survive a power cut.

mod blob;
mod body;
mod config;
mod drop;
mod error;
mod full;
mod manifest;
mod metrics;
mod sessions;
mod sound;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

pub use body::{Broken, Incoming};
pub use config::Config;
pub use error::{Error, Limit};
pub use manifest::Accepted;
pub use metrics::Metrics;
pub use sessions::Progress;

use self::full::Full;
use self::sessions::Sessions;
use self::sound::Sound;
use crate::auth::{Guard, Permit};
use crate::fetch::{Asker, Fetch, Limits};
use crate::oci::{Algorithm, Digest, Registry, Repository, SessionId};
use crate::parent::Parent;
use crate::store::{Owing, Scope, Store, Swept};
use crate::units::{Clock, Live, Size};

/// How often what took too long is looked for.
const LOOK: Duration = Duration::from_secs(10);
/// For how long it is believed how much is owed, where that has to be counted.
const OWED_FOR: Duration = Duration::from_millis(500);
/// How often what no manifest needs is looked for: every manifest is read for it.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// Takes what clients push, for one node. Cheap to clone.
#[derive(Clone)]
pub struct Push {
    shared: Arc<Shared>,
}

struct Shared {
    config: Live<Config>,
    limits: Live<Limits>,
    store: Store,
    fetch: Fetch,
    /// The only one that is pushed to: its names are the parent's, or the node's own.
    registry: Registry,
    /// The registry above, whose content a delete has to hide.
    parent: Option<Parent>,
    most_owed: Option<Size>,
    /// What was owed when it was last counted, in bytes.
    owed: Mutex<Option<(Instant, u64)>>,
    /// Whoever finds out whether that takes pushes.
    sound: Sound,
    full: Full,
    sessions: Sessions,
    /// Whether anybody says who they are.
    guard: Guard,
    clock: Clock,
    metrics: Metrics,
}

/// Whose names are pushed to.
pub struct Target {
    /// The node's own, or what its parent means by a name without a registry.
    pub registry: Registry,
    /// Who is above.
    pub parent: Option<Parent>,
    /// Bytes of what the parent does not have yet; no more is taken in.
    pub most_owed: Option<Size>,
}

impl Push {
    /// Into `store`; `guard`: whether anybody says who they are. What an earlier process left of uploads can be continued.
    #[expect(clippy::too_many_arguments, reason = "each is a room of its own")]
    pub fn new(
        config: Live<Config>,
        limits: Live<Limits>,
        store: Store,
        fetch: Fetch,
        target: Target,
        guard: Guard,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let Target {
            registry,
            parent,
            most_owed,
        } = target;
        let sessions = Sessions::new(config.get().uploads);
        let push = Self {
            shared: Arc::new(Shared {
                config,
                limits,
                store,
                fetch,
                registry,
                most_owed: most_owed.filter(|_| parent.is_some()),
                owed: Mutex::default(),
                parent,
                sound: Sound::new(),
                full: Full::default(),
                sessions,
                guard,
                clock,
                metrics,
            }),
        };
        push.shared.find_sessions();
        push
    }

    /// Throws away what took too long and what nobody needs, for as long as the node runs.
    pub async fn watch(self) {
        let mut swept = self.shared.clock.now();
        loop {
            tokio::time::sleep(LOOK).await;
            let shared = self.shared.clone();
            let _ = beside(move || shared.expire_sessions(None)).await;
            let now = self.shared.clock.now();
            // Without the time of day nobody knows how long a blob has been lying here.
            if now.duration_since(swept) < SWEEP || !self.shared.clock.is_set() {
                continue;
            }
            swept = now;
            if let Err(error) = self.sweep(self.shared.config.get().unused_ttl, false).await {
                tracing::warn!(%error, "blobs that no manifest needs could not be thrown away");
            }
        }
    }

    /// Throws away the blobs that no manifest needs and that were pushed longer than `unused` ago; only says which, if it is
    /// a `dry` run.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn sweep(&self, unused: Duration, dry: bool) -> Result<Swept, Error> {
        let swept = self.shared.store.sweep(unused, dry).await?;
        if !dry && !swept.blobs.is_empty() {
            tracing::info!(
                blobs = swept.blobs.len(),
                bytes = swept.bytes,
                "blobs that no manifest needs were thrown away"
            );
        }
        Ok(swept)
    }

    /// Whether anything is taken now: not if it could never be passed on.
    pub fn is_open(&self) -> bool {
        self.shared.closed_by().is_none()
    }

    /// Why nothing is taken, or was not taken lately, in words.
    pub fn closed(&self) -> Option<String> {
        let Some(parent) = self.shared.closed_by() else {
            return self.shared.full.lately(self.shared.clock.now());
        };
        let layer = parent.name().to_owned();
        Some(Error::Closed { layer }.to_string())
    }

    /// A client was told that a blob is here, and may bring a manifest that needs it: it is kept as if it had been pushed now.
    pub async fn found(&self, permit: &Permit, digest: &Digest) {
        let (store, repository, digest) = (self.shared.store.clone(), permit.repository().clone(), *digest);
        let age = self.shared.config.get().unused_ttl / 2;
        let renewed = beside(move || store.renew(&repository, &digest, age)).await;
        if let Err(error) = renewed.and_then(|renewed| Ok(renewed?)) {
            tracing::warn!(%digest, %error, "how long a blob is kept could not be written down");
        }
    }

    /// How long a blob that no manifest needs is kept.
    pub fn unused_ttl(&self) -> Duration {
        self.shared.config.get().unused_ttl
    }

    /// Opens an upload.
    ///
    /// # Errors
    ///
    /// * [`Error::Elsewhere`]: the repository is not one that is pushed to here.
    /// * [`Error::TooManyUploads`]; [`Error::TooManyOfOne`]; [`Error::Store`].
    pub async fn begin(&self, permit: &Permit, algorithm: Algorithm) -> Result<SessionId, Error> {
        self.shared.admit(permit)?;
        self.shared.admit_bytes(1).await?;
        let (shared, permit) = (self.shared.clone(), permit.clone());
        let begun = beside(move || shared.begin(&permit, algorithm)).await?;
        begun.map_err(|error| self.shared.counted(error))
    }

    /// How far an upload is.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownUpload`].
    pub fn progress(&self, permit: &Permit, id: SessionId) -> Result<Progress, Error> {
        self.shared.progress(permit, id)
    }

    /// Ends an upload and throws away what came of it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownUpload`]; [`Error::Busy`] while something comes.
    pub async fn cancel(&self, permit: &Permit, id: SessionId) -> Result<(), Error> {
        let (shared, permit) = (self.shared.clone(), permit.clone());
        beside(move || shared.cancel(&permit, id)).await?
    }

    /// Has a blob that lies here be one of this repository too, if `may` says so of one that has it. Whether it is.
    ///
    /// # Errors
    ///
    /// [`Error::Elsewhere`]; [`Error::Store`].
    pub async fn mount(
        &self,
        permit: &Permit,
        digest: &Digest,
        may: impl Fn(&Repository) -> bool,
        asker: &Asker,
    ) -> Result<bool, Error> {
        self.shared.admit(permit)?;
        let mut sources = self.shared.store.holders(digest);
        sources.retain(may);
        let mut is_vouched = false;
        for source in &sources {
            is_vouched = is_vouched || self.shared.fetch.vouch(source, digest, asker).await.is_ok();
        }
        if !is_vouched {
            return Ok(false);
        }
        let (store, repository, digest) = (self.shared.store.clone(), permit.repository().clone(), *digest);
        let mounted = beside(move || store.adopt(&repository, &digest)).await??;
        Ok(mounted.is_some())
    }
}

/// Does what may wait for the disk, while others are answered.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)
}

impl Shared {
    fn admit(&self, permit: &Permit) -> Result<(), Error> {
        let registry = &permit.repository().registry;
        if *registry != self.registry {
            return Err(Error::Elsewhere {
                registry: registry.clone(),
            });
        }
        self.sound.out(permit.repository());
        match self.closed_by() {
            Some(parent) => Err(Error::Closed {
                layer: parent.name().to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The parent, if it takes no pushes.
    fn closed_by(&self) -> Option<&Parent> {
        self.parent.as_ref().filter(|parent| parent.refuses_pushes())
    }

    /// To whom a push is owed.
    fn owing(&self, permit: &Permit) -> Option<Owing> {
        let parent = self.parent.as_ref()?;
        Some(Owing {
            to: parent.address(),
            by: permit.principal().name().to_owned(),
        })
    }

    /// Whether so many bytes more may wait for the parent.
    async fn admit_bytes(&self, more: u64) -> Result<(), Error> {
        let Some(most) = self.most_owed else { return Ok(()) };
        let fits = |owed: u64| owed.saturating_add(more) <= most.bytes();
        // What is owed is part of it, and it costs nothing to know.
        if fits(self.store.owned()) {
            return Ok(());
        }
        let mut seen = self.owed.lock().await;
        let now = self.clock.now();
        let (when, owed) = match *seen {
            Some((when, owed)) if now.saturating_duration_since(when) < OWED_FOR => (when, owed),
            _ => (now, self.store.owed_room(&[]).await?),
        };
        *seen = Some((when, owed));
        drop(seen);
        if fits(owed) {
            return Ok(());
        }
        Err(self.counted(Error::QueueFull { owed, most }))
    }

    /// The same of a manifest of so many bytes and what it `needs`, which lies here: from then on all of it is owed.
    async fn admit_image(&self, bytes: u64, needs: &[Digest]) -> Result<(), Error> {
        let Some(most) = self.most_owed else { return Ok(()) };
        let fits = |owed: u64| owed.saturating_add(bytes) <= most.bytes();
        if fits(self.store.owned()) {
            return Ok(());
        }
        let owed = self.store.owed_room(needs).await?;
        if fits(owed) {
            return Ok(());
        }
        Err(self.counted(Error::QueueFull { owed, most }))
    }

    /// The same, counted if a limit was reached.
    fn counted(&self, error: Error) -> Error {
        if matches!(
            error,
            Error::NoRoom(_) | Error::NoRoomForUploads(_) | Error::QueueFull { .. }
        ) {
            self.full.note(self.clock.now(), &error);
        }
        if let Some(limit) = error.limit() {
            self.metrics.refused(limit);
        }
        error
    }

    fn scope(&self, permit: &Permit) -> Scope {
        Scope::of(permit.principal().name(), permit.repository())
    }
}
