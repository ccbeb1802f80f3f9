//! Lines for a file or for standard output, gathered in memory and written every moment: a busy node writes many at once.
//!
//! Invariant: a line begins where a line begins. What a target did not take is written again from the byte where it stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Deserialize;

use super::metrics::Counted;
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

/// Who may read a file that is made: as the process has it, or its owner alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readers {
    /// By the umask.
    Usual,
    /// Mode 600.
    Owner,
}

/// Lines on their way; cheap to clone.
#[derive(Clone)]
pub struct Lines {
    shared: Option<Arc<Mutex<Waiting>>>,
    counted: Counted,
}

#[derive(Default)]
struct Waiting {
    text: String,
    stamp: Stamp,
    /// Bytes that were taken and are not all written yet.
    taken: usize,
    /// Lines since the target last took everything.
    lost: u64,
    /// The file is to be opened anew, as it was moved away.
    reopen: bool,
}

/// The other end.
struct Writer {
    name: String,
    output: Box<dyn Write + Send>,
    /// The file, and its bytes so far.
    file: Option<(PathBuf, u64)>,
    readers: Readers,
    rotation: Option<Rotation>,
    /// Lines on their way, and how many bytes of them are written.
    taken: String,
    written: usize,
    /// What is there ends within a line.
    is_torn: bool,
    /// It takes nothing, which was said.
    is_out: bool,
    counted: Counted,
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
    pub fn open(
        target: &Target,
        name: &str,
        rotation: Option<Rotation>,
        readers: Readers,
        counted: Counted,
    ) -> io::Result<Self> {
        let mut writer = Writer::new(name, rotation, readers, counted.clone());
        match target {
            Target::Off => return Ok(Self { shared: None, counted }),
            // Past the buffer of the standard library, which does not say what it wrote.
            Target::Stdout => writer.output = Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Target::File(path) => writer.open(path)?,
        }
        let shared = Arc::new(Mutex::new(Waiting::default()));
        let reader = Arc::downgrade(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(waiting) = reader.upgrade() {
                writer.write_out(&waiting);
                if std::mem::take(&mut waiting.lock().reopen) {
                    writer.reopen();
                }
                drop(waiting);
                thread::sleep(EVERY);
            }
        })?;
        Ok(Self {
            shared: Some(shared),
            counted,
        })
    }

    /// Whether lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Has `write` write a line, with its end; unless far too many wait.
    pub fn line(&self, write: impl FnOnce(&mut Line<'_>)) {
        let Some(shared) = &self.shared else { return };
        let mut waiting = shared.lock();
        let Waiting {
            text,
            stamp,
            taken,
            lost,
            ..
        } = &mut *waiting;
        if text.len() + *taken < MOST {
            write(&mut Line { text, stamp });
        } else {
            *lost += 1;
            self.counted.lost.inc();
        }
    }

    /// Opens the file anew by its name, once what went before is written to the old one.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.lock().reopen = true;
        }
    }

    /// Waits until the lines so far are written, for a while.
    pub fn flush(&self) {
        let Some(shared) = &self.shared else { return };
        for _ in 0..20 {
            if shared.lock().is_empty() {
                return;
            }
            thread::sleep(EVERY / 2);
        }
        tracing::error!("lines of a log are not written yet");
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.taken == 0
    }
}

impl Writer {
    fn new(name: &str, rotation: Option<Rotation>, readers: Readers, counted: Counted) -> Self {
        Self {
            name: name.to_owned(),
            output: Box::new(io::sink()),
            file: None,
            readers,
            rotation,
            taken: String::new(),
            written: 0,
            is_torn: false,
            is_out: false,
            counted,
        }
    }

    /// Writes the lines so far. The two buffers change places, so that neither grows anew every time.
    fn write_out(&mut self, waiting: &Mutex<Waiting>) {
        if self.written == self.taken.len() {
            self.taken.clear();
            self.written = 0;
            let mut waiting = waiting.lock();
            std::mem::swap(&mut waiting.text, &mut self.taken);
            waiting.taken = self.taken.len();
        }
        if self.taken.is_empty() {
            return;
        }
        // A log that cannot be written is no reason to stop serving.
        match self.write() {
            Ok(()) => {
                let mut waiting = waiting.lock();
                waiting.taken = 0;
                let lost = std::mem::take(&mut waiting.lost);
                if std::mem::take(&mut self.is_out) {
                    tracing::warn!(log = self.name, lost, "a log is written again");
                }
            }
            Err(error) => {
                self.counted.failures.inc();
                if !std::mem::replace(&mut self.is_out, true) {
                    tracing::error!(log = self.name, %error, "a log cannot be written; its lines wait, and are lost once 8 MiB do");
                }
            }
        }
        if let (Some((path, length)), Some(rotation)) = (&mut self.file, self.rotation)
            && *length >= rotation.size.bytes()
        {
            // One that was put aside and could not be begun anew is not put aside again: the numbers would run out.
            if path.exists() {
                put_aside(path, rotation.keep);
            }
            self.reopen();
        }
    }

    /// Writes what is taken, from where it stopped.
    fn write(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.output.write_all(b"\n")?;
            self.is_torn = false;
        }
        while self.written < self.taken.len() {
            match self.output.write(&self.taken.as_bytes()[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.written += bytes;
                    if let Some((_, length)) = &mut self.file {
                        *length += bytes as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.flush()
    }

    fn reopen(&mut self) {
        let Some((path, _)) = &self.file else { return };
        let path = path.clone();
        match self.open(&path) {
            // The new file has the line whole that the old one has the beginning of.
            Ok(()) => {
                self.written = self.taken.as_bytes()[..self.written]
                    .iter()
                    .rposition(is_end)
                    .map_or(0, |at| at + 1)
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a log could not be opened anew; it goes on in the old file");
            }
        }
    }

    /// To its end, behind a line that another process may have left half.
    fn open(&mut self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        if self.readers == Readers::Owner {
            options.mode(0o600);
        }
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        // What is no file is not put aside.
        self.rotation = self.rotation.filter(|_| metadata.is_file());
        self.is_torn = metadata.is_file() && metadata.len() > 0 && !ends_a_line(path, metadata.len());
        self.output = Box::new(file);
        self.file = Some((path.to_owned(), metadata.len()));
        Ok(())
    }
}

fn is_end(byte: &u8) -> bool {
    *byte == b'\n'
}

/// Where that cannot be known, it does.
fn ends_a_line(path: &Path, length: u64) -> bool {
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, length - 1));
    read.is_err() || is_end(&last[0])
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
        let target = Target::File(path.clone());
        let lines = Lines::open(&target, "test", Some(rotation), Readers::Owner, Counted::none()).unwrap();

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

    /// Takes so many bytes at each call, and nothing where there is no number; then everything.
    struct Script {
        calls: Vec<Option<usize>>,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = match self.calls.is_empty() {
                true => Some(usize::MAX),
                false => self.calls.remove(0),
            };
            let most = most.ok_or(io::ErrorKind::StorageFull)?.min(bytes.len());
            self.got.lock().extend_from_slice(&bytes[..most]);
            Ok(most)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_target_does_not_take_is_written_again_from_the_byte_where_it_stopped() {
        let (counted, got) = (Counted::none(), Arc::<Mutex<Vec<u8>>>::default());
        let mut writer = Writer::new("test", None, Readers::Usual, counted.clone());
        writer.output = Box::new(Script {
            calls: vec![Some(3), None, Some(4), None, None],
            got: got.clone(),
        });
        let waiting = Mutex::new(Waiting::default());

        waiting.lock().text = "first\nsecond\n".to_owned();
        writer.write_out(&waiting);
        assert_eq!(*got.lock(), b"fir");
        waiting.lock().text = "third\n".to_owned();
        for _ in 0..4 {
            assert!(!waiting.lock().is_empty());
            writer.write_out(&waiting);
        }
        writer.write_out(&waiting);

        assert_eq!(String::from_utf8_lossy(&got.lock()), "first\nsecond\nthird\n");
        assert!(waiting.lock().is_empty());
        assert_eq!(counted.failures.get(), 3);
    }

    #[test]
    fn lines_beyond_what_may_wait_are_lost_and_counted() {
        let counted = Counted::none();
        // It takes nothing, ever.
        let target = Target::File("/dev/full".into());
        let lines = Lines::open(&target, "test", None, Readers::Usual, counted.clone()).unwrap();
        let line = format!("{}\n", "x".repeat((1 << 20) - 1));

        for _ in 0..10 {
            lines.line(|to| to.text.push_str(&line));
        }

        assert_eq!(counted.lost.get(), 2);
        thread::sleep(EVERY * 3);
        assert!(counted.failures.get() > 0);
    }

    #[test]
    fn a_file_is_its_owners_alone_and_begins_with_a_whole_line_also_behind_a_torn_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let write = |text: &str| {
            let target = Target::File(path.clone());
            let lines = Lines::open(&target, "test", None, Readers::Owner, Counted::none()).unwrap();
            lines.line(|line| line.text.push_str(text));
            lines.flush();
        };

        write("one\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "one\nhal").unwrap();
        write("two\n");

        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nhal\ntwo\n");
    }

    #[test]
    fn a_new_file_has_the_line_whole_that_the_old_one_has_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut writer = Writer::new("test", None, Readers::Owner, Counted::none());
        writer.open(&path).unwrap();
        writer.output = Box::new(Script {
            calls: vec![Some(8), None],
            got: Arc::default(),
        });
        let waiting = Mutex::new(Waiting::default());
        waiting.lock().text = "first\nsecond\n".to_owned();
        writer.write_out(&waiting);

        writer.reopen();
        writer.write_out(&waiting);

        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
    }
}
