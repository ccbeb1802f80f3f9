use std::time::Duration;

use serde::Deserialize;

use crate::select::TagGlobs;
use crate::units::{Size, Span};

/// How clients may push, to a node that takes pushes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Anybody who reaches the port may push and delete.
    pub anonymous: bool,
    /// Uploads at a time.
    pub uploads: usize,
    /// Those of them that one who logs in may have, and all who do not together.
    pub uploads_each: usize,
    /// How long an upload may lie without anything coming.
    pub upload_ttl: Duration,
    /// Bytes of a blob.
    pub blob: Size,
    /// How long a blob that no manifest needs is kept.
    pub unused_ttl: Duration,
    /// Tags that stay what they are once they are there, whoever pushes.
    pub immutable_tags: TagGlobs,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    anonymous: bool,
    uploads: usize,
    uploads_each: usize,
    upload_ttl: Span,
    blob: Size,
    unused_ttl: Span,
    immutable_tags: TagGlobs,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            anonymous: false,
            uploads: 1000,
            uploads_each: 100,
            upload_ttl: Span::seconds(24 * 60 * 60),
            blob: Size::gib(64),
            unused_ttl: Span::seconds(24 * 60 * 60),
            immutable_tags: TagGlobs::default(),
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
        if written.uploads == 0 {
            return Err("uploads is 0, so nothing could be pushed; write for example 1000, or set mode to mirror");
        }
        if written.uploads_each == 0 {
            return Err("uploads_each is 0, so nobody could push; write for example 100");
        }
        if written.upload_ttl.duration().is_zero() {
            return Err("upload_ttl is 0, so no upload could go on; write for example 1d");
        }
        Ok(Self {
            anonymous: written.anonymous,
            uploads: written.uploads,
            uploads_each: written.uploads_each,
            upload_ttl: written.upload_ttl.duration(),
            blob: written.blob,
            unused_ttl: written.unused_ttl.duration(),
            immutable_tags: written.immutable_tags,
        })
    }
}

impl Config {
    /// The next one, and as strict as this one, for the moment in which who may push changes too.
    pub fn until(&self, next: &Self) -> Self {
        Self {
            immutable_tags: self.immutable_tags.or(&next.immutable_tags),
            ..next.clone()
        }
    }
}
