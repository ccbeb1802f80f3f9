//! What is deleted: at once here, and hidden where the parent has it.

use futures_util::future::join_all;

use super::{Error, Push, Shared, beside};
use crate::auth::Permit;
use crate::fetch::Asker;
use crate::oci::{Digest, Manifest, Reference, Repository};
use crate::store::{Hide, Owing};

impl Push {
    /// Takes a tag, or a manifest with all its tags, away.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] if there is none; [`Error::TagTaken`] if one of its tags is to stay; [`Error::Store`].
    pub async fn drop_manifest(&self, permit: &Permit, reference: &Reference, asker: &Asker) -> Result<(), Error> {
        let shared = &self.shared;
        shared.admit(permit)?;
        let repository = permit.repository();
        // What was pushed and then lost can be deleted too.
        if !shared.store.was_pushed(repository, reference) {
            shared.fetch.manifest(repository, reference, asker).await?;
        }
        shared.spare_immutable(repository, reference)?;
        let subject = match reference {
            Reference::Digest(digest) => self.subject_of(repository, digest).await,
            Reference::Tag(_) => None,
        };
        let owing = shared.owing(permit);
        self.drop_named(permit, reference.clone(), asker, subject, owing).await
    }

    /// Takes a blob away.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] if there is none; [`Error::Store`].
    pub async fn drop_blob(&self, permit: &Permit, digest: &Digest, asker: &Asker) -> Result<(), Error> {
        self.shared.admit(permit)?;
        let (repository, name) = (permit.repository(), Reference::Digest(*digest));
        if !self.shared.store.has_blob(repository, digest) {
            self.shared.fetch.blob_size(repository, digest, asker).await?;
        }
        // What of it is needed above, only the parent knows.
        self.drop_named(permit, name, asker, None, None).await
    }

    async fn drop_named(
        &self,
        permit: &Permit,
        name: Reference,
        asker: &Asker,
        subject: Option<Digest>,
        owing: Option<Owing>,
    ) -> Result<(), Error> {
        let (shared, repository) = (self.shared.clone(), permit.repository().clone());
        let hide = match &shared.parent {
            Some(_) => Some(self.what_the_parent_has(&repository, &name, asker).await),
            None => None,
        };
        beside(move || shared.store.drop_named(&repository, &name, hide, subject, owing)).await??;
        Ok(())
    }

    /// What a manifest is about, if it can still be read here.
    async fn subject_of(&self, repository: &Repository, digest: &Digest) -> Option<Digest> {
        let held = self.shared.store.manifest_of(repository, digest).await.ok()??;
        let manifest = Manifest::parse(held.bytes()).ok()?;
        Some(manifest.subject?.digest)
    }

    /// Under the tags that go and that were pushed here, as far as it says so.
    async fn what_the_parent_has(&self, repository: &Repository, name: &Reference, asker: &Asker) -> Hide {
        let fetch = &self.shared.fetch;
        let tags = self.shared.store.tags_that_go(repository, name);
        let asked = tags.into_iter().map(|tag| async move {
            let known = fetch.parent_has(repository, &tag, asker).await.ok()?;
            Some((tag, known))
        });
        let known = join_all(asked).await.into_iter().flatten();
        Hide { known: known.collect() }
    }
}

impl Shared {
    /// A tag that nobody moves is not deleted either, nor the manifest that it names: both would end in another one's place.
    fn spare_immutable(&self, repository: &Repository, name: &Reference) -> Result<(), Error> {
        let named = self.store.named_by(repository, name);
        let spared = named.into_iter().find(|(tag, _)| self.is_immutable(repository, tag));
        spared.map_or(Ok(()), |(tag, digest)| {
            Err(Error::TagTaken {
                tag,
                digest,
                immutable: true,
            })
        })
    }
}
