//! The settings: a Config of the rooms' Configs, from file, environment and flags.
//!
//! Flags win over the environment (`WHARF__STORAGE__CAPACITY=20GiB`), the environment over the file,
//! the file over the defaults. A `Config` in hand is valid.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::select::Filter;
use crate::units::Span;
use crate::{admin, fetch, listener, parent, store};

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the node is.
    #[serde(default)]
    pub mode: Mode,
    /// Who it is.
    #[serde(default)]
    pub node: Node,
    /// The registry port.
    #[serde(default)]
    pub listen: listener::Config,
    /// The operators' port.
    #[serde(default)]
    pub admin: admin::Config,
    /// The disk.
    #[serde(default)]
    pub storage: store::Config,
    /// The registry above.
    #[serde(default = "parent::Config::docker_hub")]
    pub parent: parent::Config,
    /// Registries beside it.
    #[serde(default, rename = "upstream")]
    pub upstreams: Vec<parent::Upstream>,
    /// How fresh answers are.
    #[serde(default)]
    pub freshness: fetch::Config,
    /// How much is taken from a parent.
    #[serde(default)]
    pub limits: fetch::Limits,
    /// What is written down.
    #[serde(default)]
    pub log: Log,
}

/// What a node does with writes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Pulls only.
    #[default]
    #[serde(alias = "ReadOnly", alias = "readonly")]
    Mirror,
}

impl Mode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
        }
    }
}

/// Who the node is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Unique in its hierarchy; stands in headers, errors and logs.
    pub name: NodeName,
}

/// Letters, digits, `.`, `_` and `-`, at most 63.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct NodeName(String);

/// What is written down, and how.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Of events and of request lines.
    pub format: listener::Format,
    /// Least urgent event that is written.
    pub level: Level,
    /// Where request lines go.
    pub requests: listener::Target,
}

/// How urgent an event is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An operator must act.
    Error,
    /// The node coped.
    Warn,
    /// Something changed.
    #[default]
    Info,
    /// How it came about.
    Debug,
    /// Every step.
    Trace,
}

/// What was said on the command line; wins over everything.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--mode`
    pub mode: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--admin`
    pub admin: Option<String>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--capacity`
    pub capacity: Option<String>,
    /// `--parent`
    pub parent: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
    /// `--name`
    pub name: Option<String>,
}

/// Why the settings cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there or not readable.
    #[error("reading {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The file says something that cannot be; the text shows where.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, column, key, reason and remedy.
        message: String,
    },

    /// A flag or an environment variable says something that cannot be.
    #[error("a flag or a WHARF__ variable: {message}")]
    Override {
        /// Key, reason and remedy.
        message: String,
    },
}

impl Config {
    /// Reads the file, if one is named, and puts environment and flags over it.
    ///
    /// `environment`: all variables of the process; those of other programs are passed over.
    ///
    /// # Errors
    ///
    /// [`Error`]: what is wrong, where, and what to write instead.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, Error> {
        let mut table = Table::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            let wrong = |error: toml::de::Error| Error::File {
                path: path.to_owned(),
                message: error.to_string(),
            };
            // Checked alone first, as only here the position of a mistake is known.
            toml::from_str::<Self>(&text).map_err(wrong)?;
            table = text.parse().map_err(wrong)?;
        }
        let before = table.clone();
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix("WHARF__") {
                lay_over(
                    &mut table,
                    &key.to_ascii_lowercase().split("__").collect::<Vec<_>>(),
                    typed(&value),
                );
            }
        }
        for (key, value) in overrides.pairs() {
            lay_over(&mut table, &key.split('.').collect::<Vec<_>>(), Value::String(value));
        }
        let wrong = |error: toml::de::Error| {
            let message = error.message().to_owned();
            match file.filter(|_| table == before) {
                Some(path) => Error::File {
                    path: path.to_owned(),
                    message,
                },
                None => Error::Override { message },
            }
        };
        Self::deserialize(table.clone()).map_err(wrong)
    }
}

impl Overrides {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let data = self.data.as_ref().map(|path| path.display().to_string());
        let pairs = [
            ("mode", self.mode.clone()),
            ("listen.address", self.listen.clone()),
            ("admin.address", self.admin.clone()),
            ("storage.path", data),
            ("storage.capacity", self.capacity.clone()),
            ("parent.url", self.parent.clone()),
            ("parent.namespace", self.namespace.clone()),
            ("node.name", self.name.clone()),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
            return Err(format!(
                "node.name is {name:?}; write up to 63 letters, digits, dots, dashes or underscores, like l4-site"
            ));
        }
        Ok(Self(name))
    }
}

impl Default for Node {
    /// The host's name.
    fn default() -> Self {
        let host = nix::sys::utsname::uname()
            .ok()
            .and_then(|name| name.nodename().to_str().map(str::to_owned));
        let name = host.and_then(|host| NodeName::try_from(host).ok());
        Self {
            name: name.unwrap_or_else(|| NodeName("wharf".to_owned())),
        }
    }
}

impl Level {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Puts one value over what the file says; sections are made as needed.
fn lay_over(table: &mut Table, key: &[&str], value: Value) {
    let Some((first, rest)) = key.split_first() else { return };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return;
    }
    let section = table
        .entry((*first).to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        lay_over(section, rest, value);
    }
}

/// A variable's text as TOML if it is a number, a truth or a list; else as a string.
fn typed(text: &str) -> Value {
    let parsed = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

impl Config {
    /// What is in force, as TOML; secrets are not shown.
    pub fn printed(&self) -> String {
        let Self {
            mode,
            node,
            listen,
            admin,
            storage,
            parent,
            upstreams,
            freshness,
            limits,
            log,
        } = self;
        let mut lines = Lines::default();
        lines.key("mode", mode.as_str());
        lines.section("[node]");
        lines.key("name", node.name.as_str());
        lines.section("[listen]");
        lines.key("address", listen.address);
        if let Some((certificate, key)) = &listen.certificate {
            lines.key("cert_file", certificate.display());
            lines.key("key_file", key.display());
        }
        lines.key("header_timeout", Span::from(listen.header_timeout));
        lines.key("handshake_timeout", Span::from(listen.handshake_timeout));
        lines.key("idle_timeout", Span::from(listen.idle_timeout));
        lines.key("write_timeout", Span::from(listen.write_timeout));
        lines.key("min_rate", listen.min_rate);
        lines.key("head_size", listen.head_size);
        lines.bare("head_fields", listen.head_fields);
        lines.bare("connections", listen.connections);
        lines.bare("connections_per_address", listen.connections_per_address);
        lines.bare("http2", listen.http2);
        lines.bare("http2_streams", listen.http2_streams);
        lines.section("[admin]");
        lines.key("address", admin.address);
        lines.section("[storage]");
        lines.key("path", storage.path.display());
        lines.key("capacity", storage.capacity);
        if let Some(keep_free) = storage.keep_free {
            lines.key("keep_free", keep_free);
        }
        lines.section("[parent]");
        lines.registry(parent);
        if !parent.namespace.is_own() {
            lines.key("namespace", &parent.namespace);
        }
        for upstream in upstreams {
            lines.section("[[upstream]]");
            lines.key("name", &upstream.name);
            lines.list("aliases", &upstream.aliases);
            lines.list("hosts", &upstream.hosts);
            if let Some(address) = upstream.listen {
                lines.key("listen", address);
            }
            match &upstream.direct {
                Some(direct) => lines.registry(direct),
                None => lines.filter(&upstream.filter),
            }
        }
        lines.section("[freshness]");
        lines.key("tag_ttl", Span::from(freshness.tag_ttl));
        lines.key("absent_ttl", Span::from(freshness.absent_ttl));
        lines.key("stale_after", Span::from(freshness.stale_after));
        lines.key("answer_within", Span::from(freshness.answer_within));
        lines.section("[limits]");
        lines.key("manifest", limits.manifest);
        lines.bare("json_depth", limits.json_depth);
        lines.bare("descriptors", limits.descriptors);
        lines.key("blob", limits.blob);
        lines.key("list", limits.list);
        lines.bare("list_pages", limits.list_pages);
        lines.bare("attempts", limits.attempts);
        lines.section("[log]");
        lines.key("format", log.format.as_str());
        lines.key("level", log.level.as_str());
        lines.key("requests", log.requests.to_string());
        lines.text
    }
}

/// TOML being written.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn section(&mut self, head: &str) {
        self.text += &format!("\n{head}\n");
    }

    fn key(&mut self, key: &str, value: impl ToString) {
        self.bare(key, Value::String(value.to_string()));
    }

    fn bare(&mut self, key: &str, value: impl std::fmt::Display) {
        self.text += &format!("{key} = {value}\n");
    }

    fn list(&mut self, key: &str, values: &[String]) {
        self.bare(key, Value::Array(values.iter().cloned().map(Value::String).collect()));
    }

    fn registry(&mut self, config: &parent::Config) {
        self.key("url", &config.url);
        if let Some(login) = &config.login {
            self.key("username", &login.username);
            self.text += "# its password is set\n";
        }
        if let Some(name) = &config.credential_helper {
            self.key("credential_helper", name);
        }
        if let Some(path) = &config.ca_file {
            self.key("ca_file", path.display());
        }
        if let Some(identity) = &config.identity {
            self.key("cert_file", identity.cert_file.display());
            self.key("key_file", identity.key_file.display());
        }
        self.proxies(&config.proxies);
        self.list("auth_hosts", &config.auth_hosts);
        self.list("redirect_hosts", &config.redirect_hosts);
        self.key("connect_timeout", Span::from(config.connect_timeout));
        self.key("read_timeout", Span::from(config.read_timeout));
        self.bare("transfers", config.transfers);
        self.bare("requests", config.requests);
        self.filter(&config.filter);
    }

    fn proxies(&mut self, proxies: &parent::Proxies) {
        for url in proxies.of_environment() {
            self.text += &format!("# proxy: {url}, from the environment\n");
        }
        let Some(written) = proxies.written() else { return };
        self.key("proxy", written);
        if let Some(username) = proxies.username() {
            self.key("proxy_username", username);
            self.text += "# its password is set\n";
        }
        self.list("no_proxy", proxies.direct());
    }

    fn filter(&mut self, filter: &Filter) {
        self.list("allow", filter.allow.patterns());
        self.list("deny", filter.deny.patterns());
    }
}
