//! containerd by `ctr`: two registries by `ns`, by path prefix with and without `override_path`, and `_default`.

use std::process::Command;

use crate::clients::hosts::Host;
use crate::clients::needs;
use crate::clients::plant::Plant;
use crate::clients::running::{self, Running};
use crate::clients::settings::Settings;

const SMALL: &str = "docker.io/library/small:1";
const APP: &str = "quay.io/team/app:2";
const HOSTS: &str = "/etc/containerd/certs.d";

#[test]
fn ctr_pulls_two_registries_by_ns_and_again_with_the_upper_two_layers_stopped() {
    if needs::met("ctr, by ns", &["containerd", "ctr"]) {
        pulls(
            Plant::start(),
            &[],
            &[
                "/v2/library/small/manifests/1?ns=docker.io",
                "/v2/team/app/manifests/2?ns=quay.io",
            ],
        );
    }
}

#[test]
fn ctr_pulls_by_path_prefix_with_override_path_and_again_with_the_upper_two_layers_stopped() {
    if needs::met("ctr, with override_path", &["containerd", "ctr"]) {
        let asked = [
            "/v2/docker.io/library/small/manifests/1",
            "/v2/quay.io/team/app/manifests/2",
        ];
        pulls(Plant::start(), &["--naming", "prefix"], &asked);
    }
}

#[test]
fn ctr_pulls_by_path_prefix_without_override_path_and_again_with_the_upper_two_layers_stopped() {
    if needs::met("ctr, without override_path", &["containerd", "ctr"]) {
        let asked = [
            "/docker.io/v2/library/small/manifests/1",
            "/quay.io/v2/team/app/manifests/2",
        ];
        pulls(Plant::start(), &["--naming", "path"], &asked);
    }
}

#[test]
fn ctr_trusts_a_node_by_the_authority_that_wharf_client_put_in_its_place() {
    if needs::met("ctr over TLS", &["containerd", "ctr"]) {
        pulls(Plant::secured(), &[], &["/v2/library/small/manifests/1?ns=docker.io"]);
    }
}

#[test]
fn what_has_no_folder_is_asked_of_the_node_alone_by_default() {
    if !needs::met("ctr, _default", &["containerd", "ctr"]) {
        return;
    }
    let mut plant = Plant::start();
    let engine = Engine::start(&plant, &[]);
    for registry in ["docker.io", "quay.io"] {
        std::fs::remove_dir_all(engine.settings.file(&format!("{HOSTS}/{registry}"))).expect("a folder");
    }

    let unknown = "ghcr.io/team/other:1";
    let pulled = |plant: &Plant| {
        assert_eq!(engine.pull(SMALL), plant.small.digest);
        assert_eq!(engine.pull(APP), plant.app.digest);
        let asked = plant.asked();
        asked.assert_some("HEAD /v2/library/small/manifests/1?ns=docker.io");
        asked.assert_some("HEAD /v2/team/app/manifests/2?ns=quay.io");

        // The node knows no ghcr.io. Had containerd gone on to the registry itself, it would have failed differently.
        let said = running::refusal(engine.command(&["images", "pull", "--hosts-dir", HOSTS, unknown]));
        assert!(said.contains("not found") && !said.contains("ghcr.io/v2"), "{said}");
        plant.asked().assert_some("HEAD /v2/team/other/manifests/1?ns=ghcr.io");
    };

    pulled(&plant);
    engine.forget(&[SMALL, APP]);
    plant.stop_the_upper_two();
    pulled(&plant);
}

#[test]
fn containerd_finds_the_hosts_folder_by_the_configuration_that_wharf_client_wrote() {
    if !needs::met("containerd config", &["containerd"]) {
        return;
    }
    let plant = Plant::start();
    let settings = plant.settings("containerd", &[]);

    let config = settings.file("/etc/containerd/config.toml");
    let mut dump = Command::new("containerd");
    dump.env("PATH", needs::path())
        .arg("--config")
        .arg(config)
        .args(["config", "dump"]);
    let said = running::output(dump);

    assert!(said.contains(&format!("config_path = \"{HOSTS}\"")), "{said}");
}

/// Both images, warm and then without the upper layers; `asked` are starts of what the node is asked for by HEAD.
fn pulls(mut plant: Plant, more: &[&str], asked: &[&str]) {
    let engine = Engine::start(&plant, more);
    let itself = format!("{}/library/small:1", plant.address());
    let pulled = |plant: &Plant| {
        assert_eq!(engine.pull(SMALL), plant.small.digest);
        assert_eq!(engine.pull(APP), plant.app.digest);
        let log = plant.asked();
        for path in asked {
            log.assert_some(&format!("HEAD {path}"));
            let repository = path.split("/manifests/").next().expect("a path");
            log.assert_some(&format!("GET {repository}/blobs/"));
        }
        engine.forget(&[SMALL, APP]);

        assert_eq!(engine.pull(&itself), plant.small.digest);
        plant.asked().assert_some("HEAD /v2/library/small/manifests/1");
        engine.forget(&[&itself]);
    };

    pulled(&plant);
    plant.stop_the_upper_two();
    pulled(&plant);
}

/// A daemon of the test's own. `ctr` resolves and fetches itself and hands the daemon what it got.
struct Engine {
    host: Host,
    settings: Settings,
    socket: String,
    _daemon: Running,
}

impl Engine {
    /// With the settings that `wharf client containerd` writes when given these arguments.
    fn start(plant: &Plant, more: &[&str]) -> Self {
        let settings = plant.settings("containerd", more);
        let folder = plant.folder("containerd");
        let socket = folder.join("sock").display().to_string();
        let config = folder.join("config.toml");
        // Only where the daemon lives; the part for Kubernetes needs a network of its own.
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n",
            folder.join("root"),
            folder.join("state"),
        );
        std::fs::write(&config, text).expect("a writable folder");
        let mut daemon = plant.client().command("containerd");
        daemon.arg("--config").arg(&config);
        let daemon = Running::start("containerd", daemon, folder.join("log")).ended_gently();
        let daemon = daemon.until("it answers", || {
            let mut ctr = plant.client().command("ctr");
            ctr.args(["--address", &socket, "version"])
                .output()
                .expect("ctr")
                .status
                .success()
        });
        Self {
            host: plant.client().clone(),
            settings,
            socket,
            _daemon: daemon,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.settings.command(&self.host, "ctr");
        command.args(["--address", &self.socket]).args(arguments);
        command
    }

    /// Pulls and unpacks, and returns the digest under which the image is known then.
    fn pull(&self, image: &str) -> String {
        let pull = ["images", "pull", "--snapshotter", "native", "--hosts-dir", HOSTS, image];
        running::output(self.command(&pull));
        let said = running::output(self.command(&["images", "ls", &format!("name=={image}")]));
        let digest = said.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.unwrap_or_else(|| panic!("no {image}: {said}")).to_owned()
    }

    /// Removes these images, which must be all, with their content.
    fn forget(&self, images: &[&str]) {
        for image in images {
            running::output(self.command(&["images", "rm", "--sync", image]));
        }
        assert_eq!(running::output(self.command(&["content", "ls", "--quiet"])), "");
    }
}
