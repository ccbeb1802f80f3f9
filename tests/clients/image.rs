//! Images that engines unpack: gzipped tars for two platforms, written as an OCI layout.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::content::{self, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};

/// A multi-platform image in a folder (image spec, "Image Layout").
pub struct Layout {
    folder: PathBuf,
    /// Digest of the index.
    pub digest: String,
    /// Digests of everything: index, manifests, configs, layers.
    pub all: Vec<String>,
}

impl Layout {
    /// Two platforms; they share a layer and have one of their own, `layer_bytes` of noise each.
    pub fn two_platforms(folder: &Path, layer_bytes: usize) -> Self {
        let mut layout = Self {
            folder: folder.to_owned(),
            digest: String::new(),
            all: Vec::new(),
        };
        std::fs::create_dir_all(folder.join("blobs/sha256")).expect("a writable folder");
        let shared = Layer::of("shared", layer_bytes);
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let own = Layer::of(architecture, layer_bytes);
            let mut manifest = layout.manifest(architecture, &[&shared, &own]);
            manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
            manifests.push(manifest);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let mut index = layout.keep(OCI_INDEX, index.to_string().as_bytes());
        layout.digest = index["digest"].as_str().expect("a digest").to_owned();
        index["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
        layout.write("index.json", &json!({ "schemaVersion": 2, "manifests": [index] }));
        layout.write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
        layout
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a client is told to copy.
    pub fn reference(&self) -> String {
        format!("oci:{}:image", self.folder.display())
    }

    fn manifest(&mut self, architecture: &str, layers: &[&Layer]) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": ["/noise"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.keep(OCI_CONFIG, config.to_string().as_bytes());
        let layers: Vec<_> = layers.iter().map(|layer| self.keep(OCI_LAYER, &layer.packed)).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
        self.keep(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    /// Keeps content and returns its descriptor.
    fn keep(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = content::sha256(bytes);
        let path = blob(&self.folder, &digest);
        std::fs::write(path, bytes).expect("a writable folder");
        if !self.all.contains(&digest) {
            self.all.push(digest.clone());
        }
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.folder.join(name), value.to_string()).expect("a writable folder");
    }
}

/// Fails the test unless the OCI layout in `folder` holds every one of `digests`, whole and true by `sha256sum`.
pub fn assert_holds(folder: &Path, digests: &[String]) {
    for digest in digests {
        let path = blob(folder, digest);
        let output = Command::new("sha256sum").arg(&path).output().expect("sha256sum");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let hex = digest.trim_start_matches("sha256:");
        assert!(
            said.starts_with(hex),
            "{}: {said}{}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn blob(folder: &Path, digest: &str) -> PathBuf {
    folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

/// A gzipped tar of one file.
struct Layer {
    diff_id: String,
    packed: Vec<u8>,
}

impl Layer {
    fn of(name: &str, bytes: usize) -> Self {
        let noise = content::random(bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(noise.len() as u64);
        header.set_mode(0o644);
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_data(&mut header, name, &noise[..])
            .expect("a vector takes all");
        let plain = archive.into_inner().expect("a vector takes all");
        Self {
            diff_id: content::sha256(&plain),
            packed: gzip(&plain),
        }
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    let mut child = gzip
        .args(["-1", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip");
    let mut input = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(plain).expect("gzip reads"));
        child.wait_with_output().expect("gzip").stdout
    })
}
