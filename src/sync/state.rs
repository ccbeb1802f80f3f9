//! What the last pass came to, and how far the one under way has got.

use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::order::{OrderReport, Orders};
use crate::oci::Tag;
use crate::parent::Class;
use crate::units::Moment;

/// Why a pass was made; as a connected registry names it, where it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Trigger {
    /// The first since the node started.
    InitialSync,
    /// It was time for one.
    Scheduled,
    /// The rules have changed.
    SelectionUpdate,
    /// An operator wanted it.
    ManualResync,
    /// The parent told of a change.
    ChangeFeed,
    /// Something was missed that the parent told, or would have.
    RecoveryService,
}

impl Trigger {
    /// How urgent such a pass is.
    pub(super) fn class(self) -> Class {
        match self {
            Self::ManualResync => Class::Manual,
            Self::InitialSync | Self::Scheduled | Self::SelectionUpdate | Self::ChangeFeed | Self::RecoveryService => {
                Class::Synchronisation
            }
        }
    }
}

/// How it stands; as a connected registry names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum State {
    /// Nothing has begun yet.
    Pending,
    /// It is under way.
    Syncing,
    /// All that is selected is here.
    Succeeded,
    /// Something is not.
    Failed,
}

/// What is known of synchronisation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The pass under way, else the last one.
    #[serde(flatten)]
    pub pass: Pass,
    /// What went wrong when all that is selected was last looked at.
    #[serde(skip)]
    pub unwell: Option<String>,
    /// Whether the parent tells what happens: live, off, none.
    pub feed: &'static str,
    /// Of the passes that were asked for and have not begun.
    pub waiting: usize,
    /// The one of them that is asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderReport>,
    /// Seconds until the pass under way is done, at the speed that it had so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Why nothing is brought now unless somebody wants it: the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// Why the parent cannot be asked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// What each rule comes to.
    pub rules: Vec<RuleReport>,
}

/// One pass.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pass {
    /// Counts passes since the start; 0: there was none.
    pub number: u64,
    /// Why it is made.
    pub sync_trigger: Trigger,
    /// How it stands.
    pub sync_state: State,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_start_time: Option<Moment>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_end_time: Option<Moment>,
    /// When the last one ended that brought all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_sync_end_time: Option<Moment>,
    /// How far it has got.
    pub progress: Progress,
    /// When it began, by the clock that does not jump.
    #[serde(skip)]
    pub(super) since: Option<Instant>,
    /// What went wrong, each once, with what it went wrong with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl Pass {
    /// Seconds that it still takes, if the rest comes as fast as what has come.
    pub(super) fn eta(&self, now: Instant) -> Option<u64> {
        let (all, done) = (self.progress.bytes, self.progress.bytes_done);
        let took = now.saturating_duration_since(self.since?).as_millis();
        let left = u128::from(all.saturating_sub(done)) * took / u128::from(done.max(1)) / 1000;
        let is_known = self.sync_state == State::Syncing && done > 0;
        is_known.then(|| u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// How far a pass has got.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Progress {
    /// Tags that are selected.
    pub tags: u64,
    /// Of them, those that are done with.
    pub tags_done: u64,
    /// Bytes that were missing.
    pub bytes: u64,
    /// Of them, those that have come.
    pub bytes_done: u64,
    /// Tags that were taken away, as the parent has them no longer.
    pub dropped: u64,
}

/// What a rule comes to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RuleReport {
    /// What it is called.
    pub name: String,
    /// Tags that it selects.
    pub tags: u64,
    /// Of them, those that are complete here.
    pub complete: u64,
    /// Tags that it names, and that the parent does not have.
    pub absent: u64,
    /// Those, by their names; no more than a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Bytes of all of it.
    pub bytes: u64,
    /// When all of it was last known to be here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_sync_as_of: Option<Moment>,
}

/// What somebody wants synchronised: everything, if it names nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scope {
    /// Repositories as clients write them, each with a tag or whole.
    pub named: Vec<(String, Option<Tag>)>,
    /// The parent told of them: what no rule selects is left alone.
    pub is_fed: bool,
}

impl Scope {
    /// Whether it is everything that is selected.
    pub(super) fn is_whole(&self) -> bool {
        self.named.is_empty()
    }

    /// Whether somebody named it, be it selected or not.
    pub(super) fn is_ordered(&self) -> bool {
        !self.named.is_empty() && !self.is_fed
    }
}

/// All of it, changed while passes are made.
pub(super) struct Book {
    pub(super) pass: Pass,
    pub(super) rules: Vec<RuleReport>,
    /// What went wrong first when all that is selected was last looked at; until then that it was not.
    pub(super) unwell: Option<String>,
    /// Whether some of it comes from elsewhere than the parent.
    pub(super) has_others: bool,
    /// What somebody asked for.
    pub(super) orders: Orders,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            pass: Pass {
                number: 0,
                sync_trigger: Trigger::InitialSync,
                sync_state: State::Pending,
                last_sync_start_time: None,
                last_sync_end_time: None,
                last_successful_sync_end_time: None,
                progress: Progress::default(),
                since: None,
                errors: Vec::new(),
            },
            rules: Vec::new(),
            unwell: Some("not yet looked at".to_owned()),
            has_others: false,
            orders: Orders::default(),
        }
    }

    pub(super) fn begin(&mut self, trigger: Trigger, now: SystemTime, since: Instant) {
        self.pass = Pass {
            number: self.pass.number + 1,
            sync_trigger: trigger,
            sync_state: State::Syncing,
            last_sync_start_time: Some(now.into()),
            last_sync_end_time: None,
            last_successful_sync_end_time: self.pass.last_successful_sync_end_time,
            progress: Progress::default(),
            since: Some(since),
            errors: Vec::new(),
        };
    }

    /// Nothing has happened that is not known: what was whole is so still.
    pub(super) fn stands(&mut self, now: SystemTime) {
        if self.pass.sync_state != State::Succeeded || self.unwell.is_some() || self.has_others {
            return;
        }
        self.pass.last_successful_sync_end_time = Some(now.into());
        for rule in self.rules.iter_mut().filter(|rule| rule.in_sync_as_of.is_some()) {
            rule.in_sync_as_of = Some(now.into());
        }
    }

    /// `is_whole`: it was over all that is selected.
    pub(super) fn end(&mut self, now: SystemTime, is_whole: bool) {
        self.pass.last_sync_end_time = Some(now.into());
        self.pass.sync_state = State::Failed;
        if is_whole || !self.pass.errors.is_empty() {
            self.unwell = self.pass.errors.first().cloned();
        }
        if self.pass.errors.is_empty() {
            self.pass.sync_state = State::Succeeded;
            if is_whole {
                self.pass.last_successful_sync_end_time = Some(now.into());
            }
        }
    }

    /// What was asked for first ended as the pass did; `is_over`: and is not tried again.
    pub(super) fn end_order(&mut self, is_over: bool) {
        self.orders.end(&self.pass, is_over);
    }

    /// A mistake of ours ended it.
    pub(super) fn break_off(&mut self, now: SystemTime) {
        self.fail("a mistake of this program ended the pass; the log names it".to_owned());
        self.end(now, false);
    }

    pub(super) fn fail(&mut self, words: String) {
        if !self.pass.errors.contains(&words) {
            self.pass.errors.push(words);
        }
    }
}
