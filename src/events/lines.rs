//! Lines for a file or for standard output, gathered in memory and written every moment: a busy node writes many at once.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Deserialize;

use super::stamp::Stamp;
use crate::units::Size;

/// How often lines are written.
const EVERY: Duration = Duration::from_millis(100);
/// Bytes of lines kept while the target does not take them; then lines are lost, not memory.
const MOST: usize = 8 << 20;

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

/// When a file is put aside and begun anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// Bytes of it by then.
    pub size: Size,
    /// As many earlier ones are kept, as `<name>.1` and so on, the newest first.
    pub keep: usize,
}

/// Lines on their way; cheap to clone.
#[derive(Clone)]
pub struct Lines {
    shared: Option<Arc<Mutex<Waiting>>>,
}

#[derive(Default)]
struct Waiting {
    text: String,
    stamp: Stamp,
    /// Some were taken and are not written yet.
    writing: bool,
    /// The file is to be opened anew, as it was moved away.
    reopen: bool,
}

/// The other end.
struct Writer {
    output: Box<dyn io::Write + Send>,
    /// The file, and its bytes so far.
    file: Option<(PathBuf, u64)>,
    rotation: Option<Rotation>,
}

/// What a line is written to, and the time of its writing.
pub struct Line<'a> {
    /// Ends with the line before.
    pub text: &'a mut String,
    stamp: &'a mut Stamp,
}

impl Line<'_> {
    /// Writes the time: RFC 3339, in UTC, down to the microsecond.
    pub fn time(&mut self) {
        self.stamp.write(self.text, now());
    }
}

impl Lines {
    /// Opens the target and starts its writer, a thread called `name`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(target: &Target, name: &str, rotation: Option<Rotation>) -> io::Result<Self> {
        let (output, file): (Box<dyn io::Write + Send>, _) = match target {
            Target::Off => return Ok(Self { shared: None }),
            Target::Stdout => (Box::new(io::stdout()), None),
            Target::File(path) => {
                let (file, length) = append(path)?;
                (Box::new(file), Some((path.clone(), length)))
            }
        };
        let shared = Arc::new(Mutex::new(Waiting::default()));
        let reader = Arc::downgrade(&shared);
        let mut writer = Writer { output, file, rotation };
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut taken = String::new();
            while let Some(waiting) = reader.upgrade() {
                writer.write_out(&waiting, &mut taken);
                if std::mem::take(&mut waiting.lock().reopen) {
                    writer.reopen();
                }
                drop(waiting);
                thread::sleep(EVERY);
            }
        })?;
        Ok(Self { shared: Some(shared) })
    }

    /// Whether lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Has `write` write a line, with its end; unless far too many wait.
    pub fn line(&self, write: impl FnOnce(&mut Line<'_>)) {
        let Some(shared) = &self.shared else { return };
        let mut waiting = shared.lock();
        let Waiting { text, stamp, .. } = &mut *waiting;
        if text.len() < MOST {
            write(&mut Line { text, stamp });
        }
    }

    /// Opens the file anew by its name, once what went before is written to the old one.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.lock().reopen = true;
        }
    }

    /// Waits until the lines so far are written.
    pub fn flush(&self) {
        let Some(shared) = &self.shared else { return };
        for _ in 0..20 {
            {
                let waiting = shared.lock();
                if waiting.text.is_empty() && !waiting.writing {
                    return;
                }
            }
            thread::sleep(EVERY / 2);
        }
    }
}

impl Writer {
    /// Writes the lines so far. The two buffers change places, so that neither grows anew every time.
    fn write_out(&mut self, waiting: &Mutex<Waiting>, taken: &mut String) {
        taken.clear();
        {
            let mut waiting = waiting.lock();
            std::mem::swap(&mut waiting.text, taken);
            waiting.writing = !taken.is_empty();
        }
        if taken.is_empty() {
            return;
        }
        // A log that cannot be written is no reason to stop serving, and there is no better place to say so.
        let _ = self
            .output
            .write_all(taken.as_bytes())
            .and_then(|()| self.output.flush());
        waiting.lock().writing = false;
        if let (Some((path, length)), Some(rotation)) = (&mut self.file, self.rotation) {
            *length += taken.len() as u64;
            if *length >= rotation.size.bytes() {
                put_aside(path, rotation.keep);
                self.reopen();
            }
        }
    }

    fn reopen(&mut self) {
        let Some((path, length)) = &mut self.file else { return };
        match append(path) {
            Ok((file, bytes)) => {
                self.output = Box::new(file);
                *length = bytes;
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a log could not be opened anew; it goes on in the old file");
            }
        }
    }
}

/// `<name>` becomes `<name>.1`, that becomes `<name>.2`, and what would be one too many goes.
fn put_aside(path: &Path, keep: usize) {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let outcome = match keep {
        0 => fs::remove_file(path),
        _ => {
            for number in (1..keep).rev() {
                let _ = rename(&numbered(number), &numbered(number + 1));
            }
            rename(path, &numbered(1))
        }
    };
    if let Err(error) = outcome {
        tracing::error!(path = %path.display(), %error, "a log could not be put aside");
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a log is no part of the store")]
    fs::rename(from, to)
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Writes a text as JSON does.
pub fn quoted(line: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(json) => line.push_str(&json),
        Err(_) => line.push_str("\"\""),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_full_is_put_aside_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let rotation = Rotation {
            size: Size::of(100),
            keep: 2,
        };
        let lines = Lines::open(&Target::File(path.clone()), "test", Some(rotation)).unwrap();

        for number in 0..5 {
            lines.line(|line| *line.text += &format!("{number} {}\n", "x".repeat(100)));
            lines.flush();
            thread::sleep(EVERY * 2);
        }

        let first = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap().chars().next();
        assert_eq!(
            (first("audit.log"), first("audit.log.1"), first("audit.log.2")),
            (None, Some('4'), Some('3'))
        );
        assert!(!folder.path().join("audit.log.3").exists());
    }
}
