use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Refusal, Reply, Request, Serve, tags};
use crate::auth::Permit;
use crate::oci::{Digest, media};
use crate::router::Page;

/// `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b), filtered and cut into pages by us.
pub(super) async fn list(
    serve: &Serve,
    request: &Request<'_>,
    permit: &Permit,
    digest: &Digest,
    artifact_type: Option<&str>,
    page: &Page,
) -> Result<Reply, Refusal> {
    const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

    let asker = serve.asker(request)?;
    let document = serve
        .shelf
        .referrers(permit, digest, &asker)
        .await
        .map_err(|error| Refusal::List {
            error,
            repository: permit.repository().clone(),
        })?;
    let mut reply = Reply::new(200).with(CONTENT_TYPE, HeaderValue::from_static(media::OCI_INDEX));
    if artifact_type.is_some() {
        reply = reply.with(FILTERS, HeaderValue::from_static("artifactType"));
    }
    let bytes = document.held.bytes();
    reply = if artifact_type.is_none() && *page == Page::default() {
        reply.bytes(bytes.clone())
    } else {
        let mut index = filtered(bytes, artifact_type);
        let next = cut(&mut index.manifests, page);
        let body = serde_json::to_vec(&index).expect("JSON is JSON");
        tags::link(reply.bytes(body.into()), request, page, next.as_deref())
    };
    Ok(reply.tell_document(&serve.node, &document))
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u8,
    media_type: String,
    manifests: Vec<Box<RawValue>>,
}

/// What matters of an entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    artifact_type: Option<String>,
    digest: Option<String>,
}

impl Entry {
    fn of(descriptor: &RawValue) -> Option<Self> {
        serde_json::from_str(descriptor.get()).ok()
    }
}

/// Leaves of a list what stands on the page, and says after which entry the next one begins. Entries stand in no order, so one
/// is known by its digest.
fn cut(entries: &mut Vec<Box<RawValue>>, page: &Page) -> Option<String> {
    let digest = |entry: &RawValue| Entry::of(entry).and_then(|entry| entry.digest);
    if let Some(last) = &page.last {
        let at = entries.iter().position(|entry| digest(entry).as_ref() == Some(last));
        entries.drain(..at.map_or(0, |at| at + 1));
    }
    let most = page.n.unwrap_or(usize::MAX);
    let is_more = entries.len() > most;
    entries.truncate(most);
    entries.last().filter(|_| is_more).and_then(|entry| digest(entry))
}

/// The descriptors of one artifact type, or all of them, each as it stands in the list.
fn filtered(index: &[u8], wanted: Option<&str>) -> Index {
    let mut index: Index = serde_json::from_slice(index).unwrap_or_else(|_| Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: Vec::new(),
    });
    if wanted.is_some() {
        let is_wanted = |entry: Entry| entry.artifact_type.as_deref() == wanted;
        index.manifests.retain(|entry| Entry::of(entry).is_some_and(is_wanted));
    }
    index
}
