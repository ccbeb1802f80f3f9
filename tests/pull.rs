//! Pulls through one node: what the specification demands of answers, and what the parent is asked.

use std::net::ToSocketAddrs;
use std::time::Duration;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{Image, Manifest, OCI_MANIFEST, index, random};
use crate::support::node::{Node, Setup};
use crate::support::ports::Family;
use crate::support::transport;
use crate::support::upstream::{Fault, Gate, Length, Upstream};

const API: &str = "docker-distribution-api-version";

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
async fn a_manifest_of_nearly_four_megabytes_passes() {
    let parent = Upstream::start().await;
    let image = Image::with_a_large_manifest();
    parent.image("a", "v1", &image);
    let node = Node::below(&parent).await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
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

#[tokio::test]
async fn a_parent_is_found_by_name_on_whichever_address_it_listens() {
    let addresses: Vec<_> = ("localhost", 0)
        .to_socket_addrs()
        .unwrap()
        .map(|address| address.ip())
        .collect();
    // A machine without ::1 in its hosts file has but one family to look at.
    for family in [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| addresses.contains(&family.loopback()))
    {
        let parent = Upstream::on(family).await;
        let image = parent.new_image("a", "v1", &[10]);
        let named = format!("{}://localhost:{}", transport::scheme(), parent.address().port());
        let node = Setup::below(&named).start().await;

        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    }
}
