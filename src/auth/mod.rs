//! Who asks, what they may, and the only face through which content leaves for a client.
//!
//! Invariant: whoever holds a [`Permit`] was admitted to its repository, and [`Shelf`] takes no other
//! name for one. `serve` holds no store and no fetch, so there is no way around.

mod gate;
mod shelf;

pub use gate::{Denied, Gate, Permit, Principal};
pub use shelf::Shelf;
