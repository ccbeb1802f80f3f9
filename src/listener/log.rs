//! One line per request.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use serde::Deserialize;

use crate::events::{Counted, Line, Lines, Readers, Target, quoted};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The lines; cheap to clone.
#[derive(Clone)]
pub struct RequestLog {
    format: Format,
    lines: Lines,
}

/// What a line tells.
pub(super) struct Entry<'a> {
    pub(super) remote: Option<std::net::IpAddr>,
    /// Who asked, if they said so.
    pub(super) who: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// Until the first byte of the body left.
    pub(super) first_byte: Option<Duration>,
    pub(super) kind: &'a str,
    pub(super) outcome: Option<&'a str>,
    /// Why it brings nothing.
    pub(super) reason: Option<&'a str>,
    /// Why the body was broken off.
    pub(super) broken: Option<String>,
}

impl RequestLog {
    /// Opens the target and starts its writer.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(target: &Target, format: Format, counted: Counted) -> io::Result<Self> {
        let lines = Lines::open(target, "requests", None, Readers::Usual, counted)?;
        Ok(Self { format, lines })
    }

    pub(super) fn line(&self, entry: &Entry<'_>) {
        self.lines.line(|line| match self.format {
            Format::Text => text(line, entry),
            Format::Json => json(line, entry),
        });
    }

    /// Opens the file anew by its name, once what went before is written to the old one.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Waits until the lines so far are written.
    pub fn flush(&self) {
        self.lines.flush();
    }
}

fn text(line: &mut Line<'_>, entry: &Entry<'_>) {
    line.time();
    let line = &mut *line.text;
    let Entry {
        method,
        status,
        bytes,
        kind,
        ..
    } = entry;
    line.push(' ');
    remote(line, entry);
    line.push(' ');
    line.push_str(method);
    line.push(' ');
    plain(line, entry.path);
    if let Some(namespace) = entry.namespace {
        line.push_str("?ns=");
        plain(line, namespace);
    }
    let _ = write!(line, " {status} {bytes} ");
    milliseconds(line, entry.took);
    line.push_str("ms ");
    line.push_str(kind);
    line.push(' ');
    line.push_str(entry.outcome.unwrap_or("-"));
    if let Some(who) = entry.who {
        line.push_str(" who: ");
        line.push_str(who);
    }
    if let Some(reason) = entry.reason {
        let _ = write!(line, " reason: {reason}");
    }
    if let Some(broken) = &entry.broken {
        let _ = write!(line, " broken: {broken}");
    }
    line.push('\n');
}

fn json(line: &mut Line<'_>, entry: &Entry<'_>) {
    let Entry {
        method,
        status,
        bytes,
        kind,
        ..
    } = entry;
    line.text.push_str("{\"time\":\"");
    line.time();
    let line = &mut *line.text;
    line.push_str("\",\"remote\":\"");
    remote(line, entry);
    line.push_str("\",\"method\":");
    quoted(line, method);
    line.push_str(",\"path\":");
    quoted(line, entry.path);
    if let Some(namespace) = entry.namespace {
        line.push_str(",\"ns\":");
        quoted(line, namespace);
    }
    let _ = write!(line, ",\"status\":{status},\"bytes\":{bytes},\"ms\":");
    milliseconds(line, entry.took);
    let _ = write!(line, ",\"kind\":\"{kind}\"");
    if let Some(first) = entry.first_byte {
        line.push_str(",\"first_byte_ms\":");
        milliseconds(line, first);
    }
    if let Some(outcome) = entry.outcome {
        let _ = write!(line, ",\"outcome\":\"{outcome}\"");
    }
    if let Some(who) = entry.who {
        line.push_str(",\"who\":");
        quoted(line, who);
    }
    if let Some(reason) = entry.reason {
        line.push_str(",\"reason\":");
        quoted(line, reason);
    }
    if let Some(broken) = &entry.broken {
        line.push_str(",\"broken\":");
        quoted(line, broken);
    }
    line.push_str("}\n");
}

fn remote(line: &mut String, entry: &Entry<'_>) {
    let _ = match entry.remote {
        Some(address) => write!(line, "{address}"),
        None => line.write_char('-'),
    };
}

/// With three decimals, by whole numbers: floats cost more than the rest of the line.
fn milliseconds(line: &mut String, span: Duration) {
    let micros = span.as_micros();
    let _ = write!(line, "{}.{:03}", micros / 1000, micros % 1000);
}

/// The registry that a query names.
pub(super) fn namespace(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("ns="))
}

/// Nothing that a client sends can begin a line of its own.
fn plain(line: &mut String, text: &str) {
    if text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        line.push_str(text);
        return;
    }
    line.extend(
        text.chars()
            .take(2048)
            .map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }),
    );
}

impl Format {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
