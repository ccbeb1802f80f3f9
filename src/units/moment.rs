//! A moment as it is written: a day, or a day and the time of it, in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::units::written_as_text;

/// Seconds since 1970, written `2027-01-31` or `2027-01-31T12:00:00Z` (RFC 3339).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(u64);

/// Why a text is no moment. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MomentError {
    /// Another form, or no day of the calendar.
    #[error("{0:?} is no date; write 2027-01-31, or 2027-01-31T12:00:00Z")]
    Malformed(String),

    /// A year that has no four digits.
    #[error("{0:?} is beyond the year 9999; write an earlier date, or none if it is not to end")]
    TooLate(String),
}

impl Moment {
    /// So many seconds after 1970 began.
    pub const fn at(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// Whether it has come.
    pub fn is_past(self, now: SystemTime) -> bool {
        now.duration_since(UNIX_EPOCH)
            .is_ok_and(|since| since.as_secs() >= self.0)
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        if let Some(seconds) = read(text) {
            return Ok(Self(seconds));
        }
        let year = text.split('-').next().unwrap_or_default();
        let is_late = year.len() > 4 && year.bytes().all(|byte| byte.is_ascii_digit());
        Err(match is_late && text.contains('-') {
            true => MomentError::TooLate(text.to_owned()),
            false => MomentError::Malformed(text.to_owned()),
        })
    }
}

fn read(text: &str) -> Option<u64> {
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let number = |part: &str, digits: usize| -> Option<u64> {
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let mut parts = day.split('-');
    let (year, month, date) = (
        number(parts.next()?, 4)?,
        number(parts.next()?, 2)?,
        number(parts.next()?, 2)?,
    );
    let mut clock = time.strip_suffix('Z')?.split(':');
    let (hour, minute, second) = (
        number(clock.next()?, 2)?,
        number(clock.next()?, 2)?,
        number(clock.next()?, 2)?,
    );
    let is_valid = parts.next().is_none()
        && clock.next().is_none()
        && year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&date)
        && hour < 24
        && minute < 60
        && second < 60;
    let days = days(year, month, date);
    // A 31st of February is another day's name.
    (is_valid && self::date(days) == (year, month, date)).then(|| days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days(year: u64, month: u64, date: u64) -> u64 {
    let (year, march_based) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * march_based + 2) / 5 + date - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

/// Year, month and day of a day counted from 1970: the same, `civil_from_days`. Years begin in March there, so that the leap day
/// is the last one.
pub fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let march_based = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 {
        march_based + 3
    } else {
        march_based - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / 86_400);
        let (hour, minute, second) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

written_as_text!(Moment);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_or_a_day_and_a_time() {
        // As `date -u -d TEXT +%s` has them.
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2024-02-29", 1_709_164_800),
            ("2027-01-31T12:30:05Z", 1_801_398_605),
            ("2100-03-01", 4_107_542_400),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.seconds(), seconds, "{text}");
            assert!(moment.to_string().starts_with(text), "{moment}");
        }
    }

    #[test]
    fn a_year_beyond_9999_is_said_to_be_too_late() {
        for text in ["10000-01-01", "99999-12-31T00:00:00Z"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.to_string().contains("beyond the year 9999"), "{error}");
        }
        assert!("9999-12-31".parse::<Moment>().is_ok());
        assert!(matches!("10000".parse::<Moment>(), Err(MomentError::Malformed(_))));
    }

    #[test]
    fn what_is_no_day_is_refused_with_what_may_be_written() {
        for text in [
            "",
            "tomorrow",
            "2027-02-29",
            "2027-13-01",
            "2027-1-1",
            "2027-01-31 12:00:00",
            "2027-01-31T24:00:00Z",
            "2027-01-31T12:00:00+01:00",
            "1969-12-31",
            "+027-01-01",
        ] {
            let error = text.parse::<Moment>().unwrap_err().to_string();
            assert!(error.contains("2027-01-31T12:00:00Z"), "{error}");
        }
    }
}
