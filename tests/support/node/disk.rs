//! What a node keeps, seen in its folder and not through its own account.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Node;

/// What it keeps.
impl Node {
    /// Where the content of `digest` lies once it is committed.
    pub fn stored_at(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        self.data().join("blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    pub fn has_stored(&self, digest: &str) -> bool {
        self.stored_at(digest).exists()
    }

    /// All files below `storage.path` with their sizes in bytes, in order, paths relative to it.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        collect(&self.data(), &mut |path, metadata| {
            let relative = path.strip_prefix(self.data()).expect("below").to_owned();
            files.push((relative, metadata.len()));
        });
        files.sort();
        files
    }

    /// Takes the index away, of a node that does not run.
    pub fn lose_index(&self) {
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(self.data().join(name));
        }
    }

    /// Turns every bit of one byte of stored content.
    pub fn damage(&self, digest: &str, offset: u64) {
        use std::os::unix::fs::{FileExt, PermissionsExt};
        let path = self.stored_at(digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("our own file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        file.write_all_at(&[!byte[0]], offset).expect("a disk");
    }

    /// The first bytes of a download of `digest`, as long as it is not committed.
    pub fn partial_of(&self, digest: &str) -> PathBuf {
        self.data().join("partial").join(digest.replacen(':', "-", 1))
    }

    /// What the file system spends on the files below a folder of `storage.path`, but for those of the names `without`.
    pub fn room_of(&self, folder: &str, without: &[&str]) -> u64 {
        let mut bytes = 0;
        collect(&self.data().join(folder), &mut |path, metadata| {
            if !without.iter().any(|name| path == self.data().join(name)) {
                bytes += metadata.blocks() * 512;
            }
        });
        bytes
    }

    /// What the file system spends on `storage.path` at one instant, evicted files that are still open included.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.data(), self.child.is_some().then(|| self.pid()))
    }
}

/// What the file system spends on the files below `folder`, those included that `process` holds open without a name. The
/// process stands still meanwhile.
pub fn disk_bytes(folder: &Path, process: Option<u32>) -> u64 {
    let frozen = process.map(Frozen::new);
    let mut bytes = 0;
    let mut add = |metadata: &Metadata| bytes += metadata.blocks() * 512;
    collect(folder, &mut |_, metadata| add(metadata));
    if let Some(frozen) = frozen {
        frozen.unlinked_below(folder).iter().for_each(add);
    }
    bytes
}

/// A process that stands still, so that two looks at it agree.
struct Frozen(u32);

impl Frozen {
    fn new(pid: u32) -> Self {
        signal(pid, Signal::SIGSTOP);
        // Each thread takes the signal when it next leaves the kernel. One that ended by itself takes none.
        while !threads(pid).iter().all(|state| "TZX".contains(*state)) {
            std::thread::yield_now();
        }
        Self(pid)
    }

    /// Files below `folder` that are open and have no name any more.
    fn unlinked_below(&self, folder: &Path) -> Vec<Metadata> {
        let mut files = BTreeMap::new();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.0));
        for entry in descriptors.into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if target.starts_with(folder)
                && target.to_string_lossy().ends_with(" (deleted)")
                && let Ok(metadata) = fs::metadata(entry.path())
            {
                files.insert(metadata.ino(), metadata);
            }
        }
        files.into_values().collect()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, Signal::SIGCONT);
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("our own child");
}

/// The state of each thread of a process, as the kernel names it.
fn threads(pid: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    tasks
        .filter_map(|task| state(fs::read_to_string(task.path().join("stat")).ok()?))
        .collect()
}

/// Calls `each` with every file below `folder`. What vanishes meanwhile is left out.
fn collect(folder: &Path, each: &mut impl FnMut(&Path, &Metadata)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            collect(&entry.path(), each);
        } else {
            each(&entry.path(), &metadata);
        }
    }
}
