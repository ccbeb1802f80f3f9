//! Programs that run while a test does, and programs that are waited for.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::PATIENCE;

/// A program in the background. Dropping it ends it, and shows its last words if the test failed.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    gently: bool,
}

/// How long a program may take to end when asked to.
const FAREWELL: Duration = Duration::from_secs(10);

impl Running {
    /// Starts `command` with its words going to `log`.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a writable folder");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            gently: false,
        }
    }

    /// Waits until `holds` is true; fails the test if the program ends before.
    pub fn until(mut self, what: &str, mut holds: impl FnMut() -> bool) -> Self {
        let begun = Instant::now();
        while !holds() {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "{} ended with {ended:?} before {what}", self.name);
            assert!(
                begun.elapsed() < PATIENCE,
                "{}: waited {PATIENCE:?} in vain until {what}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// It will be asked to end, so that it ends what it started itself.
    pub fn ended_gently(mut self) -> Self {
        self.gently = true;
        self
    }

    fn ask_to_end(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Fails only when it has ended.
        let _ = kill(pid, Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.gently {
            self.ask_to_end();
        }
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
            eprintln!("--- end of the log of {} ---\n{tail}", self.name);
        }
    }
}

/// Runs `command` to its end and returns what it said on stdout.
///
/// # Panics
///
/// It failed: with all that it said.
pub fn output(mut command: Command) -> String {
    let (succeeded, said) = tried(&mut command);
    assert!(succeeded, "{command:?} failed:\n{said}");
    said
}

/// Runs `command`, which must fail, and returns what it said on stdout and stderr.
///
/// # Panics
///
/// It succeeded.
pub fn refusal(mut command: Command) -> String {
    let (succeeded, said) = tried(&mut command);
    assert!(!succeeded, "{command:?} succeeded:\n{said}");
    said
}

/// Whether it succeeded; stdout, and if it failed stderr too.
fn tried(command: &mut Command) -> (bool, String) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        said += &String::from_utf8_lossy(&output.stderr);
    }
    (output.status.success(), said)
}
