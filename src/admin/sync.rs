//! What is fetched before anyone asks.

use http::Response;
use url::form_urlencoded;

use super::{json, refuse};
use crate::oci::Tag;
use crate::select::{Platform, PlatformError};
use crate::sync::{Scope, Syncer};

/// `GET`: how it stands; `order=ID`: and how far that has got. `POST`: makes a pass over what is named: `name=a/b`, `name=a/b:v1`, as
/// often as need be; over everything, if nothing is. It waits for the parent, if that is away, and outlives a restart; says what the
/// order is called.
pub(super) const SYNC: &str = "/api/sync";
/// `POST`: what such a pass would do, named likewise. It asks the parent, so it is no `GET`.
pub(super) const PLAN: &str = "/api/sync/plan";

/// `GET`: what of a tag lies here: `name=a/b:v1`, and `platform=linux/amd64` as often as need be.
pub(super) const COMPLETE: &str = "/api/complete";

pub(super) async fn report(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    match pairs.next() {
        None => json(200, &sync.report()),
        Some((key, id)) if key == "order" => match sync.report_with(&id).await {
            Some(report) => json(200, &report),
            None => refuse(
                404,
                &format!("nothing that was asked for is called {id:?}, or it was done long ago"),
            ),
        },
        Some((key, _)) => refuse(400, &format!("{key} means nothing here; write order=ID")),
    }
}

pub(super) async fn order(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    match read(sync, query).and_then(Named::without_platforms) {
        Ok(scope) => match sync.order(scope).await {
            Some(id) => json(200, &serde_json::json!({ "order": id })),
            None => refuse(503, "too many passes wait already; try again when some are done"),
        },
        Err(words) => refuse(400, &words),
    }
}

pub(super) async fn plan(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    match read(sync, query).and_then(Named::without_platforms) {
        Ok(scope) => json(200, &sync.plan(&scope).await),
        Err(words) => refuse(400, &words),
    }
}

pub(super) async fn complete(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    let Named { scope, platforms } = match read(sync, query) {
        Ok(named) => named,
        Err(words) => return refuse(400, &words),
    };
    let [(name, Some(tag))] = scope.named.as_slice() else {
        return refuse(400, "write name=REPOSITORY:TAG, and perhaps platform=OS/ARCHITECTURE");
    };
    match sync.completeness(name, tag, platforms).await {
        Some(completeness) => json(200, &completeness),
        None => refuse(404, &format!("{name}:{tag} names nothing here")),
    }
}

/// What is named in a query.
#[derive(Default)]
struct Named {
    scope: Scope,
    platforms: Vec<Platform>,
}

impl Named {
    fn without_platforms(self) -> Result<Scope, String> {
        match self.platforms.is_empty() {
            true => Ok(self.scope),
            false => Err("platform means nothing here; rules say which come".to_owned()),
        }
    }
}

fn read(sync: &Syncer, query: &str) -> Result<Named, String> {
    let mut named = Named::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "name" => named.scope.named.push(name(sync, &value)?),
            "platform" => named
                .platforms
                .push(value.parse().map_err(|error: PlatformError| error.to_string())?),
            _ => {
                return Err(format!(
                    "{key} means nothing here; write name=REPOSITORY or name=REPOSITORY:TAG"
                ));
            }
        }
    }
    Ok(named)
}

fn name(sync: &Syncer, text: &str) -> Result<(String, Option<Tag>), String> {
    let nothing = || format!("{text:?} names nothing; write REPOSITORY or REPOSITORY:TAG");
    // The port of a registry stands before a slash.
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let tag = tag.map(str::parse).transpose().map_err(|_| nothing())?;
    Ok((sync.respell(name).ok_or_else(nothing)?, tag))
}
