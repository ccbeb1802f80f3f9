//! The second copy of what exists nowhere else, and the first to be written: a promise is kept once its line is here.
//!
//! ```text
//! "wharfjnl" | version: u32 LE | crc32c of the 12 bytes before: u32 LE
//! <crc32c of the JSON: 8 hexadecimal digits> <Change: JSON> LF
//! ...
//! ```
//!
//! A torn last line is what a crash left, and was promised to nobody. A damaged line before others takes nothing with it but
//! itself; what it said stands in the index. Now and then the file is written anew with what holds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use fail::fail_point;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Error;
use super::fact::{Change, Fact, Key};
use super::layout::{self, Layout};
use crate::oci::Repository;

const MAGIC: &[u8; 8] = b"wharfjnl";
/// The newest format this program knows. The first had no lines, the second no debts.
pub(super) const VERSION: u32 = 3;
const WITHOUT_DEBTS: u32 = 2;
pub(super) const HEAD: usize = 16;

/// Bytes that may be added before it is worth writing anew.
const SLACK: u64 = 1 << 20;
/// Facts in a line of those that are written anew.
const FACTS: usize = 100;

/// The file, and how far it is durable.
pub(super) struct Journal {
    path: PathBuf,
    /// Held by whoever writes it anew.
    anew: Mutex<()>,
    state: Mutex<State>,
    /// Somebody's sync ended.
    synced: Condvar,
}

struct State {
    /// `None` on a disk that takes nothing.
    file: Option<Arc<File>>,
    /// Bytes of whole lines.
    length: u64,
    /// When it was last written anew.
    length_anew: u64,
    /// Of the last change.
    number: u64,
    /// Lines appended since the start, and how many of them are durable.
    appended: u64,
    durable: u64,
    is_syncing: bool,
    /// A sync failed: what the file holds is unknown until it is written anew.
    has_failed: bool,
}

/// The place of a line, for whoever wants to know whether it is durable.
#[derive(Clone, Copy, Debug)]
#[must_use = "a line that is not synced is lost with the power"]
pub(super) struct Mark(u64);

/// A place in the file, and the number of the last change before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    length: u64,
    number: u64,
}

/// What was in the file.
#[derive(Default)]
pub(super) struct Found {
    /// In their order.
    pub(super) changes: Vec<Change>,
    /// Whether there are damaged lines before others, or none at all where the head was damaged.
    pub(super) is_damaged: bool,
    /// Whether it is of an older format, and to be written anew before anything is added.
    pub(super) is_older: bool,
}

/// Opens the journal, or makes one. What has no valid head is set aside, where the disk takes that.
pub(super) fn open(layout: &Layout) -> Result<(Journal, Found), Error> {
    let path = layout.journal();
    match read(layout) {
        Err(error) if layout::takes_nothing(&error) => {
            tracing::warn!(%error, "there is no journal on a disk that takes nothing");
            Ok((Journal::new(path, None, 0, 0), Found::default()))
        }
        Err(error) => Err(error),
        Ok((file, length, found)) => {
            let number = found.changes.last().map_or(0, |change| change.number);
            Ok((Journal::new(path, file, length, number), found))
        }
    }
}

/// The file, the bytes of its whole lines, and what they say.
fn read(layout: &Layout) -> Result<(Option<Arc<File>>, u64, Found), Error> {
    let path = layout.journal();
    let mut bytes = Vec::new();
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        layout.set_aside(&path)?;
    }
    layout::make_ours(&path);
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
    let mut is_damaged = false;
    match read.map(|_| version(&bytes)) {
        Ok(Some(version @ (WITHOUT_DEBTS | VERSION))) => {
            let (length, mut found) = lines(&bytes);
            found.is_older = version != VERSION;
            if layout.takes_nothing() {
                return Ok((None, length, found));
            }
            let file = layout::open_private(&path, false).map_err(Error::io("opening", &path))?;
            // What a crash left of a line.
            file.set_len(length).map_err(Error::io("truncating", &path))?;
            return Ok((Some(Arc::new(file)), length, found));
        }
        Ok(Some(found)) if found > VERSION => {
            return Err(Error::Newer {
                path,
                found: found.into(),
                known: VERSION.into(),
            });
        }
        // The first format was a head and nothing else.
        Ok(Some(_)) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => {
            is_damaged = true;
            let aside = layout.set_aside(&path)?;
            let error = outcome
                .err()
                .map_or_else(|| "no valid head".to_owned(), |error| error.to_string());
            tracing::error!(error, aside = %aside.display(), "the journal was damaged and is set aside");
        }
    }
    let file = make(layout)?;
    let found = Found {
        is_damaged,
        ..Found::default()
    };
    Ok((Some(Arc::new(file)), HEAD as u64, found))
}

/// A journal without lines, whole from the moment that it has its name.
fn make(layout: &Layout) -> Result<File, Error> {
    let path = layout.journal_anew();
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        layout.set_aside(&path)?;
    }
    layout::make_ours(&path);
    let mut file = layout::open_private(&path, true).map_err(Error::io("making", &path))?;
    file.write_all(&fresh_head())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("writing", &path))?;
    fail_point!("store.journal.made");
    layout.promote_journal()?;
    layout.sync_root()?;
    Ok(file)
}

/// The bytes up to the last whole line, and what the lines say.
fn lines(bytes: &[u8]) -> (u64, Found) {
    let mut found = Found::default();
    let (mut end, mut length, mut bad) = (HEAD, HEAD, 0);
    for line in bytes[HEAD.min(bytes.len())..].split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        match line.strip_suffix(b"\n").and_then(Change::read) {
            Some(change) => {
                found.changes.push(change);
                found.is_damaged |= bad > 0;
                length = end;
            }
            None => bad += 1,
        }
    }
    if found.is_damaged {
        tracing::error!(
            lines = bad,
            "the journal is damaged; what it lacks is taken from the index"
        );
    }
    (length as u64, found)
}

impl Journal {
    fn new(path: PathBuf, file: Option<Arc<File>>, length: u64, number: u64) -> Self {
        Self {
            path,
            anew: Mutex::new(()),
            state: Mutex::new(State {
                file,
                length,
                length_anew: length,
                number,
                appended: 0,
                durable: 0,
                is_syncing: false,
                has_failed: false,
            }),
            synced: Condvar::new(),
        }
    }

    /// Later changes have higher numbers.
    pub(super) fn count_from(&self, number: u64) {
        let mut state = self.state.lock();
        state.number = state.number.max(number);
    }

    /// Writes a change behind all others, where a kill leaves it; a power cut may take it until it is synced.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: nothing was written.
    pub(super) fn append(
        &self,
        repository: &Repository,
        say: Vec<Fact>,
        unsay: Vec<Key>,
    ) -> Result<(Mark, Change), Error> {
        let mut state = self.state.lock();
        if state.has_failed {
            return Err(self.failed());
        }
        let file = state.file.clone().ok_or_else(|| self.read_only())?;
        let change = Change::new(state.number + 1, repository, say, unsay);
        let line = change.line();
        if let Err(error) = write(&file, &line, state.length) {
            // What was written of it is no line, and the next one stands in its place.
            let _ = file.set_len(state.length);
            return Err(Error::io("writing", &self.path)(error));
        }
        state.length += line.len() as u64;
        state.number += 1;
        state.appended += 1;
        Ok((Mark(state.appended), change))
    }

    /// The number that the next change has, for as long as nobody else can append one.
    pub(super) fn next(&self) -> u64 {
        self.state.lock().number + 1
    }

    /// The place of the last line.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.state.lock().appended)
    }

    /// Waits until the line is durable: one sync serves all who wait. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: nobody knows whether it is.
    pub(super) fn sync(&self, mark: Mark) -> Result<(), Error> {
        fail_point!("store.unsynced.journal", |_| Ok(()));
        let mut state = self.state.lock();
        loop {
            if state.durable >= mark.0 {
                return Ok(());
            }
            if state.has_failed {
                return Err(self.failed());
            }
            if state.is_syncing {
                self.synced.wait(&mut state);
                continue;
            }
            let file = state.file.clone().ok_or_else(|| self.read_only())?;
            let upto = state.appended;
            state.is_syncing = true;
            drop(state);
            let outcome = sync_data(&file);
            state = self.state.lock();
            state.is_syncing = false;
            match outcome {
                Ok(()) => state.durable = state.durable.max(upto),
                // Never tried again: ext4 marks the pages clean.
                Err(error) => {
                    tracing::error!(%error, "the journal could not be synced; nothing is taken in until it is written anew");
                    state.has_failed = true;
                }
            }
            self.synced.notify_all();
        }
    }

    /// Bytes that it may take while it is written anew.
    pub(super) fn allowance(&self) -> u64 {
        self.state.lock().length * 2
    }

    /// Nothing is added before it is written anew.
    pub(super) fn distrust(&self) {
        self.state.lock().has_failed = true;
    }

    /// Whether it has grown enough, failed, or is not there, and is to be written anew.
    pub(super) fn is_due(&self) -> bool {
        let state = self.state.lock();
        state.file.is_none() || state.has_failed || state.length > state.length_anew * 2 + SLACK
    }

    /// The right to write it anew, if that is due: two would take the same file for theirs.
    pub(super) fn turn_to_write_anew(&self) -> Option<MutexGuard<'_, ()>> {
        let turn = self.anew.lock();
        self.is_due().then_some(turn)
    }

    /// How far it goes: what holds at this moment is to be given to [`Journal::write_anew`].
    pub(super) fn end(&self) -> End {
        let state = self.state.lock();
        End {
            length: state.length,
            number: state.number,
        }
    }

    /// Puts a file in the place of this one that says `facts`, which held at `end`, and whatever was appended since.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the old one stays, or it has to be written anew once more.
    pub(super) fn write_anew(&self, layout: &Layout, facts: &[(Repository, Vec<Fact>)], end: End) -> Result<(), Error> {
        let path = layout.journal_anew();
        let written = |error| Error::io("writing", &path)(error);
        let mut file = layout::open_private(&path, true).map_err(written)?;
        let mut text = fresh_head();
        for (repository, facts) in facts {
            for some in facts.chunks(FACTS) {
                text.extend(Change::new(end.number, repository, some.to_vec(), Vec::new()).line());
            }
        }
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(written)?;
        let mut anew = Anew {
            file,
            length: text.len() as u64,
            copied: end.length,
        };
        let mut state = self.state.lock();
        while state.is_syncing {
            self.synced.wait(&mut state);
        }
        // From here on lines are appended, and none of them becomes durable until they all are in the new file.
        state.is_syncing = true;
        let (old, length) = (state.file.clone(), state.length);
        drop(state);
        let copied = anew.copy(old.as_deref(), length).and_then(|()| sync_anew(&anew.file));
        let mut state = self.state.lock();
        let moved = copied
            .and_then(|()| anew.copy(old.as_deref(), state.length))
            .map_err(written)
            .and_then(|()| layout.promote_journal());
        let appended = state.appended;
        let file = Arc::new(anew.file);
        if moved.is_ok() {
            state.file = Some(file.clone());
            (state.length, state.length_anew) = (anew.length, anew.length);
            state.has_failed = false;
        }
        drop(state);
        let is_moved = moved.is_ok();
        let outcome = moved.and_then(|()| {
            file.sync_all().map_err(Error::io("syncing", &self.path))?;
            layout.sync_root()
        });
        let mut state = self.state.lock();
        state.is_syncing = false;
        match outcome {
            Ok(()) => state.durable = state.durable.max(appended),
            Err(_) => state.has_failed |= is_moved,
        }
        self.synced.notify_all();
        outcome
    }

    fn failed(&self) -> Error {
        let reason = "a sync failed before; it is written anew once the disk takes it";
        Error::io("syncing", &self.path)(io::Error::other(reason))
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly {
            path: self.path.parent().unwrap_or(&self.path).to_owned(),
        }
    }
}

/// A journal that is written anew.
struct Anew {
    file: File,
    /// Bytes of it.
    length: u64,
    /// Bytes of the old one that it has, or says in other words.
    copied: u64,
}

impl Anew {
    /// Appends what the old one has as well, up to `end`. One that could not be written to has nothing more.
    fn copy(&mut self, old: Option<&File>, end: u64) -> io::Result<()> {
        let Some(old) = old else { return Ok(()) };
        let behind = end
            .checked_sub(self.copied)
            .and_then(|bytes| usize::try_from(bytes).ok());
        let mut lines = vec![0; behind.ok_or(io::ErrorKind::InvalidInput)?];
        old.read_exact_at(&mut lines, self.copied)?;
        self.file.write_all(&lines)?;
        self.length += lines.len() as u64;
        self.copied = end;
        Ok(())
    }
}

fn write(file: &File, line: &[u8], position: u64) -> io::Result<()> {
    fail_point!("store.journal.append", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    file.write_all_at(line, position)
}

fn sync_anew(file: &File) -> io::Result<()> {
    fail_point!("store.journal.anew", |_| Err(io::Error::from_raw_os_error(
        libc::ENOSPC
    )));
    file.sync_data()
}

fn sync_data(file: &File) -> io::Result<()> {
    fail_point!("store.journal.sync", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
    file.sync_data()
}

/// Room of the journal on disk, in bytes.
pub(super) fn room(layout: &Layout) -> u64 {
    fs::metadata(layout.journal()).map_or(0, |metadata| layout::room(&metadata))
}

fn fresh_head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend(crc32c::crc32c(&head).to_le_bytes());
    head
}

pub(super) fn version(head: &[u8]) -> Option<u32> {
    let (version, checksum) = head.get(..HEAD)?.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let expected = crc32c::crc32c(head.get(..12)?).to_le_bytes();
    (checksum == expected).then(|| u32::from_le_bytes(*version))
}
