//! A node that owes pushes is given another mode or another parent: nothing is lost, and nothing goes where nobody sent it.

use std::time::{Duration, Instant};

use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::owing::{below, parent};
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

async fn set(node: &mut Node, setup: Setup) {
    node.setup = setup;
    node.restart().await;
}

#[tokio::test]
async fn a_registry_that_becomes_a_mirror_delivers_what_it_owes_and_takes_pushes_as_a_registry_again() {
    let mut parent = parent().await;
    let mut node = below(&parent).start().await;
    let images = [Image::of(&[1000]), Image::of(&[2 << 20]), Image::of(&[1000])];
    node.to("a").image("v0", &images[0]).await;
    node.drained().await;
    parent.stop().await;
    node.to("a").image("v1", &images[1]).await;

    set(&mut node, Setup::below(&parent.url()).tag_ttl("0s")).await;
    assert_eq!(node.owed().await.len(), 1);
    node.to("a").begin("").await.assert_error(405, "UNSUPPORTED");
    node.to("a").assert_has("v1", &images[1]).await;
    parent.start_again().await;
    node.drained().await;
    assert!(parent.has_image("a", "v0", &images[0]) && parent.has_image("a", "v1", &images[1]));
    node.to("a").assert_has("v1", &images[1]).await;

    set(&mut node, below(&parent)).await;
    node.to("a").image("v2", &images[2]).await;
    node.drained().await;
    assert!(parent.has_image("a", "v2", &images[2]));
    assert_eq!(node.to("a").tags().await, ["v0", "v1", "v2"]);
}

/// A node that was pushed `v0`, which its first parent has, and `v1`, which it does not: that is away. Then it is given
/// another.
async fn moved_to(second: &Upstream) -> (Upstream, Node, [Image; 2]) {
    let mut first = parent().await;
    let mut node = below(&first).start().await;
    let images = [Image::of(&[1000]), Image::of(&[1 << 20])];
    node.to("a").image("v0", &images[0]).await;
    node.released().await;
    first.stop().await;
    node.to("a").image("v1", &images[1]).await;
    set(&mut node, below(second)).await;
    (first, node, images)
}

async fn reasons(node: &Node) -> String {
    node.admin("/readyz").await.json()["reasons"].to_string()
}

#[tokio::test]
async fn what_is_owed_to_an_earlier_parent_is_held_in_sight_while_new_pushes_go_to_the_new_one() {
    let second = parent().await;
    let (first, node, images) = moved_to(&second).await;

    assert_eq!(node.states("a").await, ["held"]);
    assert!(node.log().contains("what is owed to another parent is held"));
    let reason = node.owed().await[0]["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains(&first.url()) && reason.contains(&second.url()),
        "{reason}"
    );
    assert!(reasons(&node).await.contains(&first.url()));
    let held = node.metrics().await.sum("wharf_queue_items", &[("state", "held")]);
    assert_eq!(held, 1.0);
    node.to("a").assert_has("v1", &images[1]).await;
    let new = Image::of(&[2000]);
    node.to("a").image("v2", &new).await;
    eventually("the new parent has it", async || second.has_image("a", "v2", &new)).await;
    node.stands("a", &["held"]).await;
    node.settle("retry?all=true").await;
    node.stands("a", &["held"]).await;
    assert_eq!(second.tag_of("a", "v1"), None);
}

#[tokio::test]
async fn what_is_held_for_an_earlier_parent_goes_to_the_new_one_when_an_operator_says_so() {
    let second = parent().await;
    let (_first, node, images) = moved_to(&second).await;

    let asked = node.wharf_queue(&["retry", "--all"]);
    assert_eq!(asked.code, Some(1), "{}", asked.words);
    assert!(
        asked.words.contains("0 tried again") && asked.words.contains("held: owed to another parent; with --force"),
        "{}",
        asked.words
    );
    assert_eq!(node.states("a").await, ["held"]);
    let turned = node.wharf_queue(&["retry", "--all", "--force"]);
    assert_eq!(turned.code, Some(0), "{}", turned.words);
    node.drained().await;

    assert!(second.has_image("a", "v1", &images[1]));
}

#[tokio::test]
async fn what_is_held_for_an_earlier_parent_goes_there_once_it_is_the_parent_again() {
    let second = parent().await;
    let (mut first, mut node, images) = moved_to(&second).await;
    let new = Image::of(&[2000]);
    node.to("a").image("v2", &new).await;
    eventually("the new parent has it", async || second.has_image("a", "v2", &new)).await;
    node.stands("a", &["held"]).await;

    first.start_again().await;
    set(&mut node, below(&first)).await;
    node.drained().await;

    assert!(first.has_image("a", "v0", &images[0]) && first.has_image("a", "v1", &images[1]));
    assert_eq!(first.tag_of("a", "v2"), None);
    assert_eq!(second.tag_of("a", "v1"), None);
}

#[tokio::test]
async fn what_is_owed_is_held_while_there_is_no_parent() {
    let mut parent = parent().await;
    let mut node = below(&parent).start().await;
    parent.stop().await;
    let images = [Image::of(&[1000]), Image::of(&[1000])];
    node.to("a").image("v1", &images[0]).await;

    set(&mut node, Setup::alone().registry()).await;
    assert_eq!(node.states("a").await, ["held"]);
    assert!(reasons(&node).await.contains("no parent is configured"));
    node.to("a").image("alone", &images[1]).await;
    node.to("a").assert_has("v1", &images[0]).await;
    assert_eq!(node.owed().await.len(), 1);

    parent.start_again().await;
    set(&mut node, below(&parent)).await;
    node.drained().await;
    assert!(parent.has_image("a", "v1", &images[0]));
    node.to("a").assert_has("alone", &images[1]).await;
}

#[tokio::test]
async fn what_waits_for_a_mirror_goes_on_as_soon_as_that_is_known_to_be_a_registry() {
    let cloud = parent().await;
    let mut above = below(&cloud).named("above").start().await;
    let node = Setup::below(&above.url()).registry().tag_ttl("0s").start().await;
    let image = Image::of(&[1000]);
    above.kill();
    node.to("a").image("v1", &image).await;
    set(&mut above, Setup::below(&cloud.url()).named("above")).await;
    eventually("nothing is delivered", async || {
        node.counts("wharf_queue_paused").await == 1.0
    })
    .await;

    set(&mut above, below(&cloud).named("above")).await;
    let again = Instant::now();
    eventually("it is delivered", async || {
        node.to("a").get("manifests/other").await;
        node.owed().await.is_empty()
    })
    .await;

    let took = again.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}: it only came to its turn");
    above.to("a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn what_is_dropped_stays_whole_where_a_tag_that_was_pushed_before_there_was_a_parent_names_it() {
    let mut parent = parent().await;
    let mut node = Setup::alone().registry().start().await;
    let image = Image::of(&[1000]);
    node.to("a").image("alone", &image).await;
    parent.stop().await;
    set(&mut node, below(&parent).capacity("64MiB")).await;
    node.to("a").manifest("v1", &image.manifest).await;

    node.settle("drop?all=true").await;
    node.drained().await;
    parent.start_again().await;
    node.crowd_out(&parent, 3, 30 * MIB).await;

    node.to("a").assert_has("alone", &image).await;
    node.to("a")
        .get("manifests/v1")
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_blob_that_was_half_sent_to_an_earlier_parent_is_sent_whole_to_the_new_one() {
    use crate::support::upstream::{Fault, Gate};
    let (mut first, second) = (parent().await, parent().await);
    let mut node = below(&first).start().await;
    let gate = Gate::closed();
    first.fault(Fault::patch("").pause_reading_after(1 << 20, &gate));
    let image = Image::of(&[4 << 20]);
    node.to("a").image("v1", &image).await;
    eventually("a part of it came", async || first.blob_bytes_received() >= 1 << 20).await;
    node.kill();
    first.stop().await;

    set(&mut node, below(&second)).await;
    node.settle("retry?all=true&turn=true").await;
    node.drained().await;

    assert!(second.has_image("a", "v1", &image));
}
