//! Who is at the other end of a connection, as far as the connection says.

use std::net::{IpAddr, SocketAddr};
use std::str::Utf8Error;

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
        // Each proxy adds whom it saw; what stands before the first stranger, seen from here, is that stranger's tale.
        let mut remote = direct.remote;
        let passed: Vec<_> = elements(headers, "x-forwarded-for").collect();
        // The proxy of ours that saw it, counted from the one that connected here.
        let mut hop = 0;
        for (at, address) in passed.iter().rev().map_while(|text| address(text.ok()?)).enumerate() {
            (remote, hop) = (Some(address), at);
            if !is_trusted(&address) {
                break;
            }
        }
        // What that one saw, if all of them added theirs; else what the last one says.
        let said = |name: &str| {
            let all: Vec<_> = elements(headers, name).collect();
            let hop = if all.len() == passed.len() { hop } else { 0 };
            all.iter().rev().nth(hop).and_then(|text| text.ok())
        };
        let scheme = match said("x-forwarded-proto") {
            Some("https") => "https",
            Some("http") => "http",
            _ => direct.scheme,
        };
        Way {
            scheme,
            host: said("x-forwarded-host").filter(|host| !host.is_empty()).or(host),
            remote,
        }
    }
}

/// The elements of a field, in all its lines. Proxies add behind what came, which may be no text at all: of those the last is the
/// one that was added by who connected here.
fn elements<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = Result<&'a str, Utf8Error>> {
    let lines = headers.get_all(name).into_iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(|element| std::str::from_utf8(element).map(str::trim))
}

/// With a port, as some proxies add it, or without: `192.0.2.7`, `192.0.2.7:5678`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:5678`.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match inner {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
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

    fn way(remote: [u8; 4], fields: &[(&'static str, &str)]) -> (&'static str, Option<String>, String) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        way_of(remote, &fields)
    }

    fn way_of(remote: [u8; 4], fields: &[(&'static str, &[u8])]) -> (&'static str, Option<String>, String) {
        let client = Client {
            scheme: "http",
            remote: Some(remote.into()),
            peer: None,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_bytes(value).unwrap());
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
    fn behind_several_proxies_of_ours_what_the_first_of_them_saw_counts() {
        let said = |protos| {
            let fields = [
                ("x-forwarded-for", "192.0.2.7, 10.0.0.2"),
                ("x-forwarded-proto", protos),
            ];
            way([10, 0, 0, 1], &fields).0
        };

        assert_eq!(said("https, http"), "https");
        assert_eq!(said("http, https"), "http");
        // One of them keeps to itself what came before.
        assert_eq!(said("https"), "https");
        // A stranger's own tale stands before what our proxies say.
        let told = [
            ("x-forwarded-for", "10.0.0.9, 192.0.2.7"),
            ("x-forwarded-proto", "https, http"),
        ];
        assert_eq!(way([10, 0, 0, 1], &told).0, "http");
    }

    #[test]
    fn an_address_may_have_a_port_beside_it() {
        let from = |said| way([10, 0, 0, 1], &[("x-forwarded-for", said)]).2;

        for (said, address) in [
            ("192.0.2.7:5678", "192.0.2.7"),
            ("[2001:db8::7]:5", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
            ("203.0.113.9, 192.0.2.7:1, 10.0.0.2:65535", "192.0.2.7"),
        ] {
            assert_eq!(from(said), address, "{said}");
        }
        for nonsense in [
            "192.0.2.7:",
            "192.0.2.7:65536",
            "[192.0.2.7]",
            "2001:db8::7]:5",
            "unknown",
            "_hidden",
            "",
        ] {
            assert_eq!(from(nonsense), "10.0.0.1", "{nonsense:?}");
        }
    }

    #[test]
    fn of_several_names_and_schemes_that_counts_which_our_proxy_added_and_not_what_the_client_said() {
        for fields in [
            &[
                ("x-forwarded-host", "evil.example, l4.example"),
                ("x-forwarded-proto", "http, https"),
            ][..],
            &[
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "l4.example"),
                ("x-forwarded-proto", "https"),
            ],
        ] {
            let (scheme, host, _) = way([10, 0, 0, 1], fields);
            assert_eq!((scheme, host.as_deref()), ("https", Some("l4.example")), "{fields:?}");
        }
        // Whatever the client writes, it is not what our proxy wrote behind it.
        let fields = [
            ("x-forwarded-for", &b"\xff\xfe, 192.0.2.7"[..]),
            ("x-forwarded-host", b"\xff, l4.example"),
        ];
        let (_, host, remote) = way_of([10, 0, 0, 1], &fields);
        assert_eq!((host.as_deref(), &*remote), (Some("l4.example"), "192.0.2.7"));
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
