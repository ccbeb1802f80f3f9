use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use super::report;
use crate::app::{App, Hangups};
use crate::config::{self, Config, Log, Overrides, Placed, environment};
use crate::listener::{self, Format};
use crate::units::Clock;

/// Run a node.
///
/// Without a file and flags: a mirror of Docker Hub on 127.0.0.1:5000, its cache in ./wharf-data,
/// its status page on http://127.0.0.1:5001/.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf serve                                        a mirror of Docker Hub
  wharf serve --parent http://l5.plant.example:5000 --namespace docker.io
                                                     a node below another that mirrors Docker Hub
  wharf serve --mode registry                        a registry of its own, to push to
  wharf serve --config /etc/wharf/wharf.toml

Every setting of a section can also come from the environment: WHARF__STORAGE__CAPACITY=50GiB.
wharf check says what is wrong with settings, and why; a node that finds them wrong ends with exit code 2.
Then point a client at it: wharf client docker")]
pub(super) struct Args {
    /// The file of settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// mirror (pulls only) | registry (pulls and pushes) [default: mirror]
    #[arg(long)]
    mode: Option<String>,
    /// Where the registry listens [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where status page and metrics are [default: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The folder that holds the store [default: ./wharf-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// All that may be kept on disk [default: 20GiB]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<String>,
    /// The registry above [default: Docker Hub; of a registry: none]
    #[arg(long, value_name = "URL")]
    parent: Option<String>,
    /// What the parent means by a name without a registry, like docker.io [default: itself]
    #[arg(long, value_name = "REGISTRY")]
    namespace: Option<String>,
    /// The node's name, unique in its hierarchy [default: the host's name]
    #[arg(long)]
    name: Option<String>,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let Self {
            config,
            mode,
            listen,
            admin,
            data,
            capacity,
            parent,
            namespace,
            name,
        } = self;
        let overrides = Overrides {
            mode,
            listen,
            admin,
            data,
            capacity,
            parent,
            namespace,
            name,
        };
        // Before anything else: whoever rotates logs does not wait until a node has started.
        let hangups = match Hangups::hear() {
            Ok(hangups) => hangups,
            Err(error) => return report::fail(&error, 1),
        };
        let load = move || Config::load(config.as_deref(), environment(), &overrides);
        let (config, places) = match load() {
            Ok(read) => read,
            Err(error) => return report::refuse(&error),
        };
        let findings = config.check(&places, &Clock::system());
        if !findings.wrong.is_empty() {
            return report::refuse(&config::Error::of(&places, findings.wrong));
        }
        begin_log(&config.log);
        for Placed { at, remark, .. } in places.place_all(findings.doubtful) {
            tracing::warn!(at, key = remark.key, reason = remark.words, "doubtful setting");
        }
        match App::build(config, Box::new(load)) {
            Ok(app) => {
                app.run(hangups);
                ExitCode::SUCCESS
            }
            Err(error) => report::fail(&error, 1),
        }
    }
}

/// Events go to standard error; request lines go elsewhere.
fn begin_log(log: &Log) {
    // The libraries below have their own idea of what is worth a line.
    let level = log.level.as_str();
    let filter = EnvFilter::new(format!("warn,wharf={level},{}", listener::QUIET));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match log.format {
        Format::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        Format::Json => lines.json().init(),
    }
}
