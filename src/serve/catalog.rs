use serde::Serialize;

use super::tags::{cut, link};
use super::{Refusal, Reply, Request, Serve};
use crate::auth::Principal;
use crate::router::Page;

/// `GET /v2/_catalog`: what lies here and is for `principal`, by the names under which it can be pulled from here. Never asks the parent.
pub(super) fn list(serve: &Serve, request: &Request<'_>, principal: &Principal, page: &Page) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Body<'a> {
        repositories: &'a [String],
    }

    let mut all: Vec<String> = serve
        .shelf
        .repositories(&serve.gate, principal)
        .iter()
        .map(|repository| serve.names.spell(repository))
        .collect();
    all.sort();
    let (repositories, next) = cut(&all, page);
    let reply = Reply::new(200).json(serde_json::to_vec(&Body { repositories }).expect("strings are JSON"));
    Ok(link(reply, request, page, next))
}
