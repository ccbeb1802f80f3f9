//! Names and folders on disk. No other file of the house builds a path under `storage.path`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::StatVfsMountFlags;

use fail::fail_point;

use super::Error;
use crate::oci::{Algorithm, Digest};

/// Bytes that SQLite needs to open its file for writing, with some to spare.
const LEAST_FREE: u64 = 256 << 10;

/// The records.
pub(super) const INDEX: &str = "index.db";
/// The second copy of some of them.
pub(super) const JOURNAL: &str = "journal.log";

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The folder of a store.
pub(super) struct Layout {
    root: PathBuf,
    /// Held as long as the process lives.
    _lock: Flock<File>,
}

impl Layout {
    /// Makes what is missing and takes the lock.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        // The one link that is followed: an operator may keep the store elsewhere.
        if !root.is_dir() {
            // Not moved aside like what stands in the way within: a slip in a path must not touch what is there.
            if root.symlink_metadata().is_ok() {
                return Err(Error::NotAFolder { path: root.to_owned() });
            }
            make_folder(root).map_err(Error::io("making the folder", root))?;
        }
        let lock = lock(&root.join("wharf.lock"))?;
        let layout = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        match layout.make_folders() {
            // What is there can be served all the same.
            Err(error) if takes_nothing(&error) => {}
            other => other?,
        }
        Ok(layout)
    }

    /// Whether the file system takes nothing: it is read-only, or has no room for what SQLite keeps beside its file.
    pub(super) fn takes_nothing(&self) -> bool {
        let seen = rustix::fs::statvfs(&self.root);
        seen.is_ok_and(|seen| {
            let free = seen.f_bavail.saturating_mul(seen.f_frsize);
            seen.f_flag.contains(StatVfsMountFlags::RDONLY) || free < LEAST_FREE
        })
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// The two files of what is kept twice.
    pub(super) fn kept(&self, kept: super::Kept) -> [PathBuf; 2] {
        let name = kept.name();
        [self.root.join(name), self.root.join(format!("{name}.copy"))]
    }

    /// What is to take the journal's place.
    pub(super) fn journal_anew(&self) -> PathBuf {
        self.root.join("journal.new")
    }

    /// Puts it there.
    pub(super) fn promote_journal(&self) -> Result<(), Error> {
        let (from, to) = (self.journal_anew(), self.journal());
        #[expect(
            clippy::disallowed_methods,
            reason = "what was durable is so in the new one, whichever a power cut leaves"
        )]
        fs::rename(&from, &to).map_err(Error::io("moving into place", &to))
    }

    /// Makes the names of the record files durable.
    pub(super) fn sync_root(&self) -> Result<(), Error> {
        sync_folder(&self.root).map_err(Error::io("syncing", &self.root))
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs(digest.algorithm()).join(&hex[..2]).join(hex)
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(flat_name(digest))
    }

    pub(super) fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.quarantine().join(flat_name(digest))
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Every regular file in `blobs/` whose name is a digest, with its size and its room on disk.
    ///
    /// `progress` is told now and then how many there are so far.
    pub(super) fn committed(&self, progress: impl Fn(usize)) -> Vec<(Digest, fs::Metadata)> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            for fan in files(&self.blobs(algorithm)) {
                progress(found.len());
                for entry in files(&fan.path()) {
                    let name = entry.file_name();
                    let Some(digest) = name
                        .to_str()
                        .and_then(|hex| format!("{}:{hex}", algorithm.as_str()).parse::<Digest>().ok())
                    else {
                        continue;
                    };
                    if let Some(metadata) = regular(&entry).filter(|_| entry.path() == self.blob(&digest)) {
                        found.push((digest, metadata));
                    }
                }
            }
        }
        found
    }

    /// What wharf left in `folder` under names of the form `<alg>-<hex>`.
    pub(super) fn scraps(&self, folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
        let ours = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.replacen('-', ":", 1).parse::<Digest>().ok())
                .is_some()
        };
        files(folder)
            .filter(ours)
            .filter_map(|entry| regular(&entry).map(|metadata| (entry.path(), metadata)))
            .collect()
    }

    /// The file of an upload.
    pub(super) fn upload(&self, name: &str) -> PathBuf {
        self.uploads().join(name)
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// What uploads left, by name.
    pub(super) fn left_uploads(&self) -> Vec<(String, fs::Metadata)> {
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().ok();
        files(&self.uploads())
            .filter_map(|entry| Some((name(&entry)?, regular(&entry)?)))
            .collect()
    }

    /// A new file for an upload.
    pub(super) fn make_upload(&self, name: &str) -> Result<File, Error> {
        let path = self.upload(name);
        let made = make_private(&path).or_else(|error| {
            // Somebody removed the folders under us.
            if error.kind() != io::ErrorKind::NotFound || self.uploads().is_dir() || self.make_folders().is_err() {
                return Err(error);
            }
            make_private(&path)
        });
        made.map_err(Error::io("making", &path))
    }

    /// The file of a download. What stands in its place keeps its content under another name.
    pub(super) fn open_partial(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.partial(digest);
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => drop(set_aside(&path)?),
            // Somebody removed the folders under us.
            Err(_) if !self.partials().is_dir() => self.make_folders()?,
            _ => {}
        }
        fail_point!("store.partial", |_| Err(Error::io("opening", &path)(
            io::Error::from_raw_os_error(libc::EMFILE)
        )));
        open_private(&path, false).map_err(Error::io("opening", &path))
    }

    /// Moves a finished download or upload to its place. What lies there keeps its content under another name.
    pub(super) fn promote(&self, from: &Path, digest: &Digest) -> Result<PathBuf, Error> {
        let to = self.blob(digest);
        match rename_new(from, &to) {
            // What lies there is not on record; these bytes were just hashed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                set_aside(&to)?;
                rename_new(from, &to)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.fan(digest).is_dir() => {
                self.make_folders()?;
                rename_new(from, &to)
            }
            other => other,
        }
        .map_err(Error::io("moving into place", &to))?;
        Ok(to)
    }

    /// Moves a finished download to its place, over what lies there; it is synced already.
    pub(super) fn replace(&self, from: &Path, digest: &Digest) -> Result<PathBuf, Error> {
        let to = self.blob(digest);
        #[expect(clippy::disallowed_methods, reason = "the same content, and durable")]
        fs::rename(from, &to).map_err(Error::io("moving into place", &to))?;
        Ok(to)
    }

    /// Takes a damaged blob out of `blobs/`; what was in quarantine under its name goes.
    pub(super) fn isolate(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let (from, to) = (self.blob(digest), self.quarantined(digest));
        if !self.quarantine().is_dir() {
            self.make_folders()?;
        }
        fail_point!("store.isolate", |_| Err(Error::io("moving into quarantine", &from)(
            io::Error::from_raw_os_error(libc::EIO)
        )));
        #[expect(clippy::disallowed_methods, reason = "the store's own folder")]
        let moved = || fs::rename(&from, &to);
        moved()
            .or_else(|error| match error.kind() {
                // Somebody's folder takes no file's place, nor a file a folder's.
                io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
                    fs::remove_file(&to).or_else(|_| fs::remove_dir_all(&to))?;
                    moved()
                }
                _ => Err(error),
            })
            .map_err(Error::io("moving into quarantine", &from))?;
        Ok(to)
    }

    /// Moves a damaged record file out of the way, under a name that is not taken.
    pub(super) fn set_aside(&self, path: &Path) -> Result<PathBuf, Error> {
        set_aside(path)
    }

    /// The folders of `blobs/` that hold what was committed, for syncing.
    pub(super) fn fan(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(&digest.hex()[..2])
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    fn make_folders(&self) -> Result<(), Error> {
        for folder in [
            self.partials(),
            self.uploads(),
            self.quarantine(),
            self.root.join("blobs"),
        ] {
            make_folder(&folder).map_err(Error::io("making the folder", &folder))?;
        }
        for algorithm in ALGORITHMS {
            let blobs = self.blobs(algorithm);
            make_folder(&blobs).map_err(Error::io("making the folder", &blobs))?;
            for fan in 0..=255_u8 {
                let folder = blobs.join(format!("{fan:02x}"));
                make_folder(&folder).map_err(Error::io("making the folder", &folder))?;
            }
            sync_folder(&blobs).map_err(Error::io("syncing", &blobs))?;
        }
        sync_folder(&self.root).map_err(Error::io("syncing", &self.root))
    }
}

/// Room that a file takes, as the budget counts it: bytes of allocated blocks.
pub(super) fn room(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

/// Opens a file that this process alone may write, never through a link.
pub(super) fn open_private(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes a file that this process alone may write, and that was not there.
fn make_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Gives a record file of this user back the rights that somebody took from it. Of another user's, opening tells.
pub(super) fn make_ours(path: &Path) {
    const OURS: u32 = 0o600;
    let Ok(metadata) = path.symlink_metadata() else { return };
    if metadata.is_file() && metadata.mode() & OURS != OURS {
        let changed = fs::set_permissions(path, fs::Permissions::from_mode(OURS));
        tracing::warn!(path = %path.display(), ?changed, "a record file could not be read and written by its owner");
    }
}

/// Opens a committed file for reading, never through a link.
pub(super) fn open_blob(path: &Path) -> io::Result<File> {
    // Of a pipe nobody would ever hear.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // A read-only file system has nothing to sync.
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        other => other,
    }
}

fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn make_folder(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => drop(move_aside(path)?),
        Err(_) => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether nothing could be written for want of leave or of room, and what is there can be served all the same.
pub(super) fn takes_nothing(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT))
}

fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    move_aside(path).map_err(Error::io("setting aside", path))
}

/// What stands in the way keeps its content, under a name that is not taken.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = (1..)
        .map(|number| path.with_file_name(format!("{name}.aside-{number}")))
        .find(|candidate| candidate.symlink_metadata().is_err())
        .expect("the numbers do not run out");
    #[expect(clippy::disallowed_methods, reason = "the store's own folder")]
    fs::rename(path, &aside)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "something stood in the way and was moved aside");
    Ok(aside)
}

fn files(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn regular(entry: &fs::DirEntry) -> Option<fs::Metadata> {
    entry.metadata().ok().filter(fs::Metadata::is_file)
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems know no flags for a rename; only wharf writes digest names here.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() =>
        {
            #[expect(clippy::disallowed_methods, reason = "the store's own folder")]
            fs::rename(from, to)
        }
        other => other.map_err(io::Error::from),
    }
}

fn lock(path: &Path) -> Result<Flock<File>, Error> {
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        set_aside(path)?;
    }
    let file = match open_private(path, false) {
        // A lock needs no right to write. Who made no lock file left nothing to share either.
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
            File::open(path).or_else(|_| File::open(path.parent().unwrap_or(path)))
        }
        other => other,
    };
    let file = file.map_err(Error::io("opening", path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For whoever looks at the folder; nobody reads it back.
            let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::Locked { path: path.to_owned() }),
        Err((_, errno)) => Err(Error::io("locking", path)(errno.into())),
    }
}
