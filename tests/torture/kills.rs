use std::time::Duration;

use super::pull::{Outcome, Pull};
use super::{Dice, MIB, Object, progress, sized};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::Setup;
use crate::support::upstream::{Fault, Upstream};

/// What may be fetched twice after a kill: what was on its way.
const ON_ITS_WAY: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_in_the_middle_of_a_cold_pull_the_next_one_is_right_and_fetches_the_rest() {
    let size = sized(32 * MIB, 256 * MIB);
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).capacity("1GiB").start().await;

    for kill in 1..=20 {
        let object = Object::at(&parent, "a", random(size));
        parent.fault(Fault::get(&object.digest).pace(256 << 20).times(1));
        let at = dice.below(size) as u64;
        let first = Pull::of(node.address(), &object);
        let first = tokio::spawn(async move { first.run().await });
        eventually("the parent has sent so much", async || {
            parent.body_bytes(&object.digest) >= at
        })
        .await;
        tokio::time::sleep(Duration::from_micros(dice.below(5000) as u64)).await;
        node.kill();
        let outcome = first.await.unwrap();
        assert!(
            [Outcome::Broken, Outcome::Unanswered, Outcome::Whole].contains(&outcome),
            "{outcome:?}"
        );
        let sent = parent.body_bytes(&object.digest);
        node.start().await;
        let next = Pull::of(node.address(), &object).run().await;

        assert_eq!(next, Outcome::Whole, "after kill {kill}");
        let again = parent.body_bytes(&object.digest) - sent;
        let rest = (size as u64).saturating_sub(sent);
        progress(&format!(
            "kill {kill}: {sent} bytes before it, {again} after, of {size}"
        ));
        assert!(
            again <= rest + ON_ITS_WAY,
            "kill {kill}: {sent} bytes were sent before it, and {again} after it, of {size}"
        );
        parent.without_blob("a", &object.digest);
    }
}
