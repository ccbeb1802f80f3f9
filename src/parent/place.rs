//! One of the places that an upstream's gate has for bodies of blobs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// Whoever does not read from the upstream for so long lends its place.
const LENT_AFTER: Duration = Duration::from_secs(1);

/// A place, once it is taken, for all attempts at one transfer: what was cut goes on before others begin. Given back
/// when dropped.
#[derive(Debug, Default)]
pub struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Lets another have it.
    pub fn give_back(&self) {
        self.0.lock().take();
    }

    /// Waits for `work` that keeps the transfer from reading on. While it takes long another may have the place, which is
    /// taken again before this returns.
    pub async fn lend_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(LENT_AFTER, &mut work).await {
            return done;
        }
        let Some(permit) = self.0.lock().take() else {
            return work.await;
        };
        let places = Arc::clone(permit.semaphore());
        drop(permit);
        let done = work.await;
        if let Ok(permit) = places.acquire_owned().await {
            self.hold(permit);
        }
        done
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(super) fn hold(&self, permit: OwnedSemaphorePermit) {
        *self.0.lock() = Some(permit);
    }
}
