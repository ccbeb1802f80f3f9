//! Times that come again and again.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use croner::parser::{CronParser, Seconds, Year};

use super::Zone;
use crate::units::written_as_text;

/// A cron expression of five fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
///
/// Where clocks go forward, a time that is left out is the first one after the gap; where they go back, one that comes
/// twice is the first of both.
#[derive(Clone, Debug)]
pub struct Cron {
    written: String,
    parsed: croner::Cron,
}

/// Why a text is no cron expression. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no cron expression; write five fields, minute hour day month weekday: \"0 22 * * 1-5\" is ten in the evening from Monday to Friday"
)]
pub struct CronError(String);

impl Cron {
    /// The first time after `now`; `None` if there is none.
    pub fn next(&self, now: SystemTime, zone: Zone) -> Option<SystemTime> {
        let next = self.parsed.find_next_occurrence(&zone.local(now), false);
        next.ok().map(SystemTime::from)
    }

    /// The last time before `now`, or `now` itself; `None` if there is none.
    pub fn last(&self, now: SystemTime, zone: Zone) -> Option<SystemTime> {
        let last = self.parsed.find_previous_occurrence(&zone.local(now), true);
        last.ok().map(SystemTime::from)
    }

    /// Whether it is every minute: what a connected registry calls continuous.
    pub fn is_every_minute(&self) -> bool {
        self.written.split_whitespace().all(|field| field == "*")
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let malformed = || CronError(text.to_owned());
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed);
        if text.split_whitespace().count() != 5 {
            return Err(malformed());
        }
        Ok(Self {
            written: text.to_owned(),
            parsed: parser.build().parse(text).map_err(|_| malformed())?,
        })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Cron {}

written_as_text!(Cron);
