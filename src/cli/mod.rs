//! The commands: one file each, with the same two verbs.

/// Prints a line. Whoever reads may stop reading (`wharf demo | head`): that is no reason to panic.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::report::line(format_args!($($words)*))
    };
}

mod cache;
mod check;
mod client;
mod demo;
mod node;
mod queue;
mod report;
mod serve;
mod status;
mod stopped;
mod sync;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A container registry for networks that come in layers.
///
/// Each node pulls through from the layer above, keeps what passed, and serves the layer below.
#[derive(Parser)]
#[command(name = "wharf", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Client(client::Args),
    Status(status::Args),
    Queue(queue::Args),
    Sync(sync::Args),
    Cache(cache::Args),
    Token(token::Args),
    Demo(demo::Args),
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Client(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Queue(args) => args.run(),
            Command::Sync(args) => args.run(),
            Command::Cache(args) => args.run(),
            Command::Token(args) => args.run(),
            Command::Demo(args) => args.run(),
        }
    }
}
