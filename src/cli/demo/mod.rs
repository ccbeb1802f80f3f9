//! `wharf demo`: a plant of three layers below a cloud, on loopback, and the proof that it keeps its promise.
//!
//! ```text
//! cloud (a registry) <- l5-enterprise <- l4-site <- l3-operations <- the demo, pulling as Docker does
//! ```
//!
//! Nothing is believed that this program says of itself alone: the requests are counted by the upper nodes and in
//! the cloud's log, the digests by `sha256sum`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::report;
use crate::cli::demo::folder::Folder;
use crate::cli::demo::plant::Plant;
use crate::parent::http;

mod cloud;
mod endpoint;
mod fence;
mod folder;
mod image;
mod node;
mod orphan;
mod plant;
mod ports;
mod process;
mod proof;
mod pull;
mod push;
mod show;
mod story;
mod trust;
mod witness;

/// Start a plant of three layers below a cloud, on loopback, and prove what it does.
///
/// Exits with 0 if all of the story was proved; else it says what was not.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// End after the story instead of staying up to be tried
    #[arg(long)]
    once: bool,

    /// Over TLS by an authority of the plant's own, with an account for each layer at the one above it
    #[arg(long)]
    tls: bool,

    /// Keep settings, logs, stores and what was pulled in DIR, which must be empty or not be there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  wharf demo                     the story, then a plant to try until Ctrl-C
  wharf demo --once              the story alone; exit 0 if all of it was proved
  wharf demo --tls               the same over TLS, each layer with an account at the one above
  wharf demo --once --keep out   and the nodes' settings, logs and stores to look at

The cloud is this program too, as a registry of its own (mode = \"registry\").";

/// Why the story was not told to its end, or not believed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The operator's: a program that the demo needs is not installed.
    #[error("{program} is not in PATH, and {purpose}: run `scripts/setup demo` (Debian's package: {package})")]
    Missing {
        program: &'static str,
        purpose: &'static str,
        package: &'static str,
    },

    /// The operator's: `--keep` must not mix with what is there.
    #[error("{} is not empty: name another folder by --keep", path.display())]
    NotEmpty { path: PathBuf },

    /// A part of the plant ended by itself; its last words say why.
    #[error("{name} ended with {status}; its last lines:\n{log}")]
    Ended {
        name: &'static str,
        status: std::process::ExitStatus,
        log: String,
    },

    /// A part of the plant is there and does not become well.
    #[error("{name} does not answer on {url}; its last lines:\n{log}")]
    NotReady {
        name: &'static str,
        url: String,
        log: String,
    },

    /// No answer at all.
    #[error("{what}")]
    NoAnswer { what: String, source: http::Error },

    /// An answer that the story cannot go on with.
    #[error("{what}: {reason}")]
    Unexpected { what: String, reason: String },

    /// A mistake in this program: what it wanted to certify is no certificate.
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),

    /// The machine's fault: an operator must look at `path`.
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// The story was told, and is not proved.
    #[error("not proved: {}", claims.join("; "))]
    Unproved { claims: Vec<String> },
}

impl Args {
    /// Tells the story: 0 when all of it was proved, 130 when it was interrupted, else 1.
    pub(super) fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::Io {
            action: "starting",
            path: "the runtime".into(),
            source,
        });
        match runtime.and_then(|runtime| runtime.block_on(told_or_interrupted(&self))) {
            Ok(code) => code,
            Err(error) => report::fail(&error, 1),
        }
    }
}

/// The plant belongs to the story's future: whichever way this returns, its processes have ended.
async fn told_or_interrupted(args: &Args) -> Result<ExitCode, Error> {
    let interrupts = interrupted().map_err(|source| Error::Io {
        action: "listening for",
        path: "signals".into(),
        source,
    });
    tokio::select! {
        told = told(args) => told.map(|()| ExitCode::SUCCESS),
        () = interrupts? => {
            say!("");
            Ok(ExitCode::from(if args.once { 130 } else { 0 }))
        }
    }
}

/// Ends at Ctrl-C, when the terminal closes, or when someone asks the process to end.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = hangup.recv() => (),
        }
    })
}

async fn told(args: &Args) -> Result<(), Error> {
    witness::summoned()?;
    let folder = Folder::new(args.keep.as_deref())?;
    let mut plant = Plant::start(&folder, args.tls).await?;
    story::tell(&mut plant).await?;
    if args.once {
        return Ok(());
    }
    plant.cloud.start().await?;
    show::to_try(&plant);
    plant.ended().await
}
