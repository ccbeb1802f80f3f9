use std::fs::{File, Metadata, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use fail::fail_point;
use nix::sys::uio::pwritev;
use parking_lot::Mutex;

use super::index::{Row, now};
use super::ledger::{Entry, Trust, Victim};
use super::{Blob, Error, Shared, layout};
use crate::oci::{Digest, Hasher};

/// Room asked for at a time while the size is not known.
const STEP: u64 = 4 << 20;

/// The part of the budget that content of unknown size may take, as a divisor.
const UNANNOUNCED: u64 = 4;

/// A download being written. Dropping it keeps what arrived, to be continued by a later one.
pub struct Staged {
    path: PathBuf,
    spool: Arc<Spool>,
    /// Bytes that are granted and not on the disk yet.
    unwritten: Arc<AtomicU64>,
    /// Bytes that are here and hashed.
    written: u64,
    /// Bytes behind them that an earlier attempt left.
    unhashed: u64,
    hasher: Hasher,
    /// What becomes of the file when this is dropped.
    fate: Fate,
    /// Given up last, when the file has found its fate.
    turn: Turn,
}

/// The right to write a digest's file, which one writer has at a time.
struct Turn {
    shared: Arc<Shared>,
    digest: Digest,
}

/// What comes with a turn.
struct Taken {
    turn: Turn,
    /// Counts the bytes that are granted and not on the disk yet.
    unwritten: Arc<AtomicU64>,
    /// What an earlier writer left, if somebody reads it still.
    kept: Option<Arc<Spool>>,
}

impl Turn {
    /// Waits until files of an earlier life of the digest have left: whoever unlinks or closes them waits for nobody.
    fn take(shared: &Arc<Shared>, digest: &Digest) -> Result<Taken, Error> {
        let files = [Victim::Blob(*digest), Victim::Scrap(shared.layout.partial(digest))];
        let mut ledger = shared.ledger.lock();
        loop {
            if !files.iter().any(|file| ledger.is_leaving(file)) {
                let unwritten = ledger.begin_writing(digest).ok_or(Error::Busy { digest: *digest })?;
                let kept = ledger.kept_spool(digest).map(Weak::upgrade);
                // Its last reader is just closing it, and says so.
                if !matches!(kept, Some(None)) {
                    ledger.take_spool(digest);
                    drop(ledger);
                    let kept = kept.flatten().inspect(|spool| spool.hold.set_kept(false));
                    let turn = Self {
                        shared: shared.clone(),
                        digest: *digest,
                    };
                    return Ok(Taken { turn, unwritten, kept });
                }
                ledger.end_writing(digest);
            }
            shared.left.wait(&mut ledger);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.ledger.lock().end_writing(&self.digest);
    }
}

/// The file of a download while others read along. Its room is given back with the last reader.
///
/// Whoever continues a download that is still read takes over this very file, so that its room is counted once, and
/// for as long as anybody has it open.
pub struct Spool {
    shared: Arc<Shared>,
    file: File,
    /// Bytes that it may grow to: content that does not say its size drives out no more than a part of the rest.
    most: AtomicU64,
    /// Once it is committed: keeps the file from being evicted while it is read.
    committed: OnceLock<Blob>,
    /// Given up last, when the file is closed.
    hold: Hold,
}

/// The room of a spool.
struct Hold {
    shared: Arc<Shared>,
    digest: Digest,
    reserved: Mutex<u64>,
    /// Whether the file is to be continued, by whoever comes next.
    kept: AtomicBool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Fate {
    Kept,
    Removed,
    /// The same, and nothing may be built upon it if it cannot be.
    Wrong,
    Committed,
}

impl Staged {
    pub(super) fn begin(shared: &Arc<Shared>, digest: &Digest, size: Option<u64>) -> Result<Self, Error> {
        let Taken { turn, unwritten, kept } = Turn::take(shared, digest)?;
        let path = shared.layout.partial(digest);
        let kept = kept.filter(|spool| spool.lies_at(&path));
        let spool = match kept {
            Some(spool) => spool.taken_over(size, &unwritten)?,
            None => Self::open(shared, digest, size, &unwritten)?,
        };
        let mut staged = Self {
            path,
            spool,
            unwritten,
            written: 0,
            unhashed: 0,
            hasher: Hasher::new(digest.algorithm()),
            fate: Fate::Kept,
            turn,
        };
        staged.find_left(size)?;
        Ok(staged)
    }

    /// Opens the file, over what an earlier attempt left.
    fn open(
        shared: &Arc<Shared>,
        digest: &Digest,
        size: Option<u64>,
        unwritten: &AtomicU64,
    ) -> Result<Arc<Spool>, Error> {
        let path = shared.layout.partial(digest);
        let reserved = shared.make_room_over(&path, room_for(size.unwrap_or(0)), unwritten)?;
        let file = match shared.layout.open_partial(digest) {
            Ok(file) => file,
            Err(error) => {
                // What an earlier attempt left lies there still, unless it is none of ours.
                let left = path.symlink_metadata().ok().filter(Metadata::is_file);
                let mut ledger = shared.ledger.lock();
                ledger.release(reserved);
                if let Some(left) = left {
                    ledger.keep_scrap(path, layout::room(&left));
                }
                return Err(error);
            }
        };
        Ok(Arc::new(Spool {
            shared: shared.clone(),
            file,
            most: AtomicU64::new(most(shared, size)),
            committed: OnceLock::new(),
            hold: Hold {
                shared: shared.clone(),
                digest: *digest,
                reserved: Mutex::new(reserved),
                kept: AtomicBool::new(false),
            },
        }))
    }

    /// Bytes that are here and hashed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes behind them that an earlier attempt left, to be hashed by [`Staged::catch_up`] before more is written.
    pub fn unhashed(&self) -> u64 {
        self.unhashed
    }

    /// The size is known after all, so that it may take as much room as any.
    pub fn expect_size(&self) {
        self.spool.most.store(u64::MAX, Ordering::Relaxed);
    }

    /// The file, for those who read along up to what was announced to them.
    pub fn spool(&self) -> Arc<Spool> {
        self.spool.clone()
    }

    /// Appends. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Unannounced`] if the size was not known and room ran out; [`Error::Io`].
    pub fn write(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        debug_assert!(self.unhashed == 0, "what lies here is to be hashed first");
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.spool.ensure(self.written + bytes, &self.unwritten)?;
        let health = &self.spool.shared.health;
        self.write_out(pieces, bytes)
            .map_err(Error::io("writing", &self.path))
            .inspect_err(|error| health.note(error))?;
        // Before it is hashed: what the disk shows as taken is not to be counted as still unwritten as well.
        self.spool.has(self.written + bytes, &self.unwritten);
        health.clear();
        pieces.iter().for_each(|piece| self.hasher.update(piece));
        self.written += bytes;
        Ok(())
    }

    /// Others may have filled the disk: then as much leaves as is wanted, once.
    fn write_out(&self, pieces: &[Bytes], bytes: u64) -> io::Result<()> {
        let shared = &self.spool.shared;
        match write_all(&self.spool.file, pieces, self.written) {
            Err(error) if is_full(&error) && shared.health.is_relief_worth(now()) => {
                let victims = shared.ledger.lock().relieve(bytes.max(STEP));
                shared.unlink(victims);
                write_all(&self.spool.file, pieces, self.written).inspect_err(|error| {
                    if is_full(error) {
                        shared.health.was_relieved_in_vain(now());
                    }
                })
            }
            other => other,
        }
    }

    /// Throws away what is here for good.
    pub fn discard(mut self) {
        self.fate = Fate::Wrong;
    }

    /// The same; the hash of what was written, for whoever goes on without a file.
    pub fn abandon(mut self) -> Hasher {
        self.fate = Fate::Removed;
        std::mem::replace(&mut self.hasher, Hasher::new(self.turn.digest.algorithm()))
    }

    /// Throws away what is here and begins again at the first byte.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<(), Error> {
        (self.written, self.unhashed) = (0, 0);
        self.hasher = Hasher::new(self.turn.digest.algorithm());
        self.spool
            .file
            .set_len(0)
            .map_err(Error::io("truncating", &self.path))?;
        self.spool.has(0, &self.unwritten);
        Ok(())
    }

    /// Makes the content readable under its digest. The disk is synced later, in batches.
    ///
    /// `media_type` is kept exactly as given, for manifests. A crash at any point leaves either
    /// nothing, or the whole content, which is hashed again before it is served.
    ///
    /// # Errors
    ///
    /// * [`Error::DigestMismatch`]: the bytes are not the ones announced; nothing is kept.
    /// * [`Error::Io`]: the disk refused.
    pub fn commit(mut self, media_type: Option<&str>) -> Result<(), Error> {
        let shared = self.spool.shared.clone();
        self.put_in_place(media_type)
            .inspect_err(|error| shared.health.note(error))
    }

    fn put_in_place(&mut self, media_type: Option<&str>) -> Result<(), Error> {
        fail_point!("store.commit.before_rename");
        let actual = self.hasher.clone().finish();
        if actual != self.turn.digest {
            self.fate = Fate::Wrong;
            return Err(Error::DigestMismatch {
                actual,
                announced: self.turn.digest,
            });
        }
        let shared = self.spool.shared.clone();
        let file = self.finish_file().map_err(Error::io("finishing", &self.path))?;
        let metadata = file.metadata().map_err(Error::io("reading the size of", &self.path))?;
        let placing = shared.placing.lock();
        // Another writer was here between the look and the turn, and may have been promised what it wrote: its file is replaced
        // by one that is durable.
        if shared.ledger.lock().holds(&self.turn.digest) {
            file.sync_data().map_err(Error::io("syncing", &self.path))?;
            shared.layout.replace(&self.path, &self.turn.digest)?;
        } else {
            shared.layout.promote(&self.path, &self.turn.digest)?;
        }
        fail_point!("store.commit.after_rename");
        self.fate = Fate::Committed;
        let media_type = media_type.map(Arc::from);
        let entry = Entry::new(
            self.written,
            layout::room(&metadata),
            Trust::Verified,
            media_type.clone(),
        );
        let granted = std::mem::take(&mut *self.spool.hold.reserved.lock());
        let serial = shared.ledger.lock().commit(self.turn.digest, entry, granted);
        drop(placing);
        shared.index.write(Row::Blob {
            digest: self.turn.digest,
            size: self.written,
            media_type: media_type.clone(),
        });
        shared.link_claimants(&self.turn.digest);
        shared.syncer.queue(self.turn.digest, serial);
        // Those who read along read the stored file from here on.
        let blob = Blob::committed(&shared, self.turn.digest, serial, file, self.written, media_type);
        let _ = self.spool.committed.set(blob);
        Ok(())
    }

    /// Sees what an earlier attempt left, so that it can be continued.
    fn find_left(&mut self, size: Option<u64>) -> Result<(), Error> {
        let length = self
            .spool
            .file
            .metadata()
            .map_err(Error::io("reading the size of", &self.path))?
            .len();
        if size.is_some_and(|size| length > size) {
            return self.restart();
        }
        // What lies here was granted before.
        self.spool.most.fetch_max(length, Ordering::Relaxed);
        self.spool.ensure(length, &self.unwritten)?;
        self.unhashed = length;
        Ok(())
    }

    /// Hashes some of what an earlier attempt left. Blocks for a few megabytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: it cannot be read; it and all behind it is to be written anew.
    pub fn catch_up(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 1 << 20];
        let end = self.written + self.unhashed.min(STEP);
        while self.written < end {
            let most = usize::try_from(end - self.written).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = match read_at(&self.spool.file, &mut buffer[..most], self.written) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let read = read.map_err(Error::io("reading", &self.path)).inspect_err(|error| {
                self.spool.shared.health.note(error);
                self.unhashed = 0;
            })?;
            self.hasher.update(&buffer[..read]);
            self.written += read as u64;
            self.unhashed -= read as u64;
        }
        Ok(())
    }

    fn finish_file(&self) -> io::Result<File> {
        self.spool.file.set_len(self.written)?;
        self.spool.file.set_permissions(Permissions::from_mode(0o400))?;
        self.spool.file.try_clone()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match self.fate {
            Fate::Committed => {}
            Fate::Kept if self.written + self.unhashed > 0 => self.spool.keep(),
            fate => match remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %self.path.display(), %error, "a download that is of no use could not be removed; it counts as what is to leave first");
                    if fate == Fate::Wrong {
                        let _ = self.spool.file.set_len(0);
                    }
                    self.spool.keep();
                }
                // Readers may still hold it open; its room is given back when the last one closes it.
                _ => {}
            },
        }
    }
}

impl Spool {
    /// Sees to it that the file may grow to `bytes`.
    fn ensure(&self, bytes: u64, unwritten: &AtomicU64) -> Result<(), Error> {
        let reserved = *self.hold.reserved.lock();
        let wanted = room_for(bytes);
        if wanted <= reserved {
            return Ok(());
        }
        let most = self.most.load(Ordering::Relaxed);
        if bytes > most {
            return Err(Error::Unannounced { most });
        }
        self.grow((wanted - reserved).max(STEP), unwritten)
    }

    /// Only the one writer asks for room, so nobody else does meanwhile.
    fn grow(&self, more: u64, unwritten: &AtomicU64) -> Result<(), Error> {
        self.shared.make_room(more, unwritten)?;
        *self.hold.reserved.lock() += more;
        Ok(())
    }

    /// The same file for another writer, with room for a whole download. It stays kept if there is none.
    fn taken_over(self: Arc<Self>, size: Option<u64>, unwritten: &AtomicU64) -> Result<Arc<Self>, Error> {
        let reserved = *self.hold.reserved.lock();
        let more = room_for(size.unwrap_or(0)).saturating_sub(reserved);
        if more > 0 {
            self.grow(more, unwritten).inspect_err(|_| self.keep())?;
        }
        self.most.store(most(&self.shared, size), Ordering::Relaxed);
        Ok(self)
    }

    /// Whether the file is still the one that has the name: somebody may have removed it.
    fn lies_at(&self, path: &Path) -> bool {
        let (Ok(ours), Ok(there)) = (self.file.metadata(), path.symlink_metadata()) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
    }

    /// So many bytes of what was granted are on the disk.
    fn has(&self, bytes: u64, unwritten: &AtomicU64) {
        let left = self.hold.reserved.lock().saturating_sub(bytes);
        let before = unwritten.swap(left, Ordering::Relaxed);
        self.shared.space.wrote(before.saturating_sub(left));
    }

    /// Nobody writes any further: it takes what it has, and is a scrap once its last reader closes it.
    fn keep(self: &Arc<Self>) {
        let mut reserved = self.hold.reserved.lock();
        let room = self
            .file
            .metadata()
            .map_or(*reserved, |metadata| layout::room(&metadata));
        let mut ledger = self.shared.ledger.lock();
        ledger.settle(std::mem::replace(&mut *reserved, room), room);
        ledger.keep_spool(self.hold.digest, Arc::downgrade(self));
        self.hold.set_kept(true);
    }
}

impl Spool {
    /// The disk failed while it was read: once it is committed it is hashed before it is trusted again.
    pub fn doubt(&self) {
        if let Some(blob) = self.committed.get() {
            blob.doubt();
        }
    }
}

impl AsFd for Spool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Hold {
    fn set_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let reserved = *self.reserved.get_mut();
        let mut ledger = self.shared.ledger.lock();
        ledger.release(reserved);
        if *self.kept.get_mut() {
            ledger.take_spool(&self.digest);
            ledger.keep_scrap(self.shared.layout.partial(&self.digest), reserved);
            self.shared.left.notify_all();
        }
    }
}

/// Bytes that content may grow to, of the size that was announced.
fn most(shared: &Shared, size: Option<u64>) -> u64 {
    size.map_or_else(|| shared.ledger.lock().capacity() / UNANNOUNCED, |_| u64::MAX)
}

/// Room that a file of `bytes` may take on disk: whole blocks, and a little for the map of a scattered file.
pub(super) fn room_for(bytes: u64) -> u64 {
    const BLOCK: u64 = 4096;
    let content = bytes.div_ceil(BLOCK) * BLOCK;
    content + content.div_ceil(64 << 20) * BLOCK
}

/// The disk, or this user's part of it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn remove(path: &Path) -> io::Result<()> {
    fail_point!("store.discard", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    std::fs::remove_file(path)
}

fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    fail_point!("store.continue", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    file.read_at(buffer, position)
}

pub(super) fn write_all(file: &File, pieces: &[Bytes], mut position: u64) -> io::Result<()> {
    fail_point!("store.write", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let most = rest.len().min(1024);
        let written = match pwritev(file, &rest[..most], i64::try_from(position).map_err(io::Error::other)?) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            other => other?,
        };
        position += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::store::{Config, Metrics, Store};
    use crate::units::Size;

    const MIB: u64 = 1 << 20;

    fn store(folder: &Path) -> Store {
        let config = Config {
            path: folder.join("store"),
            capacity: Size::mib(64),
            ..Config::default()
        };
        Store::open(&config, Metrics::new(&Registry::new()).unwrap()).unwrap()
    }

    /// Reserved, and listed as scraps.
    fn accounts(store: &Store) -> (u64, u64) {
        let ledger = store.shared.ledger.lock();
        (ledger.reserved(), ledger.scraps())
    }

    /// One MiB of a larger download that was cut, and a reader of it.
    fn cut(store: &Store, digest: &Digest) -> Arc<Spool> {
        let mut staged = store.stage(digest, Some(2 * MIB)).unwrap();
        staged.write(&[Bytes::from(vec![7; 1 << 20])]).unwrap();
        staged.spool()
    }

    #[test]
    fn what_was_cut_is_a_scrap_when_its_last_reader_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let digest = Digest::of(b"longer");

        let reader = cut(&store, &digest);
        let (room, scraps) = accounts(&store);

        assert!(store.has_left(&digest));
        assert!(room > 0 && scraps == 0, "{room} reserved, {scraps} listed");
        drop(reader);
        assert_eq!(accounts(&store), (0, room));
        assert!(store.has_left(&digest));
    }

    #[test]
    fn what_is_continued_while_it_is_read_counts_once_and_until_all_have_closed_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let digest = Digest::of(b"longer");
        let reader = cut(&store, &digest);

        let next = store.stage(&digest, Some(2 * MIB)).unwrap();

        assert_eq!((next.written(), next.unhashed()), (0, MIB));
        assert_eq!(accounts(&store), (room_for(2 * MIB), 0));
        next.discard();
        assert_eq!(accounts(&store), (room_for(2 * MIB), 0));
        assert!(!store.has_left(&digest));
        drop(reader);
        assert_eq!(accounts(&store), (0, 0));
    }
}
