use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::units::date;

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
