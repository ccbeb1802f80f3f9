//! What waits, for whoever looks at it; and what an operator does about it.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use super::metrics::Standing;
use super::state::Later;
use super::{CLASS, Queue};
use crate::oci::Repository;
use crate::store::{self, Debt, State, What};

/// What waits for the parent.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Whom it is owed to; `None` without a parent.
    pub parent: Option<String>,
    /// Why nothing is delivered at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Why the parent is not asked just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Bytes on the disk that may exist nowhere else, and as many as may be.
    pub bytes: u64,
    /// See `bytes`.
    pub capacity: u64,
    /// In the order in which they were taken in.
    pub items: Vec<Item>,
}

/// A push or a delete that the parent does not have.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// By which it is named.
    pub number: u64,
    /// Where.
    pub repository: String,
    /// `push` or `delete`.
    pub what: &'static str,
    /// Of the manifest, or what is deleted.
    pub reference: String,
    /// Tags that are moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Who pushed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When it was taken in: seconds since 1970.
    pub at: u64,
    /// `pending`, `paying`, `waiting`, `parked` or `held`.
    pub state: &'static str,
    /// Why, if it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Attempts that failed in a row.
    #[serde(skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Milliseconds until it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// The blob that is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<Sending>,
}

/// A blob on its way.
#[derive(Clone, Debug, Serialize)]
pub struct Sending {
    /// Which.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Of them, those that the parent had when the last part began.
    pub sent: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(tries: &u32) -> bool {
    *tries == 0
}

/// Which items are meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Which {
    /// All of them.
    pub all: bool,
    /// By number.
    pub numbers: Vec<u64>,
    /// All of these repositories.
    pub repositories: Vec<String>,
}

impl Which {
    fn has(&self, repository: &Repository, debt: &Debt) -> bool {
        self.all || self.numbers.contains(&debt.number) || self.repositories.contains(&repository.to_string())
    }
}

impl Queue {
    /// Everything that waits.
    pub fn list(&self) -> Listing {
        let shared = &self.shared;
        let address = shared.parent.as_ref().map(crate::parent::Parent::address);
        let mut items = Vec::new();
        for (repository, debt) in self.unpaid() {
            items.push(self.item(&repository, &debt, address.as_deref()));
        }
        items.sort_by_key(|item| item.number);
        let paused = shared.state.lock().paused().map(|paused| paused.words.clone());
        Listing {
            parent: address,
            paused,
            away: shared
                .parent
                .as_ref()
                .and_then(|parent| Some(parent.is_shut(CLASS)?.to_string())),
            bytes: shared.store.owned(),
            capacity: shared.capacity,
            items,
        }
    }

    pub(super) fn unpaid(&self) -> Vec<(Repository, Debt)> {
        let store = &self.shared.store;
        let of = |repository: Repository| {
            let debts = store.debts(&repository).into_iter().filter(|debt| !debt.is_settled());
            debts.map(|debt| (repository.clone(), debt)).collect::<Vec<_>>()
        };
        store.indebted().into_iter().flat_map(of).collect()
    }

    fn item(&self, repository: &Repository, debt: &Debt, address: Option<&str>) -> Item {
        let state = self.shared.state.lock();
        let now = self.shared.clock.now();
        let mut item = Item {
            number: debt.number,
            repository: repository.to_string(),
            what: if debt.pushed().is_some() { "push" } else { "delete" },
            reference: reference(debt),
            tags: debt.tags().iter().map(|named| named.tag.to_string()).collect(),
            by: debt.by.clone(),
            at: debt.at,
            state: "pending",
            reason: None,
            tries: 0,
            retry_ms: None,
            blob: None,
        };
        let later = state.later(repository);
        if let State::Parked { reason } = &debt.state {
            (item.state, item.reason) = ("parked", Some(reason.clone()));
        } else if address != Some(debt.to.as_str()) {
            let words = match address {
                Some(address) => format!("it is owed to {}, and the parent is {address} now", debt.to),
                None => format!("it is owed to {}, and no parent is configured", debt.to),
            };
            (item.state, item.reason) = ("held", Some(words));
        } else if let Some(paying) = state.paying(repository).filter(|paying| paying.number == debt.number) {
            item.state = "paying";
            item.blob = paying.blob.map(|(digest, size, sent)| Sending {
                digest: digest.to_string(),
                size,
                sent,
            });
        } else if let Some(later) = later.filter(|later| later.number == debt.number || later.is_denied) {
            item.state = if later.is_denied { "parked" } else { "waiting" };
            (item.reason, item.tries) = (Some(later.words.clone()), later.tries);
            item.retry_ms = u64::try_from(later.wait(now).as_millis()).ok();
        } else if let Some(paused) = state.paused() {
            (item.state, item.reason) = ("parked", Some(paused.words.clone()));
            item.retry_ms = u64::try_from(paused.wait(now).as_millis()).ok();
        }
        item
    }

    /// Tries what is meant at once; with `turn`, also what is owed to another parent, which this one is to have instead.
    ///
    /// # Errors
    ///
    /// [`store::Error`]: it could not be written down.
    pub fn retry(&self, which: &Which, turn: bool) -> Result<Vec<Item>, store::Error> {
        let address = self.shared.parent.as_ref().map(crate::parent::Parent::address);
        let mut tried = Vec::new();
        for (repository, debt) in self.unpaid() {
            if !which.has(&repository, &debt) {
                continue;
            }
            match &address {
                Some(address) if *address == debt.to || turn => {
                    self.shared.store.turn_debt(&repository, debt.number, address)?;
                }
                _ => {}
            }
            self.shared.state.lock().forget(&repository);
            let debt = self.shared.store.debt(&repository, debt.number).unwrap_or(debt);
            tried.push((repository, debt));
        }
        if let Some(parent) = &self.shared.parent {
            parent.show_login_again();
        }
        self.shared.state.lock().unpause();
        self.shared.seen.forget();
        self.shared.wake.notify_one();
        let items = tried
            .iter()
            .map(|(repository, debt)| self.item(repository, debt, address.as_deref()));
        Ok(items.collect())
    }

    /// Gives up what is meant: the parent will not have it, and what was pushed may be evicted here. Blocks.
    ///
    /// # Errors
    ///
    /// [`store::Error`]: it could not be written down.
    pub fn drop_items(&self, which: &Which) -> Result<Vec<Item>, store::Error> {
        let address = self.shared.parent.as_ref().map(crate::parent::Parent::address);
        let mut dropped = Vec::new();
        let mut repositories = HashSet::new();
        for (repository, debt) in self.unpaid() {
            if !which.has(&repository, &debt) {
                continue;
            }
            dropped.push(self.item(&repository, &debt, address.as_deref()));
            tracing::warn!(%repository, number = debt.number, what = what(&debt), "an operator dropped what was to be delivered");
            self.shared.store.drop_debt(&repository, debt.number)?;
            self.shared.state.lock().forget(&repository);
            repositories.insert(repository);
        }
        self.shared.store.sync_changes()?;
        let queue = self.clone();
        tokio::spawn(async move {
            for repository in repositories {
                queue.tidy(&repository).await;
            }
        });
        self.shared.wake.notify_one();
        Ok(dropped)
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn observe(&self) {
        let listing = self.list();
        let of = |state: &str| listing.items.iter().filter(|item| item.state == state).count();
        let oldest = listing.items.iter().map(|item| item.at).min();
        let wall = self.shared.clock.wall().duration_since(std::time::UNIX_EPOCH);
        let wall_s = wall.map_or(0, |since| since.as_secs());
        self.shared.metrics.see(Standing {
            pending: of("pending"),
            paying: of("paying"),
            waiting: of("waiting"),
            parked: of("parked"),
            held: of("held"),
            oldest_s: oldest.map_or(0, |at| wall_s.saturating_sub(at)),
            bytes: listing.bytes,
            capacity: listing.capacity,
            is_paused: listing.paused.is_some(),
        });
    }

    /// What an operator has to look at, in words; `None` if nothing.
    pub fn trouble(&self) -> Option<String> {
        let listing = self.list();
        if let Some(paused) = listing.paused {
            return Some(format!("nothing that was pushed here reaches the parent: {paused}"));
        }
        let stuck = |item: &&Item| matches!(item.state, "parked" | "held") || item.tries >= Later::MANY;
        let stuck: Vec<&Item> = listing.items.iter().filter(stuck).collect();
        let first = stuck.first()?;
        let reason = first.reason.as_deref().unwrap_or_default();
        Some(format!(
            "{} of what was pushed here does not reach the parent, first in {}: {reason}; see `wharf queue list`",
            stuck.len(),
            first.repository
        ))
    }
}

/// The digest of what is pushed, or what is deleted.
pub(super) fn reference(debt: &Debt) -> String {
    match &debt.what {
        What::Push { digest, .. } => digest.to_string(),
        What::Delete { name, .. } => name.to_string(),
    }
}

/// A debt, in a few words.
pub(super) fn what(debt: &Debt) -> String {
    match &debt.what {
        What::Push { digest, tags, .. } => {
            let tags: Vec<&str> = tags.iter().map(|named| named.tag.as_str()).collect();
            match tags.is_empty() {
                true => digest.to_string(),
                false => format!("{digest} as {}", tags.join(", ")),
            }
        }
        What::Delete { name, .. } => format!("delete {name}"),
    }
}

impl Item {
    /// How long it has been waiting, `now` in seconds since 1970.
    pub fn age(&self, now: u64) -> Duration {
        Duration::from_secs(now.saturating_sub(self.at))
    }
}
