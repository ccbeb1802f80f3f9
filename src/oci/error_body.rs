//! The body of an error (distribution spec, "Error Codes").
//!
//! ```text
//! {"errors":[{"code":"MANIFEST_UNKNOWN","message":"...","detail":...}]}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::oci::Code;

/// The JSON body that reports one error; without `detail` the field is left out.
pub fn error_body(code: Code, message: &str, detail: Option<Value>) -> Vec<u8> {
    let one = One {
        code: code.as_str(),
        message,
        detail,
    };
    serde_json::to_vec(&Body { errors: [one] }).expect("strings and JSON values always serialise")
}

#[derive(Serialize)]
struct Body<'a> {
    errors: [One<'a>; 1],
}

#[derive(Serialize)]
struct One<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
}

/// Code, message and detail of the first error in a body that another registry sent; what is
/// absent is empty or null. `None` if the body has not this form.
pub fn first_error(body: &[u8]) -> Option<(String, String, Value)> {
    let heard: Heard = serde_json::from_slice(body).ok()?;
    let HeardOne { code, message, detail } = heard.errors.into_iter().next()?;
    Some((code.unwrap_or_default(), message.unwrap_or_default(), detail))
}

#[derive(Deserialize)]
struct Heard {
    errors: Vec<HeardOne>,
}

#[derive(Deserialize)]
struct HeardOne {
    code: Option<String>,
    message: Option<String>,
    #[serde(default)]
    detail: Value,
}
