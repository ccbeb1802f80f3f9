//! The settings of `bandwidth`: how much of a line to an upstream this node takes.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::calendar::{Cron, Window, Windows, Zone};
use crate::units::{Rate, Size, Span};

/// How much crosses the line to one upstream.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bandwidth {
    /// Of what comes from there; `None`: as much as comes.
    pub down: Option<Rate>,
    /// Of what goes there.
    pub up: Option<Rate>,
    /// Bytes a day that come; once they have, what nobody waits for waits for the next day.
    pub down_per_day: Option<Size>,
    /// Bytes a day that go.
    pub up_per_day: Option<Size>,
    /// At other times, other rates: the first that is open counts.
    pub hours: Vec<Stint>,
}

/// Some time of the day, or the week.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stint {
    /// When it begins.
    pub cron: Cron,
    /// How long it lasts.
    pub window: Span,
    /// As above; `None`: as at other times.
    #[serde(default)]
    pub down: Option<Rate>,
    /// As above.
    #[serde(default)]
    pub up: Option<Rate>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Down,
    Up,
}

impl Direction {
    /// As in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

impl Bandwidth {
    /// What may cross at `now`, where the clocks hang in `zone`.
    pub(super) fn rate(&self, way: Direction, now: SystemTime, zone: Zone) -> Option<Rate> {
        let open = |stint: &&Stint| {
            let window = Window {
                opens: stint.cron.clone(),
                lasts: stint.window.duration(),
            };
            let windows = vec![window];
            Windows { zone, windows }.at(now).is_open()
        };
        let stint = self.hours.iter().find(open);
        match way {
            Direction::Down => stint.and_then(|stint| stint.down).or(self.down),
            Direction::Up => stint.and_then(|stint| stint.up).or(self.up),
        }
    }

    /// Bytes that may cross in a day.
    pub(super) fn per_day(&self, way: Direction) -> Option<u64> {
        let size = match way {
            Direction::Down => self.down_per_day,
            Direction::Up => self.up_per_day,
        };
        size.map(Size::bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::units::Moment;

    #[test]
    fn by_day_other_rates_may_hold_than_by_night() {
        let read: Bandwidth = toml::from_str(
            "down = \"5MB/s\"\nhours = [{ cron = \"0 6 * * 1-5\", window = \"PT12H\", down = \"1MB/s\" }]",
        )
        .unwrap();
        let rate = |moment: &str, way| {
            let moment: Moment = moment.parse().unwrap();
            let now = UNIX_EPOCH + Duration::from_secs(moment.seconds());
            let rate = read.rate(way, now, "Europe/Berlin".parse().unwrap());
            rate.map(Rate::bytes)
        };

        // A Friday, and a Saturday; Berlin is an hour ahead.
        assert_eq!(rate("2026-11-27T04:59:59Z", Direction::Down), Some(5_000_000));
        assert_eq!(rate("2026-11-27T05:00:00Z", Direction::Down), Some(1_000_000));
        assert_eq!(rate("2026-11-28T05:00:00Z", Direction::Down), Some(5_000_000));
        assert_eq!(rate("2026-11-27T05:00:00Z", Direction::Up), None);
    }
}
