//! Credentials from a program beside us: the protocol of `docker-credential-*`.
//!
//! `docker-credential-<name> get` reads the registry's host and writes `{"Username", "Secret"}`. It is
//! run when credentials are first asked for, never at the start, and its answer is kept for a while.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::config::Login;
use super::login::Known;
use crate::units::Secret;

/// It may ask a cloud; longer than this nobody waits.
const WITHIN: Duration = Duration::from_secs(10);

/// More than any token needs.
const MOST_BYTES: u64 = 64 * 1024;

/// What it said is asked for again after this, or when it is refused.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// A helper that failed is left alone for so long.
const PAUSE: Duration = Duration::from_secs(5);

/// As its user name: the secret is an identity token, not a password.
const IDENTITY_TOKEN: &str = "<token>";

/// A helper and what it last said.
#[derive(Debug)]
pub(super) struct Helper {
    /// What follows `docker-credential-`.
    name: String,
    /// What it is asked for.
    server: String,
    /// Held while it runs, so that it runs once for all who wait.
    said: Mutex<Option<Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    what: Result<Known, String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Helper {
    pub(super) fn new(name: &str, server: String) -> Self {
        Self {
            name: name.to_owned(),
            server,
            said: Mutex::new(None),
        }
    }

    /// What is run, as a name to look for in `PATH`.
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// What it says, other than `refused`; or why it says nothing, with its own first line: for the log only.
    pub(super) async fn ask(&self, refused: Option<&Known>, now: Instant) -> Result<Known, String> {
        let mut said = self.said.lock().await;
        if let Some(said) = said.as_ref() {
            let age = now.saturating_duration_since(said.at);
            match &said.what {
                Ok(known) if age < KEPT && refused != Some(known) => return Ok(known.clone()),
                Err(reason) if age < PAUSE => return Err(reason.clone()),
                _ => {}
            }
        }
        let what = match tokio::time::timeout(WITHIN, self.run()).await {
            Ok(what) => what,
            Err(_) => Err(format!("did not answer within {WITHIN:?}")),
        };
        *said = Some(Said {
            at: now,
            what: what.clone(),
        });
        what
    }

    async fn run(&self) -> Result<Known, String> {
        let child = Command::new(self.program())
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut running = Running(child.map_err(|error| format!("cannot be run: {error}"))?);
        let child = &mut running.0;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read is judged by what it writes.
            let _ = stdin.write_all(self.server.as_bytes()).await;
        }
        let (out, err) = tokio::join!(read(child.stdout.take()), read(child.stderr.take()));
        let status = child.wait().await.map_err(|error| format!("was lost: {error}"))?;
        if !status.success() {
            return Err(format!("failed: {}", first_line(&err, &out)));
        }
        let answer: Answer = serde_json::from_slice(&out).map_err(|_| "gave no user and secret".to_owned())?;
        if answer.secret.is_empty() || answer.username.contains(':') {
            return Err("gave no user and secret that can be used".to_owned());
        }
        let secret = Secret::from(answer.secret);
        Ok(match answer.username.as_str() {
            IDENTITY_TOKEN => Known::Identity(secret),
            _ => Known::Password(Login {
                username: answer.username,
                password: secret,
            }),
        })
    }
}

/// A helper that is given up is killed with all that it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // No number: it has ended and was waited for.
        if let Some(id) = self.0.id() {
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What came before it broke is what there is.
        let _ = from.take(MOST_BYTES).read_to_end(&mut bytes).await;
    }
    bytes
}

/// What a failed helper says. What it wrote to stdout may be a secret; only the words of the
/// protocol are known not to be.
fn first_line(err: &[u8], out: &[u8]) -> String {
    let said = String::from_utf8_lossy(err);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    let unknown = b"credentials not found in native keychain";
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    match line {
        Some(line) => line.chars().take(200).map(printable).collect(),
        None if out.starts_with(unknown) => "it has no credentials for this registry".to_owned(),
        None => "it does not say why".to_owned(),
    }
}
