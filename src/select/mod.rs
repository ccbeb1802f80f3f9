//! Patterns over what is served: which repositories are allowed, which denied.
//!
//! `*` and `?` stay within one component of a name, `**` crosses the slashes; `{a,b}` and `[a-c]`
//! mean one of these. Matching takes time linear in the name, whatever the pattern.

pub use filter::Filter;
pub use globs::{Error, Globs};
pub use tags::TagGlobs;

mod filter;
mod globs;
mod tags;
