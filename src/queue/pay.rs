//! Paying one debt: blobs, the manifests that need them, the manifest, its tags; or a delete. Everything may be done
//! twice: it is asked for before it is sent, and looked at afterwards.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::state::Failure;
use super::trouble::Trouble;
use super::{CLASS, Queue, Seen};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, media};
use crate::parent::{Ask, Error, Hops, Parent, What};
use crate::store::{self, Debt, Held};

/// Blobs of one manifest that are sent at a time.
const BLOBS: usize = 3;

/// Indexes that name each other go no deeper.
const DEEPEST: usize = 8;

/// Bytes of a manifest.
const DOCUMENT: usize = 4 << 20;

/// How long the parent may take to say what it has; and a node, which may ask further up, for that.
const ANSWER: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(2);

/// Bad moments in a row after which a registry that fails when it is asked for something is taken to lack it.
const LASTING: u32 = 3;

/// What became of a debt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The parent has it.
    Paid,
    /// There is nothing to be done any more.
    Void,
}

impl Queue {
    /// Pays one debt.
    pub(super) async fn pay(&self, parent: &Parent, repository: &Repository, debt: &Debt) -> Result<Outcome, Trouble> {
        if !parent.admits(&repository.name) {
            return Err(Trouble::Denied(format!(
                "`allow` and `deny` of [parent] let nothing of {repository} pass to {}",
                parent.name()
            )));
        }
        match &debt.what {
            store::What::Push { digest, tags, .. } => {
                if !self.shared.store.was_pushed(repository, &Reference::Digest(*digest)) {
                    // It was deleted here since.
                    return Ok(Outcome::Void);
                }
                self.send_manifest(parent, repository, *digest, 0).await?;
                for named in tags {
                    self.send_tag(parent, repository, debt, digest, named).await?;
                }
                Ok(Outcome::Paid)
            }
            store::What::Delete { name, was, subject } => {
                let outcome = self.delete(parent, repository, debt.number, name, *was).await?;
                if let (Outcome::Paid, Reference::Digest(digest), Some(subject)) = (outcome, name, subject) {
                    self.unlist_below(parent, repository, subject, digest).await?;
                }
                Ok(outcome)
            }
        }
    }

    /// Has the parent have a manifest and all that it needs.
    fn send_manifest<'a>(
        &'a self,
        parent: &'a Parent,
        repository: &'a Repository,
        digest: Digest,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send + 'a>> {
        Box::pin(async move {
            let reference = Reference::Digest(digest);
            let seen = self.ask(parent, repository, What::Manifest(&reference)).await?;
            let is_there = matches!(seen, Seen::There(_));
            let held = self.shared.store.manifest_of(repository, &digest).await?;
            let Some(held) = held else {
                return if is_there { Ok(()) } else { Err(self.lost(&digest)) };
            };
            let manifest = Manifest::parse(held.bytes())
                .map_err(|error| Trouble::Refused(format!("{digest} is no manifest: {error}")))?;
            // Of one that is about another only the answer tells whether the parent lists it.
            if !is_there || manifest.subject.is_some() {
                self.send_children(parent, repository, &manifest, depth).await?;
                let put = self.put(parent, repository, &reference, &held, &manifest).await?;
                if !self.has_manifest(parent, repository, &reference, &digest).await? {
                    return Err(self.not_kept(parent, &reference));
                }
                if let Some(subject) = &manifest.subject
                    && !put.is_listed
                {
                    self.list_below(parent, repository, &subject.digest, &held, &manifest)
                        .await?;
                }
            }
            Ok(())
        })
    }

    /// What a manifest needs, blobs first.
    async fn send_children(
        &self,
        parent: &Parent,
        repository: &Repository,
        manifest: &Manifest,
        depth: usize,
    ) -> Result<(), Trouble> {
        let is_manifest = |child: &&Descriptor| media::is_manifest(&child.media_type);
        let blobs = manifest
            .children()
            .filter(|child| !is_manifest(child) && !child.is_foreign());
        let mut blobs: Vec<Digest> = blobs.map(|child| child.digest).collect();
        blobs.sort_unstable();
        blobs.dedup();
        // What has begun goes on to its end: broken off it would be sent anew.
        let has_failed = AtomicBool::new(false);
        let has_failed = &has_failed;
        let sent = stream::iter(blobs).map(|digest| async move {
            if has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            // On the heap, as are those of the manifests: they lie within each other, and the stack is 2 MiB.
            let sent = Box::pin(self.send_blob(parent, repository, &digest)).await;
            sent.inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
        });
        let outcomes: Vec<_> = sent.buffer_unordered(BLOBS).collect().await;
        outcomes.into_iter().collect::<Result<(), Trouble>>()?;
        for child in manifest.children().filter(is_manifest) {
            // An index may be copied in part.
            let is_here = self.shared.store.linked(repository, &child.digest).is_some();
            if is_here && depth < DEEPEST {
                self.send_manifest(parent, repository, child.digest, depth + 1).await?;
            }
        }
        Ok(())
    }

    /// Sends a manifest under a name.
    pub(super) async fn put(
        &self,
        parent: &Parent,
        repository: &Repository,
        reference: &Reference,
        held: &Held,
        manifest: &Manifest,
    ) -> Result<crate::parent::Put, Trouble> {
        let media_type = type_of(held, manifest);
        let bytes = held.bytes().clone();
        let put = parent
            .put_manifest(CLASS, repository, reference, media_type, bytes)
            .await;
        put.map_err(|error| {
            // It may lack what it had a moment ago.
            if matches!(error, Error::Absent { .. } | Error::Failed { status: 400..500, .. }) {
                self.shared.seen.forget();
            }
            match error {
                Error::Absent { layer } => Trouble::Refused(format!(
                    "{layer} does not take {reference}: it says 404, so it lacks what the manifest needs, or the repository is to be made there first"
                )),
                // It takes pushes: the blobs are there.
                error @ Error::Failed { status: 405 | 501, .. } => Trouble::Refused(error.to_string()),
                error => error.into(),
            }
        })
    }

    /// What is not to be had here: for a moment, or for good.
    pub(super) fn lost(&self, digest: &Digest) -> Trouble {
        if self.shared.store.is_on_record(digest) {
            return Trouble::Moment {
                words: format!("the disk does not give {digest} back"),
                wish: None,
                failure: Failure::Moment,
            };
        }
        Trouble::Lost(*digest)
    }

    pub(super) fn not_kept(&self, parent: &Parent, reference: &Reference) -> Trouble {
        self.shared.seen.forget();
        Trouble::Moment {
            words: format!("{} took {reference}, and does not have it", parent.name()),
            wish: None,
            failure: Failure::Moment,
        }
    }

    /// Whether the parent has a manifest under a name, as it is here, once it was put there.
    pub(super) async fn has_manifest(
        &self,
        parent: &Parent,
        repository: &Repository,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, Trouble> {
        match self.look(parent, repository, reference).await? {
            Seen::There(Some(there)) => Ok(there == *digest),
            // Asked for by digest it has nothing else.
            Seen::There(None) if matches!(reference, Reference::Digest(_)) => Ok(true),
            // It does not say what a tag means.
            Seen::There(None) => {
                let bytes = self.read(parent, repository, reference, DOCUMENT).await?;
                Ok(bytes.is_some_and(|bytes| Digest::of_with(digest.algorithm(), &bytes) == *digest))
            }
            Seen::Missing | Seen::Unknown => Ok(false),
        }
    }

    /// Asks for the head of something that may not be there. Registries refuse to show what does not exist yet: the push will
    /// tell.
    pub(super) async fn ask(&self, parent: &Parent, repository: &Repository, what: What<'_>) -> Result<Seen, Trouble> {
        match self.ask_for(parent, repository, what).await {
            Err(Error::Denied { .. }) => Ok(Seen::Unknown),
            seen => Ok(seen?),
        }
    }

    /// Asks what a name means at the parent, and has to know it.
    pub(super) async fn look(
        &self,
        parent: &Parent,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Seen, Trouble> {
        let seen = self.ask_for(parent, repository, What::Manifest(reference)).await;
        seen.map_err(|error| match error {
            Error::Denied { .. } => {
                let words =
                    format!("{error}: what is pushed there has to be looked at; the account must be able to pull, too");
                match Trouble::from(error) {
                    Trouble::Denied(_) => Trouble::Denied(words),
                    _ => Trouble::Shut(words),
                }
            }
            error => error.into(),
        })
    }

    async fn ask_for(&self, parent: &Parent, repository: &Repository, what: What<'_>) -> Result<Seen, Error> {
        let hops = Hops::default();
        let ask = Ask {
            head: true,
            patience: PATIENCE,
            ..Ask::new(CLASS, repository, what, &hops, ANSWER)
        };
        match parent.ask(ask).await {
            Ok(answer) => Ok(Seen::There(answer.head.digest)),
            Err(Error::Absent { .. }) => Ok(Seen::Missing),
            // What it says of those above it is no reason to keep it from what it can have.
            Err(error) if parent.is_wharf() && is_from_above(parent, &error) => Ok(Seen::Unknown),
            // It may have half of it, and look no further: what is sent anew it can take.
            Err(Error::Failed { status: 500, .. }) if self.shared.state.lock().moments(repository) >= LASTING => {
                Ok(Seen::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &self,
        parent: &Parent,
        repository: &Repository,
        number: u64,
        name: &Reference,
        was: Option<Digest>,
    ) -> Result<Outcome, Trouble> {
        let is_pushed_since = self.shared.store.is_pushed_since(repository, number, name);
        if is_pushed_since || !self.shared.config.get().policy_of(repository).deletes {
            let reason = if is_pushed_since {
                "it was pushed again since"
            } else {
                "`deletes` is off"
            };
            tracing::info!(%repository, %name, reason, "a delete is not delivered");
            return Ok(Outcome::Void);
        }
        if let Reference::Tag(tag) = name {
            match self.look(parent, repository, name).await? {
                Seen::There(Some(there)) if !self.is_ours(repository, number, tag, was, &there) => {
                    tracing::warn!(%repository, %name, there = %there, "the parent has something else by now under a tag that was deleted here; it stays");
                    self.shared.metrics.undone("moved");
                    return Ok(Outcome::Void);
                }
                Seen::Missing => return Ok(Outcome::Paid),
                Seen::There(_) | Seen::Unknown => {}
            }
        }
        match parent.delete(CLASS, repository, name).await {
            Ok(()) | Err(Error::Absent { .. }) => Ok(Outcome::Paid),
            Err(Error::Failed {
                status: status @ (400 | 405 | 501),
                ..
            }) => {
                tracing::warn!(%repository, %name, status, "the parent does not delete by such a name; what was deleted here is only hidden here");
                self.shared.metrics.undone("unsupported");
                Ok(Outcome::Void)
            }
            // An account may push and not delete: nobody else waits for that.
            Err(error @ Error::Denied { .. }) => Err(Trouble::Refused(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// The body of a document at the parent. `None` if there is none.
    pub(super) async fn read(
        &self,
        parent: &Parent,
        repository: &Repository,
        reference: &Reference,
        most: usize,
    ) -> Result<Option<Bytes>, Trouble> {
        let hops = Hops::default();
        let ask = Ask::new(CLASS, repository, What::Manifest(reference), &hops, ANSWER);
        match parent.ask(ask).await {
            Ok(answer) => Ok(Some(answer.bytes(most).await?)),
            Err(Error::Absent { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The type that a manifest came with, else the one that it claims.
pub(super) fn type_of<'a>(held: &'a Held, manifest: &'a Manifest) -> &'a str {
    match held.media_type() {
        "" | media::OCTET_STREAM => manifest.media_type_guess(),
        own => own,
    }
}

/// Whether a node says that it cannot ask further up.
fn is_from_above(parent: &Parent, error: &Error) -> bool {
    error.layer() != parent.name()
        || matches!(
            error,
            Error::Failed {
                status: 502..=504,
                told: true,
                ..
            }
        )
}
