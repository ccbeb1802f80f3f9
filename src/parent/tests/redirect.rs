//! Where answers send us.

use super::server::{Server, head, reply};
use super::*;

#[tokio::test]
async fn on_the_way_to_another_host_the_authorization_stays_behind_and_the_range_comes_along() {
    let cdn = Server::start_at("127.0.0.2:0", |_| {
        reply(206, &[("Content-Range", "bytes 4-10/21")], "content")
    })
    .await;
    let signed = format!("{}/blob?signature=canary", cdn.url());
    let up = Server::start(move |asked| match asked.header("authorization") {
        "" => reply(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], ""),
        _ => reply(307, &[("Location", &signed)], ""),
    })
    .await;
    let parent = parent_of(config(&format!(
        "url = \"{}\"\nusername = \"u\"\npassword_env = \"PATH\"",
        up.url()
    )));
    let mut question = blob();
    question.range = Some((4, Some(10)));

    let answer = question.ask(&parent).await.unwrap();

    assert_eq!(answer.status, 206);
    let asked = &cdn.asked()[0];
    assert_eq!(asked.line, "GET /blob?signature=canary");
    assert_eq!(asked.header("authorization"), "");
    assert_eq!(asked.header("range"), "bytes=4-10");
    assert_eq!(asked.header("accept-encoding"), "identity");
}

#[tokio::test]
async fn another_port_is_another_host() {
    let cdn = Server::start(|_| reply(200, &[], CONTENT)).await;
    let away = cdn.url();
    let up = Server::start(move |asked| match asked.header("authorization") {
        "" => reply(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], ""),
        _ => reply(302, &[("Location", &away)], ""),
    })
    .await;
    let parent = parent_of(config(&format!(
        "url = \"{}\"\nusername = \"u\"\npassword_env = \"PATH\"",
        up.url()
    )));

    assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    assert_eq!(cdn.asked()[0].header("authorization"), "");
}

#[tokio::test]
async fn authorization_does_not_come_back_after_a_detour() {
    let up = Server::start(|asked| match (asked.line.as_str(), asked.header("authorization")) {
        ("GET /back", _) => reply(200, &[], CONTENT),
        (_, "") => reply(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], ""),
        (_, _) => {
            let host = asked.header("host").replace("127.0.0.1", "127.0.0.2");
            reply(307, &[("Location", &format!("http://{host}/detour"))], "")
        }
    });
    let up = up.await;
    let back = format!("{}/back", up.url());
    let _detour = Server::start_at(&format!("127.0.0.2:{}", up.address.port()), move |_| {
        reply(307, &[("Location", &back)], "")
    })
    .await;
    let parent = parent_of(config(&format!(
        "url = \"{}\"\nusername = \"u\"\npassword_env = \"PATH\"",
        up.url()
    )));

    assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    let last = up.asked().last().unwrap().clone();
    assert_eq!((last.line.as_str(), last.header("authorization")), ("GET /back", ""));
}

#[tokio::test]
async fn five_redirects_are_followed_and_the_sixth_is_not() {
    let up = Server::start(|asked| {
        let at: usize = asked
            .line
            .rsplit_once("/hop")
            .map_or(0, |(_, digits)| digits.parse().unwrap());
        match at {
            5 if asked.header("range").is_empty() => reply(200, &[], CONTENT),
            _ => reply(307, &[("Location", &format!("/hop{}", at + 1))], ""),
        }
    })
    .await;
    let parent = parent(&up.url());
    let mut endless = blob();
    endless.range = Some((0, None));

    assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    let error = endless.ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert_eq!(up.asked().len(), 6 + 6);
}

#[tokio::test]
async fn the_way_to_a_metadata_service_is_refused() {
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "ftp://127.0.0.1/",
    ] {
        let up = Server::start(move |_| reply(307, &[("Location", target)], "")).await;

        let error = blob().ask(&parent(&up.url())).await.unwrap_err();

        assert!(matches!(error, Error::Untrusted { .. }), "{target}: {error}");
    }
}

#[tokio::test]
async fn a_signature_that_has_run_out_is_asked_for_again_once() {
    let cdn = Server::start_at("127.0.0.2:0", |asked| match asked.line.as_str() {
        "GET /new" => reply(200, &[], CONTENT),
        _ => reply(403, &[], "<Error>expired</Error>"),
    })
    .await;
    let away = cdn.url();
    let asked_before = std::sync::atomic::AtomicBool::new(false);
    let up = Server::start(move |_| {
        let path = match asked_before.swap(true, std::sync::atomic::Ordering::SeqCst) {
            true => "new",
            false => "old",
        };
        reply(307, &[("Location", &format!("{away}/{path}"))], "")
    })
    .await;

    assert_eq!(blob().content(&parent(&up.url())).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn storage_that_refuses_for_good_is_the_upstreams_failure_and_no_denial() {
    let cdn = Server::start_at("127.0.0.2:0", |_| reply(403, &[], "")).await;
    let away = format!("{}/blob?signature=canary", cdn.url());
    let up = Server::start(move |_| reply(307, &[("Location", &away)], "")).await;

    let error = blob().ask(&parent(&up.url())).await.unwrap_err();

    assert!(matches!(error, Error::Failed { status: 403, .. }), "{error}");
    assert!(!format!("{error:?}").contains("canary"));
    assert_eq!(cdn.asked().len(), 2);
}

#[tokio::test]
async fn a_head_that_the_storage_refuses_becomes_a_get_of_one_byte() {
    let cdn = Server::start_at("127.0.0.2:0", |asked| match asked.header("range") {
        "bytes=0-0" => reply(206, &[("Content-Range", "bytes 0-0/21")], "t"),
        _ => head(403, &[], 0),
    })
    .await;
    let away = cdn.url();
    let up = Server::start(move |_| reply(307, &[("Location", &away)], "")).await;
    let mut question = blob();
    question.head = true;

    let mut answer = question.ask(&parent(&up.url())).await.unwrap();

    assert_eq!((answer.status, answer.head.length), (200, Some(21)));
    assert_eq!(answer.head.content_range, None);
    assert!(answer.chunk().await.unwrap().is_none());
}
