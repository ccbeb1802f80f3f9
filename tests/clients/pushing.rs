//! Real clients push to a registry on loopback, of its own or below a parent that is away, and pull back what they pushed, to
//! the byte.

use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::clients::engines::{Containerd, Docker, command, text};
use crate::clients::image::{self, Layout};
use crate::clients::running;
use crate::support::content::sha256;
use crate::support::docker_registry::DockerRegistry;
use crate::support::eventually;
use crate::support::needs;
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

/// Registries, an image, and a folder.
struct Stage {
    node: Node,
    /// Its parent is away.
    orphan: Node,
    image: Layout,
    folder: TempDir,
}

impl Stage {
    /// `None` where one of the programs is missing.
    async fn with(test: &str, programs: &[&str]) -> Option<Self> {
        if !needs::met(test, "engines", &[&["skopeo", "gzip", "sha256sum"], programs].concat()) {
            return None;
        }
        let folder = TempDir::new().expect("a temporary folder");
        let mut parent = Upstream::start().await;
        parent.stop().await;
        Some(Self {
            node: Setup::alone().registry().start().await,
            orphan: Setup::below(&parent.url()).registry().start().await,
            image: Layout::two_platforms(&folder.path().join("image"), 300_000),
            folder,
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.node.address())
    }

    /// The same name at each of the registries.
    fn everywhere(&self, name: &str) -> [String; 2] {
        [&self.node, &self.orphan].map(|node| format!("{}/{name}", node.address()))
    }

    /// The image as an archive that engines load, known as `name`.
    fn archive(&self, kind: &str, name: &str) -> PathBuf {
        let archive = self.at(&format!("{kind}.tar"));
        let to = format!("{kind}:{}:{name}", archive.display());
        run("skopeo", &["copy", &self.image.reference(), &to]);
        archive
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    running::output(command(program, arguments))
}

/// Pushes an image, pulls it into a folder, and looks whether all of it is there.
type Push = fn(&Layout, &str, &Path);

fn skopeo(image: &Layout, reference: &str, into: &Path) {
    let to = format!("docker://{reference}");
    let all = ["copy", "--all", "--preserve-digests"];
    run(
        "skopeo",
        &[&all[..], &["--dest-tls-verify=false", &image.reference(), &to]].concat(),
    );
    let layout = format!("oci:{}:image", into.display());
    run(
        "skopeo",
        &[&all[..], &["--src-tls-verify=false", &to, &layout]].concat(),
    );
    image::assert_holds(into, &image.all);
}

fn crane(image: &Layout, reference: &str, into: &Path) {
    run(
        "crane",
        &["push", "--insecure", "--index", text(image.folder()), reference],
    );
    run(
        "crane",
        &["pull", "--insecure", "--format", "oci", reference, text(into)],
    );
    image::assert_holds(into, &image.all);
}

fn oras(image: &Layout, reference: &str, into: &Path) {
    let from = format!("{}:image", image.folder().display());
    run(
        "oras",
        &["copy", "--from-oci-layout", &from, "--to-plain-http", reference],
    );
    let to = format!("{}:copy", into.display());
    run(
        "oras",
        &["copy", "--from-plain-http", reference, "--to-oci-layout", &to],
    );
    image::assert_holds(into, &image.all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_crane_and_oras_pull_back_what_they_pushed_alone_and_all_at_once() {
    let Some(stage) = Stage::with("skopeo, crane and oras push", &["crane", "oras"]).await else {
        return;
    };
    let pushes: [(&str, Push); 3] = [("skopeo", skopeo), ("crane", crane), ("oras", oras)];
    for (name, push) in pushes {
        for (at, reference) in stage.everywhere(&format!("alone/{name}:1")).iter().enumerate() {
            push(&stage.image, reference, &stage.at(&format!("{name}-{at}")));
        }
    }

    thread::scope(|scope| {
        for (number, (name, push)) in pushes.iter().cycle().take(9).enumerate() {
            let reference = stage.reference(&format!("together/app:{name}-{number}"));
            let into = stage.at(&format!("together-{number}"));
            let image = &stage.image;
            scope.spawn(move || push(image, &reference, &into));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras_attaches_and_discovers() {
    let Some(stage) = Stage::with("oras attach", &["oras"]).await else {
        return;
    };
    let reference = stage.reference("plant/app:1");
    skopeo(&stage.image, &reference, &stage.at("copy"));
    std::fs::write(stage.at("sbom.json"), "{\"parts\": []}").unwrap();

    let mut attach = command(
        "oras",
        &[
            "attach",
            "--plain-http",
            "--artifact-type",
            "application/vnd.example.sbom",
        ],
    );
    attach
        .arg(&reference)
        .arg("sbom.json:application/json")
        .current_dir(stage.folder.path());
    running::output(attach);
    let said = run("oras", &["discover", "--plain-http", "--format", "json", &reference]);

    let found: Value = serde_json::from_str(&said).expect("JSON");
    assert!(said.contains("application/vnd.example.sbom"), "{found:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras_pulls_back_an_empty_file() {
    let Some(stage) = Stage::with("oras push", &["oras"]).await else {
        return;
    };
    std::fs::write(stage.at("empty"), "").unwrap();
    for (at, reference) in stage.everywhere("plant/empty:1").iter().enumerate() {
        let mut push = command(
            "oras",
            &["push", "--plain-http", reference, "empty:application/octet-stream"],
        );
        push.current_dir(stage.folder.path());
        running::output(push);
        let into = stage.at(&format!("pulled-{at}"));

        run("oras", &["pull", "--plain-http", reference, "--output", text(&into)]);

        assert_eq!(std::fs::metadata(into.join("empty")).unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_pulls_back_what_it_pushed() {
    let Some(stage) = Stage::with("podman push", &["podman"]).await else {
        return;
    };
    let root = stage.at("podman");
    let podman = |arguments: &[&str]| {
        let (store, own) = (root.join("store"), root.join("run"));
        let mut all = vec!["--root", text(&store), "--runroot", text(&own), "--tmpdir", text(&own)];
        all.extend([
            "--storage-driver",
            "vfs",
            "--events-backend",
            "none",
            "--cgroup-manager",
            "cgroupfs",
        ]);
        all.extend(arguments);
        run("podman", &all)
    };
    let name = "docker.io/library/app:1";
    let archive = stage.archive("docker-archive", name);
    podman(&["load", "--input", text(&archive)]);
    let digest = stage.at("digest");
    let id = |name: &str| podman(&["image", "inspect", "--format", "{{.Id}}", name]);
    let pushed = id(name);
    let references = stage.everywhere("plant/app:1");

    for reference in &references {
        let to = [
            "push",
            "--tls-verify=false",
            "--digestfile",
            text(&digest),
            name,
            reference,
        ];
        podman(&to);
    }
    podman(&["rmi", "--all", "--force"]);
    for reference in &references {
        podman(&["pull", "--tls-verify=false", "--quiet", reference]);

        assert_eq!(id(reference), pushed);
        let format = "{{range .RepoDigests}}{{.}}\n{{end}}";
        let known = podman(&["image", "inspect", "--format", format, reference]);
        assert!(known.contains(&std::fs::read_to_string(&digest).unwrap()), "{known}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_pulls_back_what_it_pushed_and_need_not_push_what_is_there() {
    let Some(stage) = Stage::with("docker push", &["dockerd", "docker"]).await else {
        return;
    };
    let engine = Docker::start(stage.folder.path());
    let docker = |arguments: &[&str]| running::output(engine.client(arguments));
    let archive = stage.archive("docker-archive", "app:1");
    docker(&["load", "--input", text(&archive)]);
    let [first, third] = stage.everywhere("plant/app:1");
    let second = stage.reference("other/app:1");
    let id = |name: &str| docker(&["image", "inspect", "--format", "{{.Id}}", name]);

    docker(&["tag", "app:1", &first]);
    docker(&["tag", "app:1", &second]);
    docker(&["tag", "app:1", &third]);
    docker(&["push", &third]);
    docker(&["push", &first]);
    let again = docker(&["push", &first]);
    let mounted = docker(&["push", &second]);
    let pushed = id("app:1");
    docker(&["image", "rm", "--force", "app:1", &first, &second, &third]);
    for reference in [&third, &first, &second] {
        docker(&["pull", reference]);

        assert_eq!(id(reference), pushed);
        docker(&["image", "rm", "--force", reference]);
    }
    assert!(again.contains("Layer already exists"), "{again}");
    assert!(mounted.contains("Mounted from"), "{mounted}");
}

/// What is at the top of a chain.
enum Cloud {
    Debian(DockerRegistry),
    Wharf(Box<Node>),
}

impl Cloud {
    fn url(&self) -> String {
        match self {
            Self::Debian(registry) => registry.url(),
            Self::Wharf(node) => node.url(),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Debian(registry) => registry.kill(),
            Self::Wharf(node) => node.kill(),
        }
    }

    async fn start(&mut self) {
        match self {
            Self::Debian(registry) => registry.start_again().await,
            Self::Wharf(node) => node.start().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_pushes_at_level_4_while_all_above_is_stopped_and_the_cloud_has_it_in_the_end() {
    let Some(stage) = Stage::with("docker push", &["dockerd", "docker", "docker-registry"]).await else {
        return;
    };
    let engine = Docker::start(stage.folder.path());
    let docker = |arguments: &[&str]| running::output(engine.client(arguments));
    let archive = stage.archive("docker-archive", "app:1");
    docker(&["load", "--input", text(&archive)]);
    let clouds = [
        Cloud::Debian(DockerRegistry::start().await),
        Cloud::Wharf(Box::new(Setup::alone().registry().named("cloud").start().await)),
    ];

    for mut cloud in clouds {
        let mut l5 = Setup::below(&cloud.url()).registry().named("l5").start().await;
        let l4 = Setup::below(&l5.url()).registry().named("l4").start().await;
        l5.kill();
        cloud.kill();
        let pushed = format!("{}/plant/app:1", l4.address());
        docker(&["tag", "app:1", &pushed]);
        docker(&["push", &pushed]);
        let raw = |url: &str| {
            let reference = format!("docker://{}/plant/app:1", url.trim_start_matches("http://"));
            run("skopeo", &["inspect", "--raw", "--tls-verify=false", &reference])
        };
        let manifest = raw(&l4.url());

        l5.start().await;
        cloud.start().await;
        for node in [&l4, &l5] {
            eventually("nothing waits for the parent", async || {
                let listing = node.admin("/api/queue").await.json();
                listing["items"].as_array().is_some_and(Vec::is_empty)
            })
            .await;
        }

        assert_eq!(raw(&cloud.url()), manifest);
        // Every blob is hashed on its way.
        let from = format!("docker://{}/plant/app:1", cloud.url().trim_start_matches("http://"));
        let folder = TempDir::new().expect("a temporary folder");
        let to = format!("dir:{}", folder.path().display());
        run(
            "skopeo",
            &["copy", "--src-tls-verify=false", "--preserve-digests", &from, &to],
        );
        let digest = sha256(manifest.trim_end().as_bytes());
        let target = format!("/v2/_wharf/receipts?repository=plant/app&digest={digest}");
        let receipt = l4.get(&target).await.json();
        let layers = receipt["layers"].as_array().cloned().unwrap_or_default();
        assert_eq!(layers.len(), 3, "{receipt}");
        assert!(
            layers.iter().all(|layer| layer["has"] == true && layer["at"].is_u64()),
            "{receipt}"
        );
        docker(&["image", "rm", "--force", &pushed]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_pulls_back_what_it_pushed() {
    let Some(stage) = Stage::with("ctr push", &["containerd", "ctr"]).await else {
        return;
    };
    let containerd = Containerd::start(stage.folder.path());
    let ctr = |arguments: &[&str]| running::output(containerd.client(arguments));
    let digest = |name: &str| {
        let said = ctr(&["images", "ls", &format!("name=={name}")]);
        let digest = said.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.unwrap_or_else(|| panic!("no {name}: {said}")).to_owned()
    };

    for reference in &stage.everywhere("plant/app:1") {
        containerd.import(&stage.image, stage.folder.path(), reference);
        ctr(&["images", "push", "--plain-http", reference]);
        let pushed = digest(reference);
        ctr(&["images", "rm", "--sync", reference]);
        let pull = [
            "images",
            "pull",
            "--plain-http",
            "--all-platforms",
            "--snapshotter",
            "native",
            reference,
        ];
        ctr(&pull);

        assert_eq!(digest(reference), pushed);
    }
}
