//! Who did what to which repository, and what came of it.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use serde::Deserialize;

use super::lines::{Lines, Rotation, Target, quoted};
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

/// One thing that somebody did, or tried to do.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// Empty: somebody who did not say so.
    pub who: &'a str,
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
    pub fn open(config: &Config) -> io::Result<Self> {
        Lines::open(&config.log, "audit", Some(config.rotation)).map(|lines| Self { lines })
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
            for (key, value) in [
                ("who", who),
                ("how", deed.how),
                ("action", deed.action),
                ("repository", deed.repository),
                ("reference", deed.reference),
                ("outcome", outcome),
            ] {
                if !value.is_empty() {
                    let _ = write!(text, ",\"{key}\":");
                    quoted(text, value);
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
