use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes the time of day as RFC 3339 in UTC, down to the microsecond.
///
/// Lines come by the thousand in a second, so its text is kept from one to the next.
#[derive(Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    /// Of `second`, without the fraction.
    text: String,
}

impl Stamp {
    /// Appends `2026-11-23T13:57:47.497569Z`.
    pub(super) fn write(&mut self, line: &mut String, now: SystemTime) {
        // A clock before 1970 is a broken one; the log is not where to mend it.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text = second(since.as_secs());
        }
        line.push_str(&self.text);
        let _ = write!(line, ".{:06}Z", since.subsec_micros());
    }
}

fn second(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day counted from 1970: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`. Years begin in March there, so that the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_time_that_it_was_given() {
        let mut stamp = Stamp::default();
        // As `date -u -d @SECONDS` prints them.
        let times = [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000001Z"),
            (1_795_442_267, 497_569, "2026-11-23T13:57:47.497569Z"),
            (1_795_442_267, 497_570, "2026-11-23T13:57:47.497570Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ];

        for (seconds, micros, expected) in times {
            let mut line = String::new();
            stamp.write(&mut line, UNIX_EPOCH + Duration::new(seconds, micros * 1000));

            assert_eq!(line, expected);
        }
    }
}
