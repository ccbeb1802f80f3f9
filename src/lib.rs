//! wharf: a container registry for networks that come in layers.
//!
//! ```text
//! pull: listener -> router -> serve -> auth -> store ..miss.. -> fetch -> parent
//! push: listener -> router -> serve -> auth -> push -> store ..owed.. -> queue -> parent
//! ```

pub mod units;

pub mod oci;

pub mod calendar;
pub mod select;

pub mod parent;
pub mod router;
pub mod store;

pub mod fetch;
pub mod queue;

pub mod auth;

pub mod events;
pub mod push;
pub mod sync;

pub mod status;

pub mod serve;

pub mod listener;

pub mod admin;

pub mod config;

pub mod app;

pub mod cli;
