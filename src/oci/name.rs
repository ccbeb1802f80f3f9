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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The grammar read letter by letter: what may follow what.
    fn by_the_letter(text: &str) -> bool {
        #[derive(Clone, Copy)]
        enum After {
            Slash,
            Core,
            Dot,
            Underscore(u8),
            Dash,
        }
        let mut after = After::Slash;
        for c in text.chars() {
            after = match (after, c) {
                (_, 'a'..='z' | '0'..='9') => After::Core,
                (After::Core, '.') => After::Dot,
                (After::Core, '_') => After::Underscore(1),
                (After::Underscore(1), '_') => After::Underscore(2),
                (After::Core | After::Dash, '-') => After::Dash,
                (After::Core, '/') => After::Slash,
                _ => return false,
            };
        }
        matches!(after, After::Core)
    }

    #[test]
    fn separators_stand_single_doubled_or_as_dashes_between_letters_only() {
        for text in [
            "a",
            "a/b",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "0/1.2",
            "docker.io/library/x",
            "a/b/c/d/e/f",
        ] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", ".a", "a.", "-a", "a-", "a-.b", "a b", "a:b",
            "a%2fb", "..", "a/../b", "./a", "a/.", "\u{e9}", "a\n", "_wharf", "_catalog",
        ] {
            assert_eq!(text.parse::<Name>(), Err(NameError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_name_of_255_characters_is_the_longest() {
        assert!("a".repeat(255).parse::<Name>().is_ok());
        assert_eq!("a".repeat(256).parse::<Name>(), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn what_the_specification_describes_is_a_name(
            text in "[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,2}){0,3}(/[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,2}){0,3}){0,3}",
        ) {
            prop_assert!(text.parse::<Name>().is_ok());
        }

        #[test]
        fn the_grammar_is_the_one_read_letter_by_letter(text in "[ab._/A-]{0,12}") {
            prop_assert_eq!(text.parse::<Name>().is_ok(), by_the_letter(&text));
        }

        #[test]
        fn no_name_climbs_out_of_a_folder(text: String) {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(name.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
