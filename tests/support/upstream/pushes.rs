//! The parent as it is pushed to: how it takes pushes, what it has afterwards, what came.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::arrival::Arrival;
use super::fault::Fault;
use super::ledger::Seen;
use super::registry::{Registry, Reply, Repository};
use super::target::{What, of};
use super::uploads::{Broken, Uploads};
use super::{Shared, Upstream};

/// How a `Location` is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Locations {
    /// From the root of the host.
    Relative,
    Absolute,
}

/// All that a registry had at one time: content, tags and uploads.
#[derive(Clone)]
pub struct Backup {
    repositories: BTreeMap<String, Repository>,
    uploads: Uploads,
}

/// How it takes pushes.
impl Upstream {
    /// From now on it takes pushes, as distribution does.
    pub fn takes_pushes(&self) {
        self.shared.registry.lock().manners.takes_pushes = true;
    }

    pub fn locations(&self, locations: Locations) {
        self.shared.registry.lock().manners.base = match locations {
            Locations::Relative => String::new(),
            Locations::Absolute => self.url(),
        };
    }

    /// Whether it mounts blobs of other repositories; else it answers 202, as to who begins an upload.
    pub fn mounts(&self, mounts: bool) {
        self.shared.registry.lock().manners.mounts = mounts;
    }

    /// Whether it deletes manifests and blobs; else it answers 405.
    pub fn deletes(&self, deletes: bool) {
        self.shared.registry.lock().manners.deletes = deletes;
    }

    /// What becomes of an upload when the connection ends in the middle of a body.
    pub fn when_broken(&self, broken: Broken) {
        self.shared.registry.lock().manners.broken = broken;
    }

    /// Whether an upload that is asked for at another `Location` than the newest is cancelled with a 404, as at distribution.
    pub fn minds_locations(&self, minds: bool) {
        self.shared.registry.lock().manners.minds_locations = minds;
    }

    /// The status for a manifest that names what is not in its repository: 400, as at distribution, if nothing was said.
    pub fn lacking(&self, status: u16) {
        self.shared.registry.lock().manners.lacking = status;
    }
}

/// What it has, and what is done to that behind the back of who pushed it.
impl Upstream {
    pub fn backup(&self) -> Backup {
        let registry = self.shared.registry.lock();
        Backup {
            repositories: registry.repositories.clone(),
            uploads: registry.uploads.clone(),
        }
    }

    /// It has what it had then, and has forgotten the rest.
    pub fn restore(&self, backup: Backup) {
        let mut registry = self.shared.registry.lock();
        registry.repositories = backup.repositories;
        registry.uploads = backup.uploads;
    }

    /// No upload that was begun is known any more.
    pub fn forget_uploads(&self) {
        self.shared.registry.lock().uploads.forget();
    }

    /// How many uploads to `repository` were begun and not ended.
    pub fn open_uploads(&self, repository: &str) -> usize {
        let open = self.shared.registry.lock().uploads.repositories();
        open.iter().filter(|name| *name == repository).count()
    }

    /// Moves the tag, whether there is such a manifest or not.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        self.shared.registry.lock().tag(repository, tag, digest);
    }

    /// The digest that the tag is.
    pub fn tag_of(&self, repository: &str, tag: &str) -> Option<String> {
        let registry = self.shared.registry.lock();
        registry.repositories.get(repository)?.tags.get(tag).cloned()
    }

    /// Repository and digest of each manifest.
    pub fn manifests(&self) -> BTreeSet<(String, String)> {
        self.held(|repository| repository.manifests.keys().cloned().collect())
    }

    /// Repository and digest of each blob.
    pub fn blobs(&self) -> BTreeSet<(String, String)> {
        self.held(|repository| repository.blobs.keys().cloned().collect())
    }

    fn held(&self, digests: impl Fn(&Repository) -> Vec<String>) -> BTreeSet<(String, String)> {
        let registry = self.shared.registry.lock();
        let repositories = registry.repositories.iter();
        repositories
            .flat_map(|(name, repository)| digests(repository).into_iter().map(|digest| (name.clone(), digest)))
            .collect()
    }
}

/// What came.
impl Upstream {
    /// All requests about repositories in the order of their heads, pulls too.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.seen("", "").iter().filter_map(Arrival::of).collect()
    }

    /// Bytes of blobs that came in all, also of those that broke off or were refused.
    pub fn blob_bytes_received(&self) -> u64 {
        let arrivals = self.arrivals().into_iter().filter(Arrival::brings_a_blob);
        arrivals.map(|arrival| arrival.received_bytes).sum()
    }

    /// How often the blob or the manifest was sent and kept, in whichever repository; what was mounted was not sent.
    pub fn times_kept(&self, digest: &str) -> usize {
        let arrivals = self.arrivals().into_iter();
        arrivals
            .filter(|arrival| arrival.method != "DELETE" && !matches!(arrival.what, What::Mount(_)))
            .filter(|arrival| arrival.digest.as_deref() == Some(digest))
            .count()
    }

    /// The tags and digests under which manifests were put into `repository` and kept, in the order of their keeping.
    pub fn manifests_kept(&self, repository: &str) -> Vec<String> {
        let mut puts = self.seen("PUT", "/manifests/");
        puts.retain(|seen| seen.kept().is_some());
        puts.sort_by_key(Seen::kept);
        let arrivals = puts.iter().filter_map(Arrival::of);
        arrivals
            .filter_map(|arrival| match arrival.what {
                What::Manifest(reference) if arrival.repository == repository => Some(reference),
                _ => None,
            })
            .collect()
    }
}

impl Shared {
    /// Carries out a request of a push and writes down whether that is kept; `None` when `seen` is none.
    pub fn write(&self, registry: &mut Registry, seen: &Seen, fault: &Fault, body: Bytes) -> Option<Reply> {
        let before = fault.not_kept.then(|| registry.repositories.clone());
        let reply = registry.write(seen, body)?;
        if reply.status >= 300 || !seen.is_write() {
            return Some(reply);
        }
        match before {
            Some(before) => registry.repositories = before,
            None => seen.keep(
                self.ledger.turn(),
                reply.header("Docker-Content-Digest").map(str::to_owned),
            ),
        }
        if let (Some(digest), Some((repository, What::Manifest(reference)))) = (&fault.tags_instead, of(seen))
            && !reference.contains(':')
        {
            registry.tag(&repository, &reference, digest);
        }
        Some(reply)
    }
}
