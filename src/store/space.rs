//! What the file system below the store has free. Others write to it too, whatever the budget says.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::StatVfsMountFlags;

use super::Error;
use super::health::IN_VAIN;
use super::index::now;
use super::relief::{Relief, Stock};
use crate::units::Size;

/// Of what nobody set, this much stays free, or a twentieth of a smaller file system.
const KEPT: u64 = 1 << 30;
const PART: u64 = 20;

/// So many names for further files stay free, or a twentieth of all.
const KEPT_FILES: u64 = 1000;

/// How often it is looked at while nobody asks for room.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The floor of free space, and whether the file system was last found below it.
pub(super) struct Space {
    path: PathBuf,
    keep: Option<Size>,
    /// Bytes that were written here since the start.
    written: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In words, while room is refused that the budget has, and the room that would end it.
    trouble: Option<(String, i64)>,
    /// Content left and the room did not show at once: when, for how much, and what was free before.
    suspicion: Option<(Instant, i64, Relief)>,
    /// When it was found that content had left in vain, and the room that was wanted.
    in_vain: Option<(Instant, i64)>,
}

/// What the file system can take, as of one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare {
    /// Bytes above what is kept free; negative when others took of that.
    pub(super) bytes: i64,
    /// Names for further files, counted alike.
    pub(super) files: i64,
    /// Whether content that leaves may make room: a quota or a snapshot does not give back what leaves.
    pub(super) yields: bool,
    /// Bytes free, and bytes to be kept free.
    pub(super) free: u64,
    pub(super) free_files: u64,
    pub(super) kept: u64,
}

impl Spare {
    /// Nothing is known against writing.
    pub(super) const UNKNOWN: Self = Self {
        bytes: i64::MAX,
        files: i64::MAX,
        yields: true,
        free: u64::MAX,
        free_files: u64::MAX,
        kept: 0,
    };
}

impl Space {
    pub(super) fn below(path: &Path, keep: Option<Size>) -> Self {
        Self {
            path: path.to_owned(),
            keep,
            written: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    /// Bytes free for who is not root; `None` if the system does not say.
    pub(super) fn free(&self) -> Option<u64> {
        let seen = rustix::fs::statvfs(&self.path).ok()?;
        Some(seen.f_bavail.saturating_mul(seen.f_frsize))
    }

    /// Asks the system: about a microsecond.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]: it takes nothing, where making room would lose content and bring nothing.
    pub(super) fn look(&self) -> Result<Spare, Error> {
        // Whoever writes hears of it.
        let Ok(seen) = rustix::fs::statvfs(&self.path) else {
            return Ok(Spare::UNKNOWN);
        };
        if seen.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let error = Error::ReadOnly {
                path: self.path.clone(),
            };
            self.trouble_is(error.to_string(), 0);
            return Err(error);
        }
        let free = seen.f_bavail.saturating_mul(seen.f_frsize);
        let kept = kept(self.keep, seen.f_blocks.saturating_mul(seen.f_frsize));
        if kept == 0 {
            return Ok(Spare::UNKNOWN);
        }
        // Some file systems make names as they go, and count none.
        let files = if seen.f_files == 0 {
            i64::MAX
        } else {
            signed(seen.f_favail) - signed(KEPT_FILES.min(seen.f_files / PART))
        };
        let mut state = self.state.lock();
        state.judge(self.stock_of(free, seen.f_favail));
        Ok(Spare {
            bytes: signed(free) - signed(kept),
            files,
            yields: state.yields(),
            free,
            free_files: seen.f_favail,
            kept,
        })
    }

    /// A grant of `wanted` bytes was refused though the budget has them.
    pub(super) fn refused(&self, spare: &Spare, wanted: u64) {
        let text = format!(
            "below {} others left {} bytes and {} files free, of which storage.keep_free keeps {} bytes",
            self.path.display(),
            spare.free,
            spare.free_files,
            spare.kept
        );
        self.trouble_is(text, wanted);
    }

    fn trouble_is(&self, text: String, wanted: u64) {
        let mut state = self.state.lock();
        if state.trouble.is_none() {
            tracing::error!(reason = text, "the disk takes nothing more; pulls go through unkept");
        }
        state.trouble = Some((text, signed(wanted)));
    }

    /// What is free, for comparing it before something leaves and afterwards.
    pub(super) fn stock(&self) -> Stock {
        rustix::fs::statvfs(&self.path).map_or_else(
            |_| Stock::default(),
            |seen| self.stock_of(seen.f_bavail.saturating_mul(seen.f_frsize), seen.f_favail),
        )
    }

    fn stock_of(&self, free: u64, files: u64) -> Stock {
        let bytes = free.saturating_add(self.written.load(Ordering::Relaxed));
        Stock { bytes, files }
    }

    /// So many bytes of what is free were taken by this process.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Content left, and a grant of `wanted` bytes is not made all the same: others took the room, or it did not come back.
    pub(super) fn relieved(&self, wanted: u64, relief: Relief) {
        if !relief.helped_at_once() {
            self.state
                .lock()
                .suspicion
                .get_or_insert((now(), signed(wanted), relief));
        }
    }

    /// What was refused for want of room may be asked for again once that room is there.
    pub(super) fn seen(&self, spare: &Spare) {
        let mut state = self.state.lock();
        if state.suspicion.is_some_and(|(_, wanted, _)| spare.bytes >= wanted) {
            state.suspicion = None;
        }
        if state.in_vain.is_some_and(|(_, wanted)| spare.bytes >= wanted) {
            state.in_vain = None;
        }
        let is_over = |wanted: i64| spare.bytes >= wanted && spare.files >= 0;
        if state.trouble.as_ref().is_some_and(|(_, wanted)| is_over(*wanted)) {
            state.trouble = None;
            tracing::info!("the disk has room again");
        }
    }

    /// In words; `None` while there is room.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.as_ref().map(|(text, _)| text.clone())
    }
}

impl State {
    /// A second later it is known whether what left came back.
    fn judge(&mut self, stock: Stock) {
        let Some((when, wanted, relief)) = self.suspicion else {
            return;
        };
        if relief.helped_by(stock) {
            self.suspicion = None;
        } else if now().saturating_duration_since(when) >= LOOK {
            self.suspicion = None;
            self.in_vain = Some((now(), wanted));
        }
    }

    fn yields(&self) -> bool {
        let is_over = |(when, _)| now().saturating_duration_since(when) >= IN_VAIN;
        self.suspicion.is_none() && self.in_vain.is_none_or(is_over)
    }
}

/// Bytes of a file system of `all` bytes that are to stay free.
pub(super) fn kept(set: Option<Size>, all: u64) -> u64 {
    set.map_or_else(|| KEPT.min(all / PART), Size::bytes)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
