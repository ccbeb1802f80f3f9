//! Where an answer sends us, and whether we go.
//!
//! Redirects are followed here and never handed down: lower layers cannot reach where they point.

use http::{HeaderMap, header};
use url::Url;

use super::origin::Origin;

/// A chain of redirects is no longer than this.
pub(super) const MOST_HOPS: usize = 5;

/// The next hop of an answer with `status`; `None` if it is no redirect; or why it is refused.
///
/// What is refused here holds for every upstream; which addresses may be reached is
/// [`Egress`](super::egress::Egress)'s matter.
pub(super) fn next(here: &Url, status: u16, headers: &HeaderMap) -> Result<Option<Url>, &'static str> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(mut target) = location.and_then(|written| here.join(written).ok()) else {
        return Err("it redirects without saying where to");
    };
    let (Some(from), Some(to)) = (Origin::of(here), Origin::of(&target)) else {
        return Err("it redirects to what is neither https:// nor http://");
    };
    if from.is_https() && !to.is_https() {
        return Err("it redirects from https:// to http://");
    }
    if !target.username().is_empty() || target.password().is_some() {
        return Err("it redirects to a URL that names a user");
    }
    target.set_fragment(None);
    Ok(Some(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(here: &str, status: u16, location: &str) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        let here = Url::parse(here).unwrap();
        next(&here, status, &headers).map(|hop| hop.map(|url| url.to_string()))
    }

    #[test]
    fn absolute_and_relative_redirects_are_followed() {
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(
                hop("https://a/v2/x", status, "https://cdn/y?sig=1#f").unwrap(),
                Some("https://cdn/y?sig=1".to_owned())
            );
        }
        assert_eq!(
            hop("http://a/v2/x", 307, "/other").unwrap(),
            Some("http://a/other".to_owned())
        );
    }

    #[test]
    fn other_answers_are_no_redirects() {
        for status in [200, 206, 300, 304, 404] {
            assert_eq!(hop("https://a/", status, "https://cdn/").unwrap(), None);
        }
    }

    #[test]
    fn a_redirect_never_leaves_https_nor_http_nor_brings_a_user() {
        assert!(hop("https://a/", 307, "http://a/").is_err());
        assert!(hop("http://a/", 307, "https://a/").is_ok());
        assert!(hop("http://a/", 307, "file:///etc/passwd").is_err());
        assert!(hop("http://a/", 307, "http://me:secret@a/").is_err());
        assert!(next(&Url::parse("http://a/").unwrap(), 307, &HeaderMap::new()).is_err());
    }
}
