use std::time::Duration;

use super::pull::{Outcome, Pull};
use super::{Dice, MIB, Object, progress, sized};
use crate::support::content::random;
use crate::support::node::Setup;
use crate::support::upstream::{Cut, Fault, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_again_and_again_is_one_unbroken_reply_and_little_is_fetched_twice() {
    let (size, cuts) = sized((64 * MIB, 50), (1024 * MIB, 200));
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let object = Object::at(&parent, "a", random(size));
    let mut offsets: Vec<usize> = (0..cuts).map(|_| 1 + dice.below(size - 1)).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut before = 0;
    for offset in &offsets {
        let how = *dice.one_of(&[Cut::Fin, Cut::Rst]);
        // What lies unread in a socket is lost with a reset: the way is slow enough that nothing does for long.
        let fault = Fault::get(&object.digest)
            .pace(128 << 20)
            .lingering(Duration::from_millis(5));
        parent.fault(fault.cut_after((offset - before) as u64, how).times(1));
        before = *offset;
    }
    let node = Setup::below(&parent.url()).capacity("3GiB").start().await;

    let outcome = Pull::of(node.address(), &object).run().await;

    assert_eq!(outcome, Outcome::Whole);
    assert!(
        parent.count("GET", &object.digest) > offsets.len(),
        "not every cut was met"
    );
    let twice = parent.body_bytes(&object.digest) - size as u64;
    progress(&format!(
        "{} cuts of {size} bytes: {twice} were fetched twice",
        offsets.len()
    ));
    assert!(twice <= size as u64 / 100, "{twice} bytes were fetched twice");
    assert!(node.has_stored(&object.digest));
}
