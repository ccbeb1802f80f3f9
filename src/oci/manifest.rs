//! A look into a manifest or an index, at what it points to.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::oci::{Descriptor, descriptor, media};

/// What a manifest or an index says of its type and of the content it needs.
///
/// The bytes stay what they are: this is read beside them and never written back. A field that is
/// not named here is ignored, and a descriptor whose digest is of an unsupported algorithm is left
/// out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Manifest {
    /// The type that the document claims.
    pub media_type: Option<String>,
    /// The type of the artifact that the document claims.
    pub artifact_type: Option<String>,
    /// The configuration of an image.
    pub config: Option<Descriptor>,
    /// The layers of an image, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Free remarks.
    pub annotations: BTreeMap<String, String>,
    /// Whether the document has a list of manifests, be it empty.
    lists_manifests: bool,
}

impl Manifest {
    /// Reads what `bytes` point to.
    ///
    /// # Errors
    ///
    /// [`ManifestError`]: the bytes are no JSON object, a field has a wrong type or stands twice,
    /// or a digest does not follow the grammar.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        // serde would take an array for the fields in order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(ManifestError::NoObject);
        }
        let written: Written = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        Ok(Self {
            media_type: written.media_type,
            artifact_type: written.artifact_type,
            config: written.config,
            layers: written.layers,
            lists_manifests: written.manifests.is_some(),
            manifests: written.manifests.map_or_else(Vec::new, |List(list)| list),
            subject: written.subject,
            annotations: written.annotations.unwrap_or_default(),
        })
    }

    /// What must be here for the document to be complete: config, layers, manifests. Its subject
    /// is not among them (distribution spec, "Pushing Manifests with Subject").
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.manifests)
    }

    /// Whether the document is a list of manifests.
    pub fn is_index(&self) -> bool {
        media::is_index(self.media_type_guess())
    }

    /// The type that the document claims, else the OCI type that its fields fit (image spec:
    /// `mediaType` need not be there).
    pub fn media_type_guess(&self) -> &str {
        match self.media_type.as_deref() {
            Some(claimed) if !claimed.is_empty() => claimed,
            _ if self.lists_manifests => media::OCI_INDEX,
            _ => media::OCI_MANIFEST,
        }
    }

    /// The type to list the document under as a referrer: its own, else that of its config; an
    /// index has none but its own (distribution spec, "Listing Referrers").
    pub fn effective_artifact_type(&self) -> Option<&str> {
        let own = self.artifact_type.as_deref().filter(|own| !own.is_empty());
        let of_config = || self.config.as_ref().map(|config| config.media_type.as_str());
        own.or_else(|| if self.is_index() { None } else { of_config() })
    }
}

/// Why bytes are no manifest. The caller's, who sent them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The bytes are not a JSON object at all.
    #[error("not a manifest: no JSON object")]
    NoObject,

    /// No valid JSON, or a field that is not as the image spec has it.
    #[error("not a manifest: the JSON is not as the image specification has it")]
    Malformed(#[source] serde_json::Error),
}

/// The document as it may be written. Go writes `null` for what is empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: Option<String>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "descriptor::one")]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "descriptor::many")]
    layers: Vec<Descriptor>,
    manifests: Option<List>,
    #[serde(default, deserialize_with = "descriptor::one")]
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct List(#[serde(deserialize_with = "descriptor::many")] Vec<Descriptor>);
