//! Content is shared by digest, permission is per repository; and what an upstream is never asked for.

use crate::support::client::{Request, blob, manifest};
use crate::support::content::random;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Upstream};

#[tokio::test]
async fn what_is_not_allowed_or_denied_is_404_without_a_request() {
    let (parent, quay) = (Upstream::start().await, Upstream::start().await);
    for name in ["plant/app", "plant/secret", "office/app", "plant/deep/app"] {
        parent.new_image(name, "v1", &[10]);
        quay.new_image(name, "v1", &[10]);
    }
    let url = format!("url = \"{}\"", quay.url());
    let node = Setup::below(&parent.url())
        .parent("allow = [\"plant/*\"]")
        .parent("deny = [\"*/secret\"]")
        .upstream("quay.io", &[&url, "deny = [\"plant/**\"]"])
        .start()
        .await;
    let expected = [
        ("plant/app", 200),
        ("plant/secret", 404),
        ("office/app", 404),
        ("plant/deep/app", 404),
        ("quay.io/plant/app", 404),
        ("quay.io/plant/deep/app", 404),
        ("quay.io/office/app", 200),
    ];

    for (name, status) in expected {
        for target in [manifest(name, "v1"), format!("/v2/{name}/tags/list")] {
            let reply = node.get(&target).await;
            assert_eq!(reply.status, status, "{target}: {reply}");
        }
    }

    for seen in parent.seen("", "").iter().filter(|seen| seen.path != "/v2/") {
        assert!(seen.path.starts_with("/v2/plant/app/"), "{seen:?}");
    }
    for seen in quay.seen("", "").iter().filter(|seen| seen.path != "/v2/") {
        assert!(seen.path.starts_with("/v2/office/app/"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_blob_that_another_repository_brought_is_served_after_one_head_and_no_transfer() {
    let parent = Upstream::start().await;
    let bytes = random(100_000);
    let digest = parent.blob("first", &bytes);
    parent.blob("second", &bytes);
    let node = Node::below(&parent).await;
    node.get(&blob("first", &digest)).await.assert_is(&bytes);

    for _ in 0..3 {
        node.get(&blob("second", &digest)).await.assert_is(&bytes);
    }

    assert_eq!(parent.count("GET", "/v2/second/blobs/"), 0);
    assert_eq!(parent.count("HEAD", "/v2/second/blobs/"), 1);
    assert_eq!(parent.body_bytes("/blobs/"), 100_000);
}

#[tokio::test]
async fn possession_of_a_digest_gives_no_access_through_another_repository() {
    let parent = Upstream::start().await;
    let secret = parent.new_image("secret", "v1", &[1000]);
    parent.new_image("public", "v1", &[10]);
    let node = Node::below(&parent).await;
    node.get(&manifest("secret", "v1"))
        .await
        .assert_is(&secret.manifest.bytes);
    node.get(&blob("secret", &secret.layer(0)))
        .await
        .assert_is(&secret.layers[0]);

    for target in [
        blob("public", &secret.layer(0)),
        manifest("public", &secret.manifest.digest),
    ] {
        for request in [
            Request::get(&target),
            Request::head(&target),
            Request::get(&target).range("0-9"),
        ] {
            let reply = node.send(request.clone()).await;
            assert_eq!(reply.status, 404, "{request:?}: {reply}");
        }
    }
    parent.fault(Fault::any("/v2/public/").status(403));
    let reply = node.get(&blob("public", &secret.layer(0))).await;
    assert!(matches!(reply.status, 403 | 404), "{reply}");
}

#[tokio::test]
async fn a_blob_that_nobody_can_vouch_for_is_503_while_the_parent_is_away() {
    let mut parent = Upstream::start().await;
    let bytes = random(1000);
    let digest = parent.blob("first", &bytes);
    parent.blob("second", &bytes);
    let node = Node::below(&parent).await;
    node.get(&blob("first", &digest)).await.assert_is(&bytes);
    parent.stop().await;

    let reply = node.get(&blob("second", &digest)).await;

    reply.assert_error(503, "UNAVAILABLE");
    assert!(reply.has("retry-after"), "{reply}");
    node.get(&blob("first", &digest)).await.assert_is(&bytes);
}
