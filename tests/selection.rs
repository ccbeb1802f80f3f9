//! What is selected by what it is, and by what files name that were written for others; and what is so no longer.

use serde_json::{Value, json};

use crate::support::client::{Request, blob, manifest};
use crate::support::command::said;
use crate::support::content::{Image, OCI_MANIFEST, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::Upstream;
use crate::sync::{assert_here, ended, plan, report, selecting, wharf_sync};

/// An IoT Edge deployment of modules with these images.
fn edge(images: &[&str]) -> String {
    let modules: serde_json::Map<String, Value> = images
        .iter()
        .enumerate()
        .map(|(number, image)| (format!("module{number}"), json!({ "settings": { "image": image } })))
        .collect();
    json!({ "modulesContent": { "$edgeAgent": { "properties.desired": { "modules": modules } } } }).to_string()
}

/// A node that has what a file says, which says this.
fn deployed(parent: &Upstream, text: &str) -> Node {
    let mut node = Setup::below(&parent.url()).placed();
    let path = node.folder().join("deployment.json");
    std::fs::write(&path, text).unwrap();
    node.setup = node.setup.clone().more(&format!("[[sync]]\nfrom = {:?}\n", path));
    node
}

fn deploy(node: &Node, text: &str) {
    std::fs::write(node.folder().join("deployment.json"), text).unwrap();
}

/// Whether all of it is here, as the node itself knows.
async fn is_complete(node: &Node, name: &str) -> bool {
    let told = node.admin(&format!("/api/complete?name={name}")).await;
    told.status == 200 && told.json()["complete"] == true
}

#[tokio::test]
async fn the_images_of_a_deployment_are_here_before_they_run_and_follow_the_file() {
    let mut parent = Upstream::start().await;
    let press = parent.new_image("plant/press", "v2", &[20_000]);
    let pinned = parent.new_image("plant/pinned", "any", &[20_000]);
    let next = parent.new_image("plant/press", "v3", &[20_000]);
    parent.new_image("plant/press", "v1", &[10]);
    let by_digest = format!("$upstream:8000/plant/pinned:any@{}", pinned.manifest.digest);
    let host = parent.address().to_string();
    let mut node = deployed(&parent, &edge(&["$upstream:8000/plant/press:v2", &by_digest]));
    node.start().await;

    let first = ended(&node, "Succeeded").await;
    assert_eq!(first["rules"][0]["complete"], 2, "{first}");
    assert_eq!(parent.count("", "tags/list") + parent.count("", "_catalog"), 0);
    assert_eq!(parent.count("GET", &next.layer(0)), 0);

    // Another version, by the parent's own address.
    deploy(&node, &edge(&[&format!("{host}/plant/press:v3"), &by_digest]));
    eventually("the new version is here", async || {
        is_complete(&node, "plant/press:v3").await
    })
    .await;
    eventually("the old one is gone", async || {
        !is_complete(&node, "plant/press:v2").await && !node.has_stored(&press.layer(0))
    })
    .await;

    // A file that is written badly takes nothing away, before a restart and after it.
    deploy(&node, "{\"modulesContent\": ");
    eventually("it is told", async || {
        node.log().contains("deployment.json: it is neither JSON nor YAML")
    })
    .await;
    assert!(is_complete(&node, "plant/press:v3").await);
    let told = ended(&node, "Failed").await;
    assert!(told["errors"].to_string().contains("deployment.json"), "{told}");
    eventually("operators are told", async || {
        let ready = node.admin("/readyz").await.json();
        ready["reasons"].to_string().contains("deployment.json")
    })
    .await;
    node.restart().await;
    let told = ended(&node, "Failed").await;
    assert!(
        told["errors"][0].as_str().unwrap().contains("deployment.json"),
        "{told}"
    );
    parent.stop().await;
    assert_here(&node, "plant/press", "v3", &next).await;
    for digest in [pinned.manifest.digest.clone(), pinned.config_digest(), pinned.layer(0)] {
        assert!(node.has_stored(&digest), "{digest}");
    }
}

#[tokio::test]
async fn what_a_deployment_names_and_nobody_here_has_is_told_and_the_rest_comes() {
    let parent = Upstream::start().await;
    let app = parent.new_image("plant/app", "v1", &[1000]);
    let text = "services:\n  app: {image: 'plant/app:v1'}\n  other: {image: 'elsewhere.example/x:1'}\n  open: {image: '${TAG}'}\n  gone: {image: 'plant/app:v9'}\n";
    let mut node = deployed(&parent, text);
    node.start().await;

    let told = ended(&node, "Failed").await;

    let errors = told["errors"].to_string();
    assert!(errors.contains("nothing is called elsewhere.example here"), "{told}");
    assert!(errors.contains("it has a variable"), "{told}");
    assert!(errors.contains("plant/app:v9: the parent does not have it"), "{told}");
    let rule = &told["rules"][0];
    assert_eq!(rule["missing"], json!(["plant/app:v9"]), "{told}");
    assert_eq!((&rule["complete"], &rule["absent"]), (&1.into(), &1.into()), "{told}");
    assert_here(&node, "plant/app", "v1", &app).await;
}

#[tokio::test]
async fn while_a_deployment_cannot_be_read_its_images_make_way_for_nothing() {
    const MIB: usize = 1 << 20;
    let mut parent = Upstream::start().await;
    let app = parent.new_image("plant/app", "v1", &[8 * MIB]);
    let pinned = parent.new_image("plant/pinned", "x", &[8 * MIB]);
    let others: Vec<Image> = (0..8).map(|_| parent.new_image("office", "v1", &[8 * MIB])).collect();
    let by_digest = format!("plant/pinned@{}", pinned.manifest.digest);
    let mut node = deployed(&parent, &edge(&["$upstream/plant/app:v1", &by_digest]));
    node.setup = node.setup.clone().capacity("64MiB");
    node.start().await;
    ended(&node, "Succeeded").await;

    // Read anew by an operator, and after a restart.
    std::fs::remove_file(node.folder().join("deployment.json")).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    for round in 0..2 {
        for image in &others {
            node.get(&blob("office", &image.layer(0)))
                .await
                .assert_is(&image.layers[0]);
        }
        assert!(
            node.has_stored(&app.layer(0)) && node.has_stored(&pinned.layer(0)),
            "{round}"
        );
        node.restart().await;
        ended(&node, "Failed").await;
    }
    parent.stop().await;
    assert_here(&node, "plant/app", "v1", &app).await;
}

#[tokio::test]
async fn a_deployment_that_lost_most_of_its_images_is_not_believed_until_somebody_says_so() {
    let parent = Upstream::start().await;
    let names: Vec<String> = (0..12).map(|number| format!("$upstream/plant/app:v{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for number in 0..12 {
        parent.new_image("plant/app", &format!("v{number}"), &[10]);
    }
    let mut node = deployed(&parent, &edge(&names));
    node.start().await;
    let named = async || report(&node).await["rules"][0]["complete"].as_u64();
    ended(&node, "Succeeded").await;
    assert_eq!(named().await, Some(12));

    deploy(&node, &edge(&names[..1]));
    eventually("it is told", async || {
        node.log().contains("has lost more than half of its images")
    })
    .await;
    let told = wharf_sync(&node, &[]).await;
    assert!(
        !told.status.success() && said(&told).contains("lost more than half"),
        "{}",
        said(&told)
    );
    assert_eq!(named().await, Some(12));

    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    eventually("it is believed", async || named().await == Some(1)).await;
}

#[tokio::test]
async fn what_a_deployment_names_by_digest_goes_with_it_and_so_does_all_once_no_rule_is_left() {
    let parent = Upstream::start().await;
    let app = parent.new_image("plant/app", "v1", &[1000]);
    let pinned = parent.new_image("plant/pinned", "x", &[1000]);
    let by_digest = format!("plant/pinned@{}", pinned.manifest.digest);
    let mut node = deployed(&parent, &edge(&["$upstream/plant/app:v1", &by_digest]));
    node.start().await;
    ended(&node, "Succeeded").await;

    deploy(&node, &edge(&["$upstream/plant/app:v1"]));
    eventually("what was pinned is gone", async || !node.has_stored(&pinned.layer(0))).await;
    assert!(node.has_stored(&app.layer(0)));

    let path = node.folder().join("wharf.toml");
    let settings = std::fs::read_to_string(&path).unwrap();
    let (before, _) = settings.split_once("[[sync]]").unwrap();
    std::fs::write(&path, before).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    eventually("nothing is left", async || !node.has_stored(&app.layer(0))).await;
}

#[tokio::test]
async fn what_the_parent_tells_of_and_no_rule_selects_is_left_alone() {
    let top = Setup::alone().registry().named("top").start().await;
    let rules = "[[sync]]\nrepositories = [\"plant/*\"]\ntags = [\"v*\"]\nmax_size = \"100KB\"\n";
    let node = Setup::below(&top.url()).more(rules).start().await;
    let app = Pusher::of(top.client(), "plant/app");
    let (dev, vast, small) = (Image::of(&[1000]), Image::of(&[200_000]), Image::of(&[1000]));
    ended(&node, "Succeeded").await;
    eventually("the parent tells what happens", async || {
        report(&node).await["feed"] == "live"
    })
    .await;

    for (tag, image) in [("dev", &dev), ("v1", &vast), ("v2", &small)] {
        app.image(tag, image).await;
    }

    eventually("what is selected has come", async || node.has_stored(&small.layer(0))).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!node.has_stored(&dev.layer(0)) && !node.has_stored(&vast.layer(0)));
}

#[tokio::test]
async fn of_what_is_named_only_the_selected_types_and_sizes_come_and_stay() {
    let parent = Upstream::start().await;
    let small = parent.new_image("plant/app", "small", &[1000]);
    let large = parent.new_image("plant/app", "large", &[200_000]);
    let chart = Image::built(OCI_MANIFEST, vec![random(500)], sha256, |body| {
        body["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    });
    parent.image("plant/app", "chart", &chart);
    let model = Image::built(OCI_MANIFEST, vec![random(500)], sha256, |body| {
        body["artifactType"] = "application/vnd.example.model".into();
    });
    parent.image("plant/app", "model", &model);
    let rules = "[[sync]]\nname = \"run\"\nrepositories = [\"plant/*\"]\nartifact_types = [\"image\"]\nmax_size = \"100KB\"\n\
                 [[sync]]\nname = \"charts\"\nrepositories = [\"plant/app\"]\nartifact_types = [\"application/vnd.cncf.helm.*\"]\n";
    let node = selecting(&parent, rules).start().await;

    let told = ended(&node, "Succeeded").await;

    let counts: Vec<&Value> = told["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["complete"])
        .collect();
    assert_eq!(counts, [&json!(1), &json!(1)], "{told}");
    assert!(node.has_stored(&small.layer(0)) && node.has_stored(&chart.layer(0)));
    assert!(!node.has_stored(&large.layer(0)) && !node.has_stored(&model.layer(0)));
    let planned = plan(&node, "").await.json();
    assert_eq!(
        (&planned["unchanged"], planned["fetch"].as_array().unwrap().len()),
        (&json!(2), 0),
        "{planned}"
    );

    // What outgrows a rule is selected by it no longer.
    parent.manifest("plant/app", Some("small"), &large.manifest);
    assert!(wharf_sync(&node, &[]).await.status.success());
    assert!(!node.has_stored(&small.layer(0)));
    assert_eq!(report(&node).await["rules"][0]["tags"], 0);
}

#[tokio::test]
async fn what_is_purged_leaves_the_disk_with_all_that_is_about_it_and_without_what_others_need() {
    let parent = Upstream::start().await;
    let shared = random(30_000);
    let old = Image::with_layers(vec![shared.clone(), random(40_000)]);
    parent.image("plant/app", "old", &old);
    let signature = Image::referring_to(&old.manifest, "application/vnd.example.signature");
    parent.image("plant/app", "x", &signature);
    parent.without_tag("plant/app", "x");
    let new = Image::with_layers(vec![shared.clone(), random(1000)]);
    parent.image("plant/app", "new", &new);
    let twin = Image::with_layers(vec![random(5000)]);
    parent.image("plant/app", "old-twin", &twin);
    parent.image("plant/other", "kept", &twin);
    let rules = "[[sync]]\nrepositories = [\"plant/*\"]\ntags = [\"new\", \"kept\", \"old*\"]\n";
    let mut node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;
    assert!(node.has_stored(&signature.layer(0)) && node.has_stored(&old.layer(1)));

    // Before it goes, an operator sees what would, while the window is closed.
    let path = node.folder().join("wharf.toml");
    let settings = std::fs::read_to_string(&path).unwrap().replace(", \"old*\"", "");
    let closed = "\n[schedule]\ncron = \"0 0 29 2 *\"\nwindow = \"PT1H\"\n";
    std::fs::write(&path, settings + closed).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    let planned = plan(&node, "").await.json();
    let dropped = planned["drop"].as_array().unwrap().iter();
    let dropped: Vec<_> = dropped
        .map(|tag| (tag["name"].as_str().unwrap(), &tag["why"]))
        .collect();
    let why = json!("unselected");
    assert_eq!(
        dropped,
        [("plant/app:old", &why), ("plant/app:old-twin", &why)],
        "{planned}"
    );
    let bytes = planned["drop_bytes"].as_u64().unwrap();
    assert!((40_000..70_000).contains(&bytes), "{planned}");
    assert!(node.has_stored(&old.layer(1)));

    node.stop().await;
    node.setup = node.setup.clone().amended(", \"old*\"", "");
    node.start().await;
    ended(&node, "Succeeded").await;
    assert!(
        node.log().contains(&format!("has left the disk bytes={bytes}")),
        "{bytes}"
    );

    for gone in [
        old.manifest.digest.clone(),
        old.config_digest(),
        old.layer(1),
        signature.manifest.digest.clone(),
        signature.layer(0),
    ] {
        assert!(!node.has_stored(&gone), "{gone}");
    }
    assert_here(&node, "plant/app", "new", &new).await;
    assert_here(&node, "plant/other", "kept", &twin).await;
    // On demand all of it comes again.
    node.get(&manifest("plant/app", "old"))
        .await
        .assert_is(&old.manifest.bytes);
    node.get(&blob("plant/app", &old.layer(1)))
        .await
        .assert_is(&old.layers[1]);
}

#[tokio::test]
async fn what_is_read_while_it_is_purged_is_read_to_its_end() {
    const LENGTH: usize = 8 << 20;
    let parent = Upstream::start().await;
    let app = parent.new_image("plant/app", "v1", &[LENGTH]);
    parent.new_image("plant/other", "v1", &[10]);
    let rules = "[[sync]]\nrepositories = [\"plant/app\", \"plant/other\"]\n";
    let node = selecting(&parent, rules).start().await;
    ended(&node, "Succeeded").await;
    let mut reading = node
        .client()
        .open(Request::new("GET", &blob("plant/app", &app.layer(0))))
        .await;
    reading.read(1 << 16).await;

    let path = node.folder().join("wharf.toml");
    let settings = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, settings.replace("\"plant/app\", ", "")).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    eventually("the rest of it has left", async || {
        !node.has_stored(&app.config_digest())
    })
    .await;

    assert!(node.has_stored(&app.layer(0)));
    reading.last().await.assert_is(&app.layers[0]);
}
