//! A disk that is slow: memory stays bounded, and nobody who pulls waits for a sync.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::Setup;
use crate::support::process::peak_memory;
use crate::support::road::Road;
use crate::support::stage::Stage;
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_slower_than_the_network_slows_the_parent_down_and_fills_no_memory() {
    let mut stage = Stage::placed(96 * MIB).await;
    // About half a megabyte is written at a time.
    stage.node.environment("FAILPOINTS", "store.write=sleep(10)");
    stage.node.start().await;
    let before = peak_memory(stage.node.pid());

    let mut pulls = JoinSet::new();
    for _ in 0..4 {
        let (client, target, bytes) = (stage.node.client(), stage.target.clone(), stage.bytes.clone());
        pulls.spawn(async move {
            let open = client.open(Request::get(&target)).await;
            open.compare(&bytes).await.is_whole(&bytes)
        });
    }
    let begun = Instant::now();
    assert!(pulls.join_all().await.into_iter().all(|whole| whole));

    assert!(begun.elapsed() > Duration::from_secs(1), "the disk was not slow");
    let grown = peak_memory(stage.node.pid()) - before;
    assert!(grown < 24 << 20, "{grown} bytes more of memory");
    assert!(stage.node.has_stored(&stage.digest));
}

#[tokio::test]
async fn while_each_sync_and_each_transaction_takes_five_seconds_pulls_take_no_longer() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();
    node.environment("FAILPOINTS", "store.sync=sleep(5000);store.index=sleep(5000)");
    node.start().await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let first = random(1000);
    let digest = parent.blob("a", &first);
    node.get(&blob("a", &digest)).await.assert_is(&first);
    // Both are standing still by now: a second is gathered for.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let begun = Instant::now();
    let manifest = node.get(&crate::support::client::manifest("a", "v1")).await;
    manifest.assert_is(&image.manifest.bytes);
    for _ in 0..10 {
        let bytes = random(MIB);
        let digest = parent.blob("a", &bytes);
        for _ in 0..2 {
            node.get(&blob("a", &digest)).await.assert_is(&bytes);
        }
    }

    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    node.kill();
}

#[tokio::test]
async fn a_slow_reader_of_what_is_not_kept_keeps_nobody_else_from_the_parent() {
    let parent = Upstream::start().await;
    let (large, small) = (random(96 * MIB), random(1000));
    let [large_at, small_at] = [&large, &small].map(|bytes| blob("a", &parent.blob("a", bytes)));
    let setup = Setup::below(&parent.url()).capacity("64MiB");
    let node = setup.parent("transfers = 1").start().await;
    let mut slow = node.client().open(Request::get(&large_at)).await;
    slow.read(MIB).await;

    node.get(&small_at).await.assert_is(&small);

    assert!(parent.body_bytes(&large_at) < large.len() as u64, "it was not slow");
    let (reply, _) = slow.rest().await;
    assert!(reply.complete, "{reply}");
    assert_eq!(parent.count("GET", &large_at), 1);
}

#[tokio::test]
async fn a_slow_reader_of_what_is_not_kept_is_not_taken_for_a_silent_parent() {
    let parent = Upstream::start().await;
    let large = random(96 * MIB);
    let at = blob("a", &parent.blob("a", &large));
    let setup = Setup::below(&parent.url()).capacity("64MiB");
    let node = setup.parent("read_timeout = \"1s\"").start().await;
    let mut slow = node.client().open(Request::get(&at)).await;
    slow.read(MIB).await;

    // Longer than the parent may be silent.
    tokio::time::sleep(Duration::from_millis(2500)).await;

    assert!(parent.body_bytes(&at) < large.len() as u64, "it was not slow");
    let compared = slow.compare(&large).await;
    assert!(compared.is_whole(&large));
    assert_eq!(parent.count("GET", &at), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_what_is_not_kept_do_not_fill_the_one_connection_of_http_2_for_all_others() {
    const READERS: usize = 20;
    let road = Road::tls();
    let parent = Upstream::h2(&road.authority).await;
    let image = parent.new_image("a", "v1", &[1000]);
    let mut node = road
        .below(&parent)
        .parent(&format!("transfers = {}", READERS - 4))
        .placed();
    // Nothing is kept of anything.
    node.environment("FAILPOINTS", "store.write=return");
    node.start().await;
    let all = random(32 * MIB + READERS);
    let mut slow = Vec::new();
    for at in 0..READERS {
        let bytes = all.slice(at..at + 32 * MIB);
        let target = blob("a", &parent.blob("a", &bytes));
        let mut open = node.client().open(Request::get(&target)).await;
        open.read(64 << 10).await;
        slow.push((open, bytes));
    }
    // Some lend their places.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let tag = node.get(&manifest("a", "v1")).await;
    let layer = node.get(&blob("a", &image.layer(0))).await;

    tag.assert_is(&image.manifest.bytes);
    layer.assert_is(&image.layers[0]);
    for reply in [tag, layer] {
        assert!(reply.head_after < Duration::from_secs(2), "{:?}", reply.head_after);
    }
    let mut pulls = JoinSet::new();
    for (open, bytes) in slow {
        pulls.spawn(async move { open.compare(&bytes).await.is_whole(&bytes) });
    }
    assert!(pulls.join_all().await.into_iter().all(|whole| whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_slow_readers_of_what_is_not_kept_take_a_bounded_amount_of_memory() {
    const READERS: usize = 32;
    let parent = Upstream::start().await;
    let contents: Vec<_> = (0..READERS).map(|_| random(12 * MIB)).collect();
    let mut node = Setup::below(&parent.url())
        .parent(&format!("transfers = {READERS}"))
        .placed();
    // Nothing is kept of anything.
    node.environment("FAILPOINTS", "store.write=return");
    node.start().await;
    let before = peak_memory(node.pid());

    let mut slow = Vec::new();
    for bytes in &contents {
        let mut open = node
            .client()
            .open(Request::get(&blob("a", &parent.blob("a", bytes))))
            .await;
        open.read(64 << 10).await;
        slow.push(open);
    }
    let mut sent = 0;
    eventually("no more comes", async || {
        let before = std::mem::replace(&mut sent, parent.body_bytes("/blobs/"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        before == sent
    })
    .await;
    let grown = peak_memory(node.pid()) - before;

    // Without a bound for all of them it would be 8 MiB for each.
    assert!(grown < 160 << 20, "{grown} bytes more of memory");
    let mut pulls = JoinSet::new();
    for (open, bytes) in slow.into_iter().zip(contents) {
        pulls.spawn(async move { open.compare(&bytes).await.is_whole(&bytes) });
    }
    assert!(pulls.join_all().await.into_iter().all(|whole| whole));
}
