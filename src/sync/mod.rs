//! Fetching before anyone asks: what rules select is brought here by the same flights that serve clients, and shown once it is
//! whole. A client that wants something sooner joins.

mod closure;
mod config;
mod deployment;
mod feed;
mod follow;
mod leave;
mod metrics;
mod order;
mod pass;
mod plan;
mod selection;
mod sift;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use config::Rule;
pub use deployment::Deployment;
pub use feed::{Feed, OLDEST as FEED_OLDEST, Question, VERSION as FEED_VERSION};
pub use leave::Leaving;
pub use metrics::Metrics;
pub use order::OrderReport;
pub use pass::Completeness;
pub use plan::{Planned, PlannedDrop, PlannedTag, Why};
pub use state::{Pass, Progress, Report, RuleReport, Scope, State, Trigger};

use self::closure::Want;
use self::follow::{Fed, Following};
use self::leave::Selected;
use self::pass::Taken;
use self::state::Book;
use crate::fetch::{Asker, Fetch};
use crate::oci::{Digest, Registry, Repository, Tag};
use crate::parent::{Class, Hops};
use crate::router::Names;
use crate::select::Platform;
use crate::store::Store;
use crate::units::{Clock, Live, Moment};

/// How often it is looked whether all that is selected is here.
const EVERY: Duration = Duration::from_secs(60);

/// The same where the parent tells what happens: nothing is known to be missed.
const SELDOM: Duration = Duration::from_secs(24 * 3600);

/// The first pass waits so long for the feed: a change before it is heard would be missed, and cost another pass.
const FEED_WITHIN: Duration = Duration::from_secs(2);

/// After a pass that did not bring all, longer each time; and while the parent is away.
const AGAIN: Duration = Duration::from_secs(5);
const MOST_AGAIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(500);

/// How long a question may take; what it brings takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what refers to a manifest is taken to be what it was: no list of tags tells, and it costs a question each.
const REFERRED: Duration = Duration::from_secs(3600);

/// A feed that broke off counts as heard for so long while the parent is there.
const FEED_AGAIN_WITHIN: Duration = Duration::from_secs(90);

/// Whoever brings what is selected. Cheap to clone.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

/// What it works with.
pub struct Parts {
    /// As clients write them.
    pub names: Names,
    /// Where what is meant without any name is, as deployments say it: the parent's address, and this node's.
    pub hosts: Vec<String>,
    /// Where it goes.
    pub store: Store,
    /// Who brings it.
    pub fetch: Fetch,
    /// Where the nodes below are told.
    pub feed: Feed,
    /// What becomes of what is selected no longer, where no rule says it.
    pub leaving: Leaving,
}

pub(crate) struct Shared {
    rules: Live<Vec<Rule>>,
    names: Names,
    hosts: Vec<String>,
    store: Store,
    fetch: Fetch,
    book: Mutex<Book>,
    /// Whether the orders of before are known. Held while orders are written down.
    recalled: tokio::sync::Mutex<bool>,
    /// What the nodes below are told.
    feed: Feed,
    following: Mutex<Following>,
    /// Something was asked for.
    wake: Notify,
    /// Of blobs, so many at a time: clients find room beside them.
    turns: Semaphore,
    /// Manifests of which the parent was asked lately what refers to them.
    referred: moka::sync::Cache<(Repository, Digest), ()>,
    taken: Mutex<Taken>,
    /// All tags that are selected, and those that were.
    selected: Mutex<Selected>,
    /// What becomes of these, where no rule says it.
    leaving: Leaving,
    /// When what is selected was last counted anew after what the parent told.
    settled: Mutex<Instant>,
    /// One at a time says what a pass would do.
    planning: Semaphore,
    begun: Instant,
    clock: Clock,
    metrics: Metrics,
}

impl Syncer {
    /// For what `rules` select, by the names that clients use; at most `at_once` blobs at a time.
    pub fn new(rules: Live<Vec<Rule>>, parts: Parts, at_once: usize, clock: Clock, metrics: Metrics) -> Self {
        let Parts {
            names,
            hosts,
            store,
            fetch,
            feed,
            leaving,
        } = parts;
        Self {
            shared: Arc::new(Shared {
                rules,
                names,
                hosts,
                store,
                fetch,
                book: Mutex::new(Book::new()),
                recalled: tokio::sync::Mutex::new(false),
                feed,
                following: Mutex::default(),
                wake: Notify::new(),
                turns: Semaphore::new(at_once.max(1)),
                referred: moka::sync::Cache::builder()
                    .max_capacity(100_000)
                    .time_to_live(REFERRED)
                    .build(),
                taken: Mutex::default(),
                selected: Mutex::default(),
                leaving,
                settled: Mutex::new(clock.now()),
                planning: Semaphore::new(1),
                begun: clock.now(),
                clock,
                metrics,
            }),
        }
    }

    /// Makes passes, for as long as the node runs: one at the start, one a minute where the parent does not tell what happens, over
    /// what it tells, and whichever is asked for.
    pub async fn run(self) {
        let shared = &self.shared;
        let store = shared.store.clone();
        if let Ok(selected) = tokio::task::spawn_blocking(move || Selected::read(&store)).await {
            *shared.selected.lock() = selected;
        }
        shared.recall_orders().await;
        shared.recall().await;
        shared.await_feed().await;
        let mut next = Next::new(shared.clock.now());
        let mut rules = shared.rules.get().clone();
        let mut is_away = false;
        loop {
            if !Arc::ptr_eq(&rules, &shared.rules.get()) {
                rules = shared.rules.get().clone();
                next.now(Trigger::SelectionUpdate);
                shared.recall().await;
            }
            let was_away = is_away;
            is_away = shared.is_away(Class::Synchronisation);
            if was_away && !is_away && !(next.is_in_sync && shared.is_fed_or_will_be()) {
                next.now(Trigger::Scheduled);
            }
            let order = shared.book.lock().orders.first().cloned();
            if let Some(scope) = order.filter(|_| !shared.is_away(Class::Manual)) {
                shared.book.lock().orders.begin();
                shared.make(Trigger::ManualResync, scope).await;
                // What the parent left in the middle is tried again when it is back.
                let is_over = shared.is_in_sync() || !shared.is_away(Class::Manual);
                shared.book.lock().end_order(is_over);
                shared.write_orders().await;
                if !shared.is_in_sync() {
                    next.fails(shared.clock.now());
                }
                continue;
            }
            // What is selected no longer has to go, also if nothing is.
            let has_work = !rules.is_empty() || !shared.selected.lock().is_empty();
            let wait = match is_away || !has_work {
                true => LOOK,
                false => match shared.due(&mut next) {
                    Ok((trigger, scope)) => {
                        let is_whole = scope.is_whole();
                        shared.make(trigger, scope).await;
                        next.ended(is_whole, shared.is_in_sync(), shared.clock.now());
                        continue;
                    }
                    Err(wait) => wait,
                },
            };
            let is_idle = !has_work && shared.book.lock().orders.is_empty();
            let pause = if is_idle {
                AGAIN
            } else {
                wait.clamp(Duration::from_millis(1), AGAIN)
            };
            let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
        }
    }

    /// Has a pass made over what `scope` names, as soon as the parent is there, also after a restart; what it is called.
    /// `None`: too many wait already.
    pub async fn order(&self, scope: Scope) -> Option<String> {
        self.shared.recall_orders().await;
        let id = self.shared.book.lock().orders.take(scope)?;
        self.shared.write_orders().await;
        self.shared.fetch.seek(self.shared.names.unprefixed());
        self.shared.wake.notify_one();
        Some(id)
    }

    /// How it stands, with an order that somebody asks about; `None`: there is none that is called so, or it was made long ago.
    pub async fn report_with(&self, id: &str) -> Option<Report> {
        self.shared.recall_orders().await;
        let order = {
            let book = self.shared.book.lock();
            book.orders.report(id, &book.pass)?
        };
        Some(Report {
            order: Some(order),
            ..self.report()
        })
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
        // Before the book is held: who holds this one may want that.
        let feed = self.shared.following.lock().state.as_str();
        let book = self.shared.book.lock();
        Report {
            pass: book.pass.clone(),
            unwell: book
                .unwell
                .clone()
                .filter(|_| book.pass.number > 0 && book.pass.sync_state != State::Syncing),
            feed,
            waiting: book.orders.waiting(),
            order: None,
            rules: book.rules.clone(),
            closed: self
                .shared
                .fetch
                .closed(self.shared.names.unprefixed(), Class::Synchronisation),
            away: self.shared.fetch.away(self.shared.names.unprefixed()),
            eta_seconds: book.pass.eta(self.shared.clock.now()),
        }
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        let lag = i64::try_from(self.lag()).unwrap_or(i64::MAX);
        self.shared.metrics.lag.set(lag);
    }

    /// How long ago all that is selected was last known to be here, in seconds.
    pub fn lag(&self) -> u64 {
        let shared = &self.shared;
        let well = shared.book.lock().pass.last_successful_sync_end_time;
        let now = Moment::from(shared.clock.wall());
        match well {
            _ if shared.rules.get().is_empty() => 0,
            Some(well) => now.seconds().saturating_sub(well.seconds()),
            None => shared.clock.now().saturating_duration_since(shared.begun).as_secs(),
        }
    }

    /// The same name as this node spells it; `None` if nothing can be called so.
    pub fn respell(&self, name: &str) -> Option<String> {
        self.shared.names.respell(name)
    }
}

/// When everything is looked at next.
struct Next {
    trigger: Trigger,
    at: Instant,
    /// Whether the last look found all, and when it ended.
    is_in_sync: bool,
    ended: Instant,
    again: Duration,
}

impl Next {
    fn new(now: Instant) -> Self {
        Self {
            trigger: Trigger::InitialSync,
            at: now,
            is_in_sync: false,
            ended: now,
            again: AGAIN,
        }
    }

    /// At once, if it is not under way.
    fn now(&mut self, trigger: Trigger) {
        if self.trigger != Trigger::InitialSync {
            self.trigger = trigger;
        }
        self.is_in_sync = false;
        self.at = self.ended;
    }

    /// Something that was named did not come: everything is looked at soon.
    fn fails(&mut self, now: Instant) {
        if self.is_in_sync {
            (self.is_in_sync, self.at) = (false, now + AGAIN);
        }
    }

    fn ended(&mut self, is_whole: bool, is_in_sync: bool, now: Instant) {
        if is_whole {
            self.trigger = Trigger::Scheduled;
        }
        if !is_in_sync {
            // What fails again and again must not put off what failed before.
            let at = now + self.again;
            self.at = if self.is_in_sync || is_whole {
                at
            } else {
                self.at.min(at)
            };
            self.is_in_sync = false;
            self.again = (self.again * 2).min(MOST_AGAIN);
        } else if is_whole {
            (self.is_in_sync, self.ended, self.again) = (true, now, AGAIN);
        }
    }

    /// When that is. `is_fed`: the parent tells what happens meanwhile.
    fn due(&self, is_fed: bool) -> Instant {
        match (self.is_in_sync, is_fed) {
            (false, _) => self.at,
            (true, false) => self.ended + EVERY,
            (true, true) => self.ended + SELDOM,
        }
    }
}

impl Shared {
    /// What is to be looked at now, or how long there is nothing to look at.
    fn due(&self, next: &mut Next) -> Result<(Trigger, Scope), Duration> {
        let is_fed = {
            let mut following = self.following.lock();
            if std::mem::take(&mut following.has_missed) {
                following.changed.clear();
                next.now(Trigger::RecoveryService);
            }
            self.will_be_fed(&following)
        };
        let left = next.due(is_fed).saturating_duration_since(self.clock.now());
        if left.is_zero() {
            // What was told of is among it.
            self.following.lock().changed.clear();
            return Ok((next.trigger, Scope::default()));
        }
        self.take_changed().ok_or(left)
    }

    fn is_fed_or_will_be(&self) -> bool {
        self.will_be_fed(&self.following.lock())
    }

    /// Whether the parent tells what happens, or did a moment ago and tells the rest as soon as it is there again.
    fn will_be_fed(&self, following: &Following) -> bool {
        let is_late = |heard: Instant| self.clock.now().saturating_duration_since(heard) > FEED_AGAIN_WITHIN;
        let is_told = following.state == Fed::Live || !following.heard.is_none_or(is_late);
        is_told && following.is_whole_or_was() && !self.book.lock().has_others
    }

    /// Waits a moment for the feed of the parent.
    async fn await_feed(&self) {
        let until = self.clock.now() + FEED_WITHIN;
        while self.following.lock().state == Fed::Unknown && self.clock.now() < until {
            let _ = tokio::time::timeout(LOOK, self.wake.notified()).await;
        }
    }

    /// Makes a pass. If a mistake ends it, the next one is made all the same.
    async fn make(self: &Arc<Self>, trigger: Trigger, scope: Scope) {
        let shared = Arc::clone(self);
        let made = tokio::spawn(async move { shared.pass(trigger, &scope).await }).await;
        if made.is_err() {
            self.book.lock().break_off(self.clock.wall());
        }
    }

    /// The rules, with names as this node spells them.
    fn rules(&self) -> Arc<[Rule]> {
        let rules = self.rules.get();
        rules
            .iter()
            .map(|rule| rule.respelled(&self.names, &self.hosts))
            .collect()
    }

    /// Whether the parent is not asked for what is to be brought, now.
    fn is_away(&self, class: Class) -> bool {
        self.away(self.names.unprefixed(), class).is_some()
    }

    /// Why a registry is not, in words.
    fn away(&self, registry: &Registry, class: Class) -> Option<String> {
        self.fetch.closed(registry, class).or_else(|| self.fetch.away(registry))
    }

    /// Whether the last pass brought all that it was to.
    fn is_in_sync(&self) -> bool {
        self.book.lock().pass.sync_state == State::Succeeded
    }

    /// Who asks a question of this class of a registry, when it is his turn.
    async fn asker(&self, registry: &Registry, class: Class) -> Asker {
        self.fetch.turn(registry, class).await;
        self.asker_at_once(class)
    }

    /// The same, who has nothing to ask of it, or is always let in.
    fn asker_at_once(&self, class: Class) -> Asker {
        Asker::new(Hops::default(), class, self.clock.now() + PATIENCE)
    }
}
