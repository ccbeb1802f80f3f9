use std::collections::HashMap;

use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::{Kind, Reply};
use crate::fetch::Outcome;

/// What the registry port shows of itself. Names are fixed for dashboards.
pub struct Metrics {
    requests: IntCounterVec,
    /// The counters of `requests` by what they count: looking them up by label costs more than the rest.
    by_request: RwLock<HashMap<(Method, Kind, u16), IntCounter>>,
    cache: Vec<(Kind, Outcome, IntCounter)>,
    served_bytes: IntCounter,
}

/// The closed set of the label `method`.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

const OUTCOMES: [Outcome; 4] = [Outcome::Hit, Outcome::Miss, Outcome::Collapsed, Outcome::Stale];
const CACHED: [Kind; 4] = [Kind::Manifest, Kind::Blob, Kind::Tags, Kind::Referrers];

impl Metrics {
    /// Registers in `registry`.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake in this program.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("wharf_requests_total", "Requests answered"),
            &["method", "kind", "status"],
        )?;
        let cache = IntCounterVec::new(
            Opts::new("wharf_cache_requests_total", "How cached content came about"),
            &["kind", "outcome"],
        )?;
        let served_bytes = IntCounter::new("wharf_served_bytes_total", "Bytes of bodies that left for clients")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(cache.clone()))?;
        registry.register(Box::new(served_bytes.clone()))?;
        let pairs = CACHED
            .iter()
            .flat_map(|kind| OUTCOMES.iter().map(|outcome| (*kind, *outcome)));
        let cache = pairs
            .map(|(kind, outcome)| {
                (
                    kind,
                    outcome,
                    cache.with_label_values(&[kind.as_str(), outcome.as_str()]),
                )
            })
            .collect();
        Ok(Self {
            requests,
            by_request: RwLock::default(),
            cache,
            served_bytes,
        })
    }

    pub(super) fn count(&self, reply: &Reply) {
        let Some(outcome) = reply.outcome else { return };
        if let Some((_, _, counter)) = self
            .cache
            .iter()
            .find(|(kind, known, _)| *kind == reply.kind && *known == outcome)
        {
            counter.inc();
        }
    }

    pub(super) fn finished(&self, method: &str, kind: Kind, status: u16, bytes: u64) {
        self.served_bytes.inc_by(bytes);
        let key = (Method::of(method), kind, status);
        if let Some(counter) = self.by_request.read().get(&key) {
            counter.inc();
            return;
        }
        let counter = self
            .requests
            .with_label_values(&[key.0.as_str(), kind.as_str(), &status.to_string()]);
        counter.inc();
        self.by_request.write().insert(key, counter);
    }
}

impl Method {
    fn of(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "other",
        }
    }
}
