//! The OCI conformance program (opencontainers/distribution-spec, pinned in `scripts/setup`) against a registry of its own,
//! below another registry, and against a mirror. What it leaves out stands in `docs/conformance.md`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::content::{Image, Manifest, sha256};
use crate::support::docker_registry::DockerRegistry;
use crate::support::needs;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;

const ROOT: &str = "OCI Conformance Test";

fn is_played(test: &str, more: &[&str]) -> bool {
    needs::met(test, "the real clients beside it", &[&["conformance"], more].concat())
}

/// The tree that the program prints: its exit code says little.
struct Tree {
    /// Name and verdict of what has nothing below it.
    leaves: Vec<(String, String)>,
    text: String,
}

impl Tree {
    fn of(node: &Node, version: &str, more: &[(&str, &str)]) -> Self {
        let results = TempDir::new().unwrap();
        let mut program = Command::new("conformance");
        program
            .env("PATH", needs::path())
            .env("OCI_REGISTRY", node.address().to_string())
            .env("OCI_TLS", "disabled")
            .env("OCI_VERSION", version)
            .env("OCI_RESULTS_DIR", results.path())
            .env("OCI_LOG", "error")
            .envs(more.iter().copied());
        let output = program.output().expect("the program runs");
        Self::read(&String::from_utf8_lossy(&output.stdout))
    }

    fn read(text: &str) -> Self {
        let line = |line: &str| {
            let (name, verdict) = line.rsplit_once(": ")?;
            let indent = name.len() - name.trim_start().len();
            let name = name.trim_start();
            name.starts_with(ROOT)
                .then(|| (indent, name.to_owned(), verdict.trim().to_owned()))
        };
        let lines: Vec<_> = text.lines().filter_map(line).collect();
        let is_leaf = |at: usize| lines.get(at + 1).is_none_or(|next| next.0 <= lines[at].0);
        let leaves = (0..lines.len()).filter(|at| is_leaf(*at));
        Self {
            leaves: leaves.map(|at| (lines[at].1.clone(), lines[at].2.clone())).collect(),
            text: text.to_owned(),
        }
    }

    fn named(&self, verdict: &str) -> Vec<&str> {
        let found = self.leaves.iter().filter(|(_, said)| said == verdict);
        found
            .map(|(name, _)| name.trim_start_matches(ROOT).trim_start_matches('/'))
            .collect()
    }

    /// Everything passed, as often as that at least, but for what is left out by `left_out`.
    #[track_caller]
    fn assert_passed(&self, least: usize, left_out: &[&str]) {
        let passed = self.named("Pass").len();
        let others: Vec<_> = self.leaves.iter().filter(|(_, said)| said != "Pass").collect();
        let unexpected: Vec<_> = others
            .iter()
            .filter(|(name, said)| {
                let is_left_out = matches!(&**said, "Skip" | "Disabled");
                !is_left_out || !left_out.iter().any(|part| name.contains(part))
            })
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}\n{}", self.text);
        assert!(passed >= least, "{passed} of {least} passed\n{}", self.text);
        eprintln!("  {passed} passed, {} left out", others.len());
    }
}

/// Groups that a version leaves out by itself.
fn left_out(version: &str) -> &'static [&'static str] {
    match version {
        "1.1" => &["blob-post-cancel"],
        _ => &[],
    }
}

const VERSIONS: [(&str, usize); 2] = [("1.1", 690), ("dev", 790)];

#[tokio::test]
async fn a_registry_of_its_own_passes_all_of_it_in_both_versions() {
    if !is_played("conformance of a registry", &[]) {
        return;
    }
    let node = Setup::alone().registry().start().await;
    for (version, least) in VERSIONS {
        Tree::of(&node, version, &[]).assert_passed(least, left_out(version));
    }
}

#[tokio::test]
async fn a_registry_below_another_wharf_passes_all_of_it_in_both_versions() {
    if !is_played("conformance below wharf", &[]) {
        return;
    }
    let above = Setup::alone().registry().named("above").start().await;
    let node = Setup::below(&above.url()).registry().start().await;
    for (version, least) in VERSIONS {
        Tree::of(&node, version, &[]).assert_passed(least, left_out(version));
    }
}

#[tokio::test]
async fn a_registry_below_docker_registry_passes_all_of_it_in_both_versions() {
    if !is_played("conformance below docker-registry", &["docker-registry"]) {
        return;
    }
    let above = DockerRegistry::start().await;
    let node = Setup::below(&above.url()).registry().start().await;
    for (version, least) in VERSIONS {
        Tree::of(&node, version, &[]).assert_passed(least, left_out(version));
    }
}

#[tokio::test]
async fn a_mirror_passes_the_groups_that_only_read() {
    if !is_played("conformance of a mirror", &[]) {
        return;
    }
    let above = Setup::alone().registry().named("above").start().await;
    let app = Pusher::of(above.client(), "plant/app");
    let image = Image::of(&[1000]);
    app.image("v1", &image).await;
    let artifact = Image::referring_to(&image.manifest, "application/vnd.example");
    app.blobs_of(&artifact).await;
    app.manifest(&artifact.manifest.digest, &artifact.manifest).await;
    let node = Setup::below(&above.url()).start().await;

    for (version, _) in VERSIONS {
        let tree = Tree::of(
            &node,
            version,
            &[
                ("OCI_REPO1", "plant/app"),
                ("OCI_API_PUSH", "false"),
                // Of what it did not push itself it misses the header that is there (docs/conformance.md).
                ("OCI_API_MANIFESTS_DIGEST_HEADER", "false"),
                ("OCI_FILTER_TEST", "OCI Conformance Test/read-only"),
                ("OCI_RO_DATA_TAGS", "v1"),
                ("OCI_RO_DATA_MANIFESTS", &image.manifest.digest),
                ("OCI_RO_DATA_BLOBS", &image.layer(0)),
                ("OCI_RO_DATA_REFERRERS", &image.manifest.digest),
            ],
        );
        tree.assert_passed(8, &["read-only/push/", "read-only/delete/"]);
    }
}

#[test]
fn the_tree_is_read_by_its_leaves() {
    let tree = Tree::read(
        "Test results\nOCI Conformance Test: FAIL\n  OCI Conformance Test/a: FAIL\n    OCI Conformance Test/a/b: Pass\n    \
         OCI Conformance Test/a/c: FAIL\n     - why: not\n  OCI Conformance Test/d: Skip\nPing....: Pass\n",
    );

    assert_eq!(tree.named("Pass"), ["a/b"]);
    assert_eq!(tree.named("FAIL"), ["a/c"]);
    assert_eq!(tree.named("Skip"), ["d"]);
}

#[test]
fn what_is_left_out_stands_in_the_document() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md")).unwrap();
    for name in [
        "blob-post-cancel",
        "read-only/push",
        "read-only/delete",
        "OCI_DATA_SPARSE",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

/// Images whose layers are nowhere are refused, indexes whose manifests are nowhere are not: `docs/conformance.md`.
#[tokio::test]
async fn an_image_without_its_layers_is_refused_and_an_index_without_its_manifests_is_taken() {
    let node = Setup::alone().registry().start().await;
    let app = Pusher::of(node.client(), "a");
    let image = Image::of(&[10]);

    let refused = app.put_manifest("sparse-image", &image.manifest).await;
    let index = Manifest::new(
        crate::support::content::OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": crate::support::content::OCI_INDEX, "manifests": [image.manifest.descriptor()] }),
    );
    let taken = app.put_manifest("sparse-index", &index).await;

    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(
        (taken.status, taken.header("docker-content-digest")),
        (201, &*sha256(&index.bytes))
    );
}
