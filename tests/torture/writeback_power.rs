use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::link::Link;
use super::power::{Log, Machine};
use super::writeback::items;
use super::{Dice, MIB, progress, sized};
use crate::support::content::{Image, random, sha256};
use crate::support::needs;
use crate::support::node::Setup;
use crate::support::pushing::Pusher;
use crate::support::upstream::Upstream;

const PROGRAMS: [&str; 4] = ["unshare", "mount", "losetup", "mkfs.ext4"];

/// All images have a tag in this repository too, and the tag is one.
const LINE: &str = "line";

/// How the node ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    PowerCut,
}

/// When it does.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Right behind an answer, while the parent is away.
    Acknowledged,
    /// At any time of the paying.
    Paying,
}

/// A node on a disk of its own, and the way to a parent that loses nothing.
struct Plant {
    machine: Machine,
    link: Link,
    dice: Dice,
    /// A layer of all images.
    base: Bytes,
    kept: Vec<(String, Image)>,
}

/// What the parent does not have of what was acknowledged.
#[derive(Debug, Default, Eq, PartialEq)]
struct Lost {
    images: usize,
    /// Whether one tag, which all images had in their turn, is not the last of them.
    is_line_behind: bool,
}

impl Plant {
    /// `failpoints` as the variable `FAILPOINTS` has them.
    async fn new(failpoints: &str) -> Self {
        let parent = Upstream::start().await;
        parent.takes_pushes();
        // A few hundred milliseconds for each image.
        let link = Link::to(parent.address(), 8 << 20).await;
        let mut node = Setup::below(&link.url())
            .registry()
            .capacity("192MiB")
            .tag_ttl("0s")
            .placed();
        node.environment("FAILPOINTS", failpoints);
        Self {
            machine: Machine::of(parent, node).await,
            link,
            dice: Dice::new(),
            base: random(300_000),
            kept: Vec::new(),
        }
    }

    /// Pushes images, ends the node, starts it again, half of the times without its index, and lets it pay; what is lost of
    /// these images and of all before.
    async fn end(&mut self, round: usize, end: End, moment: Moment) -> Lost {
        if matches!(moment, Moment::Acknowledged) {
            self.link.cut().await;
        }
        let pushed = self.push(round).await;
        if matches!(moment, Moment::Paying) {
            tokio::time::sleep(Duration::from_millis(self.dice.below(400) as u64)).await;
        }
        match end {
            End::Kill => self.machine.kill().await,
            End::PowerCut => {
                let log = *self.dice.one_of(&[Log::Flushed, Log::Lost]);
                self.machine.lose_power(log).await;
            }
        }
        if round.is_multiple_of(2) {
            self.machine.start_without_index().await;
        } else {
            self.machine.node.start().await;
        }
        let mut lost = Lost::default();
        if matches!(moment, Moment::Acknowledged) {
            // That it is owed is not known of the parent.
            lost.images = pushed.saturating_sub(items(&self.machine.node).await.len());
            self.link.mend().await;
        }
        self.settle().await;
        lost.images += self.lost();
        let last = self.kept.last().map(|(_, image)| image.manifest.digest.clone());
        lost.is_line_behind = self.machine.parent.tag_of(LINE, "latest") != last;
        lost
    }

    /// How many debts came of it.
    async fn push(&mut self, round: usize) -> usize {
        let repository = format!("cut/{round}");
        let (app, line) = (
            Pusher::of(self.machine.node.client(), &repository),
            Pusher::of(self.machine.node.client(), LINE),
        );
        let images = 1 + self.dice.below(3);
        for _ in 0..images {
            let layers = vec![random(1 + self.dice.size(MIB)), random(1000), self.base.clone()];
            let image = Image::with_layers(layers);
            app.image(&format!("v{}", self.kept.len()), &image).await;
            line.image("latest", &image).await;
            self.kept.push((repository.clone(), image));
        }
        2 * images
    }

    /// Waits until nothing is paid any more: it is all paid, or never will be.
    async fn settle(&self) {
        let begun = Instant::now();
        loop {
            let items = items(&self.machine.node).await;
            if items.iter().all(|item| item["state"] == "parked") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not paid: {items:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Images that are not at the parent with all that they need.
    fn lost(&self) -> usize {
        let parent = &self.machine.parent;
        let (blobs, manifests) = (parent.blobs(), parent.manifests());
        let has = |there: &BTreeSet<(String, String)>, repository: &str, digest: String| {
            there.contains(&(repository.to_owned(), digest))
        };
        let is_there = |repository: &str, image: &Image| {
            let needed = [image.config_digest(), image.layer(0), image.layer(1), image.layer(2)];
            let manifest = image.manifest.digest.clone();
            has(&manifests, repository, manifest) && needed.into_iter().all(|digest| has(&blobs, repository, digest))
        };
        let is_lost = |(number, (repository, image)): &(usize, &(String, Image))| {
            let tagged = parent.tag_of(repository, &format!("v{number}"));
            tagged.as_ref() != Some(&image.manifest.digest) || !is_there(repository, image) || !is_there(LINE, image)
        };
        self.kept.iter().enumerate().filter(is_lost).count()
    }

    /// Everything was taken in once, and one after the other.
    fn assert_paid_once(&self) {
        let parent = &self.machine.parent;
        let mut sent: HashMap<(String, String), usize> = HashMap::new();
        // What was lent was not sent.
        for arrival in parent.arrivals() {
            if arrival.brings_a_blob()
                && let Some(digest) = arrival.digest
            {
                *sent.entry((arrival.repository, digest)).or_default() += 1;
            }
        }
        for (number, (repository, image)) in self.kept.iter().enumerate() {
            for bytes in image.layers.iter().chain([&image.config]) {
                let digest = sha256(bytes);
                for repository in [repository, LINE] {
                    let times = sent.get(&(repository.to_owned(), digest.clone()));
                    assert!(
                        times.is_none_or(|times| *times == 1),
                        "{digest} to {repository}: {times:?}"
                    );
                }
            }
            let names = [image.manifest.digest.clone(), format!("v{number}")];
            let puts = parent.manifests_kept(repository);
            for name in names {
                let times = puts.iter().filter(|put| **put == name).count();
                assert_eq!(times, 1, "{name} in {repository}");
            }
        }
        let digests: Vec<&str> = self.kept.iter().map(|(_, image)| &*image.manifest.digest).collect();
        let puts = parent.seen("PUT", "/line/manifests/");
        let place = |digest: &str| digests.iter().position(|kept| *kept == digest);
        let moves = puts.iter().filter(|seen| seen.path.ends_with("/latest"));
        let moves: Vec<_> = moves.filter_map(|seen| place(seen.kept_digest()?)).collect();
        assert!(moves.is_sorted_by(|a, b| a < b), "latest was moved to {moves:?}");
        let manifests = parent.manifests_kept(LINE);
        let manifests: Vec<&String> = manifests.iter().filter(|name| name.contains(':')).collect();
        assert_eq!(manifests, digests);
    }
}

async fn assert_nothing_is_lost(end: End, moment: Moment) {
    if !needs::met("ends of a node that pays", "a disk of its own", &PROGRAMS) {
        return;
    }
    let mut plant = Plant::new("").await;
    for round in 1..=sized(5, 100) {
        let lost = plant.end(round, end, moment).await;
        assert_eq!(lost, Lost::default(), "round {round}, {end:?}, {moment:?}");
        if round % sized(5, 20) == 0 {
            progress(&format!(
                "{end:?}, {moment:?}, {round}: none of {} images is lost",
                plant.kept.len()
            ));
        }
    }
    plant.assert_paid_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_right_before_a_kill_reaches_the_parent_once() {
    assert_nothing_is_lost(End::Kill, Moment::Acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_finds_half_paid_reaches_the_parent_once() {
    assert_nothing_is_lost(End::Kill, Moment::Paying).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_right_before_a_power_cut_reaches_the_parent_once() {
    assert_nothing_is_lost(End::PowerCut, Moment::Acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_power_cut_finds_half_paid_reaches_the_parent_once() {
    assert_nothing_is_lost(End::PowerCut, Moment::Paying).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_owes_and_does_not_sync_is_found_out() {
    if !needs::met(
        "power cuts of a node that owes, without syncs",
        "a disk of its own",
        &PROGRAMS,
    ) {
        return;
    }
    for what in ["store.unsynced.content=return", "store.unsynced.journal=return"] {
        let mut plant = Plant::new(what).await;
        let mut rounds = 1;
        while plant.end(rounds, End::PowerCut, Moment::Acknowledged).await.images == 0 {
            rounds += 1;
            assert!(
                rounds < 20,
                "{what}: nothing was lost in {rounds} cuts: they cut nothing"
            );
        }
        progress(&format!("{what} is found out by cut {rounds}"));
    }
}
