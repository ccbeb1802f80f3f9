//! How much of a line is taken, and by whom first.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::client::{Request, blob};
use crate::support::content::{Image, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::thin::Thin;
use crate::support::upstream::Upstream;

const ALL: &str = "[[sync]]\nrepositories = [\"ahead/*\"]\n";

/// The rate of these tests, as the settings write it, and in bytes.
const LIMIT: &str = "5MB/s";
const RATE: u64 = 5_000_000;

/// A line that is not thin.
const WIDE: u64 = 1 << 40;

/// Over so long the rate is measured.
const SPAN: Duration = Duration::from_secs(2);

fn node(line: &Thin, bandwidth: &str) -> Setup {
    Setup::below(&line.url()).parent(bandwidth).more(ALL)
}

/// Images enough to keep the line busy for so many seconds.
fn ahead(parent: &Upstream, seconds: u64) {
    for at in 0..seconds {
        parent.new_image("ahead/app", &format!("v{at}"), &[RATE as usize]);
    }
}

/// The largest distance from the rate of all spans within a time, as a share of it.
fn worst(crossed: impl Fn(Instant, Instant) -> u64, from: Instant, until: Instant) -> f64 {
    let mut worst = 0.0_f64;
    let mut at = from;
    println!(
        "{:?}",
        (0..80)
            .map(|n| crossed(
                from + Duration::from_millis(100 * n),
                from + Duration::from_millis(100 * n + 100)
            ) / 1000)
            .collect::<Vec<_>>()
    );
    while at + SPAN <= until {
        let share = crossed(at, at + SPAN) as f64 / (RATE as f64 * SPAN.as_secs_f64());
        worst = worst.max((share - 1.0).abs());
        at += Duration::from_millis(100);
    }
    worst
}

#[tokio::test]
async fn a_line_that_is_limited_carries_what_the_limit_says_within_a_twentieth() {
    let parent = Upstream::start().await;
    ahead(&parent, 12);
    let line = Thin::to(parent.address(), WIDE).await;
    let node = node(&line, &format!("bandwidth = {{ down = \"{LIMIT}\" }}"))
        .start()
        .await;
    eventually("it begins", async || line.crossed() > 100_000).await;

    let from = Instant::now() + Duration::from_millis(500);
    sleep(Duration::from_secs(9)).await;

    let off = worst(|from, until| line.came(from, until), from, Instant::now());
    println!("down at {LIMIT}: off by {off:.4} at the worst over {SPAN:?}");
    assert!(off < 0.05, "{off}");
    drop(node);
}

#[tokio::test]
async fn a_line_that_is_limited_upwards_carries_what_the_limit_says_within_a_twentieth() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    let line = Thin::to(parent.address(), WIDE).await;
    let node = Setup::below(&line.url())
        .registry()
        .parent(&format!("bandwidth = {{ up = \"{LIMIT}\" }}"))
        .start()
        .await;
    let image = Image::of(&[RATE as usize * 4, RATE as usize * 8]);

    node.to("plant/log").image("v1", &image).await;
    eventually("it begins", async || line.crossed() > 100_000).await;
    let from = Instant::now() + Duration::from_millis(500);
    sleep(Duration::from_secs(9)).await;

    let off = worst(|from, until| line.went(from, until), from, Instant::now());
    println!("up at {LIMIT}: off by {off:.4} at the worst over {SPAN:?}");
    assert!(off < 0.05, "{off}");
    node.drained().await;
}

/// Pulls a blob while the node fetches ahead, and says what share of the line it had from a second after it began.
async fn share_of_a_pull(node: &Node, line: &Thin, parent: &Upstream) -> f64 {
    let content = random(RATE as usize * 4);
    let digest = parent.blob("pulled/app", &content);
    eventually("it fetches ahead", async || line.crossed() > RATE / 2).await;

    let (target, began) = (blob("pulled/app", &digest), Instant::now());
    let pull = node.get(&target);
    tokio::pin!(pull);
    let from = began + Duration::from_secs(1);
    tokio::select! {
        reply = &mut pull => panic!("it was over at once: {}", reply.status),
        () = tokio::time::sleep_until(from) => (),
    };
    pull.await.assert_is(&content);
    let until = Instant::now();
    let pulled = line.came_for(&digest, from, until);
    let all = line.came(from, until);
    let of_rate = pulled as f64 / (RATE as f64 * (until - from).as_secs_f64());
    println!(
        "pulled {pulled} of {all} bytes that crossed; {of_rate:.4} of the line, {:.1} s in all",
        (until - began).as_secs_f64()
    );
    (pulled as f64 / all as f64).min(of_rate)
}

#[tokio::test]
async fn a_pull_gets_nine_tenths_of_a_limited_line_within_a_second_of_its_beginning() {
    let parent = Upstream::start().await;
    ahead(&parent, 30);
    let line = Thin::to(parent.address(), WIDE).await;
    let node = node(&line, &format!("bandwidth = {{ down = \"{LIMIT}\" }}"))
        .start()
        .await;

    let share = share_of_a_pull(&node, &line, &parent).await;

    assert!(share >= 0.9, "{share}");
}

#[tokio::test]
async fn a_pull_gets_nine_tenths_of_a_thin_line_within_a_second_though_nobody_said_how_thin_it_is() {
    let parent = Upstream::start().await;
    ahead(&parent, 30);
    let line = Thin::to(parent.address(), RATE).await;
    let node = node(&line, "").start().await;

    let share = share_of_a_pull(&node, &line, &parent).await;

    assert!(share >= 0.9, "{share}");
    // What made way goes on.
    let before = line.crossed();
    eventually("it goes on fetching ahead", async || line.crossed() > before + RATE).await;
}

#[tokio::test]
async fn a_limit_that_changes_holds_at_once() {
    let parent = Upstream::start().await;
    ahead(&parent, 40);
    let line = Thin::to(parent.address(), WIDE).await;
    let node = node(&line, "bandwidth = { down = \"1MB/s\" }").start().await;
    eventually("it begins", async || line.crossed() > 500_000).await;
    let file = node.folder().join("wharf.toml");
    let text = std::fs::read_to_string(&file).unwrap();

    for (limit, rate) in [("8MB/s", 8e6), ("2MB/s", 2e6), ("6MB/s", 6e6)] {
        std::fs::write(&file, text.replace("1MB/s", limit)).unwrap();
        let reply = node.admin_send(Request::new("POST", "/api/reload")).await;
        assert_eq!(reply.status, 200, "{reply}");
        sleep(Duration::from_secs(1)).await;
        let from = Instant::now();
        sleep(SPAN).await;
        let share = line.came(from, Instant::now()) as f64 / (rate * SPAN.as_secs_f64());
        assert!((0.85..1.15).contains(&share), "{limit}: {share}");
    }
}

#[tokio::test]
async fn once_the_bytes_of_a_day_have_crossed_pulls_go_on_and_the_rest_waits_also_after_a_restart() {
    let parent = Upstream::start().await;
    ahead(&parent, 12);
    let day = 24_000_000_u64;
    let line = Thin::to(parent.address(), RATE * 4).await;
    let mut node = node(&line, "bandwidth = { down_per_day = \"24MB\" }").start().await;
    let spent = async |node: &Node| {
        node.admin("/api/sync")
            .await
            .text()
            .contains("the bytes of the day have crossed")
    };

    eventually("the bytes of the day have crossed", async || spent(&node).await).await;
    sleep(Duration::from_secs(1)).await;
    let crossed = line.crossed();
    assert!((day..day + RATE * 2).contains(&crossed), "{crossed}");
    node.kill();
    node.start().await;
    sleep(Duration::from_secs(3)).await;
    assert!(line.crossed() < crossed + RATE * 2, "{}", line.crossed());
    eventually("it is known after the restart", async || spent(&node).await).await;

    let content = random(1000);
    let digest = parent.blob("pulled/app", &content);
    node.get(&blob("pulled/app", &digest)).await.assert_is(&content);
}

#[tokio::test]
async fn a_push_stops_in_the_middle_once_the_bytes_of_a_day_have_gone_and_goes_on_when_there_are_more() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    let size = RATE as usize * 6;
    let line = Thin::to(parent.address(), RATE).await;
    let node = Setup::below(&line.url())
        .registry()
        .parent("bandwidth = { up_per_day = \"8MB\" }")
        .start()
        .await;
    node.to("plant/log").image("v1", &Image::of(&[size])).await;

    eventually("the bytes of the day have crossed", async || {
        node.admin("/api/queue")
            .await
            .text()
            .contains("the bytes of the day have crossed")
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    let gone = line.crossed();
    sleep(Duration::from_secs(2)).await;
    assert!((8_000_000..8_000_000 + RATE * 2).contains(&gone), "{gone}");
    assert_eq!(line.crossed(), gone);
    assert!(parent.tag_of("plant/log", "v1").is_none());

    let file = node.folder().join("wharf.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("8MB", "1GB")).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    node.drained().await;
    assert!(
        line.crossed() < size as u64 * 11 / 10,
        "it was begun anew: {}",
        line.crossed()
    );
}
