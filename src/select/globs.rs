//! A list of patterns, compiled.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize, Serializer};

/// Patterns of which one must match. The empty list matches nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Globs {
    written: Vec<String>,
    compiled: GlobSet,
}

impl Globs {
    /// Compiles the patterns.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] names the first pattern that is none, [`Error::Empty`] says that one
    /// is "", [`Error::TooMuch`] that all together are too large.
    pub fn new(patterns: &[String]) -> Result<Self, Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            if pattern.is_empty() {
                return Err(Error::Empty);
            }
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(glob.map_err(|source| Error::Malformed {
                pattern: pattern.clone(),
                source,
            })?);
        }
        let compiled = set.build().map_err(Error::TooMuch)?;
        Ok(Self {
            written: patterns.to_vec(),
            compiled,
        })
    }

    /// Whether one of the patterns matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// As they were written.
    pub fn patterns(&self) -> &[String] {
        &self.written
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }
}

/// Why a list of patterns cannot be used. The operator's.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pattern without a character matches nothing.
    #[error("an empty pattern matches nothing; leave it out, or write ** for everything")]
    Empty,

    /// A bracket or brace that is not closed, or the like.
    #[error("{pattern:?} is not a pattern; write one like library/* or plant/**, and close what is opened by [ or {{")]
    Malformed {
        /// The pattern as it was written.
        pattern: String,
        /// What is wrong in it.
        source: globset::Error,
    },

    /// Each is a pattern, but together they are larger than can be searched quickly.
    #[error("the patterns are too large; write fewer or shorter ones")]
    TooMuch(#[source] globset::Error),
}

impl TryFrom<Vec<String>> for Globs {
    type Error = Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, Error> {
        Self::new(&patterns)
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Globs {}

impl Serialize for Globs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Result<Globs, Error> {
        Globs::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_star_stays_within_one_component_and_two_stars_cross_the_slashes() {
        let one = globs(&["library/*"]).unwrap();
        let two = globs(&["library/**"]).unwrap();

        assert!(one.matches("library/alpine"));
        assert!(!one.matches("library/a/b"));
        assert!(two.matches("library/a/b"));
        assert!(!two.matches("other/a"));
    }

    #[test]
    fn a_pattern_must_match_the_whole_name() {
        let globs = globs(&["alpine"]).unwrap();

        assert!(globs.matches("alpine"));
        assert!(!globs.matches("alpine2"));
        assert!(!globs.matches("library/alpine"));
    }

    #[test]
    fn no_patterns_match_nothing() {
        assert!(!globs(&[]).unwrap().matches("alpine"));
        assert!(globs(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_malformed_pattern_is_named_in_the_error() {
        let error = globs(&["fine", "not{closed"]).unwrap_err();

        assert!(
            error
                .to_string()
                .starts_with(r#""not{closed" is not a pattern; write "#),
            "{error}"
        );
        assert!(matches!(globs(&[""]), Err(Error::Empty)));
    }

    #[test]
    fn patterns_are_read_and_written_as_a_list() {
        let read: Globs = serde_json::from_str(r#"["a/*","b"]"#).unwrap();

        assert!(read.matches("a/x"));
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"["a/*","b"]"#);
        assert!(serde_json::from_str::<Globs>(r#"["[a"]"#).is_err());
    }
}
