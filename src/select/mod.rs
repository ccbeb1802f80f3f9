//! Patterns over what is served: which repositories are allowed, which denied, which tags and platforms are chosen.
//!
//! `*` and `?` stay within one component of a name, `**` crosses the slashes; `{a,b}` and `[a-c]`
//! mean one of these. Matching takes time linear in the name, whatever the pattern.

pub use chosen::{Chosen, Matching};
pub use filter::Filter;
pub use globs::{Error, Globs};
pub use images::{Host, Image, Images};
pub use platform::{Platform, PlatformError};
pub use tags::TagGlobs;
pub use version::{Versions, VersionsError};

mod chosen;
mod filter;
mod globs;
mod images;
mod platform;
mod tags;
mod version;
