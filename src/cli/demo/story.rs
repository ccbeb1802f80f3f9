//! The story: a pull nobody was prepared for, one that Level 3 serves alone, one without the cloud, and a push without it.

use std::net::TcpStream;
use std::time::Duration;

use crate::cli::demo::cloud::Logged;
use crate::cli::demo::image::{Image, RECIPE, REPOSITORY, TAG};
use crate::cli::demo::node::Counters;
use crate::cli::demo::plant::Plant;
use crate::cli::demo::proof::Proof;
use crate::cli::demo::pull::{self, Pull};
use crate::cli::demo::{Error, fence, push, show, witness};
use crate::units::Clock;

/// How long the push may take once the cloud is back, and how often it is looked.
const DELIVERY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// What all that stand above a pull had counted at one moment.
struct Reading {
    /// From the lowest node to the highest.
    counters: [Counters; 3],
    logged: [usize; 3],
    cloud: Vec<Logged>,
}

/// What a pull changed.
pub(super) struct Chapter {
    pub(super) pull: Pull,
    /// From the lowest node to the highest.
    pub(super) counters: [Counters; 3],
    /// Each node's time to the first byte of the layer, as it logged it.
    pub(super) first_bytes: [Option<Duration>; 3],
    /// What the cloud was asked for.
    pub(super) cloud: Vec<Logged>,
}

/// Tells it on stdout.
///
/// # Errors
///
/// [`Error::Unproved`] when a claim does not hold; any other when the story cannot go on.
pub(super) async fn tell(plant: &mut Plant<'_>) -> Result<(), Error> {
    show::plant(plant);
    let ours = std::env::current_exe();
    let ours = ours.map_err(|source| Error::Io {
        action: "finding",
        path: "this program".into(),
        source,
    })?;
    let image = Image::of(&ours)?;
    push::push(plant.cloud.endpoint(), &image).await?;
    show::image(&image);
    let wanted: Vec<String> = image
        .contents()
        .iter()
        .map(|(_, content)| content.digest.hex())
        .collect();

    let mut proof = Proof::default();
    show::heading("1. A pull at Level 3, of what only the cloud has");
    let tag_seen = Clock::system().now();
    let first = chapter(plant, "first").await?;
    show::chapter(plant, &first);
    proof.digests(&first.pull, &wanted)?;
    once_each(&mut proof, &image, &first);

    show::heading("2. The same pull again");
    let second = chapter(plant, "second").await?;
    show::chapter(plant, &second);
    proof.digests(&second.pull, &wanted)?;
    nothing_above(&mut proof, &second);

    show::heading("3. The same pull without the cloud");
    plant.cloud.stop();
    let old = plant.tag_ttl.saturating_sub(tag_seen.elapsed()) + Duration::from_secs(1);
    show::waiting(plant, old);
    tokio::time::sleep(old).await;
    let away = TcpStream::connect(plant.cloud.address()).is_err();
    proof.claim(
        "nobody listens at the cloud's address",
        away,
        &plant.cloud.endpoint().url,
    );
    let third = chapter(plant, "third").await?;
    show::chapter(plant, &third);
    proof.digests(&third.pull, &wanted)?;
    old_and_said_so(&mut proof, &third);

    show::heading("4. A push at Level 5 without the cloud");
    pushed_below(plant, &mut proof).await?;

    if plant.trust.is_some() {
        show::heading("5. Who may do what");
        fence::tell(plant, &mut proof).await?;
    }

    let held = proof.conclude()?;
    show::proved(held, witness::PROGRAM);
    Ok(())
}

/// Pushes at Level 5 while the cloud is stopped, and starts it again.
async fn pushed_below(plant: &mut Plant<'_>, proof: &mut Proof) -> Result<(), Error> {
    let recipe = Image::recipe("mix, wait, ship\n")?;
    let wanted: Vec<String> = recipe
        .contents()
        .iter()
        .map(|(_, content)| content.digest.hex())
        .collect();
    push::push(plant.l5.endpoint(), &recipe).await?;
    let owed = plant.l5.queue().await?;
    show::queue(&plant.l5, &owed);
    let waits = owed.iter().any(|item| item.repository == RECIPE && item.tags == [TAG]);
    proof.claim(
        "Level 5 took it and owes it to the cloud",
        waits,
        &format!("{} in its queue", owed.len()),
    );
    let into = plant.folder.within("pulled/below")?;
    let pulled = pull::pull(plant.l3.endpoint(), RECIPE, &into).await?;
    proof.digests(&pulled, &wanted)?;

    say!("");
    plant.cloud.start().await?;
    let started = Clock::system().now();
    let mut left = plant.l5.queue().await?;
    while !left.is_empty() && started.elapsed() < DELIVERY {
        tokio::time::sleep(LOOK).await;
        left = plant.l5.queue().await?;
    }
    if left.is_empty() {
        show::delivered(&plant.l5, started.elapsed());
    }
    proof.claim(
        "nothing is owed any more",
        left.is_empty(),
        &format!("{} in its queue", left.len()),
    );
    let into = plant.folder.within("pulled/cloud")?;
    let pulled = pull::pull(plant.cloud.endpoint(), RECIPE, &into).await?;
    proof.digests(&pulled, &wanted)?;
    let logged = plant.cloud.requests().await?;
    let puts = logged
        .iter()
        .filter(|logged| logged.method == "PUT" && logged.path.contains(RECIPE));
    let last = puts.map(|logged| logged.path.as_str()).next_back().unwrap_or_default();
    let is_tag = last.ends_with(&format!("/manifests/{TAG}"));
    proof.claim(
        "the tag came last of all",
        is_tag,
        &format!("the last PUT in the cloud's log: {last}"),
    );
    let layers = plant.l3.receipt(RECIPE, &recipe.manifest.digest).await?;
    say!("");
    show::receipt(&plant.l3, &layers);
    let reached = layers.iter().filter(|layer| layer.has == Some(true)).count();
    let all = layers.len() == 4 && reached == 4;
    proof.claim(
        "Level 3 is told that the push is in every layer",
        all,
        &format!("{reached} of 4"),
    );
    Ok(())
}

/// Pulls once at Level 3 and sees what that changed everywhere.
async fn chapter(plant: &Plant<'_>, folder: &str) -> Result<Chapter, Error> {
    let before = read(plant).await?;
    let into = plant.folder.within(&format!("pulled/{folder}"))?;
    let pull = pull::pull(plant.l3.endpoint(), REPOSITORY, &into).await?;
    let after = read(plant).await?;
    let counters = [0, 1, 2].map(|at| after.counters[at].since(before.counters[at]));
    let cloud = after.cloud.get(before.cloud.len()..).unwrap_or_default().to_vec();
    let layer = pull.objects.iter().find(|object| object.what == "layer");
    let first_byte = |at: usize| plant.nodes()[at].first_byte(&layer?.digest.to_string(), before.logged[at]);
    let first_bytes = [0, 1, 2].map(first_byte);
    Ok(Chapter {
        pull,
        counters,
        first_bytes,
        cloud,
    })
}

async fn read(plant: &Plant<'_>) -> Result<Reading, Error> {
    // The cloud first: while it is waited for more lines in its log, the nodes write theirs.
    let [l3, l4, l5] = plant.nodes();
    let cloud = plant.cloud.requests().await?;
    let counters = [l3.counters().await?, l4.counters().await?, l5.counters().await?];
    Ok(Reading {
        counters,
        logged: [l3.logged(), l4.logged(), l5.logged()],
        cloud,
    })
}

/// Every byte left the cloud once.
fn once_each(proof: &mut Proof, image: &Image, chapter: &Chapter) {
    for (what, content) in image.contents() {
        let digest = content.digest.to_string();
        let asked = |logged: &&Logged| logged.method == "GET" && logged.path.contains(&digest);
        let times = chapter.cloud.iter().filter(asked).count();
        let seen = format!("{times} GET in its log");
        // A node may take the manifest by its tag, which names no digest.
        let expected = if what == "manifest" { 0..=1 } else { 1..=1 };
        proof.claim(
            &format!("the cloud sent the {what} once"),
            expected.contains(&times),
            &seen,
        );
    }
}

fn nothing_above(proof: &mut Proof, chapter: &Chapter) {
    let [_, l4, l5] = chapter.counters;
    let seen = format!(
        "counted: Level 4 {}, Level 5 {}, in the cloud's log {}",
        l4.requests,
        l5.requests,
        chapter.cloud.len()
    );
    let none = l4.requests == 0 && l5.requests == 0 && chapter.cloud.is_empty();
    proof.claim("no request went above Level 3", none, &seen);
}

/// The tag was older than its `tag_ttl`, so it was asked for up to where the way ended.
fn old_and_said_so(proof: &mut Proof, chapter: &Chapter) {
    let outcomes = chapter.pull.objects.iter().flat_map(|object| &object.outcomes);
    let stale: Vec<_> = outcomes
        .filter(|outcome| outcome.how == "stale")
        .map(|outcome| outcome.node.as_str())
        .collect();
    let seen = format!(
        "stale at {}",
        if stale.is_empty() {
            "no layer".to_owned()
        } else {
            stale.join(", ")
        }
    );
    proof.claim(
        "the answer says which layer had to do without its parent",
        !stale.is_empty(),
        &seen,
    );
}
