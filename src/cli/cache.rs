//! What lies in a node's store, and what may go.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;

use super::node::Failure;
use super::report;
use super::stopped::{REMEDY, Which};
use crate::units::{Size, Span};

/// Look after what a node keeps.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Gc(Gc),
}

/// Throw away the blobs that no manifest needs.
///
/// A node in registry mode does so by itself, push.unused_ttl after a blob was last pushed or asked for; it looks every hour.
/// A running node is asked at its admin port; of one that is stopped the store is named. A push that is under way may need
/// what is spared by no time: 10m spares it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf cache gc --dry-run                           what would go
  wharf cache gc --unused 10m                        also what was pushed today, but for pushes under way
  wharf cache gc --data /var/lib/wharf               of a node that is stopped")]
struct Gc {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Spare what was pushed within this time [default: push.unused_ttl]
    #[arg(long, value_name = "SPAN")]
    unused: Option<Span>,
    #[command(flatten)]
    node: Which,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let Command::Gc(gc) = self.command;
        report::finish(gc.run())
    }
}

impl Gc {
    async fn run(self) -> Result<(), Failure> {
        let Some((config, store)) = self.node.open("cache gc")? else {
            return self.ask().await;
        };
        let unused = self.unused.map_or(config.push.unused_ttl, Span::duration);
        let swept = store.sweep(unused, self.dry_run).await?;
        for (repository, digest) in &swept.blobs {
            say!("{repository}@{digest}");
        }
        self.sum(swept.blobs.len(), swept.bytes);
        store.flush();
        Ok(())
    }

    /// A node that runs.
    async fn ask(&self) -> Result<(), Failure> {
        let mut path = format!("/api/cache/gc?dry_run={}", self.dry_run);
        if let Some(unused) = self.unused {
            path += &format!("&unused={unused}");
        }
        let within = Duration::from_secs(600);
        let port = &self.node.port;
        let body = port.call("POST", &path, Bytes::new(), within, REMEDY).await?;
        let blobs = body["blobs"].as_array().map_or(&[][..], Vec::as_slice);
        for blob in blobs {
            let text = |key: &str| blob[key].as_str().unwrap_or_default().to_owned();
            say!("{}@{}", text("repository"), text("digest"));
        }
        self.sum(blobs.len(), body["bytes"].as_u64().unwrap_or(0));
        Ok(())
    }

    fn sum(&self, blobs: usize, bytes: u64) {
        let words = if self.dry_run { "would go" } else { "gone" };
        eprintln!(
            "{blobs} blobs that no manifest needs, {} on the disk: {words}",
            Size::of(bytes)
        );
    }
}
