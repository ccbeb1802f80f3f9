//! The settings: a Config of the rooms' Configs, from file, environment and flags.
//!
//! Flags win over the environment (`WHARF__STORAGE__CAPACITY=20GiB`), the environment over the file,
//! the file over the defaults. A `Config` in hand is valid; [`Config::check`] looks at what it names beside itself.

mod check;
mod connected;
mod place;
mod read;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeTable;
use toml::{Table, Value};

pub use check::Findings;
pub use place::{Placed, Places, Remark};

use crate::oci::Registry;
use crate::select::Filter;
use crate::units::{Clock, Size, Span};
use crate::{admin, auth, calendar, events, fetch, listener, parent, push, queue, store, sync};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the node is.
    pub mode: Mode,
    /// Who it is.
    pub node: Node,
    /// The registry port.
    pub listen: listener::Config,
    /// The operators' port.
    pub admin: admin::Config,
    /// The disk.
    pub storage: store::Config,
    /// The registry above. A registry needs none.
    pub parent: Option<parent::Config>,
    /// Registries beside it.
    pub upstreams: Vec<parent::Upstream>,
    /// How fresh answers are.
    pub freshness: fetch::Config,
    /// How much is taken from a parent.
    pub limits: fetch::Limits,
    /// How clients may push.
    pub push: push::Config,
    /// How what is pushed reaches the parent.
    pub queue: queue::Config,
    /// What is to be here before anyone asks for it.
    pub sync: Vec<sync::Rule>,
    /// When it and what is owed cross the line.
    pub schedule: parent::Schedule,
    /// Who may do what.
    pub auth: auth::Config,
    /// Who did what.
    pub audit: events::Config,
    /// What is written down.
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
    /// Pulls and pushes.
    #[serde(alias = "ReadWrite", alias = "readwrite")]
    Registry,
}

impl Mode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Registry => "registry",
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
    pub requests: events::Target,
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

/// Why the settings cannot be used: everything that is wrong in them. The operator's to mend.
#[derive(Debug)]
pub struct Error(Vec<Placed>);

impl Config {
    /// Reads the file, if one is named, and puts environment and flags over it. Where each setting was said comes along.
    ///
    /// `environment`: variables of the process; those of other programs are passed over.
    ///
    /// # Errors
    ///
    /// [`Error`]: what is wrong, where, and what to write instead.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<(Self, Places), Error> {
        let (mut table, mut places) = match file {
            Some(path) => parsed(path)?,
            None => (Table::new(), Places::default()),
        };
        let (mut wrong, mut strays, mut amiss) = (Vec::new(), Vec::new(), Vec::new());
        let in_file = places.keys();
        let mut lay_over = |key: &str, name: &str, value: Value| {
            places.give(key.to_owned(), name.to_owned());
            if !read::lay_over(&mut table, &key.split('.').collect::<Vec<_>>(), value) {
                wrong.push(Remark::new(
                    key,
                    "cannot be reached from here; write it in the file of settings",
                ));
            }
        };
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        match connected::settings(&environment) {
            Ok(said) => {
                let holds = said
                    .into_iter()
                    .filter(|said| !said.is_default || !in_file.contains(said.key));
                holds.for_each(|said| lay_over(said.key, said.variable, said.value));
            }
            Err(remark) => amiss.push(remark),
        }
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix("WHARF__") {
                let key = key.to_ascii_lowercase().replace("__", ".");
                lay_over(&key, &name, read::typed(&value));
            } else if let Some(meant) = read::meant_by(&name) {
                strays.push(Remark::new(name, format!("is not looked at; write {meant}")));
            }
        }
        for (flag, key, value) in overrides.given() {
            lay_over(key, flag, Value::String(value));
        }
        wrong.extend(amiss);
        let mut reader = read::Reader::new(table, &places);
        let mode = reader.value("mode");
        let push: push::Config = reader.section("push");
        let auth = auth::Config::new(
            reader.section_or("auth", || None),
            reader.list("identity"),
            reader.list("permission"),
            push.anonymous,
        );
        let config = Self {
            mode,
            node: reader.section("node"),
            listen: reader.section("listen"),
            admin: reader.section("admin"),
            storage: reader.section("storage"),
            parent: reader.section_or("parent", || None).or_else(|| usual_parent(mode)),
            upstreams: reader.list("upstream"),
            freshness: reader.section("freshness"),
            limits: reader.section("limits"),
            push,
            queue: reader.section("queue"),
            sync: reader.list("sync"),
            schedule: reader.section("schedule"),
            auth,
            audit: reader.section("audit"),
            log: reader.section("log"),
        };
        wrong.extend(reader.wrong());
        places.strays = strays;
        if wrong.is_empty() {
            return Ok((config, places));
        }
        // What is wrong in the sections that could be read need not wait for the next run.
        let is_read = |remark: &Remark| wrong.iter().all(|other| section(&other.key) != section(&remark.key));
        let mut others = config.check(&places, &Clock::system()).wrong;
        others.retain(|remark| places.is_written(&remark.key) && is_read(remark));
        wrong.extend(others);
        Err(Error::of(&places, wrong))
    }
}

/// A mirror without a parent would have nothing.
fn usual_parent(mode: Mode) -> Option<parent::Config> {
    (mode == Mode::Mirror).then(parent::Config::docker_hub)
}

fn section(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

/// The variables of this process that are text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The file as a table, and the place of everything in it.
fn parsed(path: &Path) -> Result<(Table, Places), Error> {
    let whole = |places: Places, words: String| Error::of(&places, vec![Remark::new("", words)]);
    let bytes = std::fs::read(path).map_err(|error| {
        whole(
            Places::unread(path, ""),
            format!("cannot be read: {error}; name a file that is there and may be read"),
        )
    })?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let places = Places::unread(path, &String::from_utf8_lossy(&error.into_bytes()));
            let remark = Remark::new("", "is not UTF-8 from here on; save the file in that encoding");
            return Err(Error(vec![places.at(&(at..at), remark)]));
        }
    };
    let (table, faults) = DeTable::parse_recoverable(&text);
    if faults.is_empty() {
        let places = Places::of(path, &text, table.get_ref());
        return match text.parse() {
            Ok(table) => Ok((table, places)),
            Err(error) => Err(whole(places, error.message().to_owned())),
        };
    }
    let places = Places::unread(path, &text);
    let mut told: Vec<Placed> = Vec::new();
    for fault in &faults {
        let span = fault.span().unwrap_or_default();
        let line = places.line_at(span.start);
        let placed = places.at(&span, Remark::new("", words::syntax(fault.message(), line)));
        // What follows on the same line comes of the first.
        if told.last().is_none_or(|last| last.line() != placed.line()) {
            told.push(placed);
        }
    }
    Err(Error(told))
}

impl Error {
    /// What is wrong, each with its place.
    pub fn of(places: &Places, remarks: Vec<Remark>) -> Self {
        Self(places.place_all(remarks))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Placed::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Error {}

impl Overrides {
    /// Flag, key and value of each that was given.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let data = self.data.as_ref().map(|path| path.display().to_string());
        let all = [
            ("--mode", "mode", self.mode.clone()),
            ("--listen", "listen.address", self.listen.clone()),
            ("--admin", "admin.address", self.admin.clone()),
            ("--data", "storage.path", data),
            ("--capacity", "storage.capacity", self.capacity.clone()),
            ("--parent", "parent.url", self.parent.clone()),
            ("--namespace", "parent.namespace", self.namespace.clone()),
            ("--name", "node.name", self.name.clone()),
        ];
        all.into_iter()
            .filter_map(|(flag, key, value)| Some((flag, key, value?)))
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
                "name is {name:?}; write up to 63 letters, digits, dots, dashes or underscores, like l4-site"
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

impl Config {
    /// Bytes of pushes that may wait for the parent.
    pub fn most_owed(&self) -> Size {
        let half = Size::of(self.storage.capacity.bytes() / 2);
        self.queue.capacity.unwrap_or(half)
    }

    /// The keys in which `new` differs, and that hold from the next start on alone.
    pub fn takes_restart(&self, new: &Self) -> Vec<&'static str> {
        let listens = |config: &Self| listener::Config {
            tls: listener::TlsFiles::default(),
            ..config.listen.clone()
        };
        // How much of a line is taken changes at once.
        let steady = |config: &Self| {
            let mut config = config.clone();
            let beside = config
                .upstreams
                .iter_mut()
                .filter_map(|upstream| upstream.direct.as_mut());
            for ways in config.parent.iter_mut().chain(beside) {
                ways.bandwidth = parent::Bandwidth::default();
            }
            config
        };
        let changes = [
            ("mode", self.mode != new.mode),
            ("[node]", self.node != new.node),
            ("[listen]", listens(self) != listens(new)),
            ("[admin]", !self.admin.is_like(&new.admin)),
            ("[storage]", self.storage != new.storage),
            (
                "[parent]",
                steady(self).printed_parent() != steady(new).printed_parent(),
            ),
            (
                "[[upstream]]",
                steady(self).printed_upstreams() != steady(new).printed_upstreams(),
            ),
            ("[freshness]", self.freshness != new.freshness),
            ("push.uploads", self.push.uploads != new.push.uploads),
            ("queue.capacity", self.most_owed() != new.most_owed()),
            // A slip in a file must not open a node to everybody.
            (
                "[auth], [[identity]] and [[permission]], so that nobody would be asked who they are (an empty [auth] lets nobody in)",
                self.auth.is_on && !new.auth.is_on,
            ),
            (
                "admin.certificates, so that any certificate would make an operator",
                !self.admin.certificates.is_empty() && new.admin.certificates.is_empty(),
            ),
            ("[audit]", self.audit != new.audit),
            ("[log]", self.log != new.log),
        ];
        changes
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(key, _)| key)
            .collect()
    }

    /// How much is taken of each line, by the upstream's name.
    pub fn bandwidths(&self) -> impl Iterator<Item = (&Registry, &parent::Bandwidth)> {
        let beside = self.upstreams.iter();
        let beside = beside.filter_map(|upstream| Some((&upstream.name, &upstream.direct.as_ref()?.bandwidth)));
        let above = self.parent.iter();
        above.map(|parent| (&parent.namespace, &parent.bandwidth)).chain(beside)
    }

    /// What is in force, as TOML; secrets are not shown.
    pub fn printed(&self) -> String {
        let Self {
            mode,
            node,
            listen,
            admin,
            storage,
            parent: _,
            upstreams: _,
            freshness,
            limits,
            push,
            queue,
            sync,
            schedule,
            auth,
            audit,
            log,
        } = self;
        let mut lines = Lines::default();
        lines.key("mode", mode.as_str());
        lines.section("[node]");
        lines.key("name", node.name.as_str());
        lines.section("[listen]");
        lines.key("address", listen.address);
        lines.tls(&listen.tls);
        let proxies: Vec<String> = listen.trusted_proxies.iter().map(ToString::to_string).collect();
        lines.list("trusted_proxies", &proxies);
        if let Some(server) = &listen.login_server {
            lines.key("login_server", server);
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
        if let Some(path) = &admin.token_file {
            lines.key("token_file", path.display());
        }
        lines.tls(&admin.tls);
        if !admin.certificates.is_empty() {
            lines.list("certificates", &admin.certificates);
        }
        lines.section("[storage]");
        lines.key("path", storage.path.display());
        lines.key("capacity", storage.capacity);
        match storage.keep_free {
            Some(keep_free) => lines.key("keep_free", keep_free),
            None => lines.text += "# keep_free: 1GiB, or a twentieth of a smaller file system\n",
        }
        lines.text += &self.printed_parent();
        lines.text += &self.printed_upstreams();
        lines.section("[freshness]");
        lines.key("tag_ttl", Span::from(freshness.tag_ttl));
        lines.list("immutable_tags", freshness.immutable_tags.patterns());
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
        lines.section("[push]");
        lines.bare("anonymous", push.anonymous);
        lines.bare("uploads", push.uploads);
        lines.bare("uploads_each", push.uploads_each);
        lines.key("upload_ttl", Span::from(push.upload_ttl));
        lines.key("blob", push.blob);
        lines.key("unused_ttl", Span::from(push.unused_ttl));
        lines.list("immutable_tags", push.immutable_tags.patterns());
        lines.section("[queue]");
        match queue.capacity {
            Some(capacity) => lines.key("capacity", capacity),
            None => lines.text += "# capacity: half of storage.capacity\n",
        }
        lines.bare("repositories", queue.repositories);
        lines.key("remember", Span::from(queue.remember));
        lines.key("check_every", Span::from(queue.check_every));
        lines.key("suffix", &queue.suffix);
        lines.key("conflict", queue.policy.conflict.as_str());
        lines.bare("deletes", queue.policy.deletes);
        for rule in &queue.rules {
            lines.section("[[queue.rule]]");
            lines.list("repositories", rule.repositories.patterns());
            lines.key("conflict", rule.policy.conflict.as_str());
            lines.bare("deletes", rule.policy.deletes);
        }
        sync.iter().for_each(|rule| lines.sync(rule));
        lines.schedule(schedule);
        lines.auth(auth);
        lines.section("[audit]");
        lines.key("log", audit.log.to_string());
        lines.key("max_size", audit.rotation.size);
        lines.bare("keep", audit.rotation.keep);
        lines.section("[log]");
        lines.key("format", log.format.as_str());
        lines.key("level", log.level.as_str());
        lines.key("requests", log.requests.to_string());
        lines.text
    }
}

impl Config {
    fn printed_parent(&self) -> String {
        let mut lines = Lines::default();
        if let Some(parent) = &self.parent {
            lines.section("[parent]");
            lines.registry(parent);
            if !parent.namespace.is_own() {
                lines.key("namespace", &parent.namespace);
            }
        }
        lines.text
    }

    fn printed_upstreams(&self) -> String {
        let mut lines = Lines::default();
        for upstream in &self.upstreams {
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

    /// On one line.
    fn serialised(&mut self, key: &str, value: &impl serde::Serialize) {
        let value = Value::try_from(value).expect("what was read from TOML is written in it");
        self.bare(key, value);
    }

    fn schedule(&mut self, schedule: &parent::Schedule) {
        self.section("[schedule]");
        match schedule.windows.windows.split_first() {
            None => self.text += "# no window: it is continuous\n",
            Some((first, others)) => {
                self.key("cron", &first.opens);
                self.key("window", Span::from(first.lasts));
                let also = |window: &calendar::Window| {
                    let pairs = [
                        ("cron", window.opens.to_string()),
                        ("window", Span::from(window.lasts).to_string()),
                    ];
                    pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>()
                };
                if !others.is_empty() {
                    self.serialised("also", &others.iter().map(also).collect::<Vec<_>>());
                }
            }
        }
        self.key("time_zone", schedule.windows.zone);
        self.key("interactive", schedule.interactive.as_str());
        self.key("missed", schedule.missed.as_str());
        self.key("message_ttl", schedule.message_ttl);
        self.serialised("window_limits", &schedule.window_limits);
        self.serialised("message_ttl_limits", &schedule.message_ttl_limits);
    }

    fn registry(&mut self, config: &parent::Config) {
        self.key("url", &config.url);
        if let Some(login) = &config.login {
            self.key("username", &login.username);
            match &config.password_file {
                Some(path) => self.key("password_file", path.display()),
                None => self.text += "# its password is set\n",
            }
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
        self.bare("sync_requests_per_minute", config.sync_requests_per_minute);
        if config.bandwidth != parent::Bandwidth::default() {
            self.serialised("bandwidth", &config.bandwidth);
        }
        self.filter(&config.filter);
    }

    fn tls(&mut self, files: &listener::TlsFiles) {
        if let Some((certificate, key)) = &files.certificate {
            self.key("cert_file", certificate.display());
            self.key("key_file", key.display());
        }
        if let Some(folder) = &files.certs_dir {
            self.key("certs_dir", folder.display());
        }
        if let Some(path) = &files.client_ca_file {
            self.key("client_ca_file", path.display());
            self.key("client_auth", files.client_auth.as_str());
        }
    }

    fn sync(&mut self, rule: &sync::Rule) {
        self.section("[[sync]]");
        if !rule.name.is_empty() {
            self.key("name", &rule.name);
        }
        match &rule.from {
            Some(from) => self.key("from", from.path.display()),
            None => self.repositories(rule),
        }
        self.list("artifact_types", rule.artifact_types.patterns());
        if let Some(most) = rule.max_size {
            self.key("max_size", most);
        }
        let platforms: Vec<String> = rule.platforms.iter().map(ToString::to_string).collect();
        self.list("platforms", &platforms);
        self.bare("referrers", rule.referrers);
        self.bare("priority", rule.priority);
        match rule.leaving {
            Some(leaving) => self.key("leaving", leaving),
            None => self.text += "# leaving: purge in a mirror, keep in a registry\n",
        }
    }

    /// Those of a rule, and which of their tags.
    fn repositories(&mut self, rule: &sync::Rule) {
        self.list("repositories", rule.repositories.patterns());
        self.list("exclude", rule.exclude.patterns());
        self.list("tags", rule.tags.named.patterns());
        self.list("exclude_tags", rule.tags.but.patterns());
        if let Some(matching) = &rule.tags.matching {
            self.key("tag_regex", matching.as_str());
        }
        if let Some(versions) = &rule.tags.versions {
            self.key("versions", versions);
        }
        if let Some(newest) = rule.tags.newest {
            self.bare("newest", newest);
        }
    }

    fn auth(&mut self, auth: &auth::Config) {
        if !auth.is_on {
            self.text += "\n# no [auth]: nobody is asked who they are\n";
            return;
        }
        self.section("[auth]");
        if let Some(path) = &auth.htpasswd_file {
            self.key("htpasswd_file", path.display());
        }
        self.key("token_ttl", Span::from(auth.token_ttl));
        self.key("refresh_ttl", Span::from(auth.refresh_ttl));
        for identity in &auth.identities {
            self.section("[[identity]]");
            self.key("name", &identity.name);
            match &identity.password_file {
                Some(path) => self.key("password_file", path.display()),
                None => self.text += "# its password_hashes are not shown\n",
            }
            self.list("certificates", &identity.certificates);
            self.bare("enabled", identity.enabled);
            if let Some(expires) = identity.expires {
                self.key("expires", expires);
            }
        }
        for auth::Grant { identities, permission } in &auth.permissions {
            let words = |texts: Vec<String>| texts;
            self.section("[[permission]]");
            self.list(
                "identities",
                &words(identities.iter().map(|whose| whose.as_str().to_owned()).collect()),
            );
            self.list(
                "repositories",
                &words(permission.repositories.iter().map(ToString::to_string).collect()),
            );
            self.list(
                "actions",
                &words(
                    permission
                        .actions
                        .each()
                        .map(|action| action.as_str().to_owned())
                        .collect(),
                ),
            );
        }
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
