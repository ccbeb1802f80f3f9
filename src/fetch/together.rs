//! One piece of work for all who ask for the same thing at the same time.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Outcome;

/// Work under way, by what it is for.
pub(super) struct Together<K, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

impl<K, V> Default for Together<K, V> {
    fn default() -> Self {
        Self {
            running: Arc::default(),
        }
    }
}

impl<K, V> Together<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Whoever asks from now on begins anew.
    pub(super) fn forget(&self, key: &K) {
        self.running.lock().remove(key);
    }

    /// The same for all of it.
    pub(super) fn forget_all(&self) {
        self.running.lock().clear();
    }

    /// Waits for the work on `key`; begins it on `runtime` if nobody has. It goes on when the caller leaves.
    ///
    /// `None` if the work panicked.
    pub(super) async fn join<F>(&self, runtime: &Handle, key: K, work: impl FnOnce() -> F) -> Option<(V, Outcome)>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut result, outcome) = {
            let mut running = self.running.lock();
            if let Some(result) = running.get(&key) {
                (result.clone(), Outcome::Collapsed)
            } else {
                let (sender, result) = watch::channel(None);
                running.insert(key.clone(), result.clone());
                let place = Place {
                    running: self.running.clone(),
                    key,
                    result: result.clone(),
                };
                let work = work();
                runtime.spawn(async move {
                    let value = work.await;
                    drop(place);
                    sender.send_replace(Some(value));
                });
                (result, Outcome::Miss)
            }
        };
        let value = result.wait_for(Option::is_some).await.ok()?.clone()?;
        Some((value, outcome))
    }
}

/// Leaves the table when the work ends, however it ends.
struct Place<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
    result: watch::Receiver<Option<V>>,
}

impl<K: Eq + Hash, V> Drop for Place<K, V> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // It may have been forgotten, and begun anew.
        if running
            .get(&self.key)
            .is_some_and(|other| other.same_channel(&self.result))
        {
            running.remove(&self.key);
        }
    }
}
