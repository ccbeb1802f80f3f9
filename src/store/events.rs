//! What changed of names since the start, for whoever tells others: the last of it, in order.

use std::collections::VecDeque;

use tokio::sync::watch;

use super::{Slot, Store};
use crate::oci::{Digest, Repository, Tag};

/// Events that are remembered; whoever falls behind by more looks at everything.
const REMEMBERED: usize = 10_000;

/// A change of names in a repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Where.
    pub repository: Repository,
    /// Of what.
    pub about: About,
    /// What a tag names from then on; `None`: nothing, or nobody says.
    pub digest: Option<Digest>,
}

/// What may change.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum About {
    /// What a tag names.
    Tag(Tag),
    /// What refers to a manifest.
    Referrers(Digest),
}

/// The last changes.
pub(super) struct Events {
    last: VecDeque<Event>,
    /// Counts all of them.
    count: watch::Sender<u64>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            last: VecDeque::new(),
            count: watch::Sender::new(0),
        }
    }

    /// What a slot points at has changed. Of a list of tags nobody is told: each of them is one.
    pub(super) fn slot(&mut self, repository: &Repository, slot: &Slot, digest: Option<Digest>) {
        let (about, digest) = match slot {
            Slot::Tag(tag) => (About::Tag(tag.clone()), digest),
            Slot::Referrers(subject) => (About::Referrers(*subject), None),
            Slot::Tags => return,
        };
        let repository = repository.clone();
        self.push(Event {
            repository,
            about,
            digest,
        });
    }

    fn push(&mut self, event: Event) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(event);
        self.count.send_modify(|count| *count += 1);
    }

    /// Those after the first `count`, and how many there are; `None`: some of them are forgotten.
    fn after(&self, count: u64) -> (Option<Vec<Event>>, u64) {
        let all = *self.count.borrow();
        let missed = usize::try_from(all.saturating_sub(count)).unwrap_or(usize::MAX);
        let found = self.last.len().checked_sub(missed);
        (found.map(|from| self.last.iter().skip(from).cloned().collect()), all)
    }
}

impl Store {
    /// Events of names after the first `count` since the start, and how many there were; `None`: some are forgotten.
    pub fn events_after(&self, count: u64) -> (Option<Vec<Event>>, u64) {
        self.shared.records.lock().events.after(count)
    }

    /// How many changes of names there were since the start, as that grows.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.shared.records.lock().events.count.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    #[test]
    fn whoever_falls_behind_by_more_than_is_remembered_is_told_so() {
        let mut events = Events::new();
        let event = Event {
            repository: Repository::new(Registry::own(), "a".parse().unwrap()),
            about: About::Referrers(Digest::of(b"")),
            digest: None,
        };
        for _ in 0..=REMEMBERED {
            events.push(event.clone());
        }

        let all = REMEMBERED as u64 + 1;
        assert_eq!(events.after(all), (Some(Vec::new()), all));
        assert_eq!(events.after(all - 1), (Some(vec![event]), all));
        assert_eq!(events.after(1).0.map(|all| all.len()), Some(REMEMBERED));
        assert_eq!(events.after(0), (None, all));
    }
}
