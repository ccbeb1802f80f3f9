//! What may be done with a repository.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};
use std::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One right, by the name that a scope map of an Azure Container Registry has for it; `content/overwrite` is ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Action {
    /// Manifests and blobs, and what refers to them.
    ContentRead = 1,
    /// New content, and tags that were not there.
    ContentWrite = 1 << 1,
    /// Content and tags, away.
    ContentDelete = 1 << 2,
    /// Tags that were there, moved.
    ContentOverwrite = 1 << 3,
    /// Lists of tags and of repositories.
    MetadataRead = 1 << 4,
    /// Locks of images. Nothing here asks for it yet.
    MetadataWrite = 1 << 5,
}

/// All of them.
const ALL: [Action; 6] = [
    Action::ContentRead,
    Action::ContentWrite,
    Action::ContentDelete,
    Action::ContentOverwrite,
    Action::MetadataRead,
    Action::MetadataWrite,
];

/// Any number of rights.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Actions(u8);

/// Why a word is no right. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no action; write pull, push, delete, all, or one of content/read, content/write, content/overwrite, content/delete, metadata/read, metadata/write"
)]
pub struct ActionError(String);

impl Action {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentRead => "content/read",
            Self::ContentWrite => "content/write",
            Self::ContentDelete => "content/delete",
            Self::ContentOverwrite => "content/overwrite",
            Self::MetadataRead => "metadata/read",
            Self::MetadataWrite => "metadata/write",
        }
    }
}

impl Actions {
    /// None.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(0b11_1111);
    /// What a client needs to pull and to look around.
    pub const PULL: Self = Self(Action::ContentRead as u8 | Action::MetadataRead as u8);
    /// What it needs beside that to push.
    pub const WRITE: Self = Self(Action::ContentWrite as u8 | Action::ContentOverwrite as u8);
    /// To delete.
    pub const DELETE: Self = Self(Action::ContentDelete as u8);

    /// Whether `action` is among them.
    pub const fn has(self, action: Action) -> bool {
        self.0 & action as u8 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a number, for what is signed.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// What [`Actions::bits`] gave.
    pub(super) const fn of_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Each, in a fixed order.
    pub fn each(self) -> impl Iterator<Item = Action> {
        ALL.into_iter().filter(move |action| self.has(*action))
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(action as u8)
    }
}

impl BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Actions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Actions {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// One word: a right, or a name for several.
impl FromStr for Actions {
    type Err = ActionError;

    fn from_str(word: &str) -> Result<Self, ActionError> {
        Ok(match word {
            "pull" => Self::PULL,
            "push" => Self::PULL | Self::WRITE,
            "delete" => Self::DELETE,
            "all" | "*" => Self::ALL,
            _ => {
                let found = ALL.into_iter().find(|action| action.as_str() == word);
                found.map(Self::from).ok_or_else(|| ActionError(word.to_owned()))?
            }
        })
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.each().map(Action::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl Serialize for Actions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        for action in self.each() {
            list.serialize_element(action.as_str())?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Actions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of actions, like [\"pull\", \"push\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Actions, A::Error> {
                let mut actions = Actions::NONE;
                while let Some(word) = words.next_element::<String>()? {
                    actions |= word.parse().map_err(A::Error::custom)?;
                }
                Ok(actions)
            }
        }

        from.deserialize_seq(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_several_rights_stand_for_what_the_clients_need() {
        let of = |word: &str| word.parse::<Actions>().unwrap().to_string();

        assert_eq!(of("pull"), "content/read,metadata/read");
        assert_eq!(of("push"), "content/read,content/write,content/overwrite,metadata/read");
        assert_eq!(of("delete"), "content/delete");
        assert_eq!(of("all").split(',').count(), 6);
        assert_eq!(of("content/write"), "content/write");
    }

    #[test]
    fn a_word_that_is_no_right_is_named_with_those_that_are() {
        for word in ["", "Pull", "content", "content/read ", "contents/read"] {
            let error = word.parse::<Actions>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{word:?}")) && error.contains("content/read"),
                "{error}"
            );
        }
    }

    #[test]
    fn rights_are_read_as_they_were_written() {
        for bits in 0..64 {
            let actions = Actions::of_bits(bits);
            let json = serde_json::to_string(&actions).unwrap();
            assert_eq!(serde_json::from_str::<Actions>(&json).unwrap(), actions);
        }
    }
}
