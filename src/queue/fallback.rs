//! What refers to something, under a tag: so a registry without the list has it from whoever pushes and deletes
//! (distribution spec, "Referrers Tag Schema").

use serde_json::{Map, Value, json};

use super::Queue;
use super::pay::type_of;
use super::trouble::Trouble;
use crate::oci::{Digest, Manifest, Reference, Repository, Tag, media};
use crate::parent::Parent;
use crate::store::Held;

/// Bytes of a list.
const LIST: usize = 4 << 20;

/// The list as the parent has it, with all that others wrote into it.
struct List {
    index: Map<String, Value>,
    entries: Vec<Value>,
}

impl List {
    fn empty() -> Self {
        let index = [
            ("schemaVersion".to_owned(), json!(2)),
            ("mediaType".to_owned(), json!(media::OCI_INDEX)),
        ];
        Self {
            index: Map::from_iter(index),
            entries: Vec::new(),
        }
    }

    /// `None` for what is no list.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut index: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        match index.remove("manifests")? {
            Value::Array(entries) => Some(Self { index, entries }),
            _ => None,
        }
    }

    fn place(&self, digest: &Digest) -> Option<usize> {
        let digest = json!(digest.to_string());
        self.entries.iter().position(|entry| entry["digest"] == digest)
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.index.insert("manifests".to_owned(), Value::Array(self.entries));
        serde_json::to_vec(&self.index).expect("what was read as JSON is written as JSON")
    }
}

impl Queue {
    /// Has the parent list a manifest under the tag of its subject.
    pub(super) async fn list_below(
        &self,
        parent: &Parent,
        repository: &Repository,
        subject: &Digest,
        held: &Held,
        manifest: &Manifest,
    ) -> Result<(), Trouble> {
        let Some(mut list) = self.list_of(parent, repository, subject).await? else {
            return Ok(());
        };
        if list.place(held.digest()).is_some() {
            return Ok(());
        }
        let mut entry = Map::from_iter([
            ("mediaType".to_owned(), json!(type_of(held, manifest))),
            ("digest".to_owned(), json!(held.digest().to_string())),
            ("size".to_owned(), json!(held.bytes().len())),
        ]);
        if let Some(artifact_type) = manifest.effective_artifact_type() {
            entry.insert("artifactType".to_owned(), json!(artifact_type));
        }
        if !manifest.annotations.is_empty() {
            entry.insert("annotations".to_owned(), json!(manifest.annotations));
        }
        list.entries.push(Value::Object(entry));
        self.put_list(parent, repository, subject, list).await
    }

    /// Has the parent list `digest` no more, which is gone.
    pub(super) async fn unlist_below(
        &self,
        parent: &Parent,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), Trouble> {
        let Some(mut list) = self.list_of(parent, repository, subject).await? else {
            return Ok(());
        };
        let Some(place) = list.place(digest) else { return Ok(()) };
        list.entries.remove(place);
        self.put_list(parent, repository, subject, list).await
    }

    /// The list that the parent has under the tag, an empty one if it has none. `None` if it is something else, which stays.
    async fn list_of(
        &self,
        parent: &Parent,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<List>, Trouble> {
        let reference = Reference::Tag(Tag::of_referrers(subject));
        let Some(bytes) = self.read(parent, repository, &reference, LIST).await? else {
            return Ok(Some(List::empty()));
        };
        let list = List::parse(&bytes);
        if list.is_none() {
            tracing::warn!(%repository, %reference, "what the parent has in the place of a list of referrers is none; it stays");
        }
        Ok(list)
    }

    async fn put_list(
        &self,
        parent: &Parent,
        repository: &Repository,
        subject: &Digest,
        list: List,
    ) -> Result<(), Trouble> {
        let reference = Reference::Tag(Tag::of_referrers(subject));
        let bytes = list.into_bytes();
        let digest = Digest::of(&bytes);
        let put = parent.put_manifest(super::CLASS, repository, &reference, media::OCI_INDEX, bytes.into());
        put.await?;
        match self.has_manifest(parent, repository, &reference, &digest).await? {
            true => Ok(()),
            false => Err(self.not_kept(parent, &reference)),
        }
    }
}
