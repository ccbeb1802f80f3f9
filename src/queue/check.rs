//! Looking now and then whether the parent still has what was delivered: it may have been restored from an old backup.

use std::time::Duration;

use super::{CLASS, Queue, Seen};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, media};
use crate::parent::{Parent, What};
use crate::store::{Debt, Named};

/// Between two questions: nobody waits for them.
const PAUSE: Duration = Duration::from_millis(50);

/// After the start it is looked that soon.
const FIRST: Duration = Duration::from_secs(15 * 60);

/// What is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    Manifests,
    Tags,
}

impl Queue {
    /// Looks for what was delivered, for as long as the node runs.
    pub async fn watch(self) {
        let Some(parent) = self.shared.parent.clone() else {
            return;
        };
        let every = self.shared.config.get().check_every;
        // A node may never run for as long as that.
        let mut wait = every.min(FIRST);
        loop {
            tokio::time::sleep(wait).await;
            self.check_all(&parent).await;
            wait = every;
        }
    }

    async fn check_all(&self, parent: &Parent) {
        let address = parent.address();
        let store = &self.shared.store;
        let mut has_lost = false;
        // A tag alone may have been deleted there; a parent that lost more lost that too.
        for look in [Look::Manifests, Look::Tags] {
            for repository in store.with_debts() {
                self.tidy(&repository).await;
                let debts = store.debts(&repository);
                for debt in debts.iter().filter(|debt| debt.is_paid() && debt.to == address) {
                    if parent.is_shut(CLASS).is_some() {
                        return;
                    }
                    match self.check(parent, &repository, debt, look).await {
                        Ok(lost) => has_lost |= lost,
                        Err(words) => {
                            tracing::warn!(%repository, reason = words, "whether the parent still has what was delivered could not be found out");
                            break;
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if !has_lost {
                return;
            }
        }
    }

    /// Pushes again what the parent has lost of a push; whether it has.
    async fn check(&self, parent: &Parent, repository: &Repository, debt: &Debt, look: Look) -> Result<bool, String> {
        let Some(digest) = debt.pushed() else { return Ok(false) };
        let reference = Reference::Digest(*digest);
        // Delivered again once, it was deleted there; or here, and there; or it has no name any more, and was swept away.
        let store = &self.shared.store;
        if debt.is_again || store.hides(repository, &reference, digest) || store.is_superseded(repository, digest) {
            return Ok(false);
        }
        let seen = self.ask(parent, repository, What::Manifest(&reference)).await;
        let has_it = match (look, seen.map_err(|trouble| trouble.words())?) {
            (Look::Manifests, Seen::Missing) => false,
            (Look::Tags, Seen::There(_)) => true,
            _ => return Ok(false),
        };
        let tags = self.lost_tags(parent, repository, debt, digest, has_it).await?;
        if has_it && tags.is_empty() {
            return Ok(false);
        }
        let needs = self.needs(repository, digest).await;
        let (store, named, debt) = (store.clone(), repository.clone(), debt.clone());
        let number = debt.number;
        let owed = match needs {
            Some((needs, subject)) => {
                let owe = move || store.owe_again(&named, &debt, tags, &needs, subject);
                let owed = tokio::task::spawn_blocking(owe).await;
                owed.map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?
            }
            None => false,
        };
        if !owed && self.shared.store.hides(repository, &reference, digest) {
            // Deleted here while it was asked for.
            return Ok(false);
        }
        self.shared.seen.forget();
        if owed {
            tracing::error!(%repository, %digest, "the parent lost what it had taken; it is delivered again");
            self.shared.metrics.again.inc();
        } else {
            tracing::error!(%repository, %digest, "the parent lost what it had taken, and it is not whole here any more; push it again");
            self.shared.metrics.lost.inc();
            let _ = self.shared.store.forget_debt(repository, number);
        }
        Ok(true)
    }

    /// The tags of a push that the parent has no more, or has as they were before. What others put there since is theirs.
    async fn lost_tags(
        &self,
        parent: &Parent,
        repository: &Repository,
        debt: &Debt,
        digest: &Digest,
        has_it: bool,
    ) -> Result<Vec<Named>, String> {
        let mut lost = Vec::new();
        for named in self.shared.store.standing_tags(repository, debt) {
            let reference = Reference::Tag(named.tag.clone());
            let seen = self.ask(parent, repository, What::Manifest(&reference)).await;
            let is_lost = match seen.map_err(|trouble| trouble.words())? {
                Seen::Missing => true,
                Seen::There(Some(there)) if !has_it => {
                    there == *digest || self.is_ours(repository, debt.number, &named.tag, named.was, &there)
                }
                Seen::There(_) | Seen::Unknown => false,
            };
            if is_lost {
                lost.push(named);
            }
        }
        Ok(lost)
    }

    /// All that a manifest needs and that lies here, and what it is about. `None` if the manifest is not here.
    async fn needs(&self, repository: &Repository, digest: &Digest) -> Option<(Vec<Digest>, Option<Digest>)> {
        let store = &self.shared.store;
        let held = store.manifest_of(repository, digest).await.ok().flatten()?;
        let manifest = Manifest::parse(held.bytes()).ok()?;
        let is_part = |child: &&Descriptor| {
            // An index may be copied in part.
            !media::is_manifest(&child.media_type) || store.linked(repository, &child.digest).is_some()
        };
        let needs = manifest.children().filter(is_part).map(|child| child.digest).collect();
        Some((needs, manifest.subject.map(|subject| subject.digest)))
    }
}
