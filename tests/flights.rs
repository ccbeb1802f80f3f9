//! One transfer at a time for one digest, however many ask, by whatever name, and whoever leaves.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::support::client::{Client, Compared, Request, blob, manifest};
use crate::support::content::{Image, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::stage::Stage;
use crate::support::upstream::{Fault, Gate, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_that_come_and_go_cost_one_transfer_of_a_cold_blob() {
    let parent = Upstream::start().await;
    let bytes = random(256 << 20);
    let digest = parent.blob("a", &bytes);
    parent.fault(Fault::get(&digest).pace(64 << 20));
    let node = Setup::below(&parent.url()).capacity("1GiB").start().await;

    let mut stayed = JoinSet::new();
    let mut left = JoinSet::new();
    for number in 0..100_u64 {
        let (client, target, bytes) = (node.client(), blob("a", &digest), bytes.clone());
        // Joining is spread over the first two thirds of the transfer.
        let joins_at = number * (bytes.len() as u64 * 2 / 3) / 100;
        let sent = parent.seen("GET", &digest).first().map_or(0, |seen| seen.body_bytes());
        if sent < joins_at {
            eventually("the transfer gets on", async || parent.body_bytes(&digest) >= joins_at).await;
        }
        if number % 3 == 1 {
            left.spawn(async move { leave_early(&client, &target, &bytes, number as usize * 100_000 + 1).await });
        } else {
            stayed.spawn(async move { client.open(Request::get(&target)).await.compare(&bytes).await });
        }
    }

    let whole = Compared {
        bytes: bytes.len() as u64,
        equal: true,
        complete: true,
    };
    assert_eq!(left.join_all().await, [true; 33]);
    assert_eq!(stayed.join_all().await, vec![whole; 67]);
    let full = parent
        .seen("GET", &digest)
        .into_iter()
        .filter(|seen| seen.header("range").is_none())
        .count();
    assert_eq!(full, 1);
    assert!(
        parent.body_bytes(&digest) as f64 <= bytes.len() as f64 * 1.01,
        "{}",
        parent.body_bytes(&digest)
    );
    assert_eq!(
        node.metrics()
            .await
            .sum("wharf_cache_requests_total", &[("kind", "blob"), ("outcome", "miss")]),
        1.0
    );
}

/// Reads `count` bytes, sees that they are right, and goes.
async fn leave_early(client: &Client, target: &str, bytes: &Bytes, count: usize) -> bool {
    let mut open = client.open(Request::get(target)).await;
    let read = open.read(count).await;
    read.len() >= count && read == &bytes[..read.len()]
}

#[tokio::test]
async fn a_download_outlives_the_client_that_began_it() {
    let (stage, gate, first) = Stage::under_way(5_000_000, 1_000_000).await;

    drop(first);
    gate.open();
    eventually("the blob is here", async || stage.node.has_stored(&stage.digest)).await;

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
}

#[tokio::test]
async fn a_follower_gets_on_while_the_download_does() {
    let (stage, gate, leader) = Stage::under_way(4_000_000, 2_000_000).await;

    let mut follower = stage.open().await;
    assert!(follower.read(2_000_000).await.len() >= 2_000_000);
    assert!(
        follower.so_far().header("cache-status").contains("collapsed"),
        "{}",
        follower.so_far()
    );
    gate.open();

    assert!(follower.last().await.body == stage.bytes);
    assert!(leader.last().await.body == stage.bytes);
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
}

#[tokio::test]
async fn a_client_that_reads_slowly_keeps_nobody_waiting() {
    let stage = Stage::cold(30_000_000).await;

    let mut slow = stage.open().await;
    slow.read(1000).await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);

    assert!(slow.last().await.body == stage.bytes);
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
}

#[tokio::test]
async fn one_layer_under_two_tags_is_one_transfer() {
    let parent = Upstream::start().await;
    let layer = random(2_000_000);
    for tag in ["v1", "v2"] {
        parent.image("a", tag, &Image::with_layers(vec![layer.clone()]));
    }
    let digest = Image::with_layers(vec![layer.clone()]).layer(0);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).hold_after(1000, &gate));
    let node = Node::below(&parent).await;

    let mut pulls = JoinSet::new();
    for tag in ["v1", "v2"] {
        let (client, target, layer) = (node.client(), blob("a", &digest), layer.clone());
        assert_eq!(node.get(&manifest("a", tag)).await.status, 200);
        pulls.spawn(async move { client.get(&target).await.body == layer });
    }
    eventually("the layer is asked for", async || parent.count("GET", &digest) > 0).await;
    gate.open();

    assert_eq!(pulls.join_all().await, [true, true]);
    assert_eq!(parent.count("GET", &digest), 1);
}

#[tokio::test]
async fn one_layer_of_two_upstreams_is_one_transfer() {
    let (parent, quay) = (Upstream::start().await, Upstream::start().await);
    let layer = random(2_000_000);
    let digest = parent.blob("a", &layer);
    quay.blob("b", &layer);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).hold_after(1_000_000, &gate));
    let url = format!("url = \"{}\"", quay.url());
    let node = Setup::below(&parent.url()).upstream("quay.io", &[&url]).start().await;

    let mut first = node.client().open(Request::get(&blob("a", &digest))).await;
    first.read(1000).await;
    let mut second = node.client().open(Request::get(&blob("quay.io/b", &digest))).await;
    second.read(1000).await;
    gate.open();

    assert!(first.last().await.body == layer);
    assert!(second.last().await.body == layer);
    assert_eq!(parent.count("GET", &digest) + quay.count("GET", &digest), 1);
    assert!(
        quay.count("HEAD", &digest) >= 1,
        "permission of the second repository was not asked for"
    );
}

#[tokio::test]
async fn twenty_cold_pulls_of_one_tag_are_one_manifest_above() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::any("/manifests/").delay(Duration::from_millis(100)));
    let node = Node::below(&parent).await;

    let mut pulls = JoinSet::new();
    for _ in 0..20 {
        let (client, bytes) = (node.client(), image.manifest.bytes.clone());
        pulls.spawn(async move { client.get(&manifest("a", "v1")).await.body == bytes });
    }

    assert_eq!(pulls.join_all().await, [true; 20]);
    assert_eq!(parent.count("GET", "/manifests/"), 1);
    assert!(parent.count("HEAD", "/manifests/") <= 1);
}

#[tokio::test]
async fn a_transfer_that_was_refused_does_not_stand_in_the_way_of_the_next() {
    let parent = Upstream::start().await;
    let bytes = random(100_000);
    let digest = parent.blob("a", &bytes);
    parent.fault(Fault::any(&digest).status(403).times(2));
    let node = Node::below(&parent).await;

    assert_ne!(node.get(&blob("a", &digest)).await.status, 200);
    parent.without_faults();

    node.get(&blob("a", &digest)).await.assert_is(&bytes);
}

#[tokio::test]
async fn transfers_of_different_blobs_do_not_wait_for_each_other() {
    let parent = Upstream::start().await;
    let (held, free) = (random(1_000_000), random(1_000_000));
    let (held_digest, free_digest) = (parent.blob("a", &held), parent.blob("a", &free));
    let gate = Gate::closed();
    parent.fault(Fault::get(&held_digest).hold_after(1000, &gate));
    let node = Node::below(&parent).await;
    let mut waiting = node.client().open(Request::get(&blob("a", &held_digest))).await;
    waiting.read(500).await;

    node.get(&blob("a", &free_digest)).await.assert_is(&free);
    gate.open();

    assert!(waiting.last().await.body == held);
}

#[tokio::test]
async fn who_asks_for_a_manifest_is_not_answered_for_a_blob_of_its_digest_nor_the_other_way_round() {
    for (first, second) in [("blobs", "manifests"), ("manifests", "blobs")] {
        let parent = Upstream::start().await;
        let image = parent.new_image("a", "v1", &[10]);
        let digest = match second {
            "manifests" => image.manifest.digest.clone(),
            _ => image.layer(0),
        };
        let gate = Gate::closed();
        parent.fault(Fault::get(&format!("/{first}/{digest}")).hold_head(&gate));
        let node = Node::below(&parent).await;
        let (client, wrong) = (node.client(), format!("/v2/a/{first}/{digest}"));
        let wrong = tokio::spawn(async move { client.get(&wrong).await });
        eventually("the wrong question is on its way", async || {
            parent.count("GET", first) == 1
        })
        .await;

        let (client, right) = (node.client(), format!("/v2/a/{second}/{digest}"));
        let right = tokio::spawn(async move { client.get(&right).await });
        // It waits for the other one's end; whether it has joined by now changes nothing of what it is to be told.
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();

        assert_eq!(wrong.await.unwrap().status, 404);
        let right = right.await.unwrap();
        assert_eq!(right.status, 200, "{right}");
    }
}
