//! Patterns over tags, of some repositories or of all.

use serde::Deserialize;

use super::{Error, Globs};

/// Tags by patterns: `v*`, or `plant/**:release-*` for those of some repositories alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct TagGlobs {
    written: Vec<String>,
    anywhere: Vec<Globs>,
    /// Repositories, and tags of those.
    within: Vec<(Globs, Globs)>,
}

impl TagGlobs {
    /// Compiles the patterns.
    ///
    /// # Errors
    ///
    /// As [`Globs::new`].
    pub fn new(patterns: &[String]) -> Result<Self, Error> {
        let one = |pattern: &str| Globs::new(&[pattern.to_owned()]);
        let (mut anywhere, mut within) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.rsplit_once(':') {
                Some((repositories, tags)) => within.push((one(repositories)?, one(tags)?)),
                None => anywhere.push(pattern.clone()),
            }
        }
        Ok(Self {
            written: patterns.to_vec(),
            anywhere: vec![Globs::new(&anywhere)?],
            within,
        })
    }

    /// Whether one of the patterns matches this tag of the repository of this name.
    pub fn matches(&self, repository: &str, tag: &str) -> bool {
        let within = |(repositories, tags): &(Globs, Globs)| repositories.matches(repository) && tags.matches(tag);
        self.anywhere.iter().any(|tags| tags.matches(tag)) || self.within.iter().any(within)
    }

    /// What either matches.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            written: [self.patterns(), other.patterns()].concat(),
            anywhere: [&self.anywhere[..], &other.anywhere].concat(),
            within: [&self.within[..], &other.within].concat(),
        }
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// As they were written.
    pub fn patterns(&self) -> &[String] {
        &self.written
    }
}

impl TryFrom<Vec<String>> for TagGlobs {
    type Error = Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, Error> {
        Self::new(&patterns)
    }
}

impl PartialEq for TagGlobs {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for TagGlobs {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_all_repositories_unless_it_names_some() {
        let globs = TagGlobs::new(&["v[0-9]*", "plant/**:release-*"].map(str::to_owned)).unwrap();

        for (repository, tag, matches) in [
            ("a", "v1.2", true),
            ("plant/x/y", "v1", true),
            ("a", "latest", false),
            ("plant/x/y", "release-1", true),
            ("a", "release-1", false),
            ("a", "xv1", false),
        ] {
            assert_eq!(globs.matches(repository, tag), matches, "{repository}:{tag}");
        }
        assert!(!TagGlobs::default().matches("a", "v1"));
        assert!(TagGlobs::new(&["a:".to_owned()]).is_err() && TagGlobs::new(&[String::new()]).is_err());
    }

    #[test]
    fn of_two_lists_what_either_matches_is_matched_by_both_together() {
        let globs =
            |patterns: &[&str]| TagGlobs::new(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let (one, other) = (globs(&["v*"]).unwrap(), globs(&["w*", "plant/**:x"]).unwrap());

        let both = one.or(&other);

        assert!(both.matches("a", "v1") && both.matches("a", "w1") && both.matches("plant/a", "x"));
        assert!(!both.matches("a", "x") && !TagGlobs::default().or(&TagGlobs::default()).matches("a", "v1"));
    }
}
