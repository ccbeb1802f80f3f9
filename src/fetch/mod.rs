//! What is missing, fetched: one flight per digest however many ask, and how old a tag may be.
//!
//! A flight belongs to nobody's connection: it runs on the runtime that is handed in and outlives
//! whoever asked first. Followers read along, but never the last piece before the digest agrees.
//!
//! Invariant: content leaves here only for a repository whose own upstream vouched for it, by the
//! answer that brought it or by a HEAD.

mod ahead;
mod asker;
mod blob;
mod config;
mod distrust;
mod doubts;
mod error;
mod flight;
mod freshness;
mod here;
mod lead;
mod limits;
mod lists;
mod manifest;
mod metrics;
mod piece;
mod recheck;
mod source;
mod together;
mod window;
mod word;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use ahead::Sighting;
pub use asker::Asker;
pub use config::Config;
pub use error::{Error, Limit};
pub use here::Here;
pub use limits::Limits;
pub use manifest::{Document, Stale};
pub use metrics::Metrics;
pub use piece::{Piece, Readable};
pub use source::Source;

use self::flight::{Flight, Kind};
use self::together::Together;
use crate::oci::{Digest, Name, Registry, Repository};
use crate::parent::Parent;
use crate::store::{Slot, Store};
use crate::units::{Clock, Live};

/// Fetching for one node: cheap to clone.
#[derive(Clone)]
pub struct Fetch {
    shared: Arc<Shared>,
}

/// How an answer came about; the closed set of the label `outcome`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It lay here, fresh.
    Hit,
    /// It was asked for upstream.
    Miss,
    /// It joined a request that was already under way.
    Collapsed,
    /// It lay here, and the parent could not vouch for it.
    Stale,
}

impl Outcome {
    /// As the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Stale => "stale",
        }
    }
}

/// So long a list of repositories counts for all who ask.
const LATELY: std::time::Duration = std::time::Duration::from_secs(5);

/// Files that are hashed at a time.
const HASHED_AT_ONCE: usize = 4;

pub(crate) struct Shared {
    config: Config,
    limits: Live<Limits>,
    store: Store,
    /// By the registry that a repository names.
    parents: HashMap<Registry, Parent>,
    /// Whose repositories are pushed to here; of a node that takes pushes.
    here: Option<Here>,
    /// At most one a digest. Taken before no other lock.
    flights: Mutex<HashMap<Digest, Arc<Flight>>>,
    refreshing: Together<(Repository, Slot), Result<freshness::Refreshed, Error>>,
    confirming: Together<(Repository, Digest, Kind), Result<Option<u64>, Error>>,
    /// What the parent said does not exist, for a few seconds.
    absent: moka::sync::Cache<(Repository, Slot), String>,
    /// What the parent gave in the place of a list or document, at some cost: it is not asked for again at once.
    useless: moka::sync::Cache<(Repository, Slot), Error>,
    /// Tags that were pushed here and of which the parent was asked just now.
    looked: moka::sync::Cache<(Repository, Slot), ()>,
    /// What nothing refers to and does not lie here, for the time that a tag is fresh.
    unreferred: moka::sync::Cache<(Repository, Digest), freshness::Refreshed>,
    /// Bytes that a repository's manifest read lately announces. What one repository says counts for no other.
    announced: moka::sync::Cache<(Repository, Digest), u64>,
    /// What just arrived wrong, for a few seconds: whoever wants to go on with its bytes is told at once.
    spoiled: moka::sync::Cache<(Repository, Digest), Error>,
    /// What passes by unkept, in memory.
    windows: window::Budget,
    /// Turns at hashing what lies here: a disk is not made faster by more.
    hashing: Semaphore,
    /// What registries say that they have.
    catalogs: moka::future::Cache<Registry, Arc<Vec<Name>>>,
    /// What has changed there since it was asked.
    doubts: doubts::Doubts,
    /// What came wrong again and again.
    distrust: distrust::Distrust,
    /// What parents said of repositories, where that is to be heeded.
    words: Option<word::Words>,
    runtime: Handle,
    clock: Clock,
    metrics: Metrics,
}

/// Where content comes from.
pub struct Sources {
    /// Who is asked for each registry.
    pub parents: HashMap<Registry, Parent>,
    /// What is pushed to the node, if anything is.
    pub here: Option<Here>,
}

impl Fetch {
    /// From `sources`, who give no more than `limits`. Flights run on `runtime`.
    pub fn new(
        config: Config,
        limits: Live<Limits>,
        store: Store,
        sources: Sources,
        runtime: Handle,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let absent = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(config.absent_ttl)
            .build();
        let useless = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(config.tag_ttl)
            .build();
        let spoiled = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(config.absent_ttl)
            .build();
        let looked = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(freshness::LOOK)
            .build();
        let unreferred = moka::sync::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(config.tag_ttl)
            .build();
        let doubts = doubts::Doubts::new(config.tag_ttl);
        let words = config.access_ttl.map(|ttl| word::Words::load(&store, ttl, &clock));
        let Sources { parents, here } = sources;
        let shared = Shared {
            config,
            limits,
            store,
            parents,
            here,
            flights: Mutex::default(),
            refreshing: Together::default(),
            confirming: Together::default(),
            absent,
            useless,
            looked,
            unreferred,
            announced: moka::sync::Cache::new(100_000),
            spoiled,
            windows: window::Budget::default(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
            catalogs: moka::future::Cache::builder().time_to_live(LATELY).build(),
            doubts,
            distrust: distrust::Distrust::new(),
            words,
            runtime,
            clock,
            metrics,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    fn parent(&self, repository: &Repository) -> Result<&Parent, Error> {
        self.parents
            .get(&repository.registry)
            .ok_or_else(|| match self.pushed_to(repository) {
                // What is not here is nowhere.
                Some(here) => here.lacks(),
                None => Error::NoUpstream {
                    registry: repository.registry.clone(),
                },
            })
    }
}
