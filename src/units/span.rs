//! A length of time, written "300ms", "60s", "5m", "1h" or "2d", or as ISO 8601 has it: "PT4H", "P2D".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::units::written_as_text;

/// A length of time in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span(Duration);

/// The units that may be written, with their milliseconds, from long to short.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    /// A span of `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// A span of `n` seconds.
    pub const fn seconds(n: u64) -> Self {
        Self::millis(n.saturating_mul(1_000))
    }

    /// A span of `n` minutes.
    pub const fn minutes(n: u64) -> Self {
        Self::millis(n.saturating_mul(60_000))
    }

    /// A span of `n` hours.
    pub const fn hours(n: u64) -> Self {
        Self::millis(n.saturating_mul(3_600_000))
    }

    /// A span of `n` days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self::millis(n.saturating_mul(86_400_000))
    }

    /// The span as the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// Why a text is no span of time. The operator's: the message says what may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// A number alone.
    #[error("{0} has no unit; write it with ms, s, m, h or d, in quotes: \"{0}s\"")]
    NoUnit(u64),

    /// No whole number, or no known unit behind it.
    #[error(
        "not a span of time; write a whole number with ms, s, m, h or d, like 60s, or as ISO 8601 has it, like PT4H"
    )]
    Malformed,

    /// Longer than clocks can count with.
    #[error("a span beyond 100 years; write a shorter one")]
    TooLong,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if let Some(text) = text.strip_prefix('P') {
            return iso(text);
        }
        if let Ok(number) = text.parse() {
            return Err(SpanError::NoUnit(number));
        }
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or(SpanError::Malformed)?;
        let (digits, unit) = text.split_at(unit_at);
        if digits.is_empty() {
            return Err(SpanError::Malformed);
        }
        let known = |&(name, millis): &(&str, u64)| (name == unit).then_some(millis);
        let factor = UNITS.iter().find_map(known).ok_or(SpanError::Malformed)?;
        let count: u64 = digits.parse().map_err(|_| SpanError::TooLong)?;
        bounded(count.checked_mul(factor))
    }
}

/// An `Instant` plus a span must not overflow, wherever that sum is made.
fn bounded(millis: Option<u64>) -> Result<Span, SpanError> {
    const LONGEST: u64 = 100 * 365 * 86_400_000;
    millis
        .filter(|millis| *millis <= LONGEST)
        .map(Span::millis)
        .ok_or(SpanError::TooLong)
}

/// What stands behind the P of ISO 8601: weeks, days, and behind a T hours, minutes and seconds, all whole. Years and months have no
/// one length.
fn iso(text: &str) -> Result<Span, SpanError> {
    let mut millis = Some(0);
    let mut units = [
        ("W", 7 * 86_400_000),
        ("D", 86_400_000),
        ("H", 3_600_000),
        ("M", 60_000),
        ("S", 1_000),
    ]
    .iter();
    let (date, time) = match text.split_once('T') {
        Some((_, "")) => return Err(SpanError::Malformed),
        Some((date, time)) => (date, time),
        None => (text, ""),
    };
    if date.is_empty() && time.is_empty() {
        return Err(SpanError::Malformed);
    }
    for (mut rest, is_time) in [(date, false), (time, true)] {
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0);
            let end = end.ok_or(SpanError::Malformed)?;
            let count: u64 = rest[..end].parse().map_err(|_| SpanError::TooLong)?;
            // In this order, each once at most.
            let unit =
                units.find(|(letter, length)| rest[end..].starts_with(letter) && (*length < 86_400_000) == is_time);
            let (letter, length) = unit.ok_or(SpanError::Malformed)?;
            millis = count.checked_mul(*length).and_then(|more| more.checked_add(millis?));
            rest = &rest[end + letter.len()..];
        }
    }
    bounded(millis)
}

/// Writes the longest unit that divides the span: what `FromStr` reads back.
impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |&&(_, unit): &&(&str, u64)| millis.is_multiple_of(u128::from(unit));
        match UNITS.iter().find(whole) {
            Some((unit, length)) if millis > 0 => write!(f, "{}{unit}", millis / u128::from(*length)),
            _ => f.write_str("0s"),
        }
    }
}

written_as_text!(Span);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read_in_five_units() {
        for (text, span) in [
            ("300ms", Span::millis(300)),
            ("60s", Span::seconds(60)),
            ("5m", Span::minutes(5)),
            ("1h", Span::hours(1)),
            ("2d", Span::days(2)),
            ("0s", Span::millis(0)),
        ] {
            assert_eq!(text.parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_remedy() {
        for text in ["", "s", "1.5s", "-1s", "1 s", "1S", "1min", "1m30s"] {
            let error = text.parse::<Span>().unwrap_err();
            assert_eq!(error, SpanError::Malformed, "{text}");
            assert!(error.to_string().contains("like 60s"));
        }
        let error = "60".parse::<Span>().unwrap_err();
        assert_eq!(error, SpanError::NoUnit(60));
        assert!(error.to_string().contains("\"60s\""));
    }

    #[test]
    fn no_span_that_is_read_is_too_long_to_be_added_to_the_time() {
        assert_eq!("36501d".parse::<Span>(), Err(SpanError::TooLong));
        assert_eq!("99999999999999999999s".parse::<Span>(), Err(SpanError::TooLong));
        assert_eq!("18446744073709551615d".parse::<Span>(), Err(SpanError::TooLong));

        let longest: Span = "36500d".parse().unwrap();
        assert!(
            crate::units::Clock::system()
                .now()
                .checked_add(longest.duration())
                .is_some()
        );
    }

    #[test]
    fn a_span_is_shown_in_the_longest_unit_that_divides_it() {
        assert_eq!(Span::seconds(60).to_string(), "1m");
        assert_eq!(Span::seconds(90).to_string(), "90s");
        assert_eq!(Span::millis(1500).to_string(), "1500ms");
        assert_eq!(Span::hours(48).to_string(), "2d");
        assert_eq!(Span::millis(0).to_string(), "0s");
    }

    #[test]
    fn what_iso_8601_writes_is_read_too() {
        for (text, span) in [
            ("PT4H", Span::hours(4)),
            ("P2D", Span::days(2)),
            ("P1W", Span::days(7)),
            ("P1DT12H", Span::hours(36)),
            ("PT1H30M15S", Span::seconds(5415)),
            ("PT0S", Span::default()),
        ] {
            assert_eq!(text.parse(), Ok(span), "{text}");
        }
        for text in [
            "P", "PT", "P1", "PT4", "P4H", "PT4D", "P1Y", "P1M", "PTH", "PT1M1H", "PT1H1H", "P-1D", "PT1.5H",
        ] {
            assert_eq!(text.parse::<Span>(), Err(SpanError::Malformed), "{text}");
        }
        assert_eq!("P999999999D".parse::<Span>(), Err(SpanError::TooLong));
    }

    proptest! {
        #[test]
        fn every_span_that_is_shown_reads_back(millis in 0..100 * 365 * 86_400_000_u64) {
            let span = Span::millis(millis);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Span>();
        }
    }
}
