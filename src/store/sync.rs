//! Makes what was committed durable, in batches, while nobody waits.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use fail::fail_point;

use super::index::Row;
use super::{Shared, layout};
use crate::oci::Digest;

/// How long a batch gathers.
const GATHER: Duration = Duration::from_secs(1);

enum Job {
    Sync(Digest),
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
    pub(super) fn queue(&self, digest: Digest) {
        let _ = self.jobs.send(Job::Sync(digest));
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
            let mut batch = vec![first];
            while let Ok(job) = self.jobs.recv_timeout(GATHER) {
                let flush = matches!(job, Job::Flush(_));
                batch.push(job);
                if flush || batch.len() >= 256 {
                    break;
                }
            }
            let Some(shared) = shared.upgrade() else { return };
            sync(&shared, batch);
        }
    }
}

fn sync(shared: &Arc<Shared>, batch: Vec<Job>) {
    let mut done = Vec::new();
    let mut digests = Vec::new();
    for job in batch {
        match job {
            Job::Sync(digest) => digests.push(digest),
            Job::Flush(sender) => done.push(sender),
        }
    }
    digests.iter().for_each(|digest| sync_file(shared, digest));
    let folders: BTreeSet<_> = digests.iter().map(|digest| shared.layout.fan(digest)).collect();
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
fn sync_file(shared: &Arc<Shared>, digest: &Digest) {
    let path = shared.layout.blob(digest);
    let outcome = layout::open_blob(&path).and_then(|file| sync_data(&file));
    match outcome {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || is_ours(&error) => {}
        Err(error) => {
            tracing::error!(%digest, %error, "content could not be synced; it is dropped and will be fetched again");
            shared.ledger.lock().forget(digest);
            shared.index.write(Row::Gone(*digest));
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn sync_data(file: &File) -> io::Result<()> {
    fail_point!("store.sync", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    file.sync_data()
}

/// Whether the fault is this process's and says nothing of the file: too many are open, memory is short.
fn is_ours(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
    )
}
