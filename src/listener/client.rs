//! Who is at the other end of a connection, as far as the connection says.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use pingora::protocols::tls::SslDigest;

use crate::auth::Peer;

/// What holds for all requests of a connection.
pub(super) struct Client<'a> {
    pub(super) scheme: &'static str,
    pub(super) remote: Option<IpAddr>,
    /// The certificate that it showed.
    pub(super) peer: Option<&'a Peer>,
}

impl<'a> Client<'a> {
    /// `tls`: what the handshake found out, if there was one.
    pub(super) fn of(tls: Option<&'a SslDigest>, remote: Option<IpAddr>) -> Self {
        Self {
            scheme: if tls.is_some() { "https" } else { "http" },
            remote: remote.map(|address| address.to_canonical()),
            peer: tls.and_then(|tls| tls.extension.get()),
        }
    }
}

/// What a request says of itself, as far as it is believed.
pub(super) struct Way<'a> {
    pub(super) scheme: &'static str,
    pub(super) host: Option<&'a str>,
    pub(super) remote: Option<IpAddr>,
}

impl Client<'_> {
    /// How a request with these fields came: of a proxy in `trusted`, as the proxy says.
    pub(super) fn way<'a>(&self, headers: &'a HeaderMap, host: Option<&'a str>, trusted: &[IpNet]) -> Way<'a> {
        let direct = Way {
            scheme: self.scheme,
            host,
            remote: self.remote,
        };
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        if !self.remote.as_ref().is_some_and(is_trusted) {
            return direct;
        }
        let first = |name: &str| headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
        let scheme = match first("x-forwarded-proto") {
            Some("https") => "https",
            Some("http") => "http",
            _ => direct.scheme,
        };
        let said = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let said: Vec<&str> = said.flat_map(|value| value.split(',')).map(str::trim).collect();
        // Each proxy adds whom it saw; what stands before the first stranger, seen from here, is that stranger's tale.
        let mut remote = direct.remote;
        for address in said.iter().rev().map_while(|text| text.parse().ok()) {
            remote = Some(address);
            if !is_trusted(&address) {
                break;
            }
        }
        Way {
            scheme,
            host: first("x-forwarded-host").filter(|host| !host.is_empty()).or(host),
            remote,
        }
    }
}

/// What the request says of who asks. What cannot be read, or is said twice, is nobody's.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let first = all.next()?;
    Some(match all.next() {
        None => first.to_str().unwrap_or_default(),
        Some(_) => "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(remote: [u8; 4], fields: &[(&'static str, &'static str)]) -> (&'static str, Option<String>, String) {
        let client = Client {
            scheme: "http",
            remote: Some(remote.into()),
            peer: None,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let way = client.way(&headers, Some("direct:5000"), &trusted);
        let remote = way.remote.map(|address| address.to_string());
        (way.scheme, way.host.map(str::to_owned), remote.unwrap_or_default())
    }

    const SAID: [(&str, &str); 3] = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "l4.plant.example:8000"),
        ("x-forwarded-for", "192.0.2.7"),
    ];

    #[test]
    fn a_proxy_of_ours_is_believed_and_nobody_else() {
        let host = |host: &str| Some(host.to_owned());

        assert_eq!(
            way([10, 1, 2, 3], &SAID),
            ("https", host("l4.plant.example:8000"), "192.0.2.7".to_owned())
        );
        assert_eq!(
            way([192, 0, 2, 1], &SAID),
            ("http", host("direct:5000"), "192.0.2.1".to_owned())
        );
        assert_eq!(
            way([10, 1, 2, 3], &[]),
            ("http", host("direct:5000"), "10.1.2.3".to_owned())
        );
    }

    #[test]
    fn of_several_addresses_the_nearest_that_is_no_proxy_of_ours_counts() {
        let from = |said| way([10, 0, 0, 1], &[("x-forwarded-for", said)]).2;

        assert_eq!(from("203.0.113.9, 192.0.2.7"), "192.0.2.7");
        assert_eq!(from("203.0.113.9, 192.0.2.7, 10.0.0.2"), "192.0.2.7");
        assert_eq!(from("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        assert_eq!(from("192.0.2.7, nonsense"), "10.0.0.1");
    }

    #[test]
    fn two_logins_in_one_request_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(authorization(&headers), None);
        headers.append(AUTHORIZATION, http::HeaderValue::from_static("Basic x"));
        assert_eq!(authorization(&headers), Some("Basic x"));
        headers.append(AUTHORIZATION, http::HeaderValue::from_static("Basic y"));
        assert_eq!(authorization(&headers), Some(""));
    }
}
