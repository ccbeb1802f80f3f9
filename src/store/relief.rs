//! Whether the disk gives back what leaves: a quota, a snapshot or an open file keeps it.

/// Bytes and names that are free, as if this process had written nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stock {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// What was free before something left, what left, and what came back of it at once.
///
/// What came back is counted file by file, so that others who write meanwhile do not hide it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relief {
    before: Stock,
    left: Stock,
    gained: Stock,
}

impl From<Stock> for Relief {
    fn from(before: Stock) -> Self {
        Self {
            before,
            left: Stock::default(),
            gained: Stock::default(),
        }
    }
}

impl Relief {
    /// A file with so much `room` was unlinked, or should have been.
    pub(super) fn add(&mut self, room: u64, before: Stock, after: Stock) {
        self.left.bytes += room;
        self.left.files += 1;
        self.gained.bytes += after.bytes.saturating_sub(before.bytes);
        self.gained.files += after.files.saturating_sub(before.files);
    }

    /// Whether about half of it came back at once.
    pub(super) fn helped_at_once(&self) -> bool {
        self.is_enough(self.gained)
    }

    /// Whether it came back by now: some file systems free blocks later.
    pub(super) fn helped_by(&self, now: Stock) -> bool {
        self.is_enough(Stock {
            bytes: now.bytes.saturating_sub(self.before.bytes),
            files: now.files.saturating_sub(self.before.files),
        })
    }

    fn is_enough(&self, gained: Stock) -> bool {
        gained.bytes >= self.left.bytes.div_ceil(2) || gained.files >= self.left.files.div_ceil(2)
    }
}
