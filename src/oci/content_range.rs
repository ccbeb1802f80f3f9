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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_reads_back_with_and_without_the_total() {
        for text in ["bytes 0-9/100", "bytes 5-5/6", "bytes 0-9/*"] {
            assert_eq!(ContentRange::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_part_that_cannot_exist_is_not_understood() {
        for text in [
            "",
            "bytes",
            "bytes */100",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes 0-9",
            "0-9/100",
            "items 0-9/100",
            "bytes 0-/100",
            "bytes -9/100",
            "bytes 0-9/",
            "bytes +0-9/100",
            "bytes 0-9/1x",
            "bytes 0-18446744073709551616/*",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in "(bytes )?[0-9*/ -]{0,40}|\\PC*") {
            if let Some(range) = ContentRange::parse(&text) {
                prop_assert!(range.first <= range.last);
                prop_assert!(range.total.is_none_or(|total| range.last < total));
            }
        }
    }
}
