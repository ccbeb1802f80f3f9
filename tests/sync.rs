//! What is here before anyone asks: what rules select, all of it, and only then shown.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::command::{said, wharf};
use crate::support::content::{Image, index, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup, binary, disk_bytes};
use crate::support::process::peak_memory;
use crate::support::upstream::{Fault, Seen, Upstream};

/// A node below `parent` with such rules.
pub fn selecting(parent: &Upstream, rules: &str) -> Setup {
    Setup::below(&parent.url()).more(rules)
}

/// How synchronisation stands.
pub async fn report(node: &Node) -> Value {
    let reply = node.admin("/api/sync").await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

/// Waits until a pass has ended like that.
pub async fn ended(node: &Node, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("a pass that {state}"), async || {
        last = report(node).await;
        last["number"] != 0 && last["syncState"] == state
    })
    .await;
    last
}

/// `wharf sync` with these arguments.
pub async fn wharf_sync(node: &Node, arguments: &[&str]) -> Output {
    wharf(node, &[&["sync"], arguments].concat()).await
}

/// What a pass would do.
pub async fn plan(node: &Node, query: &str) -> Reply {
    node.admin_send(Request::new("POST", &format!("/api/sync/plan{query}")))
        .await
}

/// That all of it is served, without the parent.
pub async fn assert_here(node: &Node, repository: &str, tag: &str, image: &Image) {
    node.get(&manifest(repository, tag))
        .await
        .assert_is(&image.manifest.bytes);
    node.get(&blob(repository, &image.config_digest()))
        .await
        .assert_is(&image.config);
    for (at, bytes) in image.layers.iter().enumerate() {
        node.get(&blob(repository, &image.layer(at))).await.assert_is(bytes);
    }
}

#[tokio::test]
async fn what_rules_select_is_here_before_anyone_asks_and_nothing_else() {
    let mut parent = Upstream::start().await;
    let plant = parent.new_image("plant/app", "v1", &[50_000]);
    let line = parent.new_image("plant/line/plc", "latest", &[20_000]);
    let named = parent.new_image("tools", "2.0", &[10_000]);
    for (repository, tag) in [
        ("tools", "1.0"),
        ("tools", "3.0-rc1"),
        ("office/app", "v1"),
        ("plant/test/x", "v1"),
    ] {
        parent.new_image(repository, tag, &[10]);
    }
    let rules = "[[sync]]\nname = \"plant\"\nrepositories = [\"plant/**\"]\nexclude = [\"plant/test/*\"]\n\
                 [[sync]]\nrepositories = [\"tools\"]\nversions = \">=2\"\n";
    let node = selecting(&parent, rules).start().await;

    let report = ended(&node, "Succeeded").await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("wharf_sync_passes_total", &[("outcome", "succeeded")]), 1.0);
    assert!(metrics.sum("wharf_sync_lag_seconds", &[]) < 10.0);
    parent.stop().await;

    assert_here(&node, "plant/app", "v1", &plant).await;
    assert_here(&node, "plant/line/plc", "latest", &line).await;
    assert_here(&node, "tools", "2.0", &named).await;
    for (repository, tag) in [
        ("tools", "1.0"),
        ("tools", "3.0-rc1"),
        ("office/app", "v1"),
        ("plant/test/x", "v1"),
    ] {
        assert_ne!(
            node.get(&manifest(repository, tag)).await.status,
            200,
            "{repository}:{tag}"
        );
    }
    let rules = report["rules"].as_array().unwrap();
    let told: Vec<_> = rules
        .iter()
        .map(|rule| (rule["name"].as_str().unwrap(), &rule["tags"], &rule["complete"]))
        .collect();
    assert_eq!(
        told,
        [("plant", &2.into(), &2.into()), ("rule 2", &1.into(), &1.into())]
    );
    assert!(rules[0]["in_sync_as_of"].is_string(), "{report}");
}

#[tokio::test]
async fn what_no_rule_selects_any_more_goes_from_a_mirror_and_stays_in_a_registry_unless_the_rule_said_otherwise() {
    for (mode, leaving, stays) in [
        ("mirror", "", false),
        ("registry", "", true),
        ("mirror", "leaving = \"keep\"\n", true),
        ("registry", "leaving = \"purge\"\n", false),
        ("mirror", "leaving = \"1d\"\n", true),
    ] {
        let mut parent = Upstream::start().await;
        let app = parent.new_image("plant/app", "v1", &[100]);
        let line = parent.new_image("plant/line", "v1", &[100]);
        let rules = format!("[[sync]]\nrepositories = [\"plant/app\", \"plant/line\"]\n{leaving}");
        let setup = selecting(&parent, &rules);
        let setup = if mode == "registry" { setup.registry() } else { setup };
        let mut node = setup.start().await;
        ended(&node, "Succeeded").await;

        // Remembered, whoever ends it.
        node.kill();
        node.setup = node.setup.clone().amended(", \"plant/line\"", "");
        node.start().await;
        ended(&node, "Succeeded").await;
        parent.stop().await;

        assert_here(&node, "plant/app", "v1", &app).await;
        let reply = node.get(&manifest("plant/line", "v1")).await;
        assert_eq!(reply.status == 200, stays, "{mode} {leaving}: {reply}");
        if stays {
            reply.assert_is(&line.manifest.bytes);
        }
    }
}

#[tokio::test]
async fn of_an_index_the_selected_platforms_come_and_the_rest_on_demand() {
    let parent = Upstream::start().await;
    let images: Vec<Image> = (0..3).map(|_| Image::of(&[5000])).collect();
    let all = index(&[&images[0], &images[1], &images[2]]);
    for image in &images {
        parent.image("plant/app", "unused", image);
    }
    parent.without_tag("plant/app", "unused");
    parent.manifest("plant/app", Some("v1"), &all);
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\ntags = [\"v1\"]\nplatforms = [\"linux/arm64\"]\n";
    let node = selecting(&parent, rules).start().await;

    ended(&node, "Succeeded").await;

    let layer = |at: usize| blob("plant/app", &images[at].layer(0));
    assert_eq!(parent.count("GET", &layer(1)), 1);
    assert_eq!(parent.count("GET", &layer(0)) + parent.count("GET", &layer(2)), 0);
    assert_eq!(parent.count("GET", &images[0].manifest.digest), 0);
    node.get(&manifest("plant/app", "v1")).await.assert_is(&all.bytes);
    node.get(&manifest("plant/app", &images[0].manifest.digest))
        .await
        .assert_is(&images[0].manifest.bytes);
    node.get(&layer(0)).await.assert_is(&images[0].layers[0]);
    assert_eq!(parent.count("GET", "_catalog"), 0);
    assert_eq!(parent.count("GET", "tags/list"), 0);
}

#[tokio::test]
async fn a_tag_is_shown_once_all_of_it_is_here_and_what_was_there_stays_until_then() {
    let mut parent = Upstream::start().await;
    let old = parent.new_image("plant/app", "v1", &[10_000]);
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\n";
    let node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;
    let new = Image::of(&[10_000, 20_000]);
    parent.fault(Fault::get(&new.layer(1)).status(503).times(1000));
    parent.image("plant/app", "v1", &new);
    parent.image("plant/app", "v2", &new);

    let told = wharf_sync(&node, &[]).await;
    assert!(
        !told.status.success() && said(&told).contains("plant/app:v2"),
        "{}",
        said(&told)
    );
    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &old).await;
    assert_ne!(node.get(&manifest("plant/app", "v2")).await.status, 200);

    parent.without_faults();
    parent.start_again().await;
    eventually("the rest has come", async || {
        let report = report(&node).await;
        report["syncState"] == "Succeeded" && report["progress"]["tags"] == 2
    })
    .await;
    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &new).await;
    assert_here(&node, "plant/app", "v2", &new).await;
}

#[tokio::test]
async fn what_the_parent_has_no_longer_goes_unless_that_is_nearly_all() {
    let parent = Upstream::start().await;
    let images: Vec<Image> = (0..30)
        .map(|number| parent.new_image("plant/app", &format!("v{number}"), &[10]))
        .collect();
    let last = &images[29];
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\nreferrers = false\n";
    let node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;

    parent.without_tag("plant/app", "v0");
    let told = wharf_sync(&node, &["--dry-run"]).await;
    assert!(said(&told).contains("plant/app:v0"), "{}", said(&told));
    assert!(wharf_sync(&node, &[]).await.status.success());
    assert_eq!(node.get(&manifest("plant/app", "v0")).await.status, 404);

    (1..25).for_each(|number| parent.without_tag("plant/app", &format!("v{number}")));
    let told = wharf_sync(&node, &[]).await;
    assert!(
        !told.status.success() && said(&told).contains("too many at once"),
        "{}",
        said(&told)
    );
    let planned = plan(&node, "").await.json();
    assert_eq!(planned["drop"].as_array().unwrap().len(), 0, "{planned}");
    assert!(planned["errors"].to_string().contains("too many at once"), "{planned}");
    let planned = plan(&node, "?name=plant/app").await.json();
    let dropped = planned["drop"].as_array().unwrap();
    assert_eq!(dropped.len(), 24, "{planned}");
    let one = &images[1];
    let bytes = one.manifest.bytes.len() + one.config.len() + one.layers[0].len();
    let first = dropped.iter().find(|tag| tag["name"] == "plant/app:v1").unwrap();
    assert_eq!((&first["bytes"], &first["why"]), (&bytes.into(), &"gone".into()));
    // What the parent has no longer makes way for other.
    assert_eq!(planned["drop_bytes"], 0);

    assert!(wharf_sync(&node, &["plant/app"]).await.status.success());
    assert_eq!(node.get(&manifest("plant/app", "v1")).await.status, 404);
    node.get(&manifest("plant/app", "v29"))
        .await
        .assert_is(&last.manifest.bytes);
}

#[tokio::test]
async fn what_one_repository_refuses_keeps_neither_the_others_from_coming_nor_what_is_old_from_leaving() {
    const MIB: usize = 1 << 20;
    let parent = Upstream::start().await;
    parent.new_image("plant/broken", "v1", &[10]);
    parent.fault(Fault::any("/plant/broken/").status(403).times(100_000));
    let rules = "[[sync]]\nrepositories = [\"plant/*\"]\nreferrers = false\n";
    let node = selecting(&parent, rules).capacity("64MiB").start().await;

    let mut image = Image::of(&[1]);
    // More than there is room for, if what is old stayed.
    for round in 0..6 {
        image = parent.new_image("plant/app", "v1", &[12 * MIB]);
        let told = wharf_sync(&node, &[]).await;
        assert!(
            !told.status.success() && said(&told).contains("plant/broken"),
            "{round}: {}",
            said(&told)
        );
        assert!(!said(&told).contains("plant/app"), "{round}: {}", said(&told));
    }
    assert_here(&node, "plant/app", "v1", &image).await;
    assert_eq!(report(&node).await["rules"][0]["complete"], 1);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_fetched_with_bytes_and_fetches_no_blob() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[50_000]);
    let node = Setup::below(&parent.url()).start().await;

    let told = wharf_sync(&node, &["--dry-run", "plant/app"]).await;

    assert!(told.status.success(), "{}", said(&told));
    assert!(said(&told).contains("plant/app:v1"), "{}", said(&told));
    let planned = plan(&node, "?name=plant/app:v1").await.json();
    let bytes = image.config.len() + 50_000;
    assert_eq!(
        (&planned["bytes"], &planned["fetch"][0]["blobs"]),
        (&bytes.into(), &2.into()),
        "{planned}"
    );
    assert_eq!(parent.count("GET", "/blobs/"), 0);
    assert_eq!(plan(&node, "?name=NO").await.status, 400);
}

#[tokio::test]
async fn what_somebody_names_is_brought_though_nothing_selects_it() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("office/app", "v1", &[10_000]);
    parent.new_image("office/app", "v2", &[10_000]);
    let node = Setup::below(&parent.url()).start().await;

    let told = wharf_sync(&node, &["office/app:v1"]).await;

    assert!(told.status.success(), "{}", said(&told));
    assert!(said(&told).contains("1 of 1 tags"), "{}", said(&told));
    parent.stop().await;
    assert_here(&node, "office/app", "v1", &image).await;
    assert_ne!(node.get(&manifest("office/app", "v2")).await.status, 200);
}

#[tokio::test]
async fn a_pass_that_is_asked_for_while_the_parent_is_away_is_made_once_it_is_back() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[10_000]);
    let node = Setup::below(&parent.url()).start().await;
    parent.stop().await;
    // It has to notice.
    eventually("the node knows that its parent is away", async || {
        node.get(&manifest("a", "v1")).await;
        report(&node).await["away"].is_string()
    })
    .await;

    assert!(wharf_sync(&node, &["--no-wait", "plant/app"]).await.status.success());
    assert_eq!(report(&node).await["waiting"], 1);
    parent.start_again().await;

    ended(&node, "Succeeded").await;
    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &image).await;
}

#[tokio::test]
async fn what_was_asked_for_outlives_a_restart_of_the_node_and_so_does_the_command_that_waits_for_it() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[10_000]);
    let mut node = Setup::below(&parent.url()).start().await;
    parent.stop().await;
    eventually("the node knows that its parent is away", async || {
        node.get(&manifest("a", "v1")).await;
        report(&node).await["away"].is_string()
    })
    .await;
    let mut waiting = tokio::process::Command::new(binary())
        .args(["sync", "plant/app", "--admin", &node.admin_url()])
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut told = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let first = told.next_line().await.unwrap().unwrap();
    assert!(first.contains("it waits for the parent"), "{first}");

    node.restart().await;
    eventually("it has it still", async || report(&node).await["waiting"] == 1).await;
    parent.start_again().await;

    let mut last = String::new();
    while let Some(line) = told.next_line().await.unwrap() {
        last = line;
    }
    assert!(waiting.wait().await.unwrap().success(), "{last}");
    assert!(last.contains("1 of 1 tags"), "{last}");
    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &image).await;
    assert_eq!(node.admin("/api/sync?order=0000").await.status, 404);
}

#[tokio::test]
async fn a_node_that_starts_before_its_parent_finds_it_by_itself() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[1000]);
    parent.stop().await;
    let node = selecting(&parent, "[[sync]]\nrepositories = [\"plant/app\"]\n")
        .start()
        .await;
    // Longer than whatever was tried at the start.
    tokio::time::sleep(Duration::from_secs(4)).await;

    parent.start_again().await;

    ended(&node, "Succeeded").await;
    assert_here(&node, "plant/app", "v1", &image).await;
}

#[tokio::test]
async fn a_tag_that_the_list_of_a_node_above_is_too_old_to_name_stays() {
    let cloud = Upstream::start().await;
    cloud.new_image("plant/app", "v1", &[10]);
    let middle = Setup::below(&cloud.url()).named("middle").start().await;
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\n";
    let node = Setup::below(&middle.url()).more(rules).start().await;
    ended(&node, "Succeeded").await;
    let new = cloud.new_image("plant/app", "v2", &[10]);

    assert!(wharf_sync(&node, &["plant/app:v2"]).await.status.success());
    for _ in 0..2 {
        let told = wharf_sync(&node, &[]).await;
        assert!(
            told.status.success() && said(&told).contains("2 of 2 tags"),
            "{}",
            said(&told)
        );
    }

    assert_here(&node, "plant/app", "v2", &new).await;
}

#[tokio::test]
async fn a_long_pass_makes_way_for_what_somebody_asks_for_and_goes_on_after_it() {
    let parent = Upstream::start().await;
    for number in 0..40 {
        parent.new_image("plant/many", &format!("v{number}"), &[10]);
    }
    let wanted = parent.new_image("office/app", "v1", &[10]);
    parent.fault(
        Fault::get("/plant/many/blobs/")
            .delay(Duration::from_millis(500))
            .times(100_000),
    );
    let rules = "[[sync]]\nrepositories = [\"plant/many\"]\n";
    let node = selecting(&parent, rules).start().await;
    eventually("the pass has begun", async || {
        parent.count("GET", "/plant/many/blobs/") > 0
    })
    .await;

    let told = wharf_sync(&node, &["office/app:v1"]).await;

    assert!(told.status.success(), "{}", said(&told));
    assert_here(&node, "office/app", "v1", &wanted).await;
    assert!(parent.count("GET", "/plant/many/blobs/") < 60);
    parent.without_faults();
    let report = eventually_ended_well(&node).await;
    assert_eq!(report["rules"][0]["complete"], 40, "{report}");
}

/// Waits until all that rules select is here.
async fn eventually_ended_well(node: &Node) -> Value {
    let mut last = Value::Null;
    eventually("all that is selected is here", async || {
        last = report(node).await;
        let rule = &last["rules"][0];
        rule["tags"] == rule["complete"] && rule["in_sync_as_of"].is_string()
    })
    .await;
    last
}

#[tokio::test]
async fn what_comes_first_by_its_priority_is_asked_for_first() {
    let parent = Upstream::start().await;
    for number in 0..30 {
        parent.new_image("plant/many", &format!("v{number}"), &[10]);
    }
    for number in 0..4 {
        parent.new_image("plant/urgent", &format!("v{number}"), &[10]);
    }
    let rules =
        "[[sync]]\nrepositories = [\"plant/many\"]\n[[sync]]\nrepositories = [\"plant/urgent\"]\npriority = 1\n";
    let node = selecting(&parent, rules).start().await;

    ended(&node, "Succeeded").await;

    // Eight tags are looked at at a time.
    let asked = parent.seen("HEAD", "/manifests/");
    let urgent = |seen: &Seen| seen.path.contains("plant/urgent");
    assert_eq!(asked.iter().take(8).filter(|seen| urgent(seen)).count(), 4);
    assert_eq!(asked.len(), 34);
}

#[tokio::test]
async fn a_registry_that_is_no_node_is_asked_so_often_a_minute_and_whether_anything_changed() {
    let parent = Upstream::start().await;
    for number in 0..8 {
        parent.new_image("plant/app", &format!("v{number}"), &[10]);
    }
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\nreferrers = false\n";
    let begun = Instant::now();
    let node = selecting(&parent, rules)
        .parent("sync_requests_per_minute = 600")
        .start()
        .await;

    // One list, and of each tag its head, its manifest, its config and its layer.
    let asked = async || parent.seen("", "/plant/app/").len();
    eventually("half of it was asked", async || asked().await > 16).await;
    let pulled = Instant::now();
    node.get(&manifest("plant/app", "v7")).await;
    assert!(pulled.elapsed() < Duration::from_secs(1), "clients wait for nothing");
    ended(&node, "Succeeded").await;
    let least = Duration::from_millis(100) * (1 + 8 * 4 - 10);
    assert!(begun.elapsed() > least, "{:?}", begun.elapsed());

    parent.forget();
    assert!(wharf_sync(&node, &[]).await.status.success());
    let heads = parent.seen("HEAD", "/manifests/");
    assert_eq!((heads.len(), parent.asked()), (8, 9));
    for head in heads {
        assert!(
            head.header("if-none-match")
                .is_some_and(|tag| tag.starts_with("\"sha256:"))
        );
        assert_eq!(head.status(), 304);
    }

    // Who is told that nothing changed still sees what did.
    let new = parent.new_image("plant/app", "v3", &[10]);
    assert!(wharf_sync(&node, &[]).await.status.success());
    node.get(&manifest("plant/app", "v3"))
        .await
        .assert_is(&new.manifest.bytes);
}

#[tokio::test]
async fn what_is_selected_does_not_leave_for_what_is_merely_asked_for_not_even_after_a_restart() {
    const MIB: usize = 1 << 20;
    let mut parent = Upstream::start().await;
    let selected = parent.new_image("plant/app", "v1", &[8 * MIB]);
    let others: Vec<Image> = (0..8).map(|_| parent.new_image("office", "v1", &[8 * MIB])).collect();
    let rules = "[[sync]]\nrepositories = [\"plant/*\"]\n";
    let mut node = selecting(&parent, rules).capacity("64MiB").start().await;
    ended(&node, "Succeeded").await;

    for round in 0..2 {
        for image in &others {
            node.get(&blob("office", &image.layer(0)))
                .await
                .assert_is(&image.layers[0]);
        }
        assert!(disk_bytes(&node.data(), Some(node.pid())) <= 64 << 20);
        if round == 0 {
            parent.fault(Fault::any("/plant/").status(503).times(100_000));
            node.restart().await;
        }
    }

    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &selected).await;
}

#[tokio::test]
async fn a_pass_with_nothing_to_do_asks_for_each_list_and_each_tag_once() {
    let parent = Upstream::start().await;
    for repository in ["plant/a", "plant/b"] {
        for tag in ["v1", "v2"] {
            parent.new_image(repository, tag, &[100]);
        }
    }
    let node = selecting(&parent, "[[sync]]\nrepositories = [\"plant/a\", \"plant/b\"]\n")
        .start()
        .await;
    ended(&node, "Succeeded").await;
    parent.forget();

    assert!(wharf_sync(&node, &[]).await.status.success());

    assert_eq!(parent.count("GET", "tags/list"), 2);
    assert_eq!(parent.count("HEAD", "/manifests/"), 4);
    assert_eq!(parent.asked(), 6);
}

#[tokio::test]
async fn new_rules_hold_without_a_restart() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[1000]);
    let node = Setup::below(&parent.url()).start().await;
    let path = node.folder().join("wharf.toml");
    let settings = std::fs::read_to_string(&path).unwrap();

    std::fs::write(&path, settings + "\n[[sync]]\nrepositories = [\"plant/app\"]\n").unwrap();
    let reply = node.admin_send(Request::new("POST", "/api/reload")).await;
    assert_eq!(reply.status, 200, "{reply}");

    let report = ended(&node, "Succeeded").await;
    assert_eq!(report["rules"][0]["complete"], 1, "{report}");
    assert_here(&node, "plant/app", "v1", &image).await;
}

#[tokio::test]
async fn what_refers_to_an_image_comes_with_it_unless_it_is_not_wanted() {
    let mut parent = Upstream::start().await;
    let mut artifacts = Vec::new();
    for repository in ["plant/signed", "plant/plain"] {
        let image = parent.new_image(repository, "v1", &[1000]);
        let signature = Image::referring_to(&image.manifest, "application/vnd.example.signature");
        let about = Image::referring_to(&signature.manifest, "application/vnd.example.remark");
        for artifact in [&signature, &about] {
            parent.image(repository, "x", artifact);
        }
        parent.without_tag(repository, "x");
        artifacts.push((image, signature, about));
    }
    let rules =
        "[[sync]]\nrepositories = [\"plant/signed\"]\n[[sync]]\nrepositories = [\"plant/plain\"]\nreferrers = false\n";
    let node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;
    assert_eq!(parent.count("GET", "plant/plain/referrers"), 0);
    parent.stop().await;

    let (image, signature, about) = &artifacts[0];
    assert_here(&node, "plant/signed", "v1", image).await;
    for (subject, artifact) in [(image, signature), (signature, about)] {
        let list = node
            .get(&format!("/v2/plant/signed/referrers/{}", subject.manifest.digest))
            .await;
        assert_eq!(
            list.json()["manifests"][0]["digest"],
            artifact.manifest.digest,
            "{list}"
        );
        node.get(&manifest("plant/signed", &artifact.manifest.digest))
            .await
            .assert_is(&artifact.manifest.bytes);
        node.get(&blob("plant/signed", &artifact.layer(0)))
            .await
            .assert_is(&artifact.layers[0]);
    }
    let (_, signature, _) = &artifacts[1];
    assert_ne!(
        node.get(&manifest("plant/plain", &signature.manifest.digest))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn whether_an_image_is_complete_is_told_with_what_is_missing() {
    let mut parent = Upstream::start().await;
    let images: Vec<Image> = (0..2).map(|_| Image::of(&[5000])).collect();
    let all = index(&[&images[0], &images[1]]);
    for image in &images {
        parent.image("plant/app", "unused", image);
    }
    parent.without_tag("plant/app", "unused");
    parent.manifest("plant/app", Some("v1"), &all);
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\nplatforms = [\"linux/arm64\"]\n";
    let node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;
    parent.stop().await;

    let complete = async |query: &str| {
        node.admin(&format!("/api/complete?name=plant/app:v1{query}"))
            .await
            .json()
    };
    assert_eq!(complete("&platform=linux/arm64").await["complete"], true);
    let whole = complete("").await;
    // Of the other platform not even the manifest is here.
    let missing = images[0].manifest.bytes.len();
    assert_eq!(
        (&whole["complete"], &whole["missing_items"]),
        (&false.into(), &1.into()),
        "{whole}"
    );
    assert_eq!(whole["missing_bytes"], missing, "{whole}");
    assert_eq!(whole["digest"], all.digest);
    assert_eq!(whole["at_least"], true, "{whole}");
    let strange = complete("&platform=linux/s390x&platform=linux/arm64").await;
    assert_eq!(
        (&strange["complete"], &strange["missing_platforms"]),
        (&false.into(), &serde_json::json!(["linux/s390x"])),
        "{strange}"
    );
    assert_eq!(node.admin("/api/complete?name=plant/app:v2").await.status, 404);
    assert_eq!(node.admin("/api/complete?name=plant/app").await.status, 400);
    assert_eq!(
        node.admin("/api/complete?name=plant/app:v1&platform=linux")
            .await
            .status,
        400
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_repositories_each_filter_gives_its_tags_one_question_each_and_little_memory() {
    const REPOSITORIES: usize = 200;
    const TAGS: usize = 50;
    let mut parent = Upstream::start().await;
    let layer = random(100);
    let name = |number: usize| format!("{}/app-{number}", ["plant", "site", "lab", "office"][number % 4]);
    for number in 0..REPOSITORIES {
        for tag in 0..TAGS {
            let tag = match tag % 5 {
                0 => format!("v{}.{tag}", tag / 10),
                1 => format!("{}.{tag}-rc1", tag / 10),
                2 => format!("{}.{tag}-alpine", tag / 10),
                3 => format!("build-{tag}"),
                _ => format!("sha-{tag:02x}ab"),
            };
            parent.image(&name(number), &tag, &Image::with_layers(vec![layer.clone()]));
        }
    }
    let rules = [
        ("plant", "newest = 3", 3),
        ("site", "versions = \">=3\"", 8),
        (
            "lab",
            "tags = [\"build-*\", \"v*\"]\nexclude_tags = [\"build-[34]*\"]",
            15,
        ),
        ("office", "tag_regex = \"sha-[0-9a-f]+\"\nnewest = 4", 4),
    ];
    let written: Vec<String> = rules
        .iter()
        .map(|(name, lines, _)| {
            format!("[[sync]]\nname = \"{name}\"\nrepositories = [\"{name}/*\"]\nreferrers = false\n{lines}\n")
        })
        .collect();
    let node = selecting(&parent, &written.concat())
        .parent("sync_requests_per_minute = 1000000")
        .start()
        .await;
    let report = eventually_ended(&node).await;

    let mut all = 0;
    for ((name, _, each), told) in rules.iter().zip(report["rules"].as_array().unwrap()) {
        let expected = each * REPOSITORIES / rules.len();
        all += expected;
        assert_eq!(
            (&told["tags"], &told["complete"]),
            (&expected.into(), &expected.into()),
            "{name}: {told}"
        );
    }
    parent.forget();
    assert!(wharf_sync(&node, &[]).await.status.success());
    assert_eq!(parent.asked(), 1 + REPOSITORIES + all);
    let memory = peak_memory(node.pid());
    assert!(memory < 64 << 20, "{} MiB", memory >> 20);

    parent.stop().await;
    for (repository, shown, hidden) in [
        (
            name(0),
            &["v4.45", "4.47-alpine"][..],
            &["v4.40", "latest", "build-48"][..],
        ),
        (
            name(1),
            &["v3.35", "3.37-alpine", "v4.40"],
            &["3.36-rc1", "2.27-alpine", "build-48"],
        ),
        (
            name(2),
            &["build-8", "build-28", "v0.0"],
            &["build-33", "build-48", "0.2-alpine"],
        ),
        (name(3), &["sha-31ab", "sha-22ab"], &["sha-2cab", "v0.0"]),
    ] {
        for (tags, is_shown) in [(shown, true), (hidden, false)] {
            for tag in tags {
                let reply = node.get(&manifest(&repository, tag)).await;
                assert_eq!(reply.status == 200, is_shown, "{repository}:{tag}: {reply}");
            }
        }
    }
}

/// The same as [`ended`], of a pass that takes long.
async fn eventually_ended(node: &Node) -> Value {
    for _ in 0..600 {
        let report = report(node).await;
        if report["number"] != 0 && report["syncState"] != "Syncing" {
            assert_eq!(report["syncState"], "Succeeded", "{report}");
            return report;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the pass does not end: {}", report(node).await);
}

#[tokio::test]
async fn what_has_no_room_is_told_with_bytes_and_is_not_fetched_again_and_again() {
    const MIB: usize = 1 << 20;
    let parent = Upstream::start().await;
    let small = parent.new_image("plant/small", "v1", &[MIB]);
    parent.new_image("plant/vast", "v1", &[40 * MIB, 40 * MIB]);
    let rules = "[[sync]]\nrepositories = [\"plant/small\"]\npriority = 1\n[[sync]]\nrepositories = [\"plant/vast\"]\n";
    let node = selecting(&parent, rules).capacity("64MiB").start().await;

    for _ in 0..2 {
        let told = wharf_sync(&node, &[]).await;
        assert!(
            !told.status.success() && said(&told).contains("plant/vast:v1: there is no room"),
            "{}",
            said(&told)
        );
    }

    assert_here(&node, "plant/small", "v1", &small).await;
    assert!(parent.body_bytes("/plant/vast/blobs/") < 1000);
}

#[tokio::test]
async fn a_signature_that_is_listed_and_gone_keeps_no_image_away() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[1000]);
    let signature = Image::referring_to(&image.manifest, "application/vnd.example.signature");
    parent.image("plant/app", "x", &signature);
    parent.without_tag("plant/app", "x");
    parent.fault(
        Fault::any(&format!("/manifests/{}", signature.manifest.digest))
            .status(404)
            .times(1000),
    );
    let node = selecting(&parent, "[[sync]]\nrepositories = [\"plant/app\"]\n")
        .start()
        .await;

    ended(&node, "Succeeded").await;

    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &image).await;
}

#[tokio::test]
async fn what_is_named_and_is_not_there_is_told() {
    let parent = Upstream::start().await;
    parent.new_image("plant/app", "v1", &[10]);
    let node = Setup::below(&parent.url()).start().await;

    for (name, why) in [
        ("plant/app:v2", "there is no such tag"),
        ("plant/ap", "there is no tag"),
    ] {
        let told = wharf_sync(&node, &[name]).await;
        assert!(
            !told.status.success() && said(&told).contains(why),
            "{name}: {}",
            said(&told)
        );
    }
}

#[tokio::test]
async fn tags_that_are_named_one_by_one_are_not_all_taken_away_at_once_either() {
    let parent = Upstream::start().await;
    let names: Vec<String> = (0..20).map(|number| format!("v{number}")).collect();
    for name in &names {
        parent.new_image("plant/app", name, &[10]);
    }
    let rules = format!("[[sync]]\nrepositories = [\"plant/app\"]\ntags = {names:?}\n");
    let node = selecting(&parent, &rules).start().await;
    ended(&node, "Succeeded").await;

    parent.fault(Fault::any("/plant/app/").status(404).times(100_000));
    let told = wharf_sync(&node, &[]).await;

    assert!(
        !told.status.success() && said(&told).contains("too many at once"),
        "{}",
        said(&told)
    );
    parent.without_faults();
    assert!(wharf_sync(&node, &[]).await.status.success());
    assert_eq!(report(&node).await["rules"][0]["complete"], 20);
}

#[tokio::test]
async fn a_middle_layer_that_is_cut_off_takes_nothing_away_and_is_not_taken_for_in_sync() {
    let mut cloud = Upstream::start().await;
    for tag in ["v1", "v2"] {
        cloud.new_image("plant/app", tag, &[10]);
    }
    let middle = Setup::below(&cloud.url()).named("middle").tag_ttl("0s").start().await;
    let rules = "[[sync]]\nrepositories = [\"plant/app\"]\n";
    let node = Setup::below(&middle.url()).more(rules).start().await;
    ended(&node, "Succeeded").await;
    cloud.stop().await;

    let told = wharf_sync(&node, &[]).await;

    assert!(
        !told.status.success() && said(&told).contains("the last that it knew"),
        "{}",
        said(&told)
    );
    assert_eq!(node.get(&manifest("plant/app", "v1")).await.status, 200);
    assert_eq!(node.get(&manifest("plant/app", "v2")).await.status, 200);
}
