//! Versions as tags write them: `v1.2`, `1.25-alpine`, `2026.11.5`, which is more than semantic versioning allows.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use semver::{Prerelease, VersionReq};

use crate::units::written_as_text;

/// Words behind a version that mean that it is not released yet. Any other word names a variant of it.
const UNRELEASED: [&str; 9] = [
    "alpha", "beta", "rc", "pre", "preview", "dev", "snapshot", "nightly", "canary",
];

/// A range of versions, as Cargo and npm write them: `>=1.2, <2`, `^1.4`, `~1.2.3`, `1.*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versions(VersionReq);

/// Why a text is no range of versions. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no range of versions; write one like \">=1.2, <2\" or \"^1.4\"")]
pub struct VersionsError(String);

/// The version that a tag begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Version<'a> {
    numbers: Vec<u64>,
    /// What stands behind them, without the sign in between.
    rest: &'a str,
    is_released: bool,
}

impl<'a> Version<'a> {
    /// `None`: the tag is no version, like `latest` or a commit's hash.
    pub(super) fn of(tag: &'a str) -> Option<Self> {
        let text = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
        let digits = digits.strip_suffix('.').unwrap_or(digits);
        let numbers: Result<Vec<u64>, _> = digits.split('.').map(str::parse).collect();
        let numbers = numbers.ok()?;
        let word = rest.trim_start_matches(['-', '_', '+', '.']);
        // `1.2rc1` is one, `3e25960a` is not.
        let is_apart = word.len() < rest.len() || word.is_empty();
        let is_released = !is_unreleased(word);
        (is_apart || !is_released).then_some(Self {
            numbers,
            rest: word,
            is_released,
        })
    }

    fn number(&self, at: usize) -> u64 {
        self.numbers.get(at).copied().unwrap_or_default()
    }

    fn compare_numbers(&self, other: &Self) -> Ordering {
        let most = self.numbers.len().max(other.numbers.len());
        let mut order = (0..most).map(|at| self.number(at).cmp(&other.number(at)));
        order.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// By the numbers, then what is not released first, then by what stands behind.
impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_numbers(other)
            .then(self.is_released.cmp(&other.is_released))
            .then_with(|| natural(self.rest, other.rest))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Versions {
    /// Whether the tag is a version within the range. What is not released yet is only where the range names something
    /// unreleased of the same version; what names a variant (`1.25-alpine`) counts like the version itself.
    pub(super) fn has(&self, tag: &str) -> bool {
        let Some(version) = Version::of(tag) else { return false };
        let mut plain = semver::Version::new(version.number(0), version.number(1), version.number(2));
        if !version.is_released {
            let allowed = |letter: char| {
                if letter.is_ascii_alphanumeric() || letter == '.' {
                    letter
                } else {
                    '-'
                }
            };
            let word: String = version.rest.chars().map(allowed).collect();
            plain.pre = Prerelease::new(&word).unwrap_or_else(|_| Prerelease::new("unreleased").unwrap_or_default());
        }
        self.0.matches(&plain)
    }
}

impl FromStr for Versions {
    type Err = VersionsError;

    fn from_str(text: &str) -> Result<Self, VersionsError> {
        // `>=v1.2` too.
        let is_sign = |(at, letter): (usize, char)| {
            let next = text[at + letter.len_utf8()..].chars().next();
            matches!(letter, 'v' | 'V') && next.is_some_and(|next| next.is_ascii_digit())
        };
        let kept = text.char_indices().filter(|place| !is_sign(*place));
        let plain: String = kept.map(|(_, letter)| letter).collect();
        plain.parse().map(Self).map_err(|_| VersionsError(text.to_owned()))
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

written_as_text!(Versions);

fn is_unreleased(word: &str) -> bool {
    let letters = word
        .find(|letter: char| !letter.is_ascii_alphabetic())
        .unwrap_or(word.len());
    UNRELEASED
        .iter()
        .any(|known| known.eq_ignore_ascii_case(&word[..letters]))
}

/// Digits by their number, all else by its bytes.
pub(super) fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let (Some(first), Some(second)) = (one.first(), other.first()) else {
            return one.len().cmp(&other.len());
        };
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (a, b) = (digits(&mut one), digits(&mut other));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            (one, other) = (&one[1..], &other[1..]);
            first.cmp(second)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The digits at the beginning, without leading zeros; the text goes on behind them.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let zeros = number.iter().position(|byte| *byte != b'0').unwrap_or(number.len());
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(range: &str, tag: &str) -> bool {
        range.parse::<Versions>().unwrap().has(tag)
    }

    #[test]
    fn tags_that_are_no_semantic_versions_are_in_the_range_of_their_numbers() {
        for (range, tag, is_in) in [
            (">=1.2, <2", "1.2.0", true),
            (">=1.2, <2", "v1.9.9", true),
            (">=1.2, <2", "1.2", true),
            (">=1.2, <2", "1", false),
            (">=1.2, <2", "2", false),
            (">=1.2, <2", "2.0.0", false),
            (">=1.2, <2", "1.25-alpine", true),
            (">=1.2, <2", "1.25-alpine3.19", true),
            (">=1.2, <2", "1.25_build4", true),
            ("^1.4", "1.4.0.7", true),
            ("~1.2.3", "1.3.0", false),
            (">=2026.1", "2026.01.05", true),
            (">=v1.2", "v1.3", true),
            (">=1.2", "latest", false),
            (">=1.2", "3e25960a79dbc69b674cd4ec67a72c62", false),
            (">=1.2", "", false),
            (">=1.2", "v", false),
            (">=0", "1..2", false),
        ] {
            assert_eq!(has(range, tag), is_in, "{tag} in {range}");
        }
    }

    #[test]
    fn what_is_not_released_is_only_in_a_range_that_asks_for_it() {
        for (range, tag, is_in) in [
            (">=1.2", "1.3.0-rc.1", false),
            (">=1.2", "1.3.0-rc1", false),
            (">=1.2", "1.3-beta", false),
            (">=1.2", "1.3.0rc1", false),
            (">=1.3.0-rc.0", "1.3.0-rc.1", true),
            ("=1.0.0-dev.1", "v1.0.0-dev.1", true),
            (">=1.2", "1.3-recipe", true),
        ] {
            assert_eq!(has(range, tag), is_in, "{tag} in {range}");
        }
    }

    #[test]
    fn versions_are_in_the_order_of_their_numbers_with_what_is_unreleased_first() {
        let mut tags = [
            "1.10",
            "1.9",
            "1.9-alpine",
            "1.10-rc2",
            "1.10-rc10",
            "1.9.1",
            "2",
            "v1.11",
        ];

        tags.sort_by_key(|tag| Version::of(tag).unwrap());

        assert_eq!(
            tags,
            [
                "1.9",
                "1.9-alpine",
                "1.9.1",
                "1.10-rc2",
                "1.10-rc10",
                "1.10",
                "v1.11",
                "2"
            ]
        );
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["build-10", "build-9", "build-010-a", "a", "build"];

        names.sort_by(|one, other| natural(one, other));

        assert_eq!(names, ["a", "build", "build-9", "build-10", "build-010-a"]);
    }

    #[test]
    fn what_is_no_range_is_refused_with_an_example() {
        let error = "newest".parse::<Versions>().unwrap_err().to_string();

        assert!(error.contains("newest") && error.contains("^1.4"), "{error}");
    }
}
