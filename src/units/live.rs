use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that is replaced while it is used, whole: whoever looks at it sees the old one or the new one. Clones are the same.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// Begins as `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// As it is at this moment, for as long as the answer is held.
    pub fn get(&self) -> impl Deref<Target = Arc<T>> {
        self.0.load()
    }

    /// From now on it is what `other` is now.
    pub fn take(&self, other: Self) {
        self.0.store(other.0.load_full());
    }

    /// From now on it is `value`.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
