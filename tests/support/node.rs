//! The program under test, running on ports and a folder of its own.
//!
//! Another build is tested by naming its file in `WHARF_BINARY`.

mod disk;

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::support::client::{Client, Reply, Request};
use crate::support::eventually;
use crate::support::metrics::Metrics;
use crate::support::needs::path;
use crate::support::ports::{Family, free};
use crate::support::transport;
use crate::support::upstream::Upstream;

pub use disk::disk_bytes;

/// What is written into the configuration file of a node.
#[derive(Clone, Debug)]
pub struct Setup {
    mode: &'static str,
    name: String,
    family: Family,
    /// In the place of the address that it is asked at.
    listen_on: Option<&'static str>,
    parent: Vec<String>,
    upstreams: Vec<String>,
    listen: Vec<String>,
    admin: Vec<String>,
    /// How the test's own client asks there; `None`: over plain HTTP.
    admin_tls: Option<Arc<ClientConfig>>,
    /// In the place of the admin port's address.
    admin_on: Option<&'static str>,
    log: Vec<String>,
    freshness: Vec<String>,
    tag_ttl: String,
    capacity: String,
    storage: Vec<String>,
    more: String,
    tls: bool,
    environment: Vec<(OsString, OsString)>,
    /// Who everything is asked as, where everybody is asked who they are.
    account: Option<(String, String)>,
}

impl Setup {
    /// A mirror without any parent.
    pub fn alone() -> Self {
        Self {
            mode: "mirror",
            name: "under-test".to_owned(),
            family: Family::V4,
            listen_on: None,
            parent: Vec::new(),
            upstreams: Vec::new(),
            listen: Vec::new(),
            admin: Vec::new(),
            admin_tls: None,
            admin_on: None,
            log: Vec::new(),
            freshness: Vec::new(),
            tag_ttl: "60s".to_owned(),
            capacity: "2GiB".to_owned(),
            storage: Vec::new(),
            more: String::new(),
            tls: transport::authority().is_some(),
            account: None,
            environment: Vec::new(),
        }
    }

    /// A mirror of the registry at this URL.
    pub fn below(parent: &str) -> Self {
        Self::alone().parent(&format!("url = \"{parent}\""))
    }

    /// The same as a registry, which takes pushes.
    pub fn registry(mut self) -> Self {
        self.mode = "registry";
        self
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub fn on(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Listens there, at the same port.
    pub fn listen_on(mut self, address: &'static str) -> Self {
        self.listen_on = Some(address);
        self
    }

    /// A line of the section `[parent]`.
    pub fn parent(mut self, line: &str) -> Self {
        self.parent.push(line.to_owned());
        self
    }

    /// A further upstream, with lines of its own.
    pub fn upstream(mut self, name: &str, lines: &[&str]) -> Self {
        self.upstreams
            .push(format!("[[upstream]]\nname = \"{name}\"\n{}\n", lines.join("\n")));
        self
    }

    /// A line of the section `[listen]`.
    pub fn listen(mut self, line: &str) -> Self {
        self.listen.push(line.to_owned());
        self
    }

    /// A line of the section `[admin]`.
    pub fn admin(mut self, line: &str) -> Self {
        self.admin.push(line.to_owned());
        self
    }

    /// The admin port speaks TLS, as its further lines say; the test asks it with this.
    pub fn admin_over_tls(mut self, client: Arc<ClientConfig>) -> Self {
        self.admin_tls = Some(client);
        self
    }

    /// The admin port listens there, at the same port.
    pub fn admin_on(mut self, address: &'static str) -> Self {
        self.admin_on = Some(address);
        self
    }

    /// A line of the section `[log]`.
    pub fn log(mut self, line: &str) -> Self {
        self.log.push(line.to_owned());
        self
    }

    /// A line of the section `[freshness]`, other than `tag_ttl`.
    pub fn freshness(mut self, line: &str) -> Self {
        self.freshness.push(line.to_owned());
        self
    }

    pub fn tag_ttl(mut self, span: &str) -> Self {
        self.tag_ttl = span.to_owned();
        self
    }

    pub fn capacity(mut self, size: &str) -> Self {
        self.capacity = size.to_owned();
        self
    }

    /// A line of the section `[storage]`, other than `path` and `capacity`.
    pub fn storage(mut self, line: &str) -> Self {
        self.storage.push(line.to_owned());
        self
    }

    /// Speaks TLS, whatever others do.
    pub fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Everybody is asked who they are; the test's own clients, and whoever else is told, know this account, which may do
    /// everything.
    pub fn with_account(mut self, name: &str, password: &str) -> Self {
        let hash = bcrypt::hash(password, 4).expect("a short password");
        self.account = Some((name.to_owned(), password.to_owned()));
        self.more(&format!(
            "[[identity]]\nname = \"{name}\"\npassword_hashes = [\"{hash}\"]\n\
             [[permission]]\nidentities = [\"{name}\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n"
        ))
    }

    /// Asks its parent as this account.
    pub fn asking_as(self, name: &str, password: &str) -> Self {
        let variable = format!("PASSWORD_OF_{}", name.to_uppercase().replace('-', "_"));
        let mut setup = self
            .parent(&format!("username = \"{name}\""))
            .parent(&format!("password_env = \"{variable}\""));
        setup.environment.push((variable.into(), password.into()));
        setup
    }

    /// The same with something else in the place of a part of those.
    pub fn amended(mut self, from: &str, to: &str) -> Self {
        assert!(self.more.contains(from), "{from} is not in {}", self.more);
        self.more = self.more.replace(from, to);
        self
    }

    /// Further sections, as they stand.
    pub fn more(mut self, sections: &str) -> Self {
        self.more += sections;
        self
    }

    /// Starts the node on an empty folder and waits until it says that it is well.
    pub async fn start(self) -> Node {
        let mut node = self.placed();
        node.start().await;
        node
    }

    /// Gives the node its ports and its folder and does not start it.
    pub fn placed(self) -> Node {
        let (address, admin) = (free(self.family), free(self.family));
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let environment = self.environment.clone();
        Node {
            setup: self,
            address,
            admin,
            folder,
            environment,
            limits: String::new(),
            mounts: String::new(),
            child: None,
        }
    }

    fn written(&self, address: SocketAddr, admin: SocketAddr, data: &Path) -> String {
        let mut text = format!("mode = \"{}\"\n[node]\nname = \"{}\"\n", self.mode, self.name);
        let at = self
            .listen_on
            .map_or(address.to_string(), |on| format!("{on}:{}", address.port()));
        text += &format!("[listen]\naddress = \"{at}\"\n{}\n", self.listen.join("\n"));
        if self.tls {
            text += "cert_file = \"leaf.pem\"\nkey_file = \"leaf.key\"\n";
        }
        let admin = self
            .admin_on
            .map_or(admin.to_string(), |on| format!("{on}:{}", admin.port()));
        text += &format!("[admin]\naddress = \"{admin}\"\n{}\n", self.admin.join("\n"));
        text += &format!(
            "[storage]\npath = \"{}\"\ncapacity = \"{}\"\n{}\n",
            data.display(),
            self.capacity,
            self.storage.join("\n")
        );
        if !self.parent.is_empty() {
            text += &format!("[parent]\n{}\n", self.parent.join("\n"));
        }
        text += &self.upstreams.concat();
        text += &format!(
            "[freshness]\ntag_ttl = \"{}\"\n{}\n",
            self.tag_ttl,
            self.freshness.join("\n")
        );
        if !self.log.is_empty() {
            text += &format!("[log]\n{}\n", self.log.join("\n"));
        }
        text + &self.more
    }
}

/// One node. Dropping it kills it and removes its folder.
pub struct Node {
    pub setup: Setup,
    address: SocketAddr,
    admin: SocketAddr,
    folder: Arc<TempDir>,
    environment: Vec<(OsString, OsString)>,
    limits: String,
    /// Shell commands that make its mounts, which nobody else sees. Empty: it has those of the test.
    mounts: String,
    child: Option<Child>,
}

impl Node {
    /// A mirror of `parent` with everything else as it is by default.
    pub async fn below(parent: &Upstream) -> Self {
        Setup::below(&parent.url()).start().await
    }

    pub fn name(&self) -> &str {
        &self.setup.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        let scheme = if self.setup.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn client(&self) -> Client {
        self.client_at(self.address)
    }

    /// A client of another address on which it listens.
    pub fn client_at(&self, address: SocketAddr) -> Client {
        let client = match self.setup.tls {
            true => Client::tls(address, transport::client()),
            false => Client::of(address),
        };
        match &self.setup.account {
            Some((name, password)) => client.logged_in(name, password),
            None => client,
        }
    }

    /// The folder of the test, in which data, log and configuration lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `storage.path`.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// What `ulimit` is told before the program starts, for example `-Sn 256`.
    pub fn limit(&mut self, limit: &str) {
        self.limits += &format!("ulimit {limit} && ");
    }

    /// The program starts in this control group.
    pub fn limit_memory(&mut self, group: &Path) {
        self.limits += &format!("echo $$ > {}/cgroup.procs && ", group.display());
    }

    /// A shell command that is run before the program starts, in a mount namespace of its own. Needs root.
    pub fn mount(&mut self, command: &str) {
        self.mounts += &format!("{command} && ");
    }

    /// The next start has the mounts of the test again.
    pub fn forget_mounts(&mut self) {
        self.mounts.clear();
    }

    /// Runs a shell command where the node's own mounts are seen.
    #[track_caller]
    pub fn among_its_mounts(&self, command: &str) {
        let mut nsenter = Command::new("nsenter");
        nsenter.args([
            "--mount",
            "--target",
            &self.pid().to_string(),
            "--",
            "/bin/sh",
            "-c",
            command,
        ]);
        let status = nsenter.env("PATH", path()).status().expect("nsenter");
        assert!(status.success(), "{command}: {status}");
    }

    /// Everything that the node wrote to stdout and stderr since it was placed.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }
}

/// Starting and ending.
impl Node {
    pub async fn start(&mut self) {
        self.spawn();
        for _ in 0..4000 {
            if let Some(status) = self.exited() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            if listens(self.admin).await && listens(self.address).await && self.admin("/healthz").await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the node did not become well:\n{}", self.log());
    }

    /// Starts the program and waits for nothing.
    pub fn spawn(&mut self) {
        let config = self.folder.path().join("wharf.toml");
        let text = self.setup.written(self.address, self.admin, &self.data());
        std::fs::write(&config, text).expect("a writable folder");
        if self.setup.tls {
            let authority = transport::signer();
            authority.leaf_files(self.folder.path());
            // As if it were among those that the machine trusts.
            let ca = authority.ca_file(self.folder.path());
            self.environment.insert(0, ("SSL_CERT_FILE".into(), ca.into()));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"));
        let log = log.expect("a writable folder");
        let mut command = self.shell();
        // `exec` keeps the process: what we kill is the program.
        command
            .arg("-c")
            .arg(format!("{}{}exec \"$0\" \"$@\"", self.mounts, self.limits))
            .arg(binary());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF__")) {
            command.env_remove(name);
        }
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .current_dir(self.folder.path())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the program under test"));
    }

    fn shell(&self) -> Command {
        if self.mounts.is_empty() {
            return Command::new("/bin/sh");
        }
        let mut command = Command::new("unshare");
        command.env("PATH", path()).args(["--mount", "--", "/bin/sh"]);
        command
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our own child")
    }

    /// Waits until the program ends by itself, and says how.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let child = self.child.as_mut().expect("a running node");
        eventually("the node ends", async || {
            status = child.try_wait().expect("our own child");
            status.is_some()
        })
        .await;
        self.child = None;
        status.expect("just seen")
    }

    /// SIGKILL: no last words.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("our own child");
    }

    /// Killed, and started again on the same folder and ports.
    pub async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }
}

/// What it answers.
impl Node {
    pub async fn get(&self, target: &str) -> Reply {
        self.client().get(target).await
    }

    pub async fn head(&self, target: &str) -> Reply {
        self.client().head(target).await
    }

    pub async fn range(&self, target: &str, range: &str) -> Reply {
        self.client().range(target, range).await
    }

    pub async fn send(&self, request: Request) -> Reply {
        self.client().send(request).await
    }

    /// `GET` on the admin port.
    pub async fn admin(&self, target: &str) -> Reply {
        self.admin_client().get(target).await
    }

    fn admin_client(&self) -> Client {
        match &self.setup.admin_tls {
            Some(config) => Client::tls(self.admin, config.clone()),
            None => Client::of(self.admin),
        }
    }

    /// The address of the admin port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where the admin port is.
    pub fn admin_url(&self) -> String {
        let scheme = if self.setup.admin_tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.admin)
    }

    /// Any request to the admin port.
    pub async fn admin_send(&self, request: Request) -> Reply {
        self.admin_client().send(request).await
    }

    /// Has what no manifest needs thrown away; what went.
    pub async fn collect(&self, query: &str) -> serde_json::Value {
        let target = format!("/api/cache/gc?{query}");
        let post = Request::new("POST", &target).header("Content-Length", "0");
        let reply = self.admin_send(post).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// Whether the admin port is there and says that the node is ready.
    /// What a tag names here, if all of it is.
    pub async fn whole(&self, repository: &str, tag: &str) -> Option<String> {
        let reply = self.admin(&format!("/api/complete?name={repository}:{tag}")).await;
        let told = (reply.status == 200).then(|| reply.json())?;
        (told["complete"] == true).then(|| told["digest"].as_str().expect("a digest").to_owned())
    }

    pub async fn is_ready(&self) -> bool {
        listens(self.admin).await && self.admin("/readyz").await.status == 200
    }

    pub async fn metrics(&self) -> Metrics {
        let reply = self.admin("/metrics").await;
        assert_eq!(reply.status, 200, "{reply}");
        Metrics::parse(&reply.text())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            eprintln!(
                "--- end of the log of {} ---\n{}",
                self.setup.name,
                log.get(tail..).unwrap_or(&log)
            );
        }
        self.kill();
    }
}

async fn listens(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

/// The program under test.
pub fn binary() -> OsString {
    std::env::var_os("WHARF_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_wharf").into())
}
