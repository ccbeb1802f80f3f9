//! What waits for the parent, and what operators do about it.

use http::Response;
use serde::Serialize;
use url::form_urlencoded;

use super::{beside, json, refuse};
use crate::oci::{Digest, Name};
use crate::parent::Hops;
use crate::queue::{Item, Queue, Which};
use crate::status::Receipts;
use crate::store;

/// `GET`: everything that waits.
pub(super) const LIST: &str = "/api/queue";
/// `POST`: tries what is named at once: `number=17`, `repository=a/b`, as often as need be, or `all=true`. With
/// `turn=true` also what is owed to another parent, which this one is to have instead.
pub(super) const RETRY: &str = "/api/queue/retry";
/// `POST`: gives up what is named likewise.
pub(super) const DROP: &str = "/api/queue/drop";

/// `GET`: how far up a push has got: `repository=a/b&digest=sha256:...`.
pub(super) const RECEIPTS: &str = "/api/receipts";

#[derive(Serialize)]
struct Done {
    items: Vec<Item>,
}

/// What is named in a query.
#[derive(Default)]
struct Named {
    which: Which,
    turn: bool,
}

pub(super) async fn list(queue: &Queue) -> Response<Vec<u8>> {
    let queue = queue.clone();
    beside(move || json(200, &queue.list())).await
}

pub(super) async fn receipt(receipts: &Receipts, query: &str) -> Response<Vec<u8>> {
    let (mut repository, mut digest) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "repository" => repository = value.parse::<Name>().ok(),
            "digest" => digest = value.parse::<Digest>().ok(),
            _ => return refuse(400, &format!("{key} means nothing here; write repository and digest")),
        }
    }
    let (Some(name), Some(digest)) = (repository, digest) else {
        return refuse(400, "write repository=<name>&digest=sha256:<hex>");
    };
    let repository = receipts.named(name);
    json(200, &receipts.of(&repository, &digest, &Hops::default()).await)
}

pub(super) async fn retry(queue: &Queue, query: &str) -> Response<Vec<u8>> {
    let named = match read(query) {
        Ok(named) => named,
        Err(words) => return refuse(400, &words),
    };
    let queue = queue.clone();
    let tried = tokio::task::spawn_blocking(move || queue.retry(&named.which, named.turn)).await;
    done(tried)
}

pub(super) async fn drop_items(queue: &Queue, query: &str) -> Response<Vec<u8>> {
    let named = match read(query) {
        Ok(named) if !named.turn => named,
        Ok(_) => return refuse(400, "turn means nothing where something is dropped"),
        Err(words) => return refuse(400, &words),
    };
    let queue = queue.clone();
    let dropped = tokio::task::spawn_blocking(move || queue.drop_items(&named.which)).await;
    done(dropped)
}

fn done(outcome: Result<Result<Vec<Item>, store::Error>, tokio::task::JoinError>) -> Response<Vec<u8>> {
    match outcome {
        Ok(Ok(items)) => json(200, &Done { items }),
        Ok(Err(error)) => refuse(503, &crate::units::with_causes(&error)),
        Err(error) => refuse(500, &error.to_string()),
    }
}

fn read(query: &str) -> Result<Named, String> {
    let mut named = Named::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "number" => {
                let number = value.parse();
                named
                    .which
                    .numbers
                    .push(number.map_err(|_| format!("number: {value:?} is no number"))?);
            }
            "repository" => named.which.repositories.push(value.into_owned()),
            "all" => named.which.all = value == "true",
            "turn" => named.turn = value == "true",
            _ => {
                return Err(format!(
                    "{key} means nothing here; write number, repository, all or turn"
                ));
            }
        }
    }
    if named.which == Which::default() {
        return Err("nothing is named; write number=, repository= or all=true".to_owned());
    }
    Ok(named)
}
