//! What is fetched before anyone asks.

use http::Response;
use url::form_urlencoded;

use super::{json, refuse};
use crate::sync::{Scope, Syncer};

/// `GET`: how it stands. `POST`: makes a pass over what is named: `name=a/b`, `name=a/b:v1`, as often as need be; over everything, if
/// nothing is. It waits for the parent, if that is away; says after which number it comes.
pub(super) const SYNC: &str = "/api/sync";
/// `GET`: what such a pass would do, named likewise.
pub(super) const PLAN: &str = "/api/sync/plan";

pub(super) fn report(sync: &Syncer) -> Response<Vec<u8>> {
    json(200, &sync.report())
}

pub(super) fn order(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    match read(sync, query) {
        Ok(scope) => match sync.order(scope) {
            Some(after) => json(200, &serde_json::json!({ "after": after })),
            None => refuse(503, "too many passes wait already; try again when some are done"),
        },
        Err(words) => refuse(400, &words),
    }
}

pub(super) async fn plan(sync: &Syncer, query: &str) -> Response<Vec<u8>> {
    match read(sync, query) {
        Ok(scope) => json(200, &sync.plan(&scope).await),
        Err(words) => refuse(400, &words),
    }
}

fn read(sync: &Syncer, query: &str) -> Result<Scope, String> {
    let mut scope = Scope::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if key != "name" {
            return Err(format!(
                "{key} means nothing here; write name=REPOSITORY or name=REPOSITORY:TAG"
            ));
        }
        // The port of a registry stands before a slash.
        let (name, tag) = match value.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (&*value, None),
        };
        let is_tag = tag.as_ref().is_none_or(|tag| tag.parse::<crate::oci::Tag>().is_ok());
        let spelled = sync.respell(name).filter(|_| is_tag);
        let spelled = spelled.ok_or_else(|| format!("{value:?} names nothing; write REPOSITORY or REPOSITORY:TAG"))?;
        scope.named.push((spelled, tag));
    }
    Ok(scope)
}
