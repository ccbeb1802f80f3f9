//! Allow and deny.

use crate::select::{Error, Globs};

/// What is admitted: all that `allow` names, or everything when it names nothing, less what `deny`
/// names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// What may pass. Empty: everything.
    pub allow: Globs,
    /// What may not, even if `allow` names it.
    pub deny: Globs,
}

impl Filter {
    /// Compiles both lists.
    ///
    /// # Errors
    ///
    /// As [`Globs::new`].
    pub fn new(allow: &[String], deny: &[String]) -> Result<Self, Error> {
        Ok(Self {
            allow: Globs::new(allow)?,
            deny: Globs::new(deny)?,
        })
    }

    /// Whether `text` may pass.
    pub fn admits(&self, text: &str) -> bool {
        (self.allow.is_empty() || self.allow.matches(text)) && !self.deny.matches(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_filter_without_patterns_admits_everything() {
        assert!(Filter::default().admits("library/alpine"));
    }

    #[test]
    fn what_is_not_allowed_is_refused_as_soon_as_something_is_allowed() {
        let filter = Filter {
            allow: globs(&["plant/**"]),
            deny: globs(&[]),
        };

        assert!(filter.admits("plant/line-1/plc"));
        assert!(!filter.admits("library/alpine"));
    }

    #[test]
    fn deny_wins_over_allow() {
        let filter = Filter {
            allow: globs(&["plant/**"]),
            deny: globs(&["plant/secret/*"]),
        };

        assert!(!filter.admits("plant/secret/recipe"));
        assert!(filter.admits("plant/line-1"));
    }
}
