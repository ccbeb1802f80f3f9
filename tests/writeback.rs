//! What is pushed to a node reaches its parent, whatever happens in between: whole, in order, once.

use crate::support::client::Request;
use crate::support::content::{Image, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Cut, Fault, Upstream};

/// A registry without a parent.
async fn cloud() -> Node {
    Setup::alone().registry().named("cloud").start().await
}

/// A registry below another.
fn below(parent: &Node) -> Setup {
    Setup::below(&parent.url()).registry().tag_ttl("0s")
}

#[tokio::test]
async fn an_image_pushed_while_all_above_is_down_reaches_the_top() {
    let mut cloud = cloud().await;
    let mut l5 = below(&cloud).named("l5").start().await;
    let l4 = below(&l5).named("l4").start().await;
    cloud.kill();
    l5.kill();
    let image = Image::of(&[100_000, 3 << 20]);

    l4.to("plant/app").image("v1", &image).await;
    l4.to("plant/app").assert_has("v1", &image).await;
    assert_eq!(l4.owed().await.len(), 1);
    l5.start().await;
    l4.drained().await;
    l5.to("plant/app").assert_has("v1", &image).await;
    assert!(!l5.owed().await.is_empty());
    cloud.start().await;
    l5.drained().await;

    cloud.to("plant/app").assert_has("v1", &image).await;
    let metrics = l4.metrics().await;
    assert_eq!(metrics.sum("wharf_queue_items", &[]), 0.0);
}

/// As crane and oras ask before they push.
#[tokio::test]
async fn with_the_top_alone_away_an_image_is_pushed_at_the_bottom_by_those_who_ask_first() {
    let mut cloud = cloud().await;
    let middle = below(&cloud).named("middle").start().await;
    let node = Setup::below(&middle.url()).registry().named("bottom").start().await;
    cloud.kill();
    let image = Image::of(&[1 << 20, 1000]);

    for name in ["v1", &image.manifest.digest] {
        let head = node.to("a").head(&format!("manifests/{name}")).await;
        assert_eq!(head.status, 404, "{head}");
        let get = node.to("a").get(&format!("manifests/{name}")).await;
        assert_eq!(get.status, 503, "who pulls is told why: {get}");
    }
    node.to("a").image("v1", &image).await;
    node.drained().await;
    middle.to("a").assert_has("v1", &image).await;

    cloud.start().await;
    middle.drained().await;
    cloud.to("a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn what_the_parent_has_need_not_stay_and_is_served_as_before() {
    let cloud = cloud().await;
    let mut node = below(&cloud).start().await;
    let image = Image::of(&[50_000]);
    let app = node.to("a");
    let artifact = Image::referring_to(&image.manifest, "application/vnd.example");
    app.image("v1", &image).await;
    app.blobs_of(&artifact).await;
    app.manifest(&artifact.manifest.digest, &artifact.manifest).await;

    node.drained().await;
    eventually("nothing is kept for the parent's sake", async || {
        node.admin("/api/queue").await.json()["bytes"] == 0
    })
    .await;

    app.assert_has("v1", &image).await;
    assert_eq!(app.tags().await, ["v1"]);
    assert_eq!(
        app.referrers(&image.manifest.digest).await,
        std::slice::from_ref(&artifact.manifest.digest)
    );
    node.restart().await;
    node.to("a").assert_has("v1", &image).await;
    cloud.to("a").assert_has("v1", &image).await;
    assert_eq!(
        cloud.to("a").referrers(&image.manifest.digest).await,
        [artifact.manifest.digest]
    );
}

#[tokio::test]
async fn a_tag_that_moves_again_and_again_is_sent_as_it_is_at_last() {
    let mut cloud = cloud().await;
    let node = below(&cloud).start().await;
    cloud.kill();
    let app = node.to("a");
    let images: Vec<Image> = (0..5).map(|_| Image::of(&[1000])).collect();
    for image in &images {
        app.image("latest", image).await;
    }
    assert_eq!(app.delete("manifests/latest").await.status, 202);
    app.image("other", &images[0]).await;

    cloud.start().await;
    node.drained().await;

    let top = cloud.to("a");
    assert_eq!(top.tags().await, ["other"]);
    for image in &images {
        top.assert_has(&image.manifest.digest, image).await;
    }
}

#[tokio::test]
async fn a_layer_that_repositories_share_is_sent_once_and_what_is_there_not_at_all() {
    let cloud = cloud().await;
    let node = below(&cloud).start().await;
    let layer = random(2 << 20);
    let first = Image::with_layers(vec![layer]);
    node.to("a").image("v1", &first).await;
    node.drained().await;
    for name in ["b", "c", "d"] {
        node.to(name).image("v1", &first).await;
    }
    node.drained().await;

    for name in ["a", "b", "c", "d"] {
        cloud.to(name).assert_has("v1", &first).await;
    }
    let came = cloud.metrics().await.sum("wharf_pushed_bytes_total", &[]);
    assert!(came < 2.2 * 1024.0 * 1024.0, "{came} bytes came");
}

#[tokio::test]
async fn a_layer_that_one_of_many_repositories_has_there_is_not_sent_again_after_a_restart() {
    let mut cloud = cloud().await;
    let mut node = below(&cloud).start().await;
    let image = Image::of(&[2 << 20]);
    node.to("c").image("v1", &image).await;
    node.drained().await;
    let before = cloud.metrics().await.sum("wharf_pushed_bytes_total", &[]);
    cloud.kill();
    for name in ["a", "b", "d"] {
        node.to(name).image("v1", &image).await;
    }

    node.restart().await;
    cloud.start().await;
    node.drained().await;

    for name in ["a", "b", "c", "d"] {
        cloud.to(name).assert_has("v1", &image).await;
    }
    assert!(before > 2e6, "{before} bytes came");
    let came = cloud.metrics().await.sum("wharf_pushed_bytes_total", &[]);
    assert!(came < 0.2 * 1024.0 * 1024.0, "{came} bytes came again");
}

#[tokio::test]
async fn an_upload_that_the_parent_keeps_for_an_attempt_that_broke_off_goes_on_once_it_lets_go() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    parent.fault(Fault::patch("").cut_arrival_after(2 << 20, Cut::Rst));
    // It has not heard yet that nobody is there any more.
    parent.fault(Fault::patch("").status(409).unread().times(2));
    let node = Setup::below(&parent.url()).registry().start().await;
    let image = Image::of(&[3 << 20]);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert_eq!(parent.tag_of("a", "v1").as_ref(), Some(&image.manifest.digest));
    assert_eq!(parent.count("PATCH", ""), 4);
    let came = parent.blob_bytes_received();
    assert!(came < (3 << 20) + 10_000, "{came} bytes came");
}

#[tokio::test]
async fn deletes_travel_unless_the_policy_says_no() {
    let cloud = cloud().await;
    let node = below(&cloud)
        .more("[[queue.rule]]\nrepositories = [\"kept\"]\ndeletes = false\n")
        .start()
        .await;
    let image = Image::of(&[1000]);
    for name in ["gone", "kept"] {
        node.to(name).image("v1", &image).await;
        node.to(name).manifest("v2", &image.manifest).await;
    }
    node.drained().await;
    for name in ["gone", "kept"] {
        assert_eq!(node.to(name).delete("manifests/v1").await.status, 202);
    }
    node.drained().await;

    assert_eq!(cloud.to("gone").tags().await, ["v2"]);
    assert_eq!(cloud.to("kept").tags().await, ["v1", "v2"]);
    assert_eq!(node.to("kept").tags().await, ["v2"]);
    let digest = &image.manifest.digest;
    assert_eq!(node.to("gone").delete(&format!("manifests/{digest}")).await.status, 202);
    node.drained().await;
    cloud
        .to("gone")
        .get(&format!("manifests/{digest}"))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn with_the_index_lost_what_is_owed_is_rebuilt_from_the_journal() {
    let mut cloud = cloud().await;
    let mut node = below(&cloud).start().await;
    cloud.kill();
    let image = Image::of(&[300_000]);
    node.to("a").image("v1", &image).await;
    node.to("b").image("v1", &image).await;

    node.kill();
    node.lose_index();
    node.start().await;
    assert_eq!(node.owed().await.len(), 2);
    cloud.start().await;
    node.drained().await;

    cloud.to("a").assert_has("v1", &image).await;
    cloud.to("b").assert_has("v1", &image).await;
}

#[tokio::test]
async fn an_operator_drops_what_is_not_to_be_delivered() {
    let mut cloud = cloud().await;
    let node = below(&cloud).start().await;
    cloud.kill();
    let image = Image::of(&[1000]);
    node.to("a").image("v1", &image).await;
    node.to("b").image("v1", &image).await;
    let refused = node.admin_send(Request::new("POST", "/api/queue/drop")).await;
    assert_eq!(refused.status, 400, "{refused}");

    let number = node.owed().await[0]["number"].to_string();
    let dropped = node
        .admin_send(Request::new("POST", &format!("/api/queue/drop?number={number}")))
        .await;
    assert_eq!(dropped.status, 200, "{dropped}");
    cloud.start().await;
    node.drained().await;

    cloud.to("b").assert_has("v1", &image).await;
    cloud
        .to("a")
        .get("manifests/v1")
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
}

/// The layers of a receipt that have it, from the lowest up, and how many there are.
async fn reached(node: &Node, repository: &str, digest: &str) -> (Vec<String>, usize) {
    let target = format!("/v2/_wharf/receipts?repository={repository}&digest={digest}");
    let receipt = node.get(&target).await;
    assert_eq!(receipt.status, 200, "{receipt}");
    let by_admin = node.admin(&target.replace("/v2/_wharf", "/api")).await;
    assert_eq!(
        by_admin.json()["layers"].as_array().unwrap().len(),
        receipt.json()["layers"].as_array().unwrap().len()
    );
    let layers = receipt.json()["layers"].as_array().cloned().unwrap_or_default();
    let has = layers.iter().filter(|layer| layer["has"] == true);
    let names = has.filter_map(|layer| layer["node"].as_str().map(str::to_owned));
    (names.collect(), layers.len())
}

#[tokio::test]
async fn a_receipt_tells_at_every_layer_how_far_up_a_push_has_got() {
    let mut cloud = cloud().await;
    let l5 = below(&cloud).named("l5").start().await;
    let mut l4 = below(&l5).named("l4").start().await;
    let image = Image::of(&[1000]);
    let digest = &image.manifest.digest;
    cloud.kill();
    l4.to("a").image("v1", &image).await;
    l4.drained().await;

    assert_eq!(
        reached(&l4, "a", digest).await,
        (vec!["l4".to_owned(), "l5".to_owned()], 3)
    );
    let waiting = l5
        .get(&format!("/v2/_wharf/receipts?repository=a&digest={digest}"))
        .await
        .json();
    assert_eq!(waiting["layers"][0]["owed"], "pending", "{waiting}");
    assert!(
        waiting["unknown"].as_str().unwrap().contains("cannot be reached"),
        "{waiting}"
    );

    cloud.start().await;
    l5.drained().await;
    l4.restart().await;
    assert_eq!(reached(&l4, "a", digest).await.0, ["l4", "l5", "cloud"]);
    assert_eq!(reached(&cloud, "a", digest).await.0, ["cloud"]);
    let known = l4
        .get(&format!("/v2/_wharf/receipts?repository=a&digest={digest}"))
        .await
        .json();
    for layer in known["layers"].as_array().unwrap() {
        assert!(layer["at"].as_u64().unwrap() > 1_700_000_000, "{known}");
    }

    // Nobody is told of what cannot be pulled, and a nonsense question is refused.
    for (query, code) in [
        ("digest=x&repository=a", "DIGEST_INVALID"),
        (&*format!("digest={digest}"), "NAME_INVALID"),
    ] {
        let refused = l4.get(&format!("/v2/_wharf/receipts?{query}")).await;
        refused.assert_error(400, code);
    }
    let post = l4
        .send(Request::new("POST", "/v2/_wharf/receipts").header("Content-Length", "0"))
        .await;
    assert_eq!(post.status, 400, "{post}");
}
