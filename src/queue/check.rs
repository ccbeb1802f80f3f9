//! Looking now and then whether the parent still has what was delivered: it may have been restored from an old backup.

use std::time::Duration;

use super::{Queue, Seen};
use crate::oci::{Descriptor, Manifest, Reference, Repository, media};
use crate::parent::{Parent, What};
use crate::store::Debt;

/// Between two questions: nobody waits for them.
const PAUSE: Duration = Duration::from_millis(50);

impl Queue {
    /// Looks for what was delivered, for as long as the node runs.
    pub async fn watch(self) {
        let Some(parent) = self.shared.parent.clone() else {
            return;
        };
        loop {
            tokio::time::sleep(self.shared.config.check_every).await;
            self.check_all(&parent).await;
        }
    }

    async fn check_all(&self, parent: &Parent) {
        let address = parent.address();
        let store = &self.shared.store;
        for repository in store.with_debts() {
            let _ = store.forget_paid(&repository, self.shared.config.remember, super::REMEMBERED);
            let debts = store.debts(&repository);
            for debt in debts.iter().filter(|debt| debt.is_paid() && debt.to == address) {
                if parent.away().is_some() {
                    return;
                }
                if let Err(words) = self.check(parent, &repository, debt).await {
                    tracing::warn!(%repository, reason = words, "whether the parent still has what was delivered could not be found out");
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Pushes a manifest again that the parent has lost.
    async fn check(&self, parent: &Parent, repository: &Repository, debt: &Debt) -> Result<(), String> {
        let Some(digest) = debt.pushed() else { return Ok(()) };
        let reference = Reference::Digest(*digest);
        match self.ask(parent, repository, What::Manifest(&reference)).await {
            Ok(Seen::There(_) | Seen::Unknown) => return Ok(()),
            Ok(Seen::Missing) => {}
            Err(trouble) => return Err(trouble.words()),
        }
        if self.shared.store.hides(repository, &reference, digest) {
            // It was deleted here, and there.
            return Ok(());
        }
        let needs = self.needs(repository, digest).await;
        let (store, named, debt) = (self.shared.store.clone(), repository.clone(), debt.clone());
        let owed = match needs {
            Some((needs, subject)) => {
                let owe = move || store.owe_again(&named, &debt, &needs, subject);
                let owed = tokio::task::spawn_blocking(owe).await;
                owed.map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?
            }
            None => false,
        };
        self.shared.seen.forget();
        if owed {
            tracing::error!(%repository, %digest, "the parent lost what it had taken; it is delivered again");
            self.shared.metrics.again.inc();
        } else {
            tracing::error!(%repository, %digest, "the parent lost what it had taken, and it is not whole here any more; push it again");
            self.shared.metrics.lost.inc();
            let _ = self
                .shared
                .store
                .forget_debts(repository, &[self.number_of(repository, digest)]);
        }
        Ok(())
    }

    fn number_of(&self, repository: &Repository, digest: &crate::oci::Digest) -> u64 {
        let debts = self.shared.store.debts(repository);
        let paid = debts
            .iter()
            .find(|debt| debt.is_paid() && debt.pushed() == Some(digest));
        paid.map_or(0, |debt| debt.number)
    }

    /// All that a manifest needs and that lies here, and what it is about. `None` if the manifest is not here.
    async fn needs(
        &self,
        repository: &Repository,
        digest: &crate::oci::Digest,
    ) -> Option<(Vec<crate::oci::Digest>, Option<crate::oci::Digest>)> {
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
