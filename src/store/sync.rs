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
use super::{Error, Shared, layout};
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
    for (digest, serial) in &entries {
        sync_file(shared, digest, *serial);
    }
    let folders: BTreeSet<_> = entries.iter().map(|(digest, _)| shared.layout.fan(digest)).collect();
    for folder in folders {
        if let Err(error) = layout::sync_folder(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a folder could not be synced; what it holds may be gone after a power cut");
        }
    }
    for sender in done {
        let _ = sender.send(());
    }
}

/// An fsync that failed is never tried again: the bytes are as good as lost (ext4 marks them clean).
fn sync_file(shared: &Arc<Shared>, digest: &Digest, serial: u64) {
    // A later one of the same name has a job of its own, which must be the one that hears of its faults.
    // Pinned: what is evicted meanwhile would stay on the disk, off the books, until it is closed here. Where there is no
    // room but this, the next pull passes unkept as long as the sync takes.
    let Some(_pin) = Pin::take(shared, *digest, serial) else {
        return;
    };
    let path = shared.layout.blob(digest);
    let outcome = layout::open_blob(&path).and_then(|file| sync_data(&file));
    match outcome {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || is_ours(&error) => {}
        Err(error) => {
            tracing::error!(%digest, %error, "content could not be synced; it is dropped and will be fetched again");
            shared.health.note(&Error::io("syncing", &path)(error));
            let lost = shared.ledger.lock().lose(digest, serial);
            shared.unlink(lost.into_iter().collect());
        }
    }
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
