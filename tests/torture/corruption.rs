use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull};
use super::{Dice, KIB, MIB, Object, Quarry, progress, sized};
use crate::support::content::random;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Upstream};

/// Pull at the same time; each has objects to itself while it does.
const PULLERS: usize = 8;

/// Sizes about which something changes: what is held back, what is hashed at once, and what is far ahead.
const CORNERS: [usize; 9] = [
    1,
    2,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    512 * KIB,
    16 * MIB,
    40 * MIB,
    64 * MIB,
];

/// An object, and the lie about it that nobody was told yet.
struct Quarried {
    object: Object,
    lie: Option<Fault>,
}

/// What those who pulled heard of a lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heard {
    Nothing,
    /// It was told, and what they wanted came all the same.
    Lie,
    /// It was told, and somebody's reply was broken off or refused for it.
    Broken,
}

struct Scene {
    parent: Upstream,
    node: Node,
    objects: Vec<Mutex<Quarried>>,
    /// One answer in so many is a lie.
    answers_per_lie: usize,
    pulls: AtomicUsize,
    /// Answers that had a wrong byte.
    corrupted: AtomicUsize,
    /// Replies that were broken off or refused for it.
    broken: AtomicUsize,
    excepted: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_parent_that_sends_a_wrong_byte_now_and_then_no_reply_is_wrong_and_each_heals() {
    let pulls = sized(1000, 10_000);
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let quarry = Quarry::new(64 * MIB);
    let sizes: Vec<usize> = (0..111).map(|_| 3 + dice.size(63 * MIB)).chain(CORNERS).collect();
    let objects = quarry.objects(&mut dice, &parent, "a", sizes);
    // Far less than all of them, so that most pulls are cold.
    let node = Setup::below(&parent.url()).capacity("112MiB").start().await;
    let scene = Arc::new(Scene {
        parent,
        node,
        objects: objects
            .into_iter()
            .map(|object| Mutex::new(Quarried { object, lie: None }))
            .collect(),
        // A short run would see hardly any.
        answers_per_lie: sized(20, 100),
        pulls: AtomicUsize::new(0),
        corrupted: AtomicUsize::new(0),
        broken: AtomicUsize::new(0),
        excepted: AtomicUsize::new(0),
    });

    let mut pullers = JoinSet::new();
    for _ in 0..PULLERS {
        let (scene, mut dice) = (Arc::clone(&scene), dice.another());
        pullers.spawn(async move {
            while scene.pulls.load(Ordering::SeqCst) < pulls {
                scene.step(&mut dice).await;
            }
        });
    }
    pullers.join_all().await;

    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    let asked = scene.parent.count("GET", "/blobs/");
    progress(&format!(
        "{} pulls, {asked} asked of the parent, {} corrupted, {} broken, {} excepted",
        count(&scene.pulls),
        count(&scene.corrupted),
        count(&scene.broken),
        count(&scene.excepted),
    ));
    assert!(asked >= pulls / 4, "only {asked} of {pulls} pulls were cold");
    assert!(count(&scene.corrupted) >= 10, "hardly any answer was wrong");
    assert!(count(&scene.broken) > 0, "no wrong answer was noticed");
}

impl Scene {
    /// One object, asked for in one to three ways at once; and after a lie once more.
    async fn step(&self, dice: &mut Dice) {
        let mut quarried = self.objects[dice.below(self.objects.len())].lock().await;
        let Quarried { object, lie } = &mut *quarried;
        if lie.is_none() && dice.once_in(self.answers_per_lie) {
            let offset = if dice.once_in(4) {
                object.len() - 1
            } else {
                dice.below(object.len())
            };
            let new = Fault::get(&object.digest).flip_at(offset as u64).times(1);
            self.parent.fault(new.clone());
            *lie = Some(new);
        }
        let pulls: Vec<Pull> = (0..=dice.below(4) / 2).map(|_| self.some_pull(object, dice)).collect();
        let whole = || vec![Pull::of(self.node.address(), object)];
        let heard = self.run(pulls, object, lie, false).await;
        if heard == Heard::Nothing {
            return;
        }
        // A part may have been had before it was known that the whole is wrong: whoever comes now still hears of it.
        if heard == Heard::Lie {
            self.run(whole(), object, lie, true).await;
        }
        self.run(whole(), object, lie, false).await;
    }

    /// Unless the parent told its lie meanwhile, or `lied` just before, all must be right.
    async fn run(&self, pulls: Vec<Pull>, object: &Object, lie: &mut Option<Fault>, lied: bool) -> Heard {
        self.pulls.fetch_add(pulls.len(), Ordering::SeqCst);
        let mut running = JoinSet::new();
        for pull in pulls {
            running.spawn(async move { (pull.run().await, pull) });
        }
        let ended = running.join_all().await;

        let told = lie.take_if(|lie| lie.is_spent()).is_some();
        self.corrupted.fetch_add(usize::from(told), Ordering::SeqCst);
        let lied = lied || told;
        let mut heard = if lied { Heard::Lie } else { Heard::Nothing };
        for (outcome, pull) in ended {
            match outcome {
                Outcome::Whole => {}
                Outcome::Wrong if pull.is_excepted() && lied => {
                    self.excepted.fetch_add(1, Ordering::SeqCst);
                }
                Outcome::Broken | Outcome::Refused(502) if lied => {
                    heard = Heard::Broken;
                    self.broken.fetch_add(1, Ordering::SeqCst);
                }
                other => panic!(
                    "{other:?} for {pull} (was there a lie: {lied}); the log ends with {}",
                    self.log_of(object)
                ),
            }
        }
        heard
    }

    /// What the node said of it.
    fn log_of(&self, object: &Object) -> String {
        let log = self.node.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&object.digest)).collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn some_pull(&self, object: &Object, dice: &mut Dice) -> Pull {
        let pull = Pull::of(self.node.address(), object);
        let last = object.len() - 1;
        match dice.below(6) {
            0 => pull.part(dice.below(object.len()), last),
            1 => {
                let first = dice.below(object.len());
                pull.part(first, first + dice.below(object.len() - first))
            }
            _ => pull,
        }
    }
}

#[tokio::test]
async fn after_a_lie_what_came_right_and_was_evicted_is_had_by_parts_at_once() {
    let parent = Upstream::start().await;
    let node = Setup::below(&parent.url()).capacity("64MiB").start().await;
    let object = Object::at(&parent, "a", random(MIB));
    parent.fault(Fault::get(&object.digest).flip_at(0).times(1));
    let whole = Pull::of(node.address(), &object);
    assert_eq!(
        [whole.run().await, whole.run().await],
        [Outcome::Broken, Outcome::Whole]
    );
    for _ in 0..2 {
        let other = Object::at(&parent, "a", random(36 * MIB));
        assert_eq!(Pull::of(node.address(), &other).run().await, Outcome::Whole);
    }
    assert!(!node.has_stored(&object.digest));

    let part = whole.part(1000, MIB - 1).run().await;

    assert_eq!(part, Outcome::Whole);
}
