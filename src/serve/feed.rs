use super::{Refusal, Reply, Request, Serve};
use crate::auth::Principal;
use crate::sync::{FEED_OLDEST, FEED_VERSION, Question};

/// `GET /v2/_wharf/feed?version=&epoch=&since=&wait=`: what has changed here of what `principal` may see, as soon as something has.
pub(super) async fn tell(
    serve: &Serve,
    request: &Request<'_>,
    principal: &Principal,
    question: &Question,
) -> Result<Reply, Refusal> {
    serve.hops(request)?;
    let shows = |repository: &_| serve.gate.shows(principal, repository);
    let told = serve.feed.since(question, shows).await;
    let told = told.ok_or(Refusal::FeedVersion {
        oldest: FEED_OLDEST,
        newest: FEED_VERSION,
    })?;
    Ok(Reply::new(200).json(serde_json::to_vec(&told).expect("strings are JSON")))
}
