//! How a node stands, and those below it.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::node::{Failure, Port};
use super::report;
use crate::units::{Size, Span};

/// Say how a node stands, and those below it.
///
/// Its connection to the parent, what is selected and how much of it is here, what waits to be delivered, the disk, and what the nodes
/// below last said of themselves. The exit code is 1 if something is wrong with the node itself.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf status                                of the node on this machine
  wharf status --admin http://l4:5001 --json  as a connected registry's properties")]
pub(super) struct Args {
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Port,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        report::finish(async {
            let status = self.ask("/api/status").await?;
            if self.json {
                say!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                let sync = self.ask("/api/sync").await?;
                show(&status, &sync);
            }
            match status["statusDetails"].as_array() {
                Some(details) if !details.is_empty() => Err(format!("{} needs a look", text(&status, "name")).into()),
                _ => Ok(()),
            }
        })
    }

    async fn ask(&self, path: &str) -> Result<Value, Failure> {
        self.node.ask("GET", path, Duration::from_secs(60)).await
    }
}

fn show(status: &Value, sync: &Value) {
    say!(
        "{:10} {}, {}, wharf {}: {}",
        "node",
        text(status, "name"),
        text(status, "mode"),
        text(status, "version"),
        text(status, "connectionState")
    );
    for why in ["away", "closed"].into_iter().filter_map(|key| sync[key].as_str()) {
        say!("{:10} {why}", "parent");
    }
    let size = |value: &Value| Size::of(value.as_u64().unwrap_or_default());
    let disk = &status["disk"];
    say!(
        "{:10} {} of {} are free",
        "disk",
        size(&disk["freeBytes"]),
        size(&disk["capacityBytes"])
    );
    say!(
        "{:10} {} to deliver, {} of them may exist nowhere else",
        "backlog",
        status["backlog"]["items"],
        size(&status["backlog"]["bytes"])
    );
    say!("{:10} {}", "sync", line(status, sync));
    for rule in sync["rules"].as_array().into_iter().flatten() {
        let missing = rule["missing"].as_array().into_iter().flatten();
        let missing: Vec<&str> = missing.filter_map(Value::as_str).collect();
        let absent = match rule["absent"].as_u64() {
            Some(absent) if absent > 0 => {
                format!(", {absent} that the parent does not have: {}", missing.join(" "))
            }
            _ => String::new(),
        };
        say!(
            "{:10} {}: {} of {} tags{absent}, {}, in sync as of {}",
            "rule",
            text(rule, "name"),
            rule["complete"],
            rule["tags"],
            size(&rule["bytes"]),
            rule["in_sync_as_of"].as_str().unwrap_or("never")
        );
    }
    for detail in status["statusDetails"].as_array().into_iter().flatten() {
        say!(
            "{:10} {}: {}",
            "trouble",
            text(detail, "code"),
            text(detail, "description")
        );
    }
    below(status, 0);
}

/// What synchronisation is at.
fn line(status: &Value, sync: &Value) -> String {
    if sync["rules"].as_array().is_none_or(Vec::is_empty) && sync["number"] == 0 {
        return "nothing is selected, or nothing was looked at yet".to_owned();
    }
    let lag = Span::seconds(status["syncLagSeconds"].as_u64().unwrap_or_default());
    let feed = text(sync, "feed");
    let progress = &sync["progress"];
    let number = |key: &str| progress[key].as_u64().unwrap_or_default();
    let eta = sync["eta_seconds"].as_u64();
    let under_way = match number("bytes") {
        _ if sync["syncState"] != "Syncing" => String::new(),
        0 => format!(", {} of {} tags", number("tags_done"), number("tags")),
        bytes => format!(
            ", {} % of {}{}",
            u128::from(number("bytes_done")) * 100 / u128::from(bytes),
            Size::of(bytes),
            eta.map_or_else(String::new, |eta| format!(", {} to go", Span::seconds(eta)))
        ),
    };
    format!(
        "{} ({}){under_way}, {lag} behind, feed {feed}",
        text(sync, "syncState"),
        text(sync, "syncTrigger")
    )
}

/// The nodes below, each further in than the one above it.
fn below(status: &Value, depth: usize) {
    for child in status["children"].as_array().into_iter().flatten() {
        let lag = Span::seconds(child["syncLagSeconds"].as_u64().unwrap_or_default());
        let age = Span::seconds(child["ageSeconds"].as_u64().unwrap_or_default());
        say!(
            "{:10} {}{}: {}, {lag} behind, {} to deliver, said {age} ago",
            "below",
            "  ".repeat(depth),
            text(child, "name"),
            text(child, "connectionState"),
            child["backlog"]["items"]
        );
        below(child, depth + 1);
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
