//! Room on the disk: what the budget and the file system both grant, and who leaves for it.

use std::io;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fail::fail_point;

use super::index::Row;
use super::ledger::{Ledger, Victim};
use super::relief::Relief;
use super::space::LOOK;
use super::{Error, Shared, layout};

impl Shared {
    /// Reserves `bytes` for the writer who counts in `unwritten`, and unlinks what had to leave for it.
    pub(super) fn make_room(&self, bytes: u64, unwritten: &AtomicU64) -> Result<(), Error> {
        self.grant(bytes, None, unwritten).map(drop)
    }

    /// Reserves for a whole download, over what an earlier attempt left at `path`; the bytes granted.
    pub(super) fn make_room_over(&self, path: &Path, wanted: u64, unwritten: &AtomicU64) -> Result<u64, Error> {
        self.grant(wanted, Some(path), unwritten)
    }

    /// What lies at `scrap` is part of what is granted, or a scrap as before: it is on the books at every instant.
    fn grant(&self, wanted: u64, scrap: Option<&Path>, unwritten: &AtomicU64) -> Result<u64, Error> {
        let spare = self.space.look()?;
        let mut ledger = self.ledger.lock();
        // It may have been named as a victim since the writer had its turn.
        let is_leaving = |ledger: &Ledger| scrap.is_some_and(|path| ledger.is_leaving(&Victim::Scrap(path.to_owned())));
        while is_leaving(&ledger) {
            self.left.wait(&mut ledger);
        }
        ledger.see(spare);
        let scrap = scrap.and_then(|path| Some((path, ledger.take_scrap(path)?)));
        let present = scrap.map_or(0, |(_, room)| room);
        let wanted = wanted.max(present);
        let keep = |ledger: &mut Ledger| {
            if let Some((path, room)) = scrap {
                ledger.keep_scrap(path.to_owned(), room);
            }
        };
        let victims = match ledger.reserve(wanted, present) {
            Ok(victims) => victims,
            Err(error) => {
                keep(&mut ledger);
                if matches!(error, Error::Crowded { .. }) {
                    self.space.refused(&spare, wanted);
                }
                return Err(error);
            }
        };
        unwritten.fetch_add(wanted.saturating_sub(present), Ordering::Relaxed);
        let in_the_way = ledger.in_the_way();
        drop(ledger);
        // What is the writer's own to unlink comes first: nobody waits for one who waits.
        let relief = (!victims.is_empty()).then(|| self.unlink(victims));
        self.wait_for(&in_the_way);
        if let Some(relief) = relief
            && let Err(error) = self.is_made(wanted, relief)
        {
            let mut ledger = self.ledger.lock();
            unwritten.fetch_sub(wanted.saturating_sub(present), Ordering::Relaxed);
            ledger.release(wanted);
            keep(&mut ledger);
            return Err(error);
        }
        self.space.seen(&spare);
        Ok(wanted)
    }

    /// Waits until these have left, as far as the disk would hold more than it may beside them.
    fn wait_for(&self, in_the_way: &[Victim]) {
        if in_the_way.is_empty() {
            return;
        }
        let mut ledger = self.ledger.lock();
        while ledger.are_in_the_way(in_the_way) {
            self.left.wait(&mut ledger);
        }
    }

    /// Whether the file system has the room now that something left for it.
    fn is_made(&self, wanted: u64, relief: Relief) -> Result<(), Error> {
        let spare = self.space.look()?;
        let mut ledger = self.ledger.lock();
        ledger.see(spare);
        if !ledger.is_crowded() {
            return Ok(());
        }
        self.space.relieved(wanted, relief);
        self.space.refused(&spare, wanted);
        Err(ledger.crowded(wanted))
    }

    /// Has content leave while others fill the disk, so that what is to be kept free is free.
    fn keep_free(&self) {
        // What is read-only takes nothing and gives nothing.
        let Ok(spare) = self.space.look() else { return };
        self.space.seen(&spare);
        let victims = {
            let mut ledger = self.ledger.lock();
            ledger.see(spare);
            ledger.make_way()
        };
        if victims.is_empty() {
            if spare.bytes < 0 || spare.files < 0 {
                self.space.refused(&spare, 0);
            }
        } else {
            tracing::warn!(
                files = victims.len(),
                free = spare.free,
                keep_free = spare.kept,
                "others fill the disk; content leaves for them"
            );
            let relief = self.unlink(victims);
            // What could not be had is said in words.
            let _ = self.is_made(0, relief);
        }
    }

    pub(super) fn unlink(&self, victims: Vec<Victim>) -> Relief {
        let mut relief = Relief::from(self.space.stock());
        for victim in victims {
            let path = match &victim {
                Victim::Blob(digest) => {
                    self.hot.forget(digest);
                    self.index.write(Row::Gone(*digest));
                    self.layout.blob(digest)
                }
                Victim::Scrap(path) => path.clone(),
            };
            fail_point!("store.evict.before_unlink");
            let room = path.symlink_metadata().map_or(0, |metadata| layout::room(&metadata));
            let before = self.space.stock();
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(path = %path.display(), %error, "an evicted file could not be removed; it counts against the budget until a restart");
                self.ledger.lock().count_stuck(room);
            }
            relief.add(room, before, self.space.stock());
            fail_point!("store.evict.after_unlink");
            self.ledger.lock().left(&victim);
            self.left.notify_all();
        }
        relief
    }
}

/// Looks at the file system now and then until the store is dropped.
pub(super) fn watch(shared: Weak<Shared>) -> io::Result<()> {
    let run = move || {
        loop {
            thread::sleep(LOOK);
            let Some(shared) = shared.upgrade() else { return };
            shared.keep_free();
        }
    };
    thread::Builder::new().name("space".into()).spawn(run).map(drop)
}
