//! Docker Engine: Docker Hub through `registry-mirrors`, another registry by the node's name.

use std::process::Command;

use serde_json::Value;

use crate::clients::needs;
use crate::clients::plant::Plant;
use crate::clients::running::{self, Running};

#[test]
fn docker_pulls_through_the_mirror_and_again_with_the_upper_two_layers_stopped() {
    if needs::met("docker pull", &["dockerd", "docker"]) {
        pulls(Plant::start());
    }
}

#[test]
fn docker_trusts_a_node_by_the_authority_that_wharf_client_put_in_its_place() {
    if needs::met("docker pull over TLS", &["dockerd", "docker"]) {
        pulls(Plant::secured());
    }
}

fn pulls(mut plant: Plant) {
    let engine = Engine::start(&plant);
    let named = format!("{}/quay.io/team/app:2", plant.address());
    let pulled = |plant: &Plant| {
        assert_eq!(engine.pull("small:1"), plant.small.digest);
        assert_eq!(engine.pull(&named), plant.app.digest);
        let asked = plant.asked();
        asked.assert_some("HEAD /v2/library/small/manifests/1");
        asked.assert_some("GET /v2/library/small/blobs/");
        asked.assert_some("GET /v2/quay.io/team/app/blobs/");
    };

    pulled(&plant);
    engine.forget();
    plant.stop_the_upper_two();
    pulled(&plant);
}

/// A daemon of the test's own, on the client's machine.
struct Engine {
    socket: String,
    _daemon: Running,
}

impl Engine {
    fn start(plant: &Plant) -> Self {
        let settings = plant.settings("docker", &[]);
        let folder = plant.folder("docker");
        let path = |name: &str| folder.join(name).display().to_string();
        let socket = format!("unix://{}", path("sock"));
        let mut daemon = settings.command(plant.client(), "dockerd");
        // No bridge, no firewall: nothing of the machine is touched, and no container is started.
        daemon.args([
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver=vfs",
        ]);
        daemon.args([
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("pid"),
        ]);
        daemon.args(["--host", &socket]);
        let daemon = Running::start("dockerd", daemon, folder.join("log")).ended_gently();
        let daemon = daemon.until("it answers", || {
            docker(&socket, &["info"]).output().expect("docker").status.success()
        });
        Self {
            socket,
            _daemon: daemon,
        }
    }

    /// Pulls, and returns the digest under which the image is known then.
    fn pull(&self, image: &str) -> String {
        running::output(docker(&self.socket, &["pull", image]));
        let said = running::output(docker(&self.socket, &["image", "inspect", image]));
        let images: Value = serde_json::from_str(&said).expect("JSON");
        let digest = images[0]["RepoDigests"][0].as_str().expect("a digest");
        digest.split_once('@').expect("name@digest").1.to_owned()
    }

    /// Removes all images and their layers.
    fn forget(&self) {
        let ids = running::output(docker(&self.socket, &["image", "ls", "--quiet", "--no-trunc"]));
        let ids: Vec<_> = ids.split_whitespace().collect();
        running::output(docker(&self.socket, &[&["image", "rm", "--force"], &ids[..]].concat()));
        assert_eq!(
            running::output(docker(&self.socket, &["image", "ls", "--all", "--quiet"])),
            ""
        );
    }
}

/// The client speaks to the daemon by its socket alone, so it may run anywhere.
fn docker(socket: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command
        .env("PATH", needs::path())
        .args(["--host", socket])
        .args(arguments);
    command
}
