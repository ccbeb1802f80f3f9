//! Whether a parent is a wharf node; asked once, remembered, asked again after it was away.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use moka::future::Cache;

use super::error::Error;

/// On an answer of a wharf node: its version.
const HEADER: &str = "wharf";
/// On an answer of a wharf node that takes pushes, with the value `registry`.
pub const MODE_HEADER: &str = "wharf-mode";

/// What a registry is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A node like this one, which understands `ns` and errors that name a layer.
    Wharf,
    /// Any other registry.
    Foreign,
}

impl Kind {
    /// From the headers of an answer to `GET /v2/`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(HEADER) {
            Self::Wharf
        } else {
            Self::Foreign
        }
    }
}

/// What is known of one upstream.
#[derive(Debug)]
pub(super) struct Memory {
    /// What it was when it last said so.
    wharf: AtomicBool,
    /// A node that said that it takes no pushes.
    refuses: AtomicBool,
    /// Another registry that declined one.
    declined: AtomicBool,
    /// Whether another may have come in its place since.
    doubted: AtomicBool,
    /// A cache of one, for its way of letting many wait for one answer.
    asked: Cache<(), Result<Kind, Error>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            wharf: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            declined: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            asked: Cache::new(1),
        }
    }

    /// What it was last time; [`Kind::Foreign`] before the first.
    pub(super) fn last(&self) -> Kind {
        if self.wharf.load(Ordering::Relaxed) {
            Kind::Wharf
        } else {
            Kind::Foreign
        }
    }

    /// What it is, from memory or by `ask`, of which only one runs at a time; those who wait for
    /// it share its failure, and the next caller asks anew.
    pub(super) async fn settle(&self, ask: impl Future<Output = Result<Kind, Error>>) -> Result<Kind, Error> {
        // A probe may have found another since.
        let is_same = |known: &Result<Kind, Error>| known.as_ref().is_ok_and(|kind| *kind == self.last());
        let is_open = |known: &Result<Kind, Error>| !is_same(known) || self.doubted.load(Ordering::Relaxed);
        self.asked.entry(()).or_insert_with_if(ask, is_open).await.into_value()
    }

    /// An answer to `GET /v2/` has arrived.
    pub(super) fn learn(&self, kind: Kind) {
        self.wharf.store(kind == Kind::Wharf, Ordering::Relaxed);
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// A node says with each answer whether it takes pushes. Of other registries nobody knows before they are pushed to.
    pub(super) fn hear(&self, headers: &HeaderMap) {
        let takes = headers.get(MODE_HEADER).is_some_and(|mode| mode == "registry");
        let is_node = Kind::of(headers) == Kind::Wharf;
        self.refuses.store(is_node && !takes, Ordering::Relaxed);
        if is_node {
            self.declines(false);
        }
    }

    /// A push was offered to a registry that is no node.
    pub(super) fn declines(&self, declines: bool) {
        self.declined.store(declines, Ordering::Relaxed);
    }

    /// Whether it is known to take no pushes.
    pub(super) fn refuses_pushes(&self) -> bool {
        self.refuses.load(Ordering::Relaxed) || self.declined.load(Ordering::Relaxed)
    }

    /// The upstream was away: what comes back may be another.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }
}
