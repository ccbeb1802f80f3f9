//! What exists nowhere else: what was pushed here, and what was deleted here though the parent has it.
//!
//! A [`Fact`] is on record twice: as a line of the journal, and as a row of the index.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::debt::Debt;
use crate::oci::{Digest, Name, Reference, Registry, Repository, Tag};

/// One thing that nobody else could tell.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fact {
    /// A blob is the repository's: it was pushed, mounted, or a manifest that was pushed needs it.
    Blob {
        digest: Digest,
        /// When it was last said so: seconds since 1970.
        at: u64,
        /// Of a manifest that another one needs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
    },
    /// A manifest was pushed.
    Manifest {
        digest: Digest,
        /// Exact, as it came.
        media_type: String,
        at: u64,
        /// The manifest that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<Digest>,
    },
    /// A tag was pushed.
    Tag { tag: Tag, digest: Digest },
    /// It was deleted here. Whatever the parent has under this name is hidden while it is that.
    Buried {
        name: Reference,
        /// What the parent has under it; `None` until that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Digest>,
        /// What was on its way there when it was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Digest>,
    },
    /// A push or a delete that the parent is to hear of, or has heard of.
    Debt(Debt),
    /// A blob is on its way to the parent `to`: where that has what came of it.
    Sending {
        digest: Digest,
        #[serde(default)]
        to: String,
        session: String,
    },
}

/// What a fact is about: of each there is one at the most in a repository.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Key {
    Blob(Digest),
    Manifest(Digest),
    Tag(Tag),
    Buried(Reference),
    Debt(u64),
    Sending(Digest),
}

impl Fact {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Blob { digest, .. } => Key::Blob(*digest),
            Self::Manifest { digest, .. } => Key::Manifest(*digest),
            Self::Tag { tag, .. } => Key::Tag(tag.clone()),
            Self::Buried { name, .. } => Key::Buried(name.clone()),
            Self::Debt(debt) => Key::Debt(debt.number),
            Self::Sending { digest, .. } => Key::Sending(*digest),
        }
    }

    /// As it stands in the index.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    /// Reads what [`Fact::json`] wrote.
    pub(super) fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The type of its content, if that is a manifest.
    pub(super) fn media_type(&self) -> Option<&str> {
        match self {
            Self::Blob { media_type, .. } => media_type.as_deref(),
            Self::Manifest { media_type, .. } => Some(media_type),
            _ => None,
        }
    }

    /// The tag that it makes.
    pub(super) fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Tag { tag, .. } => Some(tag),
            _ => None,
        }
    }

    /// The content that it keeps from being evicted.
    pub(super) fn content(&self) -> Option<&Digest> {
        match self {
            Self::Blob { digest, .. } | Self::Manifest { digest, .. } => Some(digest),
            _ => None,
        }
    }
}

impl Key {
    /// What it speaks of, if it says that it is here.
    pub(super) fn name(&self) -> Option<Reference> {
        match self {
            Self::Blob(digest) | Self::Manifest(digest) => Some(Reference::Digest(*digest)),
            Self::Tag(tag) => Some(Reference::Tag(tag.clone())),
            Self::Buried(_) | Self::Debt(_) | Self::Sending(_) => None,
        }
    }

    /// As it stands in the index.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Blob(digest) => format!("blob/{digest}"),
            Self::Manifest(digest) => format!("manifest/{digest}"),
            Self::Tag(tag) => format!("tag/{tag}"),
            Self::Buried(name) => format!("buried/{name}"),
            Self::Debt(number) => format!("debt/{number}"),
            Self::Sending(digest) => format!("sending/{digest}"),
        }
    }
}

/// What becomes of a repository in one step: all of it, or nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Change {
    /// Its place in the order of all changes.
    pub(super) number: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    registry: String,
    name: Name,
    /// These hold from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) say: Vec<Fact>,
    /// These hold no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unsay: Vec<Key>,
}

impl Change {
    pub(super) fn new(number: u64, repository: &Repository, say: Vec<Fact>, unsay: Vec<Key>) -> Self {
        Self {
            number,
            registry: repository.registry.as_str().to_owned(),
            name: repository.name.clone(),
            say,
            unsay,
        }
    }

    /// Whose it is; `None` if no such registry can be.
    pub(super) fn repository(&self) -> Option<Repository> {
        let registry = match self.registry.as_str() {
            "" => Registry::own(),
            name => name.parse().ok()?,
        };
        Some(Repository {
            registry,
            name: self.name.clone(),
        })
    }

    /// As a line of the journal: a checksum, then JSON.
    pub(super) fn line(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("texts and numbers are JSON");
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes()
    }

    /// Reads a line without its end; `None` if it was not written like this.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let (sum, json) = line.split_at_checked(8)?;
        let json = json.strip_prefix(b" ")?;
        let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
        (sum == crc32c::crc32c(json)).then(|| serde_json::from_slice(json).ok())?
    }
}

/// Seconds since 1970, for facts.
#[expect(clippy::disallowed_methods, reason = "what is written down is when it was written")]
pub(super) fn stamp() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        let repository = Repository::new("quay.io".parse().unwrap(), "plant/app".parse().unwrap());
        let digest = Digest::of(b"x");
        let say = vec![
            Fact::Manifest {
                digest,
                media_type: "a/b; c=\"d\"".to_owned(),
                at: 7,
                subject: Some(digest),
            },
            Fact::Tag {
                tag: "v1".parse().unwrap(),
                digest,
            },
        ];
        Change::new(3, &repository, say, vec![Key::Buried(Reference::Digest(digest))])
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_a_flipped_bit_makes_it_none() {
        let line = change().line();
        let line = line.strip_suffix(b"\n").unwrap();

        let read = Change::read(line).unwrap();

        assert_eq!((read.say, read.unsay, read.number), (change().say, change().unsay, 3));
        assert_eq!(Change::read(line).unwrap().repository(), change().repository());
        for bit in 0..line.len() * 8 {
            let mut damaged = line.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let is_same_sum = bit / 8 < 8 && damaged[..8].eq_ignore_ascii_case(&line[..8]);
            assert!(is_same_sum || Change::read(&damaged).is_none(), "bit {bit}");
        }
    }
}
