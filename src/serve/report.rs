use super::{Refusal, Reply, Request, Serve};
use crate::auth::Principal;
use crate::push::Incoming;
use crate::status::{MOST_REPORTED, Summary};

/// `POST /v2/_wharf/report`: how a node below stands.
pub(super) async fn take(
    serve: &Serve,
    request: &Request<'_>,
    principal: &Principal,
    body: &mut dyn Incoming,
) -> Result<Reply, Refusal> {
    serve.hops(request)?;
    let refused = |words: &'static str| Refusal::Report { words };
    let mut report = Vec::new();
    loop {
        match body.next().await {
            Ok(Some(piece)) if report.len() + piece.len() <= MOST_REPORTED => report.extend_from_slice(&piece),
            Ok(Some(_)) => return Err(refused("a report has at most 1 MiB")),
            Ok(None) => break,
            Err(_) => return Err(refused("the report broke off")),
        }
    }
    let summary: Summary =
        serde_json::from_slice(&report).map_err(|_| refused("that is no report of a node; /api/status shows one"))?;
    let account = if principal.is_anonymous() { "" } else { principal.name() };
    serve.children.hear(account, summary, report.len());
    Ok(Reply::new(204))
}
