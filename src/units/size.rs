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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units_or_none() {
        for (text, bytes) in [
            ("4096", 4096),
            ("0", 0),
            ("7B", 7),
            ("1KiB", 1024),
            ("3 MiB", 3 << 20),
            ("20GiB", 20 << 30),
            ("500MB", 500_000_000),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size::of(bytes)), "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused_with_the_remedy() {
        for text in [
            "", "GiB", "1.5GiB", "-1", "+1", "20G", "20Gb", "20 gib", " 20GiB", "20GiB ", "1e3",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert_eq!(error, SizeError::Malformed, "{text}");
            assert!(error.to_string().contains("like 20GiB"));
        }
    }

    #[test]
    fn sizes_beyond_64_bits_are_too_large() {
        assert_eq!("18446744073709551616".parse::<Size>(), Err(SizeError::TooLarge));
        assert_eq!("16384PiB".parse::<Size>(), Err(SizeError::TooLarge));
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_divides_it() {
        assert_eq!(Size::gib(20).to_string(), "20GiB");
        assert_eq!(Size::mib(1536).to_string(), "1536MiB");
        assert_eq!(Size::of(500_000_000).to_string(), "500000000B");
        assert_eq!(Size::of(0).to_string(), "0B");
    }

    #[test]
    fn settings_read_and_write_a_size_as_text() {
        assert_eq!(serde_json::from_str::<Size>(r#""1GiB""#).unwrap(), Size::gib(1));
        assert_eq!(serde_json::to_string(&Size::kib(4)).unwrap(), r#""4KiB""#);
    }

    proptest! {
        #[test]
        fn every_size_that_is_shown_reads_back(bytes: u64, shift in 0..50_u32) {
            let size = Size::of(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Size>();
        }
    }
}
