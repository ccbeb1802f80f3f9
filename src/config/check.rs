//! What the settings name beside themselves, and what no room can see alone.

mod upstreams;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{Config, Mode, Places, Remark};
use crate::events::Target;
use crate::listener::Tls;
use crate::oci::Registry;
use crate::parent;
use crate::store;
use crate::sync;
use crate::units::Clock;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The node cannot work like this.
    pub wrong: Vec<Remark>,
    /// The node works, and perhaps not as it was meant.
    pub doubtful: Vec<Remark>,
}

impl Findings {
    fn wrong(&mut self, key: impl Into<String>, words: impl Into<String>) {
        self.wrong.push(Remark::new(key, words));
    }

    fn doubt(&mut self, key: impl Into<String>, words: impl Into<String>) {
        self.doubtful.push(Remark::new(key, words));
    }
}

impl Config {
    /// Looks at addresses, names, certificate, disk and clock. Reads files, connects to nothing, changes nothing.
    pub fn check(&self, places: &Places, clock: &Clock) -> Findings {
        let mut findings = Findings::default();
        self.check_addresses(places, &mut findings);
        self.check_certificate(clock, &mut findings);
        self.check_storage(&mut findings);
        self.check_log(&mut findings);
        self.check_freshness(&mut findings);
        self.check_sync(&mut findings);
        self.check_auth(&mut findings);
        self.check_push(places, &mut findings);
        self.check_queue(places, &mut findings);
        upstreams::check(self, &mut findings);
        findings.doubtful.extend(places.strays.iter().cloned());
        findings
    }

    /// Everything that is listened on, with its key.
    fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let bound = self.upstreams.iter().enumerate();
        let bound = bound.filter_map(|(index, upstream)| Some((format!("upstream[{index}].listen"), upstream.listen?)));
        let own = [
            ("listen.address".to_owned(), self.listen.address),
            ("admin.address".to_owned(), self.admin.address),
        ];
        own.into_iter().chain(bound).collect()
    }

    fn check_addresses(&self, places: &Places, findings: &mut Findings) {
        let mut all = self.addresses();
        // What somebody wrote is to blame, and not a default.
        all.sort_by_key(|(key, _)| places.is_written(key));
        for (index, (key, address)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..index].iter().find(|(_, other)| collide(*other, *address)) {
                findings.wrong(
                    key,
                    format!("{address} is listened on twice, here and for {other}; write another port"),
                );
            }
        }
        if !self.admin.address.ip().is_loopback() && !self.admin.asks() {
            findings.wrong(
                "admin.address",
                format!(
                    "{} can be reached from other machines, and nothing says who may; write token_file, or client_ca_file with certificates, or 127.0.0.1:{1}",
                    self.admin.address,
                    self.admin.address.port()
                ),
            );
        }
        if self.admin.tls.client_ca_file.is_some() && self.admin.certificates.is_empty() {
            findings.doubt(
                "admin.client_ca_file",
                "makes an operator of whoever shows any certificate of these authorities; name those of operators in certificates",
            );
        }
        if !self.admin.address.ip().is_loopback() && self.admin.asks() && !self.admin.tls.is_on() {
            findings.doubt(
                "admin.address",
                "can be reached from other machines without TLS: the token crosses the network in the clear; write cert_file and key_file",
            );
        }
    }

    fn check_certificate(&self, clock: &Clock, findings: &mut Findings) {
        // A clock that is not set judges no certificate.
        let now = clock.is_set().then(|| clock.wall());
        match Tls::read(&self.admin.tls, false) {
            Ok(None) => {}
            Ok(Some(tls)) => {
                for (_, words) in tls.doubts(&[], now) {
                    findings.doubt("admin.cert_file", words);
                }
            }
            Err(error) => findings.wrong(format!("admin.{}", error.key()), error.to_string()),
        }
        let tls = match Tls::read(&self.listen.tls, self.listen.http2) {
            Ok(Some(tls)) => tls,
            Ok(None) => return,
            Err(error) => return findings.wrong(format!("listen.{}", error.key()), error.to_string()),
        };
        let names: Vec<&str> = self
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.hosts.iter().map(String::as_str))
            .chain(self.listen.login_server.as_deref())
            .collect();
        for (path, words) in tls.doubts(&names, now) {
            let is_named = self
                .listen
                .tls
                .certificate
                .as_ref()
                .is_some_and(|(named, _)| *named == path);
            match is_named {
                true => findings.doubt("listen.cert_file", words),
                false => findings.doubt("listen.certs_dir", format!("{} {words}", path.display())),
            }
        }
    }

    fn check_storage(&self, findings: &mut Findings) {
        if let Some(error) = store::newer(&self.storage.path) {
            findings.wrong("storage.path", error.to_string());
        }
        if self.storage.path.exists() && !self.storage.path.is_dir() {
            findings.wrong(
                "storage.path",
                format!(
                    "{} is not a folder; name one, or one that does not exist yet",
                    self.storage.path.display()
                ),
            );
        }
        for concern in store::inspect(&self.storage) {
            // It begins with its key.
            let (key, words) = concern.split_once(' ').unwrap_or(("storage", &concern));
            findings.doubt(key, words);
        }
    }

    fn check_log(&self, findings: &mut Findings) {
        for (key, target) in [("log.requests", &self.log.requests), ("audit.log", &self.audit.log)] {
            check_folder(key, target, findings);
        }
    }
}

/// A log's folder has to be there.
fn check_folder(key: &str, target: &Target, findings: &mut Findings) {
    let Target::File(path) = target else { return };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        findings.wrong(
            key,
            format!(
                "the folder {} is not there; make it, or write \"stdout\" or \"off\"",
                folder.display()
            ),
        );
    }
}

impl Config {
    fn check_freshness(&self, findings: &mut Findings) {
        if self.freshness.stale_after > self.freshness.answer_within {
            findings.doubt(
                "freshness.stale_after",
                "is longer than answer_within: clients are answered 504 before anything is served stale; write less",
            );
        }
    }
}

impl Config {
    /// What is to be here before anyone asks.
    fn check_sync(&self, findings: &mut Findings) {
        for (index, rule) in self.sync.iter().enumerate() {
            for words in rule.from.iter().flat_map(sync::Deployment::doubts) {
                findings.doubt(format!("sync[{index}].from"), words);
            }
            let patterns = rule.repositories.patterns().iter().chain(rule.exclude.patterns());
            for words in patterns.filter_map(|pattern| self.misnamed(pattern).or_else(|| self.unknown(pattern))) {
                findings.doubt(format!("sync[{index}].repositories"), words);
            }
        }
        if !self.sync.is_empty() && self.parent.is_none() && self.upstreams.is_empty() {
            findings.doubt(
                "sync",
                "selects nothing, as there is no parent to bring anything from; write [parent], or leave it out",
            );
        }
    }

    /// Who may do what.
    fn check_auth(&self, findings: &mut Findings) {
        for (key, words) in self.auth.conflicts() {
            findings.wrong(key, words);
        }
        for (key, words) in self.auth.doubts() {
            findings.doubt(key, words);
        }
        for (index, grant) in self.auth.permissions.iter().enumerate() {
            let patterns = grant.permission.repositories.iter();
            for words in patterns.filter_map(|pattern| self.misnamed(&pattern.to_string())) {
                findings.doubt(format!("permission[{index}].repositories"), words);
            }
        }
        if self.auth.is_on && self.auth.is_open {
            findings.doubt(
                "push.anonymous",
                "lets everybody push and delete who does not log in; leave it out, as [auth], [[identity]] or [[permission]] say who may",
            );
        }
        if self.auth.is_on && !self.listen.tls.is_on() && !self.listen.address.ip().is_loopback() {
            findings.doubt(
                "listen.cert_file",
                "is not written: passwords cross the network in the clear; write cert_file and key_file, or let a proxy speak TLS",
            );
        }
    }

    /// Why a pattern names no repository: it begins with what can only be a host, and no registry is called so here.
    fn unknown(&self, pattern: &str) -> Option<String> {
        let (word, rest) = pattern.split_once('/')?;
        let is_host = word.contains(['.', ':']) && !word.contains(['*', '?', '[', '{']);
        let is_called = |upstream: &parent::Upstream| {
            upstream.name.as_str() == word || upstream.aliases.iter().any(|alias| alias == word)
        };
        (is_host && !self.upstreams.iter().any(is_called)).then(|| {
            format!("{pattern} names nothing: no registry is called {word} here; write {rest} if the parent has it, or add an [[upstream]] of that name")
        })
    }

    /// Why a pattern names no repository: it begins with a registry that is meant anyway, or is called otherwise here.
    fn misnamed(&self, pattern: &str) -> Option<String> {
        let (word, rest) = pattern.split_once('/')?;
        let registry: Registry = word.parse().ok()?;
        if self.parent.as_ref().is_some_and(|parent| parent.namespace == registry) {
            return Some(format!(
                "{pattern} names nothing: {word} is meant anyway here, and is not written; write {rest}"
            ));
        }
        let is_called = |upstream: &&parent::Upstream| {
            upstream.name == registry || upstream.aliases.iter().any(|alias| alias == word)
        };
        let name = &self.upstreams.iter().find(is_called)?.name;
        (name.as_str() != word)
            .then(|| format!("{pattern} names nothing: that registry is called {name} here; write {name}/{rest}"))
    }

    /// Who may push, and whether anybody can.
    fn check_push(&self, places: &Places, findings: &mut Findings) {
        if self.mode == Mode::Mirror {
            if places.is_written("push") {
                findings.doubt(
                    "push",
                    "is not looked at, as a mirror takes no pushes; write mode = \"registry\" if it should",
                );
            }
            return;
        }
        let is_open = !self.listen.address.ip().is_loopback();
        if is_open && !self.push.anonymous && !self.auth.is_on {
            findings.wrong(
                "mode",
                format!(
                    "is registry, {} can be reached from other machines, and nothing says who may push; write [auth] and make tokens (wharf token create), or anonymous = true in [push] if anybody may",
                    self.listen.address
                ),
            );
        }
    }
}

impl Config {
    /// What waits for the parent.
    fn check_queue(&self, places: &Places, findings: &mut Findings) {
        if places.is_written("queue") && (self.mode == Mode::Mirror || self.parent.is_none()) {
            findings.doubt(
                "queue",
                "is looked at in registry mode below a parent alone: nothing else is to be delivered",
            );
        }
        if self.most_owed().bytes() > self.storage.capacity.bytes() {
            findings.doubt(
                "queue.capacity",
                "is more than storage.capacity, which fills first; write less, or allow more there",
            );
        }
    }
}

/// Whether both cannot be bound; port 0 is another one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = |all: IpAddr, one: IpAddr| all.is_unspecified() && all.is_ipv4() == one.is_ipv4();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || overlap(one.ip(), other.ip()) || overlap(other.ip(), one.ip()))
}
