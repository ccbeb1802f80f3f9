use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull};
use super::{Dice, KIB, MIB, Object, Quarry, progress, sized};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::peak_memory;
use crate::support::upstream::{Fault, Gate, Upstream};

/// How long replies may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_transfers_are_finished_before_a_node_that_is_told_to_stop_ends() {
    let stage = Transfers::under_way(100).await;

    stage.node.signal(Signal::SIGTERM);
    let (outcomes, took) = stage.ended(|parent_goes_on| parent_goes_on.open()).await;

    assert_eq!(outcomes, vec![Outcome::Whole; 100]);
    assert!(took < DRAIN, "it took {took:?} to end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_transfers_without_end_keep_a_node_that_is_told_to_stop_for_thirty_seconds() {
    let stage = Transfers::under_way(100).await;

    stage.node.signal(Signal::SIGTERM);
    let (outcomes, took) = stage.ended(|_| {}).await;

    assert_eq!(outcomes, vec![Outcome::Broken; 100]);
    let least = DRAIN - Duration::from_secs(2);
    assert!(
        took > least && took < DRAIN + Duration::from_secs(5),
        "it took {took:?} to end"
    );
}

/// Many cold pulls at once, all held in the middle by the parent.
struct Transfers {
    _parent: Upstream,
    node: Node,
    gate: Gate,
    pulls: JoinSet<Outcome>,
}

impl Transfers {
    async fn under_way(count: usize) -> Self {
        let mut dice = Dice::new();
        let parent = Upstream::start().await;
        let gate = Gate::closed();
        parent.fault(Fault::get("/blobs/").hold_after(200_000, &gate));
        let all_at_once = format!("transfers = {count}");
        let node = Setup::below(&parent.url()).parent(&all_at_once).start().await;
        let objects = Quarry::new(MIB).objects(&mut dice, &parent, "a", vec![MIB; count]);
        let mut pulls = JoinSet::new();
        for object in objects {
            let pull = Pull::of(node.address(), &object);
            pulls.spawn(async move { pull.run().await });
        }
        eventually("all of them are in the middle", async || {
            let sent = parent
                .seen("GET", "/blobs/")
                .iter()
                .filter(|seen| seen.body_bytes() == 200_000)
                .count();
            sent == count && parent.body_bytes("/blobs/") == 200_000 * count as u64
        })
        .await;
        Self {
            _parent: parent,
            node,
            gate,
            pulls,
        }
    }

    /// What became of the pulls, and how long the node took to end, which it did well.
    async fn ended(mut self, then: impl FnOnce(&Gate)) -> (Vec<Outcome>, Duration) {
        let begun = Instant::now();
        then(&self.gate);
        let outcomes = self.pulls.join_all().await;
        let status = self.node.ended().await;
        assert!(status.success(), "{status}");
        (outcomes, begun.elapsed())
    }
}

/// Bytes of memory that are enough for any load.
const ENOUGH: u64 = 384 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_below_its_bound_under_a_load_of_everything() {
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let quarry = Quarry::new(16 * MIB);
    let sizes: Vec<usize> = (0..sized(150, 1500)).map(|_| dice.size(16 * MIB)).collect();
    let objects = quarry.objects(&mut dice, &parent, "a", sizes);
    // More is killed by the kernel, where that can be had; what files take of it in the page cache it takes back.
    // Before the node, as it can be removed only once the node is gone.
    let group = MemoryGroup::of(ENOUGH);
    let mut node = Setup::below(&parent.url()).capacity("96MiB").placed();
    if let Some(group) = &group {
        node.limit_memory(&group.0);
    }
    node.start().await;

    let mut pulls = JoinSet::new();
    for client in 0..100 {
        let (address, objects, mut dice) = (node.address(), objects.clone(), dice.another());
        pulls.spawn(async move {
            for _ in 0..sized(5, 100) {
                let object = dice.one_of(&objects);
                let pull = Pull::of(address, object);
                let pull = match client % 4 {
                    0 => pull.pace(object.len() + 64 * KIB),
                    1 => pull.leave_after(dice.below(object.len())),
                    2 => pull.part(dice.below(object.len()), object.len() - 1),
                    _ => pull,
                };
                let outcome = pull.run().await;
                assert!([Outcome::Whole, Outcome::Left].contains(&outcome), "{outcome:?}");
            }
        });
    }
    pulls.join_all().await;

    let peak = peak_memory(node.pid());
    progress(&format!("at most {peak} bytes of memory, limited: {}", group.is_some()));
    assert!(peak > 0 && peak < ENOUGH, "{peak} bytes of memory");
}

/// A control group below that of the tests, whose memory has a limit. Dropping it removes it.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where control groups of version 1 are not, or are not ours to make; said past the capture of output.
    fn of(bytes: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok();
        let own = own
            .as_deref()
            .unwrap_or("")
            .lines()
            .find_map(|line| line.split_once(":memory:"));
        let group = own.and_then(|(_, path)| {
            let folder = PathBuf::from("/sys/fs/cgroup/memory").join(path.strip_prefix('/')?);
            let folder = folder.join(format!("wharf-test-{}", std::process::id()));
            std::fs::create_dir(&folder).ok()?;
            let group = Self(folder);
            std::fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
            Some(group)
        });
        if group.is_none() {
            use std::io::Write as _;
            let _ = writeln!(
                std::io::stderr(),
                "\n  LEFT OUT: a limit of memory by the kernel: no control groups here; the peak is measured all the same\n"
            );
        }
        group
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its process may have ended just now.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn a_panic_while_answering_is_500_for_that_request_and_nobody_else_hears_of_it() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();
    node.environment("FAILPOINTS", "serve.answer=1*off->1*panic(on purpose)");
    node.start().await;
    let object = Object::at(&parent, "a", random(8 * MIB));
    // Two requests on one connection; another client reads all the while.
    let reader = Pull::of(node.address(), &object).pace(4 * MIB);
    let reader = tokio::spawn(async move { reader.run().await });
    eventually("it reads", async || parent.count("GET", &object.digest) == 1).await;

    let connection = node.client().connect().await;
    let request = crate::support::client::Request::get(&object.target);
    let (failed, connection) = connection.open(request.clone()).await.rest().await;
    let (next, _) = connection.open(request).await.rest().await;

    failed.assert_error(500, "UNKNOWN");
    assert!(failed.text().contains("a mistake"), "{failed}");
    next.assert_is(&object.bytes);
    assert_eq!(reader.await.unwrap(), Outcome::Whole);
    assert_one_panic(&node).await;
}

#[tokio::test]
async fn a_panic_in_a_transfer_is_500_for_who_waits_for_it_and_the_next_one_begins_anew() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();
    node.environment("FAILPOINTS", "fetch.fly=1*off->1*panic(on purpose)");
    node.start().await;
    let other = Object::at(&parent, "a", random(8 * MIB));
    let gate = Gate::closed();
    parent.fault(Fault::get(&other.digest).hold_after(MIB as u64, &gate));
    let reader = Pull::of(node.address(), &other);
    let reader = tokio::spawn(async move { reader.run().await });
    eventually("it reads", async || parent.count("GET", &other.digest) == 1).await;
    let object = Object::at(&parent, "a", random(MIB));

    let failed = node.get(&object.target).await;
    let next = node.get(&object.target).await;
    gate.open();

    failed.assert_error(500, "UNKNOWN");
    next.assert_is(&object.bytes);
    assert_eq!(reader.await.unwrap(), Outcome::Whole);
    assert_one_panic(&node).await;
}

async fn assert_one_panic(node: &Node) {
    assert_eq!(node.metrics().await.sum("wharf_panics_total", &[]), 1.0);
    let log = node.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("on purpose") && lines[0].contains("ERROR"),
        "{}",
        lines[0]
    );
}
