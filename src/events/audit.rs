//! Who did what to which repository, and what came of it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use serde::Deserialize;

use super::Counted;
use super::lines::{Lines, Readers, Rotation, Target, quoted};
use crate::units::Size;

/// Where that is written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "Written")]
pub struct Config {
    /// Lines of JSON.
    pub log: Target,
    /// When a file is put aside.
    pub rotation: Rotation,
}

/// What may stand under `[audit]`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    log: Target,
    max_size: Size,
    keep: usize,
}

/// Letters of a name that somebody only claims; names have up to 64.
const CLAIMED: usize = 64;
/// Letters of anything else.
const LONGEST: usize = 512;

/// One thing that somebody did, or tried to do.
#[derive(Clone, Debug, Default)]
pub struct Deed<'a> {
    /// Empty: somebody who did not say so.
    pub who: &'a str,
    /// As whom somebody wanted to log in who could not; anything may stand there.
    pub claimed: &'a str,
    /// How that is known.
    pub how: &'a str,
    /// Where they came from.
    pub remote: Option<IpAddr>,
    /// What they did.
    pub action: &'a str,
    /// To which repository, if to any.
    pub repository: &'a str,
    /// To what of it, or to whom.
    pub reference: &'a str,
    /// As HTTP has it.
    pub status: u16,
}

/// The record; cheap to clone.
#[derive(Clone)]
pub struct Audit {
    lines: Lines,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            log: Target::Off,
            max_size: Size::mib(64),
            keep: 10,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Written::default().into()
    }
}

impl From<Written> for Config {
    fn from(written: Written) -> Self {
        Self {
            log: written.log,
            rotation: Rotation {
                size: written.max_size,
                keep: written.keep,
            },
        }
    }
}

impl Audit {
    /// Opens the target.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(config: &Config, counted: Counted) -> io::Result<Self> {
        let lines = Lines::open(&config.log, "audit", Some(config.rotation), Readers::Owner, counted);
        lines.map(|lines| Self { lines })
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.lines.is_on()
    }

    /// Records it.
    pub fn record(&self, deed: &Deed<'_>) {
        self.lines.line(|line| {
            line.text.push_str("{\"audit\":1,\"time\":\"");
            line.time();
            let outcome = match deed.status {
                ..=399 => "done",
                401 | 403 | 429 => "denied",
                _ => "failed",
            };
            let text = &mut *line.text;
            text.push('"');
            let who = if deed.who.is_empty() { "anonymous" } else { deed.who };
            for (key, value, most) in [
                ("who", who, LONGEST),
                ("claimed", deed.claimed, CLAIMED),
                ("how", deed.how, LONGEST),
                ("action", deed.action, LONGEST),
                ("repository", deed.repository, LONGEST),
                ("reference", deed.reference, LONGEST),
                ("outcome", outcome, LONGEST),
            ] {
                if !value.is_empty() {
                    let _ = write!(text, ",\"{key}\":");
                    quoted(text, &bounded(value, most));
                }
            }
            if let Some(remote) = deed.remote {
                let _ = write!(text, ",\"remote\":\"{remote}\"");
            }
            let _ = writeln!(text, ",\"status\":{}}}", deed.status);
        });
    }

    /// Opens the file anew by its name.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Waits until the lines so far are written.
    pub fn flush(&self) {
        self.lines.flush();
    }
}

/// No more than so many letters of it.
fn bounded(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Metrics;

    #[test]
    fn whatever_somebody_claims_is_a_bounded_text_of_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let config = Config {
            log: Target::File(path.clone()),
            ..Config::default()
        };
        let counted = Metrics::new(&prometheus::Registry::new()).unwrap().of("audit");
        let audit = Audit::open(&config, counted).unwrap();
        let claims = ["eve", "\"},\n{\"who\":\"admin\"", "\u{1b}[2J", &"\u{e9}".repeat(10_000)];

        for claimed in claims {
            audit.record(&Deed {
                claimed,
                action: "login",
                status: 401,
                ..Deed::default()
            });
        }
        audit.flush();

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), claims.len());
        for (line, claimed) in lines.iter().zip(claims).take(3) {
            assert_eq!(line["claimed"], claimed);
            assert_eq!(line["who"], "anonymous");
        }
        assert!(
            text.bytes().all(|byte| byte == b'\n' || byte >= b' ') && text.len() < 1500,
            "{text}"
        );
    }
}
