use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Refusal, Reply, Request, Serve};
use crate::oci::{Digest, Repository, media};

/// `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b), filtered by us.
pub(super) async fn list(
    serve: &Serve,
    request: &Request<'_>,
    repository: &Repository,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Reply, Refusal> {
    const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

    let permit = serve.permit(repository)?;
    let asker = serve.asker(request)?;
    let document = serve
        .shelf
        .referrers(&permit, digest, &asker)
        .await
        .map_err(|error| Refusal::List {
            error,
            repository: repository.clone(),
        })?;
    let mut reply = Reply::new(200).with(CONTENT_TYPE, HeaderValue::from_static(media::OCI_INDEX));
    reply = match artifact_type {
        None => reply.bytes(document.held.bytes().clone()),
        Some(wanted) => {
            let filters = HeaderValue::from_static("artifactType");
            reply
                .with(FILTERS, filters)
                .bytes(filter(document.held.bytes(), wanted).into())
        }
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

/// The descriptors of one artifact type, each as it stands in the list.
fn filter(index: &[u8], wanted: &str) -> Vec<u8> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        artifact_type: Option<String>,
    }

    let mut index: Index = serde_json::from_slice(index).unwrap_or_else(|_| Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: Vec::new(),
    });
    index.manifests.retain(|descriptor| {
        serde_json::from_str::<Typed>(descriptor.get())
            .is_ok_and(|typed| typed.artifact_type.as_deref() == Some(wanted))
    });
    serde_json::to_vec(&index).expect("JSON is JSON")
}
