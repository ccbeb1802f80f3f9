//! One of the places that an upstream's gate has for bodies of blobs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::gate::Class;

/// Whoever does not read from the upstream for so long lends its place.
const LENT_AFTER: Duration = Duration::from_secs(1);

/// A place, once it is taken, for all attempts at one transfer: what was cut goes on before others begin. Given back
/// when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Mutex<Option<Taken>>,
    urgency: Urgency,
}

/// For whom something is fetched by now: others may join who have less time. Clones are the same.
#[derive(Clone, Debug)]
pub struct Urgency(Arc<AtomicUsize>);

impl Urgency {
    /// Begins as urgent as that.
    pub fn of(class: Class) -> Self {
        Self(Arc::new(AtomicUsize::new(class as usize)))
    }

    /// As it is now.
    pub fn get(&self) -> Class {
        Class::ALL[self.0.load(Ordering::Relaxed)]
    }

    /// Somebody of this class wants it as well.
    pub fn rise(&self, class: Class) {
        self.0.fetch_min(class as usize, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Taken {
    permit: OwnedSemaphorePermit,
    /// How many more places may be lent.
    lendable: Arc<Semaphore>,
}

impl Place {
    /// None is taken yet.
    pub fn new(urgency: Urgency) -> Self {
        Self {
            taken: Mutex::new(None),
            urgency,
        }
    }

    pub(super) fn urgency(&self) -> Urgency {
        self.urgency.clone()
    }

    /// Lets another have it.
    pub fn give_back(&self) {
        self.taken.lock().take();
    }

    /// Waits for `work` that keeps the transfer from reading on. While it takes long another may have the place, which is
    /// taken again before this returns; unless so many are lent that what lies unread would be too much.
    pub async fn lend_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(LENT_AFTER, &mut work).await {
            return done;
        }
        let lendable = self.taken.lock().as_ref().map(|taken| Arc::clone(&taken.lendable));
        let lent = lendable.and_then(|lendable| lendable.try_acquire_owned().ok());
        let Some((lent, taken)) = lent.zip(self.taken.lock().take()) else {
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
        self.taken.lock().is_some()
    }

    pub(super) fn hold(&self, permit: OwnedSemaphorePermit, lendable: &Arc<Semaphore>) {
        *self.taken.lock() = Some(Taken {
            permit,
            lendable: Arc::clone(lendable),
        });
    }
}
