use std::sync::Arc;

use super::{Gate, Permit, Principal};
use crate::fetch::{Asker, Document, Error, Fetch, Outcome, Source};
use crate::oci::{Digest, Name, Reference, Registry, Repository};
use crate::store::Store;

/// All content, for those who are permitted. Content is shared by digest, permission is per repository.
pub struct Shelf {
    store: Store,
    fetch: Fetch,
}

impl Shelf {
    /// Over one store and the way to what it lacks.
    pub fn new(store: Store, fetch: Fetch) -> Self {
        Self { store, fetch }
    }

    /// The manifest that `reference` names.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest`].
    pub async fn manifest(&self, permit: &Permit, reference: &Reference, asker: &Asker) -> Result<Document, Error> {
        self.fetch.manifest(permit.repository(), reference, asker).await
    }

    /// The same, for a HEAD.
    ///
    /// # Errors
    ///
    /// As [`Fetch::manifest_head`].
    pub async fn manifest_head(
        &self,
        permit: &Permit,
        reference: &Reference,
        asker: &Asker,
    ) -> Result<Document, Error> {
        self.fetch.manifest_head(permit.repository(), reference, asker).await
    }

    /// The manifest that `reference` names, if it is in memory and fresh: nobody is asked.
    pub fn manifest_at_once(&self, permit: &Permit, reference: &Reference) -> Option<Document> {
        self.fetch.manifest_at_once(permit.repository(), reference)
    }

    /// The content of a blob, of which `from` is the first byte wanted; it may still be on its way.
    ///
    /// # Errors
    ///
    /// As [`Fetch::blob`].
    pub async fn blob(&self, permit: &Permit, digest: &Digest, from: u64, asker: &Asker) -> Result<Source, Error> {
        self.fetch.blob(permit.repository(), digest, from, asker).await
    }

    /// Bytes of a blob whose content is on its way.
    ///
    /// # Errors
    ///
    /// As [`Fetch::settle`].
    pub async fn settle(&self, permit: &Permit, source: &mut Source, asker: &Asker) -> Result<u64, Error> {
        self.fetch.settle(permit.repository(), source, asker).await
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    ///
    /// As [`Fetch::blob_size`].
    pub async fn blob_size(&self, permit: &Permit, digest: &Digest, asker: &Asker) -> Result<(u64, Outcome), Error> {
        self.fetch.blob_size(permit.repository(), digest, asker).await
    }

    /// All tags, a JSON array in ASCII order.
    ///
    /// # Errors
    ///
    /// As [`Fetch::tags`].
    pub async fn tags(&self, permit: &Permit, asker: &Asker) -> Result<Document, Error> {
        self.fetch.tags(permit.repository(), asker).await
    }

    /// What refers to `digest`, an OCI index.
    ///
    /// # Errors
    ///
    /// As [`Fetch::referrers`].
    pub async fn referrers(&self, permit: &Permit, digest: &Digest, asker: &Asker) -> Result<Document, Error> {
        self.fetch.referrers(permit.repository(), digest, asker).await
    }

    /// The repositories that lie here and that `gate` shows to `principal`.
    pub fn repositories(&self, gate: &Gate, principal: &Principal) -> Vec<Repository> {
        let mut repositories = self.store.repositories();
        repositories.retain(|repository| gate.shows(principal, repository) && self.fetch.shows(repository));
        repositories
    }

    /// The names that the registry above says it has, a moment ago at the most; none if it has no such list.
    ///
    /// # Errors
    ///
    /// Why it could not be asked.
    pub async fn names_above(&self, registry: &Registry, asker: &Asker) -> Result<Arc<Vec<Name>>, Error> {
        self.fetch.catalog_lately(registry, asker).await
    }
}
