//! How a node stands, in the words of a connected registry, and what it hears of those below.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::command::{said, wharf};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Upstream};

const ALL: &str = "[[sync]]\nrepositories = [\"**\"]\n";

async fn status(node: &Node) -> Value {
    let reply = node.admin("/api/status").await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

/// Waits until the node says so of itself.
async fn is(node: &Node, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("the node is {state}"), async || {
        last = status(node).await;
        last["connectionState"] == state
    })
    .await;
    last
}

/// Waits until the last pass was made for this reason, and went well.
async fn passed(node: &Node, trigger: &str) {
    let mut last = Value::Null;
    eventually(&format!("a pass for {trigger}"), async || {
        last = status(node).await["registrySyncResult"].clone();
        last["syncTrigger"] == trigger && last["syncState"] == "Succeeded"
    })
    .await;
    assert!(last["lastSuccessfulSyncEndTime"].is_string(), "{last}");
}

#[tokio::test]
async fn every_node_above_knows_how_those_below_stand_and_how_old_that_is() {
    let top = Setup::alone().registry().named("top").start().await;
    let middle = Setup::below(&top.url()).named("middle").start().await;
    let bottom = Setup::below(&middle.url()).named("bottom").more(ALL).start().await;
    top.to("plant/app").image("v1", &Image::of(&[1000])).await;

    let mut last = Value::Null;
    // Each is told every half minute, after what is below it.
    for _ in 0..80 {
        last = status(&top).await;
        if last["children"][0]["children"][0]["name"] == "bottom" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let (middle_there, bottom_there) = (&last["children"][0], &last["children"][0]["children"][0]);
    assert!(
        middle_there["name"] == "middle" && bottom_there["name"] == "bottom",
        "{last}"
    );
    assert_eq!(bottom_there["mode"], "ReadOnly", "{last}");
    assert!(bottom_there["ageSeconds"].as_u64().unwrap() < 60, "{last}");
    assert!(bottom_there["disk"]["capacityBytes"].as_u64().unwrap() > 0, "{last}");
    assert_eq!(bottom_there["backlog"]["items"], 0, "{last}");
    let output = wharf(&top, &["status"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("below      middle: ") && said(&output).contains("below        bottom: "),
        "{}",
        said(&output)
    );
    drop((middle, bottom));
}

#[tokio::test]
async fn a_node_is_syncing_online_offline_and_online_again_as_its_parent_is() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[3 << 20]);
    parent.fault(Fault::get(&image.layer(0)).pace(1 << 20));
    let node = Setup::below(&parent.url()).more(ALL).start().await;

    let syncing = is(&node, "Syncing").await;
    assert_eq!(syncing["registrySyncResult"]["syncState"], "Syncing", "{syncing}");
    let mut last = Value::Null;
    eventually("a time to go is told, and not a wild one", async || {
        last = node.admin("/api/sync").await.json();
        assert_eq!(last["syncState"], "Syncing", "it was over before a time to go was told");
        last["eta_seconds"].as_u64().is_some_and(|eta| (1..10).contains(&eta))
    })
    .await;
    let report = last;
    assert_eq!(report["feed"], "none", "{report}");
    let online = is(&node, "Online").await;
    assert!(
        online["lastSyncTime"].is_string() && online["lastActivityTime"].is_string(),
        "{online}"
    );
    assert_eq!(online["loginServer"]["host"], node.address().to_string());
    assert_eq!(online["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(online["statusDetails"].as_array().unwrap().len(), 0, "{online}");

    parent.stop().await;
    assert_ne!(node.get("/v2/plant/other/manifests/v1").await.status, 200);
    is(&node, "Offline").await;
    parent.start_again().await;
    is(&node, "Online").await;
}

#[tokio::test]
async fn a_node_whose_disk_fails_is_unhealthy_until_it_takes_something_again() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[100_000]);
    let mut node = Setup::below(&parent.url()).placed();
    node.environment("FAILPOINTS", "store.write=1*return");
    node.start().await;

    node.get(&format!("/v2/plant/app/blobs/{}", image.layer(0)))
        .await
        .assert_is(&image.layers[0]);
    let unhealthy = is(&node, "Unhealthy").await;
    let detail = &unhealthy["statusDetails"][0];
    assert!(detail["type"] == "Disk" && detail["code"] == "DiskError", "{unhealthy}");
    assert!(
        detail["totalGib"].is_f64() && detail["availableGib"].is_f64(),
        "{unhealthy}"
    );
    let output = wharf(&node, &["status"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("DiskError"), "{}", said(&output));

    let other = parent.new_image("plant/app", "v2", &[100_000]);
    node.get(&format!("/v2/plant/app/blobs/{}", other.layer(0)))
        .await
        .assert_is(&other.layers[0]);
    is(&node, "Online").await;
    assert!(wharf(&node, &["status", "--json"]).await.status.success());
}

#[tokio::test]
async fn why_a_pass_was_made_is_told_by_the_names_of_a_connected_registry() {
    let mut top = Setup::alone().registry().named("top").start().await;
    top.to("plant/app").image("v1", &Image::of(&[1000])).await;
    let node = Setup::below(&top.url()).more(ALL).start().await;

    passed(&node, "InitialSync").await;
    top.to("plant/app").image("v2", &Image::of(&[1000])).await;
    passed(&node, "ChangeFeed").await;
    assert!(wharf(&node, &["sync"]).await.status.success());
    passed(&node, "ManualResync").await;
    top.restart().await;
    passed(&node, "RecoveryService").await;
    let file = node.folder().join("wharf.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[[sync]]\n", "[[sync]]\nname = \"all\"\n")).unwrap();
    assert_eq!(node.admin_send(Request::new("POST", "/api/reload")).await.status, 200);
    passed(&node, "SelectionUpdate").await;
}

#[tokio::test]
async fn what_is_no_report_is_refused_and_a_mirror_takes_one() {
    let node = Setup::alone().registry().start().await;
    let mirror = Setup::below(&node.url()).start().await;
    let post = |body: &str| Request::new("POST", "/v2/_wharf/report").body(body.as_bytes());

    for body in ["", "{}", "[]", "{\"name\": 1}"] {
        let reply = mirror.send(post(body)).await;
        assert_eq!(reply.status, 400, "{reply}");
        assert!(reply.text().contains("no report of a node"), "{reply}");
    }
    let large = mirror.send(post(&" ".repeat((1 << 20) + 1))).await;
    assert_eq!(large.status, 400, "{large}");
    assert!(large.text().contains("at most 1 MiB"), "{large}");
    let mut report = status(&node).await;
    report["name"] = "below".into();
    assert_eq!(mirror.send(post(&report.to_string())).await.status, 204);
    assert_eq!(status(&mirror).await["children"][0]["name"], "below");
    let read = mirror.get("/v2/_wharf/report").await;
    assert_eq!(read.status, 405, "{read}");
}
