//! Passes that somebody asked for: kept on disk until they are made, and remembered for a while after.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Shared;
use super::state::{Pass, Progress, Scope, State};
use crate::oci::Tag;
use crate::store::Kept;

/// Passes that may wait.
const MOST: usize = 100;

/// Passes whose outcome is remembered.
const REMEMBERED: usize = 100;

/// What somebody asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Order {
    /// Like that of no other, of another run neither.
    id: String,
    pub(super) scope: Scope,
}

/// How far it has got.
#[derive(Clone, Debug, Serialize)]
pub struct OrderReport {
    /// As it was called when it was asked for.
    pub id: String,
    /// Pending: it waits for others, or for the parent.
    pub state: State,
    /// Of the pass that is made for it, or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What went wrong, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// All of them: the first is or was under way.
#[derive(Default)]
pub(super) struct Orders {
    waiting: VecDeque<Order>,
    is_under_way: bool,
    /// Those that were made, the last one last.
    made: VecDeque<OrderReport>,
}

/// As it is on record.
#[derive(Deserialize, Serialize)]
struct Line {
    id: String,
    named: Vec<(String, Option<Tag>)>,
}

impl Orders {
    /// Takes one more, and says what it is called; if the same waits already, what that is. `None`: too many wait.
    pub(super) fn take(&mut self, scope: Scope) -> Option<String> {
        // What is under way may have seen what there is by now, or not.
        let begun = usize::from(self.is_under_way);
        if let Some(same) = self.waiting.iter().skip(begun).find(|other| other.scope == scope) {
            return Some(same.id.clone());
        }
        if self.waiting.len() >= MOST {
            return None;
        }
        let id = format!("{:016x}", rand::random::<u64>());
        self.waiting.push_back(Order { id: id.clone(), scope });
        Some(id)
    }

    /// How many have not begun.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() - usize::from(self.is_under_way)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What is to be done next.
    pub(super) fn first(&self) -> Option<&Scope> {
        self.waiting.front().map(|order| &order.scope)
    }

    /// That is begun.
    pub(super) fn begin(&mut self) {
        self.is_under_way = !self.waiting.is_empty();
    }

    /// It has ended like `pass`; `is_over`: and is not tried again.
    pub(super) fn end(&mut self, pass: &Pass, is_over: bool) {
        self.is_under_way = false;
        if !is_over {
            return;
        }
        let Some(order) = self.waiting.pop_front() else { return };
        if self.made.len() == REMEMBERED {
            self.made.pop_front();
        }
        self.made.push_back(OrderReport {
            id: order.id,
            state: pass.sync_state,
            progress: Some(pass.progress),
            errors: pass.errors.clone(),
        });
    }

    /// How far one has got. `None`: there is none of that name, or it was made long ago.
    pub(super) fn report(&self, id: &str, pass: &Pass) -> Option<OrderReport> {
        if let Some(made) = self.made.iter().find(|made| made.id == id) {
            return Some(made.clone());
        }
        let place = self.waiting.iter().position(|order| order.id == id)?;
        let is_under_way = place == 0 && self.is_under_way;
        Some(OrderReport {
            id: id.to_owned(),
            state: if is_under_way { State::Syncing } else { State::Pending },
            progress: is_under_way.then_some(pass.progress),
            errors: Vec::new(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let line = |order: &Order| {
            let line = Line {
                id: order.id.clone(),
                named: order.scope.named.clone(),
            };
            serde_json::to_string(&line).expect("strings are JSON")
        };
        self.waiting.iter().map(line).collect()
    }

    fn recall(&mut self, lines: &[String]) {
        for line in lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let scope = Scope {
                named: line.named,
                is_fed: false,
            };
            // What came since the start is on record too.
            if self.waiting.iter().all(|known| known.id != line.id) {
                self.waiting.push_back(Order { id: line.id, scope });
            }
        }
    }
}

impl Shared {
    /// Takes up what waited when the node was stopped, once.
    pub(super) async fn recall_orders(&self) {
        self.recall_if(&mut *self.recalled.lock().await).await;
    }

    async fn recall_if(&self, is_recalled: &mut bool) {
        if std::mem::replace(is_recalled, true) {
            return;
        }
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || store.kept(Kept::Orders)).await;
        match reading {
            Ok(Ok(lines)) => self.book.lock().orders.recall(&lines),
            Ok(Err(error)) => tracing::warn!(%error, "what was asked of synchronisation before is not known"),
            Err(_) => {}
        }
    }

    /// Has what waits outlive the process.
    pub(super) async fn write_orders(&self) {
        // Of several at once the last one has what the others have, and all have what was there before.
        let mut is_recalled = self.recalled.lock().await;
        self.recall_if(&mut is_recalled).await;
        let lines = self.book.lock().orders.lines();
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.keep(Kept::Orders, &lines)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what is asked of synchronisation could not be written down: a restart forgets it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Book;
    use super::*;

    fn scope(name: &str) -> Scope {
        Scope {
            named: vec![(name.to_owned(), None)],
            is_fed: false,
        }
    }

    #[test]
    fn an_order_is_followed_by_its_name_from_the_queue_to_its_end() {
        let pass = Book::new().pass;
        let mut orders = Orders::default();
        let first = orders.take(scope("a")).unwrap();
        let second = orders.take(scope("b")).unwrap();
        assert_eq!(orders.take(scope("a")), Some(first.clone()));
        let state = |orders: &Orders, id: &str| orders.report(id, &pass).map(|report| report.state);

        orders.begin();
        assert_eq!(state(&orders, &first), Some(State::Syncing));
        assert_eq!(state(&orders, &second), Some(State::Pending));
        // What is under way may have begun too early to see what is meant.
        assert_ne!(orders.take(scope("a")), Some(first.clone()));

        let mut ended = pass.clone();
        ended.sync_state = State::Succeeded;
        orders.end(&ended, true);
        assert_eq!(state(&orders, &first), Some(State::Succeeded));
        assert_eq!(orders.first(), Some(&scope("b")));
        assert_eq!(state(&orders, "0"), None);
    }

    #[test]
    fn what_waits_reads_back_and_is_not_doubled() {
        let mut orders = Orders::default();
        orders.take(scope("a")).unwrap();
        orders.take(Scope::default()).unwrap();
        let lines = orders.lines();

        let mut again = Orders::default();
        again.recall(&lines);
        again.recall(&lines);

        assert_eq!(again.lines(), lines);
        assert_eq!(again.waiting(), 2);
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut orders = Orders::default();
        for number in 0..MOST {
            assert!(orders.take(scope(&format!("a{number}"))).is_some());
        }
        assert_eq!(orders.take(scope("z")), None);
    }
}
