//! Paying the pushes and deletes that the store has on record as owed to the parent.
//!
//! In each repository they are paid in the order in which they were taken in; repositories do not wait for each other,
//! and nobody waits for one that the parent refuses. A debt is paid once the parent has said 201 and shows the same.

mod blob;
mod check;
mod config;
mod fallback;
mod list;
mod metrics;
mod pay;
mod state;
mod tag;
mod trouble;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use config::{Config, Conflict, Policy, Rule};
pub use list::{Item, Listing, Which};
pub use metrics::Metrics;

use self::pay::Outcome;
use self::state::{Failure, Later, SEEK, State};
use self::trouble::Trouble;
use self::turns::Turns;
use crate::oci::{Digest, Repository};
use crate::parent::{Class, Parent};
use crate::store::{self, Debt, Store};
use crate::units::{Clock, Live};

/// Of every request to the parent.
const CLASS: Class = Class::WriteBack;

/// Debts of a repository that are paid before others may have their turn.
const TURN: usize = 16;

/// How often it is looked whether a parent that is away is back.
const LOOK: Duration = Duration::from_millis(200);

/// How long nothing happens where nothing is owed.
const IDLE: Duration = Duration::from_secs(60);

/// What was deleted at the parent is hidden for that long yet: somebody may have asked for it just before.
const HIDDEN: Duration = Duration::from_secs(300);

fn hidden() -> Duration {
    fail_point!("queue.hidden", |_| Duration::ZERO);
    HIDDEN
}

/// Debts of a repository that are remembered once they are paid.
const REMEMBERED: usize = 1000;

/// What waits for the parent, and whoever brings it there. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    config: Live<Config>,
    /// Bytes that may wait.
    capacity: u64,
    store: Store,
    /// `None`: what is owed waits for one.
    parent: Option<Parent>,
    node: String,
    state: Mutex<State>,
    /// Something may be tried again, or somebody has ended.
    wake: Notify,
    turns: Turns,
    seen: Known,
    clock: Clock,
    /// Told of each repository to which the parent took a push.
    delivered: Box<dyn Fn(&Repository) + Send + Sync>,
    metrics: Metrics,
}

/// What the parent says to a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// It has it, and names it so.
    There(Option<Digest>),
    /// It does not.
    Missing,
    /// It cannot say now.
    Unknown,
}

/// Blobs that the parent was seen to have, each in a repository, for a while.
struct Known(Cache<(Repository, Digest), ()>);

impl Known {
    fn new() -> Self {
        let known = Cache::builder().max_capacity(100_000);
        Self(known.time_to_live(Duration::from_secs(600)).build())
    }

    fn has(&self, repository: &Repository, digest: &Digest) -> bool {
        self.0.contains_key(&(repository.clone(), *digest))
    }

    fn note(&self, repository: &Repository, digest: &Digest) {
        self.0.insert((repository.clone(), *digest), ());
    }

    /// The parent lost something: nothing is believed.
    fn forget(&self) {
        self.0.invalidate_all();
    }
}

/// To whom it is owed.
pub struct Above {
    /// Who takes pushes, if anybody does.
    pub parent: Option<Parent>,
    /// Told of each repository to which the parent took a push.
    pub delivered: Box<dyn Fn(&Repository) + Send + Sync>,
}

impl Queue {
    /// Of what `store` has on record. `node` is this node's name; `capacity` in bytes.
    pub fn new(
        config: Live<Config>,
        capacity: u64,
        store: Store,
        above: Above,
        node: &str,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let Above { parent, delivered } = above;
        Self {
            shared: Arc::new(Shared {
                config,
                capacity,
                store,
                parent,
                node: node.to_owned(),
                state: Mutex::default(),
                wake: Notify::new(),
                turns: Turns::default(),
                seen: Known::new(),
                clock,
                delivered,
                metrics,
            }),
        }
    }

    /// Pays for as long as the node runs.
    pub async fn run(self) {
        let mut changed = self.shared.store.debts_changed();
        // It may have ended before it could.
        for repository in self.shared.store.with_debts() {
            self.tidy(&repository).await;
        }
        let unpaid = self.unpaid();
        for (repository, debt) in &unpaid {
            if matches!(debt.state, store::State::Parked { .. }) {
                let now = self.shared.clock.now();
                self.shared.state.lock().parks(repository, debt.number, now);
            }
        }
        self.say_what_is_held(unpaid.iter().map(|(_, debt)| debt));
        loop {
            let wait = self.begin();
            tokio::select! {
                _ = changed.changed() => {}
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// At the start: what is for another parent is not delivered by itself.
    fn say_what_is_held<'a>(&self, debts: impl Iterator<Item = &'a Debt>) {
        let address = self.shared.parent.as_ref().map(Parent::address);
        let mut held = BTreeMap::<&str, u64>::new();
        for debt in debts.filter(|debt| Some(&debt.to) != address.as_ref()) {
            *held.entry(&debt.to).or_default() += 1;
        }
        let address = address.as_deref().unwrap_or("none");
        for (to, count) in held {
            tracing::warn!(
                count,
                to,
                parent = address,
                "what is owed to another parent is held; see `wharf queue list`"
            );
        }
    }

    /// Begins what can be paid now; how long there is nothing to begin.
    fn begin(&self) -> Duration {
        let Some(parent) = &self.shared.parent else { return IDLE };
        let indebted = self.shared.store.indebted();
        if indebted.is_empty() {
            self.shared.state.lock().forget_all();
            return IDLE;
        }
        let now = self.shared.clock.now();
        // A window has its hours, however long the parent is there.
        if parent.closed(CLASS).is_some() {
            return LOOK;
        }
        if parent.away().is_some() {
            if self.shared.state.lock().seeks(now) {
                parent.seek();
            }
            return LOOK;
        }
        let address = parent.address();
        self.unpark(&address);
        let mut wait = IDLE;
        let mut state = self.shared.state.lock();
        state.sees_closed(parent.refuses_pushes());
        if let Some(until) = state.paused_until(now) {
            return (until - now).min(SEEK);
        }
        let mut due = self.shared.store.due(&address);
        state.in_turn(&mut due);
        for repository in due {
            if state.is_paying(&repository) {
                continue;
            }
            if let Some(until) = state.waits_until(&repository, now) {
                wait = wait.min(until - now);
                continue;
            }
            if state.payers() >= self.shared.config.get().repositories {
                break;
            }
            state.begins(&repository);
            let turn = Turn {
                queue: self.clone(),
                repository,
            };
            tokio::spawn(turn.pay(parent.clone(), address.clone()));
        }
        wait
    }

    /// What to do after an attempt that did not pay. Whether the next debt of the repository may be tried now.
    fn put_off(&self, repository: &Repository, debt: &Debt, trouble: &Trouble) -> bool {
        let shared = &self.shared;
        shared.metrics.failed(trouble.label());
        let now = shared.clock.now();
        let mut state = shared.state.lock();
        let words = trouble.words();
        match trouble {
            Trouble::Closed(_) => {
                tracing::info!(%repository, number = debt.number, reason = words, "a push waits for the window");
                false
            }
            Trouble::Moment { wish, failure, .. } => {
                let later = state.fails(repository, debt.number, &words, now, *wish, *failure);
                if state.is_poison(&later) {
                    state.forget(repository);
                    drop(state);
                    self.park(repository, debt, words);
                    return true;
                }
                if later.is_lasting() && later.tries == Later::MANY {
                    tracing::error!(
                        %repository, number = debt.number, tries = later.tries, reason = words,
                        "the parent fails again and again to take a push; it is tried on, and what was pushed after it waits"
                    );
                }
                tracing::info!(%repository, number = debt.number, tries = later.tries, wait_ms = later.wait(now).as_millis(), reason = words, "a push waits for the parent");
                false
            }
            Trouble::Refused(_) => {
                let later = state.fails(repository, debt.number, &words, now, None, Failure::Refusal);
                if later.tries < Later::TRIES {
                    return false;
                }
                state.forget(repository);
                drop(state);
                self.park(repository, debt, words);
                true
            }
            Trouble::Lost(_) => {
                state.forget(repository);
                drop(state);
                self.park(repository, debt, words);
                true
            }
            Trouble::Denied(_) => {
                if state.denies(repository, debt.number, &words, now) {
                    tracing::error!(%repository, reason = words, "the parent refuses pushes to a repository; they are kept, and tried again now and then");
                }
                false
            }
            Trouble::Shut(_) => {
                // Where others may push meanwhile it is this repository alone.
                let is_alone = state.is_shut_alone(repository);
                state.shuts(repository, debt.number, &words, now);
                if !is_alone && state.pauses(&words, now) {
                    tracing::error!(
                        reason = words,
                        "the parent lets this node push nothing; what is owed is kept, and tried again now and then"
                    );
                }
                false
            }
        }
    }

    /// Has what was parked long ago tried again: nobody may have come to look at it, and the parent may take it by now.
    fn unpark(&self, address: &str) {
        let due = self.shared.state.lock().unparks(self.shared.clock.now());
        for (repository, number) in due {
            let debt = self.shared.store.debt(&repository, number);
            let is_parked =
                debt.is_some_and(|debt| debt.to == address && matches!(debt.state, store::State::Parked { .. }));
            if !is_parked {
                self.shared.state.lock().leaves(&repository, number);
            } else if let Err(error) = self.shared.store.turn_debt(&repository, number, address) {
                tracing::warn!(%repository, %error, "that a push is tried again could not be written down");
            }
        }
    }

    fn park(&self, repository: &Repository, debt: &Debt, reason: String) {
        tracing::error!(
            %repository, number = debt.number, reason,
            "a push is parked: the parent does not take it; see `wharf queue list`"
        );
        let now = self.shared.clock.now();
        self.shared.state.lock().parks(repository, debt.number, now);
        let parked = store::State::Parked { reason };
        if let Err(error) = self.shared.store.set_debt(repository, debt.number, parked) {
            tracing::warn!(%repository, %error, "that a push is parked could not be written down");
        }
    }

    /// Writes down that a debt is no more.
    fn settle(&self, repository: &Repository, debt: &Debt, outcome: Outcome) -> Result<(), store::Error> {
        fail_point!("queue.settle");
        let store = &self.shared.store;
        let now = self.shared.clock.now();
        self.shared.state.lock().succeeds(repository, now);
        match outcome {
            Outcome::Void if debt.pushed().is_some() => store.forget_debt(repository, debt.number)?,
            // A delete is remembered as well: what it took away is not to come again.
            Outcome::Void => store.set_debt(repository, debt.number, store::undone_now())?,
            Outcome::Paid => store.set_debt(repository, debt.number, store::paid_now())?,
        }
        if outcome == Outcome::Paid {
            (self.shared.delivered)(repository);
            self.shared.metrics.paid.inc();
            let what = if debt.pushed().is_some() { "push" } else { "delete" };
            tracing::info!(%repository, number = debt.number, reference = list::reference(debt), what, "delivered");
        }
        Ok(())
    }

    /// So many bytes of a blob are there.
    fn got_on(&self, repository: &Repository, digest: &Digest, size: u64) {
        self.shared.state.lock().gets_on(repository, digest, size);
    }

    fn report(&self, repository: &Repository, digest: &Digest, size: u64, sent: u64) {
        self.shared.state.lock().sends(repository, *digest, size, sent);
    }
}

/// The right to pay the debts of a repository, which nobody else does meanwhile.
struct Turn {
    queue: Queue,
    repository: Repository,
}

impl Turn {
    async fn pay(self, parent: Parent, address: String) {
        let (queue, repository) = (&self.queue, &self.repository);
        let store = &queue.shared.store;
        for _ in 0..TURN {
            let Some(debt) = store.first_owed(repository, &address) else {
                break;
            };
            queue.shared.state.lock().pays(repository, debt.number);
            let outcome = Box::pin(queue.pay(&parent, repository, &debt)).await;
            let goes_on = match outcome {
                Ok(outcome) => match queue.settle(repository, &debt, outcome) {
                    Ok(()) => true,
                    Err(error) => queue.put_off(repository, &debt, &error.into()),
                },
                Err(trouble) => queue.put_off(repository, &debt, &trouble),
            };
            if !goes_on {
                return;
            }
        }
        if store.first_owed(repository, &address).is_none() {
            queue.tidy(repository).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.shared.state.lock().ends(&self.repository);
        self.queue.shared.wake.notify_one();
    }
}

impl Queue {
    /// What the parent has, or is not to have, may be evicted again.
    async fn tidy(&self, repository: &Repository) {
        let store = &self.shared.store;
        let tidied = match store.release(repository).await {
            Ok(true) => store
                .forget_paid(repository, self.shared.config.get().remember, REMEMBERED)
                .and_then(|()| store.unbury(repository, hidden()))
                .and_then(|()| store.forget_sendings(repository)),
            // More is pushed: another time.
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = tidied {
            tracing::warn!(%repository, %error, "what the parent has could not be let go of; it stays, and is tried again");
        }
    }
}
