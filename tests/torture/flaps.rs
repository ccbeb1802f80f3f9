use std::time::{Duration, Instant};

use super::{Object, progress, sized};
use crate::support::client::{blob, manifest};
use crate::support::content::random;
use crate::support::node::Setup;
use crate::support::process::processor_time;
use crate::support::upstream::{Fault, Upstream};

/// How long the parent is there, and away.
const SPELL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_parent_that_comes_and_goes_breaks_no_warm_pull_and_costs_little() {
    let rounds = sized(6, 300);
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    // Tags are old at once.
    let node = Setup::below(&parent.url()).tag_ttl("0s").start().await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    assert_eq!(node.get(&blob("a", &image.layer(0))).await.status, 200);
    let (begun, before) = (Instant::now(), processor_time(node.pid()));

    let (mut cold, mut warm) = (0, 0);
    for round in 0..rounds {
        // Away is a port that nobody listens at, or a parent that takes questions and says nothing.
        match round % 4 {
            0 => parent.stop().await,
            1 => parent.start_again().await,
            2 => parent.fault(Fault::any("").silent()),
            _ => parent.without_faults(),
        }
        let until = begun + SPELL * (round + 1);
        if round % 2 == 1 {
            let object = Object::at(&parent, "b", random(1000));
            cold += u32::from(node.get(&object.target).await.body == object.bytes);
        }
        while Instant::now() < until {
            let tag = node.get(&manifest("a", "v1")).await;
            let layer = node.get(&blob("a", &image.layer(0))).await;
            tag.assert_is(&image.manifest.bytes);
            layer.assert_is(&image.layers[0]);
            // Who meets a silence waits until an old answer will do, also if it began in the spell before.
            let most = Duration::from_secs(if round % 4 >= 2 { 3 } else { 1 });
            assert!(tag.head_after < most, "{:?} in round {round}", tag.head_after);
            warm += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if round % 30 == 29 {
            progress(&format!("{:?}: {cold} cold pulls, {warm} warm ones", begun.elapsed()));
        }
        parent.forget();
    }

    assert_eq!(cold, rounds / 2, "cold pulls while it was there");
    let share = (processor_time(node.pid()) - before).div_duration_f64(begun.elapsed());
    progress(&format!("{share:.3} of a processor"));
    assert!(share < 0.2, "{share} of a processor");
}
