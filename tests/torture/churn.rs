use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::pull::{Outcome, Pull, document};
use super::watch::Watch;
use super::{Dice, KIB, MIB, Object, Quarry, progress, sized};
use crate::support::client::blob;
use crate::support::content::sha256;
use crate::support::eventually;
use crate::support::node::{Node, Setup, disk_bytes};
use crate::support::upstream::{Fault, Upstream};

const CAPACITY: u64 = 256 << 20;
/// What there is to be had.
const TIMES: u64 = 20;
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_holds_its_budget_while_far_more_than_there_is_room_for_is_pulled_and_the_node_is_killed() {
    let (long, between_kills) = sized((50, 8), (600, 20));
    let mut dice = Dice::new();
    let mut parent = Upstream::start().await;
    let objects = Arc::new(objects(&mut dice, &parent));
    // Slow enough that each transfer has others beside it.
    parent.fault(Fault::get("/blobs/").pace(128 << 20));
    let mut node = Setup::below(&parent.url()).capacity("256MiB").start().await;
    let data = node.data();
    let watch = Watch::begin(&node, Duration::from_millis(50), move |pid| {
        Some(disk_bytes(&data, pid))
    });

    let over = Arc::new(AtomicBool::new(false));
    let whole = Arc::new(AtomicUsize::new(0));
    // Odd from a kill until the node is ready again.
    let kills = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (objects, over, whole) = (Arc::clone(&objects), Arc::clone(&over), Arc::clone(&whole));
        let kills = Arc::clone(&kills);
        let (address, mut dice) = (node.address(), dice.another());
        clients.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let before = kills.load(Ordering::SeqCst);
                let pull = some_pull(address, &objects, &mut dice);
                let outcome = pull.run().await;
                let is_killed = before % 2 == 1 || kills.load(Ordering::SeqCst) != before;
                match outcome {
                    Outcome::Whole => drop(whole.fetch_add(1, Ordering::SeqCst)),
                    Outcome::Wrong | Outcome::Stuck | Outcome::Refused(_) => panic!("{outcome:?}"),
                    Outcome::Left => {}
                    Outcome::Broken => assert!(is_killed, "broken while nobody was killed: {pull}"),
                    // Nobody is there for a moment.
                    Outcome::Unanswered => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(long) {
        tokio::time::sleep(Duration::from_secs(between_kills)).await;
        kills.fetch_add(1, Ordering::SeqCst);
        watch.restart(&mut node).await;
        kills.fetch_add(1, Ordering::SeqCst);
        progress(&format!(
            "{:?}: {} pulls",
            begun.elapsed(),
            whole.load(Ordering::SeqCst)
        ));
    }
    // The last ones find it running for a while.
    tokio::time::sleep(Duration::from_secs(10)).await;
    over.store(true, Ordering::SeqCst);
    clients.join_all().await;

    let sent = parent.body_bytes("/blobs/");
    let seen = watch.end();
    let most = seen.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let filled = node.room_of("blobs", &[]);
    progress(&format!(
        "{sent} bytes came for {} pulls; of {CAPACITY} at most {most} were used in {} looks, {filled} at the end",
        whole.load(Ordering::SeqCst),
        seen.len()
    ));
    assert!(most <= CAPACITY, "{most} bytes of disk were used");
    assert!(seen.len() as u64 > long * 12, "only {} looks", seen.len());
    assert!(
        sent > CAPACITY * sized(5, TIMES),
        "only {sent} bytes came from the parent"
    );
    assert!(filled >= CAPACITY * 85 / 100, "only {filled} bytes are in use");

    parent.stop().await;
    assert_what_is_listed_is_complete(&mut node, &objects).await;
}

/// Twenty times what there is room for, of which some are asked for more often.
fn objects(dice: &mut Dice, parent: &Upstream) -> Vec<Object> {
    let quarry = Quarry::new(8 * MIB);
    let (mut objects, mut bytes) = (Vec::new(), 0);
    while bytes < CAPACITY * TIMES {
        let size = 64 * KIB + dice.below(8 * MIB - 64 * KIB);
        bytes += size as u64;
        objects.extend(quarry.objects(dice, parent, "a", [size]));
    }
    objects
}

fn some_pull(address: std::net::SocketAddr, objects: &[Object], dice: &mut Dice) -> Pull {
    let warm = &objects[..objects.len() / 40];
    let object = if dice.once_in(3) {
        dice.one_of(warm)
    } else {
        dice.one_of(objects)
    };
    let pull = Pull::of(address, object);
    match dice.below(24) {
        // Still reading when it is evicted.
        0 => pull.pace(object.len() / 3 + 1),
        1 => pull.leave_after(dice.below(object.len())),
        2 => pull.part(dice.below(object.len()), object.len() - 1),
        _ => pull,
    }
}

/// What is on record has its file, with the bytes that its name says, and is served without anybody above.
async fn assert_what_is_listed_is_complete(node: &mut Node, objects: &[Object]) {
    let by_digest: HashMap<&str, &Object> = objects.iter().map(|object| (object.digest.as_str(), object)).collect();
    assert!(node.stop().await.success());
    let listed = listed(node);
    assert!(listed.len() > 20, "only {} are listed", listed.len());
    for (digest, size) in &listed {
        let bytes = std::fs::read(node.stored_at(digest)).unwrap_or_default();
        assert_eq!(bytes.len() as u64, *size, "{digest}");
        assert_eq!(sha256(&bytes), *digest);
    }
    node.start().await;
    for digest in listed.keys() {
        let outcome = Pull::of(node.address(), by_digest[digest.as_str()]).run().await;
        assert_eq!(outcome, Outcome::Whole, "{digest}, which is listed");
    }
    let stranger = objects.iter().find(|object| !listed.contains_key(&object.digest));
    let answered = document(node.address(), &blob("a", &stranger.expect("not all fit").digest)).await;
    assert_eq!(
        answered.map(|(status, _)| status),
        Some(503),
        "the parent is still there"
    );
    eventually("no more than the budget is used", async || {
        node.disk_bytes() <= CAPACITY
    })
    .await;
}

/// What the index says that repository `a` has, with sizes.
fn listed(node: &Node) -> HashMap<String, u64> {
    let index = rusqlite::Connection::open(node.data().join("index.db")).expect("an index");
    let mut rows = index
        .prepare("SELECT blob.digest, blob.size FROM blob JOIN link ON link.digest = blob.digest")
        .expect("its tables");
    let listed = rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
    listed.expect("rows").map(|row| row.expect("a row")).collect()
}
