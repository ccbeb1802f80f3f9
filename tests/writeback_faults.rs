//! Kills, losses and refusals on the way to the parent: what was pushed arrives, or somebody is told why it does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::owing::{below, parent};
use crate::support::upstream::{Access, Book, Cut, Fault, Gate, Upstream};

const MIB: usize = 1 << 20;

/// Delivers an image of which the parent holds one answer back until the node was killed, and starts the node again.
///
/// The node is killed when the parent `has_come` to it.
async fn killed_at(step: Fault, has_come: impl Fn(&Upstream) -> bool) {
    let parent = parent().await;
    let mut node = below(&parent).start().await;
    let before = Image::of(&[100]);
    node.to("a").image("v0", &before).await;
    node.drained().await;
    parent.forget();
    let gate = Gate::closed();
    parent.fault(step.hold_head(&gate));
    let image = Image::of(&[2 * MIB, 1000]);

    node.to("a").image("v1", &image).await;
    eventually("the parent has come to that step", async || has_come(&parent)).await;
    node.kill();
    parent.without_faults();
    gate.open();
    node.start().await;
    node.drained().await;

    assert_delivered(&parent, &image);
    assert!(parent.has_image("a", "v0", &before));
}

/// It is there, whole, under its tag, and nothing came more often than twice.
fn assert_delivered(parent: &Upstream, image: &Image) {
    assert!(parent.has_image("a", "v1", image));
    for digest in [image.layer(0), image.layer(1), image.config_digest()] {
        let times = parent.times_kept(&digest);
        assert!((1..=2).contains(&times), "{digest} came {times} times");
    }
    let kept = parent.manifests_kept("a");
    let digest = &image.manifest.digest;
    assert!(kept.len() <= 4, "{kept:?}");
    assert!(kept.iter().all(|name| name == digest || name == "v1"), "{kept:?}");
}

#[tokio::test]
async fn killed_while_it_asks_for_a_blob_a_node_delivers_after_the_restart() {
    killed_at(Fault::head("/blobs/sha256:"), |parent| {
        parent.count("HEAD", "/blobs/sha256:") > 0
    })
    .await;
}

#[tokio::test]
async fn killed_while_it_opens_an_upload_a_node_delivers_after_the_restart() {
    killed_at(Fault::post("/blobs/uploads/"), |parent| {
        parent.count("POST", "/blobs/uploads/") > 0
    })
    .await;
}

#[tokio::test]
async fn killed_in_the_middle_of_a_blob_a_node_delivers_after_the_restart() {
    let never = Gate::closed();
    killed_at(Fault::patch("").pause_reading_after(MIB as u64, &never), |parent| {
        parent.blob_bytes_received() >= MIB as u64
    })
    .await;
}

#[tokio::test]
async fn killed_when_all_of_a_blob_was_sent_a_node_delivers_after_the_restart() {
    killed_at(Fault::patch(""), |parent| {
        parent.blob_bytes_received() >= 2 * MIB as u64
    })
    .await;
}

#[tokio::test]
async fn killed_while_it_ends_an_upload_a_node_delivers_after_the_restart() {
    killed_at(Fault::put("/blobs/uploads/"), |parent| {
        parent.count("PUT", "/blobs/uploads/") > 0
    })
    .await;
}

#[tokio::test]
async fn killed_while_it_puts_a_manifest_a_node_delivers_after_the_restart() {
    killed_at(Fault::put("/manifests/sha256:"), |parent| {
        parent.count("PUT", "/manifests/sha256:") > 0
    })
    .await;
}

#[tokio::test]
async fn killed_while_it_looks_for_a_manifest_that_it_put_a_node_delivers_after_the_restart() {
    killed_at(Fault::head("/manifests/sha256:").skip(1), |parent| {
        parent.count("HEAD", "/manifests/sha256:") > 1
    })
    .await;
}

#[tokio::test]
async fn killed_while_it_moves_a_tag_a_node_delivers_after_the_restart() {
    killed_at(Fault::put("/manifests/v1"), |parent| {
        parent.count("PUT", "/manifests/v1") > 0
    })
    .await;
}

#[tokio::test]
async fn killed_before_it_writes_down_what_arrived_a_node_asks_again_and_sends_nothing() {
    let parent = parent().await;
    let mut node = below(&parent).placed();
    node.environment("FAILPOINTS", "queue.settle=pause");
    node.start().await;
    let image = Image::of(&[2 * MIB, 1000]);

    node.to("a").image("v1", &image).await;
    eventually("the parent was asked for the tag that it got", async || {
        let seen = parent.seen("", "/manifests/v1");
        let mut later = seen.iter().skip_while(|seen| seen.method != "PUT").skip(1);
        later.any(|seen| seen.method == "HEAD" && seen.ended())
    })
    .await;
    assert_eq!(node.states("a").await, ["paying"]);
    node.kill();
    node.environment("FAILPOINTS", "");
    let sent = parent.count("PUT", "");
    node.start().await;
    node.drained().await;

    assert_delivered(&parent, &image);
    assert_eq!(parent.count("PUT", ""), sent);
}

/// Looks for what was delivered all the time.
const CHECKS: &str = "[queue]\ncheck_every = \"300ms\"\n";

#[tokio::test]
async fn what_a_parent_loses_that_is_restored_from_an_old_backup_is_delivered_again_with_its_tag() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let old = Image::of(&[1000]);
    node.to("a").image("old", &old).await;
    node.drained().await;
    let backup = parent.backup();
    let (lost, other) = (Image::of(&[2 * MIB]), Image::of(&[1000]));
    node.to("a").image("v1", &lost).await;
    node.to("b").image("v1", &other).await;
    node.released().await;

    parent.restore(backup);
    eventually("the parent has all of it again", async || {
        parent.has_image("a", "v1", &lost) && parent.has_image("b", "v1", &other)
    })
    .await;
    node.released().await;

    assert!(parent.has_image("a", "old", &old));
    assert_eq!(node.counts("wharf_queue_again_total").await, 2.0);
    assert_eq!(node.counts("wharf_queue_lost_total").await, 0.0);
    assert!(
        node.log()
            .contains("the parent lost what it had taken; it is delivered again")
    );
}

#[tokio::test]
async fn what_a_parent_loses_and_is_here_no_more_is_said_and_counted_once() {
    let parent = parent().await;
    let node = below(&parent).capacity("64MiB").more(CHECKS).start().await;
    let backup = parent.backup();
    let image = Image::of(&[16 * MIB]);
    node.to("a").image("v1", &image).await;
    node.released().await;
    node.crowd_out(&parent, 2, 30 * MIB).await;
    eventually("the layer was evicted", async || !node.has_stored(&image.layer(0))).await;

    parent.restore(backup);
    eventually("the loss is counted", async || {
        node.counts("wharf_queue_lost_total").await > 0.0
    })
    .await;

    let checks = parent.count("HEAD", "/manifests/sha256:");
    let other = Image::of(&[10]);
    node.to("b").image("v1", &other).await;
    node.drained().await;
    eventually("it is looked for what was delivered", async || {
        parent.count("HEAD", "/manifests/sha256:") > checks + 4
    })
    .await;
    assert_eq!(node.counts("wharf_queue_lost_total").await, 1.0);
    assert!(node.owed().await.is_empty());
    let log = node.log();
    assert!(
        log.contains("it is not whole here any more; push it again") && log.contains(&image.manifest.digest),
        "{log}"
    );
}

#[tokio::test]
async fn a_tag_that_was_deleted_here_does_not_come_back_when_the_parent_loses_what_it_named() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let backup = parent.backup();
    let image = Image::of(&[1000]);
    node.to("a").image("gone", &image).await;
    node.drained().await;
    assert_eq!(node.to("a").delete("manifests/gone").await.status, 202);
    node.to("a").manifest("kept", &image.manifest).await;
    node.released().await;

    parent.restore(backup);
    eventually("the parent has it again", async || {
        parent.has_image("a", "kept", &image) && node.owed().await.is_empty()
    })
    .await;

    assert_eq!(parent.tag_of("a", "gone"), None);
    assert_eq!(node.to("a").tags().await, ["kept"]);
}

#[tokio::test]
async fn a_tag_that_went_with_its_manifest_does_not_come_back_when_that_is_pushed_again() {
    let mut parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let image = Image::of(&[1000]);
    let backup = parent.backup();
    parent.stop().await;
    node.to("a").image("v1", &image).await;
    let deleted = format!("manifests/{}", image.manifest.digest);
    assert_eq!(node.to("a").delete(&deleted).await.status, 202);
    node.to("a").image("v2", &image).await;
    assert_eq!(node.to("a").tags().await, ["v2"]);

    parent.start_again().await;
    node.released().await;
    assert_eq!(node.to("a").tags().await, ["v2"]);
    parent.restore(backup);
    eventually("the parent has it again", async || {
        parent.has_image("a", "v2", &image) && node.owed().await.is_empty()
    })
    .await;

    assert_eq!(parent.tag_of("a", "v1"), None);
    assert_eq!(node.to("a").tags().await, ["v2"]);
}

#[tokio::test]
async fn of_a_parent_that_lost_something_tags_are_missed_too_and_of_another_none_is_put_back() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let (image, other) = (Image::of(&[1000]), Image::of(&[1000]));
    node.to("a").image("v1", &image).await;
    node.to("a").manifest("gone", &image.manifest).await;
    node.released().await;
    parent.without_tag("a", "gone");
    let backup = parent.backup();
    let checks = parent.count("HEAD", "/manifests/sha256:");
    eventually("it is looked for what was delivered", async || {
        parent.count("HEAD", "/manifests/sha256:") > checks + 4
    })
    .await;
    assert_eq!(parent.tag_of("a", "gone"), None, "somebody deleted it there");
    node.to("a").manifest("v2", &image.manifest).await;
    node.to("b").image("v1", &other).await;
    node.released().await;

    parent.restore(backup);

    eventually("the parent has all of it again", async || {
        parent.has_image("a", "v2", &image) && parent.has_image("b", "v1", &other)
    })
    .await;
}

#[tokio::test]
async fn what_has_no_name_any_more_is_not_missed_when_the_parent_sweeps_it_away() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let (before, image) = (Image::of(&[1000]), Image::of(&[1000]));
    node.to("a").image("v1", &before).await;
    node.drained().await;
    node.to("a").image("v1", &image).await;
    node.released().await;
    parent.without_manifest("a", &before.manifest.digest);
    let checks = parent.count("HEAD", "/manifests/sha256:");

    eventually("it is looked for what was delivered", async || {
        parent.count("HEAD", "/manifests/sha256:") > checks + 4
    })
    .await;

    assert_eq!(node.counts("wharf_queue_again_total").await, 0.0);
    assert!(
        !parent
            .manifests()
            .contains(&("a".to_owned(), before.manifest.digest.clone()))
    );
    parent.without_manifest("a", &image.manifest.digest);
    eventually("what has a name is delivered again", async || {
        parent.has_image("a", "v1", &image)
    })
    .await;
}

#[tokio::test]
async fn what_others_put_under_a_tag_since_stays_when_the_parent_loses_what_was_delivered() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let ours = Image::of(&[1000]);
    node.to("a").image("v1", &ours).await;
    node.released().await;

    // The registry throws away what no tag names.
    let theirs = parent.new_image("a", "v1", &[2000]);
    parent.without_manifest("a", &ours.manifest.digest);
    eventually("it is delivered again", async || {
        node.counts("wharf_queue_again_total").await > 0.0 && node.owed().await.is_empty()
    })
    .await;

    assert!(parent.has_image("a", "v1", &theirs));
    node.to("a").assert_has("v1", &theirs).await;
    assert_eq!(node.counts("wharf_queue_conflicts_total").await, 0.0);
}

#[tokio::test]
async fn a_repository_that_may_not_be_asked_for_hides_no_loss_in_another() {
    let parent = parent().await;
    let node = below(&parent).more(CHECKS).start().await;
    let backup = parent.backup();
    let image = Image::of(&[1000]);
    for name in ["a", "b"] {
        node.to(name).image("v1", &image).await;
        node.drained().await;
    }
    node.released().await;

    parent.fault(Fault::any("/v2/a/").status(403));
    parent.restore(backup);

    eventually("the parent has it again", async || parent.has_image("b", "v1", &image)).await;
}

#[tokio::test]
async fn what_a_parent_took_without_an_answer_is_not_sent_again() {
    for path in ["/blobs/uploads/", "/manifests/sha256:", "/manifests/v1"] {
        for (cut, times) in [(Cut::Rst, 1), (Cut::Fin, 1), (Cut::Fin, 2)] {
            let parent = parent().await;
            let node = below(&parent).start().await;
            parent.fault(Fault::put(path).unanswered(cut).times(times));
            let image = Image::of(&[2 * MIB]);

            node.to("a").image("v1", &image).await;
            node.drained().await;

            assert!(parent.has_image("a", "v1", &image), "{path}");
            assert_eq!(parent.times_kept(&image.layer(0)), 1, "{path}");
            assert_eq!(parent.times_kept(&image.config_digest()), 1, "{path}");
            let (kept, digest) = (parent.manifests_kept("a"), &image.manifest.digest);
            let times = |name: &str| kept.iter().filter(|kept| *kept == name).count();
            let more = |of: &str| usize::from(path.contains(of));
            assert!((1..=1 + more("sha256:")).contains(&times(digest)), "{path}: {kept:?}");
            assert!((1..=1 + more("v1")).contains(&times("v1")), "{path}: {kept:?}");
            let received = parent.blob_bytes_received();
            assert!(received <= 2 * MIB as u64 + 3000, "{path}: {received} bytes came");
        }
    }
}

#[tokio::test]
async fn a_manifest_before_its_blobs_is_refused_and_never_owed() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    node.to("a").blob(&image.config).await;

    let refused = node.to("a").put_manifest("v1", &image.manifest).await;

    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert!(refused.text().contains(&image.layer(0)), "{refused}");
    assert!(node.owed().await.is_empty());
    node.to("a").image("v1", &image).await;
    node.drained().await;
    assert_eq!(parent.manifests_kept("a"), [image.manifest.digest.as_str(), "v1"]);
}

/// What it says to whoever asks whether it is ready.
async fn reasons(node: &Node) -> String {
    let ready = node.admin("/readyz").await;
    assert_eq!(ready.status, 200, "{ready}");
    ready.json()["reasons"].to_string()
}

async fn items_in(node: &Node, state: &str) -> f64 {
    node.metrics().await.sum("wharf_queue_items", &[("state", state)])
}

#[tokio::test]
async fn what_the_parent_refuses_for_ever_is_parked_and_holds_up_nobody() {
    for (status, poison) in [
        (400, Fault::put("/v2/a/manifests/sha256:")),
        (413, Fault::patch("/v2/a/blobs/uploads/")),
        (413, Fault::patch("/v2/a/blobs/uploads/").unread()),
    ] {
        let parent = parent().await;
        let mut node = below(&parent).start().await;
        node.to("a").image("v0", &Image::of(&[10])).await;
        node.drained().await;
        parent.fault(poison.times(3).status(status));
        let (bad, good) = (Image::of(&[3 * MIB]), Image::of(&[1000]));

        node.to("a").image("bad", &bad).await;
        node.to("a").image("good", &good).await;
        node.to("b").image("good", &good).await;
        eventually("the others arrive", async || {
            parent.has_image("b", "good", &good) && parent.has_image("a", "good", &good)
        })
        .await;
        node.stands("a", &["parked"]).await;

        let item = node.owed().await[0].clone();
        assert_eq!(item["tags"][0], "bad", "{item}");
        let reason = item["reason"].as_str().unwrap();
        assert!(reason.contains(&status.to_string()), "{reason}");
        assert_eq!(items_in(&node, "parked").await, 1.0);
        let said = reasons(&node).await;
        assert!(
            said.contains("wharf queue list") && said.contains("first in a"),
            "{said}"
        );
        assert!(node.log().contains("a push is parked"), "{}", node.log());
        node.restart().await;
        assert_eq!(node.states("a").await, ["parked"]);
        node.to("a").assert_has("bad", &bad).await;

        let number = item["number"].to_string();
        let tried = node.settle(&format!("retry?number={number}")).await;
        assert_eq!(tried.json()["items"][0]["tags"][0], "bad", "{tried}");
        node.drained().await;
        assert!(parent.has_image("a", "bad", &bad));
        assert!(!reasons(&node).await.contains("wharf queue list"));
    }
}

#[tokio::test]
async fn what_the_settings_let_nothing_of_pass_any_more_waits_with_that_reason_and_no_other_does() {
    let mut parent = parent().await;
    let mut node = below(&parent).start().await;
    parent.stop().await;
    let image = Image::of(&[1000]);
    for name in ["secret/a", "b"] {
        node.to(name).image("v1", &image).await;
    }
    node.setup = below(&parent).parent("deny = [\"secret/*\"]");
    node.restart().await;
    parent.start_again().await;

    node.stands("secret/a", &["parked"]).await;
    eventually("the other arrives", async || parent.has_image("b", "v1", &image)).await;
    let reason = node.owed().await[0]["reason"].as_str().unwrap().to_owned();

    assert!(reason.contains("`allow` and `deny` of [parent]"), "{reason}");
    assert_eq!(parent.count("", "/v2/secret/"), 0);
}

#[tokio::test]
async fn a_blob_of_which_only_the_end_is_refused_is_parked_though_it_got_on_each_time() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    parent.fault(Fault::put("/v2/a/blobs/uploads/").status(400));
    let (bad, good) = (Image::of(&[MIB]), Image::of(&[MIB]));

    node.to("a").image("v1", &bad).await;
    node.to("b").image("v1", &good).await;

    node.stands("a", &["parked"]).await;
    eventually("the other arrives", async || parent.has_image("b", "v1", &good)).await;
    let parts = parent.count("PATCH", "/v2/a/");
    assert!(parts <= 9, "{parts}");
}

#[tokio::test]
async fn what_a_registry_that_takes_pushes_says_405_to_is_parked_and_pushes_go_on() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    parent.fault(Fault::put("/v2/a/manifests/sha256:").status(405));
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.stands("a", &["parked"]).await;
    node.to("b").image("v1", &image).await;
    eventually("the other arrives", async || parent.has_image("b", "v1", &image)).await;
}

#[tokio::test]
async fn a_delete_that_the_account_may_not_make_holds_up_no_push() {
    for status in [401, 403] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        let (before, image) = (Image::of(&[1000]), Image::of(&[1000]));
        node.to("a").image("old", &before).await;
        node.drained().await;
        parent.fault(Fault::write("/v2/a/manifests/old").status(status));

        assert_eq!(node.to("a").delete("manifests/old").await.status, 202);
        node.to("a").image("v1", &image).await;
        eventually("what was pushed after it arrives", async || {
            parent.has_image("a", "v1", &image)
        })
        .await;

        node.stands("a", &["parked"]).await;
        assert_eq!(node.counts("wharf_queue_paused").await, 0.0);
    }
}

#[tokio::test]
async fn what_is_parked_is_tried_again_after_a_while_though_nobody_comes_to_look() {
    let parent = parent().await;
    let mut node = below(&parent).placed();
    node.environment("FAILPOINTS", "queue.first_parking=return");
    node.start().await;
    parent.fault(Fault::put("/v2/a/manifests/sha256:").status(400).times(3));
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert!(node.log().contains("a push is parked"), "{}", node.log());
}

#[tokio::test]
async fn what_is_parked_is_tried_three_times_and_can_be_dropped() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    parent.fault(
        Fault::put("/v2/a/manifests/sha256:")
            .status(400)
            .code("MANIFEST_INVALID"),
    );
    node.to("a").image("v1", &image).await;
    node.stands("a", &["parked"]).await;
    assert_eq!(parent.count("PUT", "/v2/a/manifests/"), 3);

    let dropped = node.settle("drop?repository=a").await;

    assert_eq!(dropped.json()["items"][0]["state"], "parked", "{dropped}");
    node.released().await;
    assert_eq!(items_in(&node, "parked").await, 0.0);
    assert_eq!(parent.count("PUT", "/v2/a/manifests/"), 3);
    node.to("a")
        .get("manifests/v1")
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_repository_to_which_the_parent_forbids_pushes_waits_in_sight_and_no_other_does() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let forbids = Fault::write("/v2/a/").status(403).code("DENIED");
    parent.fault(forbids.clone());
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.to("a").image("v2", &image).await;
    node.to("b").image("v1", &image).await;
    node.stands("a", &["parked", "parked"]).await;
    eventually("the other arrives", async || parent.has_image("b", "v1", &image)).await;

    let item = node.owed().await[0].clone();
    let reason = item["reason"].as_str().unwrap();
    assert!(reason.contains("403") && reason.contains("DENIED"), "{item}");
    assert!(item["retry_ms"].as_u64().unwrap() > 1000, "{item}");
    assert!(reasons(&node).await.contains("403"));
    assert_eq!(items_in(&node, "parked").await, 2.0);
    assert_eq!(node.counts("wharf_queue_paused").await, 0.0);
    forbids.end();
    node.settle("retry?repository=a").await;
    node.drained().await;
    assert!(parent.has_image("a", "v1", &image) && parent.has_image("a", "v2", &image));
}

#[tokio::test]
async fn wharf_queue_lists_retries_and_drops_and_says_what_it_did() {
    let parent = parent().await;
    let mut node = below(&parent).start().await;
    let poison = Fault::put("/manifests/sha256:").status(400);
    parent.fault(poison.clone());
    let image = Image::of(&[1000]);
    for name in ["plant/a", "plant/b", "plant/c"] {
        node.to(name).image("v1", &image).await;
    }
    for name in ["plant/a", "plant/b", "plant/c"] {
        node.stands(name, &["parked"]).await;
    }

    let listed = node.wharf_queue(&["list"]);
    assert_eq!(listed.code, Some(0), "{}", listed.words);
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
    for (line, name) in listed.out.lines().zip(["plant/a:v1", "plant/b:v1", "plant/c:v1"]) {
        assert!(
            line.contains("parked") && line.contains(name) && line.contains("400"),
            "{line}"
        );
    }
    assert!(
        listed.words.contains("3 waiting for") && listed.words.contains(&parent.url()),
        "{}",
        listed.words
    );
    let json: serde_json::Value = serde_json::from_str(&node.wharf_queue(&["list", "--json"]).out).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 3);

    let number = json["items"][0]["number"].to_string();
    let asked = node.wharf_queue(&["drop", &number]);
    assert_eq!(asked.code, Some(0), "{}", asked.words);
    assert!(asked.words.contains("1 would be dropped") && asked.out.contains("plant/a:v1"));
    assert_eq!(node.owed().await.len(), 3);
    let dropped = node.wharf_queue(&["drop", &number, "--force"]);
    assert!(dropped.words.contains("1 dropped"), "{}", dropped.words);
    assert_eq!(node.owed().await.len(), 2);

    poison.end();
    let unknown = node.wharf_queue(&["drop", &number, "plant/c", "999"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.words);
    assert!(
        unknown.words.contains(&format!("nothing waits under {number}, 999")) && unknown.out.contains("plant/c:v1"),
        "{}",
        unknown.words
    );
    let tried = node.wharf_queue(&["retry", "plant/b"]);
    assert_eq!(tried.code, Some(0), "{}", tried.words);
    assert!(tried.words.contains("1 tried again") && tried.out.contains("plant/b:v1"));
    eventually("it arrives", async || parent.has_image("plant/b", "v1", &image)).await;
    assert_eq!(node.wharf_queue(&["retry", "--all"]).code, Some(0));
    node.drained().await;
    assert!(parent.has_image("plant/c", "v1", &image));
    assert_eq!(parent.tag_of("plant/a", "v1"), None);

    let none = node.wharf_queue(&["retry"]);
    assert_eq!(none.code, Some(2), "{}", none.words);
    node.stop().await;
    let away = node.wharf_queue(&["list"]);
    assert_eq!(away.code, Some(1));
    assert!(away.words.contains("no node answers") && away.words.contains("--admin"));
}

/// A node that asks its parent as `l4` with the password `secret`, which lies in its folder.
async fn with_a_password(parent: &Upstream) -> Node {
    let setup = below(parent)
        .parent("username = \"l4\"")
        .parent("password_file = \"password\"");
    let mut node = setup.placed();
    write_password(&node, "secret");
    node.start().await;
    node
}

fn write_password(node: &Node, password: &str) {
    let path = node.folder().join("password");
    fs::write(&path, password).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Everything waits, and it is told why.
async fn assert_paused(node: &Node) {
    eventually("nothing is delivered", async || {
        node.counts("wharf_queue_paused").await == 1.0
    })
    .await;
    assert!(node.queue().await["paused"].is_string());
    assert!(reasons(node).await.contains("reaches the parent"));
    let log = node.log();
    assert!(log.contains("the parent lets this node push nothing"), "{log}");
}

#[tokio::test]
async fn while_the_account_may_not_push_all_waits_and_once_it_may_all_arrives() {
    let parent = parent().await;
    let book = Book::of("l4", "secret");
    parent.bearer(&book);
    let node = with_a_password(&parent).await;
    let image = Image::of(&[1000]);
    node.to("a").image("v0", &image).await;
    node.drained().await;

    book.withhold("push");
    book.revoke();
    node.to("a").image("v1", &image).await;
    node.to("b").image("v1", &image).await;
    assert_paused(&node).await;
    assert_eq!(node.owed().await.len(), 2);
    node.to("a").assert_has("v1", &image).await;
    assert!(node.wharf_queue(&["list"]).words.contains("nothing is delivered"));

    book.withhold_nothing();
    node.settle("retry?all=true").await;
    node.drained().await;
    assert!(parent.has_image("a", "v1", &image) && parent.has_image("b", "v1", &image));
    assert_eq!(node.counts("wharf_queue_paused").await, 0.0);
}

#[tokio::test]
async fn while_the_password_is_refused_all_waits_and_with_the_right_one_all_arrives() {
    let parent = parent().await;
    let access = |password: &str| Access::Basic {
        user: "l4".to_owned(),
        password: password.to_owned(),
    };
    parent.access(access("secret"));
    let mut node = with_a_password(&parent).await;
    let image = Image::of(&[1000]);
    node.to("a").image("v0", &image).await;
    node.drained().await;

    parent.access(access("changed"));
    node.to("a").image("v1", &image).await;
    assert_paused(&node).await;
    node.restart().await;
    assert_paused(&node).await;
    assert_eq!(node.owed().await.len(), 1);

    write_password(&node, "changed");
    node.settle("retry?all=true").await;
    node.drained().await;
    assert_eq!(node.counts("wharf_queue_paused").await, 0.0);
}

#[tokio::test]
async fn who_pushes_while_the_password_is_refused_is_told_that_nothing_is_here_and_pushes() {
    let parent = parent().await;
    let node = with_a_password(&parent).await;
    parent.access(Access::Basic {
        user: "l4".to_owned(),
        password: "changed".to_owned(),
    });
    let image = Image::of(&[1000]);

    for name in ["v1", &image.manifest.digest] {
        let head = node.to("a").head(&format!("manifests/{name}")).await;
        assert_eq!(head.status, 404, "{head}");
        let get = node.to("a").get(&format!("manifests/{name}")).await;
        assert_eq!(get.status, 502, "who pulls is told why: {get}");
    }
    node.to("a").image("v1", &image).await;
    assert_paused(&node).await;
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_pauses_nothing() {
    let parent = parent().await;
    let book = Book::expiring_after(60);
    parent.bearer(&book);
    let node = below(&parent).start().await;
    let gate = Gate::closed();
    let image = Image::of(&[MIB, 1000, 2000]);
    parent.fault(Fault::patch("/blobs/uploads/").hold_head(&gate).times(1));

    node.to("a").image("v1", &image).await;
    eventually("the layer comes", async || parent.count("PATCH", "") == 1).await;
    book.revoke();
    gate.open();
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert!(!node.log().contains("lets this node push nothing"));
}

#[tokio::test]
async fn a_queue_that_is_full_takes_no_more_pushes_and_goes_on_serving() {
    let mut parent = parent().await;
    let theirs = parent.new_image("b", "v1", &[1000]);
    let node = below(&parent)
        .capacity("64MiB")
        .more("[queue]\ncapacity = \"10MiB\"\n")
        .start()
        .await;
    node.to("b").assert_has("v1", &theirs).await;
    let stuck = Fault::put("/v2/a/manifests/").status(503);
    parent.fault(stuck.clone());
    let (first, second) = (Image::of(&[8 * MIB]), Image::of(&[4 * MIB]));
    node.to("a").image("v1", &first).await;

    let location = node.to("a").open().await;
    let refused = node
        .to("a")
        .finish(&location, &second.layer(0), &second.layers[0])
        .await;
    refused.assert_error(507, "UNAVAILABLE");
    assert!(refused.text().contains("queue.capacity"), "{refused}");
    assert!(node.metrics().await.sum("wharf_refused_total", &[("limit", "queue")]) > 0.0);
    assert!(reasons(&node).await.contains("queue.capacity"));

    node.crowd_out(&parent, 3, 25 * MIB).await;
    assert!(node.has_stored(&first.layer(0)), "what is owed was evicted");
    parent.stop().await;
    node.to("a").assert_has("v1", &first).await;
    parent.start_again().await;
    stuck.end();
    node.released().await;
    assert!(parent.has_image("a", "v1", &first));
    node.to("a").image("v2", &second).await;
    node.drained().await;
    assert!(parent.has_image("a", "v2", &second));
}

#[tokio::test]
async fn what_is_owed_stays_after_a_restart_too_whatever_is_pulled_even_if_it_was_delivered_before() {
    let parent = parent().await;
    let mut node = below(&parent).capacity("64MiB").start().await;
    let (before, image) = (Image::of(&[4 * MIB]), Image::of(&[4 * MIB]));
    node.to("a").image("v0", &before).await;
    node.released().await;
    let stuck = Fault::put("/v2/a/manifests/").status(503);
    parent.fault(stuck.clone());
    node.to("a").image("v1", &image).await;
    node.to("a").image("again", &before).await;
    node.restart().await;

    node.crowd_out(&parent, 4, 25 * MIB).await;
    for owed in [&image, &before] {
        assert!(node.has_stored(&owed.layer(0)), "what is owed was evicted");
    }
    stuck.end();
    node.settle("retry?all=true").await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image) && parent.has_image("a", "again", &before));
}

#[tokio::test]
async fn pushes_that_fill_the_queue_together_do_not_lock_each_other_out() {
    let parent = parent().await;
    let node = below(&parent).more("[queue]\ncapacity = \"1MiB\"\n").start().await;
    let stuck = Fault::put("/v2/a/manifests/").status(503);
    parent.fault(stuck.clone());
    let [one, two] = [Image::of(&[400_000, 400_000]), Image::of(&[400_000, 400_000])];
    // Neither is an image yet, and both would be more than may wait.
    node.to("a").blobs_of(&one).await;
    node.to("b").blobs_of(&two).await;

    node.to("a").manifest("v1", &one.manifest).await;
    let refused = node.to("b").put_manifest("v1", &two.manifest).await;
    refused.assert_error(507, "UNAVAILABLE");
    stuck.end();
    node.drained().await;
    node.to("b").manifest("v1", &two.manifest).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &one) && parent.has_image("b", "v1", &two));
}

#[tokio::test]
async fn what_a_registry_was_pushed_before_it_had_a_parent_fills_no_queue() {
    let parent = parent().await;
    let mut node = Setup::alone().registry().start().await;
    let old = Image::of(&[2 * MIB]);
    node.to("a").image("v0", &old).await;
    node.setup = below(&parent).more("[queue]\ncapacity = \"1MiB\"\n");
    node.restart().await;
    let image = Image::of(&[1000]);

    node.to("b").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("b", "v1", &image));
    node.to("a").assert_has("v0", &old).await;
}

#[tokio::test]
async fn a_delete_that_was_refused_takes_nothing_away_that_was_pushed_since() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    node.to("a").image("v1", &image).await;
    node.drained().await;
    let refuses = Fault::write("/v2/a/manifests/v1").status(422).code("DENIED_FOR_NOW");
    parent.fault(refuses.clone());
    assert_eq!(node.to("a").delete("manifests/v1").await.status, 202);
    node.stands("a", &["parked"]).await;
    refuses.end();
    node.to("a").manifest("v1", &image.manifest).await;
    node.stands("a", &["parked"]).await;

    node.settle("retry?all=true").await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    node.to("a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn who_drops_one_of_two_pushes_of_a_tag_leaves_the_other_its_tag() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    let refuses = Fault::put("/v2/a/manifests/sha256:").status(413);
    parent.fault(refuses.clone());
    node.to("a").image("v1", &image).await;
    node.stands("a", &["parked"]).await;
    node.to("a").manifest("v1", &image.manifest).await;
    node.stands("a", &["parked", "parked"]).await;

    let first = node.owed().await[0]["number"].clone();
    node.settle(&format!("drop?number={first}")).await;
    refuses.end();
    node.settle("retry?all=true").await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    node.to("a").assert_has("v1", &image).await;
}
