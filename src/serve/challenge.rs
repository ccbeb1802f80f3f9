//! What is said to who may not have what they asked for (RFC 9110, 11.6; distribution, "Token Authentication").

use http::header::WWW_AUTHENTICATE;

use super::{Refusal, Request, Serve};
use crate::auth::{Denied, Stranger};

impl Serve {
    /// The refusal, with what to do about it: a client that is to log in is told where.
    pub(super) fn refuse(&self, request: &Request<'_>, denied: Denied) -> Refusal {
        let (scope, error) = match &denied {
            Denied::Stranger(Stranger::TooMany)
            | Denied::Forbidden { .. }
            | Denied::NoList { .. }
            | Denied::Elsewhere { .. } => {
                return Refusal::Denied(denied, None);
            }
            Denied::Stranger(Stranger::Token) => (None, Some("invalid_token")),
            Denied::Stranger(_) => (None, None),
            Denied::LogIn { scope } => (scope.as_deref(), None),
            Denied::Scope { scope } => (Some(scope.as_str()), Some("insufficient_scope")),
        };
        let (realm, service) = match self.own_host(request) {
            Some(host) => (format!("{}://{host}/v2/_wharf/token", request.scheme), host),
            None => ("/v2/_wharf/token".to_owned(), "wharf"),
        };
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        for (key, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                challenge += &format!(",{key}=\"{value}\"");
            }
        }
        Refusal::Denied(denied, Some((WWW_AUTHENTICATE, challenge)))
    }

    /// Under which name and port the client knows this node; `None` if it did not say one that could be said back.
    pub(super) fn own_host<'a>(&'a self, request: &Request<'a>) -> Option<&'a str> {
        let plain = |host: &&str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
            !host.is_empty() && host.bytes().all(is_plain)
        };
        self.login_server.as_deref().or(request.host).filter(plain)
    }
}
