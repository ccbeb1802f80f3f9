//! One of the places that an upstream's gate has for bodies of blobs.

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// A place, once it is taken, for all attempts at one transfer: what was cut goes on before others begin. Given back
/// when dropped.
#[derive(Debug, Default)]
pub struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Lets another have it.
    pub fn give_back(&self) {
        self.0.lock().take();
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(super) fn hold(&self, permit: OwnedSemaphorePermit) {
        *self.0.lock() = Some(permit);
    }
}
