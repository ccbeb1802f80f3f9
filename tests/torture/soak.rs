use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull, document};
use super::watch::{Watch, rise};
use super::{Dice, KIB, MIB, Object, Quarry, progress, sized};
use crate::support::client::manifest;
use crate::support::content::Image;
use crate::support::node::{Node, Setup, disk_bytes};
use crate::support::process::{descriptors, memory};
use crate::support::upstream::{Book, Cut, Fault, Upstream};

const CLIENTS: usize = 16;
const CAPACITY: u64 = 96 << 20;
const TAGS: [&str; 4] = ["v1", "v2", "stable", "latest"];

/// How far the fitted line may rise between the end of the warm-up and the end: in half a minute, and in a quarter of an hour.
const MORE_MEMORY: (f64, f64) = ((24 << 20) as f64, (12 << 20) as f64);
const MORE_DESCRIPTORS: (f64, f64) = (40.0, 20.0);

/// How long after the parent was made to say 404 somebody may still be told so: until its faults are taken back, which
/// waits while it is away, for as long as that is believed, and a few seconds on a machine with much to do.
const BELIEVED: Duration = Duration::from_secs(6 + 5 + 5);

/// Seconds between two kills, while there are any.
const BETWEEN_KILLS: u64 = 4;

/// What there is, and what became of asking for it.
struct World {
    address: SocketAddr,
    objects: Vec<Object>,
    images: Vec<Image>,
    manifests: HashSet<Bytes>,
    tally: Mutex<BTreeMap<String, u64>>,
    /// The digests that the parent was made to deny, and when it last was.
    denied: Mutex<HashMap<String, Instant>>,
    begun: Instant,
    /// Until when the node is killed now and then.
    rough: Duration,
    long: Duration,
    /// Odd from a kill until the node is ready again.
    kills: AtomicUsize,
}

/// What the weather is made with.
struct Sky {
    /// Before the node, which must not end while it is looked at.
    watch: Watch<(u64, usize)>,
    parent: Upstream,
    /// Its tokens, which are good for three seconds.
    book: Arc<Book>,
    node: Node,
    dice: Dice,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everything_at_once_no_reply_is_wrong_and_neither_memory_nor_descriptors_grow() {
    // All of it but kills goes on to the end: what grows is seen in one life.
    let (long, warm_up, rough) = sized((60, 30, 24), (20 * 60, 5 * 60, 4 * 60));
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let book = Book::expiring_after(3);
    parent.bearer(&book);
    // Some are beyond what is hashed before it is shown, and have parts that are asked for on their own.
    let sizes = (0..300)
        .map(|_| 2 + dice.size(12 * MIB))
        .chain([20 * MIB, 26 * MIB, 32 * MIB]);
    let sizes: Vec<usize> = sizes.collect();
    let objects = Quarry::new(32 * MIB).objects(&mut dice, &parent, "a", sizes);
    let images: Vec<Image> = (0..20).map(|_| Image::of(&[10])).collect();
    for image in &images {
        TAGS.iter().for_each(|tag| parent.image("a", tag, image));
    }
    let setup = Setup::below(&parent.url()).capacity("96MiB").tag_ttl("1s");
    let mut node = setup.placed();
    // Now and then the disk fails too.
    node.environment(
        "FAILPOINTS",
        "store.write=0.5%return;store.continue=0.5%return;store.hash=1%return",
    );
    node.start().await;
    let data = node.data();
    let world = Arc::new(World {
        address: node.address(),
        manifests: images.iter().map(|image| image.manifest.bytes.clone()).collect(),
        objects,
        images,
        tally: Mutex::default(),
        denied: Mutex::default(),
        begun: Instant::now(),
        rough: Duration::from_secs(rough),
        long: Duration::from_secs(long),
        kills: AtomicUsize::new(0),
    });
    let watch = Watch::begin(&node, Duration::from_millis(250), move |pid| {
        let used = disk_bytes(&data, pid);
        assert!(used <= CAPACITY, "{used} bytes of disk are used");
        pid.map(|pid| (memory(pid), descriptors(pid)))
    });

    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (world, own) = (Arc::clone(&world), dice.another());
        clients.spawn(async move { world.be_a_client(client, own).await });
    }
    let mut sky = Sky {
        watch,
        parent,
        book,
        node,
        dice,
    };
    world.make_weather(&mut sky).await;
    while let Some(ended) = clients.join_next().await {
        ended.expect("nothing wrong was seen");
    }

    let Sky {
        node,
        watch,
        parent: _parent,
        ..
    } = sky;
    let seen = watch.end();
    let settled = |of: fn(&(u64, usize)) -> f64| {
        let points = seen.iter().filter(|(at, _)| at.as_secs() >= warm_up);
        points.map(|(at, look)| (*at, of(look))).collect::<Vec<_>>()
    };
    let (bytes, open) = (settled(|look| look.0 as f64), settled(|look| look.1 as f64));
    let (more_bytes, more_open) = (rise(&bytes), rise(&open));
    let tally = world.tally.lock().clone();
    progress(&format!("{tally:?}"));
    progress(&format!(
        "memory {:.0} MiB at the end, {:+.1} MiB since the warm-up; descriptors {}, {more_open:+.1}",
        bytes.last().expect("looks").1 / MIB as f64,
        more_bytes / MIB as f64,
        open.last().expect("looks").1
    ));
    for (kind, least) in [
        ("Whole", 1000),
        ("Broken", 5),
        ("Left", 10),
        ("manifest 200", 300),
        ("kill", 3),
        ("parent away", 1),
        ("tokens revoked", 5),
    ] {
        let count = tally.get(kind).copied().unwrap_or_default();
        assert!(count >= least, "{count} of {kind}: {tally:?}");
    }
    // For seconds at a time it is away, or wants to be left alone.
    let refused = tally.get("Refused(503)").copied().unwrap_or_default();
    assert!(
        refused < 2 * tally["Whole"],
        "{refused} pulls were refused for the time being: {tally:?}"
    );
    assert!(bytes.len() > 60, "only {} looks", bytes.len());
    assert!(
        more_bytes < sized(MORE_MEMORY.0, MORE_MEMORY.1),
        "{more_bytes} bytes of memory more"
    );
    assert!(
        more_open < sized(MORE_DESCRIPTORS.0, MORE_DESCRIPTORS.1),
        "{more_open} descriptors more"
    );
    assert!(!node.log().contains("panicked"), "{}", node.log());
    world.assert_it_is_well_again().await;
}

impl World {
    fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.long
    }

    fn count(&self, what: String) {
        *self.tally.lock().entry(what).or_default() += 1;
    }

    /// Now a fault, now another tag, about twenty a second; tokens lose their worth, the parent is away for a while, and
    /// while it is rough the node is killed.
    async fn make_weather(&self, sky: &mut Sky) {
        let [mut said, mut killed, mut revoked, mut cleared, mut left] = [Instant::now(); 5];
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sky.parent.fault(self.some_fault(&mut sky.dice));
            let (tag, image) = (sky.dice.one_of(&TAGS), sky.dice.one_of(&self.images));
            sky.parent.manifest("a", Some(tag), &image.manifest);
            if cleared.elapsed() > Duration::from_secs(2) {
                // What met nobody would meet each of the few questions to a parent that is left alone.
                cleared = Instant::now();
                sky.parent.without_faults();
            }
            // Those that were used: a token that is refused as soon as it is given makes for a pause of half a minute.
            if revoked.elapsed() > Duration::from_secs(4) {
                revoked = Instant::now();
                sky.book.revoke_shown();
                self.count("tokens revoked".to_owned());
            }
            if left.elapsed() > Duration::from_secs(12) {
                left = Instant::now();
                let away = Duration::from_millis(500 + sky.dice.below(3000) as u64);
                self.count("parent away".to_owned());
                sky.parent.stop().await;
                tokio::time::sleep(away).await;
                sky.parent.start_again().await;
            }
            if self.begun.elapsed() < self.rough && killed.elapsed() > Duration::from_secs(BETWEEN_KILLS) {
                killed = Instant::now();
                self.count("kill".to_owned());
                self.kills.fetch_add(1, Ordering::SeqCst);
                sky.watch.restart(&mut sky.node).await;
                self.kills.fetch_add(1, Ordering::SeqCst);
            }
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                progress(&format!("{:?}", self.tally.lock()));
                // It writes down all that it is asked.
                sky.parent.forget();
            }
        }
        sky.parent.without_faults();
    }

    fn some_fault(&self, dice: &mut Dice) -> Fault {
        let object = dice.one_of(&self.objects);
        let at = dice.below(object.len()) as u64;
        let of_blob = Fault::get(&object.digest);
        let of_tag = Fault::any("/manifests/");
        let (fault, times) = match dice.below(10) {
            0 => (of_blob.cut_after(at, Cut::Fin), 1 + dice.below(3)),
            1 => (of_blob.cut_after(at, Cut::Rst), 1 + dice.below(3)),
            2 | 3 => (of_blob.flip_at(at), 1),
            4 => {
                let status = *dice.one_of(&[500, 502, 503, 404]);
                if status == 404 {
                    self.denied.lock().insert(object.digest.clone(), Instant::now());
                }
                (of_blob.status(status), 1)
            }
            5 => (of_blob.pace(256 << 10), 1),
            // Then all are left alone for a second.
            6 if dice.once_in(5) => (of_tag.status(429).header("Retry-After", "1"), 1),
            7 => (of_tag.status(*dice.one_of(&[500, 503])), 2),
            // Whoever limits or fails there is left alone for seconds, with all that needs a token.
            8 if dice.once_in(10) => (Fault::any("/token").status(*dice.one_of(&[429, 503])), 1),
            _ => (of_tag.delay(Duration::from_millis(300)), 2),
        };
        fault.times(times)
    }

    fn is_denied(&self, digest: &str) -> bool {
        let denied = self.denied.lock();
        denied.get(digest).is_some_and(|said| said.elapsed() < BELIEVED)
    }

    /// Whether the node is killed, or was since its kills were counted as `before`.
    fn is_killed_since(&self, before: usize) -> bool {
        before % 2 == 1 || self.kills.load(Ordering::SeqCst) != before
    }

    /// No fault is left behind: but for the little that came wrong so often that it is left alone for minutes.
    async fn assert_it_is_well_again(&self) {
        let mut ill = 0;
        for object in &self.objects {
            let pull = Pull::of(self.address, object);
            let mut outcome = pull.run().await;
            for _ in 0..3 {
                if outcome == Outcome::Whole {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                outcome = pull.run().await;
            }
            ill += usize::from(outcome != Outcome::Whole);
        }
        assert!(
            ill <= self.objects.len() / 50,
            "{ill} objects cannot be had from an honest parent"
        );
        for tag in TAGS {
            let answer = document(self.address, &manifest("a", tag)).await;
            assert_eq!(answer.map(|(status, _)| status), Some(200), "{tag}");
        }
    }

    async fn be_a_client(&self, number: usize, mut dice: Dice) {
        while !self.is_over() {
            if dice.once_in(4) {
                self.ask_for_a_tag(&mut dice).await;
                continue;
            }
            let object = dice.one_of(&self.objects);
            let pull = Pull::of(self.address, object);
            let pull = match (number % 4, dice.below(4)) {
                (0, _) => pull.pace(object.len() / 2 + 16 * KIB),
                (1, 0) => pull.leave_after(dice.below(object.len())),
                (2, 0) => pull.part(dice.below(object.len()), object.len() - 1),
                (2, 1) => pull.part(0, dice.below(object.len())),
                _ => pull,
            };
            let before = self.kills.load(Ordering::SeqCst);
            let outcome = pull.run().await;
            let is_allowed = match outcome {
                Outcome::Wrong => pull.is_excepted(),
                Outcome::Stuck => false,
                Outcome::Unanswered => {
                    // Nobody is there for a moment.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.is_killed_since(before)
                }
                Outcome::Refused(status) => {
                    // Who is refused does not ask again at once: he is told to wait for seconds.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    (502..=504).contains(&status) || status == 404 && self.is_denied(&object.digest)
                }
                _ => true,
            };
            assert!(is_allowed, "{outcome:?} for {pull}");
            self.count(format!("{outcome:?}"));
        }
    }

    async fn ask_for_a_tag(&self, dice: &mut Dice) {
        let target = manifest("a", dice.one_of::<&str>(&TAGS));
        let before = self.kills.load(Ordering::SeqCst);
        let Some((status, body)) = document(self.address, &target).await else {
            assert!(self.is_killed_since(before), "no whole answer for {target}");
            return;
        };
        let is_known = self.manifests.contains(&Bytes::from(body));
        assert!(status != 200 || is_known, "a manifest that nobody wrote for {target}");
        assert!(status == 200 || (502..=504).contains(&status), "{status} for {target}");
        self.count(format!("manifest {status}"));
    }
}
