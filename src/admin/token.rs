//! Tokens: made, shown, replaced, taken away.

use http::Response;
use serde_json::json;
use url::form_urlencoded;

use super::{beside, json, refuse};
use crate::auth::{Guard, Shown, TokenError, Wanted};
use crate::units::with_causes;

pub(super) const LIST: &str = "/api/tokens";
const CREATE: &str = "/api/tokens/create";
const ROTATE: &str = "/api/tokens/rotate";
const ENABLE: &str = "/api/tokens/enable";
const DISABLE: &str = "/api/tokens/disable";
const DELETE: &str = "/api/tokens/delete";
pub(super) const DEEDS: [&str; 5] = [CREATE, ROTATE, ENABLE, DISABLE, DELETE];

/// Whose token it is about: the query, or, where it is made, what that would be.
pub(super) fn reference(path: &str, query: &str, body: &[u8]) -> String {
    if path != CREATE {
        return query.to_owned();
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let name = body["name"].as_str().unwrap_or_default();
    form_urlencoded::Serializer::new(String::new())
        .append_pair("name", name)
        .finish()
}

/// All, without anything that is secret, and whether anybody is asked for one.
pub(super) async fn list(guard: &Guard) -> Response<Vec<u8>> {
    let guard = guard.clone();
    beside(move || json(200, &json!({ "asked": guard.is_on(), "tokens": guard.tokens() }))).await
}

/// `POST /api/tokens/create` with a JSON body; the others with `?name=`, and `rotate` with `password=1|2` and `expires=` too.
pub(super) async fn act(guard: &Guard, path: &str, query: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    let (guard, path, query) = (guard.clone(), path.to_owned(), query.to_owned());
    // It waits for the disk.
    beside(move || act_now(&guard, &path, &query, &body)).await
}

fn act_now(guard: &Guard, path: &str, query: &str, body: &[u8]) -> Response<Vec<u8>> {
    let value = |key: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    };
    let name = value("name").unwrap_or_default();
    let outcome = match path {
        CREATE => match serde_json::from_slice::<Wanted>(body) {
            Ok(wanted) => guard.create_token(wanted).map(|shown| told(guard, &shown)),
            Err(error) => return refuse(400, &format!("the body is no token: {error}")),
        },
        ROTATE => {
            let which = value("password")
                .and_then(|which| which.parse().ok())
                .unwrap_or_default();
            let expires = match value("expires").map(|text| text.parse()).transpose() {
                Ok(expires) => expires,
                Err(error) => return refuse(400, &format!("expires: {error}")),
            };
            guard
                .rotate_token(&name, which, expires)
                .map(|shown| told(guard, &shown))
        }
        DELETE => guard.delete_token(&name).map(|()| json!({ "name": name })),
        ENABLE => guard.enable_token(&name).map(|()| json!({ "name": name })),
        _ => guard.disable_token(&name).map(|()| json!({ "name": name })),
    };
    match outcome {
        Ok(told) => json(200, &told),
        Err(error) => {
            let status = match &error {
                TokenError::Unknown(_) => 404,
                TokenError::Taken(_) | TokenError::InSettings(_) => 409,
                _ => match error.of_disk() {
                    Some(error) if error.is_full() => 507,
                    Some(_) => 503,
                    None => 400,
                },
            };
            refuse(status, &with_causes(&error))
        }
    }
}

/// With whether anybody is asked for it.
fn told(guard: &Guard, shown: &Shown) -> serde_json::Value {
    let mut told = shown.told();
    told["asked"] = guard.is_on().into();
    told
}
