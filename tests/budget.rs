//! How long an answer may take: until its header, however many questions a slow parent is asked for it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::chain::Chain;
use crate::support::client::{Reply, blob, manifest};
use crate::support::content::{Image, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Gate, Length, Paging, Upstream};

/// What a node below has for an answer; its parent takes [`SLOW`] for each question.
const BUDGET: Duration = Duration::from_millis(1000);
const SLOW: Duration = Duration::from_millis(800);

/// One question fits in, two do not.
const LATEST: Duration = Duration::from_millis(1400);

/// A node that answers within [`BUDGET`], with an old tag within a fifth of it.
fn hasty(parent: &Upstream) -> Setup {
    Setup::below(&parent.url())
        .freshness("answer_within = \"1s\"")
        .freshness("stale_after = \"200ms\"")
}

#[track_caller]
fn assert_in_time(reply: &Reply) {
    assert!(reply.head_after < LATEST, "a header after {:?}", reply.head_after);
}

/// 504, as of a parent that did not answer, with its name.
#[track_caller]
fn assert_too_late(reply: &Reply, parent: &Upstream) {
    assert_in_time(reply);
    assert!(reply.head_after >= BUDGET / 2, "given up after {:?}", reply.head_after);
    assert_eq!(reply.status, 504, "{reply}");
    assert_eq!(reply.header("wharf-layer"), parent.address().to_string(), "{reply}");
}

#[tokio::test]
async fn a_head_and_a_get_of_a_manifest_have_one_budget_and_what_was_late_is_there_for_the_next() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = hasty(&parent).start().await;
    parent.fault(Fault::any("/manifests/").delay(SLOW));

    let late = node.get(&manifest("a", "v1")).await;

    assert_too_late(&late, &parent);
    eventually("the transfer ends", async || {
        node.metrics().await.sum("wharf_flights", &[]) == 0.0 && parent.count("GET", "/manifests/") == 1
    })
    .await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_eq!(
        (
            parent.count("HEAD", "/manifests/v1"),
            parent.count("GET", "/manifests/")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_confirmation_and_the_flight_after_it_have_one_budget() {
    let parent = Upstream::start().await;
    let bytes = random(1000);
    let digest = parent.blob("first", &bytes);
    parent.blob("second", &bytes);
    let node = hasty(&parent).start().await;
    let gate = Gate::closed();
    parent.fault(Fault::get("/v2/first/blobs/").hold_head(&gate));
    parent.fault(Fault::any("/v2/second/blobs/").delay(SLOW));
    let client = node.client();
    let target = blob("first", &digest);
    let leader = tokio::spawn(async move { client.get(&target).await });
    eventually("the flight is under way", async || {
        parent.count("GET", "/v2/first/blobs/") == 1
    })
    .await;

    let follower = node.get(&blob("second", &digest)).await;

    assert_too_late(&follower, &parent);
    assert_too_late(&leader.await.unwrap(), &parent);
    gate.open();
}

#[tokio::test]
async fn one_who_joins_late_has_the_whole_of_its_own_budget() {
    let parent = Upstream::start().await;
    let bytes = random(1000);
    let digest = parent.blob("a", &bytes);
    let node = hasty(&parent).start().await;
    // A size that nobody says: a part can be answered when the whole is here, long after the first has left.
    let gate = Gate::closed();
    parent.fault(
        Fault::get("/v2/a/blobs/")
            .length(Length::Chunked)
            .hold_after(500, &gate),
    );

    let first = node.range(&blob("a", &digest), "0-9").await;
    let client = node.client();
    let target = blob("a", &digest);
    let second = tokio::spawn(async move { client.range(&target, "0-9").await });
    tokio::time::sleep(BUDGET / 2).await;
    gate.open();

    assert_too_late(&first, &parent);
    let second = second.await.unwrap();
    assert_eq!((second.status, second.body.as_slice()), (206, &bytes[..10]), "{second}");
    assert_eq!(parent.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn the_size_of_a_blob_that_only_its_content_tells_is_waited_for_no_longer_than_the_budget() {
    let parent = Upstream::start().await;
    let digest = parent.blob("a", &random(1000));
    let node = hasty(&parent).start().await;
    parent.fault(
        Fault::head("/v2/a/blobs/")
            .delay(SLOW)
            .without("Content-Length")
            .length(Length::Chunked),
    );
    parent.fault(Fault::get("/v2/a/blobs/").delay(SLOW));

    let reply = node.head(&blob("a", &digest)).await;

    assert_too_late(&reply, &parent);
}

#[tokio::test]
async fn bytes_that_come_after_the_header_have_no_deadline() {
    let parent = Upstream::start().await;
    let bytes = random(400 << 10);
    let digest = parent.blob("a", &bytes);
    let node = hasty(&parent).start().await;
    parent.fault(Fault::get("/v2/a/blobs/").pace(200 << 10));

    let begun = Instant::now();
    node.get(&blob("a", &digest)).await.assert_is(&bytes);

    assert!(begun.elapsed() > BUDGET, "it was to take longer than the budget");
}

#[tokio::test]
async fn two_nodes_that_wait_for_each_other_end_by_their_budget() {
    let silent = Upstream::start().await;
    let mut left = hasty(&silent).named("left").placed();
    let mut right = hasty(&silent).named("right").placed();
    (left.setup, right.setup) = (
        Setup::below(&right.url())
            .named("left")
            .freshness("answer_within = \"1s\""),
        Setup::below(&left.url())
            .named("right")
            .freshness("answer_within = \"1s\""),
    );
    left.start().await;
    right.start().await;
    let digest = crate::support::content::sha256(&random(10));
    let target = blob("a", &digest);

    let (left, right) = tokio::join!(left.get(&target), right.get(&target));

    for reply in [left, right] {
        assert_in_time(&reply);
        assert!(matches!(reply.status, 503 | 504 | 508), "{reply}");
    }
}

#[tokio::test]
async fn below_three_layers_with_the_defaults_a_header_comes_within_twenty_five_seconds_of_a_silent_cloud() {
    let cloud = Upstream::start().await;
    let known = cloud.new_image("b", "v1", &[10]);
    let chain = Chain::below(&cloud).await;
    // Each layer learns that its parent is one of these nodes, and may be told how long is waited.
    chain
        .l3
        .get(&manifest("b", "v1"))
        .await
        .assert_is(&known.manifest.bytes);
    cloud.fault(Fault::any("/v2/a/").silent());
    let digest = crate::support::content::sha256(&random(10));
    let (tag, layer) = (manifest("a", "v1"), blob("a", &digest));

    let (head, tag, layer) = tokio::join!(chain.l3.head(&tag), chain.l3.get(&tag), chain.l3.get(&layer));

    for reply in [head, tag, layer] {
        assert!(matches!(reply.status, 503 | 504), "{reply}");
        assert!(reply.head_after < Duration::from_secs(25), "{:?}", reply.head_after);
        assert_eq!(reply.header("wharf-layer"), cloud.address().to_string(), "{reply}");
    }
}

#[tokio::test]
async fn a_parent_too_slow_for_an_old_tag_makes_it_new_for_the_next() {
    let parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[10]);
    let node = hasty(&parent).tag_ttl("300ms").start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    let new = parent.new_image("a", "v1", &[10]);
    parent.forget();
    parent.fault(Fault::head("/manifests/v1").delay(Duration::from_millis(500)));
    tokio::time::sleep(Duration::from_millis(350)).await;

    let first = node.get(&manifest("a", "v1")).await;

    first.assert_is(&old.manifest.bytes);
    assert!(first.has("warning"), "{first}");
    assert!(first.head_after < Duration::from_millis(450), "{:?}", first.head_after);
    eventually("the new image is served", async || {
        node.get(&manifest("a", "v1")).await.body == new.manifest.bytes
    })
    .await;
}

#[tokio::test]
async fn stale_answers_are_counted_and_tell_their_age_and_why() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = hasty(&parent).named("plant").start().await;
    // Sixty seconds are its time to live: what comes so old is asked for again at once.
    parent.fault(Fault::head("/manifests/v1").times(1).header("Age", "60"));
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.fault(Fault::any("").silent());
    let stale = |kind| [("kind", kind), ("outcome", "stale")];
    let before = node.metrics().await;

    let reply = node.get(&manifest("a", "v1")).await;

    reply.assert_is(&image.manifest.bytes);
    let age: u64 = reply.header("age").parse().unwrap();
    assert!((61..=70).contains(&age), "{reply}");
    assert_eq!(reply.header("cache-status"), "plant; fwd=stale");
    let reason = format!("{} did not answer within 200ms", parent.address());
    assert_eq!(
        reply.header("warning"),
        format!("299 - \"plant serves what it has, which may be old: {reason}\"")
    );
    let after = node.metrics().await;
    let counted = |name: &str, labels: &[_]| after.sum(name, labels) - before.sum(name, labels);
    assert_eq!(counted("wharf_cache_requests_total", &stale("manifest")), 1.0);
    assert_eq!(counted("wharf_cache_requests_total", &[("outcome", "stale")]), 1.0);
    assert_eq!(counted("wharf_cache_requests_total", &[]), 1.0);
}

/// A parent with `count` tags, one a page, and a hasty node below it.
async fn paged(count: usize) -> (Upstream, Node) {
    let parent = Upstream::start().await;
    let image = Image::of(&[10]);
    for at in 0..count {
        parent.image("a", &format!("v{at}"), &image);
    }
    parent.paging(Paging::AtMost(1));
    let node = hasty(&parent).tag_ttl("300ms").start().await;
    (parent, node)
}

#[tokio::test]
async fn an_old_list_is_served_while_a_slow_parent_gives_the_new_one_page_by_page() {
    let (parent, node) = paged(9).await;
    let old = node.get("/v2/a/tags/list").await.json();
    parent.image("a", "v9", &Image::of(&[10]));
    parent.fault(Fault::get("/tags/list").delay(Duration::from_millis(150)));
    tokio::time::sleep(Duration::from_millis(350)).await;

    let first = node.get("/v2/a/tags/list").await;

    assert_eq!(first.json(), old);
    assert!(first.has("warning"), "{first}");
    assert!(first.head_after < Duration::from_millis(600), "{:?}", first.head_after);
    eventually("the new list is served", async || {
        node.get("/v2/a/tags/list").await.json()["tags"]
            .as_array()
            .unwrap()
            .len()
            == 10
    })
    .await;
}

#[tokio::test]
async fn a_list_of_many_slow_pages_is_late_for_the_first_and_there_for_a_later_one() {
    let (parent, node) = paged(10).await;
    parent.fault(Fault::get("/tags/list").delay(Duration::from_millis(150)));

    let first = node.get("/v2/a/tags/list").await;

    assert_too_late(&first, &parent);
    eventually("the list is served", async || {
        let reply = node.get("/v2/a/tags/list").await;
        reply.status == 200 && reply.json()["tags"].as_array().unwrap().len() == 10
    })
    .await;
}

#[tokio::test]
async fn pages_that_bring_nothing_new_end_a_list_and_are_not_asked_for_again_at_once() {
    for (target, body) in [
        ("tags/list", json!({ "name": "a", "tags": ["v1"] })),
        (
            "referrers/",
            json!({ "schemaVersion": 2, "manifests": [{ "digest": "x" }] }),
        ),
    ] {
        let parent = Upstream::start().await;
        parent.new_image("a", "v1", &[10]);
        for at in 0..2000 {
            let link = format!("<?page={at}>; rel=\"next\"");
            let page = Fault::get(target).times(1).body(body.to_string());
            parent.fault(page.header("Link", &link));
        }
        let node = Node::below(&parent).await;
        let target = match target {
            "tags/list" => "/v2/a/tags/list".to_owned(),
            _ => format!("/v2/a/referrers/{}", crate::support::content::sha256(&random(10))),
        };

        let reply = node.get(&target).await;
        let again = node.get(&target).await;

        assert_eq!((reply.status, again.status), (502, 502), "{reply}");
        assert_eq!(reply.header("wharf-layer"), parent.address().to_string(), "{reply}");
        assert!(parent.asked() <= 20, "asked {} times", parent.asked());
    }
}

#[tokio::test]
async fn a_list_whose_pages_lead_round_in_a_circle_ends_with_what_they_bring() {
    let parent = Upstream::start().await;
    for (at, tag) in ["v1", "v2", "v1", "v2", "v1", "v2"]
        .iter()
        .cycle()
        .take(2000)
        .enumerate()
    {
        let body = json!({ "name": "a", "tags": [tag] }).to_string();
        let link = format!("<?page={}>; rel=\"next\"", at % 2);
        parent.fault(Fault::get("/tags/list").times(1).body(body).header("Link", &link));
    }
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;

    let reply = node.get("/v2/a/tags/list").await;

    assert_eq!(reply.json()["tags"], json!(["v1", "v2"]), "{reply}");
    assert!(parent.asked() <= 4, "asked {} times", parent.asked());
}

/// `count` tags of sixty characters.
fn long_tags(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{at:060}")).collect()
}

#[tokio::test]
async fn a_hundred_thousand_tags_are_listed_and_outlive_a_restart() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let tags = long_tags(100_000);
    let body = json!({ "name": "a", "tags": tags }).to_string();
    parent.fault(Fault::get("/tags/list").body(body));
    let mut node = Node::below(&parent).await;

    for after in [0, 49_999, 98_999] {
        let page = node.get(&after_tag(&tags[after])).await;
        assert!(
            page.json()["tags"] == json!(tags[after + 1..=after + 1000]),
            "after {after}"
        );
        assert_eq!(page.has("link"), after < 98_999);
    }
    assert_eq!(parent.asked(), 1);

    parent.stop().await;
    node.stop().await;
    node.start().await;
    let stale = node.get(&after_tag(&tags[0])).await;

    assert!(stale.has("warning"));
    assert!(stale.json()["tags"] == json!(tags[1..=1000]));
}

fn after_tag(tag: &str) -> String {
    format!("/v2/a/tags/list?n=1000&last={tag}")
}

#[tokio::test]
async fn a_list_larger_than_any_is_refused_in_words_and_not_fetched_again_at_once() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    // Ten pages of two and a half megabytes, each within what a page may have.
    for (at, tags) in long_tags(400_000).chunks(40_000).enumerate() {
        let page = Fault::get("/tags/list").times(1);
        let page = page.body(json!({ "name": "a", "tags": tags }).to_string());
        parent.fault(page.header("Link", &format!("<?page={at}>; rel=\"next\"")));
    }

    let reply = node.get("/v2/a/tags/list").await;
    let asked = parent.asked();
    let again = node.get("/v2/a/tags/list").await;

    assert_eq!((reply.status, again.status), (502, 502), "{}", reply.text());
    assert!(reply.text().contains("bytes"), "{reply}");
    assert_eq!(parent.asked(), asked, "it is fetched again");
    assert!(asked < 10, "all of it was fetched");
}
