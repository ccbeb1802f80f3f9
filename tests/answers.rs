//! What an answer looks like: types, lengths, digests, conditions; and what the parent is asked for it.

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{
    DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, index, random, sha256, sha512,
};
use crate::support::node::Node;
use crate::support::upstream::{Fault, Upstream};

const API: &str = "docker-distribution-api-version";

#[tokio::test]
async fn the_ping_is_json_and_names_the_api_for_get_and_head() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;

    let get = node.get("/v2/").await;
    let head = node.head("/v2/").await;

    assert_eq!((get.status, head.status), (200, 200));
    assert!(get.json().is_object(), "{get}");
    assert!(head.body.is_empty());
    for reply in [get, head] {
        assert_eq!(reply.header(API), "registry/2.0", "{reply}");
        assert!(reply.header("content-type").starts_with("application/json"), "{reply}");
        assert!(
            reply.has("wharf"),
            "a child must know that its parent is wharf: {reply}"
        );
        assert!(!reply.has("www-authenticate"), "{reply}");
    }
}

#[tokio::test]
async fn the_ping_without_its_slash_is_not_lost() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;

    let reply = node.get("/v2").await;

    match reply.status {
        301 | 308 => assert!(reply.header("location").ends_with("/v2/"), "{reply}"),
        status => assert_eq!(status, 200, "{reply}"),
    }
}

#[tokio::test]
async fn manifests_of_every_media_type_arrive_byte_for_byte() {
    let parent = Upstream::start().await;
    let image = Image::of(&[10]);
    let docker = Image::docker(&[10]);
    let mut list = index(&[&docker]);
    list.media_type = DOCKER_LIST.to_owned();
    let manifests = [
        (OCI_MANIFEST, &image.manifest),
        (DOCKER_MANIFEST, &docker.manifest),
        (OCI_INDEX, &index(&[&image, &docker])),
        (DOCKER_LIST, &list),
    ];
    let node = Node::below(&parent).await;

    for (at, (media_type, stored)) in manifests.into_iter().enumerate() {
        parent.manifest("types", Some(&format!("t{at}")), stored);
        for reference in [format!("t{at}"), stored.digest.clone()] {
            let reply = node.get(&manifest("types", &reference)).await;

            reply.assert_is(&stored.bytes);
            assert_eq!(reply.header("content-type"), media_type);
            assert_eq!(reply.header("docker-content-digest"), sha256(&reply.body));
            assert_eq!(reply.header("etag"), format!("\"{}\"", stored.digest));
            assert!(!reply.has("content-encoding"));
        }
    }
}

#[tokio::test]
async fn whatever_a_client_accepts_the_parent_is_asked_for_all_types() {
    let parent = Upstream::start().await;
    let list = index(&[&Image::of(&[10])]);
    parent.manifest("a", Some("v1"), &list);
    let node = Node::below(&parent).await;

    let narrow = Request::get(&manifest("a", "v1"))
        .header("Accept", "application/json")
        .header("Accept", "text/plain");
    let reply = node.send(narrow).await;

    reply.assert_is(&list.bytes);
    for seen in parent.seen("", "/manifests/") {
        let accept = seen.all("accept");
        for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] {
            assert!(accept.contains(media_type), "{accept}");
        }
    }
}

#[tokio::test]
async fn head_and_get_agree_in_every_header_cold_and_warm() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[5000]);
    let targets = [
        manifest("a", "v1"),
        manifest("a", &image.manifest.digest),
        blob("a", &image.layer(0)),
    ];

    for target in &targets {
        let fresh = Node::below(&parent).await;
        let cold_head = fresh.head(target).await;
        let cold_get = Node::below(&parent).await.get(target).await;
        let warm_get = fresh.get(target).await;
        let warm_head = fresh.head(target).await;

        assert!(cold_head.body.is_empty() && warm_head.body.is_empty());
        for (head, get) in [(&cold_head, &cold_get), (&warm_head, &warm_get)] {
            assert_eq!((head.status, get.status), (200, 200), "{target}");
            for name in [
                "content-type",
                "content-length",
                "docker-content-digest",
                "etag",
                "accept-ranges",
                API,
            ] {
                assert_eq!(head.header(name), get.header(name), "{name} of {target}");
            }
        }
    }
}

#[tokio::test]
async fn the_parent_is_asked_for_bytes_as_they_are_whatever_the_client_could_decode() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[5000]);
    let node = Node::below(&parent).await;
    let offered = |target: String| Request::get(&target).header("Accept-Encoding", "zstd, gzip;q=0.8");

    node.send(offered(manifest("a", "v1")))
        .await
        .assert_is(&image.manifest.bytes);
    let reply = node.send(offered(blob("a", &image.layer(0)))).await;

    reply.assert_is(&image.layers[0]);
    assert!(!reply.has("content-encoding"));
    for seen in parent.seen("", "/v2/a/") {
        assert_eq!(seen.all("accept-encoding"), "identity", "{seen:?}");
    }
}

#[tokio::test]
async fn an_encoding_that_the_parent_claims_is_never_passed_on() {
    let parent = Upstream::start().await;
    let bytes = random(5000);
    let digest = parent.blob("a", &bytes);
    let image = parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::any("/v2/a/").header("Content-Encoding", "gzip"));
    let node = Node::below(&parent).await;

    for (target, digest) in [
        (blob("a", &digest), &digest),
        (manifest("a", "v1"), &image.manifest.digest),
        (manifest("a", &image.manifest.digest), &image.manifest.digest),
    ] {
        let reply = node.get(&target).await;

        assert_eq!(reply.status, 502, "{target}: {reply}");
        assert!(!reply.has("content-encoding"), "{reply}");
        assert!(!node.has_stored(digest), "{target} is kept");
    }
    assert!(
        parent
            .seen("GET", "/v2/a/")
            .iter()
            .all(|seen| seen.header("accept-encoding") == Some("identity"))
    );
}

#[tokio::test]
async fn an_image_named_by_sha512_is_pulled_and_answered_in_sha512() {
    let parent = Upstream::start().await;
    let image = Image::sha512(&[9000]);
    parent.image("a", "v1", &image);
    let node = Node::below(&parent).await;

    for _ in ["cold", "warm"] {
        let by_digest = node.get(&manifest("a", &image.manifest.digest)).await;
        let layer = node.get(&blob("a", &image.layer(0))).await;

        by_digest.assert_is(&image.manifest.bytes);
        layer.assert_is(&image.layers[0]);
        assert_eq!(by_digest.header("docker-content-digest"), sha512(&by_digest.body));
        assert_eq!(layer.header("docker-content-digest"), image.layer(0));
    }
    assert_eq!(parent.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn who_has_it_already_is_told_304() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[5000]);
    let node = Node::below(&parent).await;
    let targets = [
        (manifest("a", "v1"), image.manifest.digest.clone()),
        (manifest("a", &image.manifest.digest), image.manifest.digest.clone()),
        (blob("a", &image.layer(0)), image.layer(0)),
    ];

    for (target, digest) in targets {
        assert_eq!(node.get(&target).await.status, 200);
        let quoted = format!("\"{digest}\"");
        for held in [
            &quoted,
            &digest,
            &format!("W/{quoted}"),
            &format!("\"x\", {quoted}"),
            "*",
        ] {
            let reply = node.send(Request::get(&target).header("If-None-Match", held)).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{held}: {reply}");
            assert_eq!(reply.header("etag"), quoted, "{reply}");
        }
        let other = format!("\"{}\"", sha256(b"other"));
        assert_eq!(
            node.send(Request::get(&target).header("If-None-Match", &other))
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn one_connection_serves_any_number_of_requests() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[200_000]);
    let node = Node::below(&parent).await;
    let requests = [
        (Request::head(&manifest("a", "v1")), 200),
        (Request::get(&manifest("a", "v1")), 200),
        (Request::get(&blob("a", &image.layer(0))), 200),
        (Request::get(&manifest("a", "absent")), 404),
        (Request::get(&blob("a", &image.layer(0))).range("5-2"), 416),
        (Request::get(&blob("a", &image.layer(0))).range("5-9"), 206),
        (Request::get("/v2/"), 200),
    ];

    let mut connection = node.client().connect().await;
    for (request, status) in requests {
        let (reply, kept) = connection.open(request.clone()).await.rest().await;
        assert_eq!((reply.status, reply.complete), (status, true), "{request:?}: {reply}");
        connection = kept;
    }
}
