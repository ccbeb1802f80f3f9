//! Finding out whether the parent takes pushes: at the start, and when something is pushed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Push;
use crate::oci::Repository;
use crate::parent::{Class, Parent};

/// Until it is asked again, if it takes them, and otherwise.
const PAUSE: Duration = Duration::from_secs(300);
const SHORT_PAUSE: Duration = Duration::from_secs(5);

/// The wish to know.
pub(super) struct Sound {
    wanted: Sender<Repository>,
    wishes: Mutex<Option<Receiver<Repository>>>,
}

impl Sound {
    pub(super) fn new() -> Self {
        let (wanted, wishes) = channel(1);
        Self {
            wanted,
            wishes: Mutex::new(Some(wishes)),
        }
    }

    /// Something is pushed to `repository`. Nobody waits for what comes of it.
    pub(super) fn out(&self, repository: &Repository) {
        if self.wanted.capacity() > 0 {
            let _ = self.wanted.try_send(repository.clone());
        }
    }
}

impl Push {
    /// Asks the parent whether it takes pushes, for as long as the node runs.
    pub async fn watch_parent(self) {
        let wishes = self.shared.sound.wishes.lock().take();
        let (Some(parent), Some(mut wishes)) = (self.shared.parent.clone(), wishes) else {
            return;
        };
        // A node says it with each answer.
        if parent.closed(Class::WriteBack).is_none() {
            let _ = parent.ping().await;
        }
        tell(&parent, false);
        while let Some(repository) = wishes.recv().await {
            // Nothing is pushed there now: it need not be asked.
            if parent.closed(Class::WriteBack).is_some() {
                continue;
            }
            let before = parent.refuses_pushes();
            let outcome = parent.sound_out(&repository).await;
            if let Err(error) = &outcome {
                tracing::debug!(%error, "whether the parent takes pushes could not be found out");
            }
            tell(&parent, before);
            let is_settled = outcome.is_ok() && !parent.refuses_pushes();
            tokio::time::sleep(if is_settled { PAUSE } else { SHORT_PAUSE }).await;
        }
    }
}

/// Says whether it takes pushes, if that has changed.
fn tell(parent: &Parent, refused: bool) {
    let layer = parent.name();
    match (refused, parent.refuses_pushes()) {
        (false, true) => tracing::warn!(parent = layer, "the parent takes no pushes, so neither does this node"),
        (true, false) => tracing::info!(parent = layer, "the parent takes pushes"),
        _ => {}
    }
}
