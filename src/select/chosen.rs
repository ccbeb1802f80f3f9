//! Which tags of a repository are chosen.

use std::cmp::Ordering;

use regex::Regex;

use super::Globs;
use super::version::{Version, Versions, natural};

/// A choice among the tags of one repository: all conditions hold, then the newest of what is left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chosen {
    /// By name or pattern; empty: all.
    pub named: Globs,
    /// Not these.
    pub but: Globs,
    /// Of which the whole name matches.
    pub matching: Option<Matching>,
    /// Within a range of versions.
    pub versions: Option<Versions>,
    /// No more than so many: those that come last by version, and by name where there is none.
    pub newest: Option<usize>,
}

/// A regular expression for a whole name.
#[derive(Clone, Debug)]
pub struct Matching {
    written: String,
    compiled: Regex,
}

impl Matching {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn new(written: &str) -> Result<Self, String> {
        let whole = format!("^(?:{written})$");
        let compiled = Regex::new(&whole).map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim().to_owned()
        })?;
        Ok(Self {
            written: written.to_owned(),
            compiled,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl PartialEq for Matching {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Matching {}

impl Chosen {
    /// Those of `tags` that are chosen, in the order of their names.
    pub fn among<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut chosen: Vec<&str> = tags.into_iter().filter(|tag| self.may_have(tag)).collect();
        if let Some(most) = self.newest.filter(|most| *most < chosen.len()) {
            chosen.sort_by(|one, other| by_age(other, one));
            chosen.truncate(most);
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// The tags that it names one by one, if it does so: then no list of tags is needed.
    pub fn exactly(&self) -> Option<&[String]> {
        let names = self.named.patterns();
        let is_plain = |name: &String| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        (!names.is_empty() && names.iter().all(is_plain)).then_some(names)
    }

    /// Whether the tag is chosen, if it is not too old.
    pub fn may_have(&self, tag: &str) -> bool {
        (self.named.is_empty() || self.named.matches(tag))
            && !self.but.matches(tag)
            && self
                .matching
                .as_ref()
                .is_none_or(|matching| matching.compiled.is_match(tag))
            && self.versions.as_ref().is_none_or(|versions| versions.has(tag))
    }
}

/// The older first: names that are no versions, then versions.
fn by_age(one: &str, other: &str) -> Ordering {
    let order = match (Version::of(one), Version::of(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => one.is_some().cmp(&other.is_some()),
    };
    order.then_with(|| natural(one, other)).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: &[&str], but: &[&str]) -> Chosen {
        let globs = |patterns: &[&str]| Globs::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>());
        Chosen {
            named: globs(named).unwrap(),
            but: globs(but).unwrap(),
            ..Chosen::default()
        }
    }

    const TAGS: [&str; 9] = [
        "1.9",
        "1.10",
        "1.10-alpine",
        "1.11-rc1",
        "2.0",
        "latest",
        "stable",
        "v2.1",
        "sha-1a2b",
    ];

    #[test]
    fn without_a_condition_all_are_chosen_and_each_condition_takes_some_away() {
        let all = Chosen::default();
        assert_eq!(all.among(TAGS).len(), TAGS.len());

        let named = chosen(&["1.*", "latest"], &["*-alpine"]);
        assert_eq!(named.among(TAGS), ["1.10", "1.11-rc1", "1.9", "latest"]);

        let matching = Chosen {
            matching: Some(Matching::new("v?[0-9.]+").unwrap()),
            ..Chosen::default()
        };
        assert_eq!(matching.among(TAGS), ["1.10", "1.9", "2.0", "v2.1"]);

        let versions = Chosen {
            versions: Some(">=1.10, <2.1".parse().unwrap()),
            ..Chosen::default()
        };
        assert_eq!(versions.among(TAGS), ["1.10", "1.10-alpine", "2.0"]);
    }

    #[test]
    fn the_newest_are_those_of_the_highest_version() {
        let newest = |most| Chosen {
            newest: Some(most),
            ..Chosen::default()
        };

        assert_eq!(newest(2).among(TAGS), ["2.0", "v2.1"]);
        assert_eq!(newest(4).among(TAGS), ["1.10-alpine", "1.11-rc1", "2.0", "v2.1"]);
        assert_eq!(newest(0).among(TAGS), [""; 0]);
        assert_eq!(
            newest(2).among(["nightly-9", "nightly-10", "nightly-8"]),
            ["nightly-10", "nightly-9"]
        );
    }

    #[test]
    fn tags_that_are_named_one_by_one_need_no_list() {
        let names = chosen(&["latest", "v1.2"], &[]);
        assert_eq!(names.exactly().unwrap(), ["latest", "v1.2"]);

        for patterns in [&["v*"][..], &["v[12]"], &["{a,b}"], &["a?"], &[]] {
            assert_eq!(chosen(patterns, &[]).exactly(), None, "{patterns:?}");
        }
    }

    #[test]
    fn an_expression_that_is_none_is_told_in_one_line() {
        let error = Matching::new("v(1").unwrap_err();

        assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
    }
}
