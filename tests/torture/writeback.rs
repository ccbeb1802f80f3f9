use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Client, Method, Response};
use tokio::task::{JoinHandle, JoinSet};

use super::link::Link;
use super::{Dice, KIB, MIB, Quarry, progress, sized};
use crate::support::client::{self, Request, reqwest_trusting};
use crate::support::content::{Image, sha256};
use crate::support::docker_registry::DockerRegistry;
use crate::support::needs;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Broken, Upstream};

/// How long the parent is there, and away.
const SPELL: Duration = Duration::from_secs(2);

/// Who pushes; each has repositories of its own, so that what is pushed to one has an order.
const PUSHERS: usize = 4;
const EACH: usize = 5;

/// Everything that was pushed arrives so long after the last push.
const PATIENCE: Duration = Duration::from_secs(600);

/// More than this of the bytes of all content is not sent.
const MOST: f64 = 1.02;

/// What a run is to be.
struct Plan {
    pushes: usize,
    kills: usize,
    /// Bytes of the largest layer.
    layer: usize,
    /// Bytes in a second that the link carries.
    pace: u64,
    /// Between two pushes of one who pushes.
    pause: Duration,
    /// Between two kills, at most.
    kill_within: Duration,
}

/// Who is above.
enum Parent {
    Wharf(Box<Node>),
    Docker(DockerRegistry),
    Scripted(Upstream),
}

impl Parent {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Wharf(node) => node.address(),
            Self::Docker(registry) => registry.address(),
            Self::Scripted(upstream) => upstream.address(),
        }
    }

    async fn kill(&mut self) {
        match self {
            Self::Wharf(node) => node.kill(),
            Self::Docker(registry) => registry.kill(),
            Self::Scripted(upstream) => upstream.stop().await,
        }
    }

    async fn start(&mut self) {
        match self {
            Self::Wharf(node) => node.start().await,
            Self::Docker(registry) => registry.start_again().await,
            Self::Scripted(upstream) => upstream.start_again().await,
        }
    }
}

/// A parent that comes and goes, in one way and then in another.
struct Flapping {
    over: Arc<AtomicBool>,
    times: Arc<AtomicUsize>,
    task: JoinHandle<(Parent, Link)>,
}

impl Flapping {
    fn begin(mut parent: Parent, mut link: Link) -> Self {
        let (over, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, counted) = (Arc::clone(&over), Arc::clone(&times));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::SeqCst) {
                tokio::time::sleep(SPELL).await;
                let way = counted.fetch_add(1, Ordering::SeqCst) % 3;
                match way {
                    0 => parent.kill().await,
                    1 => link.cut().await,
                    _ => link.silence(),
                }
                tokio::time::sleep(SPELL).await;
                match way {
                    0 => parent.start().await,
                    _ => link.mend().await,
                }
            }
            (parent, link)
        });
        Self { over, times, task }
    }

    /// The parent, which is there, and how often it was away.
    async fn end(self) -> (Parent, Link, usize) {
        self.over.store(true, Ordering::SeqCst);
        let (parent, link) = self.task.await.expect("a parent that starts again");
        (parent, link, self.times.load(Ordering::SeqCst))
    }
}

/// An image that was acknowledged with 201, under a tag of its own and as `latest`.
#[derive(Clone)]
struct Push {
    tag: String,
    image: Image,
}

/// By repository, in the order in which they were acknowledged.
type Pushes = BTreeMap<String, Vec<Push>>;

/// All that is pushed.
struct World {
    node: SocketAddr,
    client: Client,
    quarry: Quarry,
    /// Layers that all images share.
    layers: Vec<Bytes>,
    plan: Plan,
    acknowledged: Mutex<Pushes>,
}

/// The node is gone, or was for a moment.
struct Gone;

impl World {
    fn new(node: SocketAddr, plan: Plan, dice: &mut Dice) -> Self {
        let quarry = Quarry::new(plan.layer);
        let cut = |_| {
            let size = 64 * KIB + dice.below(plan.layer / 2);
            quarry.cut(dice, size)
        };
        let layers = (0..24).map(cut).collect();
        Self {
            node,
            client: reqwest_trusting(None),
            quarry,
            layers,
            plan,
            acknowledged: Mutex::default(),
        }
    }

    /// Pushes its share of all; what a kill interrupts is begun again.
    async fn push(&self, pusher: usize, mut dice: Dice) {
        for number in 0..self.plan.pushes / PUSHERS {
            let repository = format!("team{pusher}/app{}", dice.below(EACH));
            let mut layers: Vec<Bytes> = (0..2).map(|_| dice.one_of(&self.layers).clone()).collect();
            // Small ones go with one request, large ones with two.
            let size = match dice.once_in(2) {
                true => dice.size(256 * KIB),
                false => 256 * KIB + dice.below(self.plan.layer - 256 * KIB),
            };
            layers.push(self.quarry.cut(&mut dice, size));
            let image = Image::with_layers(layers);
            let push = Push {
                tag: format!("v{number}"),
                image,
            };
            while self.try_push(&repository, &push).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.acknowledged.lock().entry(repository).or_default().push(push);
            tokio::time::sleep(self.plan.pause).await;
        }
    }

    async fn try_push(&self, repository: &str, push: &Push) -> Result<(), Gone> {
        let image = &push.image;
        for bytes in image.layers.iter().chain([&image.config]) {
            let digest = sha256(bytes);
            let head = format!("/v2/{repository}/blobs/{digest}");
            if self.send(Method::HEAD, &head, Bytes::new(), "").await?.status() == 200 {
                continue;
            }
            let begin = format!("/v2/{repository}/blobs/uploads/");
            let begun = self.send(Method::POST, &begin, Bytes::new(), "").await?;
            let location = begun.headers().get("location").cloned();
            expect(begun, 202).await;
            let location = location.expect("an upload is somewhere");
            let put = format!("{}?digest={digest}", location.to_str().unwrap());
            let octets = "application/octet-stream";
            expect(self.send(Method::PUT, &put, bytes.clone(), octets).await?, 201).await;
        }
        for tag in [&push.tag, "latest"] {
            let put = format!("/v2/{repository}/manifests/{tag}");
            let manifest = &image.manifest;
            let sent = self.send(Method::PUT, &put, manifest.bytes.clone(), &manifest.media_type);
            expect(sent.await?, 201).await;
        }
        Ok(())
    }

    async fn send(&self, method: Method, target: &str, body: Bytes, media_type: &str) -> Result<Response, Gone> {
        let mut request = self
            .client
            .request(method, format!("http://{}{target}", self.node))
            .body(body);
        if !media_type.is_empty() {
            request = request.header("Content-Type", media_type);
        }
        request.send().await.map_err(|_| Gone)
    }
}

async fn expect(answer: Response, status: u16) {
    let got = answer.status().as_u16();
    // Nothing but a kill keeps anybody from pushing.
    assert_eq!(got, status, "{}", answer.text().await.unwrap_or_default());
}

/// What is left of a run.
struct Outcome {
    acknowledged: Pushes,
    parent: Parent,
    /// Bytes that were sent over the link for each byte of what was pushed.
    ratio: f64,
}

/// Pushes while the parent flaps and the node is killed, until the node says that all is delivered.
async fn run(parent: Parent, plan: Plan) -> Outcome {
    let mut dice = Dice::new();
    let link = Link::to(parent.address(), plan.pace).await;
    let mut node = Setup::below(&link.url())
        .registry()
        .capacity("24GiB")
        .tag_ttl("0s")
        .start()
        .await;
    let users = link.users();
    let (kills, kill_within) = (plan.kills, plan.kill_within);
    let world = Arc::new(World::new(node.address(), plan, &mut dice));
    let begun = Instant::now();
    let flapping = Flapping::begin(parent, link);
    let mut pushers = JoinSet::new();
    for pusher in 0..PUSHERS {
        let (world, own) = (Arc::clone(&world), dice.another());
        pushers.spawn(async move { world.push(pusher, own).await });
    }

    let mut waited_for = 0;
    for kill in 1..=kills {
        let within = usize::try_from(kill_within.as_millis()).unwrap();
        tokio::time::sleep(Duration::from_millis(200 + dice.below(within) as u64)).await;
        let waiting = items(&node).await.len();
        waited_for += usize::from(waiting > 0);
        node.kill();
        users.die();
        node.start().await;
        let pushed = world.acknowledged.lock().values().map(Vec::len).sum::<usize>();
        progress(&format!(
            "{:?}: kill {kill}: {pushed} pushes, {waiting} debts",
            begun.elapsed()
        ));
    }
    while let Some(ended) = pushers.join_next().await {
        ended.expect("nothing was refused");
    }
    drained(&node, PATIENCE).await;
    let took = begun.elapsed();
    let (parent, link, flaps) = flapping.end().await;
    assert!(waited_for > 0, "no kill fell into the paying");

    let acknowledged = std::mem::take(&mut *world.acknowledged.lock());
    let unique = unique_bytes(&acknowledged);
    let ratio = link.up() as f64 / unique as f64;
    let (pushes, blobs) = (
        acknowledged.values().map(Vec::len).sum::<usize>(),
        blobs_of(&acknowledged).len(),
    );
    progress(&format!(
        "{pushes} pushes to {} repositories in {took:?}, {kills} kills, {flaps} flaps: {blobs} blobs, {unique} bytes, {} sent, {} back: {ratio:.4}",
        acknowledged.len(),
        link.up(),
        link.down(),
    ));
    let anew = node.log().matches("is begun anew").count();
    progress(&format!("{anew} uploads were begun anew"));
    assert_no_trouble(&node).await;
    Outcome {
        acknowledged,
        parent,
        ratio,
    }
}

/// What the node owes.
pub async fn items(node: &Node) -> Vec<serde_json::Value> {
    let listing = node.admin("/api/queue").await;
    assert_eq!(listing.status, 200, "{listing}");
    listing.json()["items"].as_array().cloned().unwrap_or_default()
}

/// Waits until nothing is owed.
pub async fn drained(node: &Node, patience: Duration) {
    let begun = Instant::now();
    loop {
        let left = items(node).await;
        if left.is_empty() {
            return;
        }
        assert!(
            begun.elapsed() < patience,
            "{} debts after {patience:?}: {}",
            left.len(),
            left[0]
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Nothing was settled otherwise than by paying it.
async fn assert_no_trouble(node: &Node) {
    let metrics = node.metrics().await;
    for name in [
        "wharf_queue_lost_total",
        "wharf_queue_conflicts_total",
        "wharf_queue_undone_total",
    ] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    let log = node.log();
    let bad =
        |line: &&str| line.contains("ERROR") || line.contains("panicked") || line.contains("was moved at the parent");
    assert_eq!(log.lines().find(bad), None);
}

/// Content by digest: blobs and manifests.
fn blobs_of(pushes: &Pushes) -> HashMap<String, Bytes> {
    let images = pushes.values().flatten().map(|push| &push.image);
    let blobs = images.flat_map(|image| image.layers.iter().chain([&image.config]));
    // To hash is dear, and most are shared.
    let mut hashed: HashMap<(usize, usize), String> = HashMap::new();
    let named = blobs.map(|bytes| {
        let place = (bytes.as_ptr() as usize, bytes.len());
        let digest = hashed.entry(place).or_insert_with(|| sha256(bytes));
        (digest.clone(), bytes.clone())
    });
    named.collect()
}

fn unique_bytes(pushes: &Pushes) -> u64 {
    let blobs: usize = blobs_of(pushes).values().map(Bytes::len).sum();
    let manifests = pushes.values().flatten().map(|push| push.image.manifest.bytes.len());
    (blobs + manifests.sum::<usize>()) as u64
}

/// How what the parent has differs from what was acknowledged.
#[derive(Debug, Default, Eq, PartialEq)]
struct Differences {
    /// Tags that mean something else, or nothing.
    tags: usize,
    /// Tags that nobody pushed.
    strange: usize,
    /// Manifests and blobs that are not there.
    missing: usize,
    /// Those of other bytes.
    wrong: usize,
}

impl Differences {
    /// Looks for everything that was pushed, byte by byte.
    async fn at(parent: &Parent, pushes: &Pushes) -> Self {
        let client = client::Client::of(parent.address());
        let mut differences = Self::default();
        let mut seen = HashSet::new();
        for (repository, pushes) in pushes {
            let app = Pusher::of(client.clone(), repository);
            let last = pushes.last().map(|push| ("latest", &push.image));
            let named = || pushes.iter().map(|push| (&*push.tag, &push.image)).chain(last);
            let tags: BTreeSet<String> = app.tags().await.into_iter().collect();
            let known: BTreeSet<String> = named().map(|(tag, _)| tag.to_owned()).collect();
            differences.strange += tags.difference(&known).count();
            for (tag, image) in named() {
                let target = format!("/v2/{repository}/manifests/{tag}");
                let get = Request::get(&target).header("Accept", &image.manifest.media_type);
                let there = app.send(get).await;
                differences.tags += usize::from(there.status != 200 || there.body != image.manifest.bytes);
            }
            let one = Pushes::from([(repository.clone(), pushes.clone())]);
            for (digest, bytes) in blobs_of(&one) {
                let target = format!("blobs/{digest}");
                let head = app.head(&target).await;
                differences.missing += usize::from(head.status != 200);
                if head.status == 200 && seen.insert(digest) {
                    differences.wrong += usize::from(app.get(&target).await.body != bytes);
                }
            }
        }
        differences
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_pushed_while_the_parent_flaps_and_the_node_is_killed_arrives_and_is_sent_once() {
    let cloud = Setup::alone().registry().named("cloud").capacity("24GiB").start().await;
    let plan = Plan {
        pushes: sized(100, 1000),
        kills: sized(5, 20),
        layer: sized(4, 8) * MIB,
        pace: 24 << 20,
        pause: Duration::from_millis(sized(150, 350)),
        kill_within: Duration::from_secs(sized(3, 15)),
    };

    let outcome = run(Parent::Wharf(Box::new(cloud)), plan).await;

    let Parent::Wharf(cloud) = &outcome.parent else {
        unreachable!()
    };
    let differences = Differences::at(&outcome.parent, &outcome.acknowledged).await;
    assert_eq!(differences, Differences::default());
    let manifests = outcome
        .acknowledged
        .values()
        .flatten()
        .map(|push| &*push.image.manifest.digest);
    let blobs = blobs_of(&outcome.acknowledged);
    let known: HashSet<&str> = manifests.chain(blobs.keys().map(String::as_str)).collect();
    let strange: Vec<String> = cloud
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("blobs"))
        .filter_map(|(path, _)| Some(format!("sha256:{}", path.file_name()?.to_str()?)))
        .filter(|digest| !known.contains(&**digest))
        .collect();
    assert!(strange.is_empty(), "nobody pushed {strange:?}");
    assert!(outcome.ratio <= MOST, "{} bytes were sent for each", outcome.ratio);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_keeps_no_uploads_gets_all_in_the_order_of_the_pushes_though_much_of_it_twice() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    parent.when_broken(Broken::Gone);
    let plan = Plan {
        pushes: sized(32, 200),
        kills: sized(3, 10),
        layer: 2 * MIB,
        // Slow enough that a kill meets an upload.
        pace: 6 << 20,
        pause: Duration::from_millis(sized(100, 300)),
        kill_within: Duration::from_secs(sized(2, 6)),
    };

    let outcome = run(Parent::Scripted(parent), plan).await;

    let Parent::Scripted(parent) = &outcome.parent else {
        unreachable!()
    };
    for (repository, pushes) in &outcome.acknowledged {
        assert_in_order(parent, repository, pushes);
    }
    for digest in blobs_of(&outcome.acknowledged).keys() {
        assert_eq!(parent.times_kept(digest), 1, "{digest} was paid more than once");
    }
    let differences = Differences::at(&outcome.parent, &outcome.acknowledged).await;
    assert_eq!(differences, Differences::default());
    // What the figure of a parent that keeps uploads is worth.
    assert!(outcome.ratio > MOST, "only {} bytes were sent for each", outcome.ratio);
    assert_differences_are_seen(&outcome).await;
}

/// Manifests came in the order in which they were acknowledged, each with its tag behind it.
fn assert_in_order(parent: &Upstream, repository: &str, pushes: &[Push]) {
    let kept = parent.manifests_kept(repository);
    let tags: Vec<&String> = kept.iter().filter(|name| name.starts_with('v')).collect();
    let pushed: Vec<&String> = pushes.iter().map(|push| &push.tag).collect();
    assert_eq!(tags, pushed, "tags of {repository}");
    let digests: Vec<&String> = kept.iter().filter(|name| name.contains(':')).collect();
    let pushed: Vec<&String> = pushes.iter().map(|push| &push.image.manifest.digest).collect();
    assert_eq!(digests, pushed, "manifests of {repository}");
    // Moves of a tag that were overtaken by a later one need not be made.
    let puts = parent.seen("PUT", &format!("{repository}/manifests/latest"));
    let moves: Vec<&str> = puts.iter().filter_map(|seen| seen.kept_digest()).collect();
    let places: Vec<usize> = moves
        .iter()
        .map(|digest| {
            pushed
                .iter()
                .position(|pushed| pushed == digest)
                .expect("it was pushed")
        })
        .collect();
    assert!(
        places.is_sorted_by(|a, b| a < b),
        "{repository}: latest was moved to {places:?}"
    );
    assert_eq!(places.last(), Some(&(pushes.len() - 1)), "{repository}: latest");
}

/// That a look at what arrived finds what is not as it should be.
async fn assert_differences_are_seen(outcome: &Outcome) {
    let Parent::Scripted(parent) = &outcome.parent else {
        unreachable!()
    };
    let (repository, pushes) = outcome.acknowledged.first_key_value().expect("something was pushed");
    let [first, .., last] = &pushes[..] else { return };
    parent.tag(repository, "latest", &first.image.manifest.digest);
    parent.without_tag(repository, &last.tag);
    parent.tag(repository, "other", &first.image.manifest.digest);
    parent.without_blob(repository, &last.image.config_digest());
    parent.blob_as(repository, &first.image.config_digest(), &Bytes::from_static(b"{}"));

    let differences = Differences::at(&outcome.parent, &outcome.acknowledged).await;

    let all = Differences {
        tags: 2,
        strange: 1,
        missing: 1,
        wrong: 1,
    };
    assert_eq!(differences, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_pushed_below_another_registry_that_flaps_arrives() {
    if !needs::met(
        "pushes below docker-registry",
        "the real clients beside it",
        &["docker-registry"],
    ) {
        return;
    }
    let parent = DockerRegistry::start().await;
    let plan = Plan {
        pushes: sized(24, 1000),
        kills: sized(2, 20),
        layer: 8 * MIB,
        pace: 32 << 20,
        pause: Duration::from_millis(sized(150, 350)),
        kill_within: Duration::from_secs(sized(3, 15)),
    };

    let outcome = run(Parent::Docker(parent), plan).await;

    let differences = Differences::at(&outcome.parent, &outcome.acknowledged).await;
    assert_eq!(differences, Differences::default());
    // It loses uploads when it is killed, so how much is sent twice is its own affair.
    progress(&format!("docker-registry: {:.4} bytes sent for each", outcome.ratio));
}
