//! What a node owes its parent, and what an operator does about it.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use url::form_urlencoded;

use super::node::{self, Failure};
use super::report;
use crate::units::{Clock, Size, Span};

/// See and settle what waits for the parent.
///
/// What is pushed to a node in registry mode is delivered to its parent by itself, in order. What the parent refuses is
/// parked and kept until an operator says what to do.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what waits, the oldest first
    List(List),
    Retry(Retry),
    Drop(Drop),
}

#[derive(clap::Args)]
struct List {
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Node,
}

/// Try at once what waits or is parked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf queue retry 17 18                     two of them
  wharf queue retry plant/app                 all of a repository
  wharf queue retry --all                     everything
  wharf queue retry --all --force             also what is owed to another parent: the one of now is to have it")]
struct Retry {
    #[command(flatten)]
    which: Which,
    /// Deliver what is owed to an earlier parent to the one that is configured now
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: Node,
}

/// Give up what waits: the parent will not have it.
///
/// The image stays here until room is needed, and can be pushed again. Nothing is dropped without --force; without it this
/// only says what would be.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf queue drop 17                         what would be dropped
  wharf queue drop 17 --force                 drop it")]
struct Drop {
    #[command(flatten)]
    which: Which,
    /// Drop it, instead of saying what would be dropped
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: Node,
}

#[derive(clap::Args)]
struct Which {
    /// Numbers, as `wharf queue list` shows them, or repositories
    #[arg(value_name = "NUMBER|REPOSITORY", required_unless_present = "all")]
    items: Vec<String>,
    /// Everything that waits
    #[arg(long, conflicts_with = "items")]
    all: bool,
}

#[derive(clap::Args)]
struct Node {
    /// The node's admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5001")]
    admin: String,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return report::fail(&error, 1),
        };
        let outcome = runtime.block_on(async {
            match self.command {
                Command::List(list) => list.run().await,
                Command::Retry(retry) => retry.run().await,
                Command::Drop(drop) => drop.run().await,
            }
        });
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::fail(&*error, 1),
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let listing = self.node.call("GET", "/api/queue").await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listing)?);
            return Ok(());
        }
        let items = items(&listing);
        show(items);
        let text = |key: &str| listing[key].as_str();
        let number = |key: &str| Size::of(listing[key].as_u64().unwrap_or(0));
        let parent = text("parent").unwrap_or("a parent (none is configured)");
        eprintln!(
            "{} waiting for {parent}; {} of {} may exist nowhere else",
            items.len(),
            number("bytes"),
            number("capacity")
        );
        if let Some(reason) = text("paused") {
            eprintln!("nothing is delivered: {reason}");
        }
        Ok(())
    }
}

impl Retry {
    async fn run(self) -> Result<(), Failure> {
        let turn = if self.force { "&turn=true" } else { "" };
        let path = format!("/api/queue/retry?{}{turn}", self.which.query());
        let done = self.node.call("POST", &path).await?;
        let tried = items(&done);
        self.which.found(tried)?;
        show(tried);
        eprintln!("{} tried again", tried.len());
        let held = tried.iter().filter(|item| item["state"] == "held").count();
        if held > 0 {
            eprintln!("{held} of them are owed to another parent; with --force the one of now is to have them");
        }
        Ok(())
    }
}

impl Drop {
    async fn run(self) -> Result<(), Failure> {
        if !self.force {
            let listing = self.node.call("GET", "/api/queue").await?;
            let meant: Vec<Value> = items(&listing)
                .iter()
                .filter(|item| self.which.has(item))
                .cloned()
                .collect();
            show(&meant);
            eprintln!("{} would be dropped; say --force to drop what is listed", meant.len());
            return Ok(());
        }
        let path = format!("/api/queue/drop?{}", self.which.query());
        let done = self.node.call("POST", &path).await?;
        let dropped = items(&done);
        self.which.found(dropped)?;
        show(dropped);
        eprintln!("{} dropped: the parent will not have them", dropped.len());
        Ok(())
    }
}

impl Which {
    /// Whether what is named waits at all.
    fn found(&self, items: &[Value]) -> Result<(), Failure> {
        if items.is_empty() && !self.all {
            let named = self.items.join(", ");
            return Err(format!("nothing waits under {named}; see `wharf queue list`").into());
        }
        Ok(())
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if self.all {
            query.append_pair("all", "true");
        }
        for item in &self.items {
            let key = if is_number(item) { "number" } else { "repository" };
            query.append_pair(key, item);
        }
        query.finish()
    }

    fn has(&self, item: &Value) -> bool {
        let number = item["number"].to_string();
        let repository = item["repository"].as_str().unwrap_or_default();
        self.all || self.items.iter().any(|named| *named == number || named == repository)
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit())
}

impl Node {
    async fn call(&self, method: &'static str, path: &str) -> Result<Value, Failure> {
        let remedy = "name its admin port with --admin";
        node::call(&self.admin, method, path, Duration::from_secs(60), remedy).await
    }
}

fn items(body: &Value) -> &[Value] {
    body["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A line for each.
fn show(items: &[Value]) {
    let wall = Clock::system().wall();
    let now = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let age = Span::seconds(now.saturating_sub(item["at"].as_u64().unwrap_or(now)));
        let tags: Vec<&str> = item["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let name = match tags.as_slice() {
            [] if text("what") == "delete" => format!("delete {} {}", text("repository"), text("reference")),
            [] => format!("{}@{}", text("repository"), text("reference")),
            tags => format!("{}:{}", text("repository"), tags.join(",")),
        };
        let reason = text("reason");
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!("  {reason}")
        };
        say!(
            "{:>6}  {:8}  {:>8}  {name}{reason}",
            item["number"].as_u64().unwrap_or_default(),
            text("state"),
            age.to_string()
        );
    }
}
