//! A parent that sends wrong bytes: no client may ever believe that it has them all, and nothing of them stays.

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{Image, OCI_MANIFEST, random, sha256};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::stage::Stage;
use crate::support::upstream::{Cut, Fault, Gate, Length, RangeRule, Upstream};

const SIZE: usize = 1_000_000;

impl Stage {
    /// Nothing that could be taken for the blob is kept, and an honest parent makes all well again.
    async fn assert_nothing_was_kept_and_the_next_pull_heals(&self) {
        assert!(!self.node.has_stored(&self.digest));
        eventually("what had arrived is thrown away", async || {
            !self.node.partial_of(&self.digest).exists()
        })
        .await;
        self.parent.without_faults();
        let before = self.parent.body_bytes(&self.digest);
        self.node.get(&self.target).await.assert_is(&self.bytes);
        assert!(
            self.parent.body_bytes(&self.digest) > before,
            "what was served had not been fetched again"
        );
    }
}

#[tokio::test]
async fn a_corrupted_byte_first_middle_or_last_never_completes_a_reply_and_is_not_kept() {
    for offset in [0, SIZE / 2, SIZE - 1] {
        let stage = Stage::cold(SIZE).await;
        stage.parent.fault(Fault::get(&stage.digest).flip_at(offset as u64));

        let reply = stage.node.get(&stage.target).await;

        assert!(reply.status != 200 || !reply.complete, "byte {offset}: {reply}");
        assert!(
            reply.body.len() < SIZE,
            "byte {offset}: the last chunk was not held back"
        );
        stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
    }
}

#[tokio::test]
async fn followers_of_a_corrupted_blob_are_cut_too() {
    let stage = Stage::cold(SIZE).await;
    let gate = Gate::closed();
    stage.parent.fault(
        Fault::get(&stage.digest)
            .flip_at(SIZE as u64 - 1)
            .hold_after(SIZE as u64 / 2, &gate),
    );
    let client = stage.node.client();
    let ask = async |range: Option<&str>| match range {
        Some(range) => client.open(Request::get(&stage.target).range(range)).await,
        None => client.open(Request::get(&stage.target)).await,
    };

    let mut open = vec![ask(None).await];
    open[0].read(1000).await;
    open.push(ask(None).await);
    open.push(ask(Some("1000-")).await);
    gate.open();

    for reply in open {
        let (reply, _) = reply.rest().await;
        assert!(!reply.complete, "{reply}");
    }
    stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
}

#[tokio::test]
async fn a_part_that_ends_at_a_wrong_last_byte_never_completes() {
    let stage = Stage::cold(SIZE).await;
    stage.parent.fault(Fault::get(&stage.digest).flip_at(10));

    let reply = stage.node.range(&stage.target, "500000-").await;

    assert!(reply.status != 206 || !reply.complete, "{reply}");
    stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
}

#[tokio::test]
async fn a_part_of_wrong_bytes_that_waits_for_the_last_ones_before_the_end_never_completes() {
    // Without the last byte, and yet within what is held back until the digest agrees.
    for range in [format!("0-{}", SIZE - 2), format!("5-{}", SIZE - 60_000)] {
        let stage = Stage::cold(SIZE).await;
        stage.parent.fault(Fault::get(&stage.digest).flip_at(10));

        let reply = stage.node.range(&stage.target, &range).await;

        assert!(reply.status != 206 || !reply.complete, "{range}: {reply}");
        stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
    }
}

#[tokio::test]
async fn a_part_of_wrong_bytes_that_is_still_being_read_is_cut_when_the_digest_fails() {
    let stage = Stage::cold(48 << 20).await;
    let gate = Gate::closed();
    stage
        .parent
        .fault(Fault::get(&stage.digest).flip_at(10).hold_after(40 << 20, &gate));
    let part = Request::get(&stage.target).range(&format!("0-{}", (36 << 20) - 1));

    // Long enough that most of it waits in the node, and not in the socket.
    let mut leader = stage.node.client().open(Request::get(&stage.target)).await;
    leader.read(38 << 20).await;
    let mut reader = stage.node.client().open(part).await;
    assert_eq!(reader.status(), 206);
    reader.read(1000).await;
    gate.open();
    assert!(!leader.rest().await.0.complete);

    let (reply, _) = reader.rest().await;
    assert!(!reply.complete, "{reply}");
    stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
}

#[tokio::test]
async fn a_corrupted_blob_of_unsaid_length_never_completes() {
    for length in [Length::Chunked, Length::Unsaid] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::any(&stage.digest).length(length).flip_at(SIZE as u64 - 1));

        let (reply, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

        assert!(!reply.is_false_for(&stage.digest), "{length:?}: {reply}");
        stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
    }
}

#[tokio::test]
async fn a_wrong_length_never_makes_a_false_reply_and_is_not_kept() {
    for said in [SIZE - 1000, SIZE + 1000] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::any(&stage.digest).length(Length::Says(said as u64)));

        let reply = stage.node.get(&stage.target).await;

        assert!(reply.status != 200 || !reply.complete, "said {said} of {SIZE}: {reply}");
        stage.assert_nothing_was_kept_and_the_next_pull_heals().await;
    }
}

#[tokio::test]
async fn more_bytes_than_the_manifest_announced_are_cut_off() {
    let stage = Stage::cold(SIZE).await;
    let image = Image::with_layers(vec![stage.bytes.clone()]);
    stage.parent.image("a", "v1", &image);
    stage.parent.fault(Fault::get(&stage.digest).endless());
    stage
        .node
        .get(&manifest("a", "v1"))
        .await
        .assert_is(&image.manifest.bytes);

    let reply = stage.node.get(&stage.target).await;

    // The announced bytes were right, so they may well be served; not one more.
    assert!(
        !reply.is_false_for(&stage.digest) && reply.body.len() <= SIZE,
        "{reply}"
    );
    eventually("the parent is left", async || {
        stage.parent.seen("GET", &stage.digest).iter().all(|s| s.ended())
    })
    .await;
    assert!(stage.parent.body_bytes(&stage.digest) < 64 << 20, "the node drank on");
}

#[tokio::test]
async fn a_blob_larger_than_its_descriptor_is_refused_even_if_its_digest_is_right() {
    let stage = Stage::cold(SIZE).await;
    let image = Image::built(OCI_MANIFEST, vec![stage.bytes.clone()], sha256, |body| {
        body["layers"][0]["size"] = (SIZE - 10).into();
    });
    stage.parent.image("a", "v1", &image);
    stage
        .node
        .get(&manifest("a", "v1"))
        .await
        .assert_is(&image.manifest.bytes);

    let reply = stage.node.get(&stage.target).await;

    assert!(reply.status != 200 || !reply.complete, "{reply}");
}

#[tokio::test]
async fn a_body_without_end_and_without_a_manifest_fills_no_disk() {
    let parent = Upstream::start().await;
    let digest = parent.blob("a", &random(1000));
    parent.fault(Fault::any(&digest).endless());
    let node = crate::support::node::Setup::below(&parent.url())
        .capacity("64MiB")
        .start()
        .await;

    let reply = node.get(&blob("a", &digest)).await;

    assert!(!reply.complete || reply.status != 200, "{reply}");
    eventually("the parent is left", async || {
        parent.seen("GET", &digest).iter().all(|seen| seen.ended())
    })
    .await;
    assert!(node.disk_bytes() <= 64 << 20, "{} bytes on disk", node.disk_bytes());
    assert_eq!(node.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_cut_in_the_middle_is_mended_inside_the_reply() {
    for cut in [Cut::Fin, Cut::Rst] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(SIZE as u64 / 2, cut).times(1));

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        let resumed = stage.parent.seen("GET", &stage.digest).pop().unwrap();
        assert!(resumed.header("range").is_some(), "{cut:?}: {resumed:?}");
        assert!(
            stage.parent.body_bytes(&stage.digest) <= SIZE as u64 * 3 / 2,
            "{cut:?}: more than the rest was fetched"
        );
    }
}

#[tokio::test]
async fn a_transfer_that_cannot_go_on_ends_in_a_broken_reply_with_nothing_added() {
    let stage = Stage::cold(SIZE).await;
    stage
        .parent
        .fault(Fault::get(&stage.digest).cut_after(SIZE as u64 / 2, Cut::Fin).times(1));
    stage.parent.fault(Fault::get(&stage.digest).status(404));

    let (reply, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

    assert!(!reply.complete, "{reply}");
    assert!(stage.bytes.starts_with(&reply.body), "something was added to the bytes");
    stage.parent.without_faults();
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn a_resumption_that_is_answered_wrongly_never_splices_wrong_bytes() {
    for rule in [RangeRule::Ignored, RangeRule::FromTheStart, RangeRule::OtherBytes(1000)] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(SIZE as u64 / 2, Cut::Fin).times(1));
        stage.parent.fault(Fault::get(&stage.digest).ranged().range(rule));

        let reply = stage.node.get(&stage.target).await;

        assert!(!reply.is_false_for(&stage.digest), "{rule:?}: {reply}");
        if !matches!(rule, RangeRule::OtherBytes(_)) {
            reply.assert_is(&stage.bytes);
        }
        stage.parent.without_faults();
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn who_stumbles_over_a_range_in_the_middle_is_asked_for_the_whole_inside_the_reply() {
    for status in [400, 405, 501] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(SIZE as u64 / 2, Cut::Fin).times(1));
        stage.parent.fault(Fault::get(&stage.digest).ranged().status(status));

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn what_an_earlier_transfer_left_keeps_nobody_from_content_of_a_parent_without_ranges() {
    for fault in [
        Fault::get("/blobs/").ranged().status(403),
        Fault::get("/blobs/").ranged().status(400),
        Fault::get("/blobs/").ranged().range(RangeRule::FromTheStart),
    ] {
        let stage = Stage::cold(SIZE).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(SIZE as u64 / 2, Cut::Fin).times(1));
        stage
            .parent
            .fault(Fault::get(&stage.digest).ranged().status(404).times(1));
        let (broken, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;
        assert!(!broken.complete, "{broken}");
        stage.parent.fault(fault);

        let reply = stage.node.get(&stage.target).await;

        reply.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_behind_the_last_byte_of_content_of_unknown_size_costs_nothing() {
    let stage = Stage::cold(SIZE).await;
    stage.parent.fault(
        Fault::get(&stage.digest)
            .length(Length::Chunked)
            .cut_after(SIZE as u64, Cut::Fin)
            .times(1),
    );

    let reply = stage.node.get(&stage.target).await;

    reply.assert_is(&stage.bytes);
    assert!(stage.parent.body_bytes(&stage.digest) <= SIZE as u64 + 65_536);
}

#[tokio::test]
async fn a_far_range_answered_with_other_bytes_is_caught_or_at_least_not_kept() {
    let parent = Upstream::start().await;
    let bytes = random(40 << 20);
    let digest = parent.blob("a", &bytes);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).ranged().range(RangeRule::FromTheStart));
    parent.fault(Fault::get(&digest).hold_after(1 << 20, &gate).times(1));
    let node = Node::below(&parent).await;
    let mut leader = node.client().open(Request::get(&blob("a", &digest))).await;
    leader.read(1000).await;

    let client = node.client();
    let target = blob("a", &digest);
    let far = tokio::spawn(async move { client.range(&target, "33554432-33554531").await });
    eventually("the far range was asked for", async || {
        parent.count("GET", &digest) >= 2
    })
    .await;
    gate.open();

    let far = far.await.unwrap();
    assert!(
        far.status != 206 || !far.complete || far.body == bytes[33_554_432..=33_554_531],
        "{far}"
    );
    assert!(leader.last().await.body == bytes);
}

#[tokio::test]
async fn a_manifest_that_does_not_match_its_digest_is_refused_and_not_kept() {
    let parent = Upstream::start().await;
    let (asked, other) = (parent.new_image("a", "v1", &[10]), Image::of(&[10]));
    parent.fault(Fault::any("/manifests/").body(other.manifest.bytes.clone()));
    let node = Node::below(&parent).await;

    let by_digest = node.get(&manifest("a", &asked.manifest.digest)).await;
    let by_tag = node.get(&manifest("a", "v1")).await;

    // Docker-Content-Digest names the manifest that was asked for, the bytes are those of another.
    by_digest.assert_error(502, "UNAVAILABLE");
    assert_ne!(by_tag.status, 200, "{by_tag}");
    assert!(!node.has_stored(&asked.manifest.digest));
    parent.without_faults();
    node.get(&manifest("a", &asked.manifest.digest))
        .await
        .assert_is(&asked.manifest.bytes);
    node.get(&manifest("a", "v1")).await.assert_is(&asked.manifest.bytes);
}

#[tokio::test]
async fn a_manifest_without_end_is_left_and_named_too_large() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::get("/manifests/").endless());
    let node = Node::below(&parent).await;

    let reply = node.get(&manifest("a", "v1")).await;

    assert!((500..600).contains(&reply.status), "{reply}");
    eventually("the parent is left", async || {
        parent.seen("GET", "/manifests/").iter().all(|s| s.ended())
    })
    .await;
    assert!(parent.body_bytes("/manifests/") < 64 << 20);
}

#[tokio::test]
async fn a_blob_damaged_on_disk_while_the_node_was_down_uncleanly_is_never_served_complete() {
    let stage = Stage::cold(SIZE).await;
    let mut node = stage.node;
    node.get(&stage.target).await.assert_is(&stage.bytes);
    eventually("the blob is committed", async || node.has_stored(&stage.digest)).await;
    node.kill();
    let path = node.stored_at(&stage.digest);
    let mut damaged = stage.bytes.to_vec();
    damaged[SIZE / 3] ^= 1;
    // The file itself is read-only.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &damaged).unwrap();

    node.start().await;
    let reply = node.get(&stage.target).await;

    assert!(!reply.is_false_for(&stage.digest), "{reply}");
    node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn content_that_is_said_to_be_empty_and_is_not_never_completes() {
    for _ in 0..20 {
        let stage = Stage::cold(1000).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).body("").length(Length::Says(0)));

        let reply = stage.node.get(&stage.target).await;

        assert!(reply.status != 200 || !reply.complete, "{reply}");
    }
}
