//! Parents that fail, lie, stall and break off.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;

use super::server::{Reply, Server, cut, reply};
use super::*;

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_after_its_bytes() {
    let up = Server::start(|_| cut(&[], 100, CONTENT)).await;

    let mut answer = blob().ask(&parent(&up.url())).await.unwrap();
    let mut received = 0;
    let error = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => received += chunk.len(),
            Ok(None) => panic!("the body is not whole"),
            Err(error) => break error,
        }
    };

    assert_eq!(answer.head.length, Some(100));
    assert_eq!(received, CONTENT.len());
    assert!(matches!(error, Error::Cut { .. }), "{error}");
}

#[tokio::test]
async fn a_body_longer_than_the_reader_wants_is_given_up() {
    let endless = "ffff\r\n".to_owned() + &"x".repeat(0xffff) + "\r\n";
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        endless.repeat(3)
    );
    let up = Server::start(move |asked| match asked.header("range") {
        "" => reply(200, &[], CONTENT),
        _ => Reply::Whole(chunked.clone()),
    })
    .await;
    let parent = parent(&up.url());
    let mut unannounced = blob();
    unannounced.range = Some((0, None));

    for question in [blob(), unannounced] {
        let error = question.ask(&parent).await.unwrap().bytes(10).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit_bytes: 10, .. }), "{error}");
    }
}

#[tokio::test]
async fn an_encoded_answer_is_refused() {
    let up = Server::start(|_| reply(200, &[("Content-Encoding", "gzip")], "\u{1f}")).await;

    let error = blob().ask(&parent(&up.url())).await.unwrap_err();

    assert!(matches!(error, Error::Garbled { .. }), "{error}");
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    let up = Server::start(|_| reply(206, &[("Content-Range", "bytes 0-20/21")], CONTENT)).await;
    let parent = parent(&up.url());
    let mut elsewhere = blob();
    elsewhere.range = Some((5, None));

    for question in [blob(), elsewhere] {
        let error = question.ask(&parent).await.unwrap_err();
        assert!(matches!(error, Error::Garbled { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_web_page_is_no_manifest() {
    let up = Server::start(|_| reply(200, &[("Content-Type", "text/html; charset=utf-8")], "<html>")).await;
    let repository = blob().repository;
    let reference = "latest".parse().unwrap();

    let ask = Ask {
        class: Class::Interactive,
        head: false,
        repository: &repository,
        what: What::Manifest(&reference),
        known: None,
        range: None,
        hops: &Hops::default(),
        budget: Duration::from_secs(10),
        patience: Duration::from_secs(10),
        is_spare: false,
        place: None,
        paid: 0,
    };
    let error = parent(&up.url()).ask(ask).await.unwrap_err();

    assert!(matches!(error, Error::Garbled { .. }), "{error}");
}

#[tokio::test]
async fn silence_ends_with_the_budget() {
    let up = Server::start(|_| Reply::Silence).await;
    let parent = parent(&up.url());
    let mut question = blob();
    question.budget = Duration::from_millis(50);

    let error = question.ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(!parent.up());
}

#[tokio::test]
async fn a_refused_connection_is_told_and_remembered_until_the_next_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let parent = parent(&format!("http://{address}"));

    let error = blob().ask(&parent).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.layer(), address.to_string());
    assert!(!parent.up());

    let _up = Server::start_at(&address.to_string(), |_| reply(503, &[], "")).await;
    blob().ask(&parent).await.unwrap_err();
    assert!(parent.up());
}

#[tokio::test]
async fn a_connection_that_died_idle_is_replaced_unnoticed() {
    let up = Server::start(|asked| match asked.line.as_str() {
        "GET /v2/" => Reply::Cut("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_owned()),
        _ => reply(200, &[], CONTENT),
    })
    .await;
    let parent = parent(&up.url());

    for _ in 0..20 {
        parent.ping().await.unwrap();
        assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    }
}

#[tokio::test]
async fn an_answer_lost_once_is_asked_for_again_and_lost_twice_is_an_error() {
    let lost = AtomicBool::new(false);
    let up = Server::start(move |asked| {
        let is_once = asked.header("range").is_empty();
        match is_once && lost.swap(true, Ordering::SeqCst) {
            true => reply(200, &[], CONTENT),
            false => Reply::Cut(String::new()),
        }
    })
    .await;
    let parent = parent(&up.url());
    let mut always = blob();
    always.range = Some((0, None));

    assert_eq!(blob().content(&parent).await.unwrap(), CONTENT);
    let error = always.ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // An idle connection that died is replaced at once; what breaks again is asked for once more after a pause.
    assert_eq!(up.asked().len(), 2 + 4);
}

#[tokio::test]
async fn a_wharf_parent_names_the_layer_that_failed() {
    let body = r#"{"errors":[{"code":"UNAVAILABLE","message":"gone","detail":{"layer":"l6"}}]}"#;
    let up = Server::start(move |asked| match asked.line.as_str() {
        "GET /v2/" => reply(200, &[("Wharf", "0.1.0")], ""),
        _ => reply(502, &[("Retry-After", "3")], body),
    })
    .await;
    let parent = parent(&up.url());
    parent.ping().await.unwrap();

    let error = blob().ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::Failed { status: 502, .. }), "{error}");
    assert_eq!(error.layer(), "l6");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
}
