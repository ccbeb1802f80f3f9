//! The manifest that turns uploads into an image.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures_util::future::{join, join_all};

use super::{Error, Incoming, Limit, Push, Shared, beside};
use crate::auth::{Action, Permit};
use crate::fetch::Asker;
use crate::oci::{Digest, Manifest, Reference, Repository, Tag, media};
use crate::parent::Class;
use crate::store::{self, Held, Pushed};

/// What was taken in.
pub struct Accepted {
    /// Its digest, by the algorithm that it was pushed with.
    pub digest: Digest,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Names that it has now.
    pub tags: Vec<Tag>,
}

impl Push {
    /// Takes a manifest for `reference`, and for `tags` as well. When this returns it survives a power cut, with all that it
    /// needs.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of manifests.
    pub async fn manifest(
        &self,
        permit: &Permit,
        reference: &Reference,
        tags: Vec<Tag>,
        media_type: Option<&str>,
        body: &mut dyn Incoming,
        asker: &Asker,
    ) -> Result<Accepted, Error> {
        let shared = &self.shared;
        shared.admit(permit)?;
        let read = shared.read_manifest(body).await;
        let bytes = read.map_err(|error| shared.counted(error))?;
        let (digest, tags) = named(reference, tags, &bytes)?;
        let manifest = shared.judge(media_type, &bytes)?;
        let held = Held::new(digest, media_type.map(media::essence), bytes);
        shared.judge_shape(&held).map_err(|error| shared.counted(error))?;
        let repository = permit.repository();
        let found = join(
            shared.look_for(repository, &manifest, asker),
            shared.look_above(repository, &tags, asker),
        );
        let (found, above) = found.await;
        let Found { needs, elsewhere } = found?;
        shared.admit_image(held.bytes().len() as u64, &needs).await?;
        let subject = manifest.subject.map(|subject| subject.digest);
        let pushed = Pushed {
            held: held.into(),
            tags: tags.clone(),
            subject,
            needs,
            owing: shared.owing(permit),
            above,
            fixed: shared.fixed(permit, &tags),
        };
        let (store, repository) = (shared.store.clone(), permit.repository().clone());
        let accepted = beside(move || store.accept(&repository, pushed)).await?;
        accepted.map_err(|error| shared.counted(shared.explained(permit, error)))?;
        if !elsewhere.is_empty() {
            let (shared, repository, asker) = (self.shared.clone(), permit.repository().clone(), asker.clone());
            tokio::spawn(async move { shared.keep_too(&digest, &repository, &elsewhere, &asker).await });
        }
        Ok(Accepted { digest, subject, tags })
    }
}

/// What a manifest needs.
struct Found {
    /// What lies here.
    needs: Vec<Digest>,
    /// What the parent alone has, in this repository.
    elsewhere: Vec<Digest>,
}

impl Shared {
    /// All of it, unless it is too much; that is known before it is all here.
    async fn read_manifest(&self, body: &mut dyn Incoming) -> Result<Bytes, Error> {
        let most = self.limits.get().manifest.bytes();
        let too_large = || Error::TooLarge {
            limit: Limit::Manifest,
            most,
        };
        let mut bytes = BytesMut::new();
        if body.length().is_some_and(|length| length > most) {
            return Err(too_large());
        }
        while let Some(piece) = body.next().await? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        self.metrics.bytes.inc_by(bytes.len() as u64);
        Ok(bytes.freeze())
    }

    /// What it points to, if it is a manifest of a type that clients know.
    fn judge(&self, media_type: Option<&str>, bytes: &[u8]) -> Result<Manifest, Error> {
        let refuse = |words: String| Error::Manifest(words);
        let manifest = Manifest::parse(bytes).map_err(|error| refuse(crate::units::with_causes(&error)))?;
        if manifest.schema_version != Some(2) {
            return Err(refuse("its schemaVersion is not 2".to_owned()));
        }
        let own = manifest.media_type.as_deref().unwrap_or_default();
        let given = media::essence(media_type.unwrap_or_default());
        if !own.is_empty() && !given.is_empty() && !own.eq_ignore_ascii_case(given) {
            return Err(refuse(format!(
                "its mediaType is {own:?} and its Content-Type {given:?}"
            )));
        }
        let effective = if given.is_empty() {
            manifest.media_type_guess()
        } else {
            given
        };
        if !media::is_manifest(effective) {
            return Err(refuse(format!(
                "{effective:?} is no type of manifest that is known here; send an OCI or Docker image manifest or index"
            )));
        }
        if !media::is_index(effective) && manifest.config.is_none() {
            return Err(refuse(
                "it has no config, and an image's manifest has to have one".to_owned(),
            ));
        }
        Ok(manifest)
    }

    fn judge_shape(&self, held: &Held) -> Result<(), Error> {
        let limits = self.limits.get();
        if held.depth() > limits.json_depth {
            return Err(Error::TooMuch {
                limit: Limit::JsonDepth,
                most: limits.json_depth,
            });
        }
        if held.entries() > limits.descriptors {
            return Err(Error::TooMuch {
                limit: Limit::Descriptors,
                most: limits.descriptors,
            });
        }
        match held.ambiguity() {
            None => Ok(()),
            Some(expected) => Err(Error::Manifest(format!(
                "clients may read it differently; send {expected}"
            ))),
        }
    }

    /// Fetches what a manifest that was taken in needs and only the parent has, and keeps it as if it had been pushed: the
    /// parent may throw it away, or be away.
    async fn keep_too(&self, manifest: &Digest, repository: &Repository, digests: &[Digest], asker: &Asker) {
        for digest in digests {
            let brought = self
                .fetch
                .bring(repository, digest, asker, |_| {})
                .await
                .map_err(Error::from);
            let (store, named) = (self.store.clone(), repository.clone());
            let (manifest, digest) = (*manifest, *digest);
            let kept = match brought {
                Ok(()) => beside(move || store.adopt_for(&manifest, &named, &digest))
                    .await
                    .and_then(|kept| Ok(kept?)),
                Err(error) => Err(error),
            };
            match kept {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(%repository, %digest, "what a pushed manifest needs is not kept: it was deleted, or found no room");
                }
                Err(error) => {
                    tracing::warn!(%repository, %digest, %error, "what a pushed manifest needs could not be fetched; only the parent has it");
                }
            }
        }
    }

    /// What the parent has under tags of which that is not known: who moves one of them moves it from there.
    async fn look_above(&self, repository: &Repository, tags: &[Tag], asker: &Asker) -> HashMap<Tag, Digest> {
        let Some(parent) = &self.parent else {
            return HashMap::new();
        };
        let unknown = tags.iter().filter(|tag| !self.store.knows_above(repository, tag));
        // It is for what will be written back.
        let is_asked = parent.is_shut(Class::WriteBack).is_none();
        let asked = unknown.filter(|_| is_asked).map(|tag| async move {
            let known = self.fetch.parent_has(repository, tag, asker).await.ok()?;
            Some((tag.clone(), known?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Those of `tags` that this one may not move.
    fn fixed(&self, permit: &Permit, tags: &[Tag]) -> Vec<Tag> {
        let is_fixed =
            |tag: &&Tag| !permit.allows(Action::ContentOverwrite) || self.is_immutable(permit.repository(), tag);
        tags.iter().filter(is_fixed).cloned().collect()
    }

    pub(super) fn is_immutable(&self, repository: &Repository, tag: &Tag) -> bool {
        self.config
            .get()
            .immutable_tags
            .matches(repository.name.as_str(), tag.as_str())
    }

    fn explained(&self, permit: &Permit, error: store::Error) -> Error {
        match error {
            store::Error::TagTaken { tag, digest } => Error::TagTaken {
                immutable: self.is_immutable(permit.repository(), &tag),
                tag,
                digest,
            },
            other => other.into(),
        }
    }

    /// What the manifest needs, once all of it is found: here, or at the parent in this repository.
    async fn look_for(&self, repository: &Repository, manifest: &Manifest, asker: &Asker) -> Result<Found, Error> {
        let (mut needs, mut elsewhere) = (Vec::new(), Vec::new());
        for child in manifest.children() {
            let link = match self.store.linked(repository, &child.digest) {
                // What the parent took back is not here for a push either.
                Some(link) if self.fetch.vouch(repository, &child.digest, asker).await.is_ok() => Some(link),
                _ => None,
            };
            match link {
                Some(link) => {
                    let size = self.store.size(&link);
                    if size.is_some_and(|size| size != child.size) {
                        return Err(Error::Manifest(format!(
                            "it says that {} has {} bytes, and it has {}",
                            child.digest,
                            child.size,
                            size.unwrap_or_default()
                        )));
                    }
                    needs.push(child.digest);
                }
                // It lies where its urls say, or nowhere yet: an index may list what was not copied along.
                None if child.is_foreign() || media::is_manifest(&child.media_type) => {}
                None => elsewhere.push(child.digest),
            }
        }
        for found in [&mut needs, &mut elsewhere] {
            found.sort_unstable();
            found.dedup();
        }
        let ask = |digest: Digest| async move {
            let found = self.fetch.blob_size(repository, &digest, asker).await;
            found.is_err().then_some(digest)
        };
        let missing: Vec<Digest> = join_all(elsewhere.iter().copied().map(ask))
            .await
            .into_iter()
            .flatten()
            .collect();
        if missing.is_empty() {
            Ok(Found { needs, elsewhere })
        } else {
            Err(Error::Missing(missing))
        }
    }
}

/// What the bytes are called, and the names that they are to have.
fn named(reference: &Reference, mut tags: Vec<Tag>, bytes: &[u8]) -> Result<(Digest, Vec<Tag>), Error> {
    match reference {
        Reference::Digest(announced) => {
            let actual = Digest::of_with(announced.algorithm(), bytes);
            if actual != *announced {
                let announced = *announced;
                return Err(Error::Digest { actual, announced });
            }
            Ok((actual, tags))
        }
        Reference::Tag(tag) => {
            if !tags.contains(tag) {
                tags.insert(0, tag.clone());
            }
            Ok((Digest::of(bytes), tags))
        }
    }
}
