//! One of the places that an upstream's gate has for bodies of blobs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whoever does not read from the upstream for so long lends its place.
const LENT_AFTER: Duration = Duration::from_secs(1);

/// A place, once it is taken, for all attempts at one transfer: what was cut goes on before others begin. Given back
/// when dropped.
#[derive(Debug, Default)]
pub struct Place(Mutex<Option<Taken>>);

#[derive(Debug)]
struct Taken {
    permit: OwnedSemaphorePermit,
    /// How many more places may be lent.
    lendable: Arc<Semaphore>,
}

impl Place {
    /// Lets another have it.
    pub fn give_back(&self) {
        self.0.lock().take();
    }

    /// Waits for `work` that keeps the transfer from reading on. While it takes long another may have the place, which is
    /// taken again before this returns; unless so many are lent that what lies unread would be too much.
    pub async fn lend_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(LENT_AFTER, &mut work).await {
            return done;
        }
        let lendable = self.0.lock().as_ref().map(|taken| Arc::clone(&taken.lendable));
        let lent = lendable.and_then(|lendable| lendable.try_acquire_owned().ok());
        let Some((lent, taken)) = lent.zip(self.0.lock().take()) else {
            return work.await;
        };
        let places = Arc::clone(taken.permit.semaphore());
        drop(taken.permit);
        let done = work.await;
        if let Ok(permit) = places.acquire_owned().await {
            self.hold(permit, &taken.lendable);
        }
        drop(lent);
        done
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(super) fn hold(&self, permit: OwnedSemaphorePermit, lendable: &Arc<Semaphore>) {
        *self.0.lock() = Some(Taken {
            permit,
            lendable: Arc::clone(lendable),
        });
    }
}
