//! What is deleted: at once here, and hidden where the parent has it.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::{Error, Push, Shared, beside};
use crate::auth::Permit;
use crate::fetch::{self, Asker};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag, media};
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
        shared.spare_immutable(repository, reference, asker).await?;
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
        // By whichever path: a manifest goes with its tags, and the parent hears of it.
        if self.shared.store.is_manifest(repository, digest) {
            return self.drop_manifest(permit, &name, asker).await;
        }
        self.shared.spare_immutable(repository, &name, asker).await?;
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
    /// A tag that nobody moves is not deleted either, nor anything that it needs: it would not be pulled any more, or another could
    /// take its place. What the parent alone has under such a tag is asked for, and has to be known.
    async fn spare_immutable(&self, repository: &Repository, name: &Reference, asker: &Asker) -> Result<(), Error> {
        if self.config.get().immutable_tags.is_empty() {
            return Ok(());
        }
        let spared = |tag, digest| Error::TagTaken {
            tag,
            digest,
            immutable: true,
        };
        let named = self.store.named_by(repository, name);
        if let Some((tag, digest)) = named.into_iter().find(|(tag, _)| self.is_immutable(repository, tag)) {
            return Err(spared(tag, digest));
        }
        let Reference::Digest(digest) = name else { return Ok(()) };
        for tag in self.immutable_tags(repository, asker).await? {
            let reference = Reference::Tag(tag.clone());
            let here = self.store.named_by(repository, &reference).pop();
            let root = match (here, &self.parent) {
                (Some((_, root)), _) => Some(root),
                (None, Some(_)) => self.fetch.parent_has(repository, &tag, asker).await?,
                (None, None) => None,
            };
            if let Some(root) = root
                && self.needs(repository, root, digest).await
            {
                return Err(spared(tag, root));
            }
        }
        Ok(())
    }

    /// Those of the repository that nobody moves, here and at the parent.
    async fn immutable_tags(&self, repository: &Repository, asker: &Asker) -> Result<Vec<Tag>, Error> {
        let mut all = self.store.tags(repository);
        if self.parent.is_some() {
            match self.fetch.tags(repository, asker).await {
                Ok(list) => all.extend(serde_json::from_slice::<Vec<String>>(list.held.bytes()).unwrap_or_default()),
                Err(fetch::Error::Absent { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        all.sort_unstable();
        all.dedup();
        let tags = all.iter().filter_map(|tag| tag.parse().ok());
        Ok(tags.filter(|tag| self.is_immutable(repository, tag)).collect())
    }

    /// Whether the manifest `root` is `digest` or needs it, as far as that lies here.
    async fn needs(&self, repository: &Repository, root: Digest, digest: &Digest) -> bool {
        let (mut seen, mut left) = (HashSet::from([root]), vec![root]);
        while let Some(next) = left.pop() {
            if next == *digest {
                return true;
            }
            let Ok(Some(held)) = self.store.manifest_of(repository, &next).await else {
                continue;
            };
            let Ok(manifest) = Manifest::parse(held.bytes()) else {
                continue;
            };
            for child in manifest.children() {
                if child.digest == *digest {
                    return true;
                }
                if media::is_manifest(&child.media_type) && seen.insert(child.digest) {
                    left.push(child.digest);
                }
            }
        }
        false
    }
}
