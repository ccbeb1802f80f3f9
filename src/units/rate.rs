//! Bytes per second, as settings write them: `5MB/s`, `64kbit/s`.

use std::fmt;
use std::str::FromStr;

use crate::units::{Size, written_as_text};

/// A number of bytes per second. Never 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rate(u64);

/// Lines are sold in bits: the units, with their bits.
const BITS: [(&str, u64); 4] = [
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("bit/s", 1),
];

impl Rate {
    /// In bytes per second.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is no rate. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no rate; write bytes or bits per second, like 5MB/s, 512KiB/s or 40Mbit/s")]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError(text.to_owned());
        let bits = || {
            let (digits, factor) = BITS
                .iter()
                .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let count: u64 = is_number.then(|| digits.parse().ok())??;
            Some(count.checked_mul(*factor)? / 8)
        };
        let bytes = || {
            let size = text.strip_suffix("/s")?;
            // A size alone may be a plain number; of a rate that would tell nobody what it counts.
            let has_unit = size.ends_with('B');
            has_unit.then(|| size.parse::<Size>().ok()).flatten().map(Size::bytes)
        };
        let rate = bits().or_else(bytes).filter(|rate| *rate > 0);
        rate.map(Self).ok_or_else(malformed)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size::of(self.0))
    }
}

written_as_text!(Rate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_or_bits_per_second_and_reads_back() {
        for (text, bytes) in [
            ("5MB/s", 5_000_000),
            ("512KiB/s", 512 << 10),
            ("1 MiB/s", 1 << 20),
            ("64kbit/s", 8_000),
            ("40 Mbit/s", 5_000_000),
            ("1Gbit/s", 125_000_000),
            ("800bit/s", 100),
            ("9B/s", 9),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.bytes(), bytes, "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_remedy() {
        for text in [
            "",
            "5MB",
            "5/s",
            "/s",
            "0MB/s",
            "7bit/s",
            "-1MB/s",
            "5Mb/s",
            "5MBit/s",
            "kbit/s",
            "99999999999999999999MB/s",
            "99999999999999999Gbit/s",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.to_string().contains("like 5MB/s"), "{text}");
        }
    }
}
