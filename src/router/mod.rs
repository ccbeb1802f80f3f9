//! Method, path, query and host of a request to a [`Route`]; pure.
//!
//! Which registry a name means is settled here, from the closed list [`Names`]: by the binding of
//! the port or the host, else by `ns`, else by the first component of the name, else it is the
//! parent. What a request names is a key in that list and never an address to dial.

pub use names::{Named, Names, NamesError};
pub use page::Page;
pub use parse::{Error, Line, Routed, parse};
pub use push::{Deed, Push};
pub use route::Route;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

mod names;
mod page;
mod parse;
mod path;
mod push;
mod query;
mod route;
