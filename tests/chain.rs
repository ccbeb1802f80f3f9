//! Three nodes, each knowing only its parent: bytes flow through all, and each says what it did.

use std::time::Duration;

use crate::support::chain::Chain;
use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::content::{Image, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::ports::Family;
use crate::support::upstream::{Fault, Gate, Upstream};

/// Pulls the image as a client does and fails unless every byte is right.
async fn assert_pulls(node: &Node, name: &str, tag: &str, image: &Image) {
    node.get("/v2/").await;
    let head = node.head(&manifest(name, tag)).await;
    assert_eq!(head.header("docker-content-digest"), image.manifest.digest, "{head}");
    node.get(&manifest(name, &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
    node.get(&blob(name, &image.config_digest()))
        .await
        .assert_is(&image.config);
    for (at, layer) in image.layers.iter().enumerate() {
        node.get(&blob(name, &image.layer(at))).await.assert_is(layer);
    }
}

/// The layer that an error names.
#[track_caller]
fn layer(reply: &Reply) -> String {
    let layer = reply.json()["errors"][0]["detail"]["layer"].clone();
    layer
        .as_str()
        .unwrap_or_else(|| panic!("no layer is named: {reply}"))
        .to_owned()
}

#[tokio::test]
async fn a_pull_through_three_layers_is_one_transfer_and_stays_in_each() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("plant/app", "v1", &[1_000_000, 2_000_000]);
    let chain = Chain::below(&cloud).await;

    assert_pulls(&chain.l3, "plant/app", "v1", &image).await;
    let asked = cloud.asked();
    for node in [&chain.l3, &chain.l4, &chain.l5] {
        assert_pulls(node, "plant/app", "v1", &image).await;
        assert!(node.has_stored(&image.layer(0)) && node.has_stored(&image.layer(1)));
    }

    assert_eq!(cloud.asked(), asked);
    assert_eq!(cloud.count("GET", "/blobs/"), 3);
    assert_eq!(cloud.count("GET", "/manifests/"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_below_five_layers_cost_one_transfer_of_each_blob() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("plant/app", "v1", &[3_000_000, 100_000]);
    let mut layers = vec![Setup::below(&cloud.url()).named("l5").start().await];
    for name in ["l4", "l3", "l2", "l1"] {
        let above = layers.last().expect("one is above").url();
        layers.push(Setup::below(&above).named(name).start().await);
    }

    let bottom = &layers[4];
    let pulls = (0..100).map(|_| assert_pulls(bottom, "plant/app", "v1", &image));
    futures_util::future::join_all(pulls).await;

    for digest in [image.config_digest(), image.layer(0), image.layer(1)] {
        assert_eq!(cloud.count("GET", &digest), 1, "{digest}");
        assert!(layers.iter().all(|layer| layer.has_stored(&digest)), "{digest}");
    }
}

#[tokio::test]
async fn the_second_pull_causes_no_request_above_the_lowest_layer() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[100_000]);
    let chain = Chain::below(&cloud).await;
    assert_pulls(&chain.l3, "a", "v1", &image).await;
    let requests = async |node: &Node| node.metrics().await.sum("wharf_requests_total", &[("kind", "blob")]);
    // A request is counted when its last byte has left, which the layer below may see first.
    eventually("config and layer are counted", async || {
        requests(&chain.l4).await == 2.0 && requests(&chain.l5).await == 2.0
    })
    .await;
    let before = (2.0, 2.0, cloud.asked());

    assert_pulls(&chain.l3, "a", "v1", &image).await;

    assert_eq!(
        (requests(&chain.l4).await, requests(&chain.l5).await, cloud.asked()),
        before
    );
}

#[tokio::test]
async fn with_the_upper_two_layers_stopped_everything_warm_is_served() {
    let mut cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[100_000]);
    let mut chain = Chain::below(&cloud).await;
    assert_pulls(&chain.l3, "a", "v1", &image).await;

    cloud.stop().await;
    chain.l5.kill();
    chain.l4.kill();

    assert_pulls(&chain.l3, "a", "v1", &image).await;
}

#[tokio::test]
async fn a_chain_on_ipv6_pulls_like_one_on_ipv4() {
    let cloud = Upstream::on(Family::V6).await;
    let image = cloud.new_image("a", "v1", &[1_000_000]);
    let mut chain = Chain::on(Family::V6, &cloud).await;
    assert!(chain.l3.address().is_ipv6() && cloud.address().is_ipv6());

    assert_pulls(&chain.l3, "a", "v1", &image).await;
    chain.l5.kill();
    chain.l4.kill();

    assert_pulls(&chain.l3, "a", "v1", &image).await;
}

#[tokio::test]
async fn no_layer_stores_before_it_forwards() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[4_000_000]);
    let digest = image.layer(0);
    let gate = Gate::closed();
    cloud.fault(Fault::get(&digest).hold_after(2_000_000, &gate));
    let chain = Chain::below(&cloud).await;

    let mut open = chain.l3.client().open(Request::get(&blob("a", &digest))).await;
    let head_after = open.so_far().head_after;
    let held = open.read(1_900_000).await.len();
    gate.open();

    assert!(held >= 1_900_000);
    assert!(head_after < Duration::from_secs(1), "{head_after:?}");
    assert!(open.last().await.body == image.layers[0]);
}

#[tokio::test]
async fn a_byte_corrupted_at_the_top_never_completes_at_the_bottom() {
    for offset in [0, 500_000, 999_999] {
        let cloud = Upstream::start().await;
        let image = cloud.new_image("a", "v1", &[1_000_000]);
        let digest = image.layer(0);
        cloud.fault(Fault::get(&digest).flip_at(offset));
        let chain = Chain::below(&cloud).await;

        let reply = chain.l3.get(&blob("a", &digest)).await;

        assert!(reply.status != 200 || !reply.complete, "byte {offset}: {reply}");
        for node in [&chain.l3, &chain.l4, &chain.l5] {
            assert!(!node.has_stored(&digest));
        }
        cloud.without_faults();
        chain.l3.get(&blob("a", &digest)).await.assert_is(&image.layers[0]);
    }
}

#[tokio::test]
async fn the_layers_do_not_multiply_each_others_attempts() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[1_000_000]);
    let digest = image.layer(0);
    cloud.fault(Fault::get(&digest).flip_at(999_999));
    let chain = Chain::below(&cloud).await;

    let reply = chain.l3.get(&blob("a", &digest)).await;

    assert!(reply.status != 200 || !reply.complete, "{reply}");
    // Two attempts of each of three layers upon two of the layer below.
    assert!(
        cloud.count("GET", &digest) <= 8,
        "{} transfers from the cloud",
        cloud.count("GET", &digest)
    );
}

#[tokio::test]
async fn each_layer_that_was_asked_has_one_entry_in_cache_status() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[1000]);
    let chain = Chain::below(&cloud).await;

    let names = |header: &str| -> Vec<String> {
        let entries = header.split(',').filter_map(|entry| entry.split(';').next());
        entries.map(|name| name.trim().to_owned()).collect()
    };

    let cold = chain.l3.get(&blob("a", &image.layer(0))).await.all("cache-status");
    let warm = chain.l3.get(&blob("a", &image.layer(0))).await.all("cache-status");
    let by_tag = chain.l3.get(&manifest("a", "v1")).await.all("cache-status");

    // RFC 9211, 2: the first entry is that of the cache closest to the origin.
    assert_eq!(names(&cold), ["l5", "l4", "l3"], "{cold}");
    assert_eq!(cold.matches("fwd=miss").count(), 3, "{cold}");
    let last = warm.split(',').next_back().unwrap_or("").trim();
    assert!(last.starts_with("l3") && last.contains("hit"), "{warm}");
    assert_eq!(warm.matches("l3").count(), 1, "{warm}");
    // Layers above may have been asked twice, by HEAD and by GET; the entries are those of the answer that came.
    let mut once = names(&by_tag);
    once.dedup();
    assert_eq!(once, names(&by_tag), "{by_tag}");
    assert!(by_tag.contains("l3; fwd=miss"), "{by_tag}");
}

#[tokio::test]
async fn a_request_that_comes_round_is_stopped_with_508() {
    let mut first = Setup::alone().named("first").placed();
    let second = Setup::below(&first.url()).named("second").start().await;
    first.setup = first.setup.clone().parent(&format!("url = \"{}\"", second.url()));
    first.start().await;

    for target in [manifest("a", "v1"), blob("a", &sha256(b"x"))] {
        let reply = first.get(&target).await;

        assert_eq!(reply.status, 508, "{reply}");
        reply.assert_error(508, "UNKNOWN");
    }
    assert_eq!(first.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_request_that_passed_too_many_nodes_is_stopped_with_508() {
    let cloud = Upstream::start().await;
    cloud.new_image("a", "v1", &[10]);
    let node = Node::below(&cloud).await;
    let via: Vec<String> = (0..17).map(|at| format!("1.1 node-{at}")).collect();

    let reply = node
        .send(Request::get(&manifest("a", "v1")).header("Via", &via.join(", ")))
        .await;

    assert_eq!(reply.status, 508, "{reply}");
    assert_eq!(cloud.asked(), 0);
}

#[tokio::test]
async fn a_parent_sees_by_which_nodes_a_request_came() {
    let cloud = Upstream::start().await;
    cloud.new_image("a", "v1", &[10]);
    let chain = Chain::below(&cloud).await;

    assert_eq!(chain.l3.get(&manifest("a", "v1")).await.status, 200);

    let via = cloud.seen("", "/manifests/")[0].all("via");
    let hops = via.split(',').count();
    assert_eq!(hops, 3, "{via}");
}

#[tokio::test]
async fn an_error_names_the_layer_that_failed_and_the_layers_below_repeat_it() {
    let mut cloud = Upstream::start().await;
    cloud.new_image("a", "v1", &[10]);
    let mut chain = Chain::below(&cloud).await;
    cloud.stop().await;

    let without_cloud = [
        chain.l5.get(&manifest("a", "v1")).await,
        chain.l4.get(&manifest("a", "v1")).await,
        chain.l3.get(&manifest("a", "v1")).await,
    ];
    chain.l5.kill();
    let without_l5 = [
        chain.l4.get(&manifest("a", "v1")).await,
        chain.l3.get(&manifest("a", "v1")).await,
    ];

    for reply in without_cloud.iter().chain(&without_l5) {
        assert!(matches!(reply.status, 502..=504), "{reply}");
        reply.assert_error(reply.status, "UNAVAILABLE");
    }
    let layers: Vec<String> = without_cloud.iter().map(layer).collect();
    assert!(layers.iter().all(|name| *name == layers[0]), "{layers:?}");
    assert_eq!(layer(&without_l5[0]), layer(&without_l5[1]));
    assert_ne!(layer(&without_l5[0]), layers[0]);
}

#[tokio::test]
async fn a_middle_layer_that_dies_in_a_transfer_costs_a_broken_reply_at_most() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[4_000_000]);
    let digest = image.layer(0);
    let gate = Gate::closed();
    cloud.fault(Fault::get(&digest).hold_after(2_000_000, &gate));
    let mut chain = Chain::below(&cloud).await;
    let mut open = chain.l3.client().open(Request::get(&blob("a", &digest))).await;
    open.read(1_000_000).await;

    chain.l4.restart().await;
    gate.open();
    let (reply, _) = open.rest().await;

    assert!(!reply.is_false_for(&digest), "{reply}");
    chain.l3.get(&blob("a", &digest)).await.assert_is(&image.layers[0]);
}
