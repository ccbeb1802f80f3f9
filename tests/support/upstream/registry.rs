//! What an honest registry answers: repositories, their blobs, manifests, tags, referrers. No sockets here.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::{Value, json};

use super::fault::RangeRule;
use super::ledger::Seen;
use super::uploads::Uploads;
use super::writing::Manners;
use crate::support::content::{Manifest, OCI_INDEX};

/// How a list of tags is given out.
#[derive(Clone, Copy, Debug, Default)]
pub enum Paging {
    /// `n` and `last` are ignored, as docker-registry 2.8 does.
    #[default]
    Ignored,
    /// As the specification says.
    Honoured,
    /// Like `Honoured`, with never more than this on one page whatever was asked.
    AtMost(usize),
}

/// The content of one registry.
#[derive(Default)]
pub struct Registry {
    pub repositories: BTreeMap<String, Repository>,
    pub uploads: Uploads,
    pub paging: Paging,
    /// Without the referrers API every question to it is a 404.
    pub referrers: bool,
    pub declines_pushes: bool,
    pub manners: Manners,
}

#[derive(Clone, Default)]
pub struct Repository {
    pub tags: BTreeMap<String, String>,
    pub manifests: HashMap<String, Manifest>,
    pub blobs: HashMap<String, Bytes>,
}

/// An answer before anybody lies about it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self {
            status,
            headers,
            body: body.into(),
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub fn empty(status: u16) -> Self {
        Self::new(status, "text/plain", "")
    }

    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(
            status,
            &json!({ "errors": [{ "code": code, "message": message, "detail": "from upstream" }] }),
        )
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The first value of the header, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An object of this digest, or the part of it that was asked for.
    fn object(content_type: &str, digest: &str, body: &Bytes, range: Option<&str>, rule: RangeRule) -> Self {
        let reply = Self::new(200, content_type, body.clone())
            .with("Docker-Content-Digest", digest)
            .with("ETag", &format!("\"{digest}\""))
            .with("Accept-Ranges", "bytes");
        let Some(range) = range.filter(|_| rule != RangeRule::Ignored) else {
            return reply;
        };
        reply.ranged(range, rule)
    }

    fn ranged(mut self, range: &str, rule: RangeRule) -> Self {
        let total = self.body.len() as u64;
        let Some((first, last)) = resolved(range, total) else {
            return Self::new(416, "application/json", "{}").with("Content-Range", &format!("bytes */{total}"));
        };
        let (said, sent) = match rule {
            RangeRule::FromTheStart => ((0, total - 1), (0, total - 1)),
            RangeRule::OtherBytes(shift) => {
                let shift = shift.min(first);
                ((first, last), (first - shift, last - shift))
            }
            _ => ((first, last), (first, last)),
        };
        self.status = 206;
        self.body = self.body.slice(sent.0 as usize..=sent.1 as usize);
        self.with("Content-Range", &format!("bytes {}-{}/{total}", said.0, said.1))
    }
}

/// The first and last byte of a single range, if it lies in an object of `total` bytes.
fn resolved(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first, last) {
        ("", suffix) => (total.saturating_sub(suffix.parse().ok()?), total.checked_sub(1)?),
        (first, "") => (first.parse().ok()?, total.checked_sub(1)?),
        (first, last) => (
            first.parse().ok()?,
            last.parse::<u64>().ok()?.min(total.checked_sub(1)?),
        ),
    };
    (first <= last && first < total).then_some((first, last))
}

impl Registry {
    /// Empty, with the referrers API.
    pub fn with_referrers() -> Self {
        Self {
            referrers: true,
            ..Self::default()
        }
    }

    pub fn put_blob(&mut self, repository: &str, digest: &str, bytes: &Bytes) {
        self.repository(repository)
            .blobs
            .insert(digest.to_owned(), bytes.clone());
    }

    pub fn drop_blob(&mut self, repository: &str, digest: &str) {
        self.repository(repository).blobs.remove(digest);
    }

    pub fn put_manifest(&mut self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        let repository = self.repository(repository);
        repository.manifests.insert(manifest.digest.clone(), manifest.clone());
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), manifest.digest.clone());
        }
    }

    pub fn tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.repository(repository)
            .tags
            .insert(tag.to_owned(), digest.to_owned());
    }

    pub fn drop_tag(&mut self, repository: &str, tag: &str) {
        self.repository(repository).tags.remove(tag);
    }

    pub fn drop_manifest(&mut self, repository: &str, digest: &str) {
        let repository = self.repository(repository);
        repository.manifests.remove(digest);
        repository.tags.retain(|_, tagged| tagged != digest);
    }

    pub fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    /// The answer to `seen`; HEAD is answered like GET, its body is to be left out.
    pub fn answer(&self, seen: &Seen, rule: RangeRule) -> Reply {
        let Some(path) = seen.path.strip_prefix("/v2/") else {
            return Reply::error(404, "UNSUPPORTED", "no such path");
        };
        if path.is_empty() {
            return Reply::json(200, &json!({}));
        }
        if seen.method == "POST" && path.ends_with("/blobs/uploads/") {
            return match self.declines_pushes {
                true => Reply::error(405, "UNSUPPORTED", "The operation is unsupported."),
                false => Reply::empty(202).with("Location", &format!("/v2/{path}1234?state=5")),
            };
        }
        if seen.method == "DELETE" {
            return Reply::empty(204);
        }
        if path == "_catalog" {
            return self.catalog(seen);
        }
        let Some((name, kind, reference)) = split(path) else {
            return Reply::error(404, "UNSUPPORTED", "no such path");
        };
        let Some(repository) = self.repositories.get(name) else {
            return Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        match kind {
            "manifests" => repository.manifest(reference, seen.header("if-none-match")),
            "blobs" => repository.blob(reference, seen.header("range"), rule),
            "tags" => repository.tag_list(name, seen, self.paging),
            "referrers" if self.referrers => repository.referrers(reference),
            _ => Reply::new(404, "text/plain; charset=utf-8", "404 page not found\n"),
        }
    }

    fn catalog(&self, seen: &Seen) -> Reply {
        let most = seen.asked("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let last = seen.asked("last").unwrap_or_default();
        let mut names: Vec<&String> = self.repositories.keys().filter(|name| **name > last).collect();
        names.sort();
        let shown = &names[..names.len().min(most)];
        let reply = Reply::json(200, &json!({ "repositories": shown }));
        match shown.last().filter(|_| shown.len() < names.len()) {
            Some(name) => reply.with("Link", &format!("</v2/_catalog?last={name}&n={most}>; rel=\"next\"")),
            None => reply,
        }
    }
}

/// The repository that a path under `/v2/` is about, the kind of thing, and which.
pub fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, reference) = path.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    matches!(kind, "manifests" | "blobs" | "tags" | "referrers").then_some((name, kind, reference))
}

impl Repository {
    /// `known`: the entity tag that the client has already (RFC 9110, section 13.1.2).
    fn manifest(&self, reference: &str, known: Option<&str>) -> Reply {
        let digest = if reference.contains(':') {
            Some(reference)
        } else {
            self.tags.get(reference).map(String::as_str)
        };
        let Some(manifest) = digest.and_then(|digest| self.manifests.get(digest)) else {
            return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let etag = format!("\"{}\"", manifest.digest);
        if known == Some(&etag) {
            return Reply::empty(304).with("ETag", &etag);
        }
        Reply::new(200, &manifest.media_type, manifest.bytes.clone())
            .with("Docker-Content-Digest", &manifest.digest)
            .with("ETag", &etag)
    }

    fn blob(&self, digest: &str, range: Option<&str>, rule: RangeRule) -> Reply {
        let Some(bytes) = self.blobs.get(digest) else {
            return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        Reply::object("application/octet-stream", digest, bytes, range, rule)
    }

    fn tag_list(&self, name: &str, seen: &Seen, paging: Paging) -> Reply {
        let most = seen.asked("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let (page, last) = match paging {
            Paging::Ignored => (usize::MAX, None),
            Paging::Honoured => (most, seen.asked("last")),
            Paging::AtMost(cap) => (most.min(cap), seen.asked("last")),
        };
        let after = self
            .tags
            .keys()
            .filter(|tag| last.as_ref().is_none_or(|last| *tag > last));
        let rest: Vec<&String> = after.collect();
        let shown = &rest[..rest.len().min(page)];
        let reply = Reply::json(200, &json!({ "name": name, "tags": shown }));
        match shown.last().filter(|_| shown.len() < rest.len()) {
            Some(tag) => reply.with(
                "Link",
                &format!("</v2/{name}/tags/list?last={tag}&n={page}>; rel=\"next\""),
            ),
            None => reply,
        }
    }

    fn referrers(&self, subject: &str) -> Reply {
        let mut entries: Vec<Value> = Vec::new();
        for manifest in self.manifests.values() {
            let body: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
            if body["subject"]["digest"] == subject {
                let mut entry = manifest.descriptor();
                entry["artifactType"] = body["artifactType"].clone();
                entry["annotations"] = body["annotations"].clone();
                entries.push(entry);
            }
        }
        entries.sort_by_key(|entry| entry["digest"].to_string());
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        Reply::new(200, OCI_INDEX, index.to_string())
    }
}
