//! The feed under faults: what is lost, comes twice or in another order, and restarts on both sides at random moments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Dice, progress, sized};
use crate::support::content::Image;
use crate::support::node::{Node, Setup};

const ALL: &str = "[[sync]]\nrepositories = [\"**\"]\n";
const REPOSITORIES: usize = 4;
const TAGS: usize = 6;

/// What is under each tag.
type Names = BTreeMap<(String, String), String>;

/// So long the end state may take to be reached, once all is quiet.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

async fn here(node: &Node, names: &Names) -> Result<(), String> {
    for ((repository, tag), digest) in names {
        let here = node.whole(repository, tag).await;
        if here.as_ref() != Some(digest) {
            return Err(format!("{repository}:{tag} is {here:?} and not {digest}"));
        }
    }
    Ok(())
}

/// None of the tags that are gone at the top, whole or not.
async fn gone(node: &Node, names: &Names, ever: &Names) -> Result<(), String> {
    for (repository, tag) in ever.keys().filter(|name| !names.contains_key(*name)) {
        let reply = node.admin(&format!("/api/complete?name={repository}:{tag}")).await;
        if reply.status == 200 {
            return Err(format!("{repository}:{tag} is gone above, and here {reply}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn whatever_becomes_of_what_is_told_the_end_is_what_the_parent_has() {
    let rounds = sized(8, 100);
    let mut dice = Dice::new();
    let schedule = "[schedule]\nmessage_ttl = \"2s\"\nmessage_ttl_limits = [\"1s\", \"1d\"]\n";
    let mut top = Setup::alone().registry().named("top").more(schedule).start().await;
    // It selects nothing, and tells on what it hears.
    let mut middle = Setup::below(&top.url()).named("middle").more(schedule).start().await;
    let mut bottom = Setup::below(&middle.url()).named("bottom").more(ALL).start().await;
    let (mut names, mut ever) = (Names::new(), Names::new());
    let mut slowest = Duration::ZERO;

    for round in 0..rounds {
        let victim = round % 3;
        let changes = 3 + dice.below(12);
        let (stops, starts) = (dice.below(changes), dice.below(changes));
        // The changes are made at the top: it is there again at once.
        let starts = if victim == 0 { stops } else { stops.max(starts) };
        for change in 0..changes {
            if change == stops {
                [&mut top, &mut middle, &mut bottom][victim].kill();
            }
            if change == starts {
                [&mut top, &mut middle, &mut bottom][victim].start().await;
            }
            let repository = format!("plant/app{}", dice.below(REPOSITORIES));
            let name = (repository.clone(), format!("v{}", dice.below(TAGS)));
            match names.contains_key(&name) && dice.once_in(4) {
                true => {
                    let reply = top.to(&repository).delete(&format!("manifests/{}", name.1)).await;
                    assert_eq!(reply.status, 202, "{reply}");
                    names.remove(&name);
                }
                false => {
                    let image = Image::of(&[1000]);
                    top.to(&repository).image(&name.1, &image).await;
                    names.insert(name.clone(), image.manifest.digest.clone());
                    ever.insert(name, image.manifest.digest);
                }
            }
            if dice.once_in(3) {
                tokio::time::sleep(Duration::from_millis(dice.below(60) as u64)).await;
            }
        }
        let quiet = Instant::now();
        loop {
            let state = match here(&bottom, &names).await {
                Ok(()) => gone(&bottom, &names, &ever).await,
                other => other,
            };
            let Err(words) = state else { break };
            assert!(
                quiet.elapsed() < SETTLES_WITHIN,
                "round {round}, victim {victim}: {words}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest = slowest.max(quiet.elapsed());
    }
    progress(&format!("{rounds} rounds; the slowest took {slowest:?} to settle"));
}
