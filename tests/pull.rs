//! Pulls through one node: what the specification demands of answers, and what the parent is asked.

use std::time::Duration;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{
    DOCKER_LIST, DOCKER_MANIFEST, Image, Manifest, OCI_INDEX, OCI_MANIFEST, index, random, sha256, sha512,
};
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Gate, Length, Upstream};

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
async fn a_node_answers_the_ping_while_its_parent_is_away() {
    let mut parent = Upstream::start().await;
    parent.stop().await;
    let node = Node::below(&parent).await;

    assert_eq!(node.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_cold_head_by_tag_tells_type_size_and_digest_and_a_second_one_asks_nobody() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "latest", &[100]);
    let node = Node::below(&parent).await;

    let cold = node.head(&manifest("plant/app", "latest")).await;
    let asked = parent.asked();
    let warm = node.head(&manifest("plant/app", "latest")).await;

    for reply in [&cold, &warm] {
        assert_eq!(reply.status, 200, "{reply}");
        assert_eq!(reply.header("content-type"), OCI_MANIFEST);
        assert_eq!(reply.header("content-length"), image.manifest.bytes.len().to_string());
        assert_eq!(reply.header("docker-content-digest"), image.manifest.digest);
        assert_eq!(reply.header(API), "registry/2.0");
    }
    assert!(parent.count("GET", "/manifests/") <= 1);
    assert_eq!(parent.asked(), asked);
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
async fn a_manifest_that_came_by_tag_is_served_by_digest_without_and_after_the_parent() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    let asked = parent.asked();

    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
    assert_eq!(parent.asked(), asked);
    parent.stop().await;

    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
}

#[tokio::test]
async fn the_first_request_may_be_by_digest() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;

    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);

    assert_eq!(parent.count("", "/manifests/v1"), 0);
}

#[tokio::test]
async fn a_cold_blob_is_asked_for_once_and_then_never_again() {
    let parent = Upstream::start().await;
    let bytes = random(3_000_000);
    let digest = parent.blob("a", &bytes);
    let node = Node::below(&parent).await;

    let cold = node.get(&blob("a", &digest)).await;
    let asked = parent.asked();
    let warm = node.get(&blob("a", &digest)).await;

    for reply in [&cold, &warm] {
        reply.assert_is(&bytes);
        assert_eq!(reply.header("content-length"), bytes.len().to_string());
        assert_eq!(reply.header("docker-content-digest"), digest);
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert_eq!(reply.header("accept-ranges"), "bytes");
        assert_eq!(reply.header("etag"), format!("\"{digest}\""));
        assert_eq!(reply.header(API), "registry/2.0");
    }
    assert_eq!(parent.count("GET", &digest), 1);
    assert_eq!(parent.asked(), asked);
    assert_eq!(parent.body_bytes("/blobs/"), bytes.len() as u64);
    assert!(node.has_stored(&digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_parallel_cold_pulls_of_one_blob_are_one_request_above() {
    let parent = Upstream::start().await;
    let bytes = random(50_000_000);
    let digest = parent.blob("a", &bytes);
    let node = Node::below(&parent).await;

    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, target, bytes) = (node.client(), blob("a", &digest), bytes.clone());
        pulls.spawn(async move {
            client
                .open(Request::get(&target))
                .await
                .compare(&bytes)
                .await
                .is_whole(&bytes)
        });
    }

    assert_eq!(pulls.join_all().await, [true; 50]);
    assert_eq!(parent.count("GET", &digest), 1);
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
async fn bytes_flow_down_while_the_parent_is_still_sending() {
    let parent = Upstream::start().await;
    let bytes = random(2_000_000);
    let digest = parent.blob("a", &bytes);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).hold_after(1_000_000, &gate));
    let node = Node::below(&parent).await;

    let mut open = node.client().open(Request::get(&blob("a", &digest))).await;

    assert!(open.so_far().head_after < Duration::from_secs(1));
    assert!(open.read(900_000).await.len() >= 900_000);
    gate.open();
    assert!(open.last().await.body == bytes);
}

#[tokio::test]
async fn a_blob_of_unsaid_length_arrives_whole_and_has_a_length_from_then_on() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;

    for length in [Length::Chunked, Length::Unsaid] {
        let bytes = random(700_000);
        let digest = parent.blob("a", &bytes);
        parent.fault(Fault::any(&digest).length(length));

        node.get(&blob("a", &digest)).await.assert_is(&bytes);
        let head = node.head(&blob("a", &digest)).await;

        assert_eq!(head.header("content-length"), "700000", "{head}");
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
    parent.fault(Fault::any("/blobs/").header("Content-Encoding", "gzip"));
    let node = Node::below(&parent).await;

    let reply = node.get(&blob("a", &digest)).await;

    assert!(!reply.has("content-encoding"), "{reply}");
    assert!(!reply.is_false_for(&digest), "{reply}");
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
async fn the_empty_blob_and_the_empty_object_are_blobs() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;

    for content in ["", "{}"] {
        let digest = parent.blob("a", &content.into());
        for _ in ["cold", "warm"] {
            let reply = node.get(&blob("a", &digest)).await;
            reply.assert_is(content.as_bytes());
            assert_eq!(reply.header("content-length"), content.len().to_string());
        }
        assert_eq!(parent.count("GET", &digest), 1);
    }
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
async fn a_manifest_of_nearly_four_megabytes_passes() {
    let parent = Upstream::start().await;
    let image = Image::built(OCI_MANIFEST, vec![random(10)], sha256, |body| {
        body["annotations"] = (0..390)
            .map(|at| (format!("k{at}"), "x".repeat(10_000).into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
    });
    parent.image("a", "v1", &image);
    let node = Node::below(&parent).await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
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

#[tokio::test]
async fn platforms_of_an_index_are_pulled_by_their_digests() {
    let mut parent = Upstream::start().await;
    let (amd64, arm64) = (Image::of(&[1000]), Image::of(&[2000]));
    let list: Manifest = index(&[&amd64, &arm64]);
    parent.image("a", "amd64", &amd64);
    parent.image("a", "arm64", &arm64);
    parent.manifest("a", Some("v1"), &list);
    let node = Setup::below(&parent.url()).start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&list.bytes);
    let pull = async || {
        for image in [&amd64, &arm64] {
            node.get(&manifest("a", &image.manifest.digest))
                .await
                .assert_is(&image.manifest.bytes);
            node.get(&blob("a", &image.config_digest()))
                .await
                .assert_is(&image.config);
            node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
        }
    };
    pull().await;
    parent.stop().await;
    pull().await;
}
