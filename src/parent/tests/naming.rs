//! What a parent is told of names: a wharf node the registry, any other nothing.

use super::server::{Asked, Reply, Server, reply};
use super::*;

fn wharf(_: &Asked) -> Reply {
    reply(200, &[("Wharf", "0.1.0")], CONTENT)
}

fn foreign(_: &Asked) -> Reply {
    reply(200, &[], CONTENT)
}

#[tokio::test]
async fn a_wharf_parent_is_told_which_registry_is_meant() {
    let up = Server::start(wharf).await;
    let parent = parent(&up.url());

    blob_of("quay.io", "a/b").content(&parent).await.unwrap();
    blob_of("docker.io", "alpine").content(&parent).await.unwrap();
    blob().content(&parent).await.unwrap();

    let digest = Digest::of(CONTENT.as_bytes());
    let lines: Vec<String> = up.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "GET /v2/".to_owned(),
            format!("GET /v2/a/b/blobs/{digest}?ns=quay.io"),
            format!("GET /v2/library/alpine/blobs/{digest}?ns=docker.io"),
            format!("GET /v2/a/b/blobs/{digest}"),
        ]
    );
    assert!(parent.is_wharf());
}

#[tokio::test]
async fn a_foreign_parent_never_sees_a_registry_name() {
    let up = Server::start(foreign).await;
    let parent = parent_of(config(&format!("url = \"{}\"\nnamespace = \"docker.io\"", up.url())));

    blob_of("docker.io", "alpine").content(&parent).await.unwrap();
    let error = blob_of("quay.io", "a/b").ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::NeedsWharf { .. }), "{error}");
    assert!(
        error.to_string().contains("give [[upstream]] name = \"quay.io\" a url"),
        "{error}"
    );
    assert!(up.asked().iter().all(|asked| !asked.line.contains("ns=")));
    assert!(!parent.is_wharf());
}

#[tokio::test]
async fn an_upstream_of_its_own_is_asked_by_bare_names_and_not_what_it_is() {
    let up = Server::start(wharf).await;
    let quay: Registry = "quay.io".parse().unwrap();
    let config = Config::at(&up.url()).unwrap();
    let parent = Parent::new(config, quay, &node(), false, given(), Clock::system(), &metrics());

    blob_of("quay.io", "a/b").content(&parent).await.unwrap();

    assert_eq!(up.asked().len(), 1);
    assert!(!up.asked()[0].line.contains("ns="));
    assert_eq!(parent.name(), "quay.io");
}

#[tokio::test]
async fn many_first_asks_cause_one_ping() {
    let up = Server::start(wharf).await;
    let parent = parent(&up.url());
    let question = blob_of("quay.io", "a/b");

    let all = (0..20).map(|_| question.content(&parent));
    futures_util::future::join_all(all).await;

    assert_eq!(up.asked().iter().filter(|asked| asked.line == "GET /v2/").count(), 1);
}

#[tokio::test]
async fn what_comes_back_after_an_outage_is_asked_again_what_it_is() {
    let up = Server::start(wharf).await;
    let parent = parent(&up.url());
    blob_of("quay.io", "a/b").content(&parent).await.unwrap();

    let port = up.address.port();
    drop(up);
    // The connection that is kept dies with the server; it may take one more answer.
    while blob().content(&parent).await.is_ok() {}
    let up = Server::start_at(&format!("127.0.0.1:{port}"), foreign).await;
    let error = blob_of("quay.io", "a/b").ask(&parent).await.unwrap_err();

    assert!(matches!(error, Error::NeedsWharf { .. }), "{error}");
    assert_eq!(up.count("GET /v2/a/b"), 0);
}

#[tokio::test]
async fn what_is_not_admitted_is_absent_without_a_request() {
    let up = Server::start(foreign).await;
    let parent = parent_of(config(&format!("url = \"{}\"\ndeny = [\"denied/**\"]", up.url())));

    let error = blob_of("", "denied/image").ask(&parent).await.unwrap_err();

    assert!(error.is_absent(), "{error}");
    assert_eq!(up.connections(), 0);
}

#[tokio::test]
async fn a_request_says_who_carried_it_and_nothing_of_the_client() {
    let up = Server::start(foreign).await;
    let mut question = blob();
    question.hops = Hops::parse("1.1 l3-abcd");

    question.content(&parent(&up.url())).await.unwrap();

    let asked = &up.asked()[0];
    assert_eq!(asked.header("via"), "1.1 l3-abcd, 1.1 l4-0001");
    assert_eq!(asked.header("user-agent"), concat!("wharf/", env!("CARGO_PKG_VERSION")));
    assert_eq!(asked.header("accept-encoding"), "identity");
    assert_eq!(asked.header("authorization"), "");
}

#[tokio::test]
async fn a_request_that_has_been_here_before_goes_no_further() {
    let up = Server::start(foreign).await;
    let parent = parent(&up.url());
    let mut circle = blob();
    circle.hops = Hops::parse("1.1 l3-abcd").with(&node());
    let mut endless = blob();
    endless.hops = Hops::parse(&["1.1 x"; 17].join(", "));

    for question in [circle, endless] {
        let error = question.ask(&parent).await.unwrap_err();
        assert!(matches!(error, Error::Loop { .. }), "{error}");
    }
    assert_eq!(up.connections(), 0);
}

#[tokio::test]
async fn a_manifest_is_asked_for_in_every_form_there_is() {
    let up = Server::start(foreign).await;
    let repository = blob().repository;
    let reference = "latest".parse().unwrap();

    let ask = Ask {
        class: Class::Interactive,
        head: true,
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
    parent(&up.url()).ask(ask).await.unwrap();

    let asked = &up.asked()[0];
    assert_eq!(asked.line, "HEAD /v2/a/b/manifests/latest");
    assert_eq!(asked.header("accept"), crate::oci::media::ACCEPT);
}
