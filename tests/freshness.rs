//! How old a tag may be, who asks the parent about it, and what is said when the parent cannot be asked.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::chain::Chain;
use crate::support::client::{Reply, blob, manifest};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::ports::Family;
use crate::support::upstream::{Fault, Upstream};

/// Short enough to wait for, long enough for a few requests.
const TTL: &str = "400ms";
const BEYOND: Duration = Duration::from_millis(450);

/// A node whose tags grow old quickly.
async fn forgetful(parent: &Upstream) -> Node {
    Setup::below(&parent.url()).tag_ttl(TTL).start().await
}

/// Nothing can be observed of time but that it passes.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[track_caller]
fn assert_stale(reply: &Reply) {
    assert!(reply.all("warning").starts_with("299 - \""), "{reply}");
    assert!(reply.all("warning").len() <= 4096);
    assert!(reply.all("cache-status").contains("stale"), "{reply}");
}

#[track_caller]
fn assert_not_stale(reply: &Reply) {
    assert!(!reply.has("warning"), "{reply}");
    assert!(!reply.all("cache-status").contains("stale"), "{reply}");
}

#[tokio::test]
async fn within_its_time_a_tag_is_served_without_asking() {
    let parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    parent.new_image("a", "v1", &[10]);
    let asked = parent.asked();

    for _ in 0..5 {
        let reply = node.get(&manifest("a", "v1")).await;
        reply.assert_is(&old.manifest.bytes);
        assert_not_stale(&reply);
    }

    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn an_old_tag_that_did_not_move_costs_one_head_and_no_get() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.forget();

    pass(BEYOND).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

    assert_eq!(
        (
            parent.count("HEAD", "/manifests/v1"),
            parent.count("GET", "/manifests/")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn one_head_answers_all_who_wait_for_an_old_tag() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.forget();
    parent.fault(Fault::head("/manifests/").delay(Duration::from_millis(150)));
    pass(BEYOND).await;

    let mut pulls = JoinSet::new();
    for _ in 0..20 {
        let (client, bytes) = (node.client(), image.manifest.bytes.clone());
        pulls.spawn(async move { client.get(&manifest("a", "v1")).await.body == bytes });
    }

    assert_eq!(pulls.join_all().await, [true; 20]);
    assert_eq!(
        (
            parent.count("HEAD", "/manifests/v1"),
            parent.count("GET", "/manifests/")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_moved_tag_is_new_after_its_time_and_the_old_digest_stays() {
    let parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    let new = parent.new_image("a", "v1", &[10]);

    pass(BEYOND).await;
    let head = node.head(&manifest("a", "v1")).await;

    assert_eq!(head.header("docker-content-digest"), new.manifest.digest);
    node.get(&manifest("a", "v1")).await.assert_is(&new.manifest.bytes);
    node.get(&manifest("a", &old.manifest.digest))
        .await
        .assert_is(&old.manifest.bytes);
}

#[tokio::test]
async fn a_parent_that_names_what_it_does_not_have_hides_no_tag() {
    let parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    let new = parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::any(&new.manifest.digest).status(404));

    pass(BEYOND).await;
    let reply = node.get(&manifest("a", "v1")).await;

    reply.assert_is(&old.manifest.bytes);
    assert!(reply.header("cache-status").contains("fwd=stale"), "{reply}");
    parent.without_faults();
    pass(BEYOND).await;
    node.get(&manifest("a", "v1")).await.assert_is(&new.manifest.bytes);
}

#[tokio::test]
async fn a_digest_is_never_asked_for_again() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let node = forgetful(&parent).await;
    let targets = [manifest("a", &image.manifest.digest), blob("a", &image.layer(0))];
    for target in &targets {
        assert_eq!(node.get(target).await.status, 200);
    }
    let asked = parent.asked();

    pass(BEYOND).await;
    for target in &targets {
        assert_eq!(node.get(target).await.status, 200);
        assert_eq!(node.head(target).await.status, 200);
    }

    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn the_age_of_an_answer_shortens_its_time_here() {
    let parent = Upstream::start().await;
    parent.new_image("young", "v1", &[10]);
    parent.new_image("old", "v1", &[10]);
    parent.fault(Fault::any("/v2/young/").header("Age", "10"));
    parent.fault(Fault::any("/v2/old/").header("Age", "60"));
    let node = Node::below(&parent).await;

    for name in ["young", "old"] {
        assert_eq!(node.get(&manifest(name, "v1")).await.status, 200);
    }
    parent.forget();
    let mut ages = Vec::new();
    for name in ["young", "old"] {
        let reply = node.get(&manifest(name, "v1")).await;
        assert_eq!(reply.status, 200);
        ages.push(reply.header("age").parse::<u64>().unwrap_or(0));
    }

    assert_eq!(parent.count("", "/v2/young/"), 0);
    assert_eq!(parent.count("HEAD", "/v2/old/manifests/v1"), 1);
    assert!((10..20).contains(&ages[0]), "the age that a child is told: {}", ages[0]);
}

#[tokio::test]
async fn a_chain_is_never_staler_than_one_time_to_live() {
    let cloud = Upstream::start().await;
    let old = cloud.new_image("a", "v1", &[10]);
    let chain = Chain::set_up(&cloud.url(), Family::V4, |setup| setup.tag_ttl("3s")).await;
    let begun = Instant::now();
    chain.l5.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    let new = cloud.new_image("a", "v1", &[10]);

    pass(Duration::from_millis(2200)).await;
    chain.l4.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    chain.l3.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    pass(Duration::from_millis(3100).saturating_sub(begun.elapsed())).await;

    // Each layer alone would go on for its own three seconds.
    chain.l3.get(&manifest("a", "v1")).await.assert_is(&new.manifest.bytes);
}

#[tokio::test]
async fn while_the_parent_is_away_an_old_tag_is_served_and_marked() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.stop().await;
    pass(BEYOND).await;

    let get = node.get(&manifest("a", "v1")).await;
    let head = node.head(&manifest("a", "v1")).await;

    get.assert_is(&image.manifest.bytes);
    assert_eq!(head.status, 200);
    assert_stale(&get);
    assert_stale(&head);
    assert_not_stale(&node.get(&manifest("a", &image.manifest.digest)).await);
}

#[tokio::test]
async fn a_parent_that_is_back_makes_its_tags_fresh_again() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.stop().await;
    pass(BEYOND).await;
    assert_stale(&node.get(&manifest("a", "v1")).await);
    let new = parent.new_image("a", "v1", &[10]);
    parent.start_again().await;

    eventually("the new image is served", async || {
        node.get(&manifest("a", "v1")).await.body == new.manifest.bytes
    })
    .await;

    assert_not_stale(&node.get(&manifest("a", "v1")).await);
}

#[tokio::test]
async fn an_old_tag_survives_every_failure_of_the_parent_but_its_404() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

    for status in [401, 403, 429, 500, 502, 503] {
        parent.without_faults();
        parent.fault(Fault::any("/manifests/").status(status));
        pass(BEYOND).await;
        let reply = node.get(&manifest("a", "v1")).await;

        reply.assert_is(&image.manifest.bytes);
        assert_stale(&reply);
    }
}

#[tokio::test]
async fn a_tag_that_is_gone_above_is_gone_here_and_its_digest_stays() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.without_tag("a", "v1");

    pass(BEYOND).await;

    node.get(&manifest("a", "v1"))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
}

#[tokio::test]
async fn a_tag_that_was_gone_above_does_not_come_back_when_the_parent_is_away() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.without_tag("a", "v1");
    pass(BEYOND).await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 404);

    parent.stop().await;
    pass(BEYOND).await;

    assert_ne!(node.get(&manifest("a", "v1")).await.status, 200);
}

#[tokio::test]
async fn what_was_absent_is_found_soon_after_it_appeared() {
    let parent = Upstream::start().await;
    parent.new_image("a", "other", &[10]);
    let node = Node::below(&parent).await;
    let image = crate::support::content::Image::of(&[100]);
    let targets = [
        manifest("a", "v1"),
        manifest("a", &image.manifest.digest),
        blob("a", &image.layer(0)),
    ];
    for target in &targets {
        assert_eq!(node.get(target).await.status, 404);
    }

    parent.image("a", "v1", &image);

    for target in targets {
        eventually("it is found", async || node.get(&target).await.status == 200).await;
    }
}

#[tokio::test]
async fn a_parent_that_never_answers_delays_no_digest_and_an_old_tag_but_a_while() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = forgetful(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.fault(Fault::any("").silent());
    pass(BEYOND).await;

    let begun = Instant::now();
    node.get(&manifest("a", &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    let reply = node.get(&manifest("a", "v1")).await;

    reply.assert_is(&image.manifest.bytes);
    assert_stale(&reply);
    // `stale_after` is 2 s where nothing is said.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_tag_that_never_moves_is_asked_for_once_also_after_a_restart() {
    let parent = Upstream::start().await;
    let fixed = parent.new_image("plant/app", "v1.2.3", &[10]);
    parent.new_image("plant/app", "latest", &[10]);
    let mut node = Setup::below(&parent.url())
        .tag_ttl("0s")
        .freshness("immutable_tags = [\"v*.*.*\"]")
        .start()
        .await;

    for _ in 0..2 {
        for _ in 0..3 {
            node.get(&manifest("plant/app", "v1.2.3"))
                .await
                .assert_is(&fixed.manifest.bytes);
            node.get(&manifest("plant/app", "latest")).await;
        }
        node.restart().await;
    }

    assert_eq!(parent.count("", "/manifests/v1.2.3"), 1);
    assert!(parent.count("", "/manifests/latest") >= 6);
}
