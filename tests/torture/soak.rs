use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull, document};
use super::watch::{Watch, rise};
use super::{Dice, KIB, MIB, Object, Quarry, progress, sized};
use crate::support::client::manifest;
use crate::support::content::Image;
use crate::support::node::Setup;
use crate::support::process::{descriptors, memory};
use crate::support::upstream::{Cut, Fault, Upstream};

const CLIENTS: usize = 16;
const TAGS: [&str; 4] = ["v1", "v2", "stable", "latest"];

/// How far the fitted line may rise between the end of the warm-up and the end.
const MORE_MEMORY: f64 = (24 << 20) as f64;
const MORE_DESCRIPTORS: f64 = 40.0;

/// What there is, and what became of asking for it.
struct World {
    parent: Upstream,
    address: SocketAddr,
    objects: Vec<Object>,
    images: Vec<Image>,
    manifests: HashSet<Bytes>,
    tally: Mutex<BTreeMap<String, u64>>,
    until: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everything_at_once_no_reply_is_wrong_and_neither_memory_nor_descriptors_grow() {
    let (long, warm_up) = sized((60, 30), (20 * 60, 5 * 60));
    let mut dice = Dice::new();
    let parent = Upstream::start().await;
    let sizes: Vec<usize> = (0..300).map(|_| 2 + dice.size(12 * MIB)).collect();
    let objects = Quarry::new(12 * MIB).objects(&mut dice, &parent, "a", sizes);
    let images: Vec<Image> = (0..20).map(|_| Image::of(&[10])).collect();
    for image in &images {
        TAGS.iter().for_each(|tag| parent.image("a", tag, image));
    }
    let setup = Setup::below(&parent.url()).capacity("96MiB").tag_ttl("1s");
    let node = setup.start().await;
    let world = Arc::new(World {
        address: node.address(),
        manifests: images.iter().map(|image| image.manifest.bytes.clone()).collect(),
        parent,
        objects,
        images,
        tally: Mutex::default(),
        until: Instant::now() + Duration::from_secs(long),
    });
    let watch = Watch::begin(&node, Duration::from_millis(250), |pid| {
        pid.map(|pid| (memory(pid), descriptors(pid)))
    });

    let mut all = JoinSet::new();
    let (weather, own) = (Arc::clone(&world), dice.another());
    all.spawn(async move { weather.make_weather(own).await });
    for client in 0..CLIENTS {
        let (world, own) = (Arc::clone(&world), dice.another());
        all.spawn(async move { world.be_a_client(client, own).await });
    }
    while let Some(ended) = all.join_next().await {
        ended.expect("nothing wrong was seen");
    }

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
    for kind in ["Whole", "Broken", "Left", "manifest 200"] {
        assert!(
            tally.get(kind).is_some_and(|count| *count > 10),
            "hardly any {kind}: {tally:?}"
        );
    }
    assert!(bytes.len() > 60, "only {} looks", bytes.len());
    assert!(more_bytes < MORE_MEMORY, "{more_bytes} bytes of memory more");
    assert!(more_open < MORE_DESCRIPTORS, "{more_open} descriptors more");
    assert!(!node.log().contains("panicked"), "{}", node.log());
    world.assert_it_is_well_again().await;
}

impl World {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn count(&self, what: String) {
        *self.tally.lock().entry(what).or_default() += 1;
    }

    /// Now a fault, now another tag; about twenty a second.
    async fn make_weather(&self, mut dice: Dice) {
        let mut said = Instant::now();
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let object = dice.one_of(&self.objects);
            let at = dice.below(object.len()) as u64;
            let of_blob = Fault::get(&object.digest);
            let of_tag = Fault::any("/manifests/");
            let (fault, times) = match dice.below(9) {
                0 => (of_blob.cut_after(at, Cut::Fin), 1 + dice.below(3)),
                1 => (of_blob.cut_after(at, Cut::Rst), 1 + dice.below(3)),
                2 | 3 => (of_blob.flip_at(at), 1),
                4 => (of_blob.status(*dice.one_of(&[500, 502, 503, 404])), 1),
                5 => (of_blob.pace(256 << 10), 1),
                6 => (of_tag.status(429).header("Retry-After", "1"), 2),
                7 => (of_tag.status(*dice.one_of(&[500, 503])), 2),
                _ => (of_tag.delay(Duration::from_millis(300)), 2),
            };
            self.parent.fault(fault.times(times));
            let (tag, image) = (dice.one_of(&TAGS), dice.one_of(&self.images));
            self.parent.manifest("a", Some(tag), &image.manifest);
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                progress(&format!("{:?}", self.tally.lock()));
                // It writes down all that it is asked.
                self.parent.forget();
            }
        }
        self.parent.without_faults();
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
            let outcome = pull.run().await;
            let is_allowed = match outcome {
                Outcome::Wrong => pull.is_excepted(),
                Outcome::Stuck | Outcome::Unanswered => false,
                Outcome::Refused(status) => status == 404 || (500..=504).contains(&status) && status != 500,
                _ => true,
            };
            assert!(is_allowed, "{outcome:?} for {pull}");
            self.count(format!("{outcome:?}"));
        }
    }

    async fn ask_for_a_tag(&self, dice: &mut Dice) {
        let target = manifest("a", dice.one_of::<&str>(&TAGS));
        let Some((status, body)) = document(self.address, &target).await else {
            panic!("no whole answer for {target}");
        };
        let is_known = self.manifests.contains(&Bytes::from(body));
        assert!(status != 200 || is_known, "a manifest that nobody wrote for {target}");
        assert!(status == 200 || (502..=504).contains(&status), "{status} for {target}");
        self.count(format!("manifest {status}"));
    }
}
