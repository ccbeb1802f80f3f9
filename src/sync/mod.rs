//! Fetching before anyone asks: what rules select is brought here by the same flights that serve clients, and shown once it is
//! whole. A client that wants something sooner joins.

mod closure;
mod config;
mod pass;
mod state;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use config::Rule;
pub use pass::{Planned, PlannedTag};
pub use state::{Pass, Progress, Report, RuleReport, Scope, State, Trigger};

use self::state::Book;
use crate::fetch::{Asker, Fetch};
use crate::parent::{Class, Hops};
use crate::router::Names;
use crate::store::Store;
use crate::units::{Clock, Live};

/// How often it is looked whether all that is selected is here.
const EVERY: Duration = Duration::from_secs(60);

/// After a pass that did not bring all, and while the parent is away.
const AGAIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(500);

/// How long a question may take; what it brings takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes that may wait.
const ORDERS: usize = 100;

/// Whoever brings what is selected. Cheap to clone.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    rules: Live<Vec<Rule>>,
    names: Names,
    store: Store,
    fetch: Fetch,
    book: Mutex<Book>,
    /// Something was asked for.
    wake: Notify,
    /// Of blobs, so many at a time: clients find room beside them.
    turns: Semaphore,
    clock: Clock,
}

impl Syncer {
    /// For what `rules` select, by the names that clients use; at most `at_once` blobs at a time.
    pub fn new(rules: Live<Vec<Rule>>, names: Names, store: Store, fetch: Fetch, at_once: usize, clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules,
                names,
                store,
                fetch,
                book: Mutex::new(Book::new()),
                wake: Notify::new(),
                turns: Semaphore::new(at_once.max(1)),
                clock,
            }),
        }
    }

    /// Makes passes, for as long as the node runs: one at the start, one a minute, and whichever is asked for.
    pub async fn run(self) {
        let shared = &self.shared;
        shared.recall().await;
        let mut trigger = Trigger::InitialSync;
        let mut due = shared.clock.now();
        let mut rules = shared.rules.get().clone();
        loop {
            if !Arc::ptr_eq(&rules, &shared.rules.get()) {
                rules = shared.rules.get().clone();
                (trigger, due) = (Trigger::SelectionUpdate, shared.clock.now());
                shared.recall().await;
            }
            let left = due.saturating_duration_since(shared.clock.now());
            let is_away = shared.fetch.away(shared.names.unprefixed()).is_some();
            let order = shared.book.lock().orders.front().cloned();
            match order {
                // It waits for the parent.
                _ if is_away => {}
                Some(scope) => {
                    shared.pass(Trigger::ManualResync, &scope).await;
                    shared.book.lock().orders.pop_front();
                    if !shared.is_in_sync() {
                        due = due.min(shared.clock.now() + AGAIN);
                    }
                    continue;
                }
                None if left.is_zero() && !rules.is_empty() => {
                    shared.pass(trigger, &Scope::default()).await;
                    trigger = Trigger::Scheduled;
                    due = shared.clock.now() + if shared.is_in_sync() { EVERY } else { AGAIN };
                    continue;
                }
                None => {}
            }
            let pause = if is_away { LOOK } else { left.clamp(LOOK, EVERY) };
            let _ = tokio::time::timeout(pause.min(AGAIN), shared.wake.notified()).await;
        }
    }

    /// Has a pass made over what `scope` names, as soon as the parent is there. It comes after the pass of the number that is
    /// returned; `None`: too many wait already.
    pub fn order(&self, scope: Scope) -> Option<u64> {
        let mut book = self.shared.book.lock();
        let after = book.pass.number;
        // The first may be under way, and have seen what there is by now, or not.
        if !book.orders.iter().skip(1).any(|other| *other == scope) {
            if book.orders.len() >= ORDERS {
                return None;
            }
            book.orders.push_back(scope);
        }
        drop(book);
        self.shared.wake.notify_one();
        Some(after)
    }

    /// What such a pass would do. Manifests are fetched for it, blobs are not.
    pub async fn plan(&self, scope: &Scope) -> Planned {
        self.shared.planned(scope).await
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        let book = self.shared.book.lock();
        Report {
            pass: book.pass.clone(),
            waiting: book.orders.len(),
            rules: book.rules.clone(),
            away: self.shared.fetch.away(self.shared.names.unprefixed()),
        }
    }

    /// The same name as this node spells it; `None` if nothing can be called so.
    pub fn respell(&self, name: &str) -> Option<String> {
        self.shared.names.respell(name)
    }
}

impl Shared {
    /// Whether the last pass brought all that it was to.
    fn is_in_sync(&self) -> bool {
        self.book.lock().pass.sync_state == State::Succeeded
    }

    fn asker(&self) -> Asker {
        Asker::new(Hops::default(), Class::Synchronisation, self.clock.now() + PATIENCE)
    }
}
