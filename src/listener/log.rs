//! One line per request, gathered in memory and written every moment: a busy node writes many at once.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Deserialize;

use super::stamp::Stamp;

/// How often lines are written.
const EVERY: Duration = Duration::from_millis(100);
/// Bytes of lines kept while the target does not take them; then lines are lost, not memory.
const MOST: usize = 8 << 20;

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

/// Where lines go.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(from = "String")]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            _ => Self::File(text.into()),
        }
    }
}

/// The lines; cheap to clone.
#[derive(Clone)]
pub struct RequestLog {
    format: Format,
    lines: Option<Arc<Mutex<Lines>>>,
}

#[derive(Default)]
struct Lines {
    text: String,
    stamp: Stamp,
    /// Some were taken and are not written yet.
    writing: bool,
    /// The file is to be opened anew, as it was moved away.
    reopen: bool,
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
    pub fn open(target: &Target, format: Format) -> io::Result<Self> {
        let output: Box<dyn io::Write + Send> = match target {
            Target::Off => return Ok(Self { format, lines: None }),
            Target::Stdout => Box::new(io::stdout()),
            Target::File(path) => Box::new(append(path)?),
        };
        let lines = Arc::new(Mutex::new(Lines::default()));
        let reader = Arc::downgrade(&lines);
        let path = match target {
            Target::File(path) => Some(path.clone()),
            _ => None,
        };
        thread::Builder::new().name("requests".into()).spawn(move || {
            let mut output = output;
            let mut taken = String::new();
            while let Some(lines) = reader.upgrade() {
                write_out(&lines, &mut taken, &mut *output);
                if std::mem::take(&mut lines.lock().reopen)
                    && let Some(path) = &path
                {
                    match append(path) {
                        Ok(file) => output = Box::new(file),
                        Err(error) => {
                            tracing::error!(path = %path.display(), %error, "the request log could not be opened anew; it goes on in the old file");
                        }
                    }
                }
                drop(lines);
                thread::sleep(EVERY);
            }
        })?;
        Ok(Self {
            format,
            lines: Some(lines),
        })
    }

    pub(super) fn line(&self, entry: &Entry<'_>) {
        let Some(lines) = &self.lines else { return };
        let mut lines = lines.lock();
        let Lines { text: all, stamp, .. } = &mut *lines;
        if all.len() < MOST {
            match self.format {
                Format::Text => text(all, stamp, entry),
                Format::Json => json(all, stamp, entry),
            }
        }
    }

    /// Opens the file anew by its name, once what went before is written to the old one.
    pub fn reopen(&self) {
        if let Some(lines) = &self.lines {
            lines.lock().reopen = true;
        }
    }

    /// Waits until the lines so far are written.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        for _ in 0..20 {
            {
                let lines = lines.lock();
                if lines.text.is_empty() && !lines.writing {
                    return;
                }
            }
            thread::sleep(EVERY / 2);
        }
    }
}

/// Writes the lines so far. The two buffers change places, so that neither grows anew every time.
fn write_out(lines: &Mutex<Lines>, taken: &mut String, output: &mut dyn io::Write) {
    taken.clear();
    {
        let mut lines = lines.lock();
        std::mem::swap(&mut lines.text, taken);
        lines.writing = !taken.is_empty();
    }
    if !taken.is_empty() {
        // A log that cannot be written is no reason to stop serving, and there is no better place to say so.
        let _ = output.write_all(taken.as_bytes()).and_then(|()| output.flush());
        lines.lock().writing = false;
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn text(line: &mut String, stamp: &mut Stamp, entry: &Entry<'_>) {
    stamp.write(line, now());
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
        let _ = write!(line, " who: {who}");
    }
    if let Some(reason) = entry.reason {
        let _ = write!(line, " reason: {reason}");
    }
    if let Some(broken) = &entry.broken {
        let _ = write!(line, " broken: {broken}");
    }
    line.push('\n');
}

fn json(line: &mut String, stamp: &mut Stamp, entry: &Entry<'_>) {
    let Entry {
        method,
        status,
        bytes,
        kind,
        ..
    } = entry;
    line.push_str("{\"time\":\"");
    stamp.write(line, now());
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

fn quoted(line: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(json) => line.push_str(&json),
        Err(_) => line.push_str("\"\""),
    }
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

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the outermost function reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}
