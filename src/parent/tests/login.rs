//! Tokens and passwords: who sees which, and how often they are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::server::{Asked, Reply, Server, reply};
use super::*;

/// A registry with a token service of its own, which lets in whoever shows `accepted`.
fn guarded(asked: &Asked, accepted: &str) -> Reply {
    if asked.line.starts_with("GET /token") {
        return reply(200, &[], r#"{"token":"good","expires_in":300}"#);
    }
    if asked.header("authorization") == accepted {
        return reply(200, &[], CONTENT);
    }
    let challenge = r#"Bearer realm="/token",service="s",scope="repository:a/b:pull""#;
    reply(401, &[("WWW-Authenticate", challenge)], "{}")
}

fn with_password(url: &str) -> Config {
    let mut config = Config::at(url).unwrap();
    config.login = Some(Login {
        username: "l4".to_owned(),
        password: "canary".to_owned().into(),
    });
    config
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("l4:canary"))
}

#[tokio::test]
async fn twenty_parallel_asks_cause_one_token_request() {
    let up = Server::start(|asked| guarded(asked, "Bearer good")).await;
    let parent = parent(&up.url());
    let question = blob();

    let all = (0..20).map(|_| question.content(&parent));
    let all = futures_util::future::join_all(all).await;

    assert!(
        all.iter()
            .all(|content| content.as_ref().is_ok_and(|text| text == CONTENT))
    );
    assert_eq!(up.count("GET /token"), 1);
    assert_eq!(up.count("GET /token?service=s&scope=repository%3Aa%2Fb%3Apull"), 1);
}

#[tokio::test]
async fn a_token_is_shown_at_once_to_who_wanted_it_before() {
    let up = Server::start(|asked| guarded(asked, "Bearer good")).await;
    let parent = parent(&up.url());

    blob().content(&parent).await.unwrap();
    let before = up.asked().len();
    blob().content(&parent).await.unwrap();

    assert_eq!(up.asked().len(), before + 1);
}

#[tokio::test]
async fn the_password_is_seen_by_the_token_service_alone() {
    let up = Server::start(|asked| guarded(asked, "Bearer good")).await;
    let parent = parent_of(with_password(&up.url()));

    blob().content(&parent).await.unwrap();

    for asked in up.asked() {
        let shown = asked.header("authorization");
        assert_eq!(asked.line.starts_with("GET /token"), shown == basic(), "{asked:?}");
    }
}

#[tokio::test]
async fn a_revoked_token_costs_one_renewal_and_one_retry() {
    let up = Server::start(|asked| {
        static ISSUED: AtomicUsize = AtomicUsize::new(0);
        if asked.line.starts_with("GET /token") {
            let serial = ISSUED.fetch_add(1, Ordering::SeqCst) + 1;
            return reply(200, &[], &format!(r#"{{"token":"t{serial}"}}"#));
        }
        // Only what was issued last is accepted, and each is revoked after its first use.
        guarded(asked, &format!("Bearer t{}", ISSUED.load(Ordering::SeqCst)))
    })
    .await;
    let parent = parent(&up.url());
    blob().content(&parent).await.unwrap();
    assert_eq!(up.asked().len(), 3);

    // Someone else's token takes the place of ours.
    let other = super::parent(&up.url());
    blob().content(&other).await.unwrap();
    let before = up.asked().len();
    blob().content(&parent).await.unwrap();

    // Refused, renewed, accepted.
    assert_eq!(up.asked().len(), before + 3);
}

#[tokio::test]
async fn a_token_that_is_always_refused_ends_after_two_fetches() {
    let up = Server::start(|asked| guarded(asked, "nothing will do")).await;
    let parent = parent(&up.url());

    for _ in 0..2 {
        let before = up.count("GET /token");
        let error = blob().ask(&parent).await.unwrap_err();

        assert!(
            matches!(
                error,
                Error::Denied {
                    status: 401,
                    anonymous: true,
                    ..
                }
            ),
            "{error}"
        );
        assert!(up.count("GET /token") - before <= 2);
    }
}

#[tokio::test]
async fn a_refused_password_is_told_apart_from_an_anonymous_refusal() {
    let up = Server::start(|asked| guarded(asked, "nothing will do")).await;
    let parent = parent_of(with_password(&up.url()));

    let error = blob().ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Denied { anonymous: false, .. }), "{error}");
    assert!(!format!("{error} {error:?} {parent:?}").contains("canary"));
}

#[tokio::test]
async fn a_realm_elsewhere_is_refused_without_a_connection() {
    let evil = Server::start(|_| reply(200, &[], r#"{"token":"evil"}"#)).await;
    let realm = format!("{}/token", evil.url());
    let up = Server::start(move |_| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        reply(401, &[("WWW-Authenticate", &challenge)], "")
    })
    .await;
    let parent = parent_of(with_password(&up.url()));

    let error = blob().ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("auth_hosts"), "{error}");
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn a_listed_token_service_is_asked() {
    let auth = Server::start_at("127.0.0.2:0", |_| reply(200, &[], r#"{"token":"good"}"#)).await;
    let realm = format!("{}/token", auth.url());
    let up = Server::start(move |asked| {
        if asked.header("authorization") == "Bearer good" {
            return reply(200, &[], CONTENT);
        }
        let challenge = format!("Bearer realm=\"{realm}\"");
        reply(401, &[("WWW-Authenticate", &challenge)], "")
    })
    .await;
    let parent = parent_of(config(&format!(
        "url = \"{}\"\nauth_hosts = [\"{}\"]",
        up.url(),
        auth.address
    )));

    assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    assert_eq!(auth.count("GET /token?scope=repository%3Aa%2Fb%3Apull"), 1);
}

#[tokio::test]
async fn a_token_service_that_redirects_away_is_not_followed() {
    let evil = Server::start(|_| reply(200, &[], r#"{"token":"evil"}"#)).await;
    let away = evil.url();
    let up = Server::start(move |asked| match asked.line.starts_with("GET /token") {
        true => reply(307, &[("Location", &away)], ""),
        false => guarded(asked, "Bearer good"),
    })
    .await;
    let parent = parent_of(with_password(&up.url()));

    let error = blob().ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn the_password_is_not_shown_before_it_is_asked_for_and_then_from_the_start() {
    let up = Server::start(|asked| {
        if asked.header("authorization") == basic() {
            return reply(200, &[], CONTENT);
        }
        reply(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], "")
    })
    .await;
    let parent = parent_of(with_password(&up.url()));

    blob().content(&parent).await.unwrap();
    blob_of("", "other").content(&parent).await.unwrap();

    let shown: Vec<bool> = up
        .asked()
        .iter()
        .map(|asked| !asked.header("authorization").is_empty())
        .collect();
    assert_eq!(shown, [false, true, true]);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let up = Server::start(|_| reply(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], "")).await;
    let parent = parent_of(with_password(&up.url()));

    let error = blob().ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Denied { anonymous: false, .. }), "{error}");
    assert_eq!(up.asked().len(), 2);
}

#[tokio::test]
async fn a_challenge_that_only_the_ping_tells_is_found() {
    let up = Server::start(|asked| {
        let reply = guarded(asked, "Bearer good");
        match asked.line.as_str() {
            "GET /v2/" => reply,
            line if line.starts_with("GET /token") => reply,
            _ if asked.header("authorization").is_empty() => super::server::reply(401, &[], ""),
            _ => reply,
        }
    })
    .await;

    assert_eq!(blob().content(&parent(&up.url())).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn a_token_service_that_limits_passes_its_limit_on() {
    let up = Server::start(|asked| match asked.line.starts_with("GET /token") {
        true => reply(429, &[("Retry-After", "7")], ""),
        false => guarded(asked, "Bearer good"),
    })
    .await;

    let error = blob().ask(&parent(&up.url())).await.unwrap_err();

    assert!(matches!(error, Error::TooMany { .. }), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}
