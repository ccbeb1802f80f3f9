//! Parents that are slow, break off, lie or forget while something is delivered to them: it goes on where it was, and
//! counts as delivered once it is there.

use std::time::{Duration, Instant};

use crate::support::content::Image;
use crate::support::eventually;
use crate::support::owing::{below, parent};
use crate::support::upstream::{Access, Cut, Fault, Gate};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn an_upload_that_the_parent_forgets_in_the_middle_is_begun_anew_and_the_order_is_kept() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let gate = Gate::closed();
    parent.fault(Fault::patch("").pause_reading_after(MIB as u64, &gate).times(1));
    let (first, second) = (Image::of(&[3 * MIB]), Image::of(&[1000]));

    node.to("a").image("v1", &first).await;
    node.to("a").image("v2", &second).await;
    eventually("a part of the layer is there", async || {
        parent.blob_bytes_received() >= MIB as u64
    })
    .await;
    parent.forget_uploads();
    gate.open();
    node.drained().await;

    assert!(parent.has_image("a", "v1", &first) && parent.has_image("a", "v2", &second));
    let expected = [&first.manifest.digest, "v1", &second.manifest.digest, "v2"];
    assert_eq!(parent.manifests_kept("a"), expected);
}

#[tokio::test]
async fn an_upload_that_cannot_go_on_where_it_was_is_begun_anew() {
    for status in [400, 404, 416] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.minds_locations(true);
        parent.fault(Fault::patch("").cut_arrival_after(MIB as u64, Cut::Rst));
        parent.fault(Fault::get("/blobs/uploads/").status(status).times(1));
        let image = Image::of(&[3 * MIB]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image), "{status}");
        assert_eq!(parent.times_kept(&image.layer(0)), 1, "{status}");
    }
}

#[tokio::test]
async fn an_upload_of_which_the_parent_refuses_the_rest_is_begun_anew() {
    for status in [400, 404, 416] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.fault(Fault::patch("").status(status).times(1));
        let image = Image::of(&[MIB]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image), "{status}");
        assert_eq!(node.counts("wharf_queue_failures_total").await, 0.0, "{status}");
    }
}

#[tokio::test]
async fn a_blob_that_the_parent_has_is_not_sent() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[2 * MIB]);
    parent.blob("a", &image.layers[0]);
    parent.blob("a", &image.config);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert_eq!(parent.blob_bytes_received(), 0);
}

#[tokio::test]
async fn a_blob_that_the_parent_has_in_another_repository_is_mounted_or_sent_into_the_upload_that_was_opened() {
    for mounts in [true, false] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.mounts(mounts);
        let image = Image::of(&[2 * MIB]);
        node.to("a").image("v1", &image).await;
        node.drained().await;
        node.to("b")
            .blob(b"so that it is known whether b can be pushed to")
            .await;
        let before = parent.blob_bytes_received();

        node.to("b").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("b", "v1", &image));
        let came = parent.blob_bytes_received() - before;
        let all = (image.layers[0].len() + image.config.len()) as u64;
        assert_eq!(came, if mounts { 0 } else { all }, "mounts: {mounts}");
        assert_eq!(parent.open_uploads("b"), 0, "mounts: {mounts}");
        let wishes = parent.seen("POST", "/v2/b/blobs/uploads/");
        let wishes = wishes.iter().filter(|seen| seen.asked("mount").is_some());
        assert_eq!(wishes.count(), 2, "mounts: {mounts}");
    }
}

#[tokio::test]
async fn a_parent_that_fails_for_a_moment_is_tried_again() {
    for status in [500, 502, 503] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.fault(Fault::head("/blobs/sha256:").status(status).times(1));
        parent.fault(Fault::patch("").status(status).times(1));
        parent.fault(Fault::put("/blobs/uploads/").status(status).times(1));
        parent.fault(Fault::put("/manifests/").status(status).times(1));
        let image = Image::of(&[MIB]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image), "{status}");
        assert_eq!(parent.times_kept(&image.layer(0)), 1, "{status}");
        let metrics = node.metrics().await;
        assert!(metrics.sum("wharf_queue_failures_total", &[("outcome", "moment")]) > 0.0);
        assert!(!node.log().contains("is parked"), "{status}");
    }
}

#[tokio::test]
async fn a_registry_that_fails_whenever_it_is_asked_for_a_blob_is_sent_it() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    parent.fault(Fault::head("/blobs/sha256:").status(500));
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert_eq!(parent.times_kept(&image.layer(0)), 1);
}

#[tokio::test]
async fn of_small_blobs_that_did_not_arrive_no_upload_stays_open() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    parent.fault(Fault::put("/blobs/uploads/").status(503).times(3));
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert_eq!(parent.open_uploads("a"), 0);
}

#[tokio::test]
async fn a_parent_that_wants_rest_is_asked_when_it_wishes_and_not_before() {
    for status in [429, 503] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        node.to("a")
            .blob(b"so that it is known whether a can be pushed to")
            .await;
        let limit = Fault::put("/manifests/").status(status).header("Retry-After", "2");
        parent.fault(limit.times(1));
        let image = Image::of(&[1000]);

        node.to("a").image("v1", &image).await;
        eventually("it asks for rest", async || parent.count("PUT", "/manifests/") == 1).await;
        let rested = Instant::now();
        eventually("it is asked again", async || parent.count("PUT", "/manifests/") > 1).await;

        let rested = rested.elapsed();
        assert!(rested > Duration::from_millis(1800), "{status}: after {rested:?}");
        node.drained().await;
        assert!(parent.has_image("a", "v1", &image));
    }
}

#[tokio::test]
async fn a_large_blob_that_is_cut_in_the_middle_goes_on_where_the_parent_is() {
    for cut in [Cut::Rst, Cut::Fin] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.fault(Fault::patch("").cut_arrival_after(20 * MIB as u64, cut));
        let image = Image::of(&[40 * MIB]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image), "{cut:?}");
        let came = parent.blob_bytes_received();
        assert!(came <= 42 * MIB as u64, "{cut:?}: {came} bytes came");
    }
}

#[tokio::test]
async fn a_large_blob_goes_on_where_the_parent_is_after_the_node_was_killed_in_the_middle() {
    let parent = parent().await;
    let mut node = below(&parent).start().await;
    let gate = Gate::closed();
    parent.fault(Fault::patch("").pause_reading_after(20 * MIB as u64, &gate).times(1));
    let image = Image::of(&[40 * MIB]);

    node.to("a").image("v1", &image).await;
    eventually("half of it is there", async || {
        parent.blob_bytes_received() >= 20 * MIB as u64
    })
    .await;
    node.kill();
    gate.open();
    eventually("the parent sees the end of the connection", async || {
        parent.seen("PATCH", "").iter().all(|seen| seen.ended())
    })
    .await;
    node.start().await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    let came = parent.blob_bytes_received();
    assert!(came <= 42 * MIB as u64, "{came} bytes came");
}

#[tokio::test]
async fn a_parent_that_stalls_in_the_middle_of_a_blob_is_given_up_and_it_goes_on() {
    let parent = parent().await;
    let node = below(&parent).parent("read_timeout = \"1s\"").start().await;
    let gate = Gate::closed();
    parent.fault(Fault::patch("").pause_reading_after(2 * MIB as u64, &gate).times(1));
    let image = Image::of(&[32 * MIB]);

    node.to("a").image("v1", &image).await;
    eventually("it is given up", async || {
        node.counts("wharf_queue_failures_total").await > 0.0
    })
    .await;
    gate.open();
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
}

#[tokio::test]
async fn a_parent_that_says_nothing_is_given_up_before_long_whatever_it_was_sent() {
    for silence in [
        Fault::post("/blobs/uploads/").skip(1).silent(),
        Fault::put("/manifests/sha256:").silent(),
        Fault::put("/manifests/v1").silent(),
    ] {
        let parent = parent().await;
        let node = below(&parent).parent("read_timeout = \"1s\"").start().await;
        parent.fault(silence.times(1));
        let image = Image::of(&[1000]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image));
    }
}

#[tokio::test]
async fn what_a_parent_only_says_that_it_took_is_sent_until_it_has_it() {
    for lie in [
        Fault::put("/blobs/uploads/"),
        Fault::put("/manifests/sha256:"),
        Fault::put("/manifests/v1"),
    ] {
        let parent = parent().await;
        let node = below(&parent).start().await;
        parent.fault(lie.not_kept().times(2));
        let image = Image::of(&[1000]);

        node.to("a").image("v1", &image).await;
        node.drained().await;

        assert!(parent.has_image("a", "v1", &image));
        assert_eq!(node.counts("wharf_queue_paid_total").await, 1.0);
        assert!(node.counts("wharf_queue_failures_total").await > 0.0);
    }
}

#[tokio::test]
async fn a_tag_that_the_parent_gives_to_something_else_is_not_delivered_until_it_is_ours() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let other = parent.new_image("a", "other", &[10]);
    let lie = Fault::put("/manifests/v1").tags_instead(&other.manifest.digest);
    parent.fault(lie.clone());
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    eventually("it was tried twice", async || parent.count("PUT", "/manifests/v1") >= 2).await;
    assert_eq!(node.counts("wharf_queue_paid_total").await, 0.0);
    lie.end();
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
}

#[tokio::test]
async fn an_upload_that_is_sent_elsewhere_takes_no_login_along() {
    let (parent, elsewhere) = (parent().await, parent().await);
    parent.access(Access::Basic {
        user: "l4".to_owned(),
        password: "secret".to_owned(),
    });
    let away = format!("{}/v2/a/blobs/uploads/else", elsewhere.url());
    let sent = Fault::post("/blobs/uploads/").status(202).header("Location", &away);
    parent.fault(sent.times(2));
    let node = below(&parent).asking_as("l4", "secret").start().await;
    let image = Image::of(&[1000]);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    let told = elsewhere.seen("", "");
    assert!(!told.is_empty(), "nobody was sent there");
    for seen in told {
        assert_eq!(seen.header("authorization"), None, "{seen:?}");
        assert_eq!(seen.header("cookie"), None, "{seen:?}");
    }
}

#[tokio::test]
async fn a_tag_that_was_asked_for_before_it_was_pushed_is_there_once_it_is_delivered() {
    let parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    assert_eq!(node.to("a").get("manifests/v1").await.status, 404);

    node.to("a").image("v1", &image).await;
    node.drained().await;

    // That there was none is remembered for five seconds.
    for _ in 0..10 {
        node.to("a").assert_has("v1", &image).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
