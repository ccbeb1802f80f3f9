use http::header::LINK;
use serde::Serialize;
use url::form_urlencoded;

use super::{Refusal, Reply, Request, Serve};
use crate::auth::Permit;
use crate::router::Page;

/// Entries of a page when the client does not say how many it wants.
const DEFAULT_PAGE: usize = 1000;

/// `GET /v2/<name>/tags/list` (end-8a, end-8b). Pages are cut by us: some parents know no `n` and `last`.
pub(super) async fn list(serve: &Serve, request: &Request<'_>, permit: &Permit, page: &Page) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        tags: &'a [&'a str],
    }

    let asker = serve.asker(request)?;
    let document = serve.shelf.tags(permit, &asker).await.map_err(|error| Refusal::List {
        error,
        repository: permit.repository().clone(),
    })?;
    let all: Vec<&str> = serde_json::from_slice(document.held.bytes()).unwrap_or_default();
    let (tags, next) = cut(&all, page);
    let name = permit.repository().name.as_str();
    let reply = Reply::new(200).json(serde_json::to_vec(&Body { name, tags }).expect("strings are JSON"));
    Ok(link(reply, request, page, next).tell_document(&serve.node, &document))
}

/// The entries of one page of a sorted list, and after which entry the next one begins.
pub(super) fn cut<'a, T: AsRef<str>>(all: &'a [T], page: &Page) -> (&'a [T], Option<&'a str>) {
    let first = page
        .last
        .as_ref()
        .map_or(0, |last| all.partition_point(|entry| entry.as_ref() <= last.as_str()));
    let rest = &all[first..];
    let here = &rest[..rest.len().min(page.n.unwrap_or(DEFAULT_PAGE))];
    let more = here.len() < rest.len();
    (here, here.last().filter(|_| more).map(AsRef::as_ref))
}

/// `Link: <...>; rel="next"` (RFC 8288), under the path that the client asked.
pub(super) fn link(reply: Reply, request: &Request<'_>, page: &Page, next: Option<&str>) -> Reply {
    let Some(next) = next else { return reply };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("n", &page.n.unwrap_or(DEFAULT_PAGE).to_string())
        .append_pair("last", next);
    let asked = form_urlencoded::parse(request.query.unwrap_or_default().as_bytes());
    for (key, value) in asked.filter(|(key, _)| ["ns", "artifactType", "above"].contains(&&**key)) {
        query.append_pair(&key, &value);
    }
    reply.with_text(LINK, &format!("<{}?{}>; rel=\"next\"", request.path, query.finish()))
}
