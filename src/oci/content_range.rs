//! The Content-Range header of a single part (RFC 9110, section 14.4).

use std::fmt;

/// Which part of a blob a reply holds, like `bytes 0-9/100`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte; it belongs to the part. Never below `first`.
    pub last: u64,
    /// Size of the whole blob in bytes, where known. Always above `last`.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads the header's value. `None` for anything but one part of bytes that can exist.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, rest) = header.trim().split_once(' ')?;
        let (part, total) = rest.trim_start().split_once('/')?;
        let (first, last) = part.split_once('-')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let range = Self {
            first: number(first)?,
            last: number(last)?,
            total,
        };
        let can_exist = range.first <= range.last && total.is_none_or(|total| range.last < total);
        (unit.eq_ignore_ascii_case("bytes") && can_exist).then_some(range)
    }
}

fn number(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, total } = self;
        match total {
            Some(total) => write!(f, "bytes {first}-{last}/{total}"),
            None => write!(f, "bytes {first}-{last}/*"),
        }
    }
}
