//! What a mirror does not do, and how it says so: every error in the form of the specification.

use std::time::Duration;

use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::content::{OCI_MANIFEST, random, sha256};
use crate::support::node::Node;
use crate::support::upstream::{Fault, Upstream};

/// A node below a parent that has one image, `a:v1`.
async fn stage() -> (Upstream, Node) {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[1000]);
    let node = Node::below(&parent).await;
    (parent, node)
}

/// Fails unless the reply is an error of the specification with one of these codes.
#[track_caller]
fn assert_refused(reply: &Reply, what: &str, codes: &[&str]) {
    assert!(matches!(reply.status, 400 | 404), "{what}: {reply}");
    let code = reply.json()["errors"][0]["code"].as_str().unwrap_or("").to_owned();
    assert!(codes.contains(&code.as_str()), "{what}: {reply}");
    assert!(
        reply.json()["errors"][0]["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{what}: {reply}"
    );
    assert!(
        reply.header("content-type").starts_with("application/json"),
        "{what}: {reply}"
    );
    assert!(reply.complete, "{what}: {reply}");
}

#[tokio::test]
async fn every_write_is_405_unsupported_and_stores_nothing() {
    let (parent, node) = stage().await;
    let content = random(500);
    let digest = sha256(&content);
    let session = "/v2/a/blobs/uploads/11111111-2222-3333-4444-555555555555";
    let writes = [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=b")),
        ("PATCH", session.to_owned()),
        ("PUT", format!("{session}?digest={digest}")),
        ("DELETE", session.to_owned()),
        ("PUT", manifest("a", "v2")),
        ("PUT", manifest("a", &digest)),
        ("DELETE", manifest("a", "v1")),
        ("DELETE", manifest("a", &digest)),
        ("DELETE", blob("a", &digest)),
        ("POST", manifest("a", "v1")),
        ("PATCH", manifest("a", "v1")),
        ("PUT", blob("a", &digest)),
    ];
    node.get(&manifest("a", "v1")).await;
    let (files, asked) = (node.files().len(), parent.asked());

    for (method, target) in writes {
        let request = Request::new(method, &target)
            .header("Content-Type", OCI_MANIFEST)
            .body(&content);
        let reply = node.send(request).await;

        reply.assert_error(405, "UNSUPPORTED");
        assert!(reply.has("allow"), "{method} {target}: {reply}");
        assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
    }

    assert_eq!(parent.asked(), asked);
    assert_eq!(node.files().len(), files);
    assert!(!node.has_stored(&digest));
    assert_ne!(node.get(&blob("a", &digest)).await.status, 200);
}

#[tokio::test]
async fn the_allow_of_a_refused_write_names_what_is_possible() {
    let (_parent, node) = stage().await;

    let reply = node.send(Request::new("PUT", &manifest("a", "v1"))).await;

    let allowed: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
    assert!(
        allowed.contains(&"GET") && allowed.contains(&"HEAD") && !allowed.contains(&"PUT"),
        "{reply}"
    );
}

#[tokio::test]
async fn a_large_refused_body_does_not_become_the_next_request() {
    let (_parent, node) = stage().await;
    let smuggled = format!(
        "GET /v2/smuggled/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let mut connection = node.client().connect().await;

    let head = format!(
        "PUT /v2/a/manifests/v2 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        smuggled.len()
    );
    // The node may answer and close before it has read all of it.
    let _ = connection.write((head + &smuggled).as_bytes()).await;
    let (first, kept) = connection.open(Request::get("/v2/")).await.rest().await;

    assert_eq!(first.status, 405, "{first}");
    drop(kept);
    assert!(!node.log().contains("smuggled"));
}

#[tokio::test]
async fn methods_that_nobody_knows_are_405_and_options_is_harmless() {
    let (parent, node) = stage().await;
    let asked = parent.asked();

    for method in ["TRACE", "PROPFIND"] {
        for target in [manifest("a", "v1"), "/v2/a/tags/list".to_owned(), "/v2/".to_owned()] {
            let reply = node.send(Request::new(method, &target)).await;
            reply.assert_error(405, "UNSUPPORTED");
            assert!(reply.has("allow"), "{reply}");
        }
    }
    let options = node.send(Request::new("OPTIONS", &manifest("a", "v1"))).await;

    assert!(matches!(options.status, 200 | 204 | 405), "{options}");
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn what_the_parent_does_not_have_is_404_with_the_code_of_its_kind() {
    let (_parent, node) = stage().await;
    let nowhere = sha256(&random(10));

    node.get(&manifest("a", "absent"))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    node.get(&manifest("a", &nowhere))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    node.get(&blob("a", &nowhere)).await.assert_error(404, "BLOB_UNKNOWN");
    let unknown = node.get(&manifest("unknown/repository", "v1")).await;
    assert_refused(&unknown, "unknown repository", &["MANIFEST_UNKNOWN", "NAME_UNKNOWN"]);
    for target in [manifest("a", "absent"), manifest("a", &nowhere), blob("a", &nowhere)] {
        let head = node.head(&target).await;
        assert_eq!((head.status, head.body.len()), (404, 0), "{head}");
    }
}

#[tokio::test]
async fn digests_that_are_none_are_refused_without_asking() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let hex = "0123456789abcdef".repeat(4);
    let digests = [
        "sha256:abc".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}0"),
        format!("sha256:{}", &hex[1..]),
        format!("sha512:{hex}"),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("blake9:{hex}"),
        format!("sha256%3A{hex}"),
        "sha256:../../../../../../etc/passwd".to_owned(),
        format!("sha256:{}zz", &hex[2..]),
        ":".to_owned(),
        "sha256:".to_owned(),
    ];

    for digest in digests {
        let by_blob = node.get(&blob("a", &digest)).await;
        assert_refused(&by_blob, &digest, &["DIGEST_INVALID", "NAME_INVALID", "NAME_UNKNOWN"]);
        if !digest.contains('%') {
            let codes = ["DIGEST_INVALID", "NAME_INVALID", "NAME_UNKNOWN", "TAG_INVALID"];
            assert_refused(&node.get(&manifest("a", &digest)).await, &digest, &codes);
        }
    }
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn names_and_tags_outside_the_grammar_are_refused_without_asking() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let names = [
        "Upper/case".to_owned(),
        "a//b".to_owned(),
        "../../etc".to_owned(),
        "a/../b".to_owned(),
        "./a".to_owned(),
        "-a".to_owned(),
        "a-".to_owned(),
        "a..b".to_owned(),
        "a%2Fb".to_owned(),
        "a:b/c".to_owned(),
        "a___b".to_owned(),
        "x".repeat(256),
        "a\u{e9}".to_owned(),
    ];
    let tags = [
        ".hidden".to_owned(),
        "-v".to_owned(),
        "a b".replace(' ', "%20"),
        "x".repeat(129),
        "v1~".to_owned(),
    ];
    let codes = ["NAME_INVALID", "NAME_UNKNOWN", "TAG_INVALID"];

    for name in names {
        for target in [manifest(&name, "v1"), format!("/v2/{name}/tags/list")] {
            assert_refused(&node.get(&target).await, &target, &codes);
        }
    }
    for tag in tags {
        assert_refused(&node.get(&manifest("a", &tag)).await, &tag, &codes);
    }
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn paths_that_are_no_api_are_404_in_the_form_of_the_specification() {
    let (parent, node) = stage().await;
    let asked = parent.asked();

    for target in [
        "/",
        "/v1/_ping",
        "/v2/a",
        "/v2/a/manifests",
        "/v2/a/manifests/",
        "/v2/a/blobs/",
        "/v3/",
        "/v2/a/x/y",
        "/v2/manifests/v1",
        "/v2/_wharf/nothing",
        "/..%2f..%2fetc/passwd",
        "/%2F%2F%2Fetc/passwd",
        "/metrics",
    ] {
        let reply = node.get(target).await;
        assert!(matches!(reply.status, 400 | 404), "{target}: {reply}");
        assert!(reply.json()["errors"][0]["code"].is_string(), "{target}: {reply}");
        assert!(
            reply.header("content-type").starts_with("application/json"),
            "{target}: {reply}"
        );
    }
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_left_and_the_node_goes_on() {
    let (_parent, node) = stage().await;
    let long = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(2000));
    let requests: [&[u8]; 8] = [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT parent:443 HTTP/1.1\r\nHost: parent:443\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];

    for request in requests {
        let mut connection = node.client().connect().await;
        // The node may close before it has read all.
        let _ = connection.write(request).await;
        drop(connection);
        assert_eq!(
            node.get("/v2/").await.status,
            200,
            "after {:?}",
            String::from_utf8_lossy(&request[..20])
        );
    }
}

#[tokio::test]
async fn a_failing_parent_is_an_error_of_the_gateway_that_names_who_failed() {
    let (parent, node) = stage().await;

    for status in [500, 502, 503, 504] {
        parent.without_faults();
        parent.fault(Fault::any("/v2/a/").status(status));
        for target in [
            manifest("a", "v1"),
            blob("a", &sha256(&random(10))),
            "/v2/a/tags/list".to_owned(),
        ] {
            let reply = node.get(&target).await;

            assert!(matches!(reply.status, 502..=504), "{status}: {reply}");
            assert!(reply.status != 504 || status == 504, "{status}: {reply}");
            reply.assert_error(reply.status, "UNAVAILABLE");
            assert!(reply.json()["errors"][0]["detail"]["layer"].is_string(), "{reply}");
            assert!(reply.has("retry-after"), "{status}: {reply}");
        }
    }
}

#[tokio::test]
async fn what_is_not_here_is_an_error_of_the_gateway_while_the_parent_is_away() {
    let (mut parent, node) = stage().await;
    parent.stop().await;

    for target in [
        manifest("a", "v1"),
        manifest("a", &sha256(b"x")),
        blob("a", &sha256(b"y")),
    ] {
        let reply = node.get(&target).await;

        assert!(matches!(reply.status, 502..=504), "{reply}");
        reply.assert_error(reply.status, "UNAVAILABLE");
        assert!(reply.json()["errors"][0]["detail"]["layer"].is_string(), "{reply}");
        assert!(reply.head_after < Duration::from_secs(15), "{:?}", reply.head_after);
    }
}

#[tokio::test]
async fn a_parent_that_wants_rest_is_passed_on_with_its_wish() {
    let (parent, node) = stage().await;
    parent.fault(Fault::any("/v2/a/").status(429).header("Retry-After", "7"));

    let reply = node.get(&manifest("a", "v1")).await;

    assert!(matches!(reply.status, 429 | 503), "{reply}");
    let wait: u64 = reply.header("retry-after").parse().expect("Retry-After in seconds");
    assert!((1..=60).contains(&wait), "{reply}");
    let code = if reply.status == 429 {
        "TOOMANYREQUESTS"
    } else {
        "UNAVAILABLE"
    };
    reply.assert_error(reply.status, code);
}
