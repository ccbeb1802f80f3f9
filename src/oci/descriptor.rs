//! The descriptor: how one document points at content.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::oci::{Digest, DigestError};

/// A pointer to content (image spec, "Descriptor"). Other fields than these are not kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Written", rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content; empty where the document names none.
    pub media_type: String,
    /// What the content is called.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// The type of the artifact, where the content is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free remarks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform as it stood in the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Box<RawValue>>,
}

impl Descriptor {
    /// Whether the content may not be distributed, and lies elsewhere (image spec, "Non-Distributable Layers").
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// A descriptor as it may stand in a document: Go writes `null` for what is empty, and the digest
/// may be of an algorithm that is unknown here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    media_type: Option<String>,
    digest: String,
    size: u64,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Box<RawValue>>,
}

impl TryFrom<Written> for Descriptor {
    type Error = DigestError;

    fn try_from(written: Written) -> Result<Self, DigestError> {
        Ok(Self {
            media_type: written.media_type.unwrap_or_default(),
            digest: written.digest.parse()?,
            size: written.size,
            artifact_type: written.artifact_type,
            annotations: written.annotations.unwrap_or_default(),
            platform: written.platform,
        })
    }
}

/// Reads a descriptor that may be absent, `null`, or of an unsupported algorithm: all `None`.
pub(super) fn one<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Descriptor>, D::Error> {
    let written = Option::<Written>::deserialize(from)?;
    written
        .and_then(supported)
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// Reads a list of descriptors that may be `null`, leaving out those of unsupported algorithms.
pub(super) fn many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Descriptor>, D::Error> {
    let written = Option::<Vec<Written>>::deserialize(from)?.unwrap_or_default();
    let known = written.into_iter().filter_map(supported);
    known.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

fn supported(written: Written) -> Option<Result<Descriptor, DigestError>> {
    match Descriptor::try_from(written) {
        Err(DigestError::UnsupportedAlgorithm) => None,
        other => Some(other),
    }
}
