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
