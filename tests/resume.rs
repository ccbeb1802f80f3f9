//! A transfer that the parent breaks off, drips or answers oddly in the middle goes on where it was, or ends broken.

use std::time::{Duration, Instant};

use crate::support::client::{Request, manifest};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::needs::{self, path};
use crate::support::node::Setup;
use crate::support::stage::Stage;
use crate::support::upstream::{Cut, Fault, RangeRule};

const SIZE: usize = 1_000_000;

impl Stage {
    async fn with(size: usize, change: impl FnOnce(Setup) -> Setup) -> Self {
        let mut stage = Self::placed(size).await;
        stage.node.setup = change(stage.node.setup.clone());
        stage.node.start().await;
        stage
    }

    async fn sum(&self, name: &str) -> f64 {
        self.node.metrics().await.sum(name, &[])
    }
}

#[tokio::test]
async fn a_hundred_cuts_are_mended_inside_one_reply() {
    for cut in [Cut::Fin, Cut::Rst] {
        let stage = Stage::cold(101 * 20_000).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(20_000, cut).times(100));

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        assert_eq!(stage.sum("wharf_resumed_transfers_total").await, 100.0, "{cut:?}");
    }
}

#[tokio::test]
async fn a_drip_is_left_and_the_rest_comes_over_another_connection() {
    let stage = Stage::with(SIZE, |setup| setup.parent("read_timeout = \"1s\"")).await;
    stage.parent.fault(Fault::get(&stage.digest).pace(200).times(1));

    let begun = Instant::now();
    let reply = stage.node.get(&stage.target).await;

    reply.assert_is(&stage.bytes);
    assert!(reply.head_after < Duration::from_secs(1), "{:?}", reply.head_after);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let asked = stage.parent.seen("GET", &stage.digest);
    assert_eq!(asked.len(), 2);
    assert!(asked[1].header("range").is_some());
}

#[tokio::test]
async fn a_header_that_never_comes_costs_one_budget_and_the_next_pull_succeeds() {
    let stage = Stage::with(SIZE, |setup| setup.freshness("answer_within = \"1s\"")).await;
    stage.parent.fault(Fault::get(&stage.digest).silent().times(1));

    let first = stage.node.get(&stage.target).await;
    assert_eq!(first.status, 504, "{first}");
    assert!(first.has("retry-after"), "{first}");

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn a_refusal_in_the_middle_is_waited_out_while_a_client_waits() {
    for fault in [
        Fault::get("/blobs/").status(403),
        Fault::get("/blobs/").status(500),
        Fault::get("/blobs/").status(429).header("Retry-After", "1"),
    ] {
        let stage = Stage::cold(SIZE).await;
        let half = SIZE as u64 / 2;
        stage
            .parent
            .fault(Fault::get("/blobs/").cut_after(half, Cut::Fin).times(1));
        stage.parent.fault(fault.times(2));

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        assert!(
            stage.parent.body_bytes(&stage.digest) < SIZE as u64 + 10_000,
            "the rest alone is fetched"
        );
    }
}

#[tokio::test]
async fn a_reply_is_not_held_open_for_a_rest_that_is_longer_than_a_minute() {
    let stage = Stage::cold(SIZE).await;
    let half = SIZE as u64 / 2;
    stage
        .parent
        .fault(Fault::get("/blobs/").cut_after(half, Cut::Fin).times(1));
    stage
        .parent
        .fault(Fault::get("/blobs/").status(429).header("Retry-After", "90").times(1));
    let begun = Instant::now();

    let (reply, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

    assert!(reply.body.len() < stage.bytes.len());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_digest_decides_when_the_rest_is_said_to_be_of_another_version() {
    for (is_right, flip) in [(true, None), (false, Some(SIZE as u64 * 3 / 4))] {
        let stage = Stage::cold(SIZE).await;
        let half = SIZE as u64 / 2;
        stage.parent.fault(
            Fault::get(&stage.digest)
                .cut_after(half, Cut::Fin)
                .header("ETag", "\"one\"")
                .times(1),
        );
        let other = Fault::get(&stage.digest).ranged().header("ETag", "\"another\"");
        stage.parent.fault(match flip {
            Some(offset) => other.flip_at(offset),
            None => other,
        });

        let (reply, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

        assert_eq!(reply.complete, is_right, "{reply}");
        assert_eq!(stage.node.has_stored(&stage.digest), is_right);
        assert_eq!(reply.body == stage.bytes, is_right);
    }
}

#[tokio::test]
async fn a_rest_of_another_length_breaks_the_reply_and_nothing_is_kept() {
    let stage = Stage::cold(SIZE).await;
    let half = SIZE as u64 / 2;
    stage
        .parent
        .fault(Fault::get(&stage.digest).cut_after(half, Cut::Fin).times(1));
    let said = format!("bytes {half}-{}/{}", SIZE - 1, SIZE + 1);
    stage
        .parent
        .fault(Fault::get(&stage.digest).ranged().header("Content-Range", &said));

    let (reply, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

    assert!(!reply.complete, "{reply}");
    assert!(stage.bytes.starts_with(&reply.body));
    assert!(!stage.node.has_stored(&stage.digest));
    stage.parent.without_faults();
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn what_comes_wrong_three_times_is_not_fetched_again_for_a_while() {
    let stage = Stage::cold(SIZE).await;
    stage.parent.fault(Fault::get(&stage.digest).flip_at(SIZE as u64 / 2));
    for _ in 0..3 {
        let reply = stage.node.get(&stage.target).await;
        assert!(reply.status != 200 || !reply.complete, "{reply}");
    }
    let asked = stage.parent.asked();
    stage.parent.without_faults();

    let refused = stage.node.get(&stage.target).await;

    assert_eq!(asked, 3);
    refused.assert_error(502, "UNAVAILABLE");
    assert!(refused.has("retry-after"), "{refused}");
    assert_eq!(stage.parent.asked(), asked, "it was asked for again");
    assert_eq!(stage.sum("wharf_distrusted_transfers_total").await, 1.0);
    // Other content of the same parent is none the worse for it.
    let image = stage.parent.new_image("a", "v1", &[10]);
    stage
        .node
        .get(&manifest("a", "v1"))
        .await
        .assert_is(&image.manifest.bytes);
    eventually("it is tried again", async || {
        stage.node.get(&stage.target).await.status == 200
    })
    .await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

/// A node that was killed when it had `left` bytes of the content, and hashes a MiB of them in a quarter of a second.
async fn killed_with(size: usize, left: u64) -> Stage {
    let mut stage = Stage::cold(size).await;
    stage.parent.fault(Fault::get(&stage.digest).stall_after(left).times(1));
    let mut pull = stage.node.client().open(Request::get(&stage.target)).await;
    pull.read(left as usize - 100_000).await;
    eventually("all that came is on the disk", async || {
        let partial = std::fs::metadata(stage.node.partial_of(&stage.digest));
        partial.is_ok_and(|partial| partial.len() >= left)
    })
    .await;
    stage.node.kill();
    stage.node.environment("FAILPOINTS", "store.continue=sleep(250)");
    stage.node.start().await;
    stage
}

#[tokio::test]
async fn what_an_earlier_process_left_is_hashed_while_the_reply_is_under_way() {
    let (size, left) = (18 << 20, 16 << 20);
    let stage = killed_with(size, left).await;

    let begun = Instant::now();
    let reply = stage.node.get(&stage.target).await;

    reply.assert_is(&stage.bytes);
    assert!(begun.elapsed() > Duration::from_secs(4), "it was not hashed slowly");
    assert!(reply.head_after < Duration::from_secs(1), "{:?}", reply.head_after);
    assert!(
        stage.parent.body_bytes(&stage.digest) <= size as u64 + 1_000_000,
        "the rest alone is fetched"
    );
}

#[tokio::test]
async fn a_part_of_what_an_earlier_process_left_is_not_asked_for_again_while_that_is_hashed() {
    let (size, left) = (34_usize << 20, 32_u64 << 20);
    let stage = killed_with(size, left).await;
    let at = 30 << 20;

    let reply = stage
        .node
        .client()
        .range(&stage.target, &format!("{at}-{}", size - 1))
        .await;

    assert_eq!(reply.status, 206, "{reply}");
    assert!(reply.body == stage.bytes.slice(at..), "{reply}");
    assert!(
        stage.parent.body_bytes(&stage.digest) <= size as u64 + 1_000_000,
        "the rest alone is fetched"
    );
}

#[tokio::test]
async fn what_was_whole_when_the_process_was_killed_is_not_fetched_again() {
    let mut stage = Stage::placed(SIZE).await;
    stage
        .node
        .environment("FAILPOINTS", "store.commit.before_rename=sleep(60000)");
    stage.node.start().await;
    let _pull = stage.node.client().open(Request::get(&stage.target)).await;
    eventually("all of it is on the disk", async || {
        let partial = std::fs::metadata(stage.node.partial_of(&stage.digest));
        partial.is_ok_and(|partial| partial.len() == SIZE as u64)
    })
    .await;
    stage.node.kill();
    stage.node.environment("FAILPOINTS", "");
    stage.node.start().await;

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);

    assert_eq!(stage.parent.body_bytes(&stage.digest), SIZE as u64 + 1);
    assert!(stage.node.has_stored(&stage.digest));
}

#[tokio::test]
async fn what_rotted_of_an_earlier_transfer_is_not_blamed_on_the_parent() {
    let mut stage = Stage::cold(4 << 20).await;
    stage
        .parent
        .fault(Fault::get(&stage.digest).stall_after(2 << 20).times(1));
    let mut pull = stage.node.client().open(Request::get(&stage.target)).await;
    pull.read(1 << 20).await;
    eventually("all that came is on the disk", async || {
        let partial = std::fs::metadata(stage.node.partial_of(&stage.digest));
        partial.is_ok_and(|partial| partial.len() >= 2 << 20)
    })
    .await;
    stage.node.kill();
    let path = stage.node.partial_of(&stage.digest);
    let mut left = std::fs::read(&path).unwrap();
    left[1000] ^= 1;
    std::fs::write(&path, left).unwrap();
    stage.node.start().await;

    let (broken, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;

    assert!(!broken.complete, "{broken}");
    assert_eq!(stage.sum("wharf_corrupt_transfers_total").await, 0.0);
    assert!(stage.node.log().contains("left of"), "{}", stage.node.log());
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn more_than_there_is_of_it_left_by_a_lie_is_thrown_away_where_the_parent_ignores_ranges() {
    let stage = Stage::cold(SIZE).await;
    let longer = Fault::get(&stage.digest)
        .body(random(2 * SIZE))
        .cut_after(SIZE as u64 * 3 / 2, Cut::Fin);
    stage.parent.fault(longer.times(1));
    stage.parent.fault(Fault::get(&stage.digest).status(404).times(1));
    let (broken, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;
    assert!(!broken.complete, "{broken}");
    stage.parent.without_faults();
    stage.parent.fault(Fault::get(&stage.digest).range(RangeRule::Ignored));

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

/// Runs `scene` on a line of its own: 64 kbit a second, one packet in twenty lost.
fn on_a_bad_line(scene: impl AsyncFnOnce() + Send + 'static) {
    let line = "ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate 64kbit burst 3000 latency 1s \
                && iptables -A INPUT -p tcp -m statistic --mode random --probability 0.05 -j DROP";
    // The network is that of the thread, which ends with the test.
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
        let made = std::process::Command::new("sh")
            .env("PATH", path())
            .args(["-c", line])
            .status();
        assert!(made.expect("sh").success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(scene());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_small_blob_comes_whole_over_a_slow_line_that_loses_and_resets() {
    let name = "a_small_blob_comes_whole_over_a_slow_line_that_loses_and_resets";
    if !needs::met(name, "a network of its own", &["ip", "tc", "iptables"]) {
        return;
    }
    on_a_bad_line(async || {
        let stage = Stage::cold(24_000).await;
        stage
            .parent
            .fault(Fault::get(&stage.digest).cut_after(12_000, Cut::Rst).times(1));

        let begun = Instant::now();
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        // Twice over the line, once to the node and once to the client.
        assert!(begun.elapsed() > Duration::from_secs(4), "the line was not slow");
        assert_eq!(stage.parent.count("GET", &stage.digest), 2);
    });
}
