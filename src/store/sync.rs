//! Makes what was committed durable, in batches, while nobody waits.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use fail::fail_point;

use super::blob::Pin;
use super::health::is_ours;
use super::index::now;
use super::ledger::Trust;
use super::{Blob, Error, Shared, layout};
use crate::oci::Digest;

/// How long a batch gathers.
const GATHER: Duration = Duration::from_secs(1);

enum Job {
    /// An entry of the ledger, by its serial number.
    Sync(Digest, u64),
    Flush(SyncSender<()>),
}

/// The sending end.
pub(super) struct Syncer {
    jobs: mpsc::Sender<Job>,
}

/// The receiving end, before the store is whole.
pub(super) struct Worker {
    jobs: Receiver<Job>,
}

pub(super) fn channel() -> (Syncer, Worker) {
    let (sender, jobs) = mpsc::channel();
    (Syncer { jobs: sender }, Worker { jobs })
}

impl Syncer {
    /// Has the content synced within a second or two.
    pub(super) fn queue(&self, digest: Digest, serial: u64) {
        let _ = self.jobs.send(Job::Sync(digest, serial));
    }

    /// Waits until everything queued before is synced and recorded as such.
    pub(super) fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.jobs.send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(60));
        }
    }
}

impl Worker {
    /// Runs until the store is dropped.
    pub(super) fn start(self, shared: Weak<Shared>) -> std::io::Result<()> {
        thread::Builder::new()
            .name("sync".into())
            .spawn(move || self.run(&shared))
            .map(drop)
    }

    fn run(self, shared: &Weak<Shared>) {
        while let Ok(first) = self.jobs.recv() {
            let batch = gather(first, &self.jobs);
            let Some(shared) = shared.upgrade() else { return };
            sync(&shared, batch);
        }
    }
}

/// What comes within [`GATHER`] of the first, until somebody waits for it.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut batch = vec![first];
    let end = now() + GATHER;
    while !matches!(batch.last(), Some(Job::Flush(_))) && batch.len() < 256 {
        match jobs.recv_timeout(end.saturating_duration_since(now())) {
            Ok(job) => batch.push(job),
            Err(_) => break,
        }
    }
    batch
}

fn sync(shared: &Arc<Shared>, batch: Vec<Job>) {
    let mut done = Vec::new();
    let mut entries = Vec::new();
    for job in batch {
        match job {
            Job::Sync(digest, serial) => entries.push((digest, serial)),
            Job::Flush(sender) => done.push(sender),
        }
    }
    entries.retain(|(digest, serial)| sync_file(shared, digest, *serial));
    let folders: BTreeSet<_> = entries.iter().map(|(digest, _)| shared.layout.fan(digest)).collect();
    let mut all_synced = true;
    for folder in folders {
        if let Err(error) = layout::sync_folder(&folder) {
            all_synced = false;
            tracing::warn!(folder = %folder.display(), %error, "a folder could not be synced; what it holds may be gone after a power cut");
        }
    }
    if all_synced {
        let mut ledger = shared.ledger.lock();
        for (digest, serial) in &entries {
            ledger.set_durable(digest, *serial);
        }
    }
    for sender in done {
        let _ = sender.send(());
    }
}

/// Files that are synced at a time where somebody waits: the file system writes its journal once for those that wait together.
const AT_ONCE: usize = 8;

impl Shared {
    /// Has the files of these survive a power cut, with their names. What cannot be synced is lost, and is not here any
    /// more. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: a folder could not be synced.
    pub(super) fn make_durable(self: &Arc<Self>, digests: &[Digest]) -> Result<(), Error> {
        // A test of the tests: what if nothing were synced?
        fail_point!("store.unsynced.content", |_| Ok(()));
        loop {
            let wanting = self.ledger.lock().not_durable(digests);
            if wanting.is_empty() {
                return Ok(());
            }
            let synced = self.sync_files(&wanting);
            let folders: BTreeSet<_> = synced.iter().map(|(digest, _)| self.layout.fan(digest)).collect();
            for folder in folders {
                layout::sync_folder(&folder).map_err(Error::io("syncing", &folder))?;
            }
            let mut ledger = self.ledger.lock();
            for (digest, serial) in &synced {
                ledger.set_durable(digest, *serial);
            }
            // What was pushed once more meanwhile is another file, and has its turn next.
            let left = ledger.not_durable(digests);
            if let Some((digest, _)) = left.iter().find(|file| wanting.contains(file)) {
                let path = self.layout.blob(digest);
                return Err(Error::io("syncing", &path)(io::Error::other(
                    "it is not known to be safe there",
                )));
            }
        }
    }

    /// Whether the bytes are those of the name: what an earlier process left is hashed before anything is promised of it.
    fn is_right(self: &Arc<Self>, digest: &Digest) -> bool {
        match Blob::open(self, digest) {
            Ok(Some(blob)) => blob.is_verified() || blob.verify(|_| {}).is_ok(),
            _ => false,
        }
    }

    /// Those of these that were synced.
    fn sync_files(self: &Arc<Self>, files: &[(Digest, u64)]) -> Vec<(Digest, u64)> {
        let sync_some = |some: &[(Digest, u64)]| -> Vec<(Digest, u64)> {
            let each = some.iter().copied();
            each.filter(|(digest, serial)| self.is_right(digest) && sync_file(self, digest, *serial))
                .collect()
        };
        if files.len() == 1 {
            return sync_some(files);
        }
        thread::scope(|scope| {
            let chunks = files.chunks(files.len().div_ceil(AT_ONCE));
            let threads: Vec<_> = chunks.map(|some| scope.spawn(move || sync_some(some))).collect();
            let synced = threads.into_iter().filter_map(|thread| thread.join().ok());
            synced.flatten().collect()
        })
    }
}

/// Whether the file was synced. An fsync that failed is never tried again: the bytes are as good as lost (ext4 marks them clean).
fn sync_file(shared: &Arc<Shared>, digest: &Digest, serial: u64) -> bool {
    // A later one of the same name has a job of its own, which must be the one that hears of its faults.
    // Pinned: what is evicted meanwhile would stay on the disk, off the books, until it is closed here. Where there is no
    // room but this, the next pull passes unkept as long as the sync takes.
    let Some(_pin) = Pin::take(shared, *digest, serial) else {
        return false;
    };
    let path = shared.layout.blob(digest);
    let outcome = layout::open_blob(&path).and_then(|file| sync_data(&file));
    match outcome {
        Ok(()) => return true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || is_ours(&error) => {}
        Err(error) => {
            let lost = {
                let mut ledger = shared.ledger.lock();
                if ledger.is_old(digest, serial) {
                    tracing::error!(%digest, %error, "content of an earlier run could not be synced; it stays");
                    ledger.set_trust(digest, serial, Trust::Unverified);
                    // The system calls the pages clean now: they are read from the disk when they are hashed again.
                    if let Ok(file) = layout::open_blob(&path) {
                        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                    }
                    None
                } else {
                    tracing::error!(%digest, %error, "content could not be synced; it is dropped and will be fetched again");
                    ledger.lose(digest, serial)
                }
            };
            shared.health.note(&Error::io("syncing", &path)(error));
            shared.unlink(lost.into_iter().collect());
        }
    }
    false
}

fn sync_data(file: &File) -> io::Result<()> {
    fail_point!("store.sync", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_does_not_wait_longer_because_others_join_it() {
        let (syncer, worker) = channel();
        let joining = thread::spawn(move || {
            for count in 0..8_u8 {
                syncer.queue(Digest::of(&[count]), count.into());
                thread::sleep(GATHER / 4);
            }
        });

        let first = worker.jobs.recv().unwrap();
        let batch = gather(first, &worker.jobs);

        assert!(batch.len() < 8, "{} jobs", batch.len());
        joining.join().unwrap();
    }
}
