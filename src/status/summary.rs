//! How a node stands, in the words of a connected registry, and what the nodes below said of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::parent::{Class, Parent};
use crate::queue::Queue;
use crate::store::Store;
use crate::sync::{Report, State, Syncer};
use crate::units::{Clock, Moment, with_causes};

/// A report is sent so often.
const EVERY: Duration = Duration::from_secs(30);

/// A parent that takes none may take some later.
const SELDOM: Duration = Duration::from_secs(600);

/// A node that said nothing for so long is offline.
const OFFLINE: Duration = Duration::from_secs(100);

/// It is forgotten after that.
const FORGOTTEN: Duration = Duration::from_secs(7 * 86_400);

/// Nodes below that are known at a time, and bytes of what they said. Whoever said nothing for longest makes way.
const MOST: usize = 1000;
const MOST_KEPT: usize = 16 << 20;

/// Layers below that a report tells of.
const DEEPEST: usize = 16;

/// Bytes of a report.
pub const MOST_BYTES: usize = 1 << 20;

/// How a node stands. Names as in the properties of a connected registry (Microsoft.ContainerRegistry), where it has them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The node's name.
    pub name: String,
    /// `ReadOnly` or `ReadWrite`.
    pub mode: String,
    /// Of the program.
    pub version: String,
    /// Whether it is connected to its parent, and well.
    pub connection_state: Connection,
    /// When it said this.
    pub last_activity_time: Moment,
    /// As of when it has all that is selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Moment>,
    /// Under which address clients know it.
    pub login_server: LoginServer,
    /// What an operator has to look at.
    pub status_details: Vec<Detail>,
    /// The last pass over what is selected.
    pub registry_sync_result: SyncResult,
    /// How far it is behind, in seconds.
    pub sync_lag_seconds: u64,
    /// The disk.
    pub disk: Disk,
    /// What was pushed and the parent does not have yet.
    pub backlog: Backlog,
    /// The nodes below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
}

/// Whether a node is connected to its parent, and well.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Connection {
    /// It is.
    Online,
    /// The parent cannot be asked, or no window is open.
    Offline,
    /// It is bringing something.
    Syncing,
    /// It is connected, and something is wrong.
    Unhealthy,
}

impl Connection {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::Offline => "Offline",
            Self::Syncing => "Syncing",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// Where a node answers clients.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LoginServer {
    /// Host and port.
    pub host: String,
    /// Whether it speaks TLS.
    pub tls: TlsStatus,
}

/// Whether a node speaks TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TlsStatus {
    /// `Enabled` or `Disabled`.
    pub status: String,
}

/// What an operator has to look at.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// Of what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// `DiskError` as there; `ParentError`, `QueueError`, `SyncError`, `ClockError` of our own.
    pub code: String,
    /// In words.
    pub description: String,
    /// When it was seen.
    pub timestamp: Moment,
    /// The same as long as the trouble lasts.
    pub correlation_id: String,
    /// Of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_gib: Option<f64>,
    /// Of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_gib: Option<f64>,
}

/// A pass, as a connected registry tells of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncResult {
    /// Why it was made.
    pub sync_trigger: String,
    /// How it stands.
    pub sync_state: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_start_time: Option<Moment>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_end_time: Option<Moment>,
    /// When the last one ended that brought all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_sync_end_time: Option<Moment>,
}

/// Bytes of a store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// What it may have.
    pub capacity_bytes: u64,
    /// What nothing lies in.
    pub free_bytes: u64,
}

/// What the parent does not have yet.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Pushes and deletes.
    pub items: usize,
    /// Bytes that may exist nowhere else.
    pub bytes: u64,
}

/// A node below.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// How old this is, in seconds.
    pub age_seconds: u64,
    /// Whom it logged in as; empty: nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// What it said.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What one of them said.
struct Said {
    at: Instant,
    bytes: usize,
    summary: Summary,
}

/// What the nodes below said of themselves. Clones are the same.
#[derive(Clone)]
pub struct Children(Arc<Known>);

struct Known {
    said: Mutex<BTreeMap<(String, String), Said>>,
    clock: Clock,
}

impl Children {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        let said = Mutex::default();
        Self(Arc::new(Known { said, clock }))
    }

    /// A node that logged in as `account` says this, in so many bytes.
    pub fn hear(&self, account: &str, summary: Summary, bytes: usize) {
        let now = self.0.clock.now();
        let mut said = self.0.said.lock();
        said.retain(|_, said| now.saturating_duration_since(said.at) < FORGOTTEN);
        let key = (summary.name.clone(), account.to_owned());
        let at = now;
        said.insert(key, Said { at, bytes, summary });
        while said.len() > MOST || said.values().map(|said| said.bytes).sum::<usize>() > MOST_KEPT {
            let oldest = said.iter().min_by_key(|(_, said)| said.at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            said.remove(&oldest);
        }
    }

    /// What they said last, with its age, and whether it can still be so.
    fn list(&self) -> Vec<Child> {
        let now = self.0.clock.now();
        let said = self.0.said.lock();
        let one = |((_, account), said): (&(String, String), &Said)| {
            let age = now.saturating_duration_since(said.at);
            let mut summary = said.summary.clone();
            summary.age(age, 0);
            Child {
                age_seconds: age.as_secs(),
                account: account.clone(),
                summary,
            }
        };
        said.iter().map(one).collect()
    }
}

impl Summary {
    /// Leaves out what lies so deep below.
    fn cut(&mut self, depth: usize) {
        match depth {
            0 => self.children.clear(),
            _ => self.children.iter_mut().for_each(|child| child.summary.cut(depth - 1)),
        }
    }

    /// The same, `more` later: who has said nothing for long is offline. What lies deeper than a report may go is cut off.
    fn age(&mut self, more: Duration, depth: usize) {
        if more > OFFLINE {
            self.connection_state = Connection::Offline;
        }
        if depth >= DEEPEST {
            self.children.clear();
        }
        for child in &mut self.children {
            child.age_seconds = child.age_seconds.saturating_add(more.as_secs());
            child.summary.age(Duration::from_secs(child.age_seconds), depth + 1);
        }
    }
}

/// As it is sent: of a plant that is too large for a report the lowest layers are left out.
fn sendable(mut summary: Summary) -> Vec<u8> {
    for depth in (0..DEEPEST).rev() {
        let written = serde_json::to_vec(&summary).expect("numbers and strings are JSON");
        if written.len() <= MOST_BYTES {
            return written;
        }
        summary.cut(depth);
    }
    serde_json::to_vec(&summary).expect("numbers and strings are JSON")
}

/// What a summary is made of. Cheap to clone.
#[derive(Clone)]
pub struct Summaries {
    /// The node's name.
    pub node: String,
    /// Whether it takes pushes.
    pub is_registry: bool,
    /// Under which address clients know it, and whether by TLS.
    pub login_server: (String, bool),
    /// Its store.
    pub store: Store,
    /// Its parent.
    pub parent: Option<Parent>,
    /// What is owed there.
    pub queue: Queue,
    /// What is brought from there.
    pub sync: Syncer,
    /// Who is below.
    pub children: Children,
    /// The time.
    pub clock: Clock,
}

impl Summaries {
    /// How this node stands now.
    pub fn now(&self) -> Summary {
        let now = Moment::from(self.clock.wall());
        let report = self.sync.report();
        let queue = self.queue.list();
        let details = self.details(&report, now);
        let (host, is_tls) = self.login_server.clone();
        let status = if is_tls { "Enabled" } else { "Disabled" };
        Summary {
            name: self.node.clone(),
            mode: if self.is_registry { "ReadWrite" } else { "ReadOnly" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connection_state: self.connection(&report, &details),
            last_activity_time: now,
            last_sync_time: report.pass.last_successful_sync_end_time,
            login_server: LoginServer {
                host,
                tls: TlsStatus {
                    status: status.to_owned(),
                },
            },
            status_details: details,
            sync_lag_seconds: self.sync.lag(),
            registry_sync_result: SyncResult {
                sync_trigger: format!("{:?}", report.pass.sync_trigger),
                sync_state: format!("{:?}", report.pass.sync_state),
                last_sync_start_time: report.pass.last_sync_start_time,
                last_sync_end_time: report.pass.last_sync_end_time,
                last_successful_sync_end_time: report.pass.last_successful_sync_end_time,
            },
            disk: Disk {
                capacity_bytes: self.store.capacity(),
                free_bytes: self.store.free_bytes(),
            },
            backlog: Backlog {
                items: queue.items.len(),
                bytes: queue.bytes,
            },
            children: self.children.list(),
        }
    }

    fn connection(&self, report: &Report, details: &[Detail]) -> Connection {
        let is_cut_off = |parent: &Parent| !parent.up() || parent.away().is_some();
        let is_closed = |parent: &Parent| parent.closed(Class::Synchronisation).is_some();
        match &self.parent {
            Some(parent) if is_cut_off(parent) || is_closed(parent) => Connection::Offline,
            _ if !details.is_empty() => Connection::Unhealthy,
            _ if report.pass.sync_state == State::Syncing => Connection::Syncing,
            _ => Connection::Online,
        }
    }

    /// What is wrong, as far as it is this node's: that the parent is away is no trouble of it.
    fn details(&self, report: &Report, timestamp: Moment) -> Vec<Detail> {
        const GIB: f64 = (1_u64 << 30) as f64;
        let detail = |kind: &str, code: &str, description: String| Detail {
            kind: kind.to_owned(),
            code: code.to_owned(),
            correlation_id: format!("{}-{code}", self.node),
            description,
            timestamp,
            total_gib: None,
            available_gib: None,
        };
        let disk = self.store.trouble().map(|trouble| Detail {
            total_gib: Some(self.store.capacity() as f64 / GIB),
            available_gib: Some(self.store.free_bytes() as f64 / GIB),
            ..detail("Disk", "DiskError", trouble)
        });
        let clock = (!self.clock.is_set()).then(|| detail("Clock", "ClockError", self.clock.unset()));
        let queue = self
            .queue
            .trouble()
            .map(|trouble| detail("Queue", "QueueError", trouble));
        let sync = report.unwell.clone().map(|error| detail("Sync", "SyncError", error));
        let parent = self.parent.as_ref().and_then(|parent| {
            let (_, words) = parent.trouble()?;
            Some(detail("Parent", "ParentError", words))
        });
        disk.into_iter()
            .chain(clock)
            .chain(queue)
            .chain(sync)
            .chain(parent)
            .collect()
    }

    /// Tells the parent how this node stands, now and then, for as long as the node runs.
    pub async fn report(self) {
        let Some(parent) = self.parent.clone() else { return };
        let mut asks_at = self.clock.now() + EVERY;
        loop {
            let is_there = parent.closed(Class::Synchronisation).is_none() && parent.away().is_none();
            let mut pause = EVERY;
            if is_there && !parent.is_wharf() && self.clock.now() >= asks_at {
                // Nobody may have asked it for anything.
                asks_at = self.clock.now() + SELDOM;
                let _ = parent.ping().await;
            }
            if is_there && parent.is_wharf() {
                let summary = sendable(self.now());
                match parent.report(summary.into()).await {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::info!(parent = parent.name(), "the parent takes no report of this node");
                        pause = SELDOM;
                    }
                    Err(error) => tracing::debug!(error = with_causes(&error), "no report reached the parent"),
                }
            } else {
                pause = Duration::from_secs(1);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, children: Vec<Child>) -> Summary {
        let text = serde_json::json!({
            "name": name, "mode": "ReadOnly", "version": "0.1.0", "connectionState": "Online",
            "lastActivityTime": "2026-11-27T10:00:00Z", "loginServer": { "host": "l2:5000", "tls": { "status": "Disabled" } },
            "statusDetails": [], "syncLagSeconds": 0,
            "registrySyncResult": { "syncTrigger": "InitialSync", "syncState": "Succeeded" },
            "disk": { "capacityBytes": 1, "freeBytes": 1 }, "backlog": { "items": 0, "bytes": 0 },
        });
        Summary {
            children,
            ..serde_json::from_value(text).unwrap()
        }
    }

    #[test]
    fn what_nodes_below_said_grows_old_and_who_says_nothing_for_long_is_offline_with_all_below_it() {
        let (clock, hand) = Clock::manual();
        let children = Children::new(clock);
        let lowest = Child {
            age_seconds: 20,
            account: String::new(),
            summary: said("l2", Vec::new()),
        };
        children.hear("line", said("l3", vec![lowest]), 100);

        hand.advance(Duration::from_secs(90));
        let list = children.list();
        assert_eq!(
            (list[0].age_seconds, list[0].summary.connection_state),
            (90, Connection::Online)
        );
        let below = &list[0].summary.children[0];
        assert_eq!(
            (below.age_seconds, below.summary.connection_state),
            (110, Connection::Offline)
        );

        hand.advance(Duration::from_secs(20));
        assert_eq!(children.list()[0].summary.connection_state, Connection::Offline);
        hand.advance(FORGOTTEN);
        children.hear("line", said("l4", Vec::new()), 100);
        assert_eq!(children.list().len(), 1);
    }

    #[test]
    fn no_more_nodes_are_remembered_than_a_plant_has_and_who_was_silent_for_longest_makes_way() {
        let (clock, hand) = Clock::manual();
        let children = Children::new(clock);
        for at in 0..=MOST {
            children.hear("", said(&format!("n{at}"), Vec::new()), 100);
            hand.advance(Duration::from_millis(1));
        }
        let names: Vec<String> = children.list().into_iter().map(|child| child.summary.name).collect();
        assert!(names.len() == MOST && !names.contains(&"n0".to_owned()));

        children.hear("", said("large", Vec::new()), MOST_KEPT - 150);
        assert_eq!(children.list().len(), 2);
    }

    #[test]
    fn a_report_that_is_too_large_leaves_out_the_lowest_layers() {
        let below = |name: &str, children| Child {
            age_seconds: 0,
            account: "x".repeat(1000),
            summary: said(name, children),
        };
        let lines = (0..2000).map(|at| below(&format!("line{at}"), Vec::new())).collect();
        let summary = said("l5", vec![below("l4", vec![below("l3", lines)])]);

        let sent: Summary = serde_json::from_slice(&sendable(summary)).unwrap();

        let l3 = &sent.children[0].summary.children[0].summary;
        assert!(l3.name == "l3" && l3.children.is_empty());
    }
}
