//! A running node, asked at its admin port by commands.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::parent::http::{Call, Client, Error as CallError};
use crate::units::{Secret, read_secret_file};

/// Bytes of its answer, beyond what any node says.
const MOST: usize = 256 << 20;

/// Why a command came to nothing.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks the node whose admin port is `admin`, and returns what it says. `remedy`: what to do if nobody answers there.
///
/// # Errors
///
/// Nobody answers, or the node refuses: in its own words.
pub(super) async fn call(
    admin: &str,
    method: &str,
    path: &str,
    body: Bytes,
    within: Duration,
    remedy: &str,
) -> Result<Value, Failure> {
    let scheme = if admin.contains("://") { "" } else { "http://" };
    let url = format!("{scheme}{}{path}", admin.trim_end_matches('/'));
    let authorization = token()?.map(|token| format!("Bearer {}", token.expose()));
    let headers: Vec<(&str, &str)> = authorization
        .iter()
        .map(|value| ("authorization", value.as_str()))
        .collect();
    let call = Call {
        method,
        url: &url,
        headers: &headers,
        body,
        within,
    };
    let reply = match Client::new(None)?.call(call).await {
        Err(CallError::Unreachable { host, .. }) => {
            return Err(format!("no node answers at {host}; {remedy}").into());
        }
        other => other?,
    };
    let status = reply.status;
    let bytes = reply.bytes(MOST).await?;
    if status == 200 {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    if status == 401 {
        return Err(
            format!("the admin port wants its token: set {TOKEN}, or {TOKEN}_FILE to a file that holds it").into(),
        );
    }
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Err(body["error"].as_str().unwrap_or("the node refused").to_owned().into())
}

/// Variable of the environment with the token of the admin port; with `_FILE` behind it, with the file that holds it.
const TOKEN: &str = "WHARF_ADMIN_TOKEN";

fn token() -> Result<Option<Secret>, Failure> {
    if let Ok(token) = std::env::var(TOKEN) {
        return Ok(Some(Secret::new(token)));
    }
    let Some(path) = std::env::var_os(format!("{TOKEN}_FILE")) else {
        return Ok(None);
    };
    let text = read_secret_file(path.as_ref()).map_err(|reason| format!("{TOKEN}_FILE: {reason}"))?;
    Ok(Some(Secret::new(text.trim())))
}
