use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName};

use super::{Refusal, Reply, Request, Serve};
use crate::auth::Permit;
use crate::fetch::Document;
use crate::oci::Reference;

pub(super) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(super) const FOR_EVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// `GET` and `HEAD /v2/<name>/manifests/<reference>` (end-3). Whatever `Accept` says: the stored bytes.
pub(super) async fn get(
    serve: &Serve,
    request: &Request<'_>,
    permit: &Permit,
    reference: &Reference,
) -> Result<Reply, Refusal> {
    let asker = serve.asker(request)?;
    let document = match request.is_head() {
        true => Box::pin(serve.shelf.manifest_head(permit, reference, &asker)).await,
        false => Box::pin(serve.shelf.manifest(permit, reference, &asker)).await,
    };
    let document = document.map_err(|error| Refusal::Manifest {
        error,
        repository: permit.repository().clone(),
        reference: reference.clone(),
    })?;
    Ok(describe(serve, request, reference, &document))
}

/// The same, if it is in memory and fresh.
pub(super) fn get_at_once(
    serve: &Serve,
    request: &Request<'_>,
    permit: &Permit,
    reference: &Reference,
) -> Option<Reply> {
    let document = serve.shelf.manifest_at_once(permit, reference)?;
    Some(describe(serve, request, reference, &document))
}

fn describe(serve: &Serve, request: &Request<'_>, reference: &Reference, document: &Document) -> Reply {
    let held = &document.held;
    let mut reply = if request.has(held.digest()) {
        Reply::new(304)
    } else {
        Reply::new(200)
            .with_text(CONTENT_TYPE, held.media_type())
            .bytes(held.bytes().clone())
    };
    let quoted = held.quoted();
    reply = reply
        .with_shared(ETAG, quoted.clone())
        .with_shared(DIGEST, quoted.slice(1..quoted.len() - 1));
    if matches!(reference, Reference::Digest(_)) {
        reply = reply.with(CACHE_CONTROL, FOR_EVER);
    }
    reply.tell_document(&serve.node, document)
}
