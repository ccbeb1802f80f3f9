//! The window: outside it nothing crosses the line that nobody waits for, and what was cut goes on in the next one.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{Request, blob, manifest};
use crate::support::command::{said, wharf};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::thin::Thin;
use crate::support::upstream::Upstream;
use crate::support::wall::{can_be_set, set, time, told_the_time};

/// Four hours from ten in the evening, by a clock that hangs in UTC.
const NIGHT: &str = "[schedule]\ncron = \"0 22 * * *\"\nwindow = \"PT4H\"\n";
const ALL: &str = "[[sync]]\nrepositories = [\"**\"]\n";

/// A line that is not thin.
const WIDE: u64 = 1 << 40;

/// So long after its end connections may be open.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// A node behind a line that tells what crosses.
async fn behind(line: &Thin, more: &str, hour: i64) -> Node {
    let mut node = Setup::below(&line.url())
        .registry()
        .more(&format!("{NIGHT}{more}{ALL}"))
        .placed();
    told_the_time(&mut node, &time(0, hour, 30));
    node.start().await;
    node
}

async fn has(node: &Node, repository: &str, tag: &str) -> bool {
    node.whole(repository, tag).await.is_some()
}

async fn comes(node: &Node, repository: &str, tag: &str) {
    eventually(&format!("{repository}:{tag} is here"), async || {
        has(node, repository, tag).await
    })
    .await;
}

/// When a window was last used, once that is on record on the disk: it is written down beside.
async fn used(node: &Node) -> u64 {
    let mut found = None;
    let noted = |line: &str| line.split_once("window-used ")?.1.trim().parse::<u64>().ok();
    eventually("it is written down, twice, when the window was used", async || {
        let both =
            ["notes", "notes.copy"].map(|name| std::fs::read_to_string(node.data().join(name)).unwrap_or_default());
        let [first, second] = both.map(|text| text.lines().find_map(noted));
        found = first;
        first.is_some() && first == second
    })
    .await;
    found.expect("it was found")
}

/// Waits until the node has noticed and nothing is open to the parent, which has to be soon.
async fn closes(node: &Node, line: &Thin) {
    let since = Instant::now();
    while line.open() > 0
        || !node
            .admin("/api/sync")
            .await
            .text()
            .contains("its window is closed, until ")
    {
        assert!(
            since.elapsed() < CLOSES_WITHIN,
            "{} connections are open {CLOSES_WITHIN:?} after the window",
            line.open()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn outside_the_window_nothing_crosses_that_nobody_waits_for_and_its_connections_close() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    parent.takes_pushes();
    parent.new_image("plant/app", "v1", &[50_000]);
    let line = Thin::to(parent.address(), WIDE).await;
    let node = behind(&line, "", 22).await;
    comes(&node, "plant/app", "v1").await;
    let pushed = Image::of(&[1000]);
    node.to("plant/log").image("v1", &pushed).await;
    eventually("it is delivered", async || parent.tag_of("plant/log", "v1").is_some()).await;

    set(&node, &time(1, 2, 0));
    closes(&node, &line).await;
    let before = line.crossed();
    parent.new_image("plant/app", "v2", &[50_000]);
    let later = Image::of(&[1000]);
    node.to("plant/log").image("v2", &later).await;
    // Longer than anything that is done every so often while the window is open.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(line.crossed() - before, 0);
    assert_eq!(line.open(), 0);
    let queue = node.admin("/api/queue").await.text();
    assert!(queue.contains("its window is closed, until "), "{queue}");

    // Somebody waits for these.
    let pulled = parent.new_image("plant/pulled", "v1", &[10_000]);
    node.get(&manifest("plant/pulled", "v1"))
        .await
        .assert_is(&pulled.manifest.bytes);
    node.get(&blob("plant/pulled", &pulled.layer(0)))
        .await
        .assert_is(&pulled.layers[0]);
    let output = wharf(&node, &["sync", "plant/app:v2"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(has(&node, "plant/app", "v2").await);
    assert!(parent.tag_of("plant/log", "v2").is_none());

    parent.new_image("plant/app", "v3", &[50_000]);
    set(&node, &time(1, 22, 0));
    comes(&node, "plant/app", "v3").await;
    eventually("it is delivered", async || parent.tag_of("plant/log", "v2").is_some()).await;
}

#[tokio::test]
async fn a_parent_that_is_away_is_not_looked_for_outside_the_window() {
    if !can_be_set("windows") {
        return;
    }
    let mut parent = Upstream::start().await;
    parent.takes_pushes();
    let line = Thin::to(parent.address(), WIDE).await;
    let node = behind(&line, "", 22).await;
    eventually("the parent is known", async || parent.asked() > 0).await;
    parent.stop().await;
    let pushed = Image::of(&[1000]);
    node.to("plant/log").image("v1", &pushed).await;
    eventually("the parent is missed", async || {
        node.metrics().await.sum("wharf_parent_up", &[]) == 0.0
    })
    .await;

    set(&node, &time(1, 2, 0));
    closes(&node, &line).await;
    parent.start_again().await;
    let before = line.crossed();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(line.crossed() - before, 0);

    set(&node, &time(1, 22, 0));
    eventually("it is delivered", async || parent.tag_of("plant/log", "v1").is_some()).await;
}

#[tokio::test]
async fn where_pulls_may_not_cross_outside_the_window_what_is_here_is_served_and_the_rest_is_told_until_when() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    let here = parent.new_image("plant/app", "v1", &[50_000]);
    let line = Thin::to(parent.address(), WIDE).await;
    let node = behind(&line, "interactive = \"deny\"\n", 22).await;
    comes(&node, "plant/app", "v1").await;

    set(&node, &time(1, 2, 0));
    closes(&node, &line).await;
    parent.new_image("plant/other", "v1", &[1000]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = line.crossed();

    node.get(&manifest("plant/app", "v1"))
        .await
        .assert_is(&here.manifest.bytes);
    node.get(&blob("plant/app", &here.layer(0)))
        .await
        .assert_is(&here.layers[0]);
    let refused = node.get(&manifest("plant/other", "v1")).await;
    assert_eq!(refused.status, 503, "{refused}");
    assert!(
        refused
            .text()
            .contains("asks nothing of its parent now: its window is closed, until "),
        "{refused}"
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((19 * 3600..20 * 3600 + 60).contains(&wait), "{wait}");
    assert_eq!(line.crossed() - before, 0);
}

/// Bytes of the blob that pauses: as much as the issue of it says, or as much as fits among the other tests.
fn large() -> usize {
    match std::env::var("WHARF_TORTURE").as_deref() {
        Ok("full") => 500 << 20,
        _ => 48 << 20,
    }
}

#[tokio::test]
async fn a_window_that_ends_in_the_middle_of_a_blob_pauses_it_and_the_next_one_goes_on_where_it_stopped() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    let size = large();
    let rate = (size / 6) as u64;
    let image = parent.new_image("plant/app", "v1", &[size]);
    let line = Thin::to(parent.address(), rate).await;
    let node = behind(&line, "", 12).await;

    set(&node, &time(0, 22, 0));
    let layer = image.layer(0);
    eventually("half of it has come", async || line.crossed() > size as u64 / 2).await;
    set(&node, &time(1, 2, 0));
    closes(&node, &line).await;
    assert!(!node.has_stored(&layer));
    let paused = line.crossed();
    assert!(paused < size as u64, "it was over before the window closed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(line.crossed(), paused);
    // Not lost with the process, either.
    let mut node = node;
    node.kill();
    node.start().await;
    set(&node, &time(1, 22, 0));
    comes(&node, "plant/app", "v1").await;

    let share = line.crossed() as f64 / size as f64;
    println!("{size} bytes in two windows: {share:.4} of them crossed");
    assert!(share < 1.01 + 400_000.0 / size as f64, "{share}");
}

#[tokio::test]
async fn a_push_that_the_end_of_the_window_cuts_goes_on_where_it_stopped() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    parent.takes_pushes();
    let size = 24 << 20;
    let line = Thin::to(parent.address(), size as u64 / 4).await;
    let node = behind(&line, "", 12).await;
    let image = Image::of(&[size]);
    node.to("plant/log").image("v1", &image).await;

    set(&node, &time(0, 22, 0));
    eventually("half of it has gone", async || line.crossed() > size as u64 / 2).await;
    set(&node, &time(1, 2, 0));
    closes(&node, &line).await;
    let paused = line.crossed();
    assert!(parent.tag_of("plant/log", "v1").is_none() && paused < size as u64);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(line.crossed(), paused);
    set(&node, &time(1, 22, 0));
    eventually("it is delivered", async || parent.tag_of("plant/log", "v1").is_some()).await;

    let share = line.crossed() as f64 / size as f64;
    println!("{size} bytes in two windows: {share:.4} of them crossed");
    assert!(share < 1.1, "{share}");
}

#[tokio::test]
async fn a_window_that_the_node_was_away_for_is_made_up_for_once_if_the_settings_say_so() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    parent.new_image("plant/app", "v1", &[50_000]);
    let line = Thin::to(parent.address(), WIDE).await;
    let mut node = behind(&line, "missed = \"catch-up\"\n", 22).await;
    comes(&node, "plant/app", "v1").await;
    let first = used(&node).await;
    node.kill();

    // The window of the next night goes by.
    set(&node, &time(2, 8, 0));
    parent.new_image("plant/app", "v2", &[50_000]);
    node.start().await;
    comes(&node, "plant/app", "v2").await;
    assert!(used(&node).await > first);
    node.kill();

    // It is over by then, and made up for.
    set(&node, &time(2, 12, 30));
    parent.new_image("plant/app", "v3", &[50_000]);
    node.start().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!has(&node, "plant/app", "v3").await);
    assert_eq!(line.open(), 0);
}

#[tokio::test]
async fn a_schedule_that_is_read_anew_holds_at_once() {
    if !can_be_set("windows") {
        return;
    }
    let parent = Upstream::start().await;
    let size = 16 << 20;
    let image = parent.new_image("plant/app", "v1", &[size]);
    let line = Thin::to(parent.address(), size as u64 / 5).await;
    let node = behind(&line, "", 22).await;
    let file = node.folder().join("wharf.toml");
    eventually("it comes", async || line.crossed() > size as u64 / 4).await;

    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("0 22 * * *", "0 3 * * *")).unwrap();
    let reply = node.admin_send(Request::new("POST", "/api/reload")).await;
    assert_eq!(reply.status, 200, "{reply}");
    closes(&node, &line).await;
    assert!(!node.has_stored(&image.layer(0)));

    std::fs::write(&file, text).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    comes(&node, "plant/app", "v1").await;
}
