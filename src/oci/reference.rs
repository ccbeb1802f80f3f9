//! The reference: what stands at the end of a manifest's path.

use std::fmt;
use std::str::FromStr;

use crate::oci::{Digest, DigestError, Tag, TagError};
use crate::units::written_as_text;

/// A tag or a digest.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reference {
    /// What the tag names at this moment.
    Tag(Tag),
    /// This content and no other.
    Digest(Digest),
}

/// Why a text is no reference. The caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// Without a colon, and no tag.
    #[error(transparent)]
    Tag(#[from] TagError),

    /// With a colon, and no digest that can be used here.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            return Ok(Self::Digest(text.parse()?));
        }
        Ok(Self::Tag(text.parse()?))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

written_as_text!(Reference);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_it_a_digest_or_an_error_and_never_a_tag() {
        let digest = Digest::of(b"");

        assert_eq!("v1".parse(), Ok(Reference::Tag("v1".parse().unwrap())));
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!(
            "v1:x".parse::<Reference>(),
            Err(ReferenceError::Digest(DigestError::UnsupportedAlgorithm))
        );
        assert_eq!(
            "sha256:x".parse::<Reference>(),
            Err(ReferenceError::Digest(DigestError::Malformed))
        );
        assert_eq!("a/b".parse::<Reference>(), Err(ReferenceError::Tag(TagError)));
    }
}
