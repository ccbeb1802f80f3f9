//! The tag: a name for content that may move.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::oci::Digest;
use crate::units::written_as_text;

/// A tag, like `latest` (distribution spec, "Pull").
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag under which referrers of `subject` are listed where there is no referrers API
    /// (distribution spec, "Referrers Tag Schema": at most 64 digits stay).
    pub fn of_referrers(subject: &Digest) -> Self {
        let mut hex = subject.hex();
        hex.truncate(64);
        Self(format!("{}-{hex}", subject.algorithm()).into())
    }

    /// The tag as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no tag. The caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a tag; use at most 128 letters, digits, . _ or -, the first a letter, a digit or _")]
pub struct TagError;

impl FromStr for Tag {
    type Err = TagError;

    /// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution spec, "Pull").
    fn from_str(text: &str) -> Result<Self, TagError> {
        let is_first = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let is_later = |b: &u8| is_first(b) || matches!(b, b'.' | b'-');
        match text.as_bytes() {
            [first, later @ ..] if later.len() < 128 && is_first(first) && later.iter().all(is_later) => {
                Ok(Self(text.into()))
            }
            _ => Err(TagError),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(Tag);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn a_tag_begins_with_a_letter_a_digit_or_an_underscore() {
        for text in ["latest", "V1.2-rc_3", "_", "0", &"x".repeat(128)] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "-a",
            ".a",
            "a/b",
            "a:b",
            "a b",
            "a%20",
            "\u{e9}",
            "a\n",
            &"x".repeat(129),
        ] {
            assert_eq!(text.parse::<Tag>(), Err(TagError), "{text:?}");
        }
    }

    #[test]
    fn the_referrers_tag_keeps_at_most_64_digits() {
        let short = Digest::of(b"");
        let long = Digest::of_with(Algorithm::Sha512, b"");

        assert_eq!(Tag::of_referrers(&short).as_str(), format!("sha256-{}", short.hex()));
        assert_eq!(
            Tag::of_referrers(&long).as_str(),
            format!("sha512-{}", &long.hex()[..64])
        );
        assert_eq!(Tag::of_referrers(&long).as_str().parse(), Ok(Tag::of_referrers(&long)));
    }

    proptest! {
        #[test]
        fn what_the_specification_describes_is_a_tag(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert!(text.parse::<Tag>().is_ok());
        }

        #[test]
        fn a_foreign_character_anywhere_spoils_a_tag(text in "[a-z]{1,5}", at in 0..6_usize, c in "[^a-zA-Z0-9._-]") {
            let mut text = text;
            text.insert_str(at.min(text.len()), &c);
            prop_assert_eq!(text.parse::<Tag>(), Err(TagError));
        }
    }
}
