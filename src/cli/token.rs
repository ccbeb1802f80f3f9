//! Who may log in at a node.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::node::Failure;
use super::report;
use super::stopped::{REMEDY, Which};
use crate::auth::{Permission, TokenError, Tokens, Wanted};
use crate::store::Store;
use crate::units::{Clock, Moment, MomentError, Span, SpanError};

/// Make, replace and take away the tokens that clients and the nodes below log in with.
///
/// A token is a user name with two passwords, so that one can be replaced while clients use the other. The node keeps hashes only:
/// a password is shown once, when it is made. What is changed holds at once, also for connections that are open.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Create(Create),
    /// Show all, and nothing that is secret
    List(List),
    Rotate(Rotate),
    /// Let it in no more, until it is enabled again
    Disable(Named),
    /// Let it in again
    Enable(Named),
    /// Take it away for good
    Delete(Named),
}

/// Make a token, and show its two passwords this once.
///
/// REPOSITORIES is a name, all below a prefix (plant/*), or all (*). ACTIONS are pull, push, delete, all, or any of content/read,
/// content/write, content/overwrite, content/delete, metadata/read and metadata/write, with commas between them. A permission in
/// the settings that names the token adds to them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf token create line-1 'plant/*:pull'                  pulls what is below plant/
  wharf token create ci plant/app:push 'base/*:pull'        pushes plant/app, pulls base/...
  wharf token create l3-line '*:all' --expires 365d         a node below, which pushes and pulls everything
  wharf token create ci plant/app:pull,content/write        pushes new tags, and moves none
Then:
  docker login -u line-1 l4.plant.example:5000")]
struct Create {
    /// The user name: letters, digits, dots, dashes, underscores, @
    name: String,
    /// What it may do
    #[arg(value_name = "REPOSITORIES:ACTIONS")]
    permissions: Vec<Permission>,
    /// When it ends: a date (2027-01-31), or a span of time from now (90d)
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Which,
}

#[derive(clap::Args)]
struct List {
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Which,
}

/// Replace one of the two passwords; the other one stays good.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wharf token rotate line-1 --password 2             give clients the new one, then replace the first")]
struct Rotate {
    name: String,
    /// Which of the two
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    password: u8,
    /// When the new one ends: a date (2027-01-31), or a span of time from now (90d)
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    /// As the admin port says it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Which,
}

#[derive(clap::Args)]
struct Named {
    name: String,
    #[command(flatten)]
    node: Which,
}

/// A date, or a span from now.
#[derive(Clone, Copy)]
struct When(Moment);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Span>() {
            Ok(span) => return Ok(Self((Clock::system().wall() + span.duration()).into())),
            Err(error @ SpanError::TooLong) => return Err(error.to_string()),
            Err(_) => {}
        }
        text.parse().map(Self).map_err(|error| match error {
            MomentError::TooLate(_) => error.to_string(),
            _ => format!("{text:?} is no time; write a date like 2027-01-31, or a span like 90d"),
        })
    }
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        report::finish(async {
            match self.command {
                Command::Create(create) => create.run().await,
                Command::List(list) => list.run().await,
                Command::Rotate(rotate) => rotate.run().await,
                Command::Disable(named) => named.run("disable").await,
                Command::Enable(named) => named.run("enable").await,
                Command::Delete(named) => named.run("delete").await,
            }
        })
    }
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        if self.permissions.is_empty() {
            eprintln!(
                "wharf: {} may do nothing yet; name permissions, or write a [[permission]] for it",
                self.name
            );
        }
        let wanted = Wanted {
            name: self.name,
            permissions: self.permissions,
            expires: self.expires.map(|When(moment)| moment),
        };
        let told = match self.node.tokens("create")? {
            Some(stopped) => stopped
                .change(|tokens| tokens.create(wanted, Clock::system().wall().into()))?
                .told(),
            None => {
                let body = serde_json::to_string(&wanted)?;
                self.node.call("POST", "/api/tokens/create", body).await?
            }
        };
        show(&told, self.json)
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let listing = match self.node.tokens("list")? {
            Some(stopped) => json!({ "tokens": stopped.tokens.list() }),
            None => self.node.call("GET", "/api/tokens", String::new()).await?,
        };
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listing)?);
            return Ok(());
        }
        let tokens = listing["tokens"].as_array().map_or(&[][..], Vec::as_slice);
        if !tokens.is_empty() {
            eprintln!("{:20}  {:9}  {:20}  PERMISSIONS", "NAME", "STATE", "EXPIRES");
        }
        for token in tokens {
            let text = |key: &str| token[key].as_str().unwrap_or_default();
            let state = if token["enabled"] == true {
                "enabled"
            } else {
                "disabled"
            };
            let expires = token["expires"].as_str().unwrap_or("-");
            say!(
                "{:20}  {state:9}  {expires:20}  {}",
                text("name"),
                permissions(token).trim_end()
            );
        }
        warn_if_unasked(&listing);
        Ok(())
    }
}

impl Rotate {
    async fn run(self) -> Result<(), Failure> {
        let expires = self.expires.map(|When(moment)| moment);
        let told = match self.node.tokens("rotate")? {
            Some(stopped) => stopped
                .change(|tokens| tokens.rotate(&self.name, self.password.into(), expires))?
                .told(),
            None => {
                let mut query = Serializer::new(String::new());
                query
                    .append_pair("name", &self.name)
                    .append_pair("password", &self.password.to_string());
                if let Some(expires) = expires {
                    query.append_pair("expires", &expires.to_string());
                }
                let path = format!("/api/tokens/rotate?{}", query.finish());
                self.node.call("POST", &path, String::new()).await?
            }
        };
        show(&told, self.json)
    }
}

impl Named {
    async fn run(self, deed: &str) -> Result<(), Failure> {
        let name = &self.name;
        match self.node.tokens(deed)? {
            Some(stopped) => stopped.change(|tokens| match deed {
                "delete" => tokens.delete(name),
                "enable" => tokens.enable(name),
                _ => tokens.disable(name),
            })?,
            None => {
                let query = Serializer::new(String::new()).append_pair("name", name).finish();
                self.node
                    .call("POST", &format!("/api/tokens/{deed}?{query}"), String::new())
                    .await?;
            }
        }
        eprintln!("{name}: {deed}d");
        Ok(())
    }
}

/// The tokens of a node that is stopped.
struct Stopped {
    store: Store,
    tokens: Tokens,
}

impl Stopped {
    fn change<T>(mut self, change: impl FnOnce(&mut Tokens) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let changed = change(&mut self.tokens)?;
        self.tokens.keep(&self.store)?;
        Ok(changed)
    }
}

impl Which {
    /// Those of a node that is stopped; `None` if it runs.
    fn tokens(&self, deed: &str) -> Result<Option<Stopped>, Failure> {
        let Some((_, store)) = self.open(&format!("token {deed}"))? else {
            return Ok(None);
        };
        let tokens = Tokens::load(&store)?;
        Ok(Some(Stopped { store, tokens }))
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Result<Value, Failure> {
        let within = Duration::from_secs(60);
        self.port.call(method, path, Bytes::from(body), within, REMEDY).await
    }
}

/// Passwords on standard output, so that they can be piped; the rest beside it.
fn show(told: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        say!("{}", serde_json::to_string_pretty(told)?);
        return Ok(());
    }
    for (which, password) in told["passwords"].as_object().into_iter().flatten() {
        say!("{which}  {}", password.as_str().unwrap_or_default());
    }
    eprintln!(
        "shown this once; log in as {} with {}",
        told["name"].as_str().unwrap_or_default(),
        if told["passwords"].as_object().is_some_and(|all| all.len() > 1) {
            "either"
        } else {
            "it"
        }
    );
    warn_if_unasked(told);
    Ok(())
}

fn warn_if_unasked(told: &Value) {
    if told["asked"] == false {
        eprintln!("wharf: this node asks nobody to log in: write [auth] into its settings, and tokens count");
    }
}

fn permissions(token: &Value) -> String {
    let list = |value: &Value| -> Vec<String> {
        let all = value.as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let all = token["permissions"].as_array().map_or(&[][..], Vec::as_slice);
    let each = all.iter().flat_map(|permission| {
        let actions = list(&permission["actions"]).join(",");
        list(&permission["repositories"])
            .into_iter()
            .map(move |name| format!("{name}:{actions} "))
    });
    each.collect()
}
