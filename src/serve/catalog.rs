use serde::Serialize;

use super::tags::{cut, link};
use super::{Refusal, Reply, Request, Serve};
use crate::auth::Principal;
use crate::router::Page;

/// `GET /v2/_catalog`: what lies here and is for `principal`, by the names under which it can be pulled from here. With `above=true`,
/// for a node below, also what the registry above has; otherwise that is never asked.
pub(super) async fn list(
    serve: &Serve,
    request: &Request<'_>,
    principal: &Principal,
    page: &Page,
    above: bool,
) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Body<'a> {
        repositories: &'a [String],
    }

    let mut repositories = serve.shelf.repositories(&serve.gate, principal);
    if above {
        let asker = serve.asker(request)?;
        let there = serve.shelf.names_above(serve.names.unprefixed(), &asker).await;
        let there = there.map_err(|error| Refusal::Catalog { error })?;
        let there = there.iter().filter_map(|name| serve.names.meant(name.as_str()));
        repositories.extend(there.filter(|repository| serve.gate.shows(principal, repository)));
    }
    let mut all: Vec<String> = repositories
        .iter()
        .map(|repository| serve.names.spell(repository))
        .collect();
    all.sort();
    all.dedup();
    let (repositories, next) = cut(&all, page);
    let reply = Reply::new(200).json(serde_json::to_vec(&Body { repositories }).expect("strings are JSON"));
    Ok(link(reply, request, page, next))
}
