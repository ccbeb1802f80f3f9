use std::path::PathBuf;
use std::process::ExitCode;

use super::report;
use crate::app::App;
use crate::config::{Config, Overrides};

/// Validate a file of settings and print what is in force.
///
/// Exits with 0, or with 2 and the file, line, column, key, reason and remedy.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  wharf check --config /etc/wharf/wharf.toml")]
pub(super) struct Args {
    /// The file of settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        match Config::load(Some(&self.config), std::env::vars(), &Overrides::default()) {
            Ok(config) => {
                if let Err(error) = App::check(&config) {
                    return report::fail(&error, 2);
                }
                say!("{}", config.printed().trim_end());
                ExitCode::SUCCESS
            }
            Err(error) => report::fail(&error, 2),
        }
    }
}
