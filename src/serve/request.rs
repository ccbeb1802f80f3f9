use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AsHeaderName, IF_NONE_MATCH, VIA};

use crate::auth::Peer;
use crate::oci::{Digest, Ranges, Registry};
use crate::parent::Hops;
use crate::router::Line;

/// A request, as far as its header says.
pub struct Request<'a> {
    /// `GET`, `HEAD`, ...
    pub method: &'a str,
    /// As it came, not decoded.
    pub path: &'a str,
    /// Behind the `?`, not decoded.
    pub query: Option<&'a str>,
    /// All fields.
    pub headers: &'a HeaderMap,
    /// The host that the client named: `Host`, `:authority`, or what a proxy of ours says of it.
    pub host: Option<&'a str>,
    /// How the client asked for it: `http` or `https`.
    pub scheme: &'static str,
    /// Where it comes from, behind proxies of ours.
    pub remote: Option<IpAddr>,
    /// What it says of who asks.
    pub authorization: Option<&'a str>,
    /// The certificate that its connection was made with.
    pub peer: Option<&'a Peer>,
    /// The upstream that the listening address is bound to.
    pub bound: Option<&'a Registry>,
}

impl<'a> Request<'a> {
    /// What the router looks at.
    pub(super) fn line(&self, writes: bool) -> Line<'a> {
        Line {
            method: self.method,
            path: self.path,
            query: self.query,
            host: self.host,
            bound: self.bound,
            writes,
        }
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The ranges asked for, unless `If-Range` names other content (RFC 9110, 13.1.5).
    pub(super) fn ranges(&self, digest: &Digest) -> Option<Ranges> {
        let same = self.text("if-range").is_none_or(|tag| names(tag, digest));
        self.text("range").filter(|_| same).and_then(Ranges::parse)
    }

    /// Whether the client has this content already: `"<digest>"`, or the bare digest as Docker's registry takes it.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim() == "*" || names(tag.trim(), digest))
    }

    /// The nodes that it has passed.
    pub(super) fn hops(&self) -> Hops {
        let lines: Vec<&str> = self
            .headers
            .get_all(VIA)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        Hops::parse(&lines.join(", "))
    }

    pub(super) fn text(&self, name: impl AsHeaderName) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn names(tag: &str, digest: &Digest) -> bool {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let tag = tag
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .unwrap_or(tag);
    tag.parse::<Digest>().is_ok_and(|named| named == *digest)
}
