//! One process of the plant.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::{Error, orphan};
use crate::units::Clock;

/// A running child whose words go to a file. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// How long a part of the plant may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// How much of a log is shown when its process failed.
const LAST_LINES: usize = 12;

impl Process {
    /// Starts `command` in the folder of `log`, to which stdout and stderr are appended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the log cannot be opened, or the program not be started.
    pub(super) fn spawn(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self, Error> {
        let opened = File::options().create(true).append(true).open(&log);
        let output = opened.and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = output.map_err(|source| Error::Io {
            action: "opening",
            path: log.clone(),
            source,
        })?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        if let Some(folder) = log.parent() {
            command.current_dir(folder);
        }
        orphan::dies_with_us(&mut command);
        let program = PathBuf::from(command.get_program());
        let spawned = command.spawn();
        let child = spawned.map_err(|source| Error::Io {
            action: "starting",
            path: program,
            source,
        })?;
        Ok(Self { name, child, log })
    }

    /// Waits until `url` answers with 200.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] or, after a while, [`Error::NotReady`], both with the last lines of the log.
    pub(super) async fn ready(&mut self, url: &str) -> Result<(), Error> {
        let client = Endpoint::open(url.to_owned()).client()?;
        let clock = Clock::system();
        let deadline = clock.now() + PATIENCE;
        loop {
            self.alive()?;
            if client.get(url, PATIENCE).await.is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            if clock.now() > deadline {
                return Err(Error::NotReady {
                    name: self.name,
                    url: url.to_owned(),
                    log: self.last_lines(),
                });
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// # Errors
    ///
    /// [`Error::Ended`]: it has ended by itself.
    pub(super) fn alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                name: self.name,
                status,
                log: self.last_lines(),
            }),
            // A child that cannot be asked is our own all the same: its address will tell.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn last_lines(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        if let Err(error) = read {
            return format!("  ({} cannot be read: {error})", self.log.display());
        }
        let mut last = VecDeque::new();
        for line in text.lines() {
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(format!("  {line}"));
        }
        Vec::from(last).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This very program, as a node with these settings.
///
/// # Errors
///
/// [`Error::Io`]: nobody knows where it lies.
pub(super) fn wharf(settings: &Path) -> Result<Command, Error> {
    let ours = std::env::current_exe().map_err(|source| Error::Io {
        action: "finding",
        path: "this program".into(),
        source,
    })?;
    let mut command = Command::new(ours);
    // Settings in the environment would win over the file.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF__")) {
        command.env_remove(name);
    }
    command.arg("serve").arg("--config").arg(settings);
    Ok(command)
}
