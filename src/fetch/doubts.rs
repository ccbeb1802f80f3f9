//! What has changed at a parent since it was last asked, as it says itself: what was heard before that is not fresh any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::Fetch;
use crate::oci::Repository;
use crate::store::{About, Slot};

/// So many are remembered before those are looked for that are of no use any more.
const MANY: usize = 1000;

/// Since when what was heard before is doubted.
pub(super) struct Doubts {
    /// Whether there ever was one.
    are_any: AtomicBool,
    known: RwLock<Known>,
    /// Nothing is fresh for longer.
    tag_ttl: Duration,
}

#[derive(Default)]
struct Known {
    slots: HashMap<Repository, HashMap<Slot, Instant>>,
    count: usize,
    /// Anything at all.
    all: Option<Instant>,
}

impl Doubts {
    /// Nothing is fresh for longer than `tag_ttl`.
    pub(super) fn new(tag_ttl: Duration) -> Self {
        Self {
            are_any: AtomicBool::new(false),
            known: RwLock::default(),
            tag_ttl,
        }
    }

    /// Whether what was asked for at that moment is doubted.
    pub(super) fn cover(&self, repository: &Repository, slot: &Slot, asked: Instant) -> bool {
        if !self.are_any.load(Ordering::Acquire) {
            return false;
        }
        let known = self.known.read();
        let one = known.slots.get(repository).and_then(|slots| slots.get(slot));
        known.all.iter().chain(one).any(|since| *since >= asked)
    }

    fn doubt(&self, (repository, slot): (Repository, Slot), now: Instant) {
        let mut known = self.known.write();
        let slots = known.slots.entry(repository).or_default();
        if slots.insert(slot, now).is_none() {
            known.count += 1;
        }
        if known.count > MANY {
            known.forget(|since| now.saturating_duration_since(since) < self.tag_ttl);
        }
        self.are_any.store(true, Ordering::Release);
    }

    fn doubt_all(&self, now: Instant) {
        self.known.write().all = Some(now);
        self.are_any.store(true, Ordering::Release);
    }
}

impl Known {
    fn forget(&mut self, is_kept: impl Fn(Instant) -> bool) {
        self.slots.retain(|_, slots| {
            slots.retain(|_, since| is_kept(*since));
            !slots.is_empty()
        });
        self.count = self.slots.values().map(HashMap::len).sum();
    }
}

impl Fetch {
    /// The parent says that this has changed: it is asked the next time.
    pub fn doubt(&self, repository: &Repository, about: &About) {
        let shared = &self.shared;
        let now = shared.clock.now();
        let slots = match about {
            About::Tag(tag) => vec![Slot::Tag(tag.clone()), Slot::Tags],
            About::Referrers(digest) => {
                shared.unreferred.invalidate(&(repository.clone(), *digest));
                vec![Slot::Referrers(*digest)]
            }
        };
        shared.catalogs.invalidate_all();
        for slot in slots {
            let key = (repository.clone(), slot);
            shared.doubts.doubt(key.clone(), now);
            shared.absent.invalidate(&key);
            shared.useless.invalidate(&key);
            shared.looked.invalidate(&key);
            // Who asks from now on is not to be told what was asked before.
            shared.refreshing.forget(&key);
        }
    }

    /// Anything may have changed above.
    pub fn doubt_all(&self) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.doubts.doubt_all(now);
        shared.catalogs.invalidate_all();
        shared.absent.invalidate_all();
        shared.useless.invalidate_all();
        shared.looked.invalidate_all();
        shared.unreferred.invalidate_all();
        shared.refreshing.forget_all();
    }
}
