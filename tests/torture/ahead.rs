use std::time::Duration;

use super::{Dice, MIB, progress, sized};
use crate::support::client::{blob, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Cut, Fault, Upstream};

const TAGS: usize = 6;

const RULES: &str = "[[sync]]\nrepositories = [\"plant/*\"]\nreferrers = false\n";

/// Of a pass that was asked for now.
async fn is_in_sync(node: &Node) -> bool {
    let report = node.admin("/api/sync").await.json();
    report["syncState"] == "Succeeded" && report["waiting"] == 0
}

/// How many tags the node shows, all of each of which it has, and how many of them are what was pushed last; the parent is away.
async fn shown(node: &Node, parent: &[Vec<Image>]) -> (usize, usize) {
    let (mut count, mut newest) = (0, 0);
    for (number, images) in parent.iter().enumerate() {
        let reply = node.get(&manifest("plant/app", &format!("v{number}"))).await;
        if reply.status != 200 {
            continue;
        }
        count += 1;
        let image = images.iter().find(|image| image.manifest.bytes == reply.body);
        let image = image.unwrap_or_else(|| panic!("v{number} is what nobody pushed: {reply}"));
        newest += usize::from(images.last().is_some_and(|last| last.manifest.bytes == reply.body));
        node.get(&blob("plant/app", &image.config_digest()))
            .await
            .assert_is(&image.config);
        for (at, bytes) in image.layers.iter().enumerate() {
            node.get(&blob("plant/app", &image.layer(at))).await.assert_is(bytes);
        }
    }
    (count, newest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_of_a_pass_a_node_shows_no_tag_of_which_anything_is_missing() {
    let mut dice = Dice::new();
    let mut parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).more(RULES).tag_ttl("1h").placed();
    // All that was ever pushed under each tag.
    let mut pushed: Vec<Vec<Image>> = vec![Vec::new(); TAGS];
    let (mut unfinished, mut mixed) = (0, 0);

    for _ in 0..sized(20, 1000) {
        for (number, images) in pushed.iter_mut().enumerate() {
            let sizes = [1 + dice.below(MIB), 1 + dice.below(MIB), 1 + dice.below(64)];
            images.push(parent.new_image("plant/app", &format!("v{number}"), &sizes));
        }
        parent.fault(Fault::any("/blobs/").pace(8 << 20).times(100_000));
        node.start().await;
        tokio::time::sleep(Duration::from_millis(dice.below(350) as u64)).await;
        node.kill();
        parent.stop().await;
        node.start().await;
        let (_, newest) = shown(&node, &pushed).await;
        unfinished += usize::from(newest < TAGS);
        mixed += usize::from((1..TAGS).contains(&newest));
        node.kill();
        parent.start_again().await;
        parent.without_faults();
    }

    node.start().await;
    eventually("all is there at last", async || is_in_sync(&node).await).await;
    parent.stop().await;
    assert_eq!(shown(&node, &pushed).await, (TAGS, TAGS));
    progress(&format!(
        "{unfinished} kills came before all was shown, {mixed} between one tag and another"
    ));
    assert!(unfinished > 0, "no kill fell into a pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_again_and_again_comes_whole_and_hardly_anything_twice() {
    let (size, cuts) = sized((24 * MIB, 6), (256 * MIB, 25));
    let parent = Upstream::start().await;
    let images: Vec<Image> = (0..4)
        .map(|at| parent.new_image("plant/app", &format!("v{at}"), &[size]))
        .collect();
    for image in &images {
        for _ in 0..cuts {
            // An orderly end: what a reset throws away in the kernels of both sides nobody has read.
            parent.fault(
                Fault::get(&image.layer(0))
                    .cut_after((size / (cuts + 2)) as u64, Cut::Fin)
                    .times(1),
            );
        }
    }

    let node = Setup::below(&parent.url()).more(RULES).start().await;
    eventually("all is here", async || is_in_sync(&node).await).await;

    let wanted: usize = images.iter().map(|image| image.config.len() + size).sum();
    let came = parent.body_bytes("/blobs/");
    let asked = parent.count("GET", "/blobs/");
    progress(&format!("{asked} transfers brought {came} bytes of {wanted}"));
    assert!(asked >= 4 * (cuts + 1), "only {asked} transfers");
    assert!(came as f64 <= wanted as f64 * 1.01, "{came} bytes came for {wanted}");
    for image in &images {
        node.get(&blob("plant/app", &image.layer(0)))
            .await
            .assert_is(&image.layers[0]);
    }
    assert_eq!(parent.count("GET", "/blobs/"), asked);
}
