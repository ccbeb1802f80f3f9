//! Podman: two registries, each renamed to a prefix on the node by a drop-in.

use std::process::Command;

use crate::clients::hosts::Host;
use crate::clients::needs;
use crate::clients::plant::Plant;
use crate::clients::running;
use crate::clients::settings::Settings;

#[test]
fn podman_pulls_two_registries_and_again_with_the_upper_two_layers_stopped() {
    if needs::met("podman pull", &["podman"]) {
        pulls(Plant::start());
    }
}

#[test]
fn podman_trusts_a_node_by_the_authority_that_wharf_client_put_in_its_place() {
    if needs::met("podman pull over TLS", &["podman"]) {
        pulls(Plant::secured());
    }
}

#[test]
fn a_name_that_the_node_does_not_know_does_not_lead_to_the_internet() {
    if !needs::met("podman pull of what is not there", &["podman"]) {
        return;
    }
    let plant = Plant::start();
    let podman = Podman::new(&plant);

    let said = running::refusal(podman.command(&["pull", "docker.io/library/absent:1"]));

    assert!(said.contains(&plant.address()), "{said}");
    assert!(!said.contains("registry-1.docker.io"), "{said}");
}

fn pulls(mut plant: Plant) {
    let podman = Podman::new(&plant);
    let pulled = |plant: &Plant| {
        podman.pulls("docker.io/library/small:1", &plant.small.digest);
        podman.pulls("quay.io/team/app:2", &plant.app.digest);
        let asked = plant.asked();
        asked.assert_some("GET /v2/docker.io/library/small/blobs/");
        asked.assert_some("GET /v2/quay.io/team/app/blobs/");
        podman.forget();
    };

    pulled(&plant);
    plant.stop_the_upper_two();
    pulled(&plant);
}

/// Podman has no daemon: a store of the test's own.
struct Podman {
    host: Host,
    settings: Settings,
    root: String,
}

impl Podman {
    fn new(plant: &Plant) -> Self {
        let root = plant.folder("podman").display().to_string();
        Self {
            host: plant.client().clone(),
            settings: plant.settings("podman", &[]),
            root,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.settings.command(&self.host, "podman");
        let (store, run) = (format!("{}/store", self.root), format!("{}/run", self.root));
        command.args([
            "--root",
            &store,
            "--runroot",
            &run,
            "--tmpdir",
            &run,
            "--storage-driver",
            "vfs",
        ]);
        command
            .args(["--events-backend", "none", "--cgroup-manager", "cgroupfs"])
            .args(arguments);
        command
    }

    /// Pulls `name:tag`, and fails the test unless the image is then known under `digest`.
    fn pulls(&self, image: &str, digest: &str) {
        running::output(self.command(&["pull", "--quiet", image]));
        // It is known by the digest of the platform's manifest too.
        let format = "{{range .RepoDigests}}{{.}}\n{{end}}";
        let said = running::output(self.command(&["image", "inspect", "--format", format, image]));
        let name = image.rsplit_once(':').expect("a tag").0;
        assert!(
            said.lines().any(|line| line == format!("{name}@{digest}")),
            "no {digest}: {said}"
        );
    }

    fn forget(&self) {
        running::output(self.command(&["rmi", "--all", "--force"]));
    }
}
