use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::pull::{connect, document};
use super::{Dice, KIB, MIB, Object, progress, sized};
use crate::support::client::{Request, blob};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::{descriptors, memory, processor_time};
use crate::support::upstream::Upstream;

/// Bytes that remembering any number of them may take.
const REMEMBERED: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_for_digests_that_nobody_has_take_no_memory_for_long() {
    let questions = sized(20_000, 1_000_000);
    let parent = Upstream::start().await;
    let node = Setup::below(&parent.url()).start().await;
    ask_for_strangers(&node, &parent, questions / 10).await;
    let before = memory(node.pid());

    ask_for_strangers(&node, &parent, questions).await;

    let more = memory(node.pid()).saturating_sub(before);
    progress(&format!(
        "{questions} questions took {more} more bytes of memory than {} did",
        questions / 10
    ));
    assert!(more <= REMEMBERED, "{more} bytes more");
    assert!(
        node.files()
            .iter()
            .all(|(path, _)| !path.starts_with("blobs") && !path.starts_with("partial"))
    );
    eventually("no descriptor is left of it", async || descriptors(node.pid()) < 100).await;
}

/// Asks by 16 connections, for blobs, manifests and what refers to them.
async fn ask_for_strangers(node: &Node, parent: &Upstream, count: usize) {
    let mut dice = Dice::new();
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (client, mut dice) = (node.client(), dice.another());
        clients.spawn(async move {
            let mut connection = client.connect().await;
            for number in 0..count / 16 {
                let digest: String = (0..64).map(|_| char::from(*dice.one_of(b"0123456789abcdef"))).collect();
                let kind = *dice.one_of(&["blobs", "manifests", "referrers"]);
                let target = format!("/v2/a/{kind}/sha256:{digest}");
                let request = if number % 2 == 0 {
                    Request::get(&target)
                } else {
                    Request::head(&target)
                };
                let (reply, next) = connection.open(request).await.rest().await;
                assert!(
                    reply.status == 404 || (reply.status == 200 && kind == "referrers") || reply.status == 405,
                    "{target}: {reply}"
                );
                connection = next;
            }
        });
    }
    clients.join_all().await;
    parent.forget();
}

#[tokio::test]
async fn no_list_of_ranges_brings_more_than_the_blob_or_is_asked_for_more_than_once() {
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let size = MIB;

    for round in 0..sized(40, 400) {
        let object = Object::at(&parent, "a", random(size));
        let count = dice.size(1200);
        let ranges: Vec<String> = (0..count).map(|_| some_range(&mut dice, size)).collect();
        let ranges = ranges.join(",");
        // Longer heads are refused as a whole.
        let ranges = ranges
            .get(..15 * KIB)
            .and_then(|cut| cut.rsplit_once(','))
            .map_or(&*ranges, |(whole, _)| whole);
        let parts = ranges.split(',').count();

        for when in ["cold", "warm"] {
            let reply = node.range(&object.target, ranges).await;

            let what = format!("round {round}, {when}, {parts} ranges: {}", reply.status);
            assert!([200, 206, 416].contains(&reply.status) && reply.complete, "{what}");
            // A part has a few lines of its own before it.
            assert!(
                reply.body.len() <= size + parts * 200,
                "{what}: {} bytes",
                reply.body.len()
            );
            if reply.status == 200 {
                assert!(reply.body == object.bytes, "{what}: other bytes");
            }
        }
        assert!(
            parent.body_bytes(&object.digest) <= size as u64,
            "round {round}: fetched more than once"
        );
        assert!(parent.count("GET", &object.digest) <= 1, "round {round}");
    }
}

fn some_range(dice: &mut Dice, size: usize) -> String {
    let first = dice.below(size + size / 10);
    match dice.below(8) {
        0 => format!("{first}-"),
        1 => format!("-{}", dice.below(size)),
        2 => format!("{}-{}", dice.below(10), size * 2),
        3 => "0-".to_owned(),
        _ => format!("{first}-{}", first + dice.size(size)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_out_of_descriptors_stops_accepting_without_spinning_and_recovers() {
    let parent = Upstream::start().await;
    let object = Arc::new(Object::at(&parent, "a", random(100 * KIB)));
    let mut node = Setup::below(&parent.url()).placed();
    node.limit("-n 256");
    node.start().await;
    node.get(&object.target).await.assert_is(&object.bytes);

    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect(node.address(), false).await.expect("the kernel takes it"));
    }
    eventually("no more are taken", async || node.log().contains("accepting pauses")).await;
    let before = processor_time(node.pid());
    let spell = Duration::from_secs(sized(3, 30));
    tokio::time::sleep(spell).await;
    let spent = processor_time(node.pid()) - before;
    let held = descriptors(node.pid());
    progress(&format!("{spent:?} of a processor in {spell:?}, {held} descriptors"));
    drop(idle);

    assert!(spent < spell / 10, "{spent:?} of a processor in {spell:?} for nothing");
    assert!(held < 256);
    let mut pulls = JoinSet::new();
    for _ in 0..100 {
        let (address, object) = (node.address(), Arc::clone(&object));
        pulls.spawn(async move { document(address, &object.target).await == Some((200, object.bytes.to_vec())) });
    }
    assert_eq!(pulls.join_all().await, vec![true; 100]);
    let unknown = blob("a", &format!("sha256:{}", "0".repeat(64)));
    assert_eq!(node.get(&unknown).await.status, 404);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
