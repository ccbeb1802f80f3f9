use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName};

use crate::auth::Principal;
use crate::fetch::{Outcome, Source};
use crate::parent::{MODE_HEADER, REASON_HEADER};
use crate::router::Route;

/// What is sent back.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// All fields but `Content-Length`, `Date` and what the connection needs.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of the body that a GET has; a HEAD announces them too. `None`: unknown beforehand.
    pub length: Option<u64>,
    /// Left out for a HEAD.
    pub body: Body,
    /// For the metrics.
    pub kind: Kind,
    /// How cached content came about; `None` for what is not cached.
    pub outcome: Option<Outcome>,
    /// Whom it is for, if they said who they are.
    pub who: Option<Principal>,
}

/// The bytes behind a header.
pub enum Body {
    /// None.
    Empty,
    /// All of them.
    Bytes(Bytes),
    /// Content, here or on its way.
    Content(Box<Content>),
}

/// Content and which parts of it are sent.
pub struct Content {
    /// Where it comes from.
    pub source: Source,
    /// In the order of sending.
    pub segments: Vec<Segment>,
}

/// A part of a body.
pub enum Segment {
    /// These bytes: what stands between the parts of a multipart body.
    Bytes(Bytes),
    /// These bytes of the content.
    Part(Range<u64>),
}

/// What was asked for; the closed set of the label `kind`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// `/v2/`
    Ping,
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
    /// A list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
    /// The list of repositories.
    Catalog,
    /// How far up a push has got.
    Receipts,
    /// What has changed.
    Feed,
    /// How a node below stands.
    Report,
    /// A login.
    Token,
    /// Anything that would change something.
    Write,
    /// What no route leads to.
    Other,
}

impl Segment {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(range) => range.end - range.start,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Kind {
    /// As the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Receipts => "receipts",
            Self::Feed => "feed",
            Self::Report => "report",
            Self::Token => "token",
            Self::Write => "write",
            Self::Other => "other",
        }
    }

    pub(super) fn of(route: &Route) -> Self {
        match route {
            Route::Root | Route::Ping => Self::Ping,
            Route::Manifest { .. } => Self::Manifest,
            Route::Blob { .. } => Self::Blob,
            Route::Tags { .. } => Self::Tags,
            Route::Referrers { .. } => Self::Referrers,
            Route::Catalog { .. } => Self::Catalog,
            Route::Receipts { .. } => Self::Receipts,
            Route::Feed { .. } => Self::Feed,
            Route::Report => Self::Report,
            Route::Token => Self::Token,
            Route::Push(_) | Route::Write { .. } => Self::Write,
        }
    }
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::with_capacity(12),
            length: Some(0),
            body: Body::Empty,
            kind: Kind::Other,
            outcome: None,
            who: None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A header whose text comes from elsewhere; left out if it cannot stand in one.
    pub(super) fn with_text(self, name: HeaderName, text: &str) -> Self {
        match HeaderValue::from_str(text) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    /// Why it brings nothing, where it is not the client's to know better.
    pub fn reason(&self) -> Option<&HeaderValue> {
        let mut fields = self.headers.iter().filter(|_| self.status >= 400);
        fields.find(|(name, _)| name == REASON_HEADER).map(|(_, value)| value)
    }

    /// As [`Reply::with_text`], without a copy.
    pub(super) fn with_shared(self, name: HeaderName, text: Bytes) -> Self {
        match HeaderValue::from_maybe_shared(text) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    pub(super) fn json(self, bytes: impl Into<Bytes>) -> Self {
        self.with(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .bytes(bytes.into())
    }

    pub(super) fn bytes(mut self, bytes: Bytes) -> Self {
        self.length = Some(bytes.len() as u64);
        self.body = Body::Bytes(bytes);
        self
    }

    /// What every answer of the API carries; `Wharf` tells a child what its parent is.
    pub(super) fn name_api(&mut self, namespace: Option<&str>, takes_pushes: bool) {
        const MODE: HeaderName = HeaderName::from_static(MODE_HEADER);
        const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
        const WHARF: HeaderName = HeaderName::from_static("wharf");
        const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
        self.headers.push((VERSION, HeaderValue::from_static("registry/2.0")));
        self.headers
            .push((WHARF, HeaderValue::from_static(env!("CARGO_PKG_VERSION"))));
        if takes_pushes {
            self.headers.push((MODE, HeaderValue::from_static("registry")));
        }
        if let Some(namespace) = namespace.and_then(|namespace| HeaderValue::from_str(namespace).ok()) {
            self.headers.push((NAMESPACE, namespace));
        }
    }
}
