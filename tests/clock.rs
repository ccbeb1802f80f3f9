//! The clock on the wall is wrong, or jumps: libfaketime tells the whole program, its libraries included, another time.

use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::client::{blob, manifest};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::processor_time;
use crate::support::upstream::Upstream;
use crate::support::wall::{can_be_set, set, told_the_time};

const IN_1970: &str = "@1970-01-02 00:00:00";
const YEARS: i64 = 10 * 365 * 86_400;

async fn is_unset(node: &Node) -> bool {
    node.metrics().await.sum("wharf_clock_unset", &[]) == 1.0
}

#[tokio::test]
async fn a_node_that_begins_in_1970_serves_says_so_and_notices_when_the_clock_is_set() {
    if !can_be_set("a clock in 1970") {
        return;
    }
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let mut node = Setup::below(&parent.url()).placed();
    told_the_time(&mut node, IN_1970);
    node.start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    let said = node.admin("/readyz").await;
    assert_eq!(said.status, 200, "{said}");
    assert!(
        said.text().contains("the clock is not set: it says Fri, 02 Jan 1970"),
        "{said}"
    );
    assert!(is_unset(&node).await);
    assert!(node.log().contains("clock not set"), "{}", node.log());

    set(&node, "+0");

    eventually("it is noticed that the clock was set", async || {
        node.log().contains("clock set\n")
    })
    .await;
    assert!(!node.admin("/readyz").await.text().contains("clock"));
    assert!(!is_unset(&node).await);
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
}

#[tokio::test]
async fn a_parent_by_https_fails_in_1970_with_the_reason_and_works_when_the_clock_is_set() {
    if !can_be_set("certificates in 1970") {
        return;
    }
    let authority = Authority::new();
    let parent = Upstream::tls(&authority).await;
    let image = parent.new_image("a", "v1", &[10]);
    let mut node = Setup::below(&parent.url()).placed();
    let ca = authority.ca_file(node.folder());
    node.setup = node.setup.clone().parent(&format!("ca_file = \"{}\"", ca.display()));
    told_the_time(&mut node, IN_1970);
    node.start().await;

    let reply = node.get(&manifest("a", "v1")).await;
    assert!(matches!(reply.status, 502 | 503), "{reply}");
    let said = node.admin("/readyz").await.text();
    assert!(said.contains("no certificate can be judged"), "{said}");

    set(&node, "+0");
    eventually("the parent is believed", async || {
        node.get(&manifest("a", "v1")).await.body == image.manifest.bytes
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_jumps_loses_no_warm_tag_makes_none_immortal_and_spins_nothing() {
    if !can_be_set("a clock that jumps") {
        return;
    }
    let mut parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[1000]);
    let mut node = Setup::below(&parent.url()).tag_ttl("2s").placed();
    told_the_time(&mut node, "+0");
    node.start().await;
    let mut last = old;

    for jump in [YEARS, -YEARS, -3600, 0] {
        eventually("the tag is fresh", async || {
            node.get(&manifest("a", "v1")).await.body == last.manifest.bytes
        })
        .await;
        let warmed = std::time::Instant::now();
        node.get(&manifest("a", "v1")).await.assert_is(&last.manifest.bytes);
        let asked = parent.asked();

        set(&node, &format!("{jump:+}"));
        // Fresh by the time that passed, whatever the wall says. A machine too slow for that proves nothing here.
        node.get(&manifest("a", "v1")).await.assert_is(&last.manifest.bytes);
        if warmed.elapsed() < Duration::from_millis(100) {
            assert!(
                parent.asked() - asked <= 1,
                "{jump}: the parent was asked again and again"
            );
        }
        node.get(&blob("a", &last.layer(0))).await.assert_is(&last.layers[0]);
        // Nor is it lost where nobody can be asked, however old the wall makes it.
        parent.stop().await;
        tokio::time::sleep(Duration::from_millis(2100).saturating_sub(warmed.elapsed())).await;
        node.get(&manifest("a", "v1")).await.assert_is(&last.manifest.bytes);
        parent.start_again().await;

        let seed = [usize::try_from(2000 + jump.unsigned_abs() % 1000).unwrap()];
        last = parent.new_image("a", "v1", &seed);
        eventually("the tag that moved is seen", async || {
            node.get(&manifest("a", "v1")).await.body == last.manifest.bytes
        })
        .await;
    }

    let before = processor_time(node.pid());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spent = processor_time(node.pid()) - before;
    assert!(
        spent <= Duration::from_millis(100),
        "{spent:?} in half a second of nothing to do"
    );
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
