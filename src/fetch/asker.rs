//! For whom something is fetched, and until when: one deadline per request, however many questions it takes.
//!
//! Waiting is bounded here, work is not: a flight, or a question that many wait for, outlives each of them and
//! has a budget of its own.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{Error, Shared};
use crate::oci::Repository;
use crate::parent::{self, Ask, Class, Hops, Parent, What};

/// Who has less time left than this is not waiting any more, as far as a parent is concerned.
const LEAST: Duration = Duration::from_millis(300);

/// For whom something is fetched.
#[derive(Clone)]
pub struct Asker {
    /// The nodes that the request has passed.
    pub hops: Hops,
    /// How urgent it is.
    pub class: Class,
    /// By then there is an answer, if only the one that there is none. Bytes behind its header may take longer.
    pub deadline: Instant,
    /// When the first who asked gives up: a parent that is a node explains itself before that.
    waits_until: Instant,
    /// Whether something older is served if the parent does not answer: it is not asked twice then.
    is_spare: bool,
}

impl Asker {
    /// Who waits until `deadline`, and has nothing to serve instead.
    pub fn new(hops: Hops, class: Class, deadline: Instant) -> Self {
        Self {
            hops,
            class,
            deadline,
            waits_until: deadline,
            is_spare: false,
        }
    }

    /// The work for this asker and for whoever else wants the same, which goes on until `deadline`.
    pub(super) fn for_all(&self, deadline: Instant, is_spare: bool) -> Self {
        Self {
            deadline,
            is_spare,
            ..self.clone()
        }
    }

    /// The same for work that others may join who have nothing older.
    pub(super) fn with_nothing_instead(&self) -> Self {
        self.for_all(self.deadline, false)
    }

    /// Whether somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.class == Class::Interactive
    }

    /// Whether this one would have waited much longer than `other` did.
    pub(super) fn outwaits(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|other| self.waits_until > other.waits_until + Duration::from_millis(100))
    }
}

impl Shared {
    /// The question for the header and the body of `what`, on behalf of `asker`.
    pub(super) fn ask<'a>(&self, asker: &'a Asker, repository: &'a Repository, what: What<'a>) -> Ask<'a> {
        let budget = self.config.answer_within;
        let left = asker.waits_until.saturating_duration_since(self.clock.now());
        Ask {
            // When who began has left, the question has its own time.
            patience: if left < LEAST { budget } else { left.min(budget) },
            is_spare: asker.is_spare,
            ..Ask::new(asker.class, repository, what, &asker.hops, budget)
        }
    }

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
            Err(_) => Err(late(self.parent(repository)?, patience)),
        }
    }
}

/// What `parent` did not answer in `after`.
pub(super) fn late(parent: &Parent, after: Duration) -> Error {
    let layer = parent.name().to_owned();
    parent::Error::TimedOut { layer, after }.into()
}
