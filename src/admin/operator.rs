//! Whether it is an operator who asks.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use pingora::http::RequestHeader;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::Config;
use crate::auth::Peer;

/// How long who brought a wrong token waits for the answer.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// What is thought of a request before it is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// An operator, or whoever reaches a port that asks nobody.
    Operator,
    /// Nobody who said who they are.
    Stranger,
    /// Somebody with a wrong token.
    Wrong,
    /// A page of a browser, which may have been talked into it.
    Foreign(&'static str),
}

/// `config`: who is one. `peer`: the certificate that the connection showed, which was verified.
pub(super) fn judge(head: &RequestHeader, config: &Config, peer: Option<&Peer>) -> Verdict {
    if head.headers.contains_key(ORIGIN) && head.method != http::Method::GET {
        return Verdict::Foreign("no page of another origin may ask for this\n");
    }
    if peer.is_some_and(|peer| config.is_operators(peer)) {
        return Verdict::Operator;
    }
    let Some(token) = &config.token else {
        if config.asks() {
            return Verdict::Stranger;
        }
        return match is_by_address(head) {
            true => Verdict::Operator,
            false => Verdict::Foreign(
                "this port is asked by its address, or as localhost: another name may be a page that borrows your browser\n",
            ),
        };
    };
    let Some(said) = head.headers.get(AUTHORIZATION) else {
        return Verdict::Stranger;
    };
    match said.to_str().ok().and_then(shown) {
        Some(shown) if is_same(&shown, token.expose()) => Verdict::Operator,
        _ => Verdict::Wrong,
    }
}

/// The name that is said beside the token, which is nobody's.
pub(super) fn claimed(head: &RequestHeader) -> Option<String> {
    basic(head.headers.get(AUTHORIZATION)?.to_str().ok()?).map(|(name, _)| name)
}

/// The token, as Bearer, or as the password of Basic, which browsers ask for.
fn shown(authorization: &str) -> Option<String> {
    match authorization.split_once(' ')? {
        (scheme, rest) if scheme.eq_ignore_ascii_case("bearer") => Some(rest.trim().to_owned()),
        _ => basic(authorization).map(|(_, password)| password),
    }
}

fn basic(authorization: &str) -> Option<(String, String)> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn is_same(one: &str, other: &str) -> bool {
    Sha256::digest(one.as_bytes())
        .ct_eq(&Sha256::digest(other.as_bytes()))
        .into()
}

/// A name that resolves to this machine can be anybody's; an address cannot.
fn is_by_address(head: &RequestHeader) -> bool {
    let field = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(host) = head.uri.authority().map(http::uri::Authority::as_str).or(field) else {
        return head.version != http::Version::HTTP_11;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Secret;

    fn open() -> Config {
        Config::default()
    }

    fn with_token() -> Config {
        Config {
            token: Some(Secret::new("0123456789abcdef")),
            ..open()
        }
    }

    fn named(name: &str) -> Peer {
        Peer::new([name.to_owned()], [])
    }

    fn head(method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, b"/", None).unwrap();
        for (name, value) in fields {
            head.insert_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn without_a_token_it_is_asked_by_its_address_alone() {
        for (host, is_operator) in [
            ("127.0.0.1:5001", true),
            ("[::1]:5001", true),
            ("localhost:5001", true),
            ("192.0.2.7", true),
            ("evil.example:5001", false),
            ("localhost.evil.example", false),
        ] {
            let verdict = judge(&head("GET", &[("host", host)]), &open(), None);
            assert_eq!(verdict == Verdict::Operator, is_operator, "{host}");
        }
        assert_ne!(judge(&head("GET", &[]), &open(), None), Verdict::Operator);
    }

    #[test]
    fn a_token_is_wanted_in_one_of_its_two_forms() {
        let said = |authorization: &str| {
            let fields = [("host", "l4.example"), ("authorization", authorization)];
            judge(&head("GET", &fields), &with_token(), None)
        };

        assert_eq!(said("Bearer 0123456789abcdef"), Verdict::Operator);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(said(&basic("admin:0123456789abcdef")), Verdict::Operator);
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer ",
            "0123456789abcdef",
            "Basic x",
            &basic("0123456789abcdef:x"),
        ] {
            assert_eq!(said(wrong), Verdict::Wrong, "{wrong}");
        }
        assert_eq!(
            judge(&head("GET", &[("host", "127.0.0.1")]), &with_token(), None),
            Verdict::Stranger
        );
        assert_eq!(
            judge(
                &head("GET", &[("host", "x.example")]),
                &with_token(),
                Some(&named("any"))
            ),
            Verdict::Operator
        );
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let fields = [("host", "127.0.0.1"), ("origin", "http://127.0.0.1")];

        assert!(matches!(
            judge(&head("POST", &fields), &open(), None),
            Verdict::Foreign(_)
        ));
        assert!(matches!(
            judge(&head("POST", &fields), &open(), Some(&named("any"))),
            Verdict::Foreign(_)
        ));
    }

    #[test]
    fn where_certificates_are_named_no_other_one_makes_an_operator_nor_does_none() {
        let named_alone = Config {
            certificates: vec!["Ops.example".to_owned(), "CN=ada, O=Plant".to_owned()],
            ..open()
        };
        let and_token = Config {
            token: with_token().token,
            ..named_alone.clone()
        };
        let asked = |config: &Config, peer: Option<&Peer>| judge(&head("GET", &[("host", "127.0.0.1")]), config, peer);
        let ada = Peer::new([], [("CN".to_owned(), "ada"), ("O".to_owned(), "Plant")]);

        for config in [&named_alone, &and_token] {
            assert_eq!(asked(config, Some(&named("ops.example"))), Verdict::Operator);
            assert_eq!(asked(config, Some(&ada)), Verdict::Operator);
            assert_eq!(asked(config, Some(&named("line-1.example"))), Verdict::Stranger);
            assert_eq!(asked(config, None), Verdict::Stranger);
        }
    }
}
