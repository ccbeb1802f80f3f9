//! Who asks, what they may, and the only face through which content leaves for a client.
//!
//! ```text
//! Authorization, certificate -> Guard -> Principal -> Gate -> Permit -> Shelf
//! ```
//!
//! Invariant: whoever holds a [`Permit`] was admitted to its repository, and [`Shelf`] takes no other
//! name for one. `serve` holds no store and no fetch, so there is no way around. Rights come from the table of this moment and
//! from nothing that was given out before: what is taken away is gone with the next request.

mod action;
mod attempts;
mod bearer;
mod config;
mod gate;
mod guard;
mod identity;
mod metrics;
mod password;
mod peer;
mod principal;
mod rights;
mod scope;
mod shelf;
mod tokens;

pub use action::{Action, ActionError, Actions};
pub use config::{Config, Grant, Section, Whose, Written};
pub use gate::{Denied, Gate, Permit};
pub use guard::{Credentials, Guard, Issued, Login, Stranger};
pub use metrics::Metrics;
pub use password::generate as generate_password;
pub use peer::Peer;
pub use principal::{How, Principal};
pub use rights::{Pattern, PatternError, Permission, Rights};
pub use scope::Scope;
pub use shelf::Shelf;
pub use tokens::{Shown, TokenError, Tokens, Told, ToldPassword, Wanted};

/// Bytes of the longest token that is looked at.
pub const LONGEST_TOKEN: usize = bearer::MOST;

/// Who did not say who they are, in settings.
pub const ANONYMOUS: &str = "anonymous";

/// Whether somebody can be called so. Basic has a colon behind the name (RFC 7617), and in settings two words mean others.
fn judge_name(name: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-@".contains(letter);
    if name == ANONYMOUS {
        return Err("anonymous is who did not log in; choose another one".to_owned());
    }
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(format!(
            "is {name:?}; write up to 64 letters, digits, dots, dashes, underscores or @"
        ));
    }
    Ok(())
}
