use super::{Refusal, Reply, Request, Serve};
use crate::auth::Permit;
use crate::oci::Digest;

/// `GET /v2/_wharf/receipts?repository=<name>&digest=<digest>`: how far up a push has got, for whoever may pull.
pub(super) async fn tell(
    serve: &Serve,
    request: &Request<'_>,
    permit: &Permit,
    digest: &Digest,
) -> Result<Reply, Refusal> {
    let hops = serve.hops(request)?;
    let receipt = serve.receipts.of(permit.repository(), digest, &hops).await;
    Ok(Reply::new(200).json(serde_json::to_vec(&receipt).expect("strings are JSON")))
}
