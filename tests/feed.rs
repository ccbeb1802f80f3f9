//! What changes at a parent is known below as it happens, through layers that select nothing, whatever becomes of what it tells.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::thin::Thin;
use crate::support::upstream::{Fault, Upstream};

const ALL: &str = "[[sync]]\nrepositories = [\"**\"]\n";

/// A registry of our own at the top.
async fn top() -> Node {
    Setup::alone().registry().named("top").start().await
}

fn below(parent: &Node, name: &str) -> Setup {
    Setup::below(&parent.url()).named(name)
}

async fn state(node: &Node) -> Value {
    node.admin("/api/sync").await.json()
}

/// Waits until the node hears what happens at its parent, and has all that is there.
async fn listens(node: &Node) {
    let mut last = Value::Null;
    eventually("it listens to its parent and is in sync", async || {
        last = state(node).await;
        last["feed"] == "live" && last["syncState"] == "Succeeded"
    })
    .await;
}

/// How long it takes until the tag is whole there.
async fn comes(node: &Node, repository: &str, tag: &str, image: &Image) -> Duration {
    let began = Instant::now();
    eventually(&format!("{repository}:{tag} is here"), async || {
        node.whole(repository, tag).await.as_deref() == Some(&*image.manifest.digest)
    })
    .await;
    began.elapsed()
}

/// What the node tells of itself since, in this form.
async fn feed(node: &Node, query: &str) -> Value {
    let reply = node.get(&format!("/v2/_wharf/feed?{query}")).await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

#[tokio::test]
async fn a_push_at_the_top_is_whole_at_the_bottom_of_five_within_two_seconds_and_so_is_a_delete() {
    let top = top().await;
    let mut layers = vec![below(&top, "l5").start().await];
    for name in ["l4", "l3"] {
        layers.push(below(layers.last().unwrap(), name).start().await);
    }
    // The layers between select nothing.
    let bottom = below(layers.last().unwrap(), "l2").more(ALL).start().await;
    listens(&bottom).await;

    for tag in ["v1", "v2", "v1"] {
        let image = Image::of(&[50_000]);
        top.to("plant/app").image(tag, &image).await;
        let took = comes(&bottom, "plant/app", tag, &image).await;
        println!("known and whole at the bottom after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        bottom
            .get(&manifest("plant/app", tag))
            .await
            .assert_is(&image.manifest.bytes);
    }
    assert_eq!(top.to("plant/app").delete("manifests/v2").await.status, 202);
    eventually("the tag is gone at the bottom", async || {
        bottom.whole("plant/app", "v2").await.is_none()
    })
    .await;
    assert!(bottom.whole("plant/app", "v1").await.is_some());
}

#[tokio::test]
async fn a_signature_that_comes_later_follows_its_image_down() {
    let top = top().await;
    let middle = below(&top, "middle").start().await;
    let bottom = below(&middle, "bottom").more(ALL).start().await;
    let image = Image::of(&[1000]);
    top.to("plant/app").image("v1", &image).await;
    listens(&bottom).await;
    comes(&bottom, "plant/app", "v1", &image).await;

    let signature = Image::referring_to(&image.manifest, "application/vnd.example.signature");
    top.to("plant/app").blobs_of(&signature).await;
    let digest = &signature.manifest.digest;
    top.to("plant/app").manifest(digest, &signature.manifest).await;

    eventually("the signature is here", async || bottom.has_stored(&signature.layer(0))).await;
}

#[tokio::test]
async fn with_the_feed_a_look_at_everything_costs_one_question_in_all() {
    let top = top().await;
    for at in 0..20 {
        top.to(&format!("plant/app{at}")).image("v1", &Image::of(&[100])).await;
    }
    let bottom = below(&top, "bottom").more(ALL).start().await;
    listens(&bottom).await;
    // How the node stands it says twice a minute, which asks for nothing.
    let asked = || async {
        let metrics = top.metrics().await;
        let reports = metrics.sum("wharf_requests_total", &[("kind", "report")]);
        metrics.sum("wharf_requests_total", &[]) - reports
    };
    let before = asked().await;
    let as_of = state(&bottom).await["lastSuccessfulSyncEndTime"].clone();

    // Longer than the time after which a parent without a feed is asked for everything again.
    tokio::time::sleep(Duration::from_secs(63)).await;

    let more = asked().await - before;
    assert!(more <= 2.0, "{more} questions in a minute");
    let report = state(&bottom).await;
    assert_ne!(report["lastSuccessfulSyncEndTime"], as_of, "{report}");
    assert_eq!(report["number"], 1, "{report}");
}

#[tokio::test]
async fn restarts_of_either_side_lead_to_a_look_at_everything_and_nothing_is_missed() {
    let mut top = top().await;
    let mut middle = below(&top, "middle").start().await;
    let mut bottom = below(&middle, "bottom").more(ALL).start().await;
    listens(&bottom).await;

    for (round, tag) in ["v1", "v2", "v3"].into_iter().enumerate() {
        let image = Image::of(&[1000]);
        // What comes while one of them is down is found as well as what comes right after.
        match round {
            0 => top.kill(),
            1 => middle.kill(),
            _ => bottom.kill(),
        }
        if round == 0 {
            top.start().await;
        }
        top.to("plant/app").image(tag, &image).await;
        match round {
            1 => middle.start().await,
            2 => bottom.start().await,
            _ => {}
        }
        comes(&bottom, "plant/app", tag, &image).await;
    }
}

#[tokio::test]
async fn what_outlived_its_time_is_looked_for_among_everything() {
    let schedule = "[schedule]\nmessage_ttl = \"1s\"\nmessage_ttl_limits = [\"1s\", \"1d\"]\n";
    let top = Setup::alone().registry().named("top").more(schedule).start().await;
    let told = feed(&top, "version=2").await;
    let image = Image::of(&[10]);

    top.to("plant/app").image("v1", &image).await;
    let query = format!(
        "version=2&epoch={}&since={}",
        told["epoch"].as_str().unwrap(),
        told["last"]
    );
    let fresh = feed(&top, &query).await;
    assert_eq!(fresh["events"][0]["digest"], image.manifest.digest, "{fresh}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let late = feed(&top, &query).await;

    assert_eq!(
        (&late["complete"], &late["events"]),
        (&false.into(), &json!([])),
        "{late}"
    );
}

#[tokio::test]
async fn an_older_and_a_newer_node_agree_on_a_form_of_the_feed_and_what_is_none_is_refused() {
    let top = top().await;

    assert_eq!(feed(&top, "version=1").await["version"], 1);
    assert_eq!(feed(&top, "version=3").await["version"], 2);
    let refused = top.get("/v2/_wharf/feed?version=0").await;
    assert_eq!(refused.status, 400, "{refused}");
    assert!(refused.text().contains("versions 1 to 2"), "{refused}");
}

#[tokio::test]
async fn a_rollback_while_what_it_takes_back_is_still_coming_is_not_lost() {
    let top = top().await;
    let line = Thin::to(top.address(), 1 << 20).await;
    let node = Setup::below(&line.url()).more(ALL).start().await;
    let (good, bad) = (Image::of(&[1000]), Image::of(&[3 << 20]));
    top.to("plant/app").image("v1", &good).await;
    listens(&node).await;
    comes(&node, "plant/app", "v1", &good).await;

    top.to("plant/app").image("v1", &bad).await;
    let before = line.crossed();
    eventually("it comes", async || line.crossed() > before + (1 << 20)).await;
    top.to("plant/app").manifest("v1", &good.manifest).await;

    eventually("what was taken back has come", async || {
        node.has_stored(&bad.layer(0)) && state(&node).await["syncState"] == "Succeeded"
    })
    .await;
    comes(&node, "plant/app", "v1", &good).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        node.whole("plant/app", "v1").await.as_deref(),
        Some(&*good.manifest.digest)
    );
}

#[tokio::test]
async fn a_node_that_cannot_hear_what_happens_above_it_says_so_and_whoever_listens_looks_for_itself() {
    let cloud = Upstream::start().await;
    cloud.new_image("plant/app", "v1", &[100]);
    let middle = Setup::below(&cloud.url()).named("middle").start().await;
    let bottom = below(&middle, "bottom").more("[[sync]]\nrepositories = [\"plant/app\"]\n");
    let bottom = bottom.start().await;
    listens(&bottom).await;
    let top = top().await;

    assert_eq!(feed(&middle, "version=2").await["heard"], false);
    assert_eq!(feed(&top, "version=2").await["heard"], true);
    // A change up there is found all the same, a minute later.
    let moved = cloud.new_image("plant/app", "v1", &[100]);
    let mut took = Duration::ZERO;
    while bottom.whole("plant/app", "v1").await.as_deref() != Some(&*moved.manifest.digest) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        took += Duration::from_secs(1);
        assert!(took < Duration::from_secs(100), "it is not found");
    }
}

/// A parent that says that it is a node, with a feed that says this.
async fn scripted(lines: &Value) -> Upstream {
    let parent = Upstream::start().await;
    parent.fault(Fault::any("/v2/").header("Wharf", "0.1.0"));
    script(&parent, lines);
    parent
}

fn script(parent: &Upstream, lines: &Value) {
    parent.without_faults();
    let feed = Fault::get("/v2/_wharf/feed").status(200).body(lines.to_string());
    parent.fault(feed.header("Wharf", "0.1.0").delay(Duration::from_millis(100)));
    parent.fault(Fault::any("/v2/").header("Wharf", "0.1.0"));
}

fn line(sequence: u64, tag: &str, image: &Image) -> Value {
    json!({ "sequence": sequence, "repository": "plant/app", "tag": tag, "digest": image.manifest.digest })
}

fn told(version: u32, last: u64, events: &[Value]) -> Value {
    json!({ "version": version, "epoch": "one", "last": last, "complete": true, "events": events })
}

#[tokio::test]
async fn what_is_told_twice_or_in_another_order_leads_to_what_the_parent_has() {
    let beginning = json!({ "version": 1, "epoch": "one", "last": 0, "complete": false, "events": [] });
    let parent = scripted(&beginning).await;
    let node = Setup::below(&parent.url()).more(ALL).start().await;
    listens(&node).await;
    let first = parent.new_image("plant/app", "v1", &[100]);
    let second = parent.new_image("plant/app", "v1", &[100]);
    let other = parent.new_image("plant/app", "v2", &[100]);

    // Told in the form of an older node, the last of it first, each of it twice, and once what is over.
    let told = told(
        1,
        4,
        &[
            line(4, "v2", &other),
            line(2, "v1", &second),
            line(1, "v1", &first),
            line(2, "v1", &second),
            line(4, "v2", &other),
        ],
    );
    script(&parent, &told);

    comes(&node, "plant/app", "v1", &second).await;
    comes(&node, "plant/app", "v2", &other).await;
}

#[tokio::test]
async fn a_parent_without_a_feed_or_with_one_of_the_future_is_asked_for_everything_now_and_then() {
    for (status, body) in [
        (404, json!({})),
        (400, json!({})),
        (
            200,
            json!({ "version": 9, "epoch": "one", "last": 0, "complete": true, "events": [] }),
        ),
    ] {
        let parent = Upstream::start().await;
        let feed = Fault::get("/v2/_wharf/feed").status(status).body(body.to_string());
        parent.fault(feed.header("Wharf", "9.0.0"));
        parent.fault(Fault::any("/v2/").header("Wharf", "9.0.0"));
        let image = parent.new_image("plant/app", "v1", &[100]);
        let node = Setup::below(&parent.url()).more(ALL).start().await;

        comes(&node, "plant/app", "v1", &image).await;
        let report = state(&node).await;
        assert_eq!(report["feed"], "none", "{status}: {report}");
    }
}

#[tokio::test]
async fn whoever_may_not_see_a_repository_is_not_told_of_it() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let line = format!(
        "[[identity]]\nname = \"line\"\npassword_hashes = [\"{hash}\"]\n\
         [[permission]]\nidentities = [\"line\"]\nrepositories = [\"plant/**\"]\nactions = [\"pull\"]\n"
    );
    let top = Setup::alone()
        .registry()
        .named("top")
        .with_account("ops", "secret")
        .more(&line);
    let top = top.start().await;
    let ask = async |query: &str| {
        let line = Client::of(top.address()).logged_in("line", "secret");
        let reply = line.get(&format!("/v2/_wharf/feed?version=2&{query}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    };
    let before = ask("").await;

    top.to("office/app").image("v1", &Image::of(&[10])).await;
    top.to("plant/app").image("v1", &Image::of(&[10])).await;
    let told = ask(&format!("epoch={}&since=0", before["epoch"].as_str().unwrap())).await;

    assert_eq!(told["last"], 2, "{told}");
    let events = told["events"].as_array().unwrap();
    assert!(events.len() == 1 && events[0]["repository"] == "plant/app", "{told}");
    let stranger = Client::of(top.address()).get("/v2/_wharf/feed?version=2").await;
    assert_eq!(stranger.status, 401, "{stranger}");
}
