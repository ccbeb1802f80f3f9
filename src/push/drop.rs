//! What is deleted: at once here, and hidden where the parent has it.

use super::{Error, Push, beside};
use crate::auth::Permit;
use crate::fetch::Asker;
use crate::oci::{Digest, Reference};

impl Push {
    /// Takes a tag, or a manifest with all its tags, away.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] if there is none; [`Error::Store`].
    pub async fn drop_manifest(&self, permit: &Permit, reference: &Reference, asker: &Asker) -> Result<(), Error> {
        self.shared.admit(permit)?;
        self.shared
            .fetch
            .manifest(permit.repository(), reference, asker)
            .await?;
        self.drop_named(permit, reference.clone()).await
    }

    /// Takes a blob away.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] if there is none; [`Error::Store`].
    pub async fn drop_blob(&self, permit: &Permit, digest: &Digest, asker: &Asker) -> Result<(), Error> {
        self.shared.admit(permit)?;
        self.shared.fetch.blob_size(permit.repository(), digest, asker).await?;
        self.drop_named(permit, Reference::Digest(*digest)).await
    }

    async fn drop_named(&self, permit: &Permit, name: Reference) -> Result<(), Error> {
        let (shared, repository) = (self.shared.clone(), permit.repository().clone());
        let hide = shared.parent.is_some();
        beside(move || shared.store.drop_named(&repository, &name, hide)).await??;
        Ok(())
    }
}
