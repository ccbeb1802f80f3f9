use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::oci::Repository;
use crate::select::Globs;
use crate::units::{Size, Span};

/// How what is pushed here reaches the parent.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Bytes that may wait for the parent. `None`: half of what the disk may hold.
    pub capacity: Option<Size>,
    /// Repositories that are worked on at a time.
    pub repositories: usize,
    /// How long what was delivered is remembered, and looked for at the parent now and then.
    pub remember: Duration,
    /// How often it is looked for.
    pub check_every: Duration,
    /// What a tag is given at its end where both it and the parent's are kept; `{node}` is this node's name.
    pub suffix: String,
    /// What holds where no rule does.
    pub policy: Policy,
    /// The first that names a repository holds for it.
    pub rules: Vec<Rule>,
}

/// What is settled how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Whose tag it is that both have moved.
    pub conflict: Conflict,
    /// Whether what is deleted here is to be deleted at the parent.
    pub deletes: bool,
}

/// Whose tag it is that was moved here and, meanwhile, at the parent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// The push that is paid last wins, as with any registry.
    #[default]
    LastWriter,
    /// The parent's stays, and holds here too.
    ParentWins,
    /// The parent's stays; ours goes by another name.
    KeepBoth,
}

impl Conflict {
    pub(super) const ALL: [Self; 3] = [Self::LastWriter, Self::ParentWins, Self::KeepBoth];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastWriter => "last-writer",
            Self::ParentWins => "parent-wins",
            Self::KeepBoth => "keep-both",
        }
    }
}

/// A policy of some repositories.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub repositories: Globs,
    /// What holds for them.
    pub policy: Policy,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    capacity: Option<Size>,
    repositories: usize,
    remember: Span,
    check_every: Span,
    suffix: String,
    conflict: Conflict,
    deletes: bool,
    rule: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    repositories: Globs,
    conflict: Option<Conflict>,
    deletes: Option<bool>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            capacity: None,
            repositories: 4,
            remember: Span::seconds(7 * 24 * 60 * 60),
            check_every: Span::seconds(60 * 60),
            suffix: "-{node}".to_owned(),
            conflict: Conflict::default(),
            deletes: true,
            rule: Vec::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Written::default().try_into().expect("the defaults are allowed")
    }
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written {
            capacity,
            repositories,
            remember,
            check_every,
            suffix,
            conflict,
            deletes,
            rule,
        } = written;
        if repositories == 0 {
            return Err("repositories is 0, so nothing would ever be delivered; write for example 4");
        }
        if capacity.is_some_and(|capacity| capacity.bytes() == 0) {
            return Err("capacity is 0, so nothing could be pushed; write for example 10GiB, or set mode to mirror");
        }
        if check_every.duration().is_zero() {
            return Err("check_every is 0; write for example 1h");
        }
        let is_tag = format!("v1{}", suffix.replace("{node}", "n"))
            .parse::<crate::oci::Tag>()
            .is_ok();
        if suffix.is_empty() || !is_tag {
            return Err("suffix does not make a tag of a tag; write for example -{node}");
        }
        let policy = Policy { conflict, deletes };
        let rules = rule.into_iter().map(|rule| Rule {
            repositories: rule.repositories,
            policy: Policy {
                conflict: rule.conflict.unwrap_or(conflict),
                deletes: rule.deletes.unwrap_or(deletes),
            },
        });
        Ok(Self {
            capacity,
            repositories,
            remember: remember.duration(),
            check_every: check_every.duration(),
            suffix,
            policy,
            rules: rules.collect(),
        })
    }
}

impl Config {
    /// What holds for a repository.
    pub fn policy_of(&self, repository: &Repository) -> Policy {
        let name = repository.name.as_str();
        let rule = self.rules.iter().find(|rule| rule.repositories.matches(name));
        rule.map_or(self.policy, |rule| rule.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_a_repository_holds_and_leaves_the_rest_as_it_is() {
        let config: Config = toml::from_str(
            "conflict = \"keep-both\"\n[[rule]]\nrepositories = [\"a/*\"]\ndeletes = false\n[[rule]]\nrepositories = [\"a/b\"]\nconflict = \"parent-wins\"\n",
        )
        .unwrap();
        let of = |name: &str| {
            let policy = config.policy_of(&Repository::new(crate::oci::Registry::own(), name.parse().unwrap()));
            (policy.conflict, policy.deletes)
        };

        assert_eq!(of("a/b"), (Conflict::KeepBoth, false));
        assert_eq!(of("b"), (Conflict::KeepBoth, true));
    }

    #[test]
    fn a_suffix_has_to_leave_a_tag_a_tag() {
        for wrong in ["", "/x", " ", "-{node}:"] {
            let text = format!("suffix = \"{wrong}\"");
            assert!(toml::from_str::<Config>(&text).is_err(), "{wrong:?}");
        }
    }
}
