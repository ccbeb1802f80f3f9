//! The disk budget: a reservation before every byte, and who leaves first.
//!
//! Invariant: `allowance + committed + scraps + reserved <= capacity` after every call, except that a
//! store may be opened over budget, when it evicts at once. Whoever is granted room unlinks the
//! victims before it writes, and waits for those that others unlink where both do not fit, so what lies on the disk never
//! exceeds the capacity either. A file that is still read keeps its room until it is closed.
//!
//! A file is unlinked by its name after the lock is given up. Until then it is leaving: nobody begins to write
//! under that name, and what is being written is no victim, so what is unlinked is what was meant.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::Error;
use super::index::Row;
use super::records::RepositoryId;
use super::space::Spare;
use super::staged::Spool;
use crate::oci::Digest;

/// Uploads may take one part in so many of the budget.
const UPLOADS: u64 = 2;

/// Bytes, promised and present.
pub(super) struct Ledger {
    capacity: u64,
    /// Held for the index and the journal.
    allowance: u64,
    /// Taken by files that could not be unlinked.
    stuck: u64,
    /// Room of everything in `entries`.
    committed: u64,
    /// Granted to writers.
    reserved: u64,
    /// Of it, what uploads were granted or are about to be.
    uploads: u64,
    /// Most recently used first.
    entries: LruCache<Digest, Entry>,
    /// Facts that say that it is here, of each digest: it may exist nowhere else.
    owners: HashMap<Digest, u32>,
    /// Room of those of them that are here.
    owned: u64,
    /// What rules select: it does not leave for what somebody merely asked for.
    selected: HashSet<Digest>,
    /// Partial downloads nobody works on, and the quarantine: these leave before any blob.
    scraps: LruCache<PathBuf, u64>,
    scrap_bytes: u64,
    /// Digests that are being written, with the bytes that were granted and are not on the disk yet: one writer at a time
    /// for each, as they share a file.
    staging: HashMap<Digest, Arc<AtomicU64>>,
    /// Partial downloads that nobody writes and somebody still reads. Their room is part of `reserved`.
    kept: HashMap<Digest, Weak<Spool>>,
    /// Files that left the books while they were read, by serial; part of `reserved`.
    unlisted: HashMap<u64, Unlisted>,
    /// Named as victims and not unlinked yet, with the room that this will free.
    leaving: HashMap<Victim, u64>,
    /// What the file system could take when it was last looked at.
    spare: Spare,
    /// Given to entries, so that a reader of one that is gone does not speak for its successor.
    serials: u64,
    /// Grows with each use; the order of a restart.
    uses: u64,
    used: Vec<Digest>,
    evicted: u64,
}

/// How long content that the disk refuses is taken for not being here, for the first time.
const FIRST_SHUN: Duration = Duration::from_secs(10);

/// One committed file.
pub(super) struct Entry {
    /// Bytes of content.
    pub(super) size: u64,
    /// Bytes of blocks.
    pub(super) room: u64,
    pub(super) trust: Trust,
    /// As it was first accepted, exact. Manifests only.
    pub(super) media_type: Option<Arc<str>>,
    /// Repositories whose upstream confirmed that they have it, or that it was pushed to.
    pub(super) repositories: Vec<RepositoryId>,
    /// Whether an earlier process left it.
    is_old: bool,
    /// Whether the file and its name survive a power cut, as far as this process knows.
    is_durable: bool,
    pub(super) used: u64,
    /// Which entry of the digest this is, counted over all.
    pub(super) serial: u64,
    /// Open readers; an entry that is read is not evicted.
    readers: u32,
    unsaved: bool,
    /// How often in a row the disk neither gave it back right nor moved it away.
    failures: u32,
    /// Until when it is taken for not being here.
    shunned_until: Option<Instant>,
}

/// A file that is no entry any more, and is still open.
struct Unlisted {
    room: u64,
    readers: u32,
    /// Where it lies, if it is to be a scrap once it is closed.
    scrap: Option<PathBuf>,
}

/// Whether the bytes on disk were hashed by this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    Verified,
    Unverified,
}

/// What has to be unlinked before granted room is written to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Victim {
    Blob(Digest),
    Scrap(PathBuf),
}

impl Entry {
    pub(super) fn new(size: u64, room: u64, trust: Trust, media_type: Option<Arc<str>>) -> Self {
        Self {
            size,
            room,
            trust,
            media_type,
            repositories: Vec::new(),
            is_old: false,
            is_durable: false,
            used: 0,
            serial: 0,
            readers: 0,
            unsaved: false,
            failures: 0,
            shunned_until: None,
        }
    }
}

impl Entry {}

impl Ledger {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            allowance: 0,
            stuck: 0,
            committed: 0,
            reserved: 0,
            uploads: 0,
            entries: LruCache::unbounded(),
            owners: HashMap::new(),
            owned: 0,
            selected: HashSet::new(),
            scraps: LruCache::unbounded(),
            scrap_bytes: 0,
            staging: HashMap::new(),
            kept: HashMap::new(),
            unlisted: HashMap::new(),
            leaving: HashMap::new(),
            spare: Spare::UNKNOWN,
            serials: 0,
            uses: 0,
            used: Vec::new(),
            evicted: 0,
        }
    }

    /// Grants `wanted` bytes, of which `present` are on the disk already, and names what must be unlinked first.
    pub(super) fn reserve(&mut self, wanted: u64, present: u64) -> Result<Vec<Victim>, Error> {
        let mut victims = self.victims(wanted.saturating_sub(self.free())).ok_or(Error::Full {
            wanted,
            free: self.free(),
            capacity: self.capacity,
        })?;
        let (bytes, files) = self.lack(wanted.saturating_sub(present));
        if bytes > 0 || files > 0 {
            victims = self.coldest(&victims, bytes, files).ok_or(self.crowded(wanted))?;
        }
        victims.iter().for_each(|victim| self.remove(victim));
        self.reserved += wanted;
        Ok(victims)
    }

    /// Takes note of what the file system can take now.
    pub(super) fn see(&mut self, spare: Spare) {
        self.spare = spare;
    }

    /// Whether the file system cannot take what is promised.
    pub(super) fn is_crowded(&self) -> bool {
        let (bytes, files) = self.lack(0);
        bytes > 0 || files > 0
    }

    /// Names what is to be unlinked so that as much is free on the file system as is to be kept free.
    pub(super) fn make_way(&mut self) -> Vec<Victim> {
        let (bytes, files) = self.lack(0);
        if !self.spare.yields {
            return Vec::new();
        }
        let all = |ledger: &Self| ledger.candidates().map(|(victim, _)| victim).collect();
        let victims: Vec<Victim> = self.coldest(&[], bytes, files).unwrap_or_else(|| all(self));
        victims.iter().for_each(|victim| self.remove(victim));
        victims
    }

    pub(super) fn crowded(&self, wanted: u64) -> Error {
        Error::Crowded {
            wanted,
            free: self.spare.free,
            kept: self.spare.kept,
        }
    }

    /// Bytes and files that have to leave before the file system can take `wanted` bytes and one file more.
    ///
    /// What was granted and is not written yet is as good as there, what is being unlinked as good as gone.
    fn lack(&self, wanted: u64) -> (i64, i64) {
        let sum = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let unwritten: u64 = self.staging.values().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
        let leaving: u64 = self.leaving.values().sum();
        let bytes = sum(wanted) + sum(unwritten) - sum(leaving);
        let files = i64::from(wanted > 0) - i64::try_from(self.leaving.len()).unwrap_or(i64::MAX);
        (
            bytes.saturating_sub(self.spare.bytes),
            files.saturating_sub(self.spare.files),
        )
    }

    /// The coldest things that are so many files and free so many bytes, `those` among them; `None` if it cannot be had.
    fn coldest(&self, those: &[Victim], bytes: i64, files: i64) -> Option<Vec<Victim>> {
        let (mut bytes, mut files) = (bytes, files);
        let mut victims = Vec::new();
        let mut candidates = self.candidates();
        // They are the coldest as well, so they come first.
        while victims.len() < those.len() || bytes > 0 || files > 0 {
            let (victim, room) = candidates.next()?;
            bytes = bytes.saturating_sub_unsigned(room);
            files -= 1;
            victims.push(victim);
        }
        (self.spare.yields || victims.len() == those.len()).then_some(victims)
    }

    /// Names what is to be unlinked because the disk is fuller than the budget knows: `bytes`, or all there is.
    pub(super) fn relieve(&mut self, bytes: u64) -> Vec<Victim> {
        let mut freed = 0;
        let victims: Vec<Victim> = self
            .candidates()
            .take_while(|(_, room)| {
                let wanted = freed < bytes;
                freed += room;
                wanted
            })
            .map(|(victim, _)| victim)
            .collect();
        victims.iter().for_each(|victim| self.remove(victim));
        victims
    }

    /// Makes the caller the one writer of `digest`, who says how much of what is granted to it is not on the disk yet.
    /// `None` if there is a writer.
    pub(super) fn begin_writing(&mut self, digest: &Digest) -> Option<Arc<AtomicU64>> {
        match self.staging.entry(*digest) {
            Slot::Occupied(_) => None,
            Slot::Vacant(vacant) => Some(vacant.insert(Arc::default()).clone()),
        }
    }

    /// The writer is done, one way or the other.
    pub(super) fn end_writing(&mut self, digest: &Digest) {
        self.staging.remove(digest);
    }

    /// The download is written no further for now; it is a scrap once its last reader is gone.
    pub(super) fn keep_spool(&mut self, digest: Digest, spool: Weak<Spool>) {
        self.kept.insert(digest, spool);
    }

    /// What an earlier download of the digest left while it is read.
    pub(super) fn kept_spool(&self, digest: &Digest) -> Option<&Weak<Spool>> {
        self.kept.get(digest)
    }

    pub(super) fn take_spool(&mut self, digest: &Digest) {
        self.kept.remove(digest);
    }

    /// What is still to leave before anything more is written; empty where all of it fits beside what was granted.
    ///
    /// Whoever is granted room later waits by itself for what leaves for it.
    pub(super) fn in_the_way(&self) -> Vec<Victim> {
        if self.fits_beside_leaving() {
            return Vec::new();
        }
        let takes_room = self.leaving.iter().filter(|(_, room)| **room > 0);
        takes_room.map(|(victim, _)| victim.clone()).collect()
    }

    /// Whether some of these are still there, and do not fit beside what was granted.
    pub(super) fn are_in_the_way(&self, those: &[Victim]) -> bool {
        !self.fits_beside_leaving() && those.iter().any(|victim| self.is_leaving(victim))
    }

    fn fits_beside_leaving(&self) -> bool {
        self.taken() + self.leaving.values().sum::<u64>() <= self.capacity
    }

    /// Whether the file is still to be unlinked by whoever was told to.
    pub(super) fn is_leaving(&self, victim: &Victim) -> bool {
        self.leaving.contains_key(victim)
    }

    /// It was unlinked, or cannot be.
    pub(super) fn left(&mut self, victim: &Victim) {
        self.leaving.remove(victim);
    }

    /// Gives granted room back.
    pub(super) fn release(&mut self, granted: u64) {
        debug_assert!(granted <= self.reserved, "more is given back than was granted");
        self.reserved = self.reserved.saturating_sub(granted);
    }

    /// Counts what a file takes instead of what was granted for it.
    pub(super) fn settle(&mut self, granted: u64, room: u64) {
        self.release(granted);
        self.reserved += room;
    }

    /// Turns granted room into a committed entry that is being read by the caller; its serial number.
    pub(super) fn commit(&mut self, digest: Digest, mut entry: Entry, granted: u64) -> u64 {
        self.release(granted);
        entry.readers = 1;
        let serial = self.enter(digest, entry);
        self.touch(&digest);
        serial
    }

    /// Enters what a start found, in the order given: the last is the most recently used.
    pub(super) fn adopt(&mut self, digest: Digest, entry: Entry) {
        self.uses = self.uses.max(entry.used);
        let is_old = true;
        self.enter(digest, Entry { is_old, ..entry });
    }

    fn enter(&mut self, digest: Digest, mut entry: Entry) -> u64 {
        self.serials += 1;
        entry.serial = self.serials;
        self.committed += entry.room;
        if let Some(replaced) = self.forget(&digest) {
            entry.repositories.clone_from(&replaced.repositories);
            entry.media_type = entry.media_type.or_else(|| replaced.media_type.clone());
            self.hold_for_readers(&replaced);
        }
        if self.is_owned(&digest) {
            self.owned += entry.room;
        }
        self.entries.put(digest, entry);
        self.serials
    }

    /// The file of what left the books keeps its room until the last of its readers closes it.
    fn hold_for_readers(&mut self, entry: &Entry) {
        if entry.readers > 0 {
            self.reserved += entry.room;
            let unlisted = Unlisted {
                room: entry.room,
                readers: entry.readers,
                scrap: None,
            };
            self.unlisted.insert(entry.serial, unlisted);
        }
    }

    pub(super) fn keep_scrap(&mut self, path: PathBuf, room: u64) {
        self.scrap_bytes += room;
        if let Some((_, replaced)) = self.scraps.push(path, room) {
            self.scrap_bytes -= replaced;
        }
    }

    pub(super) fn has_scrap(&self, path: &Path) -> bool {
        self.scraps.contains(path)
    }

    /// Takes a scrap out of the account; its room is the caller's to account for.
    pub(super) fn take_scrap(&mut self, path: &Path) -> Option<u64> {
        let room = self.scraps.pop(path)?;
        self.scrap_bytes -= room;
        Some(room)
    }

    /// Sets what is held for the index and the journal, and names what must be unlinked for it.
    pub(super) fn allow(&mut self, bytes: u64) -> Vec<Victim> {
        self.allowance = bytes;
        self.relieve(self.taken().saturating_sub(self.capacity))
    }

    /// Counts a file that could not be unlinked for good, as it still takes its room.
    pub(super) fn count_stuck(&mut self, room: u64) {
        self.stuck += room;
    }

    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.entries.contains(digest)
    }

    pub(super) fn entry(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.peek(digest)
    }

    /// What can be handed out, as far as is known. `now` is asked for only where it matters.
    pub(super) fn offered(&self, digest: &Digest, now: impl FnOnce() -> Instant) -> Option<&Entry> {
        let is_shunned = |entry: &&Entry| entry.shunned_until.is_some_and(|until| now() < until);
        self.entry(digest).filter(|entry| !is_shunned(entry))
    }

    /// Sets what is known of the bytes, unless the entry is another one by now.
    pub(super) fn set_trust(&mut self, digest: &Digest, serial: u64, trust: Trust) {
        if let Some(entry) = self.same(digest, serial) {
            entry.trust = trust;
            if trust == Trust::Verified {
                (entry.failures, entry.shunned_until) = (0, None);
            }
        }
    }

    /// The disk neither gives the entry's bytes back right nor moves the file away. Once that is a bad moment; from then
    /// on it is taken for not being here, ever longer.
    pub(super) fn shun(&mut self, digest: &Digest, serial: u64, now: Instant) {
        let Some(entry) = self.same(digest, serial) else { return };
        entry.trust = Trust::Unverified;
        if entry.failures > 0 {
            let span = FIRST_SHUN * (1 << (entry.failures - 1).min(6));
            entry.shunned_until = Some(now + span);
        }
        entry.failures = entry.failures.saturating_add(1);
    }

    /// Links present content; whether the link is new. `None` if the content is not here.
    pub(super) fn link(&mut self, digest: &Digest, repository: RepositoryId) -> Option<bool> {
        let entry = self.entries.peek_mut(digest)?;
        let new = !entry.repositories.contains(&repository);
        if new {
            entry.repositories.push(repository);
        }
        Some(new)
    }

    /// The upstream of `repository` is not known to have it any more.
    pub(super) fn unlink(&mut self, digest: &Digest, repository: RepositoryId) {
        if let Some(entry) = self.entries.peek_mut(digest) {
            entry.repositories.retain(|other| *other != repository);
        }
    }

    /// All that is linked in a repository, and whether it is a manifest, or is kept like one.
    pub(super) fn linked_in(&self, repository: RepositoryId) -> Vec<(Digest, bool)> {
        let linked = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.repositories.contains(&repository));
        linked
            .map(|(digest, entry)| (*digest, entry.media_type.is_some()))
            .collect()
    }

    /// Where it is linked.
    pub(super) fn repositories(&self, digest: &Digest) -> Vec<RepositoryId> {
        self.entry(digest)
            .map_or_else(Vec::new, |entry| entry.repositories.clone())
    }

    /// A fact says that it is here: it is not evicted until [`Ledger::disown`], nor is what is pushed in its place once it is
    /// lost.
    pub(super) fn own(&mut self, digest: &Digest) {
        let owners = self.owners.entry(*digest).or_default();
        *owners += 1;
        if *owners == 1 {
            self.owned += self.entries.peek(digest).map_or(0, |entry| entry.room);
        }
    }

    /// Whether a fact says so.
    pub(super) fn is_owned(&self, digest: &Digest) -> bool {
        self.owners.contains_key(digest)
    }

    /// A rule selects it: it is not evicted until [`Ledger::select_only`] leaves it out.
    pub(super) fn select(&mut self, digest: Digest) {
        self.selected.insert(digest);
    }

    /// Whether one does.
    pub(super) fn is_selected(&self, digest: &Digest) -> bool {
        self.selected.contains(digest)
    }

    /// Rules select these and nothing else.
    pub(super) fn select_only(&mut self, digests: HashSet<Digest>) {
        self.selected = digests;
    }

    /// A fact less says so.
    pub(super) fn disown(&mut self, digest: &Digest) {
        if let Some(owners) = self.owners.get_mut(digest) {
            *owners -= 1;
            if *owners == 0 {
                self.owners.remove(digest);
                let room = self.entries.peek(digest).map_or(0, |entry| entry.room);
                self.owned = self.owned.saturating_sub(room);
            }
        }
    }

    /// Takes what nobody has any more out of the books, for the caller to unlink.
    pub(super) fn drop_unowned(&mut self, digest: &Digest) -> Option<Victim> {
        let entry = self.entry(digest)?;
        let is_nobodys = !self.owners.contains_key(digest) && entry.repositories.is_empty();
        if !is_nobodys || entry.readers > 0 || self.staging.contains_key(digest) {
            return None;
        }
        let victim = Victim::Blob(*digest);
        self.remove(&victim);
        Some(victim)
    }

    /// Bytes on the disk that leave with the last of so many who own it, if there are no others.
    pub(super) fn freed_by(&self, less: u32, digest: &Digest) -> u64 {
        let owners = self.owners.get(digest).copied().unwrap_or_default();
        self.entry(digest)
            .filter(|_| owners <= less)
            .map_or(0, |entry| entry.room)
    }

    /// Those whose files are not known to survive a power cut, with their serials.
    pub(super) fn not_durable(&self, digests: &[Digest]) -> Vec<(Digest, u64)> {
        let entry = |digest: &Digest| Some((*digest, self.entry(digest)?));
        let entries = digests.iter().filter_map(entry);
        let wanting = entries.filter(|(_, entry)| !entry.is_durable);
        wanting.map(|(digest, entry)| (digest, entry.serial)).collect()
    }

    /// The entry's file and its name were synced.
    pub(super) fn set_durable(&mut self, digest: &Digest, serial: u64) {
        if let Some(entry) = self.same(digest, serial) {
            entry.is_durable = true;
        }
    }

    /// Counts an upload that a start found.
    pub(super) fn adopt_upload(&mut self, room: u64) {
        self.reserved += room;
        self.uploads += room;
    }

    /// Counts what the file of an upload takes instead of what was granted for it.
    pub(super) fn settle_upload(&mut self, granted: u64, room: u64) {
        self.settle(granted, room);
        self.uploads = self.uploads.saturating_sub(granted) + room;
    }

    /// Whether uploads hold so much that those that nobody goes on with are in the way.
    pub(super) fn uploads_crowd(&self) -> bool {
        self.uploads >= self.most_uploads() / 2
    }

    /// Room that all uploads may take together: what is announced and does not come must not cost all that is kept.
    pub(super) fn most_uploads(&self) -> u64 {
        self.capacity / UPLOADS
    }

    /// Counts room that an upload is about to be granted; false if that is more than uploads may take.
    pub(super) fn announce_upload(&mut self, more: u64) -> bool {
        let fits = self.uploads.saturating_add(more) <= self.most_uploads();
        if fits {
            self.uploads += more;
        }
        fits
    }

    /// It was not granted, or the upload is none any more.
    pub(super) fn retract_upload(&mut self, room: u64) {
        self.uploads = self.uploads.saturating_sub(room);
    }

    /// The type of what a fact says is a manifest.
    pub(super) fn set_media_type(&mut self, digest: &Digest, media_type: &str) {
        if let Some(entry) = self.entries.peek_mut(digest) {
            entry.media_type = Some(media_type.into());
        }
    }

    /// All that is here.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.entries.iter().map(|(digest, _)| *digest).collect()
    }

    /// All that is to be on record of these, as far as they are still here.
    pub(super) fn whole(&self, digests: &[Digest]) -> Vec<Row> {
        let row = |digest: &Digest| {
            let entry = self.entry(digest)?;
            Some(Row::WholeBlob {
                digest: *digest,
                size: entry.size,
                media_type: entry.media_type.clone(),
                used: entry.used,
                repositories: entry.repositories.clone(),
            })
        };
        digests.iter().filter_map(row).collect()
    }

    /// Marks as used and keeps from eviction until [`Ledger::unpin`].
    pub(super) fn pin(&mut self, digest: &Digest) -> Option<&Entry> {
        self.touch(digest);
        let entry = self.entries.peek_mut(digest)?;
        entry.readers += 1;
        Some(entry)
    }

    /// Keeps this entry of the digest from eviction until [`Ledger::unpin`]; false if it is gone, or another.
    pub(super) fn hold(&mut self, digest: &Digest, serial: u64) -> bool {
        self.same(digest, serial).map(|entry| entry.readers += 1).is_some()
    }

    pub(super) fn unpin(&mut self, digest: &Digest, serial: u64) {
        if let Some(entry) = self.same(digest, serial) {
            entry.readers = entry.readers.saturating_sub(1);
            return;
        }
        let Slot::Occupied(mut slot) = self.unlisted.entry(serial) else {
            return;
        };
        slot.get_mut().readers -= 1;
        if slot.get().readers == 0 {
            let closed = slot.remove();
            self.release(closed.room);
            if let Some(path) = closed.scrap {
                self.keep_scrap(path, closed.room);
            }
        }
    }

    fn same(&mut self, digest: &Digest, serial: u64) -> Option<&mut Entry> {
        self.entries.peek_mut(digest).filter(|entry| entry.serial == serial)
    }

    /// Moves to the front, if it is here.
    pub(super) fn touch(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.get_mut(digest) else {
            return;
        };
        self.uses += 1;
        entry.used = self.uses;
        if !entry.unsaved {
            entry.unsaved = true;
            self.used.push(*digest);
        }
    }

    /// Grows with each use.
    pub(super) fn uses(&self) -> u64 {
        self.uses
    }

    /// What was used since the last call, with its place in the order.
    pub(super) fn take_used(&mut self) -> Vec<(Digest, u64)> {
        let used = std::mem::take(&mut self.used);
        let save = |digest: Digest| {
            let entry = self.entries.peek_mut(&digest)?;
            entry.unsaved = false;
            Some((digest, entry.used))
        };
        used.into_iter().filter_map(save).collect()
    }

    /// Drops an entry whose file is gone or bad. Its room is free at once.
    pub(super) fn forget(&mut self, digest: &Digest) -> Option<Entry> {
        let entry = self.entries.pop(digest)?;
        self.committed = self.committed.saturating_sub(entry.room);
        if self.is_owned(digest) {
            self.owned = self.owned.saturating_sub(entry.room);
        }
        Some(entry)
    }

    /// The same, unless the entry is another one by now. Those who read the file keep its room until they close it.
    pub(super) fn forget_same(&mut self, digest: &Digest, serial: u64) -> Option<Entry> {
        self.same(digest, serial)?;
        let entry = self.forget(digest)?;
        self.hold_for_readers(&entry);
        Some(entry)
    }

    /// The entry's file lies at `path` now, as a scrap once the last of its readers closes it.
    pub(super) fn quarantine(&mut self, digest: &Digest, serial: u64, path: PathBuf, room: u64) {
        self.forget_same(digest, serial);
        // What had the name before is gone, whether it is still open or not.
        self.take_scrap(&path);
        let replaced = self
            .unlisted
            .values_mut()
            .filter(|file| file.scrap.as_ref() == Some(&path));
        replaced.for_each(|file| file.scrap = None);
        match self.unlisted.get_mut(&serial) {
            Some(file) => file.scrap = Some(path),
            None => self.keep_scrap(path, room),
        }
    }

    /// Whether an earlier process left the entry: a disk that refuses to sync it says nothing of its bytes, which this process
    /// did not write.
    pub(super) fn is_old(&mut self, digest: &Digest, serial: u64) -> bool {
        self.same(digest, serial).is_some_and(|entry| entry.is_old)
    }

    /// Drops an entry whose bytes are as good as lost, and names what is to be unlinked for it.
    pub(super) fn lose(&mut self, digest: &Digest, serial: u64) -> Option<Victim> {
        let entry = self.forget_same(digest, serial)?;
        let victim = Victim::Blob(*digest);
        // What is read frees nothing by leaving.
        let room = if entry.readers > 0 { 0 } else { entry.room };
        self.leaving.insert(victim.clone(), room);
        Some(victim)
    }

    /// Names the entry's file as one that the caller, a reader of it, takes away, after which it says that the file has
    /// left; its room. It stays on the books until then. `None` if somebody else takes it away.
    pub(super) fn condemn(&mut self, digest: &Digest, serial: u64) -> Option<u64> {
        let room = self.same(digest, serial)?.room;
        match self.leaving.entry(Victim::Blob(*digest)) {
            Slot::Occupied(_) => None,
            Slot::Vacant(vacant) => {
                vacant.insert(0);
                Some(room)
            }
        }
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.taken())
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Committed files.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// Room of what is here and not evicted, as it may exist nowhere else.
    pub(super) fn owned(&self) -> u64 {
        self.owned
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn scraps(&self) -> u64 {
        self.scrap_bytes
    }

    pub(super) fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Bytes of content that left to make room, since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn taken(&self) -> u64 {
        self.allowance + self.stuck + self.committed + self.reserved + self.scrap_bytes
    }

    /// The coldest things that together free `bytes`; `None` if all that is free to go is not enough.
    fn victims(&self, bytes: u64) -> Option<Vec<Victim>> {
        // A store that was opened over its budget has to lose the excess as well.
        let mut missing = if bytes == 0 {
            0
        } else {
            bytes + self.taken().saturating_sub(self.capacity)
        };
        let mut victims = Vec::new();
        let mut candidates = self.candidates();
        while missing > 0 {
            let (victim, room) = candidates.next()?;
            missing = missing.saturating_sub(room);
            victims.push(victim);
        }
        Some(victims)
    }

    /// What may leave, with its room, in the order in which it leaves.
    fn candidates(&self) -> impl Iterator<Item = (Victim, u64)> {
        let scraps = self
            .scraps
            .iter()
            .rev()
            .map(|(path, room)| (Victim::Scrap(path.clone()), *room));
        let unread = self.entries.iter().rev().filter(|(digest, entry)| {
            let is_kept = self.owners.contains_key(*digest) || self.selected.contains(*digest);
            entry.readers == 0 && !is_kept && !self.staging.contains_key(*digest)
        });
        scraps.chain(unread.map(|(digest, entry)| (Victim::Blob(*digest), entry.room)))
    }

    fn remove(&mut self, victim: &Victim) {
        let room = match victim {
            Victim::Blob(digest) => self.forget(digest).map(|entry| {
                self.evicted += entry.size;
                entry.room
            }),
            Victim::Scrap(path) => self.take_scrap(path),
        };
        self.leaving.insert(victim.clone(), room.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(room: u64) -> Entry {
        Entry::new(room, room, Trust::Verified, None)
    }

    fn stored(ledger: &mut Ledger, content: &[u8], room: u64) -> Digest {
        let digest = Digest::of(content);
        ledger.reserve(room, 0).unwrap();
        let serial = ledger.commit(digest, entry(room), room);
        ledger.unpin(&digest, serial);
        digest
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let mut ledger = Ledger::new(300);
        let [old, warm, new] = [b"a", b"b", b"c"].map(|content| stored(&mut ledger, content, 100));

        ledger.touch(&old);
        let victims = ledger.reserve(100, 0).unwrap();

        assert_eq!(victims, [Victim::Blob(warm)]);
        assert!(ledger.holds(&old) && ledger.holds(&new));
    }

    #[test]
    fn what_is_being_read_is_not_evicted() {
        let mut ledger = Ledger::new(200);
        let read = stored(&mut ledger, b"a", 100);
        let idle = stored(&mut ledger, b"b", 100);

        ledger.pin(&read).unwrap();
        ledger.touch(&idle);

        assert_eq!(ledger.reserve(100, 0).unwrap(), [Victim::Blob(idle)]);
        assert!(matches!(
            ledger.reserve(100, 0),
            Err(Error::Full {
                wanted: 100,
                free: 0,
                capacity: 200
            })
        ));
        assert!(ledger.holds(&read));
    }

    #[test]
    fn a_refused_reservation_evicts_nothing() {
        let mut ledger = Ledger::new(200);
        let kept = stored(&mut ledger, b"a", 100);

        ledger.reserve(500, 0).unwrap_err();

        assert!(ledger.holds(&kept));
        assert_eq!(ledger.free(), 100);
    }

    #[test]
    fn scraps_leave_before_any_blob() {
        let mut ledger = Ledger::new(200);
        let blob = stored(&mut ledger, b"a", 100);
        ledger.keep_scrap(PathBuf::from("partial"), 100);

        assert_eq!(
            ledger.reserve(50, 0).unwrap(),
            [Victim::Scrap(PathBuf::from("partial"))]
        );
        assert!(ledger.holds(&blob));
    }

    #[test]
    fn a_victim_is_leaving_until_it_is_unlinked() {
        let mut ledger = Ledger::new(100);
        let gone = Victim::Blob(stored(&mut ledger, b"a", 100));

        ledger.reserve(50, 0).unwrap();
        assert!(ledger.is_leaving(&gone));

        ledger.left(&gone);
        assert!(!ledger.is_leaving(&gone));
    }

    #[test]
    fn room_that_is_not_free_yet_is_waited_for_by_all_whom_it_may_be_lent_to() {
        let mut ledger = Ledger::new(100);
        let gone = Victim::Blob(stored(&mut ledger, b"a", 90));

        assert_eq!(ledger.reserve(20, 0).unwrap(), std::slice::from_ref(&gone));
        assert_eq!(ledger.reserve(70, 0).unwrap(), []);
        let waited_for = ledger.in_the_way();
        assert_eq!(waited_for, std::slice::from_ref(&gone));
        assert!(ledger.are_in_the_way(&waited_for));

        ledger.left(&gone);
        assert!(!ledger.are_in_the_way(&waited_for));
        assert_eq!(ledger.in_the_way(), []);
    }

    #[test]
    fn what_fits_beside_that_which_is_leaving_waits_for_nobody() {
        let mut ledger = Ledger::new(100);
        stored(&mut ledger, b"a", 50);
        stored(&mut ledger, b"b", 30);
        ledger.relieve(50);

        ledger.reserve(20, 0).unwrap();

        assert_eq!(ledger.in_the_way(), []);
    }

    #[test]
    fn what_goes_to_quarantine_while_it_is_read_is_no_victim_until_it_is_closed() {
        let mut ledger = Ledger::new(100);
        let digest = stored(&mut ledger, b"a", 100);
        let serial = ledger.pin(&digest).unwrap().serial;
        let path = PathBuf::from("quarantine");

        ledger.quarantine(&digest, serial, path.clone(), 100);
        ledger.reserve(10, 0).unwrap_err();
        ledger.unpin(&digest, serial);

        assert_eq!((ledger.reserved(), ledger.scraps()), (0, 100));
        assert_eq!(ledger.reserve(10, 0).unwrap(), [Victim::Scrap(path)]);
    }

    #[test]
    fn what_another_replaces_in_quarantine_while_it_is_read_is_no_scrap_when_it_is_closed() {
        let mut ledger = Ledger::new(200);
        let path = PathBuf::from("quarantine");
        let serials = [(), ()].map(|()| {
            let digest = stored(&mut ledger, b"a", 100);
            let serial = ledger.pin(&digest).unwrap().serial;
            ledger.quarantine(&digest, serial, path.clone(), 100);
            serial
        });

        for (serial, scraps) in serials.into_iter().zip([0, 100]) {
            ledger.unpin(&Digest::of(b"a"), serial);
            assert_eq!((ledger.scraps(), ledger.free()), (scraps, 100));
        }
    }

    #[test]
    fn what_is_being_written_anew_is_not_evicted() {
        let mut ledger = Ledger::new(100);
        let digest = stored(&mut ledger, b"a", 100);

        assert!(ledger.begin_writing(&digest).is_some());
        assert!(ledger.begin_writing(&digest).is_none());
        ledger.reserve(50, 0).unwrap_err();
        ledger.end_writing(&digest);

        assert_eq!(ledger.reserve(50, 0).unwrap(), [Victim::Blob(digest)]);
    }

    #[test]
    fn what_is_lost_while_it_is_read_keeps_its_room_until_the_last_reader_is_done() {
        let mut ledger = Ledger::new(100);
        let digest = stored(&mut ledger, b"a", 100);
        let serial = ledger.pin(&digest).unwrap().serial;
        ledger.pin(&digest).unwrap();

        assert_eq!(ledger.lose(&digest, serial + 1), None);
        assert_eq!(ledger.lose(&digest, serial), Some(Victim::Blob(digest)));

        assert!(!ledger.holds(&digest));
        for free in [0, 100] {
            ledger.unpin(&digest, serial);
            assert_eq!(ledger.free(), free);
        }
    }

    #[test]
    fn what_is_committed_twice_keeps_its_links_and_counts_once() {
        let mut ledger = Ledger::new(300);
        let digest = stored(&mut ledger, b"a", 100);
        ledger.link(&digest, 7);

        stored(&mut ledger, b"a", 100);

        assert!(ledger.entry(&digest).unwrap().repositories.contains(&7));
        assert_eq!(ledger.free(), 200);
    }

    #[test]
    fn what_the_index_grows_by_is_evicted() {
        let mut ledger = Ledger::new(300);
        let [old, new] = [b"a", b"b"].map(|content| stored(&mut ledger, content, 100));

        assert_eq!(ledger.allow(100), []);
        assert_eq!(ledger.allow(150), [Victim::Blob(old)]);
        assert!(ledger.holds(&new));
    }

    #[test]
    fn a_store_opened_over_its_budget_loses_the_excess_with_the_first_reservation() {
        let mut ledger = Ledger::new(100);
        for content in [b"a", b"b", b"c"] {
            ledger.adopt(Digest::of(content), entry(100));
        }

        let victims = ledger.reserve(50, 0).unwrap();

        assert_eq!(victims.len(), 3);
        assert_eq!(ledger.free(), 50);
    }

    fn spare(bytes: i64, yields: bool) -> Spare {
        Spare {
            bytes,
            yields,
            ..Spare::UNKNOWN
        }
    }

    #[test]
    fn what_is_promised_and_not_written_counts_against_the_disk_and_what_is_leaving_for_it() {
        let mut ledger = Ledger::new(1000);
        let old = Victim::Blob(stored(&mut ledger, b"a", 100));
        let unwritten = ledger.begin_writing(&Digest::of(b"b")).unwrap();
        unwritten.store(60, Ordering::Relaxed);

        ledger.see(spare(100, true));
        assert_eq!(ledger.reserve(40, 0).unwrap(), []);
        assert_eq!(ledger.reserve(41, 0).unwrap(), [old]);
        assert!(matches!(
            ledger.reserve(141, 0),
            Err(Error::Crowded { wanted: 141, .. })
        ));
        assert_eq!(ledger.reserve(140, 0).unwrap(), []);
    }

    #[test]
    fn while_leaving_makes_no_room_nothing_leaves_for_the_disk() {
        let mut ledger = Ledger::new(1000);
        let kept = stored(&mut ledger, b"a", 100);
        ledger.see(spare(-50, false));

        ledger.reserve(10, 0).unwrap_err();

        assert_eq!(ledger.make_way(), []);
        assert!(ledger.holds(&kept));
    }

    #[test]
    fn as_much_leaves_as_is_missing_below_the_floor() {
        let mut ledger = Ledger::new(1000);
        let [old, warm] = [b"a", b"b"].map(|content| stored(&mut ledger, content, 100));
        ledger.see(spare(-50, true));

        assert_eq!(ledger.make_way(), [Victim::Blob(old)]);
        assert_eq!(ledger.make_way(), []);
        assert!(ledger.holds(&warm));
    }
}
