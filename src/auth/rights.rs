//! Which repositories a right is for.

use std::fmt;
use std::str::FromStr;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::Actions;
use crate::units::written_as_text;

/// Repositories by the names that clients use here: one name, all below a prefix (`plant/*`), or all (`*`).
///
/// A trailing star crosses slashes, as in a scope map of an Azure Container Registry; `plant/**` means the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(String);

/// Why a text is no pattern. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no pattern for repositories; write a name like plant/app, all below one like plant/*, or * for all")]
pub struct PatternError(String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let malformed = || PatternError(text.to_owned());
        let name = match text {
            "*" | "**" => return Ok(Self("*".to_owned())),
            _ => text.strip_suffix("/**").or(text.strip_suffix("/*")).unwrap_or(text),
        };
        // An upstream's name may have a port, and so stands in front; beyond that it is the grammar of names.
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-:".contains(letter);
        if name.is_empty()
            || name.len() > 512
            || !name
                .split('/')
                .all(|part| !part.is_empty() && part.chars().all(is_plain))
        {
            return Err(malformed());
        }
        let star = if name.len() < text.len() { "/*" } else { "" };
        Ok(Self(format!("{name}{star}")))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(Pattern);

/// Rights on some repositories.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// Which.
    pub repositories: Vec<Pattern>,
    /// What may be done with them.
    pub actions: Actions,
}

/// Written `PATTERN:ACTION,ACTION`, like the scopes of Docker's tokens.
impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((pattern, words)) = text.rsplit_once(':') else {
            return Err(format!(
                "{text:?} names no actions; write REPOSITORIES:ACTIONS, like plant/*:pull,push"
            ));
        };
        let mut actions = Actions::NONE;
        for word in words.split(',') {
            actions |= word.parse().map_err(|error: super::ActionError| error.to_string())?;
        }
        let pattern = pattern.parse().map_err(|error: PatternError| error.to_string())?;
        Ok(Self {
            repositories: vec![pattern],
            actions,
        })
    }
}

/// All rights of somebody. Looking one up takes time by the slashes in the name, however many there are.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    everywhere: Actions,
    at: HashMap<Box<str>, Actions>,
    /// By the prefix, without its slash.
    below: HashMap<Box<str>, Actions>,
}

impl Rights {
    /// Everything, everywhere.
    pub fn all() -> Self {
        Self {
            everywhere: Actions::ALL,
            ..Self::default()
        }
    }

    /// Adds to them.
    pub fn grant(&mut self, permission: &Permission) {
        for Pattern(pattern) in &permission.repositories {
            let slot = match (pattern.as_str(), pattern.strip_suffix("/*")) {
                ("*", _) => &mut self.everywhere,
                (_, Some(prefix)) => self.below.entry(prefix.into()).or_default(),
                (name, None) => self.at.entry(name.into()).or_default(),
            };
            *slot |= permission.actions;
        }
    }

    /// Those on the repository of this name.
    pub fn on(&self, name: &str) -> Actions {
        let mut found = self.everywhere;
        if let Some(actions) = self.at.get(name) {
            found |= *actions;
        }
        if !self.below.is_empty() {
            let slashes = name.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
            for (end, _) in slashes {
                if let Some(actions) = self.below.get(&name[..end]) {
                    found |= *actions;
                }
            }
        }
        found
    }

    /// Those on every repository, whatever its name is.
    pub fn everywhere(&self) -> Actions {
        self.everywhere
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        let none = |rights: &HashMap<Box<str>, Actions>| rights.values().all(|actions| actions.is_empty());
        self.everywhere.is_empty() && none(&self.at) && none(&self.below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Action;

    fn rights(permissions: &[&str]) -> Rights {
        let mut rights = Rights::default();
        for permission in permissions {
            rights.grant(&permission.parse().unwrap());
        }
        rights
    }

    #[test]
    fn a_trailing_star_stands_for_everything_below_and_not_for_the_name_itself() {
        let rights = rights(&["plant/*:pull"]);

        for (name, may) in [
            ("plant/app", true),
            ("plant/line/app", true),
            ("plant", false),
            ("plants/app", false),
            ("other/plant/app", false),
        ] {
            assert_eq!(rights.on(name).has(Action::ContentRead), may, "{name}");
        }
    }

    #[test]
    fn rights_add_up_and_go_no_further() {
        let rights = rights(&[
            "*:metadata/read",
            "plant/*:content/read",
            "plant/app:content/write",
            "plant/app:delete",
        ]);

        assert_eq!(
            rights.on("plant/app").to_string(),
            "content/read,content/write,content/delete,metadata/read"
        );
        assert_eq!(rights.on("plant/other").to_string(), "content/read,metadata/read");
        assert_eq!(rights.on("x").to_string(), "metadata/read");
        assert!(Rights::default().is_empty() && !rights.is_empty());
    }

    #[test]
    fn names_patterns_of_upstreams_and_stars_at_the_end_are_read_and_nothing_else() {
        for (text, written) in [
            ("plant/app", "plant/app"),
            ("plant/*", "plant/*"),
            ("plant/**", "plant/*"),
            ("*", "*"),
            ("quay.io/*", "quay.io/*"),
            ("localhost:5000/a", "localhost:5000/a"),
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), written);
        }
        for text in [
            "",
            "/",
            "plant/",
            "plant*",
            "*/app",
            "a/*/b",
            "Plant/app",
            "a//b",
            "a b",
            "**/*",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_permission_in_one_word_says_what_it_lacks() {
        assert!(
            "plant/app"
                .parse::<Permission>()
                .unwrap_err()
                .contains("REPOSITORIES:ACTIONS")
        );
        assert!(
            "plant/app:shove"
                .parse::<Permission>()
                .unwrap_err()
                .contains("\"shove\"")
        );
        assert!("pl*nt:pull".parse::<Permission>().unwrap_err().contains("\"pl*nt\""));
    }
}
