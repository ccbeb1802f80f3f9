//! A reply, as far as it came.

use std::time::Duration;

use serde_json::Value;

use crate::support::content::digest_like;

/// What came back, and whether it ended as its own head had announced.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// All announced bytes came, or the last chunk did.
    pub complete: bool,
    /// Until the head of the reply was here.
    pub head_after: Duration,
}

impl Reply {
    /// The first value of the header; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// All values of the header, joined by commas.
    pub fn all(&self, name: &str) -> String {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Fails unless the reply is 200, whole, these bytes.
    #[track_caller]
    pub fn assert_is(&self, bytes: &[u8]) {
        assert_eq!(self.status, 200, "{self}");
        assert!(self.complete, "the reply broke off: {self}");
        assert!(self.body == bytes, "other bytes came: {self}");
    }

    /// Fails unless the reply is 206, whole, bytes `first..=last` of `object`.
    #[track_caller]
    pub fn assert_part(&self, object: &[u8], first: usize, last: usize) {
        assert_eq!(self.status, 206, "{self}");
        assert_eq!(
            self.header("content-range"),
            format!("bytes {first}-{last}/{}", object.len()),
            "{self}"
        );
        assert!(self.complete, "the reply broke off: {self}");
        assert!(self.body == object[first..=last], "other bytes came: {self}");
        assert_eq!(self.header("content-length"), (last - first + 1).to_string(), "{self}");
    }

    /// Fails unless the reply is an error of the specification with this status and code.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self}");
        assert!(self.complete, "the reply broke off: {self}");
        let media_type = self.header("content-type").split(';').next().unwrap_or("").trim();
        assert_eq!(media_type, "application/json", "{self}");
        assert_eq!(self.json()["errors"][0]["code"], code, "{self}");
    }

    /// Whether this reply gives wrong bytes out for the object `digest`.
    pub fn is_false_for(&self, digest: &str) -> bool {
        self.status == 200 && self.complete && digest_like(digest, &self.body) != digest
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        let (headers, length, complete) = (&self.headers, self.body.len(), self.complete);
        write!(
            f,
            "{} {headers:?}, {length} bytes, complete: {complete}: {shown:?}",
            self.status
        )
    }
}
