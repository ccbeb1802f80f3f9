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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_is_the_one_of_the_specification() {
        let body = error_body(Code::ManifestUnknown, "no \"such\" tag", Some(json!({"layer": "l4"})));

        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \"such\" tag","detail":{"layer":"l4"}}]}"#
        );
    }

    #[test]
    fn our_own_body_is_understood() {
        let body = error_body(Code::TooManyRequests, "wait", None);

        assert_eq!(
            first_error(&body),
            Some(("TOOMANYREQUESTS".to_owned(), "wait".to_owned(), Value::Null))
        );
    }

    #[test]
    fn what_a_sloppy_registry_leaves_out_is_empty() {
        let said = |body: &str| first_error(body.as_bytes());

        assert_eq!(
            said(r#"{"errors":[{"code":"DENIED"}]}"#),
            Some(("DENIED".to_owned(), String::new(), Value::Null))
        );
        assert_eq!(
            said(r#"{"errors":[{}, {"code":"X"}]}"#),
            Some((String::new(), String::new(), Value::Null))
        );
        assert_eq!(said(r#"{"errors":[]}"#), None);
        assert_eq!(said(r#"{"errors":null}"#), None);
        assert_eq!(said(r#"{"details":"no"}"#), None);
        assert_eq!(said("<html>"), None);
        assert_eq!(said(""), None);
    }

    #[test]
    fn a_detail_nested_without_end_is_not_followed() {
        let body = format!(r#"{{"errors":[{{"detail":{}"#, "[".repeat(100_000));

        assert_eq!(first_error(body.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn every_message_arrives_as_it_was_sent(message: String) {
            let body = error_body(Code::Unknown, &message, None);
            prop_assert_eq!(first_error(&body).unwrap().1, message);
        }
    }
}
