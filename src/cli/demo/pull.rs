//! A pull as Docker does it: HEAD of the tag, the manifest by digest, then the blobs.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::demo::Error;
use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::image::TAG;
use crate::oci::{Digest, Manifest, media};
use crate::parent::http::{Client, Reply};
use crate::units::Clock;

/// What was pulled, in order.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) objects: Vec<Object>,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Object {
    /// What people call it.
    pub(super) what: &'static str,
    /// The digest under which it was asked for or, of a tag, that was answered.
    pub(super) digest: Digest,
    /// Where its bytes lie; a tag has none.
    pub(super) file: Option<PathBuf>,
    pub(super) bytes: u64,
    pub(super) first_byte: Duration,
    pub(super) whole: Duration,
    /// One word per node that answered, the lowest first.
    pub(super) outcomes: Vec<Outcome>,
    /// What a node says that had to answer without its parent.
    pub(super) warning: Option<String>,
}

/// One node's entry of `Cache-Status` (RFC 9211).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    pub(super) node: String,
    /// `hit`, or why the request was forwarded: `miss`, `stale`.
    pub(super) how: String,
}

/// Far more than a manifest has.
const MANIFEST_BYTES: u64 = 4 << 20;

/// Pulls the image from the registry `at` into the empty folder `into`.
///
/// # Errors
///
/// [`Error::NoAnswer`], [`Error::Unexpected`], [`Error::Io`]: the pull failed; what came before lies in `into`.
pub(super) async fn pull(at: &Endpoint, repository: &str, into: &Path) -> Result<Pull, Error> {
    let puller = Puller {
        at,
        client: at.client()?,
        base: format!("{}/v2/{repository}", at.url),
        into,
    };
    let tag = puller.tag().await?;
    let manifest = puller.content("manifest", "manifests", tag.digest).await?;
    let peek = puller.peek(&manifest)?;
    let mut objects = vec![tag, manifest];
    let named = peek
        .config
        .iter()
        .map(|one| ("config", one))
        .chain(peek.layers.iter().map(|one| ("layer", one)));
    for (what, descriptor) in named {
        objects.push(puller.content(what, "blobs", descriptor.digest).await?);
    }
    Ok(Pull { objects })
}

struct Puller<'a> {
    at: &'a Endpoint,
    client: Client,
    base: String,
    into: &'a Path,
}

impl Puller<'_> {
    /// Distribution spec, "Checking if content exists in the registry".
    async fn tag(&self) -> Result<Object, Error> {
        let url = format!("{}/manifests/{TAG}", self.base);
        let begun = Clock::system().now();
        let reply = self.call("HEAD", &url).await?;
        let digest = reply.header("docker-content-digest").and_then(|text| text.parse().ok());
        let unexpected = || Error::Unexpected {
            what: format!("HEAD {url}"),
            reason: "no digest in the answer".to_owned(),
        };
        let digest = digest.ok_or_else(unexpected)?;
        Ok(Object {
            digest,
            ..Object::of("tag", digest, &reply, begun.elapsed())
        })
    }

    /// Distribution spec, "Pulling manifests" and "Pulling blobs".
    async fn content(&self, what: &'static str, kind: &str, digest: Digest) -> Result<Object, Error> {
        let url = format!("{}/{kind}/{digest}", self.base);
        let path = self.into.join(digest.hex());
        let begun = Clock::system().now();
        let mut reply = self.call("GET", &url).await?;
        let no_answer = |source| Error::NoAnswer {
            what: format!("GET {url}"),
            source,
        };
        let mut object = Object::of(what, digest, &reply, begun.elapsed());
        let failed = |source| Error::Io {
            action: "writing",
            path: path.clone(),
            source,
        };
        let mut file = File::create_new(&path).map_err(failed)?;
        while let Some(chunk) = reply.chunk().await.map_err(no_answer)? {
            if object.bytes == 0 {
                object.first_byte = begun.elapsed();
            }
            object.bytes += chunk.len() as u64;
            file.write_all(&chunk).map_err(failed)?;
        }
        object.whole = begun.elapsed();
        object.file = Some(path.clone());
        Ok(object)
    }

    fn peek(&self, manifest: &Object) -> Result<Manifest, Error> {
        let path = self.into.join(manifest.digest.hex());
        let what = format!("the manifest {}", manifest.digest);
        if manifest.bytes > MANIFEST_BYTES {
            return Err(Error::Unexpected {
                what,
                reason: format!("has {} bytes", manifest.bytes),
            });
        }
        let bytes = std::fs::read(&path).map_err(|source| Error::Io {
            action: "reading",
            path,
            source,
        })?;
        Manifest::parse(&bytes).map_err(|error| Error::Unexpected {
            what,
            reason: error.to_string(),
        })
    }

    async fn call(&self, method: &str, url: &str) -> Result<Reply, Error> {
        let what = format!("{method} {url}");
        let headers = [("accept", media::ACCEPT), ("accept-encoding", "identity")];
        let nothing = bytes::Bytes::new();
        let reply = self.at.call(&self.client, method, url, &headers, nothing).await?;
        if reply.status == 200 {
            return Ok(reply);
        }
        let status = reply.status;
        let said = reply.bytes(64 << 10).await.unwrap_or_default();
        Err(Error::Unexpected {
            what,
            reason: format!("answered {status} {}", String::from_utf8_lossy(&said).trim()),
        })
    }
}

impl Object {
    fn of(what: &'static str, digest: Digest, reply: &Reply, so_far: Duration) -> Self {
        let outcomes = reply.header("cache-status").map(Outcome::parse_all).unwrap_or_default();
        let warning = reply.header("warning").map(str::to_owned);
        Self {
            what,
            digest,
            file: None,
            bytes: 0,
            first_byte: so_far,
            whole: so_far,
            outcomes,
            warning,
        }
    }
}

impl Outcome {
    /// Reads the header, whose last entry is the nearest cache (RFC 9211, section 2).
    fn parse_all(header: &str) -> Vec<Self> {
        header.rsplit(',').map(Self::parse).collect()
    }

    fn parse(entry: &str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let node = parts.next().unwrap_or_default().trim_matches('"').to_owned();
        let word = |part: &str| match part.split_once('=') {
            Some(("fwd", reason)) => Some(reason.to_owned()),
            None if part == "hit" => Some(part.to_owned()),
            _ => None,
        };
        let how = parts.find_map(word).unwrap_or_else(|| "-".to_owned());
        Self { node, how }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cache_comes_first() {
        let outcomes = Outcome::parse_all("l5-enterprise; fwd=miss; collapsed, \"l4-site\";hit, l3; ttl=5; fwd=stale");

        let words: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.node.as_str(), outcome.how.as_str()))
            .collect();
        assert_eq!(words, [("l3", "stale"), ("l4-site", "hit"), ("l5-enterprise", "miss")]);
    }
}
