use http::HeaderValue;
use http::header::{HeaderName, LOCATION};

use super::Reply;

/// `GET /v2/` (end-1). Tells a child that its parent is a wharf.
pub(super) fn answer() -> Reply {
    const WHARF: HeaderName = HeaderName::from_static("wharf");
    Reply::new(200)
        .with(WHARF, HeaderValue::from_static(env!("CARGO_PKG_VERSION")))
        .json(&b"{}"[..])
}

/// `GET /v2`, as distribution answers it.
pub(super) fn redirect() -> Reply {
    Reply::new(301).with(LOCATION, HeaderValue::from_static("/v2/"))
}
