//! A real image: this program on an empty base.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use crate::cli::demo::Error;
use crate::oci::{Digest, media};

/// What is pushed: content with its digest as we computed it.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) repository: &'static str,
    pub(super) manifest: Content,
    pub(super) config: Content,
    pub(super) layer: Content,
}

/// Bytes and their name.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
}

pub(super) const REPOSITORY: &str = "plant/wharf";
pub(super) const RECIPE: &str = "plant/recipe";
const PAYROLL: &str = "office/payroll";
pub(super) const TAG: &str = env!("CARGO_PKG_VERSION");

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const PROGRAM: &str = "usr/bin/wharf";

impl Image {
    /// The image of the program at `program`: one layer, uncompressed, the same for the same program.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the program cannot be read.
    pub(super) fn of(program: &Path) -> Result<Self, Error> {
        Ok(Self::with(REPOSITORY, layer(program)?))
    }

    /// What a plant makes itself: a recipe that says when it was written down.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: no memory to pack it in.
    pub(super) fn recipe(words: &str) -> Result<Self, Error> {
        let packed = packed("recipe.txt", 0o644, words.as_bytes());
        let packed = packed.map_err(|source| Error::Io {
            action: "packing",
            path: "recipe.txt".into(),
            source,
        })?;
        Ok(Self::with(RECIPE, packed))
    }

    /// What is the office's, and no plant's business.
    ///
    /// # Errors
    ///
    /// As [`Image::recipe`].
    pub(super) fn payroll() -> Result<Self, Error> {
        Ok(Self {
            repository: PAYROLL,
            ..Self::recipe("who earns what\n")?
        })
    }

    fn with(repository: &'static str, layer: Vec<u8>) -> Self {
        let layer = Content::new(layer);
        let config = Content::new(config(&layer.digest));
        let manifest = Content::new(manifest(&config, &layer));
        Self {
            repository,
            manifest,
            config,
            layer,
        }
    }

    /// All content with what people call it, in the order of a pull.
    pub(super) fn contents(&self) -> [(&'static str, &Content); 3] {
        [
            ("manifest", &self.manifest),
            ("config", &self.config),
            ("layer", &self.layer),
        ]
    }
}

impl Content {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes: bytes.into(),
        }
    }

    /// For a request without any.
    pub(super) fn nothing() -> Self {
        Self::new(Vec::new())
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

fn layer(program: &Path) -> Result<Vec<u8>, Error> {
    let io = |action| {
        move |source| Error::Io {
            action,
            path: program.to_owned(),
            source,
        }
    };
    let mut content = Vec::new();
    let read = std::fs::File::open(program).and_then(|mut file| file.read_to_end(&mut content));
    read.map_err(io("reading"))?;

    packed(PROGRAM, 0o755, &content).map_err(io("packing"))
}

/// An archive of one file.
fn packed(name: &str, mode: u32, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    let mut archive = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
    archive.append_data(&mut header, name, content)?;
    archive.into_inner()
}

/// Image spec, "Image Configuration".
fn config(layer: &Digest) -> Vec<u8> {
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}")],
            "Cmd": ["serve"],
            "Labels": {
                "org.opencontainers.image.title": "wharf",
                "org.opencontainers.image.version": TAG,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
        "history": [{ "created_by": "wharf demo" }],
    });
    config.to_string().into_bytes()
}

/// Image spec, "Image Manifest".
fn manifest(config: &Content, layer: &Content) -> Vec<u8> {
    let descriptor = |media_type, content: &Content| json!({ "mediaType": media_type, "digest": content.digest.to_string(), "size": content.length() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
    });
    manifest.to_string().into_bytes()
}

/// As Go calls it (image spec, "Image Configuration", `architecture`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Manifest;

    #[test]
    fn the_layer_holds_the_program_and_the_manifest_names_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/true").unwrap();

        let image = Image::of(&program).unwrap();

        let mut archive = tar::Archive::new(&image.layer.bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(PROGRAM));
        assert_eq!(entry.header().mode().unwrap(), 0o755);
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!(content, "#!/bin/true");
        let manifest = Manifest::parse(&image.manifest.bytes).unwrap();
        assert_eq!(manifest.config.unwrap().digest, image.config.digest);
        assert_eq!(manifest.layers[0].digest, image.layer.digest);
        assert_eq!(manifest.layers[0].size, image.layer.bytes.len() as u64);
        assert_eq!(Image::of(&program).unwrap().manifest.digest, image.manifest.digest);
    }
}
