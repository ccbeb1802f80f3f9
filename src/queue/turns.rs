use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::oci::Digest;

/// One at a time for each blob: a layer that two repositories share is sent once, and then mounted.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<HashMap<Digest, Arc<Turn<()>>>>,
}

impl Turns {
    /// Waits until nobody else sends it.
    pub(super) async fn take(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut taken = self.taken.lock();
            // Nobody holds those, or waits for them.
            taken.retain(|_, turn| Arc::strong_count(turn) > 1);
            taken.entry(*digest).or_default().clone()
        };
        turn.lock_owned().await
    }
}
