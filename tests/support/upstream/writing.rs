//! What a registry that takes pushes answers to them, as distribution does. No sockets here.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::ledger::Seen;
use super::registry::{Registry, Reply, Repository, split};
use super::target::upload;
use super::uploads::Broken;
use crate::support::content::{Manifest, digest_like, sha256};

/// How it takes pushes.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Without this it is the registry of a test that only pulls.
    pub takes_pushes: bool,
    /// What stands before each `Location`; nothing: it is relative.
    pub base: String,
    /// Otherwise it answers each wish to mount with an upload.
    pub mounts: bool,
    /// Otherwise it refuses to delete manifests and blobs.
    pub deletes: bool,
    /// An upload that goes on at another `Location` than the newest is cancelled, as at distribution.
    pub minds_locations: bool,
    /// The status for a manifest that names what is not here.
    pub lacking: u16,
    pub broken: Broken,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            takes_pushes: false,
            base: String::new(),
            mounts: true,
            deletes: true,
            minds_locations: false,
            lacking: 400,
            broken: Broken::default(),
        }
    }
}

/// Where a body goes while it comes.
pub enum Sink {
    Nowhere,
    Memory(Vec<u8>),
    /// Onto an upload that had `size` bytes when it began.
    Upload {
        id: String,
        size: usize,
    },
}

/// Before the body is read.
impl Registry {
    /// Where the body of `seen` goes, or why it goes nowhere.
    pub fn admit(&mut self, seen: &Seen) -> Result<Sink, Reply> {
        if !self.manners.takes_pushes || !seen.is_write() {
            return Ok(Sink::Nowhere);
        }
        if self.declines_pushes {
            return Err(unsupported());
        }
        match seen.path.strip_prefix("/v2/").and_then(upload) {
            Some((name, id)) if matches!(seen.method.as_str(), "PATCH" | "PUT") => self.resume(seen, name, id),
            _ => Ok(Sink::Memory(Vec::new())),
        }
    }

    fn resume(&mut self, seen: &Seen, name: &str, id: &str) -> Result<Sink, Reply> {
        let size = self.current(seen, name, id)?;
        if seen.method == "PUT" && !seen.asked("digest").is_some_and(|digest| is_digest(&digest)) {
            return Err(Reply::error(400, "DIGEST_INVALID", "digest missing or malformed"));
        }
        if let Some(range) = seen.header("content-range") {
            let Some(length) = bounds(range)
                .filter(|range| range.start == size)
                .map(|range| range.len())
            else {
                let refusal = Reply::error(416, "RANGE_INVALID", "invalid content range");
                return Err(self.with_progress(refusal, name, id, size));
            };
            if seen
                .header("content-length")
                .is_some_and(|sent| sent != length.to_string())
            {
                return Err(Reply::error(
                    400,
                    "SIZE_INVALID",
                    "the range is not as long as the body",
                ));
            }
        }
        Ok(Sink::Upload {
            id: id.to_owned(),
            size,
        })
    }

    /// The size of the upload, unless it is unknown or asked for at a `Location` of the past.
    fn current(&mut self, seen: &Seen, name: &str, id: &str) -> Result<usize, Reply> {
        let size = self.uploads.size(name, id).ok_or_else(upload_unknown)?;
        if self.manners.minds_locations && seen.asked("_state") != Some(size.to_string()) {
            self.uploads.end(name, id);
            return Err(Reply::error(404, "BLOB_UPLOAD_INVALID", "resumed at wrong offset"));
        }
        Ok(size)
    }
}

/// When all of the body is here.
impl Registry {
    /// Carries out what `seen` wants and answers it; `None` when that is a question about content.
    pub fn write(&mut self, seen: &Seen, body: Bytes) -> Option<Reply> {
        let path = seen.path.strip_prefix("/v2/")?;
        let method = seen.method.as_str();
        if let Some((name, id)) = upload(path) {
            return Some(match (method, id) {
                ("POST", "") => self.begin(seen, name, &body),
                ("GET" | "HEAD", _) => match self.current(seen, name, id) {
                    Ok(size) => self.with_progress(Reply::empty(204), name, id, size),
                    Err(refusal) => refusal,
                },
                ("PATCH", _) => match self.uploads.size(name, id) {
                    Some(size) => self.with_progress(Reply::empty(202), name, id, size),
                    None => upload_unknown(),
                },
                ("PUT", _) => match self.uploads.end(name, id) {
                    Some(bytes) => self.take_blob(seen, name, &bytes.into()),
                    None => upload_unknown(),
                },
                ("DELETE", _) => match self.uploads.end(name, id) {
                    Some(_) => Reply::empty(204).with("Docker-Upload-UUID", id),
                    None => upload_unknown(),
                },
                _ => unsupported(),
            });
        }
        let (name, kind, reference) = split(path).unwrap_or_default();
        match (method, kind) {
            ("PUT", "manifests") => Some(self.take_manifest(seen, name, reference, &body)),
            ("DELETE", "manifests" | "blobs") => Some(self.delete(name, kind, reference)),
            _ => seen.is_write().then(unsupported),
        }
    }

    fn begin(&mut self, seen: &Seen, name: &str, body: &Bytes) -> Reply {
        if seen.asked("digest").is_some() {
            return self.take_blob(seen, name, body);
        }
        let mount = seen.asked("mount").zip(seen.asked("from"));
        if let Some((digest, from)) = mount.filter(|_| self.manners.mounts)
            && let Some(bytes) = self.repositories.get(&from).and_then(|from| from.blobs.get(&digest))
        {
            let bytes = bytes.clone();
            self.put_blob(name, &digest, &bytes);
            return self.created(name, "blobs", &digest);
        }
        let id = self.uploads.begin(name);
        self.with_progress(Reply::empty(202), name, &id, 0)
    }

    fn take_blob(&mut self, seen: &Seen, name: &str, bytes: &Bytes) -> Reply {
        let digest = seen.asked("digest").unwrap_or_default();
        if !is_digest(&digest) || digest_like(&digest, bytes) != digest {
            return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        self.put_blob(name, &digest, bytes);
        self.created(name, "blobs", &digest)
    }

    fn take_manifest(&mut self, seen: &Seen, name: &str, reference: &str, bytes: &Bytes) -> Reply {
        let digest = digest_like(reference, bytes);
        let tag = Some(reference).filter(|reference| !reference.contains(':'));
        if tag.is_none() && digest != reference {
            return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let media_type = seen.header("content-type").unwrap_or("").to_owned();
        let Some(body) = understood(bytes, &media_type) else {
            return Reply::error(400, "MANIFEST_INVALID", "manifest invalid");
        };
        if let Some(lacking) = self.repository(name).lacking(&body) {
            let message = format!("blob unknown to registry: {lacking}");
            return Reply::error(self.manners.lacking, "MANIFEST_BLOB_UNKNOWN", &message);
        }
        let manifest = Manifest {
            bytes: bytes.clone(),
            media_type,
            digest: digest.clone(),
        };
        self.put_manifest(name, tag, &manifest);
        let created = self.created(name, "manifests", &digest);
        match body["subject"]["digest"].as_str().filter(|_| self.referrers) {
            Some(subject) => created.with("OCI-Subject", subject),
            None => created,
        }
    }

    fn delete(&mut self, name: &str, kind: &str, reference: &str) -> Reply {
        if !self.manners.deletes {
            return unsupported();
        }
        let Some(repository) = self.repositories.get_mut(name) else {
            return Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let was_here = match kind {
            "blobs" => repository.blobs.remove(reference).is_some(),
            _ if !reference.contains(':') => repository.tags.remove(reference).is_some(),
            _ => {
                repository.tags.retain(|_, tagged| tagged != reference);
                repository.manifests.remove(reference).is_some()
            }
        };
        match (was_here, kind) {
            (true, _) => Reply::empty(202),
            (false, "blobs") => Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
            (false, _) => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn created(&self, name: &str, kind: &str, digest: &str) -> Reply {
        Reply::empty(201)
            .with("Location", &format!("{}/v2/{name}/{kind}/{digest}", self.manners.base))
            .with("Docker-Content-Digest", digest)
    }

    /// A `Location` differs from the one before as soon as something came: who keeps to an old one is found out.
    fn with_progress(&self, reply: Reply, name: &str, id: &str, size: usize) -> Reply {
        let base = &self.manners.base;
        reply
            .with(
                "Location",
                &format!("{base}/v2/{name}/blobs/uploads/{id}?_state={size}"),
            )
            .with("Range", &format!("0-{}", size.saturating_sub(1)))
            .with("Docker-Upload-UUID", id)
    }
}

impl Repository {
    /// The first thing that a manifest names and that is not in this repository. Layers that lie elsewhere need not be.
    fn lacking(&self, body: &Value) -> Option<String> {
        let all = |key: &str| body[key].as_array().cloned().unwrap_or_default();
        let layers = all("layers").into_iter().filter(|layer| layer["urls"].is_null());
        let blobs = layers.chain([body["config"].clone()]);
        let manifests = all("manifests");
        let digest = |entry: &Value| entry["digest"].as_str().map(str::to_owned);
        let lacks_blob = |digest: &String| !self.blobs.contains_key(digest);
        let lacks_manifest = |digest: &String| !self.manifests.contains_key(digest);
        let blob = blobs.filter_map(|entry| digest(&entry)).find(lacks_blob);
        blob.or_else(|| manifests.iter().filter_map(digest).find(lacks_manifest))
    }
}

/// What `Content-Range` says, in the form of the distribution spec ("Pushing a blob in chunks"): `<first>-<last>`.
fn bounds(range: &str) -> Option<Range<usize>> {
    let (first, last) = range.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..last + 1)
}

/// The manifest, if it is one and of the type that it was sent as.
fn understood(bytes: &Bytes, media_type: &str) -> Option<Value> {
    let body: Value = serde_json::from_slice(bytes).ok()?;
    let fits = body["mediaType"].as_str().is_none_or(|own| own == media_type);
    (body.is_object() && fits).then_some(body)
}

fn is_digest(text: &str) -> bool {
    let form = if text.starts_with("sha512:") {
        digest_like(text, b"")
    } else {
        sha256(b"")
    };
    let hex = text.split_once(':').map_or("", |(_, hex)| hex);
    text.len() == form.len() && text[..7] == form[..7] && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn upload_unknown() -> Reply {
    Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

fn unsupported() -> Reply {
    Reply::error(405, "UNSUPPORTED", "The operation is unsupported.")
}
