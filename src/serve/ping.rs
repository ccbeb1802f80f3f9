use http::HeaderValue;
use http::header::LOCATION;

use super::Reply;

/// `GET /v2/` (end-1).
pub(super) fn answer() -> Reply {
    Reply::new(200).json(&b"{}"[..])
}

/// `GET /v2`, as distribution answers it.
pub(super) fn redirect() -> Reply {
    Reply::new(301).with(LOCATION, HeaderValue::from_static("/v2/"))
}
