//! Where a clock hangs.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use chrono::DateTime;
use chrono_tz::Tz;

use crate::units::written_as_text;

/// A time zone of the IANA database: `Europe/Berlin`, `UTC`. Its rules are built in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Zone(Tz);

/// Why a text is no time zone. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no time zone; write one of the IANA database, like Europe/Berlin or UTC")]
pub struct ZoneError(String);

impl Zone {
    /// The day there, as it is written: `2027-01-31`.
    pub fn day(self, now: SystemTime) -> String {
        self.local(now).date_naive().to_string()
    }

    /// When the next day begins there; `None` if no calendar goes so far.
    pub fn midnight(self, now: SystemTime) -> Option<SystemTime> {
        let next = self.local(now).date_naive().succ_opt()?;
        // Where clocks go forward at midnight the day begins later.
        let begins = (0..4).find_map(|hour| next.and_hms_opt(hour, 0, 0)?.and_local_timezone(self.0).earliest());
        begins.map(SystemTime::from)
    }

    /// The same moment as the clocks there show it.
    pub(super) fn local(self, now: SystemTime) -> DateTime<Tz> {
        DateTime::<chrono::Utc>::from(now).with_timezone(&self.0)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(Tz::UTC)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        text.parse().map(Self).map_err(|_| ZoneError(text.to_owned()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

written_as_text!(Zone);
