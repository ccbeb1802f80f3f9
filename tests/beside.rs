//! What was pushed here beside what the parent has: the parent may be there, away, or say something else.

use std::time::{Duration, Instant};

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{Image, Manifest, OCI_INDEX, index, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Book, Fault, Upstream};

fn to(node: &Node, repository: &str) -> Pusher {
    Pusher::of(node.client(), repository)
}

async fn below(parent: &Upstream) -> Node {
    Setup::below(&parent.url()).registry().tag_ttl("0s").start().await
}

#[tokio::test]
async fn with_the_parent_away_a_client_pushes_and_has_at_once_what_it_pushed() {
    let mut parent = Upstream::start().await;
    let node = below(&parent).await;
    parent.stop().await;
    let app = to(&node, "plant/app");
    let image = Image::of(&[100_000]);
    let artifact = Image::referring_to(&image.manifest, "application/vnd.example");

    app.image("v1", &image).await;
    app.blobs_of(&artifact).await;
    app.manifest(&artifact.manifest.digest, &artifact.manifest).await;

    app.assert_has("v1", &image).await;
    app.assert_has(&image.manifest.digest, &image).await;
    assert_eq!(app.tags().await, ["v1"]);
    assert_eq!(app.referrers(&image.manifest.digest).await, [artifact.manifest.digest]);
    let unknown = sha256(&random(8));
    let began = Instant::now();
    let head = app.head(&format!("blobs/{unknown}")).await;
    assert_eq!(head.status, 404, "{head}");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    app.get(&format!("blobs/{unknown}"))
        .await
        .assert_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn a_parent_that_says_nothing_keeps_nobody_from_pushing() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    parent.fault(Fault::any("").silent());
    let app = to(&node, "a");

    let began = Instant::now();
    let head = app.head(&format!("blobs/{}", sha256(&random(8)))).await;

    assert_eq!(head.status, 404, "{head}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let image = Image::of(&[1000]);
    app.image("v1", &image).await;
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn what_the_parent_has_is_pulled_through_and_need_not_be_pushed() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let image = parent.new_image("a", "v1", &[50_000]);
    let app = to(&node, "a");

    assert_eq!(app.head(&format!("blobs/{}", image.layer(0))).await.status, 200);
    app.manifest("mine", &image.manifest).await;

    app.assert_has("mine", &image).await;
    app.assert_has("v1", &image).await;
    assert_eq!(app.tags().await, ["mine", "v1"]);
    // Elsewhere it is not known.
    let refused = to(&node, "b").put_manifest("mine", &image.manifest).await;
    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_tag_that_was_pushed_hides_the_parents() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let theirs = parent.new_image("a", "v1", &[100]);
    let app = to(&node, "a");
    app.assert_has("v1", &theirs).await;
    let ours = Image::of(&[200]);

    app.image("v1", &ours).await;
    app.assert_has("v1", &ours).await;
    parent.new_image("a", "v1", &[300]);

    app.assert_has("v1", &ours).await;
    app.assert_has(&theirs.manifest.digest, &theirs).await;
}

#[tokio::test]
async fn what_was_deleted_stays_away_until_the_parent_has_something_else() {
    let parent = Upstream::start().await;
    let mut node = below(&parent).await;
    let first = parent.new_image("a", "v1", &[100]);
    parent.new_image("a", "other", &[150]);
    to(&node, "a").assert_has("v1", &first).await;

    assert_eq!(to(&node, "a").delete("manifests/v1").await.status, 202);
    node.restart().await;
    let app = to(&node, "a");
    app.get("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(app.tags().await, ["other"]);
    app.assert_has(&first.manifest.digest, &first).await;

    let second = parent.new_image("a", "v1", &[200]);
    eventually("the parent's new tag is seen", async || {
        app.get("manifests/v1").await.status == 200
    })
    .await;
    app.assert_has("v1", &second).await;
    assert_eq!(app.tags().await, ["other", "v1"]);

    let digest = &second.manifest.digest;
    assert_eq!(app.delete(&format!("manifests/{digest}")).await.status, 202);
    for reference in ["v1", digest] {
        app.get(&format!("manifests/{reference}"))
            .await
            .assert_error(404, "MANIFEST_UNKNOWN");
    }
    let layer = first.layer(0);
    assert_eq!(app.delete(&format!("blobs/{layer}")).await.status, 202);
    app.get(&format!("blobs/{layer}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(app.head(&format!("blobs/{layer}")).await.status, 404);
}

#[tokio::test]
async fn referrers_are_those_of_the_parent_those_pushed_here_and_those_of_the_fallback_tag() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let image = parent.new_image("a", "v1", &[100]);
    let theirs = Image::referring_to(&image.manifest, "application/vnd.theirs");
    parent.image("a", "signature", &theirs);
    let app = to(&node, "a");
    let ours = Image::referring_to(&image.manifest, "application/vnd.ours");
    app.blobs_of(&ours).await;
    app.manifest(&ours.manifest.digest, &ours.manifest).await;
    let third = Image::of(&[9]).manifest;
    let mut descriptor = third.descriptor();
    descriptor["artifactType"] = "application/vnd.third".into();
    let fallback = Manifest::new(
        OCI_INDEX,
        &serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor] }),
    );
    app.manifest(&image.manifest.digest.replace(':', "-"), &fallback).await;

    let mut listed = app.referrers(&image.manifest.digest).await;
    let mut expected = [theirs.manifest.digest, ours.manifest.digest.clone(), third.digest];
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let filtered = app
        .get(&format!(
            "referrers/{}?artifactType=application/vnd.ours",
            image.manifest.digest
        ))
        .await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let entries = filtered.json()["manifests"].clone();
    assert_eq!(entries.as_array().map(Vec::len), Some(1), "{entries}");
    assert_eq!(entries[0]["digest"], ours.manifest.digest);
    assert_eq!(entries[0]["annotations"]["org.example.kind"], "application/vnd.ours");

    let mut paged = Vec::new();
    let mut next = format!("/v2/a/referrers/{}?n=1", image.manifest.digest);
    while !next.is_empty() {
        let page = node.get(&next).await;
        let entries = page.json()["manifests"].as_array().cloned().unwrap();
        assert_eq!(entries.len(), 1, "{page}");
        paged.push(entries[0]["digest"].as_str().unwrap().to_owned());
        next = page
            .header("link")
            .split(['<', '>'])
            .nth(1)
            .unwrap_or_default()
            .to_owned();
    }
    paged.sort();
    assert_eq!(paged, expected);
}

#[tokio::test]
async fn names_of_another_registry_are_not_pushed_here() {
    let (parent, quay) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::below(&parent.url()).registry();
    let node = setup
        .upstream("quay.example", &[&format!("url = \"{}\"", quay.url())])
        .start()
        .await;

    let refused = to(&node, "quay.example/app").begin("").await;

    refused.assert_error(405, "UNSUPPORTED");
    assert_eq!(to(&node, "app").begin("").await.status, 202);
}

#[tokio::test]
async fn below_a_mirror_a_registry_refuses_pushes_and_says_why_until_the_mirror_is_a_registry() {
    let cloud = Upstream::start().await;
    let mut above = Setup::below(&cloud.url()).named("above").start().await;
    let node = Setup::below(&above.url()).registry().tag_ttl("0s").start().await;
    let app = to(&node, "a");
    let image = cloud.new_image("a", "v1", &[100]);

    app.assert_has("v1", &image).await;
    let refused = app.begin("").await;
    refused.assert_error(405, "UNSUPPORTED");
    assert!(refused.text().contains("takes no pushes"), "{refused}");
    app.delete("manifests/v1").await.assert_error(405, "UNSUPPORTED");
    let ready = node.admin("/readyz").await;
    assert!(
        ready.status == 200 && ready.text().contains("takes no pushes"),
        "{ready}"
    );

    above.setup = above.setup.clone().registry();
    above.restart().await;
    eventually("the parent's new mode is heard", async || {
        app.get("manifests/v1").await;
        app.begin("").await.status == 202
    })
    .await;
    let ours = Image::of(&[10]);
    app.image("mine", &ours).await;
    app.assert_has("mine", &ours).await;
}

#[tokio::test]
async fn below_a_registry_that_declines_pushes_a_registry_refuses_them_too_until_it_takes_them() {
    let parent = Upstream::start().await;
    parent.declines_pushes(true);
    let node = below(&parent).await;
    let app = to(&node, "a");

    eventually("it is known that the parent declines", async || {
        app.begin("").await.status == 405
    })
    .await;

    let refused = app.begin("").await;
    refused.assert_error(405, "UNSUPPORTED");
    assert!(refused.text().contains("takes no pushes"), "{refused}");
    assert!(node.admin("/readyz").await.text().contains("takes no pushes"));
    assert_eq!(parent.count("DELETE", ""), 0);
    parent.declines_pushes(false);
    eventually("the parent takes them again", async || {
        app.begin("").await.status == 202
    })
    .await;
    eventually("what was offered there is cancelled", async || {
        parent.seen("DELETE", "/v2/a/blobs/uploads/1234").len() == 1
    })
    .await;
    let offered = parent.count("POST", "");
    // Blobs alone are not delivered.
    app.blob(&random(10)).await;
    app.blob(&random(20)).await;
    assert_eq!(parent.count("POST", ""), offered, "it is offered one more");
}

#[tokio::test]
async fn the_offer_of_an_upload_costs_no_pull_its_token() {
    let parent = Upstream::start().await;
    parent.bearer(&Book::anonymous());
    let image = parent.new_image("a", "v1", &[1000, 2000]);
    let node = below(&parent).await;
    let app = to(&node, "a");
    app.get("manifests/v1").await.assert_is(&image.manifest.bytes);
    let challenge = "Bearer realm=\"http://127.0.0.1:1/token\",service=\"x\",scope=\"repository:a:pull,push\"";
    let wants_more = Fault::any("/blobs/uploads/").status(401);
    parent.fault(wants_more.header("Www-Authenticate", challenge));

    assert_eq!(app.begin("").await.status, 202);
    eventually("the upload is offered", async || {
        parent.count("POST", "/blobs/uploads/") > 0
    })
    .await;

    for layer in 0..2 {
        let bytes = app.get(&format!("blobs/{}", image.layer(layer))).await;
        bytes.assert_is(&image.layers[layer]);
    }
    assert_eq!(app.begin("").await.status, 202, "who wants more is not closed");
}

#[tokio::test]
async fn below_a_mirror_nothing_is_taken_though_nobody_has_pulled() {
    let cloud = Upstream::start().await;
    let above = Setup::below(&cloud.url()).named("above").start().await;
    let node = Setup::below(&above.url()).registry().start().await;

    eventually("the mirror is asked at the start", async || {
        node.admin("/readyz").await.text().contains("takes no pushes")
    })
    .await;
    to(&node, "a").begin("").await.assert_error(405, "UNSUPPORTED");
}

#[tokio::test]
async fn a_client_that_asks_for_a_manifest_before_it_pushes_can_while_the_parent_is_away_or_silent() {
    let mut parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    let unknown = format!("manifests/{}", sha256(&random(8)));
    parent.fault(Fault::any("").silent());
    for name in ["manifests/v1", &unknown] {
        let began = Instant::now();
        assert_eq!(app.head(name).await.status, 404, "{name}");
        assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    }
    parent.stop().await;
    for name in ["manifests/v1", &unknown] {
        assert_eq!(app.head(name).await.status, 404, "{name}");
        app.get(name).await.assert_error(503, "UNAVAILABLE");
    }
}

#[tokio::test]
async fn a_tag_that_was_pushed_is_the_parents_again_once_that_has_the_same() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    let ours = Image::of(&[200]);
    app.image("v1", &ours).await;
    let other = parent.new_image("a", "v1", &[300]);
    app.assert_has("v1", &ours).await;

    parent.image("a", "v1", &ours);
    parent.forget();
    eventually("the parent was asked", async || {
        app.assert_has("v1", &ours).await;
        parent.count("HEAD", "/v2/a/manifests/v1") > 1
    })
    .await;
    parent.image("a", "v1", &other);

    eventually("the tag follows the parent", async || {
        app.get("manifests/v1").await.body == other.manifest.bytes
    })
    .await;
    app.assert_has(&ours.manifest.digest, &ours).await;
}

#[tokio::test]
async fn a_tag_that_was_deleted_hides_nothing_that_the_parent_never_had() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    app.image("v1", &Image::of(&[200])).await;
    assert_eq!(app.delete("manifests/v1").await.status, 202);
    app.get("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");

    let theirs = parent.new_image("a", "v1", &[300]);

    eventually("the absence is forgotten", async || {
        app.get("manifests/v1").await.body == theirs.manifest.bytes
    })
    .await;
}

#[tokio::test]
async fn what_was_deleted_by_digest_is_gone_under_the_parents_tags_too() {
    let parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    let image = parent.new_image("a", "v1", &[200]);
    parent.manifest("a", Some("other"), &image.manifest);
    app.assert_has("v1", &image).await;

    assert_eq!(
        app.delete(&format!("manifests/{}", image.manifest.digest)).await.status,
        202
    );

    for tag in ["v1", "other"] {
        app.get(&format!("manifests/{tag}"))
            .await
            .assert_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn a_node_below_is_not_told_that_a_manifest_is_gone_while_the_parent_is_away() {
    let mut parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    parent.stop().await;
    for what in [manifest("a", "v1"), blob("a", &sha256(&random(8)))] {
        let from_below = Request::new("HEAD", &what).header("Via", "1.1 lower-1234");

        assert_eq!(app.send(from_below).await.status, 503, "{what}");
        assert_eq!(node.head(&what).await.status, 404, "{what}");
    }
}

#[tokio::test]
async fn what_only_the_parent_has_of_a_pushed_image_is_fetched_and_kept() {
    let mut parent = Upstream::start().await;
    let node = below(&parent).await;
    let image = parent.new_image("a", "v1", &[50_000]);
    let app = to(&node, "a");
    app.manifest("mine", &image.manifest).await;

    eventually("its blobs are here", async || {
        node.has_stored(&image.layer(0)) && node.has_stored(&image.config_digest())
    })
    .await;
    parent.stop().await;

    app.assert_has("mine", &image).await;
    let swept = node.collect("unused=0s").await;
    assert_eq!(swept["blobs"], serde_json::json!([]), "they are needed");
}

#[tokio::test]
async fn what_an_index_that_was_pushed_needs_is_a_manifest_also_without_the_record_of_that() {
    let mut parent = Upstream::start().await;
    let mut node = below(&parent).await;
    let image = parent.new_image("a", "v1", &[1000]);
    let both = index(&[&image]);
    let app = to(&node, "a");
    app.assert_has(&image.manifest.digest, &image).await;
    app.manifest("mine", &both).await;
    parent.stop().await;
    node.kill();
    node.lose_index();
    node.start().await;

    let app = to(&node, "a");
    app.get("manifests/mine").await.assert_is(&both.bytes);
    let child = app.get(&format!("manifests/{}", image.manifest.digest)).await;
    child.assert_is(&image.manifest.bytes);
    assert_eq!(child.header("content-type"), image.manifest.media_type);
}

#[tokio::test]
async fn a_tag_that_was_deleted_is_gone_while_the_parent_is_away() {
    let mut parent = Upstream::start().await;
    let node = below(&parent).await;
    let app = to(&node, "a");
    let theirs = parent.new_image("a", "v1", &[100]);
    app.assert_has("v1", &theirs).await;
    app.image("v2", &Image::of(&[10])).await;
    for tag in ["v1", "v2"] {
        assert_eq!(app.delete(&format!("manifests/{tag}")).await.status, 202);
    }
    parent.stop().await;
    app.image("v3", &Image::of(&[10])).await;
    assert_eq!(app.delete("manifests/v3").await.status, 202);

    for tag in ["v1", "v3"] {
        app.get(&format!("manifests/{tag}"))
            .await
            .assert_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn what_was_pushed_is_not_evicted_for_what_is_pulled() {
    let parent = Upstream::start().await;
    let node = Setup::below(&parent.url()).registry().capacity("64MiB").start().await;
    let app = to(&node, "mine");
    let image = Image::of(&[8 << 20]);
    app.image("v1", &image).await;

    for _ in 0..12 {
        let bytes = random(8 << 20);
        let digest = parent.blob("theirs", &bytes);
        node.get(&blob("theirs", &digest)).await.assert_is(&bytes);
    }

    app.assert_has("v1", &image).await;
    node.get(&manifest("mine", "v1")).await.assert_is(&image.manifest.bytes);
    assert!(node.disk_bytes() <= 64 << 20);
}
