use std::path::PathBuf;
use std::process::ExitCode;

use super::report;
use crate::config::{self, Config, Overrides, environment};
use crate::units::Clock;

/// Validate a file of settings and print what is in force.
///
/// Everything that is wrong is told on standard error, one line each, as editors understand it:
/// file, line, column, key, reason and remedy. The exit code is then 2. What the node can work
/// with, but was perhaps not meant, is told as a warning, and the exit code is 0. The files that
/// the settings name are looked at too: certificates, passwords, the disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf check --config /etc/wharf/wharf.toml
  wharf check --config wharf.toml >/dev/null         only what is wrong or doubtful

A line of what it tells:
  wharf.toml:12:7: parent.url: is not a URL; write https://HOST[:PORT], or http:// without encryption

Variables count as they do for wharf serve: WHARF__STORAGE__CAPACITY=50GiB wharf check ...")]
pub(super) struct Args {
    /// The file of settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let (config, places) = match Config::load(Some(&self.config), environment(), &Overrides::default()) {
            Ok(read) => read,
            Err(error) => return report::refuse(&error),
        };
        let clock = Clock::system();
        let findings = config.check(&places, &clock);
        if !clock.is_set() {
            eprintln!("warning: {}", clock.unset());
        }
        for doubt in places.place_all(findings.doubtful) {
            eprintln!("{}", doubt.warning());
        }
        if !findings.wrong.is_empty() {
            return report::refuse(&config::Error::of(&places, findings.wrong));
        }
        say!("{}", config.printed().trim_end());
        ExitCode::SUCCESS
    }
}
