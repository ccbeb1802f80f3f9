//! What a node owes its parent, and what an operator does about it.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use url::form_urlencoded;

use super::node::{Failure, Port};
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
    node: Port,
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
    node: Port,
}

/// Give up what waits: the parent will not have it.
///
/// Its tags mean here what they mean at the parent, at once. The image itself stays, by digest, until room is needed, and can be
/// pushed again. Nothing is dropped without --force; without it this only says what would be.
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
    node: Port,
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

impl Args {
    pub(super) fn run(self) -> ExitCode {
        report::finish(async {
            match self.command {
                Command::List(list) => list.run().await,
                Command::Retry(retry) => retry.run().await,
                Command::Drop(drop) => drop.run().await,
            }
        })
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let listing = ask(&self.node, "GET", "/api/queue").await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listing)?);
            return Ok(());
        }
        let items = items(&listing);
        if !items.is_empty() {
            eprintln!(
                "{:>6}  {:8}  {:>8}  {:12}  PUSH OR DELETE",
                "NUMBER", "STATE", "AGE", "DIGEST"
            );
        }
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
        if let Some(reason) = text("paused").or_else(|| text("away").filter(|_| !items.is_empty())) {
            eprintln!("nothing is delivered: {reason}");
        }
        Ok(())
    }
}

impl Retry {
    async fn run(self) -> Result<(), Failure> {
        let turn = if self.force { "&turn=true" } else { "" };
        let path = format!("/api/queue/retry?{}{turn}", self.which.query());
        let done = ask(&self.node, "POST", &path).await?;
        let found = items(&done);
        show(found);
        let is_held = |item: &&Value| item["state"] == "held";
        let held = found.iter().filter(is_held).count();
        let tried = found.len() - held;
        eprintln!("{tried} tried again");
        self.which.found(found)?;
        let Some(first) = found.iter().find(is_held) else {
            return Ok(());
        };
        let why = match self.force {
            true => first["reason"].as_str().unwrap_or_default(),
            false => "owed to another parent; with --force the one of now is to have it",
        };
        let words = format!("{held} held: {why}");
        match tried {
            0 => Err(words.into()),
            _ => {
                eprintln!("{words}");
                Ok(())
            }
        }
    }
}

impl Drop {
    async fn run(self) -> Result<(), Failure> {
        if !self.force {
            let listing = ask(&self.node, "GET", "/api/queue").await?;
            let meant: Vec<Value> = items(&listing)
                .iter()
                .filter(|item| self.which.has(item))
                .cloned()
                .collect();
            show(&meant);
            if !meant.is_empty() {
                eprintln!("{} would be dropped; say --force to drop what is listed", meant.len());
            }
            return self.which.found(&meant);
        }
        let path = format!("/api/queue/drop?{}", self.which.query());
        let done = ask(&self.node, "POST", &path).await?;
        let dropped = items(&done);
        show(dropped);
        eprintln!("{} dropped: the parent will not have them", dropped.len());
        self.which.found(dropped)
    }
}

impl Which {
    /// Whether all that is named waits.
    fn found(&self, items: &[Value]) -> Result<(), Failure> {
        let is_found = |named: &&String| items.iter().any(|item| names(named, item));
        let missing: Vec<&str> = self
            .items
            .iter()
            .filter(|named| !is_found(named))
            .map(String::as_str)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("nothing waits under {}; see `wharf queue list`", missing.join(", ")).into())
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
        self.all || self.items.iter().any(|named| names(named, item))
    }
}

/// Whether that is its number or its repository.
fn names(named: &str, item: &Value) -> bool {
    item["repository"] == named
        || item["number"]
            .as_u64()
            .is_some_and(|number| named.parse() == Ok(number))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit())
}

/// Asks the node.
async fn ask(port: &Port, method: &str, path: &str) -> Result<Value, Failure> {
    port.ask(method, path, Duration::from_secs(60)).await
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
            [] => text("repository").to_owned(),
            tags => format!("{}:{}", text("repository"), tags.join(",")),
        };
        // As docker shows it.
        let digest = match text("reference").split_once(':') {
            Some((_, hex)) => hex.get(..12).unwrap_or(hex),
            None => "",
        };
        let tries = item["tries"].as_u64().map(|tries| format!("tried {tries} times"));
        let retry = item["retry_ms"]
            .as_u64()
            .map(|ms| format!("next in {}", Span::seconds(ms.div_ceil(1000))));
        let reason = item["reason"].as_str().map(str::to_owned);
        let more: Vec<String> = [reason, tries, retry].into_iter().flatten().collect();
        let more = more.join("; ");
        let line = format!(
            "{:>6}  {:8}  {:>8}  {digest:12}  {name}  {more}",
            item["number"].as_u64().unwrap_or_default(),
            text("state"),
            age.to_string()
        );
        say!("{}", line.trim_end());
    }
}
