//! Windows: times that open and close again.

use std::time::{Duration, SystemTime};

use super::{Cron, Zone};

/// What is not closed for so long does not close, as far as anybody plans.
const HORIZON: Duration = Duration::from_secs(8 * 86_400);

/// Opens again and again, each time for as long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Window {
    /// When.
    pub opens: Cron,
    /// How long, as time passes: an hour that clocks skip or show twice makes no difference.
    pub lasts: Duration,
}

/// Some windows in one time zone. Without any it is always open.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Windows {
    /// Where its clock hangs.
    pub zone: Zone,
    /// Those that there are.
    pub windows: Vec<Window>,
}

/// Whether a window is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// One is, until then; `None`: it does not close.
    Open {
        /// The first moment at which none is.
        until: Option<SystemTime>,
    },
    /// None is, until then; `None`: none opens again.
    Closed {
        /// The first moment at which one is.
        until: Option<SystemTime>,
    },
}

/// One window, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stretch {
    /// Its first moment.
    pub from: SystemTime,
    /// The first moment after it.
    pub until: SystemTime,
}

impl Stretch {
    /// How long it is.
    pub fn length(self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }
}

impl Phase {
    /// Whether a window is open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// When that changes.
    pub fn until(self) -> Option<SystemTime> {
        match self {
            Self::Open { until } | Self::Closed { until } => until,
        }
    }
}

impl Windows {
    /// Whether it never closes because there is nothing that opens.
    pub fn is_always_open(&self) -> bool {
        self.windows.is_empty()
    }

    /// How it is at `now`.
    pub fn at(&self, now: SystemTime) -> Phase {
        if self.is_always_open() {
            return Phase::Open { until: None };
        }
        let Some(mut end) = self.end_of_those_open(now) else {
            let opens = self
                .windows
                .iter()
                .filter_map(|window| window.opens.next(now, self.zone));
            return Phase::Closed { until: opens.min() };
        };
        // One may open before another closes.
        while let Some(later) = self.end_of_those_open(end) {
            end = later;
            if end > now + HORIZON {
                return Phase::Open { until: None };
            }
        }
        Phase::Open { until: Some(end) }
    }

    /// The window that closed last by `now`, whether another has opened since or not.
    pub fn last_closed(&self, now: SystemTime) -> Option<Stretch> {
        let last = |window: &Window| {
            let from = window.opens.last(now.checked_sub(window.lasts)?, self.zone)?;
            Some(Stretch {
                from,
                until: from + window.lasts,
            })
        };
        self.windows.iter().filter_map(last).max_by_key(|stretch| stretch.until)
    }

    /// When the last of those closes that are open at `now`.
    fn end_of_those_open(&self, now: SystemTime) -> Option<SystemTime> {
        let end = |window: &Window| Some(window.opens.last(now, self.zone)? + window.lasts);
        self.windows.iter().filter_map(end).filter(|end| *end > now).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Moment;

    fn at(text: &str) -> SystemTime {
        let moment: Moment = text.parse().unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(moment.seconds())
    }

    fn windows(zone: &str, windows: &[(&str, u64)]) -> Windows {
        let one = |(cron, hours): &(&str, u64)| Window {
            opens: cron.parse().unwrap(),
            lasts: Duration::from_secs(hours * 3600),
        };
        Windows {
            zone: zone.parse().unwrap(),
            windows: windows.iter().map(one).collect(),
        }
    }

    fn open_until(text: &str) -> Phase {
        Phase::Open { until: Some(at(text)) }
    }

    fn closed_until(text: &str) -> Phase {
        Phase::Closed { until: Some(at(text)) }
    }

    #[test]
    fn a_window_is_open_from_its_first_second_to_before_the_one_after_its_last() {
        let windows = windows("UTC", &[("0 22 * * *", 4)]);

        for (now, phase) in [
            ("2026-11-27T21:59:59Z", closed_until("2026-11-27T22:00:00Z")),
            ("2026-11-27T22:00:00Z", open_until("2026-11-28T02:00:00Z")),
            ("2026-11-28T01:59:59Z", open_until("2026-11-28T02:00:00Z")),
            ("2026-11-28T02:00:00Z", closed_until("2026-11-28T22:00:00Z")),
        ] {
            assert_eq!(windows.at(at(now)), phase, "{now}");
        }
    }

    #[test]
    fn windows_that_meet_or_overlap_are_one() {
        let windows = windows("UTC", &[("0 22 * * *", 4), ("0 2 * * *", 1), ("30 23 * * *", 1)]);

        assert_eq!(
            windows.at(at("2026-11-27T23:00:00Z")),
            open_until("2026-11-28T03:00:00Z")
        );
        assert_eq!(
            windows.at(at("2026-11-27T03:00:00Z")),
            closed_until("2026-11-27T22:00:00Z")
        );
    }

    #[test]
    fn what_opens_again_before_it_closes_and_what_has_no_window_never_closes() {
        let now = at("2026-11-27T12:00:30Z");

        assert_eq!(windows("UTC", &[("* * * * *", 4)]).at(now), Phase::Open { until: None });
        assert_eq!(Windows::default().at(now), Phase::Open { until: None });
    }

    #[test]
    fn a_day_that_no_calendar_has_never_opens() {
        let windows = windows("UTC", &[("0 0 30 2 *", 4)]);

        assert_eq!(windows.at(at("2026-11-27")), Phase::Closed { until: None });
        assert_eq!(windows.last_closed(at("2026-11-27")), None);
    }

    #[test]
    fn in_spring_a_time_that_is_left_out_opens_once_after_the_gap_and_lasts_as_long() {
        let windows = windows("Europe/Berlin", &[("30 2 * * *", 4)]);

        // 02:00 becomes 03:00 at 01:00 UTC.
        assert_eq!(
            windows.at(at("2027-03-28T00:59:59Z")),
            closed_until("2027-03-28T01:00:00Z")
        );
        assert_eq!(
            windows.at(at("2027-03-28T01:00:00Z")),
            open_until("2027-03-28T05:00:00Z")
        );
        assert_eq!(
            windows.at(at("2027-03-28T05:00:00Z")),
            closed_until("2027-03-29T00:30:00Z")
        );
    }

    #[test]
    fn in_autumn_a_time_that_comes_twice_opens_once() {
        let windows = windows("Europe/Berlin", &[("30 2 * * *", 1)]);

        // 03:00 becomes 02:00 at 01:00 UTC.
        assert_eq!(
            windows.at(at("2026-10-25T00:30:00Z")),
            open_until("2026-10-25T01:30:00Z")
        );
        assert_eq!(
            windows.at(at("2026-10-25T01:30:00Z")),
            closed_until("2026-10-26T01:30:00Z")
        );
    }

    #[test]
    fn the_last_window_that_closed_is_told_also_while_another_is_open() {
        let windows = windows("UTC", &[("0 22 * * *", 4), ("0 1 * * *", 6)]);
        let stretch = |from, until| {
            Some(Stretch {
                from: at(from),
                until: at(until),
            })
        };

        let night = stretch("2026-11-26T22:00:00Z", "2026-11-27T02:00:00Z");
        assert_eq!(windows.last_closed(at("2026-11-27T03:00:00Z")), night);
        let morning = stretch("2026-11-27T01:00:00Z", "2026-11-27T07:00:00Z");
        assert_eq!(windows.last_closed(at("2026-11-27T07:00:00Z")), morning);
    }

    #[test]
    fn only_five_fields_are_a_cron_expression() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "@daily",
            "60 * * * *",
            "0 24 * * *",
            "a b c d e",
            "0 0 32 1 *",
        ] {
            assert!(text.parse::<Cron>().is_err(), "{text:?}");
        }
        for text in [
            "* * * * *",
            "0 22 * * 1-5",
            "*/15 8-18 * * MON",
            "0 0 1,15 * *",
            "0 12 * * 7",
        ] {
            assert_eq!(text.parse::<Cron>().unwrap().to_string(), text);
        }
        assert!("* *  * * *".parse::<Cron>().unwrap().is_every_minute());
        assert!(
            "Europe/Atlantis"
                .parse::<Zone>()
                .unwrap_err()
                .to_string()
                .contains("Europe/Berlin")
        );
    }
}
