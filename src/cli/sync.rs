//! What a node fetches before anyone asks, now.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded;

use super::node::{Failure, Port, Silence};
use super::report;
use crate::units::Size;

/// How often it is asked how far it has got.
const LOOK: Duration = Duration::from_millis(300);

/// A node that does not answer in the middle may be being started anew: so often.
const LOOKS: u32 = 200;

/// Bring what is selected to this node, now.
///
/// What `[[sync]]` selects is brought by itself, as it changes or once a minute; this does it at once, and for a repository or a tag that nothing
/// selects as well. While the parent is away it waits in the node, also when this command has ended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf sync                                  everything that is selected
  wharf sync plant/app plant/plc:v1.2         a repository, a tag
  wharf sync --dry-run                        what would be fetched and dropped, with bytes")]
pub(super) struct Args {
    /// Repositories as clients write them, each with a tag or whole
    #[arg(value_name = "REPOSITORY[:TAG]")]
    names: Vec<String>,
    /// Say what would be fetched and dropped, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Port,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        report::finish(async {
            match self.dry_run {
                true => self.plan().await,
                false => self.bring().await,
            }
        })
    }

    async fn plan(&self) -> Result<(), Failure> {
        let plan = self.ask("POST", &format!("/api/sync/plan?{}", self.query())).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&plan)?);
            return Ok(());
        }
        for tag in list(&plan, "fetch") {
            let bytes = Size::of(tag["bytes"].as_u64().unwrap_or_default());
            say!(
                "fetch  {:>10}  {}",
                bytes.to_string(),
                tag["name"].as_str().unwrap_or_default()
            );
        }
        for tag in list(&plan, "drop") {
            let bytes = Size::of(tag["bytes"].as_u64().unwrap_or_default());
            let why = match tag["why"].as_str() {
                Some("gone") => "the parent has it no longer",
                _ => "no rule selects it any more",
            };
            let name = tag["name"].as_str().unwrap_or_default();
            say!("drop   {:>10}  {name}  ({why})", bytes.to_string());
        }
        let size = |key: &str| Size::of(plan[key].as_u64().unwrap_or_default());
        eprintln!(
            "{} to fetch, {}; {} to drop, of which {} leave the disk; {} as they should be",
            list(&plan, "fetch").len(),
            size("bytes"),
            list(&plan, "drop").len(),
            size("drop_bytes"),
            plan["unchanged"]
        );
        told(list(&plan, "errors"), "could not be looked at")
    }

    async fn bring(&self) -> Result<(), Failure> {
        let asked = self.ask("POST", &format!("/api/sync?{}", self.query())).await?;
        let Some(order) = asked["order"].as_str() else {
            return Err("the node is of another version than this command; ask with its own".into());
        };
        if self.no_wait {
            eprintln!("asked for, as {order}; `wharf status` says how far synchronisation has got");
            return Ok(());
        }
        let is_terminal = std::io::stderr().is_terminal();
        let (mut shown, mut is_away) = (String::new(), false);
        let report = loop {
            let now = self.look(order).await?;
            let state = now["order"]["state"].as_str();
            if let Some(away) = now["away"].as_str().filter(|_| !is_away && state == Some("Pending")) {
                is_away = true;
                eprintln!("it waits for the parent: {away}");
            }
            match state {
                Some("Pending") => {}
                Some("Syncing") => {
                    let line = line(&now["order"]);
                    if line != shown {
                        match is_terminal {
                            true => eprint!("\r\x1b[K{} {line}", bar(&now["order"])),
                            false => eprintln!("{line}"),
                        }
                        shown = line;
                    }
                }
                _ => break now,
            }
            tokio::time::sleep(LOOK).await;
        };
        if is_terminal {
            eprint!("\r\x1b[K");
        }
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
        }
        eprintln!("{}", line(&report["order"]));
        told(list(&report["order"], "errors"), "not in sync")
    }

    /// How far an order has got. A node that is started anew still has it.
    async fn look(&self, order: &str) -> Result<Value, Failure> {
        let path = format!("/api/sync?order={order}");
        for _ in 0..LOOKS {
            match self.ask("GET", &path).await {
                Err(failure) if failure.is::<Silence>() => tokio::time::sleep(LOOK).await,
                answer => return answer,
            }
        }
        self.ask("GET", &path).await
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for name in &self.names {
            query.append_pair("name", name);
        }
        query.finish()
    }

    async fn ask(&self, method: &str, path: &str) -> Result<Value, Failure> {
        // A plan asks the parent for every tag.
        self.node.ask(method, path, Duration::from_secs(3600)).await
    }
}

/// How far a pass has got.
fn line(report: &Value) -> String {
    let progress = &report["progress"];
    let number = |key: &str| progress[key].as_u64().unwrap_or_default();
    let dropped = match number("dropped") {
        0 => String::new(),
        dropped => format!(", {dropped} dropped"),
    };
    format!(
        "{} of {} tags, {} of {}{dropped}",
        number("tags_done"),
        number("tags"),
        Size::of(number("bytes_done")),
        Size::of(number("bytes"))
    )
}

/// The same as a bar.
fn bar(report: &Value) -> String {
    const WIDTH: u64 = 24;
    let number = |key: &str| report["progress"][key].as_u64().unwrap_or_default();
    let (done, all) = match number("bytes") {
        0 => (number("tags_done"), number("tags")),
        bytes => (number("bytes_done"), bytes),
    };
    let full = (done * WIDTH).checked_div(all).unwrap_or_default().min(WIDTH);
    let part = |letter: &str, count: u64| letter.repeat(usize::try_from(count).unwrap_or_default());
    format!("[{}{}]", part("=", full), part(" ", WIDTH - full))
}

fn list<'a>(body: &'a Value, key: &str) -> &'a [Value] {
    body[key].as_array().map_or(&[], Vec::as_slice)
}

/// Says what went wrong, and fails if anything did.
fn told(errors: &[Value], what: &str) -> Result<(), Failure> {
    for error in errors {
        eprintln!("{}", error.as_str().unwrap_or_default());
    }
    match errors {
        [] => Ok(()),
        _ => Err(what.to_owned().into()),
    }
}
