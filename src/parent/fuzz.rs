//! What must hold of the headers' parsers for any input; for fuzzing, and for the tests beside it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use super::answer::Head;
use super::challenge::Challenge;
use super::{Hops, realm, redirect, verdict};

/// Takes `data` as the value of each header that an upstream, or a client, may send.
///
/// # Panics
///
/// When a realm or a redirect is believed that must not be, or what leaves could not stand in a header.
pub fn fuzz(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let here = Url::parse("https://registry.example/v2/a/tags/list").expect("this is a URL");
    let mut headers = HeaderMap::new();
    for name in [
        header::WWW_AUTHENTICATE,
        header::LOCATION,
        header::LINK,
        header::RETRY_AFTER,
        header::CONTENT_RANGE,
        header::AGE,
    ] {
        headers.insert(name, value.clone());
    }

    if let Some(Challenge::Bearer(bearer)) = Challenge::choose(&headers)
        && let Ok(realm) = realm::accept(&here, &bearer.realm, &[])
    {
        assert_eq!(realm.origin(), here.origin());
    }
    if let Ok(target) = redirect::next(&here, 307, &headers) {
        let target = target.expect("a 307 that is believed leads somewhere");
        assert!(target.scheme() == "https" && target.username().is_empty());
    }
    let wait = verdict::retry_after(&headers, SystemTime::UNIX_EPOCH);
    assert!(wait.unwrap_or_default() <= Duration::from_secs(3600));
    Head::parse(&headers, &here);
    let via = Hops::parse(&String::from_utf8_lossy(data)).to_string();
    assert_eq!(Hops::parse(&via).to_string(), via);
    assert!(HeaderValue::from_str(&via).is_ok());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fuzz;

    proptest! {
        #[test]
        fn no_header_is_believed_too_much(text in "[ -~]{0,200}") {
            fuzz(text.as_bytes());
        }

        #[test]
        fn no_header_of_the_usual_kind_is_believed_too_much(
            text in r#"(Bearer|Basic|<|bytes|https?:|//)?[ ]?(realm|rel|scope|error)?=?"?(https?://)?(registry\.example|evil|\[::1\]|/token)?[:/@\\a-z0-9,;"=<>() -]{0,30}"#
        ) {
            fuzz(text.as_bytes());
        }

        #[test]
        fn no_bytes_are_believed_too_much(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            fuzz(&bytes);
        }
    }
}
