//! What operators do with what lies here.

use http::Response;
use serde::Serialize;
use url::form_urlencoded;

use super::{json, refuse};
use crate::push::Push;
use crate::units::Span;

/// `POST`: throws away what no manifest needs. `dry_run=true` only says what; `unused=0s` however lately it was pushed.
pub(super) const GC: &str = "/api/cache/gc";

#[derive(Serialize)]
struct Collected {
    dry_run: bool,
    bytes: u64,
    blobs: Vec<Blob>,
}

#[derive(Serialize)]
struct Blob {
    repository: String,
    digest: String,
}

pub(super) async fn collect(push: Option<&Push>, query: &str) -> Response<Vec<u8>> {
    let Some(push) = push else {
        return refuse(
            409,
            "this node is a mirror: nothing was pushed to it, and what it keeps leaves by itself",
        );
    };
    let (mut dry_run, mut unused) = (false, push.unused_ttl());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*key, value.parse::<Span>()) {
            ("dry_run", _) => dry_run = value == "true",
            ("unused", Ok(span)) => unused = span.duration(),
            ("unused", Err(error)) => return refuse(400, &format!("unused: {error}")),
            _ => return refuse(400, &format!("{key} means nothing here; write dry_run or unused")),
        }
    }
    match push.sweep(unused, dry_run).await {
        Ok(swept) => {
            let blob = |(repository, digest): (crate::oci::Repository, crate::oci::Digest)| Blob {
                repository: repository.to_string(),
                digest: digest.to_string(),
            };
            json(
                200,
                &Collected {
                    dry_run,
                    bytes: swept.bytes,
                    blobs: swept.blobs.into_iter().map(blob).collect(),
                },
            )
        }
        Err(error) => refuse(503, &error.to_string()),
    }
}
