//! Fetching before anyone asks: what rules select is brought here by the same flights that serve clients, and shown once it is
//! whole. A client that wants something sooner joins.

mod closure;
mod config;
mod metrics;
mod pass;
mod state;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use config::Rule;
pub use metrics::Metrics;
pub use pass::{Completeness, Planned, PlannedTag};
pub use state::{Pass, Progress, Report, RuleReport, Scope, State, Trigger};

use self::closure::Want;
use self::pass::Taken;
use self::state::Book;
use crate::fetch::{Asker, Fetch};
use crate::oci::{Digest, Repository, Tag};
use crate::parent::{Class, Hops};
use crate::router::Names;
use crate::select::Platform;
use crate::store::Store;
use crate::units::{Clock, Live, Moment};

/// How often it is looked whether all that is selected is here.
const EVERY: Duration = Duration::from_secs(60);

/// After a pass that did not bring all, longer each time; and while the parent is away.
const AGAIN: Duration = Duration::from_secs(5);
const MOST_AGAIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(500);

/// How long a question may take; what it brings takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what refers to a manifest is taken to be what it was: no list of tags tells, and it costs a question each.
const REFERRED: Duration = Duration::from_secs(3600);

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
    /// Manifests of which the parent was asked lately what refers to them.
    referred: moka::sync::Cache<(Repository, Digest), ()>,
    taken: Mutex<Taken>,
    /// One at a time says what a pass would do.
    planning: Semaphore,
    begun: Instant,
    clock: Clock,
    metrics: Metrics,
}

impl Syncer {
    /// For what `rules` select, by the names that clients use; at most `at_once` blobs at a time.
    pub fn new(
        rules: Live<Vec<Rule>>,
        names: Names,
        store: Store,
        fetch: Fetch,
        at_once: usize,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules,
                names,
                store,
                fetch,
                book: Mutex::new(Book::new()),
                wake: Notify::new(),
                turns: Semaphore::new(at_once.max(1)),
                referred: moka::sync::Cache::builder()
                    .max_capacity(100_000)
                    .time_to_live(REFERRED)
                    .build(),
                taken: Mutex::default(),
                planning: Semaphore::new(1),
                begun: clock.now(),
                clock,
                metrics,
            }),
        }
    }

    /// Makes passes, for as long as the node runs: one at the start, one a minute, and whichever is asked for.
    pub async fn run(self) {
        let shared = &self.shared;
        shared.recall().await;
        let mut trigger = Trigger::InitialSync;
        let (mut due, mut again, mut is_away) = (shared.clock.now(), AGAIN, false);
        let mut rules = shared.rules.get().clone();
        loop {
            if !Arc::ptr_eq(&rules, &shared.rules.get()) {
                rules = shared.rules.get().clone();
                (trigger, due) = (Trigger::SelectionUpdate, shared.clock.now());
                if rules.is_empty() {
                    shared.store.select_only(HashSet::new());
                }
                shared.recall().await;
            }
            let now = shared.clock.now();
            let was_away = is_away;
            is_away = shared.is_away();
            if was_away && !is_away {
                due = now;
            }
            let left = due.saturating_duration_since(now);
            let order = shared.book.lock().orders.front().cloned();
            match order {
                // It waits for the parent.
                _ if is_away => {}
                Some(scope) => {
                    shared.make(Trigger::ManualResync, scope).await;
                    if shared.is_in_sync() || !shared.is_away() {
                        shared.book.lock().orders.pop_front();
                    }
                    if !shared.is_in_sync() {
                        due = due.min(shared.clock.now() + AGAIN);
                    }
                    continue;
                }
                None if left.is_zero() && !rules.is_empty() => {
                    shared.make(trigger, Scope::default()).await;
                    trigger = Trigger::Scheduled;
                    let is_in_sync = shared.is_in_sync();
                    again = if is_in_sync { AGAIN } else { (again * 2).min(MOST_AGAIN) };
                    due = shared.clock.now() + if is_in_sync { EVERY } else { again };
                    continue;
                }
                None => {}
            }
            let is_idle = rules.is_empty() && shared.book.lock().orders.is_empty();
            let pause = match (is_idle, is_away) {
                (true, _) => AGAIN,
                (false, true) => LOOK,
                (false, false) => left.clamp(LOOK, AGAIN),
            };
            let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
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
        let _turn = self.shared.planning.acquire().await;
        // Boxed, like all that is deep: who waits for it would be as large.
        Box::pin(self.shared.planned(scope)).await
    }

    /// What of a tag lies here, of these platforms, or of all; `None`: it names nothing here.
    pub async fn completeness(&self, name: &str, tag: &Tag, platforms: Vec<Platform>) -> Option<Completeness> {
        let want = Want {
            platforms,
            referrers: true,
        };
        let repository = self.shared.names.meant(name)?;
        Box::pin(self.shared.completeness(&repository, tag, &want)).await
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

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        let shared = &self.shared;
        let well = shared.book.lock().pass.last_successful_sync_end_time;
        let now = Moment::from(shared.clock.wall());
        let lag = match well {
            _ if shared.rules.get().is_empty() => 0,
            Some(well) => now.seconds().saturating_sub(well.seconds()),
            None => shared.clock.now().saturating_duration_since(shared.begun).as_secs(),
        };
        shared.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// The same name as this node spells it; `None` if nothing can be called so.
    pub fn respell(&self, name: &str) -> Option<String> {
        self.shared.names.respell(name)
    }
}

impl Shared {
    /// Makes a pass. If a mistake ends it, the next one is made all the same.
    async fn make(self: &Arc<Self>, trigger: Trigger, scope: Scope) {
        let shared = Arc::clone(self);
        let made = tokio::spawn(async move { shared.pass(trigger, &scope).await }).await;
        if made.is_err() {
            self.book.lock().break_off(self.clock.wall());
        }
    }

    /// The rules, with names as this node spells them.
    fn rules(&self) -> Vec<Rule> {
        let rules = self.rules.get();
        rules.iter().map(|rule| rule.respelled(&self.names)).collect()
    }

    fn is_away(&self) -> bool {
        self.fetch.away(self.names.unprefixed()).is_some()
    }

    /// Whether the last pass brought all that it was to.
    fn is_in_sync(&self) -> bool {
        self.book.lock().pass.sync_state == State::Succeeded
    }

    fn asker(&self) -> Asker {
        Asker::new(Hops::default(), Class::Synchronisation, self.clock.now() + PATIENCE)
    }
}
