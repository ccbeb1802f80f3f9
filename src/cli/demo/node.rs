//! One layer: a `wharf serve` of this very program, and what it says of itself.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::cli::demo::Error;
use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::process::{self, Process};
use crate::cli::demo::trust::{Doors, written};
use crate::oci::Digest;
use crate::units::Span;

/// A node that knows its parent and nothing else.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) parent: &'static str,
    pub(super) mode: &'static str,
    address: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
    doors: Doors,
    process: Process,
}

/// What to start a node with.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) parent: &'static str,
    /// As it asks it.
    pub(super) above: Endpoint,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Its own, empty.
    pub(super) folder: PathBuf,
    pub(super) doors: Doors,
    pub(super) tag_ttl: Span,
    pub(super) mode: &'static str,
}

/// What a node has counted since it started, without the question whether it is there at all (`GET /v2/`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counters {
    pub(super) requests: u64,
    pub(super) served_bytes: u64,
    pub(super) hits: u64,
    /// Fetched for this request, or together with others.
    pub(super) misses: u64,
    pub(super) stale: u64,
}

/// One line of a node's request log.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    path: String,
    /// From the request to the first byte of the body.
    first_byte_ms: Option<f64>,
}

/// A push that waits for a node's parent.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) state: String,
    pub(super) repository: String,
    pub(super) tags: Vec<String>,
}

/// A layer that a push has reached, or not.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Arrived {
    pub(super) node: String,
    /// `None`: nobody can tell.
    pub(super) has: Option<bool>,
}

impl Node {
    /// Starts the node and waits until it says that it is well.
    pub(super) async fn start(plan: Plan) -> Result<Self, Error> {
        let settings = plan.folder.join("wharf.toml");
        let written = fs::write(&settings, plan.settings());
        written.map_err(|source| Error::Io {
            action: "writing",
            path: settings.clone(),
            source,
        })?;
        let command = process::wharf(&settings)?;
        let mut process = Process::spawn(plan.name, command, plan.folder.join("log"))?;
        process.ready(&format!("http://{}/healthz", plan.admin)).await?;
        let Plan {
            name,
            parent,
            mode,
            address,
            admin,
            folder,
            doors,
            ..
        } = plan;
        Ok(Self {
            name,
            parent,
            mode,
            address,
            admin,
            folder,
            doors,
            process,
        })
    }

    /// As we ask it.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.doors.ours
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the layer below asks it.
    pub(super) fn below(&self) -> &Endpoint {
        &self.doors.below
    }

    /// The status page.
    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// # Errors
    ///
    /// [`Error::Ended`]: it has ended by itself.
    pub(super) fn alive(&mut self) -> Result<(), Error> {
        self.process.alive()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }

    /// Its settings file.
    pub(super) fn settings(&self) -> PathBuf {
        self.folder.join("wharf.toml")
    }

    /// What `/metrics` says now.
    pub(super) async fn counters(&self) -> Result<Counters, Error> {
        let url = format!("{}/metrics", self.admin_url());
        let bytes = Endpoint::open(self.admin_url()).bytes(&url).await?;
        Ok(Counters::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// What `/api/queue` says waits for its parent.
    pub(super) async fn queue(&self) -> Result<Vec<Item>, Error> {
        #[derive(Deserialize)]
        struct Queue {
            items: Vec<Item>,
        }
        let queue: Queue = Endpoint::open(self.admin_url())
            .json(&format!("{}/api/queue", self.admin_url()))
            .await?;
        Ok(queue.items)
    }

    /// How far up it says that a push has got.
    pub(super) async fn receipt(&self, repository: &str, digest: &Digest) -> Result<Vec<Arrived>, Error> {
        #[derive(Deserialize)]
        struct Receipt {
            layers: Vec<Arrived>,
        }
        let url = format!(
            "{}/v2/_wharf/receipts?repository={repository}&digest={digest}",
            self.doors.ours.url
        );
        let receipt: Receipt = self.doors.ours.json(&url).await?;
        Ok(receipt.layers)
    }

    /// How many lines the request log has.
    pub(super) fn logged(&self) -> usize {
        self.lines().len()
    }

    /// The time to the first byte of the request for `digest` that was logged after the first `skipped` lines.
    pub(super) fn first_byte(&self, digest: &str, skipped: usize) -> Option<Duration> {
        let lines = self.lines();
        let line = lines.iter().skip(skipped).find(|line| line.path.ends_with(digest));
        Duration::try_from_secs_f64(line?.first_byte_ms? / 1000.0).ok()
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.folder.join("requests.log")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Plan {
    fn settings(&self) -> String {
        let Self {
            name,
            above,
            address,
            admin,
            folder,
            doors,
            tag_ttl,
            mode,
            ..
        } = self;
        let Doors { listen, sections, .. } = doors;
        let parent = above.parent_lines();
        let path = |name: &str| written(&folder.join(name));
        format!(
            "mode = \"{mode}\"\n\n\
             [node]\nname = \"{name}\"\n\n\
             [listen]\naddress = \"{address}\"\n{listen}\n\
             [admin]\naddress = \"{admin}\"\n\n\
             [storage]\npath = {}\ncapacity = \"2GiB\"\n\n\
             [parent]\n{parent}\n\
             [freshness]\ntag_ttl = \"{tag_ttl}\"\n\n\
             [log]\nformat = \"json\"\nrequests = {}\n{sections}",
            path("data"),
            path("requests.log"),
        )
    }
}

impl Counters {
    fn parse(text: &str) -> Self {
        let mut counters = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else { continue };
            // Counters of whole things: far below the 2^53 at which a float would round.
            let value = value as u64;
            let has = |label: &str| series.contains(label);
            match series.split('{').next() {
                Some("wharf_requests_total") if !has("kind=\"ping\"") => counters.requests += value,
                Some("wharf_served_bytes_total") => counters.served_bytes += value,
                Some("wharf_cache_requests_total") if has("outcome=\"hit\"") => counters.hits += value,
                Some("wharf_cache_requests_total") if has("outcome=\"stale\"") => counters.stale += value,
                Some("wharf_cache_requests_total") => counters.misses += value,
                _ => (),
            }
        }
        counters
    }

    /// What was counted since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            served_bytes: self.served_bytes.saturating_sub(before.served_bytes),
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            stale: self.stale.saturating_sub(before.stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_pings_are_no_requests() {
        let text = "# HELP wharf_requests_total Requests answered\n\
            wharf_requests_total{kind=\"ping\",method=\"GET\",status=\"200\"} 7\n\
            wharf_requests_total{kind=\"blob\",method=\"GET\",status=\"200\"} 2\n\
            wharf_requests_total{kind=\"manifest\",method=\"HEAD\",status=\"200\"} 1\n\
            wharf_served_bytes_total 4096\n\
            wharf_cache_requests_total{kind=\"blob\",outcome=\"hit\"} 1\n\
            wharf_cache_requests_total{kind=\"blob\",outcome=\"miss\"} 2\n\
            wharf_cache_requests_total{kind=\"blob\",outcome=\"collapsed\"} 3\n\
            wharf_cache_requests_total{kind=\"manifest\",outcome=\"stale\"} 4\n\
            wharf_storage_bytes{state=\"committed\"} 1e3\n";

        let counters = Counters::parse(text);

        assert_eq!(
            counters,
            Counters {
                requests: 3,
                served_bytes: 4096,
                hits: 1,
                misses: 5,
                stale: 4
            }
        );
    }
}
