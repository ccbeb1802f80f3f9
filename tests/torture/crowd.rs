use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull, connect};
use super::{Dice, KIB, MIB, Object, progress, sized};
use crate::support::client::Request;
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::{descriptors, memory, peak_memory};
use crate::support::upstream::{Fault, Gate, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_of_one_cold_blob_cost_one_transfer_and_little_memory() {
    let (clients, size) = (1000, sized(16 * MIB, 256 * MIB));
    let parent = Upstream::start().await;
    let object = Object::at(&parent, "a", random(size));
    let gate = Gate::closed();
    parent.fault(Fault::get(&object.digest).hold_after(MIB as u64, &gate));
    let node = Setup::below(&parent.url()).start().await;

    let mut pulls = JoinSet::new();
    for number in 0..clients {
        let pull = Pull::of(node.address(), &object);
        // One in a hundred takes about ten seconds for it.
        let pull = if number % 100 == 0 { pull.pace(size / 10) } else { pull };
        pulls.spawn(async move { pull.run().await });
    }
    eventually("all of them are there", async || descriptors(node.pid()) > clients).await;
    gate.open();
    let outcomes = pulls.join_all().await;

    let peak = peak_memory(node.pid());
    progress(&format!(
        "{clients} clients of {size} bytes: at most {peak} bytes of memory"
    ));
    assert_eq!(outcomes, vec![Outcome::Whole; clients]);
    assert_eq!(parent.count("GET", &object.digest), 1);
    assert_eq!(parent.body_bytes(&object.digest), size as u64);
    // 128 KiB for each, beside what a node has anyway.
    assert!(peak < 192 << 20, "{peak} bytes of memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_in_the_middle_end_no_transfer_and_leave_nothing_behind() {
    let (clients, size) = (200, 32 * MIB);
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let object = Object::at(&parent, "a", random(size));
    parent.fault(Fault::get(&object.digest).pace(16 << 20));
    let before = descriptors(node.pid());

    let mut pulls = JoinSet::new();
    for _ in 0..clients {
        let pull = Pull::of(node.address(), &object).leave_after(dice.below(size / 4));
        pulls.spawn(async move { pull.run().await });
    }
    let outcomes = pulls.join_all().await;
    assert_eq!(outcomes, vec![Outcome::Left; clients]);
    assert!(
        parent.body_bytes(&object.digest) < size as u64,
        "it was over before they left"
    );
    eventually("all of it is here", async || node.has_stored(&object.digest)).await;

    assert_eq!(parent.count("GET", &object.digest), 1);
    assert_eq!(parent.body_bytes(&object.digest), size as u64);
    eventually("no descriptor is left of them", async || {
        descriptors(node.pid()) <= before + 10
    })
    .await;
    assert_eq!(Pull::of(node.address(), &object).run().await, Outcome::Whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_a_warm_blob_take_no_memory_and_none_of_the_others_time() {
    let (clients, size) = (sized(300, 1000), 8 * MIB);
    let parent = Upstream::start().await;
    let object = Object::at(&parent, "a", random(size));
    let node = Node::below(&parent).await;
    let pull = Pull::of(node.address(), &object);
    assert_eq!(pull.run().await, Outcome::Whole);
    let before = memory(node.pid());
    let alone = together(&pull, 20).await;

    let mut slow = JoinSet::new();
    for _ in 0..clients {
        // However many there are, they leave the machine to others: 300 MiB a second.
        let pull = pull.clone().pace(300 * MIB / clients);
        slow.spawn(async move { pull.run().await });
    }
    eventually("all of them read", async || descriptors(node.pid()) > clients).await;
    let beside = together(&pull, 20).await;
    let more = memory(node.pid()).saturating_sub(before);
    progress(&format!(
        "{clients} slow readers: {more} bytes of memory; the others took {beside:?} instead of {alone:?}"
    ));

    assert!(slow.try_join_next().is_none(), "the slow ones were not slow");
    // What the slow ones read meanwhile, and the clients here, take of the processors as well.
    assert!(
        beside < alone * 4 + Duration::from_millis(500),
        "{beside:?} instead of {alone:?}"
    );
    assert!(more < clients as u64 * 128 * KIB as u64, "{more} bytes of memory");
    assert_eq!(slow.join_all().await, vec![Outcome::Whole; clients]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_connections_that_dawdle_do_not_make_a_pull_twice_as_long() {
    let parent = Upstream::start().await;
    let object = Object::at(&parent, "a", random(32 * MIB));
    let setup = Setup::below(&parent.url())
        .listen("header_timeout = \"5s\"")
        .listen("write_timeout = \"5s\"");
    let node = setup.start().await;
    let before = descriptors(node.pid());
    let pull = Pull::of(node.address(), &object);
    assert_eq!(pull.run().await, Outcome::Whole);
    let alone = quickest(&pull).await;

    let mut dawdling = JoinSet::new();
    for number in 0..500 {
        let stream = connect(node.address(), true).await.expect("a connection");
        dawdling.spawn(dawdle(stream, number % 3, object.target.clone()));
    }
    eventually("all of them are there", async || descriptors(node.pid()) > before + 450).await;
    let beside = quickest(&pull).await;

    progress(&format!("{alone:?} alone, {beside:?} beside them"));
    assert!(
        beside < alone * 2 + Duration::from_millis(5),
        "{beside:?} instead of {alone:?}"
    );
    eventually("they are left", async || descriptors(node.pid()) < before + 20).await;
    dawdling.abort_all();
}

/// How long so many pulls at once take.
async fn together(pull: &Pull, count: usize) -> Duration {
    let begun = Instant::now();
    let mut pulls = JoinSet::new();
    for _ in 0..count {
        let pull = pull.clone();
        pulls.spawn(async move { pull.run().await });
    }
    assert_eq!(pulls.join_all().await, vec![Outcome::Whole; count]);
    begun.elapsed()
}

/// A header that comes a byte at a time, a body that does not come, or a reply that is not read.
async fn dawdle(mut stream: TcpStream, how: usize, target: String) {
    let request = match how {
        0 => Request::get(&target)
            .header("X-Long", &"x".repeat(1000))
            .written("node"),
        1 => Request::new("POST", "/v2/a/blobs/uploads/")
            .header("Content-Length", "1000")
            .written("node"),
        _ => Request::get(&target).written("node"),
    };
    if how > 0 {
        let _ = stream.write_all(&request).await;
        return std::future::pending().await;
    }
    for byte in request {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The best of some: what others do on the machine only makes it worse.
async fn quickest(pull: &Pull) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(pull.run().await, Outcome::Whole);
        best = best.min(begun.elapsed());
    }
    best
}
