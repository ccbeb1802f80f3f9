//! wharf: a container registry for networks that come in layers.
//!
//! ```text
//! pull: listener -> router -> serve -> auth -> store ..miss.. -> fetch -> parent
//! push: listener -> router -> serve -> auth -> push -> store ..owed.. -> queue -> parent
//! ```

pub mod units;

pub mod oci;

pub mod select;

pub mod router;
