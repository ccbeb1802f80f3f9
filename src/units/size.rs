//! A number of bytes, written "20GiB", "500MB" or "4096".

use std::fmt;
use std::str::FromStr;

use crate::units::written_as_text;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Size(u64);

/// The units that may be written, with their bytes; the binary ones from large to small.
const BINARY: [(&str, u64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const DECIMAL: [(&str, u64); 7] = [
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// A size of `n` bytes.
    pub const fn of(n: u64) -> Self {
        Self(n)
    }

    /// A size of `n` KiB (1,024 bytes each).
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// A size of `n` MiB (1,048,576 bytes each).
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// A size of `n` GiB (1,073,741,824 bytes each).
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is no size. The operator's: the message says what may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// No whole number, or no known unit behind it.
    #[error("not a size; write a whole number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 20GiB")]
    Malformed,

    /// More than 64 bits of bytes.
    #[error("a size beyond 16 EiB; write a smaller one")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_at);
        if digits.is_empty() {
            return Err(SizeError::Malformed);
        }
        let factor = factor(unit.trim_start_matches(' ')).ok_or(SizeError::Malformed)?;
        let count: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
        count.checked_mul(factor).map(Self).ok_or(SizeError::TooLarge)
    }
}

fn factor(unit: &str) -> Option<u64> {
    if unit.is_empty() {
        return Some(1);
    }
    let known = BINARY.iter().chain(&DECIMAL);
    known.copied().find_map(|(name, bytes)| (name == unit).then_some(bytes))
}

/// Writes the largest binary unit that divides the size, else plain bytes: what `FromStr` reads back.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |&&(_, bytes): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(bytes);
        match BINARY.iter().find(whole) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

written_as_text!(Size);
