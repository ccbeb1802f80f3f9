//! For whom something is fetched, and until when: one deadline per request, however many questions it takes.
//!
//! Waiting is bounded here, work is not: a flight, or a question that many wait for, outlives each of them and
//! has a budget of its own.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{Error, Shared};
use crate::oci::Repository;
use crate::parent::{self, Class, Hops};

/// For whom something is fetched.
#[derive(Clone)]
pub struct Asker {
    /// The nodes that the request has passed.
    pub hops: Hops,
    /// How urgent it is.
    pub class: Class,
    /// By then there is an answer, if only the one that there is none. Bytes behind its header may take longer.
    pub deadline: Instant,
}

impl Shared {
    /// What `wanted` brings until the deadline of `asker`.
    ///
    /// # Errors
    ///
    /// Its own, or that the parent did not answer in time.
    pub(super) async fn in_time<T>(
        &self,
        repository: &Repository,
        asker: &Asker,
        wanted: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within(self.config.answer_within, repository, asker, wanted).await
    }

    /// The same, if it does not take longer than `patience`.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        repository: &Repository,
        asker: &Asker,
        wanted: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let left = asker.deadline.saturating_duration_since(self.clock.now());
        match tokio::time::timeout(patience.min(left), wanted).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let layer = self.parent(repository)?.name().to_owned();
                Err(parent::Error::TimedOut { layer, after: patience }.into())
            }
        }
    }
}
