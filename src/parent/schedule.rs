//! The settings of `[schedule]`: when a node speaks to the registries above on its own account.

use serde::Deserialize;

use crate::calendar::{Cron, Window, Windows, Zone};
use crate::units::Span;

/// What a cron expression says that leaves nothing out: as if there were none.
const CONTINUOUS: &str = "* * * * *";

/// When what nobody waits for crosses the line to the registries above.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Schedule {
    /// Those in which it does; without any it always does.
    pub windows: Windows,
    /// What becomes of clients' pulls outside.
    pub interactive: Interactive,
    /// What becomes of a window that went by unused.
    pub missed: Missed,
    /// How long the change feed of this node tells what happened.
    pub message_ttl: Span,
    /// The shortest and the longest window that may be written.
    pub window_limits: [Span; 2],
    /// The shortest and the longest `message_ttl`.
    pub message_ttl_limits: [Span; 2],
}

/// Whether clients' pulls cross the line outside the windows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Interactive {
    /// As within.
    #[default]
    Allow,
    /// What is here is served, and nothing else.
    Deny,
}

/// What to do once a node, or its parent, is back that was away for a whole window.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// The next window comes.
    #[default]
    Wait,
    /// It is made up for at once: as long as it was, once.
    CatchUp,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    cron: Option<Cron>,
    window: Option<Span>,
    time_zone: Zone,
    also: Vec<Also>,
    interactive: Interactive,
    missed: Missed,
    message_ttl: Span,
    window_limits: [Span; 2],
    message_ttl_limits: [Span; 2],
}

/// One more window.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Also {
    cron: Cron,
    window: Span,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            cron: None,
            window: None,
            time_zone: Zone::default(),
            also: Vec::new(),
            interactive: Interactive::default(),
            missed: Missed::default(),
            message_ttl: Span::days(2),
            window_limits: [Span::hours(1), Span::days(7)],
            message_ttl_limits: [Span::days(1), Span::days(90)],
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::try_from(Written::default()).expect("the defaults obey the rules")
    }
}

impl TryFrom<Written> for Schedule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut windows = Vec::new();
        match (&written.cron, written.window) {
            // A window that never closes is none.
            (Some(cron), _) if cron.is_every_minute() => {}
            (Some(cron), Some(window)) => windows.push((cron.clone(), window)),
            (None, None) => {}
            (Some(cron), None) => {
                return Err(format!(
                    "window is missing beside cron = \"{cron}\"; write how long it is open, like window = \"PT4H\", or leave cron out: \"{CONTINUOUS}\""
                ));
            }
            (None, Some(_)) => {
                return Err(
                    "window stands without cron; write when it opens, like cron = \"0 22 * * *\", or leave it out"
                        .to_owned(),
                );
            }
        }
        let is_continuous = written.cron.as_ref().is_some_and(Cron::is_every_minute);
        if is_continuous && !written.also.is_empty() {
            return Err(format!(
                "also stands beside cron = \"{CONTINUOUS}\", which never closes; leave one of them out"
            ));
        }
        windows.extend(written.also.into_iter().map(|also| (also.cron, also.window)));
        for (_, window) in &windows {
            within("window", *window, written.window_limits)?;
        }
        within("message_ttl", written.message_ttl, written.message_ttl_limits)?;
        let made = |(opens, lasts): (Cron, Span)| Window {
            opens,
            lasts: lasts.duration(),
        };
        Ok(Self {
            windows: Windows {
                zone: written.time_zone,
                windows: windows.into_iter().map(made).collect(),
            },
            interactive: written.interactive,
            missed: written.missed,
            message_ttl: written.message_ttl,
            window_limits: written.window_limits,
            message_ttl_limits: written.message_ttl_limits,
        })
    }
}

impl Interactive {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Missed {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::CatchUp => "catch-up",
        }
    }
}

fn within(key: &str, span: Span, [least, most]: [Span; 2]) -> Result<(), String> {
    if (least..=most).contains(&span) && span > Span::default() {
        return Ok(());
    }
    Err(format!(
        "{key} is {span}; write {least} to {most}, or other bounds in {key}_limits"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Schedule, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_it_is_continuous_and_messages_live_for_two_days() {
        for toml in ["", "cron = \"* * * * *\"", "cron = \"* * * * *\"\nwindow = \"PT4H\""] {
            let schedule = read(toml).unwrap();

            assert!(schedule.windows.is_always_open(), "{toml}");
            assert_eq!(schedule.message_ttl, Span::days(2));
        }
    }

    #[test]
    fn a_schedule_that_is_not_continuous_needs_a_window_and_there_may_be_several() {
        let night = "cron = \"0 22 * * *\"";

        assert!(read(night).unwrap_err().contains("window is missing"));
        assert!(read("window = \"PT4H\"").unwrap_err().contains("without cron"));
        let several = read(&format!(
            "{night}\nwindow = \"4h\"\ntime_zone = \"Europe/Berlin\"\nalso = [{{ cron = \"0 12 * * 6\", window = \"PT2H\" }}]"
        ))
        .unwrap();
        assert_eq!(several.windows.windows.len(), 2);
        assert_eq!(several.windows.zone.to_string(), "Europe/Berlin");
    }

    #[test]
    fn windows_and_times_to_live_have_the_limits_of_a_connected_registry_unless_others_are_written() {
        let night = "cron = \"0 22 * * *\"\n";
        for (toml, words) in [
            (
                format!("{night}window = \"PT59M\""),
                "write 1h to 7d, or other bounds in window_limits",
            ),
            (format!("{night}window = \"P8D\""), "window_limits"),
            (
                "message_ttl = \"PT23H\"".to_owned(),
                "write 1d to 90d, or other bounds in message_ttl_limits",
            ),
            ("message_ttl = \"P91D\"".to_owned(), "message_ttl_limits"),
            (
                "window_limits = [\"0s\", \"1d\"]\ncron = \"0 1 * * *\"\nwindow = \"0s\"".to_owned(),
                "window is 0s",
            ),
        ] {
            let error = read(&toml).unwrap_err();
            assert!(error.contains(words), "{toml}: {error}");
        }
        for toml in [
            "window = \"PT1H\"",
            "window = \"P7D\"",
            "window_limits = [\"1s\", \"1h\"]\nwindow = \"10s\"",
        ] {
            assert!(read(&format!("{night}{toml}")).is_ok(), "{toml}");
        }
        assert!(read("message_ttl_limits = [\"1s\", \"1d\"]\nmessage_ttl = \"5s\"").is_ok());
    }
}
