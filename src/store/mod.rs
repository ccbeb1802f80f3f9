//! Content-addressed files on disk and every record about them.
//!
//! ```text
//! <path>/wharf.lock                   one process per store
//!        index.db  journal.log        records; the second copy of what exists nowhere else
//!        tokens  keys  *.copy         who may log in, and what logins are signed with; each twice
//!        blobs/<alg>/<2 hex>/<hex>    committed, immutable, read-only: blobs and manifests alike
//!        partial/<alg>-<hex>          a download under way; kept across cuts and restarts
//!        uploads/<uuid>.<scope>       a push under way; kept like it, until it takes too long
//!        quarantine/<alg>-<hex>       what failed its digest after it was committed
//! ```
//!
//! A file enters `blobs/` by one rename, after its bytes were hashed; what an earlier process left is
//! hashed once more. Nothing is written before the ledger granted the room for it. Files that wharf did not
//! write are neither read nor removed.

mod blob;
mod check;
mod config;
mod debt;
mod error;
mod events;
mod fact;
mod health;
mod hot;
mod index;
mod journal;
mod kept;
mod layout;
mod ledger;
mod metrics;
mod own;
mod place;
mod preview;
mod records;
mod recover;
mod release;
mod relief;
mod room;
mod sending;
mod space;
mod staged;
mod sync;
mod upload;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

pub use blob::Blob;
pub use config::Config;
pub use debt::{Debt, Named, Owing, State, What, paid_now, undone_now};
pub use error::Error;
pub use events::{About, Event};
pub use hot::Held;
pub use kept::Kept;
pub use metrics::Metrics;
pub use own::{Hide, Pushed, Swept};
pub use place::inspect;
pub use preview::{is_at, newer};
pub use records::{Confirmed, Link, Origin, Slot, TagRow};
pub use release::Purge;
pub use staged::{Spool, Staged};
pub use upload::{LeftUpload, Scope, Upload};

use self::health::Health;
use self::hot::Hot;
use self::index::{Index, Row, now};
use self::journal::Journal;
use self::layout::Layout;
use self::ledger::Ledger;
use self::records::Records;
use self::space::Space;
use crate::oci::{Digest, Repository};

/// The store: cheap to clone, one per process and folder.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What every handle and every open blob shares.
///
/// Its locks are never held across an await. Of `placing`, `records` and `ledger` a later one may be taken while an earlier
/// one is held, and never the other way round.
pub(crate) struct Shared {
    layout: Layout,
    /// Bytes: what is here, what is promised, who goes first.
    ledger: Mutex<Ledger>,
    /// With the ledger: a victim was unlinked, or what was kept of a download was closed.
    left: Condvar,
    /// Names: repositories, tags, what they point at.
    records: Mutex<Records>,
    index: Index,
    journal: Journal,
    /// Held while a file gets its name under `blobs/`, until it is in the books.
    placing: Mutex<()>,
    /// Held while something is kept twice.
    keeping: Mutex<()>,
    hot: Hot,
    syncer: sync::Syncer,
    health: Health,
    space: Space,
    metrics: Metrics,
    /// Unique among all nodes; lives as long as the index.
    instance: String,
}

impl Store {
    /// Opens the folder, whatever lies in it, and takes its lock.
    ///
    /// A damaged index is moved aside and rebuilt from the files. Blocks: reads the directory tree (100,000 files take about 0.3 s).
    ///
    /// # Errors
    ///
    /// * [`Error::Locked`]: another process holds the store.
    /// * [`Error::Newer`]: a newer wharf wrote it; it is left untouched.
    /// * [`Error::Io`]: the folder cannot be made or locked, or the index cannot be read now though nothing is
    ///   known to be wrong with it.
    pub fn open(config: &Config, metrics: Metrics) -> Result<Self, Error> {
        recover::open(config, metrics).map(|shared| Self { shared })
    }

    /// A few random letters that tell this installation from every other.
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// Proof that `repository` may hand out `digest`, if the content is here and that was confirmed.
    pub fn linked(&self, repository: &Repository, digest: &Digest) -> Option<Link> {
        let id = self.shared.records.lock().repository_id(repository)?;
        let ledger = self.shared.ledger.lock();
        let entry = ledger.offered(digest, now)?;
        entry.repositories.contains(&id).then(|| Link::new(*digest))
    }

    /// Whether the content lies here, for whatever repository. What the disk refused again and again does not, for a while.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.shared.ledger.lock().offered(digest, now).is_some()
    }

    /// Bytes of linked content; `None` if it is gone meanwhile.
    pub fn size(&self, link: &Link) -> Option<u64> {
        self.shared.ledger.lock().entry(link.digest()).map(|entry| entry.size)
    }

    /// Bytes of what lies here, for whoever counts: that it is here says nothing of who may have it.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.shared.ledger.lock().entry(digest).map(|entry| entry.size)
    }

    /// Records that `repository`'s upstream has this content. Nothing happens if it is not here.
    pub fn link(&self, repository: &Repository, digest: &Digest) -> Option<Link> {
        let shared = &self.shared;
        let id = shared.records.lock().enrol(repository, &shared.index);
        if shared.ledger.lock().link(digest, id)? {
            shared.index.write(Row::Link {
                repository: id,
                digest: *digest,
            });
        }
        Some(Link::new(*digest))
    }

    /// Opens linked content for reading and marks it as used. `None` if it is gone meanwhile.
    ///
    /// What this process has not hashed yet is the caller's to hash ([`Blob::verify`]) before the last of it
    /// is handed out. The returned blob keeps the file from being evicted.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: it cannot be opened now. Passes with time.
    pub fn read(&self, link: &Link) -> Result<Option<Blob>, Error> {
        Blob::open(&self.shared, link.digest())
    }

    /// Linked content of at most a few megabytes, whole: from memory if it was read lately.
    ///
    /// For manifests and what is kept like them; hashed when it is read from the disk. Marks the closure
    /// as used. `None` too for what is larger than [`Held::MOST`], and for what turned out to be damaged.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    pub async fn held(&self, link: &Link) -> Result<Option<Arc<Held>>, Error> {
        if let Some(held) = self.held_at_once(link) {
            return Ok(Some(held));
        }
        let Some(blob) = self.read(link)?.filter(|blob| blob.size() <= Held::MOST) else {
            return Ok(None);
        };
        let held = tokio::task::spawn_blocking(move || {
            let bytes = blob.checked_bytes().ok()?;
            Some(Arc::new(Held::new(*blob.digest(), blob.media_type(), bytes)))
        })
        .await;
        let Ok(Some(held)) = held else { return Ok(None) };
        self.shared.hot.keep(held.clone());
        self.touch_closure(&held);
        Ok(Some(held))
    }

    /// The same, if it was read lately.
    pub fn held_at_once(&self, link: &Link) -> Option<Arc<Held>> {
        let held = self.shared.hot.get(link.digest())?;
        self.touch_closure(&held);
        Some(held)
    }

    /// Keeps content from being evicted, be it here already or not: a rule selects it.
    pub fn select<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) {
        let mut ledger = self.shared.ledger.lock();
        digests.into_iter().for_each(|digest| ledger.select(*digest));
    }

    /// Keeps these from being evicted, and nothing else that was selected before.
    pub fn select_only(&self, digests: HashSet<Digest>) {
        self.shared.ledger.lock().select_only(digests);
    }

    /// Whether an earlier download of `digest` left something to continue.
    pub fn has_left(&self, digest: &Digest) -> bool {
        let path = self.shared.layout.partial(digest);
        let ledger = self.shared.ledger.lock();
        ledger.has_scrap(&path) || ledger.kept_spool(digest).is_some()
    }

    /// Begins or continues a download of `digest`.
    ///
    /// `size` in bytes, if known, is reserved before this returns; else room is reserved while writing.
    /// What an earlier attempt left behind is to be hashed again, and can be continued ([`Staged::catch_up`]).
    ///
    /// # Errors
    ///
    /// * [`Error::Full`]: nothing that could be evicted makes room.
    /// * [`Error::Io`]: the disk refused.
    pub fn stage(&self, digest: &Digest, size: Option<u64>) -> Result<Staged, Error> {
        let staged = Staged::begin(&self.shared, digest, size);
        staged.inspect_err(|error| self.shared.health.note(error))
    }

    /// Keeps a small document under its digest, linked in `repository`. Blocks for one short write.
    ///
    /// # Errors
    ///
    /// As [`Store::stage`] and [`Staged::commit`].
    pub fn put(&self, repository: &Repository, held: Arc<Held>) -> Result<(), Error> {
        if !self.holds(held.digest()) {
            let mut staged = self.stage(held.digest(), Some(held.bytes().len() as u64))?;
            staged.restart()?;
            staged.write(std::slice::from_ref(held.bytes()))?;
            staged.commit(Some(held.media_type()))?;
        }
        self.link(repository, held.digest());
        self.shared.hot.keep(held);
        Ok(())
    }

    /// What `slot` of `repository` points at, as last confirmed.
    pub fn tag(&self, repository: &Repository, slot: &Slot) -> Option<TagRow> {
        self.shared.records.lock().tag(repository, slot).cloned()
    }

    /// Points `slot` at `digest`, as the parent said at `confirmed`. A move is an event.
    pub fn confirm(&self, repository: &Repository, slot: &Slot, digest: &Digest, confirmed: Confirmed) {
        {
            let mut records = self.shared.records.lock();
            records.confirm(repository, slot, digest, confirmed, &self.shared.index);
        }
        if let Slot::Tag(tag) = slot {
            self.shared.hand_back(repository, tag, digest, confirmed);
        }
    }

    /// Forgets `slot`: the parent said that it does not exist.
    pub fn untag(&self, repository: &Repository, slot: &Slot) {
        self.shared.records.lock().untag(repository, slot, &self.shared.index);
    }

    /// The tags of `repository` that were ever confirmed and not hidden, in ASCII order.
    pub fn tags(&self, repository: &Repository) -> Vec<String> {
        self.shared.records.lock().tags(repository)
    }

    /// Every repository that has a tag here, in the order of their names.
    pub fn repositories(&self) -> Vec<Repository> {
        let mut repositories = self.shared.records.lock().repositories();
        repositories.sort_by_cached_key(ToString::to_string);
        repositories
    }

    /// The sequence number of the last event; it can be waited on.
    pub fn sequence(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.records.lock().sequence()
    }

    /// Bytes that may lie on disk.
    pub fn capacity(&self) -> u64 {
        self.shared.ledger.lock().capacity()
    }

    /// Bytes that could still be written without evicting anything.
    pub fn free_bytes(&self) -> u64 {
        self.shared.ledger.lock().free()
    }

    /// What the disk refused when it was last written to, in words; `None` if it took it.
    pub fn trouble(&self) -> Option<String> {
        self.shared.health.trouble().or_else(|| self.shared.space.trouble())
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        let metrics = &self.shared.metrics;
        metrics.degraded.set(self.trouble().is_some().into());
        if let Some(free) = self.shared.space.free() {
            metrics.see_free(free);
        }
        metrics.observe(&self.shared.ledger.lock());
    }

    /// Waits until everything that was written is on the disk and on record. Blocks.
    pub fn flush(&self) {
        self.shared.syncer.flush();
        self.shared.write_recency();
        self.shared.index.flush();
    }

    /// What belongs to an image stays or leaves together: a pull of a manifest renews all it names.
    ///
    /// Nothing is to be done while nothing else was used since: a hot manifest is asked for thousands of times.
    fn touch_closure(&self, held: &Held) {
        if held.touched.load(Ordering::Relaxed) == self.shared.ledger.lock().uses() {
            return;
        }
        let children: Vec<Arc<Held>> = held.children().filter_map(|child| self.shared.hot.get(child)).collect();
        let mut ledger = self.shared.ledger.lock();
        let grandchildren = children.iter().flat_map(|child| child.children());
        for digest in grandchildren.chain(held.children()).chain([held.digest()]) {
            ledger.touch(digest);
        }
        held.touched.store(ledger.uses(), Ordering::Relaxed);
    }
}

impl Shared {
    /// Writes down who was used last, so that a restart evicts in the same order. Losing some is harmless.
    fn write_recency(&self) {
        let used = self.ledger.lock().take_used();
        if !used.is_empty() {
            self.index.write(Row::Used(used));
        }
    }

    /// Has the journal say once what it says again and again.
    fn shorten_journal(&self) {
        if self.journal.is_due() && !self.layout.takes_nothing() {
            self.write_journal_anew();
        }
    }

    fn write_journal_anew(&self) {
        let Some(_turn) = self.journal.turn_to_write_anew() else {
            return;
        };
        // Together: nothing is appended between the two.
        let (facts, end) = {
            let records = self.records.lock();
            (records.facts(), self.journal.end())
        };
        match self.journal.write_anew(&self.layout, &facts, end) {
            Ok(()) => tracing::debug!(repositories = facts.len(), "the journal was written anew"),
            Err(error) => {
                tracing::warn!(%error, "the journal could not be written anew; the old one is used");
                self.health.note(&error);
            }
        }
    }
}
