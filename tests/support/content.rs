//! Bytes nobody has seen before, their digests, and images made of them.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// `length` bytes that no other call in this run returned.
pub fn random(length: usize) -> Bytes {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    let seed = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id()) << 32 | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The same of many pieces in a row.
pub fn sha256_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    format!("sha256:{}", hex(&hasher.finalize()))
}

pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// The digest of `bytes` in the algorithm of `digest`.
pub fn digest_like(digest: &str, bytes: &[u8]) -> String {
    if digest.starts_with("sha512:") {
        sha512(bytes)
    } else {
        sha256(bytes)
    }
}

/// A manifest as it is stored: its bytes are what counts.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: String,
}

impl Manifest {
    /// The bytes are written with odd white space: who parses and writes again is found out.
    pub fn new(media_type: &str, body: &Value) -> Self {
        let bytes = Bytes::from(serde_json::to_string_pretty(body).expect("a JSON value") + "\n \n");
        Self {
            digest: sha256(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        }
    }

    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// An image: a manifest with the blobs it names.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Manifest,
    pub config: Bytes,
    pub layers: Vec<Bytes>,
}

impl Image {
    /// An OCI image with one random layer of each size.
    pub fn of(layer_sizes: &[usize]) -> Self {
        Self::with_layers(layer_sizes.iter().map(|size| random(*size)).collect())
    }

    pub fn with_layers(layers: Vec<Bytes>) -> Self {
        Self::built(OCI_MANIFEST, layers, sha256, |_| {})
    }

    /// The same in the older media types of Docker.
    pub fn docker(layer_sizes: &[usize]) -> Self {
        Self::built(
            DOCKER_MANIFEST,
            layer_sizes.iter().map(|size| random(*size)).collect(),
            sha256,
            |_| {},
        )
    }

    /// An OCI image whose manifest names everything by sha512.
    pub fn sha512(layer_sizes: &[usize]) -> Self {
        let mut image = Self::built(
            OCI_MANIFEST,
            layer_sizes.iter().map(|size| random(*size)).collect(),
            sha512,
            |_| {},
        );
        image.manifest.digest = sha512(&image.manifest.bytes);
        image
    }

    /// An artifact that refers to `subject`.
    pub fn referring_to(subject: &Manifest, artifact_type: &str) -> Self {
        Self::built(OCI_MANIFEST, vec![random(64)], sha256, |body| {
            body["artifactType"] = artifact_type.into();
            body["subject"] = subject.descriptor();
            body["annotations"] = json!({ "org.example.kind": artifact_type });
        })
    }

    /// An image whose manifest was changed by `amend` before it was written.
    pub fn built(
        media_type: &str,
        layers: Vec<Bytes>,
        digest: fn(&[u8]) -> String,
        amend: impl FnOnce(&mut Value),
    ) -> Self {
        let config = Bytes::from(format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers"}},"id":"{}"}}"#,
            hex(&random(8))
        ));
        let described: Vec<Value> = layers
            .iter()
            .map(|layer| json!({ "mediaType": OCI_LAYER, "digest": digest(layer), "size": layer.len() }))
            .collect();
        let mut body = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": OCI_CONFIG, "digest": digest(&config), "size": config.len() },
            "layers": described,
        });
        amend(&mut body);
        Self {
            manifest: Manifest::new(media_type, &body),
            config,
            layers,
        }
    }

    /// The digest of the layer at `index`, as the manifest has it.
    /// Its manifest has nearly four megabytes, the most that every registry must take.
    pub fn with_a_large_manifest() -> Self {
        Self::built(OCI_MANIFEST, vec![random(10)], sha256, |body| {
            body["annotations"] = (0..390)
                .map(|at| (format!("k{at}"), "x".repeat(10_000).into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
        })
    }

    pub fn layer(&self, index: usize) -> String {
        digest_like(&self.manifest.digest, &self.layers[index])
    }

    pub fn config_digest(&self) -> String {
        digest_like(&self.manifest.digest, &self.config)
    }
}

/// An index over `images`, each for another architecture.
pub fn index(images: &[&Image]) -> Manifest {
    let entries: Vec<Value> = images
        .iter()
        .zip(["amd64", "arm64", "arm", "riscv64"])
        .map(|(image, architecture)| {
            let mut entry = image.manifest.descriptor();
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        })
        .collect();
    Manifest::new(
        OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
