//! Opening a folder, whatever lies in it, and hashing what nobody vouches for.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::hot::Hot;
use super::index::{self, Contents, Row, StoredBlob, Unusable};
use super::layout::{self, Layout};
use super::ledger::{Entry, Ledger, Trust};
use super::records::Records;
use super::{Config, Error, Metrics, Shared, journal, sync};
use crate::oci::{Digest, Hasher, Repository};

/// Opens the folder; see `Store::open`.
pub(super) fn open(config: &Config, metrics: Metrics) -> Result<Arc<Shared>, Error> {
    let layout = Layout::open(&config.path)?;
    journal::open(&layout)?;
    let (opened, mut contents) = open_index(&layout)?;
    let (index, writer) = opened.writer();
    let (syncer, worker) = sync::channel();

    let mut ledger = Ledger::new(config.capacity.bytes());
    ledger.allow(writer.allowance() + journal::room(&layout));
    let lost = adopt_blobs(&layout, &mut ledger, &mut contents);
    adopt_links(&mut ledger, &contents);
    for folder in [layout.partials(), layout.quarantine()] {
        layout
            .scraps(&folder)
            .into_iter()
            .for_each(|(path, metadata)| ledger.keep_scrap(path, layout::room(&metadata)));
    }
    let records = adopt_names(&contents);
    lost.into_iter().for_each(|digest| index.write(Row::Gone(digest)));

    let shared = Arc::new(Shared {
        layout,
        ledger: Mutex::new(ledger),
        records: Mutex::new(records),
        index,
        hot: Hot::new(),
        syncer,
        metrics,
        instance: contents.instance,
    });
    let thread = Error::io("starting a thread for", &config.path);
    writer
        .start(Arc::downgrade(&shared))
        .and_then(|()| worker.start(Arc::downgrade(&shared)))
        .map_err(thread)?;
    shared.fit();
    Ok(shared)
}

/// Hashes a stored file. What fails leaves for the quarantine; blocks for as long as the reading takes.
pub(super) fn verify(shared: &Arc<Shared>, digest: &Digest) -> bool {
    match hash(shared, digest) {
        Ok(actual) if actual == *digest => {
            shared.vouch_for(digest);
            return true;
        }
        Ok(actual) => {
            tracing::warn!(%digest, %actual, "stored content is damaged; it goes to quarantine and will be fetched again")
        }
        Err(error) if is_ours(&error) => {
            tracing::warn!(%digest, %error, "stored content could not be checked now");
            return false;
        }
        Err(error) => {
            tracing::warn!(%digest, %error, "stored content could not be read; it goes to quarantine and will be fetched again")
        }
    }
    isolate(shared, digest);
    false
}

/// Takes damaged content out of the store; it will be fetched again.
pub(super) fn isolate(shared: &Arc<Shared>, digest: &Digest) {
    shared.metrics.quarantined.inc();
    let entry = shared.ledger.lock().forget(digest);
    shared.hot.forget(digest);
    shared.index.write(Row::Gone(*digest));
    match (shared.layout.isolate(digest), entry) {
        (Ok(path), Some(entry)) => shared.ledger.lock().keep_scrap(path, entry.room),
        (Err(error), _) => tracing::warn!(%digest, %error, "damaged content could not be moved"),
        (Ok(_), None) => {}
    }
}

impl Shared {
    /// Records content whose bytes were just hashed, as a start may have found it without a record.
    fn vouch_for(&self, digest: &Digest) {
        let mut ledger = self.ledger.lock();
        ledger.set_verified(digest);
        let Some(entry) = ledger.entry(digest) else { return };
        let (size, media_type) = (entry.size, entry.media_type.clone());
        drop(ledger);
        self.index.write(Row::Blob {
            digest: *digest,
            size,
            media_type,
        });
        self.syncer.queue(*digest);
    }

    /// Evicts what is over the budget: it may have been larger when this was last open.
    fn fit(&self) {
        if let Err(error) = self.make_room(1) {
            tracing::warn!(%error, "the store begins over its budget");
            return;
        }
        self.ledger.lock().release(1);
    }
}

fn open_index(layout: &Layout) -> Result<(index::Opened, Contents), Error> {
    let path = layout.index();
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        layout.set_aside(&path)?;
    }
    match index::open(&path) {
        Ok(opened) => return Ok(opened),
        Err(Unusable::Newer(error)) => return Err(error),
        Err(Unusable::Damaged(error)) => {
            tracing::error!(%error, path = %path.display(), "the index is unusable; it is set aside and rebuilt from the files");
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        let file = std::path::PathBuf::from(name);
        if file.symlink_metadata().is_ok() {
            layout.set_aside(&file)?;
        }
    }
    index::open(&path).map_err(|unusable| match unusable {
        Unusable::Newer(error) => error,
        Unusable::Damaged(error) => Error::io("making", &path)(std::io::Error::other(error)),
    })
}

/// Enters every file in the ledger, coldest first; returns what is on record but not on disk.
fn adopt_blobs(layout: &Layout, ledger: &mut Ledger, contents: &mut Contents) -> Vec<Digest> {
    let mut recorded: HashMap<Digest, StoredBlob> = contents.blobs.drain(..).map(|blob| (blob.digest, blob)).collect();
    let mut found: Vec<(Digest, Entry)> = layout
        .committed()
        .into_iter()
        .map(|(digest, metadata)| (digest, entry(&metadata, recorded.remove(&digest))))
        .collect();
    found.sort_by_key(|(_, entry)| entry.used);
    found
        .into_iter()
        .for_each(|(digest, entry)| ledger.adopt(digest, entry));
    recorded.into_keys().collect()
}

fn entry(metadata: &Metadata, recorded: Option<StoredBlob>) -> Entry {
    let vouched = recorded
        .as_ref()
        .is_some_and(|blob| blob.synced && blob.size == metadata.len());
    let trust = if vouched { Trust::Verified } else { Trust::Unverified };
    let (used, media_type) = recorded.map_or((0, None), |blob| (blob.used, blob.media_type));
    let mut entry = Entry::new(metadata.len(), layout::room(metadata), trust, media_type.map(Arc::from));
    entry.used = used;
    entry
}

/// A link of a repository that is not on record is nobody's: its number may be given anew.
fn adopt_links(ledger: &mut Ledger, contents: &Contents) {
    let known: HashSet<u32> = contents.repositories.iter().map(|(id, _)| *id).collect();
    for (digest, repository) in contents.links.iter().filter(|(_, id)| known.contains(id)) {
        ledger.link(digest, *repository);
    }
}

fn adopt_names(contents: &Contents) -> Records {
    let highest = contents
        .links
        .iter()
        .map(|(_, id)| *id)
        .chain(contents.slots.iter().map(|(id, ..)| *id))
        .max();
    let mut records = Records::new(contents.sequence, highest.unwrap_or(0));
    let mut names: HashMap<u32, &Repository> = HashMap::new();
    for (id, repository) in &contents.repositories {
        records.adopt_repository(*id, repository.clone());
        names.insert(*id, repository);
    }
    for (id, key, row) in &contents.slots {
        if let Some(repository) = names.get(id) {
            records.adopt_slot(repository, key, row.clone());
        }
    }
    records
}

fn hash(shared: &Shared, digest: &Digest) -> std::io::Result<Digest> {
    let file = layout::open_blob(&shared.layout.blob(digest))?;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let read = file.read_at(&mut buffer, position)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
        position += read as u64;
    }
}

/// Whether the fault is this process's and says nothing of the file: too many are open, memory is short.
pub(super) fn is_ours(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
    )
}
