//! Two registries in the cloud, three nodes below, and a machine for the client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::clients::hosts::{Host, Hosts};
use crate::clients::image::Layout;
use crate::clients::needs;
use crate::clients::running::{self, Running};
use crate::clients::settings::Settings;
use crate::support::authority::Authority;
use crate::support::node;

/// All that runs. In the order in which it is taken down: nodes, registries, namespaces, files.
pub struct Plant {
    _l3: Running,
    l4: Option<Running>,
    l5: Option<Running>,
    _registries: [Running; 2],
    hosts: Hosts,
    folder: TempDir,
    secured: Option<Authority>,
    /// `docker.io/library/small:1`
    pub small: Layout,
    /// `quay.io/team/app:2`
    pub app: Layout,
}

/// The registry port of every node and of the cloud's Docker Hub.
const PORT: u16 = 5000;
/// The cloud's second registry.
const QUAY: u16 = 5001;
const ADMIN: u16 = 5001;
const NODES: [&str; 3] = ["l5", "l4", "l3"];

impl Plant {
    /// Clients speak plain HTTP to Level 3.
    pub fn start() -> Self {
        Self::set_up(None)
    }

    /// Clients speak HTTPS to Level 3, whose certificate a private authority signed.
    pub fn secured() -> Self {
        Self::set_up(Some(()))
    }

    fn set_up(secured: Option<()>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let hosts = Hosts::in_a_row(&["cloud", "l5", "l4", "l3", "client"]);
        let registries = [PORT, QUAY].map(|port| registry(hosts.of("cloud"), port, folder.path()));
        let small = Layout::two_platforms(&folder.path().join("small"), 300_000);
        let app = Layout::two_platforms(&folder.path().join("app"), 300_000);
        push(hosts.of("cloud"), &small, PORT, "library/small:1");
        push(hosts.of("cloud"), &app, QUAY, "team/app:2");

        let secured = secured.map(|()| Authority::of(&[&hosts.of("l3").address]));
        let [l5, l4, l3] = NODES.map(|name| {
            let above = hosts.of(match name {
                "l5" => "cloud",
                "l4" => "l5",
                _ => "l4",
            });
            let authority = secured.as_ref().filter(|_| name == "l3");
            start_node(hosts.of(name), &above.address, authority, folder.path())
        });
        Self {
            _l3: l3,
            l4: Some(l4),
            l5: Some(l5),
            _registries: registries,
            hosts,
            folder,
            secured,
            small,
            app,
        }
    }

    /// Where the client finds its node.
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.hosts.of("l3").address)
    }

    /// The machine of the client.
    pub fn client(&self) -> &Host {
        self.hosts.of("client")
    }

    /// A new folder of this test.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a writable folder");
        path
    }

    /// What `wharf client` writes for `client` about the lowest node.
    pub fn settings(&self, client: &str, more: &[&str]) -> Settings {
        let config = self.folder.path().join("l3/wharf.toml");
        let address = self.address();
        let ca = self
            .secured
            .as_ref()
            .map(|authority| authority.ca_file(self.folder.path()));
        let mut arguments = vec![
            client,
            "--config",
            config.to_str().expect("UTF-8"),
            "--address",
            &address,
        ];
        if let Some(ca) = &ca {
            arguments.extend(["--ca", ca.to_str().expect("UTF-8")]);
        }
        arguments.extend(more);
        let root = TempDir::new_in(self.folder.path()).expect("a writable folder").keep();
        Settings::written(&arguments, &root)
    }

    /// Stops Levels 5 and 4: Level 3 has no parent any more.
    pub fn stop_the_upper_two(&mut self) {
        self.l5 = None;
        self.l4 = None;
        let parent = &self.hosts.of("l4").address;
        assert!(!self.hosts.of("l3").reaches(parent, PORT), "Level 4 still answers");
    }

    /// What Level 3 was asked for, as `METHOD path`, with `?ns=` where a client sent it; since the last call.
    pub fn asked(&self) -> Asked {
        // Lines are written a moment after the replies.
        std::thread::sleep(Duration::from_millis(300));
        let path = self.folder.path().join("l3/requests.log");
        let text = std::fs::read_to_string(&path).expect("a request log");
        std::fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(0))
            .expect("our own file");
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("lines of JSON");
            let ns = line["ns"].as_str().map(|ns| format!("?ns={ns}")).unwrap_or_default();
            format!(
                "{} {}{ns}",
                line["method"].as_str().expect("a method"),
                line["path"].as_str().expect("a path")
            )
        };
        Asked(text.lines().map(line).collect())
    }
}

/// Requests of a client.
#[derive(Debug)]
pub struct Asked(Vec<String>);

impl Asked {
    /// Fails the test unless some request begins with `start`.
    pub fn assert_some(&self, start: &str) {
        assert!(
            self.0.iter().any(|line| line.starts_with(start)),
            "no {start}: {self:#?}"
        );
    }
}

fn registry(host: &Host, port: u16, folder: &Path) -> Running {
    let config = folder.join(format!("registry-{port}.yml"));
    let data = folder.join(format!("registry-{port}"));
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\nhttp: {{addr: \":{port}\"}}\n"
    );
    std::fs::write(&config, text).expect("a writable folder");
    let mut command = host.command("docker-registry");
    command.arg("serve").arg(&config);
    let log = folder.join(format!("registry-{port}.log"));
    Running::start("docker-registry", command, log).until("it answers", || host.reaches("127.0.0.1", port))
}

/// Pushes an image to a registry of that machine.
pub fn push(host: &Host, image: &Layout, port: u16, name: &str) {
    let mut command = host.command("skopeo");
    command.args([
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &image.reference(),
    ]);
    command.arg(format!("docker://127.0.0.1:{port}/{name}"));
    running::output(command);
}

/// What its parent calls `library/small` is Docker Hub's; `quay.io` is known to all by name, and reached by the top.
fn start_node(host: &Host, parent: &str, authority: Option<&Authority>, folder: &Path) -> Running {
    let own = folder.join(host.name);
    std::fs::create_dir(&own).expect("a writable folder");
    let quay = if host.name == "l5" {
        format!("url = \"http://{parent}:{QUAY}\"")
    } else {
        String::new()
    };
    let certificate = authority.map(|authority| {
        let (cert, key) = authority.leaf_files(&own);
        format!("cert_file = {cert:?}\nkey_file = {key:?}")
    });
    let text = format!(
        "[node]\nname = \"{}\"\n\
         [listen]\naddress = \"0.0.0.0:{PORT}\"\n{}\n\
         [admin]\naddress = \"127.0.0.1:{ADMIN}\"\n\
         [storage]\npath = {:?}\ncapacity = \"1GiB\"\n\
         [parent]\nurl = \"http://{parent}:{PORT}\"\nnamespace = \"docker.io\"\n\
         [[upstream]]\nname = \"quay.io\"\n{quay}\n\
         [log]\nformat = \"json\"\nrequests = {:?}\n",
        host.name,
        certificate.unwrap_or_default(),
        own.join("data"),
        own.join("requests.log"),
    );
    let config = own.join("wharf.toml");
    std::fs::write(&config, text).expect("a writable folder");
    let mut command = host.command(node::binary().to_str().expect("UTF-8"));
    command.arg("serve").arg("--config").arg(&config).current_dir(&own);
    let running = Running::start(host.name, command, own.join("log"));
    running.until("it is well", || {
        let mut curl = host.command("curl");
        let output = curl
            .args(["--silent", "--fail", &format!("http://127.0.0.1:{ADMIN}/healthz")])
            .output();
        output.expect("curl").status.success()
    })
}

#[test]
fn every_machine_reaches_the_one_above_and_no_other() {
    if !needs::met("the network itself", &[]) {
        return;
    }
    let plant = Plant::start();
    let row = ["client", "l3", "l4", "l5", "cloud"];

    for (at, name) in row.iter().enumerate() {
        for (other_at, other) in row.iter().enumerate().skip(at + 1) {
            let address = &plant.hosts.of(other).address;
            let reaches = plant.hosts.of(name).reaches(address, PORT);
            assert_eq!(reaches, other_at == at + 1, "{name} to {other} at {address}");
        }
    }
}
