//! Manifests and other small documents that were read lately, in memory.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::oci::{Digest, Manifest, media, shape};

/// Bytes of documents kept in memory.
const CAPACITY: u64 = 16 << 20;

/// A small document, whole: exact bytes, exact media type.
pub struct Held {
    digest: Digest,
    media_type: Arc<str>,
    bytes: Bytes,
    /// `"<digest>"`, written out once: it stands in every answer.
    quoted: Bytes,
    children: Vec<(Digest, u64)>,
    /// Of its JSON.
    depth: usize,
    /// Layers and manifests that it lists.
    entries: usize,
    ambiguity: Option<&'static str>,
    /// The store's count of uses when the closure was last renewed.
    pub(super) touched: AtomicU64,
}

impl Held {
    /// Bytes that a document may have; the settings allow a manifest no more.
    pub const MOST: u64 = 16 << 20;

    /// `media_type` as the parent sent it; if that is not known, as the document itself says.
    pub fn new(digest: Digest, media_type: Option<&str>, bytes: Bytes) -> Self {
        let manifest = Manifest::parse(&bytes).ok();
        let ambiguity =
            shape::ambiguity(&bytes).or_else(|| manifest.as_ref()?.contradiction(media_type.unwrap_or_default()));
        let media_type = media_type
            .or_else(|| manifest.as_ref().map(Manifest::media_type_guess))
            .unwrap_or(media::OCTET_STREAM)
            .into();
        let children = manifest
            .iter()
            .flat_map(|manifest| manifest.children().map(|child| (child.digest, child.size)))
            .collect();
        Self {
            digest,
            media_type,
            quoted: format!("\"{digest}\"").into(),
            children,
            depth: shape::depth(&bytes),
            entries: manifest
                .as_ref()
                .map_or(0, |manifest| manifest.layers.len() + manifest.manifests.len()),
            ambiguity,
            bytes,
            touched: AtomicU64::new(0),
        }
    }

    /// Of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Exact, without or with parameters as it was given.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The document.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest in quotes, as an entity tag is written.
    pub fn quoted(&self) -> &Bytes {
        &self.quoted
    }

    /// What it references: config, layers, child manifests.
    pub fn children(&self) -> impl Iterator<Item = &Digest> {
        self.children.iter().map(|(digest, _)| digest)
    }

    /// Arrays and objects within each other.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Layers and manifests that it lists.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What it would have to be instead, if clients may read it in different ways.
    pub fn ambiguity(&self) -> Option<&'static str> {
        self.ambiguity
    }

    /// The same with the bytes that each is said to have.
    pub fn announced(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.children.iter().copied()
    }
}

/// The documents of the last minutes.
pub(super) struct Hot {
    documents: moka::sync::Cache<Digest, Arc<Held>>,
}

impl Hot {
    pub(super) fn new() -> Self {
        let weigh = |_: &Digest, held: &Arc<Held>| u32::try_from(held.bytes.len() + 512).unwrap_or(u32::MAX);
        let documents = moka::sync::Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(weigh)
            .build();
        Self { documents }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Held>> {
        self.documents.get(digest)
    }

    pub(super) fn keep(&self, held: Arc<Held>) {
        self.documents.insert(held.digest, held);
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.documents.invalidate(digest);
    }
}
