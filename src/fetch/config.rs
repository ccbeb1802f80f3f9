use std::time::Duration;

use serde::Deserialize;

use crate::select::TagGlobs;
use crate::units::Span;

/// How fresh answers are kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// How long a tag is served without asking the parent. Zero asks every time.
    pub tag_ttl: Duration,
    /// Tags that never move at the parent: once they are here, it is not asked for them.
    pub immutable_tags: TagGlobs,
    /// How long "does not exist" is believed.
    pub absent_ttl: Duration,
    /// How long a client waits for the parent before a tag or list that lies here is served stale.
    pub stale_after: Duration,
    /// How long a client waits for a header, however many questions are asked for it. No single question of
    /// ours takes longer.
    pub answer_within: Duration,
    /// How long what came from a parent is served on its word that this node may have the repository; `None`: always.
    pub access_ttl: Option<Span>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    tag_ttl: Span,
    immutable_tags: TagGlobs,
    absent_ttl: Span,
    stale_after: Span,
    answer_within: Span,
    access_ttl: Option<Span>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            tag_ttl: Span::seconds(60),
            immutable_tags: TagGlobs::default(),
            absent_ttl: Span::seconds(5),
            stale_after: Span::seconds(2),
            answer_within: Span::seconds(20),
            access_ttl: None,
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
        let config = Self {
            tag_ttl: written.tag_ttl.duration(),
            immutable_tags: written.immutable_tags,
            absent_ttl: written.absent_ttl.duration(),
            stale_after: written.stale_after.duration(),
            answer_within: written.answer_within.duration(),
            access_ttl: written.access_ttl,
        };
        if config.stale_after.is_zero() {
            return Err("stale_after is 0, so no parent could ever answer; write for example 2s");
        }
        if config.answer_within.is_zero() {
            return Err("answer_within is 0, so no parent could ever answer; write for example 20s");
        }
        if config.answer_within > Duration::from_secs(25) {
            return Err("answer_within is above 25s, and containerd gives up at 30s; write 25s or less");
        }
        if config.access_ttl.is_some_and(|ttl| ttl.duration() <= config.tag_ttl) {
            return Err(
                "access_ttl is not longer than tag_ttl, so nothing could be served while the parent is away; write for example 7d, or leave it out",
            );
        }
        Ok(config)
    }
}
