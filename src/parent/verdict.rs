//! From an answer that is none to the error that it means.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use reqwest::Response;

use super::error::Error;
use super::kind::Kind;
use super::wire;
use crate::oci;
use crate::units::is_plausible;

/// No more is read of an error's body, and not for longer.
const MOST_BYTES: usize = 64 * 1024;
const WITHIN: Duration = Duration::from_secs(2);

/// No upstream can silence us for longer by asking for it.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Of an upstream's own words, so much is repeated.
const MOST_CHARACTERS: usize = 200;

/// Whose answer is judged, and how much its word counts.
pub(super) struct Judge<'a> {
    /// Our name for it.
    pub(super) layer: &'a str,
    pub(super) kind: Kind,
    /// Whether it was asked without credentials.
    pub(super) anonymous: bool,
    pub(super) now: SystemTime,
}

impl Judge<'_> {
    /// What an answer other than 200 and 206 means. Reads its body, if it is short.
    pub(super) async fn judge(&self, mut response: Response) -> Error {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = tokio::time::timeout(WITHIN, wire::head_of(&mut response, MOST_BYTES)).await;
        let body = body.ok().flatten().map(|(body, _)| body);
        self.sort(status, &headers, &body.unwrap_or_default())
    }

    fn sort(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let words = oci::first_error(body);
        let layer = self.failed_layer(headers, words.as_ref());
        let retry_after = retry_after(headers, self.now);
        let own = || {
            words
                .as_ref()
                .map(|(code, message, _)| printable(&format!("{code} {message}")))
        };
        match status {
            401 | 403 => Error::Denied {
                layer,
                status,
                anonymous: self.anonymous,
                // 401 says no more than that.
                words: own().filter(|_| status == 403),
            },
            404 if let Some(how) = headers.get(DENIED_HEADER) => {
                let is_account = how == DENIED_ACCOUNT;
                Error::Denied {
                    layer,
                    status: if is_account { 403 } else { 401 },
                    anonymous: !is_account,
                    words: None,
                }
            }
            404 | 410 => Error::Absent { layer },
            416 => Error::RangeUnsatisfiable { layer },
            429 => Error::TooMany { layer, retry_after },
            508 => Error::Loop { layer },
            502 if headers.contains_key(SPOILED_HEADER) => Error::Spoiled { layer },
            _ => {
                let told = headers.get(REASON_HEADER).and_then(|value| value.to_str().ok());
                let message = told.map(printable).or_else(own).or_else(|| plain(headers, body));
                Error::Failed {
                    layer,
                    status,
                    message: message.map_or_else(|| format!("{} says no more", self.layer), with_remedy),
                    told: told.is_some(),
                    retry_after,
                }
            }
        }
    }

    /// A wharf node says which layer failed, in a header (for HEAD has no body) and in the error's
    /// detail. A detail alone counts only from one that is known to be a wharf node: others have
    /// layers of their own kind there.
    fn failed_layer(&self, headers: &HeaderMap, words: Option<&(String, String, serde_json::Value)>) -> String {
        let in_header = headers.get(LAYER_HEADER).and_then(|value| value.to_str().ok());
        let in_body = words
            .filter(|_| self.kind == Kind::Wharf)
            .and_then(|(_, _, detail)| detail.get("layer")?.as_str());
        in_header
            .or(in_body)
            .map(printable)
            .filter(|layer| !layer.is_empty())
            .unwrap_or_else(|| self.layer.to_owned())
    }
}

/// On an error of a wharf node: the name of the layer that failed, as in its body's detail.
pub const LAYER_HEADER: &str = "wharf-layer";

/// On an error of a wharf node: what it sent of this content before was wrong; nothing can be built on it.
pub const SPOILED_HEADER: &str = "wharf-spoiled";

/// Beside it: why, in one sentence, which the layers below pass on as it is.
pub const REASON_HEADER: &str = "wharf-reason";

/// On a 404 of a wharf node: a registry above refused access. Whether it exists nobody knows.
pub const DENIED_HEADER: &str = "wharf-denied";
/// Its value, where it was asked anonymously.
pub const DENIED_STRANGER: &str = "1";
/// Its value, where it was asked by an account that may not have it.
pub const DENIED_ACCOUNT: &str = "403";

/// How long to leave the upstream alone (RFC 9110, 10.2.3: seconds or a date).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let written = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match written.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(written).ok()?;
            // By the clock of whoever named the date: ours may be wrong.
            let sent = headers.get(header::DATE).and_then(|sent| sent.to_str().ok());
            let sent = sent.and_then(|sent| httpdate::parse_http_date(sent).ok());
            let asked = sent.or_else(|| is_plausible(now).then_some(now))?;
            date.duration_since(asked).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The words of who speaks no JSON: a gateway, a proxy. Of a page its title.
fn plain(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let media_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !media_type.trim_start().starts_with("text/") {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let title = text
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"));
    let words = match title {
        Some((title, _)) => title,
        None if text.trim_start().starts_with('<') => return None,
        None => text.lines().find(|line| !line.trim().is_empty())?,
    };
    Some(printable(words)).filter(|words| !words.is_empty())
}

/// What to do about what gateways say of TLS.
fn with_remedy(message: String) -> String {
    let remedy = if message.contains("SSL certificate") {
        "give cert_file and key_file that it accepts"
    } else if message.contains("HTTP request was sent to HTTPS port") || message.contains("HTTP request to an HTTPS") {
        "write https:// in url"
    } else {
        return message;
    };
    format!("{message}; {remedy}")
}

/// What may go into our own messages and logs: one short line of ASCII.
fn printable(words: &str) -> String {
    words
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { ' ' })
        .take(MOST_CHARACTERS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// An error below an answer, without the URL: that may be signed.
pub(super) fn cause(error: reqwest::Error) -> super::error::Cause {
    Arc::new(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kind: Kind) -> Judge<'static> {
        Judge {
            layer: "l5",
            kind,
            anonymous: true,
            now: SystemTime::UNIX_EPOCH,
        }
    }

    const OF_L6: &[u8] = br#"{"errors":[{"code":"UNAVAILABLE","message":"no\nanswer","detail":{"layer":"l6"}}]}"#;

    #[test]
    fn a_wharf_parent_names_the_layer_above_it_that_failed() {
        let error = judge(Kind::Wharf).sort(502, &HeaderMap::new(), OF_L6);

        assert_eq!(error.layer(), "l6");
        assert_eq!(error.to_string(), "l6 failed with status 502: UNAVAILABLE no answer");
    }

    #[test]
    fn the_sentence_of_a_node_above_is_passed_on_as_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert(LAYER_HEADER, "l6".parse().unwrap());
        headers.insert(REASON_HEADER, "l6 cannot be reached: no way".parse().unwrap());

        let error = judge(Kind::Wharf).sort(503, &headers, OF_L6);

        assert_eq!(error.to_string(), "l6 cannot be reached: no way");
        assert_eq!(error.layer(), "l6");
    }

    #[test]
    fn a_gateway_that_speaks_no_json_is_quoted_with_a_remedy_if_there_is_one() {
        let of = |media_type: &str, body: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type.parse().unwrap())]);
            judge(Kind::Foreign).sort(400, &headers, body.as_bytes()).to_string()
        };
        let page = "<html><head><title>400 No required SSL certificate was sent</title></head></html>";

        assert_eq!(
            of("text/html", page),
            "l5 failed with status 400: 400 No required SSL certificate was sent; give cert_file and key_file that it accepts"
        );
        assert_eq!(
            of(
                "text/plain; charset=utf-8",
                "Client sent an HTTP request to an HTTPS server.\n"
            ),
            "l5 failed with status 400: Client sent an HTTP request to an HTTPS server.; write https:// in url"
        );
        for (media_type, body) in [
            ("text/html", "<p>no title"),
            ("application/octet-stream", "abc"),
            ("text/plain", " \n"),
        ] {
            assert_eq!(
                of(media_type, body),
                "l5 failed with status 400: l5 says no more",
                "{body:?}"
            );
        }
    }

    #[test]
    fn without_a_body_the_header_names_the_layer() {
        let mut headers = HeaderMap::new();
        headers.insert(LAYER_HEADER, "l7".parse().unwrap());

        for kind in [Kind::Wharf, Kind::Foreign] {
            assert_eq!(judge(kind).sort(504, &headers, b"").layer(), "l7");
        }
    }

    #[test]
    fn a_foreign_registry_that_speaks_of_layers_means_others() {
        let error = judge(Kind::Foreign).sort(502, &HeaderMap::new(), OF_L6);

        assert_eq!(error.layer(), "l5");
    }

    #[test]
    fn statuses_are_sorted_by_who_must_act() {
        let sort = |status| judge(Kind::Foreign).sort(status, &HeaderMap::new(), b"<html>");

        assert!(matches!(
            sort(401),
            Error::Denied {
                anonymous: true,
                status: 401,
                ..
            }
        ));
        assert!(matches!(sort(403), Error::Denied { status: 403, .. }));
        assert!(matches!(sort(404), Error::Absent { .. }));
        assert!(matches!(sort(416), Error::RangeUnsatisfiable { .. }));
        assert!(matches!(sort(429), Error::TooMany { retry_after: None, .. }));
        assert!(matches!(sort(500), Error::Failed { status: 500, .. }));
        assert!(matches!(sort(508), Error::Loop { .. }));
        assert!(matches!(sort(304), Error::Failed { status: 304, .. }));
    }

    #[test]
    fn a_node_that_was_refused_anonymously_does_not_say_that_it_is_gone() {
        let mut headers = HeaderMap::new();
        headers.insert(DENIED_HEADER, "1".parse().unwrap());

        let error = judge(Kind::Wharf).sort(404, &headers, b"");

        assert!(matches!(error, Error::Denied { anonymous: true, .. }), "{error}");

        headers.insert(DENIED_HEADER, DENIED_ACCOUNT.parse().unwrap());
        let error = judge(Kind::Wharf).sort(404, &headers, b"");
        let is_account = matches!(
            error,
            Error::Denied {
                status: 403,
                anonymous: false,
                ..
            }
        );
        assert!(is_account && error.is_forbidden(), "{error}");
    }

    #[test]
    fn a_date_is_measured_from_the_answer_s_own_and_not_believed_by_a_clock_that_is_not_set() {
        let read = |sent: Option<&str>, now: SystemTime| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, "Fri, 01 Jan 2100 00:01:00 GMT".parse().unwrap());
            if let Some(sent) = sent {
                headers.insert(header::DATE, sent.parse().unwrap());
            }
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        let (unset, far) = (SystemTime::UNIX_EPOCH, Duration::from_secs(4_102_444_800));
        let sent = Some("Fri, 01 Jan 2100 00:00:00 GMT");

        assert_eq!(read(sent, unset), Some(60));
        assert_eq!(read(sent, unset + far * 2), Some(60));
        assert_eq!(read(None, unset + far), Some(60));
        assert_eq!(read(None, unset), None);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_capped() {
        let read = |written: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap());
            headers.insert(header::RETRY_AFTER, written.parse().unwrap());
            retry_after(&headers, SystemTime::UNIX_EPOCH).map(|wait| wait.as_secs())
        };

        assert_eq!(read("7"), Some(7));
        assert_eq!(read("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        assert_eq!(read("99999999"), Some(3600));
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
    }
}
