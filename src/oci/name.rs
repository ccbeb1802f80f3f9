//! The name of a repository within its registry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::units::written_as_text;

/// A repository name: lower-case components with slashes between (distribution spec, "Pull").
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

impl Name {
    /// The most bytes that a name may have. Many clients refuse longer ones.
    pub const LONGEST: usize = 255;

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no repository name. The caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It does not follow the grammar.
    #[error(
        "not a repository name; use lower-case letters and digits, single . _ or dashes between them, and / between components"
    )]
    Malformed,

    /// More than [`Name::LONGEST`] bytes.
    #[error("a repository name of more than 255 characters")]
    TooLong,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > Self::LONGEST {
            return Err(NameError::TooLong);
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::Malformed);
        }
        Ok(Self(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution spec, "Pull").
fn is_component(text: &str) -> bool {
    let is_core = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_gap = |gap: &str| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-');
    text.starts_with(is_core) && text.ends_with(is_core) && text.split(is_core).all(is_gap)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(Name);
