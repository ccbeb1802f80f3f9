//! The Range header (RFC 9110, section 14).

use std::ops::Range;

/// The parts of a blob that a client asks for, before the size of the blob is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ranges(Vec<Part>);

/// More parts than this are not worth cutting out; the whole is sent (RFC 9110, section 14.2,
/// allows to ignore what looks like an attack).
const MOST: usize = 16;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// `first-last`, both included.
    Closed(u64, u64),
    /// `first-`
    From(u64),
    /// `-count`
    Last(u64),
}

/// What of the blob to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resolved {
    /// All of it, as if no range had been asked for: status 200.
    Whole,
    /// One part, never empty.
    One(Range<u64>),
    /// Two parts or more, none empty, in the order asked for.
    Many(Vec<Range<u64>>),
    /// No part of it lies within the blob: status 416.
    Unsatisfiable,
}

impl Ranges {
    /// Reads the value of a Range header. `None` means to ignore it: another unit than bytes, or
    /// not understood.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.trim().split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        // One more than will be served is enough to know that there are too many.
        let parts = set
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .take(MOST + 1);
        let parts = parts.map(Part::parse).collect::<Option<Vec<_>>>()?;
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// What to send of a blob of `size` bytes.
    ///
    /// An empty blob is sent whole whatever is asked: some clients put `bytes=0-` on every request.
    pub fn resolve(&self, size: u64) -> Resolved {
        if size == 0 || self.0.len() > MOST {
            return Resolved::Whole;
        }
        let mut parts: Vec<_> = self.0.iter().filter_map(|part| part.within(size)).collect();
        let sum = parts
            .iter()
            .fold(0, |sum: u64, part| sum.saturating_add(part.end - part.start));
        match parts.len() {
            0 => Resolved::Unsatisfiable,
            1 => Resolved::One(parts.swap_remove(0)),
            _ if sum > size => Resolved::Whole,
            _ => Resolved::Many(parts),
        }
    }

    /// Where a single `first-` or `first-last` begins, for reading before the size is known.
    pub fn first_from(&self) -> Option<u64> {
        match self.0[..] {
            [Part::From(first)] => Some(first),
            [Part::Closed(first, last)] if first <= last => Some(first),
            _ => None,
        }
    }
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", count) => number(count).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => Some(Self::Closed(number(first)?, number(last)?)),
        }
    }

    /// The part that lies within `size` bytes; `None` where there is none.
    fn within(self, size: u64) -> Option<Range<u64>> {
        let part = match self {
            Self::Closed(first, last) if first > last => return None,
            Self::Closed(first, last) => first..last.saturating_add(1).min(size),
            Self::From(first) => first..size,
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (part.start < part.end).then_some(part)
    }
}

/// Digits only. A number beyond 64 bits lies behind the end of any blob, as the largest one does.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(header: &str, size: u64) -> Resolved {
        Ranges::parse(header).unwrap().resolve(size)
    }

    #[test]
    fn the_six_plain_forms_are_one_part_each_or_unsatisfiable() {
        assert_eq!(resolved("bytes=0-9", 100), Resolved::One(0..10));
        assert_eq!(resolved("bytes=50-", 100), Resolved::One(50..100));
        assert_eq!(resolved("bytes=-5", 100), Resolved::One(95..100));
        assert_eq!(
            resolved("bytes=98-99999999999999999999999", 100),
            Resolved::One(98..100)
        );
        assert_eq!(resolved("bytes=5-2", 100), Resolved::Unsatisfiable);
        assert_eq!(resolved("bytes=100-", 100), Resolved::Unsatisfiable);
    }

    #[test]
    fn the_edges_of_a_blob_are_exact() {
        assert_eq!(resolved("bytes=0-", 100), Resolved::One(0..100));
        assert_eq!(resolved("bytes=0-0", 100), Resolved::One(0..1));
        assert_eq!(resolved("bytes=99-99", 100), Resolved::One(99..100));
        assert_eq!(resolved("bytes=-100", 100), Resolved::One(0..100));
        assert_eq!(resolved("bytes=-101", 100), Resolved::One(0..100));
        assert_eq!(resolved("bytes=-0", 100), Resolved::Unsatisfiable);
        assert_eq!(
            resolved("bytes=0-18446744073709551615", u64::MAX),
            Resolved::One(0..u64::MAX)
        );
    }

    #[test]
    fn several_parts_come_in_the_order_asked_for_without_those_beyond_the_end() {
        assert_eq!(resolved("bytes=50-59,0-9", 100), Resolved::Many(vec![50..60, 0..10]));
        assert_eq!(
            resolved("bytes=0-9, 200-, -1", 100),
            Resolved::Many(vec![0..10, 99..100])
        );
        assert_eq!(resolved("bytes=0-9,200-", 100), Resolved::One(0..10));
        assert_eq!(resolved("bytes=200-,300-", 100), Resolved::Unsatisfiable);
    }

    #[test]
    fn parts_that_add_up_to_more_than_the_blob_are_answered_with_the_whole() {
        assert_eq!(resolved("bytes=0-,0-", 100), Resolved::Whole);
        assert_eq!(resolved("bytes=0-60,40-99", 100), Resolved::Whole);
        assert_eq!(resolved("bytes=0-60,61-99", 100), Resolved::Many(vec![0..61, 61..100]));
    }

    #[test]
    fn a_seventeenth_part_is_answered_with_the_whole() {
        let header = |count| format!("bytes={}", vec!["0-0"; count].join(","));

        assert_eq!(resolved(&header(16), 100), Resolved::Many(vec![0..1; 16]));
        assert_eq!(resolved(&header(17), 100), Resolved::Whole);
    }

    #[test]
    fn an_empty_blob_is_sent_whole() {
        for header in ["bytes=0-", "bytes=-5", "bytes=0-9,20-"] {
            assert_eq!(resolved(header, 0), Resolved::Whole);
        }
    }

    #[test]
    fn the_unit_is_read_in_any_case_and_empty_list_elements_are_passed_over() {
        assert_eq!(resolved("Bytes=0-9", 100), Resolved::One(0..10));
        assert_eq!(
            resolved(" bytes= 0-9 , ,20-29,", 100),
            Resolved::Many(vec![0..10, 20..30])
        );
    }

    #[test]
    fn what_is_not_understood_is_to_be_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes 0-9",
            "items=0-9",
            "bytes =0-9",
            "bytes=0",
            "bytes=-",
            "bytes=a-b",
            "bytes=0-9;5-6",
            "bytes=+0-9",
            "bytes=0-+9",
            "bytes=--5",
            "bytes=0-9-10",
            "bytes=0-9,x",
            "bytes=0x0-9",
            "bytes=\u{0661}-",
        ] {
            assert_eq!(Ranges::parse(header), None, "{header:?}");
        }
    }

    #[test]
    fn where_to_begin_is_known_before_the_size_only_for_a_single_range_from_the_front() {
        let first = |header| Ranges::parse(header).unwrap().first_from();

        assert_eq!(first("bytes=7-"), Some(7));
        assert_eq!(first("bytes=7-9"), Some(7));
        assert_eq!(first("bytes=9-7"), None);
        assert_eq!(first("bytes=-7"), None);
        assert_eq!(first("bytes=7-,9-"), None);
    }

    /// One byte after the other: is it asked for by this part?
    fn naive(part: &str, size: u64) -> Vec<u64> {
        let (first, last) = part.split_once('-').unwrap();
        let wanted = |at: u64| match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) => first <= at && at <= last,
            (Ok(first), Err(_)) => first <= at,
            (Err(_), Ok(count)) => size - at <= count,
            (Err(_), Err(_)) => unreachable!("the strategy writes a number on one side at least"),
        };
        (0..size).filter(|at| wanted(*at)).collect()
    }

    proptest! {
        #[test]
        fn ranges_resolve_as_if_every_byte_were_looked_at(
            parts in proptest::collection::vec("[0-9]{1,2}-[0-9]{0,2}|-[0-9]{1,2}", 1..20),
            size in 0..60_u64,
        ) {
            let naive: Vec<_> = parts.iter().map(|part| naive(part, size)).filter(|bytes| !bytes.is_empty()).collect();
            let sum = naive.iter().map(Vec::len).sum::<usize>() as u64;
            let bytes = |part: &Range<u64>| part.clone().collect::<Vec<_>>();

            match resolved(&format!("bytes={}", parts.join(",")), size) {
                Resolved::Whole => prop_assert!(size == 0 || parts.len() > 16 || (naive.len() > 1 && sum > size)),
                Resolved::One(part) => prop_assert_eq!(vec![bytes(&part)], naive),
                Resolved::Many(parts) => {
                    prop_assert!(parts.len() > 1 && sum <= size);
                    prop_assert_eq!(parts.iter().map(bytes).collect::<Vec<_>>(), naive);
                }
                Resolved::Unsatisfiable => prop_assert!(naive.is_empty()),
            }
        }

        #[test]
        fn no_header_makes_the_parser_panic(header in "bytes=[0-9, -]{0,60}|\\PC*", size: u64) {
            if let Some(ranges) = Ranges::parse(&header) {
                let _ = (ranges.resolve(size), ranges.first_from());
            }
        }
    }
}
