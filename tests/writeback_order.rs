//! What comes before what on the way to the parent; and whose tag it is that was moved here and there.

use crate::support::client::Client;
use crate::support::content::{Image, Manifest, OCI_INDEX, index};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::owing::{below, parent};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Arrival, Fault, Gate, Upstream, What};

/// The place among all arrivals of the first manifest, and of the last blob.
fn first_manifest_and_last_blob(parent: &Upstream, repository: &str) -> (usize, usize) {
    let arrivals = parent.arrivals();
    let is_of = |arrival: &Arrival| arrival.repository == repository && arrival.method == "PUT";
    let is_manifest = |arrival: &Arrival| is_of(arrival) && matches!(arrival.what, What::Manifest(_));
    let is_blob = |arrival: &Arrival| is_of(arrival) && arrival.brings_a_blob();
    let manifest = arrivals.iter().position(is_manifest).unwrap();
    (manifest, arrivals.iter().rposition(is_blob).unwrap())
}

#[tokio::test]
async fn pushes_of_a_repository_arrive_in_the_order_in_which_they_were_taken_in() {
    let mut parent = parent().await;
    let mut node = below(&parent).start().await;
    parent.stop().await;
    let images: Vec<Image> = [3 << 20, 10, 1 << 20, 1000]
        .iter()
        .map(|size| Image::of(&[*size]))
        .collect();
    for (at, image) in images.iter().enumerate() {
        node.to("a").image(&format!("v{at}"), image).await;
        node.to("b").image(&format!("v{at}"), image).await;
    }
    assert_eq!(node.owed().await.len(), 8);
    let listed = node.wharf_queue(&["list"]).words;
    assert!(
        listed.contains("nothing is delivered") && listed.contains("cannot be reached"),
        "{listed}"
    );
    node.restart().await;

    parent.start_again().await;
    node.drained().await;

    let expected = |at: usize| [images[at].manifest.digest.clone(), format!("v{at}")];
    let expected: Vec<String> = (0..4).flat_map(expected).collect();
    assert_eq!(parent.manifests_kept("a"), expected);
    assert_eq!(parent.manifests_kept("b"), expected);
}

#[tokio::test]
async fn blobs_come_before_the_manifests_that_need_them_these_before_their_index_and_the_tag_last() {
    let mut parent = parent().await;
    let node = below(&parent).start().await;
    let [one, two] = [Image::of(&[1 << 20, 10]), Image::of(&[1000])];
    let both = index(&[&one, &two]);
    parent.stop().await;
    for image in [&one, &two] {
        node.to("a").blobs_of(image).await;
        node.to("a").manifest(&image.manifest.digest, &image.manifest).await;
    }
    node.to("a").manifest("multi", &both).await;

    parent.start_again().await;
    node.drained().await;

    let [one, two] = [one.manifest.digest, two.manifest.digest];
    assert_eq!(parent.manifests_kept("a"), [&one, &two, &both.digest, "multi"]);
    // The second image's blobs may come after the first image.
    let (first_manifest, _) = first_manifest_and_last_blob(&parent, "a");
    assert!(first_manifest >= 3, "{first_manifest}");
}

#[tokio::test]
async fn an_index_is_delivered_with_all_that_it_names_though_only_it_is_still_owed() {
    let mut parent = parent().await;
    let node = below(&parent).start().await;
    let [one, two] = [Image::of(&[1 << 20]), Image::of(&[1000])];
    let both = index(&[&one, &two]);
    for image in [&one, &two] {
        node.to("a").blobs_of(image).await;
        node.to("a").manifest(&image.manifest.digest, &image.manifest).await;
    }
    node.drained().await;
    parent.stop().await;
    node.to("a").manifest("multi", &both).await;
    parent.restore(Upstream::start().await.backup());

    parent.start_again().await;
    node.drained().await;

    let [one, two] = [one.manifest.digest, two.manifest.digest];
    let kept = parent.manifests_kept("a");
    let place = |name: &str| kept.iter().rposition(|kept| kept == name).unwrap();
    assert!(place(&one) < place(&both.digest) && place(&two) < place(&both.digest));
    assert_eq!(kept.last().unwrap(), "multi");
    let (_, last_blob) = first_manifest_and_last_blob(&parent, "a");
    let arrivals = parent.arrivals();
    let index = arrivals
        .iter()
        .rposition(|arrival| arrival.what == What::Manifest(both.digest.clone()));
    assert!(last_blob < index.unwrap());
}

#[tokio::test]
async fn what_refers_to_an_image_comes_after_it_and_is_listed() {
    let mut parent = parent().await;
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    let [sbom, signature] = ["sbom", "signature"]
        .map(|kind| Image::referring_to(&image.manifest, &format!("application/vnd.example.{kind}")));
    parent.stop().await;
    node.to("a").image("v1", &image).await;
    for artifact in [&sbom, &signature] {
        node.to("a").blobs_of(artifact).await;
        node.to("a")
            .manifest(&artifact.manifest.digest, &artifact.manifest)
            .await;
    }

    parent.start_again().await;
    node.drained().await;

    let [image, sbom, signature] = [image, sbom, signature].map(|image| image.manifest.digest);
    assert_eq!(parent.manifests_kept("a"), [&image, "v1", &sbom, &signature]);
    let there = Pusher::of(Client::of(parent.address()), "a");
    let mut listed = there.referrers(&image).await;
    listed.sort();
    let mut expected = [sbom, signature];
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_parent_without_lists_of_referrers_has_them_under_the_fallback_tag_beside_those_of_others() {
    let parent = parent().await;
    parent.referrers(false);
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    let [theirs, sbom, signature] = ["theirs", "sbom", "signature"]
        .map(|kind| Image::referring_to(&image.manifest, &format!("application/vnd.example.{kind}")));
    let fallback = image.manifest.digest.replacen(':', "-", 1);
    node.to("a").image("v1", &image).await;
    node.drained().await;
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [theirs.manifest.descriptor()],
        "annotations": { "org.example.kept": "yes" },
    });
    parent.image("a", "theirs", &theirs);
    parent.manifest("a", Some(&fallback), &Manifest::new(OCI_INDEX, &list));

    for artifact in [&sbom, &signature, &sbom] {
        node.to("a").blobs_of(artifact).await;
        node.to("a")
            .manifest(&artifact.manifest.digest, &artifact.manifest)
            .await;
        node.drained().await;
    }

    let there = Pusher::of(Client::of(parent.address()), "a");
    let list = async || there.get(&format!("manifests/{fallback}")).await.json();
    let digests = |list: &serde_json::Value| {
        let entries = list["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let [theirs, first, signature] = [&theirs, &sbom, &signature].map(|artifact| artifact.manifest.digest.clone());
    let deleted = format!("manifests/{first}");
    let before = list().await;
    assert_eq!(digests(&before), [&*theirs, &first, &signature]);
    assert_eq!(node.to("a").delete(&deleted).await.status, 202);
    node.drained().await;
    let after = list().await;
    assert_eq!(digests(&after), [theirs, signature]);
    assert_eq!(after["annotations"]["org.example.kept"], "yes");
    let list = before;
    assert_eq!(list["annotations"]["org.example.kept"], "yes");
    let entry = &list["manifests"][1];
    assert_eq!(entry["artifactType"], "application/vnd.example.sbom", "{entry}");
    assert_eq!(entry["size"], sbom.manifest.bytes.len(), "{entry}");
    assert_eq!(
        entry["annotations"]["org.example.kind"], "application/vnd.example.sbom",
        "{entry}"
    );
}

#[tokio::test]
async fn a_fallback_tag_that_the_parent_only_says_that_it_took_is_sent_again() {
    use crate::support::upstream::Fault;
    let parent = parent().await;
    parent.referrers(false);
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    let artifact = Image::referring_to(&image.manifest, "application/vnd.example");
    node.to("a").image("v1", &image).await;
    node.drained().await;
    parent.fault(Fault::put("/manifests/sha256-").not_kept().times(1));

    node.to("a").blobs_of(&artifact).await;
    node.to("a")
        .manifest(&artifact.manifest.digest, &artifact.manifest)
        .await;
    node.drained().await;

    let fallback = image.manifest.digest.replacen(':', "-", 1);
    assert!(parent.tag_of("a", &fallback).is_some());
}

/// `v1` of three repositories, moved here and at the parent while it was away. What the parent has, and what was pushed.
async fn moved(parent: &mut Upstream, node: &Node, repository: &str) -> [Image; 2] {
    let before = parent.new_image(repository, "v1", &[1000]);
    node.to(repository).assert_has("v1", &before).await;
    parent.stop().await;
    let ours = Image::of(&[2000]);
    node.to(repository).image("v1", &ours).await;
    let theirs = parent.new_image(repository, "v1", &[3000]);
    parent.start_again().await;
    node.drained().await;
    [theirs, ours]
}

const RULES: &str = "[[queue.rule]]\nrepositories = [\"theirs/*\"]\nconflict = \"parent-wins\"\n\
                     [[queue.rule]]\nrepositories = [\"both/*\"]\nconflict = \"keep-both\"\n";

async fn conflicts(node: &Node) -> [f64; 3] {
    let metrics = node.metrics().await;
    let of = |policy| metrics.sum("wharf_queue_conflicts_total", &[("policy", policy)]);
    ["last-writer", "parent-wins", "keep-both"].map(of)
}

const SAID: &str = "a tag that was pushed here was moved at the parent too";

#[tokio::test]
async fn of_a_tag_that_both_moved_the_last_writer_wins_by_default_and_it_is_said() {
    let mut parent = parent().await;
    let node = below(&parent).more(RULES).start().await;

    let [theirs, ours] = moved(&mut parent, &node, "a/b").await;

    assert!(parent.has_image("a/b", "v1", &ours));
    node.to("a/b").assert_has("v1", &ours).await;
    node.to("a/b").assert_has(&theirs.manifest.digest, &theirs).await;
    assert_eq!(conflicts(&node).await, [1.0, 0.0, 0.0]);
    assert!(node.log().contains(SAID) && node.log().contains("last-writer"));
}

#[tokio::test]
async fn of_a_tag_that_both_moved_the_parents_holds_here_too_where_the_policy_says_so() {
    let mut parent = parent().await;
    let mut node = below(&parent).more(RULES).start().await;

    let [theirs, ours] = moved(&mut parent, &node, "theirs/b").await;

    assert!(parent.has_image("theirs/b", "v1", &theirs));
    let has = |digest: &str| parent.manifests().contains(&("theirs/b".to_owned(), digest.to_owned()));
    assert!(has(&ours.manifest.digest), "ours can be had by its digest");
    node.to("theirs/b").assert_has("v1", &theirs).await;
    node.to("theirs/b").assert_has(&ours.manifest.digest, &ours).await;
    assert_eq!(conflicts(&node).await, [0.0, 1.0, 0.0]);
    assert!(node.log().contains(SAID) && node.log().contains("parent-wins"));
    node.restart().await;
    node.to("theirs/b").assert_has("v1", &theirs).await;
}

#[tokio::test]
async fn of_a_tag_that_both_moved_both_are_kept_where_the_policy_says_so() {
    let mut parent = parent().await;
    let node = below(&parent).named("plant-1").more(RULES).start().await;

    let [theirs, ours] = moved(&mut parent, &node, "both/b").await;

    assert!(parent.has_image("both/b", "v1", &theirs));
    assert!(parent.has_image("both/b", "v1-plant-1", &ours));
    node.to("both/b").assert_has("v1", &theirs).await;
    node.to("both/b").assert_has("v1-plant-1", &ours).await;
    assert_eq!(node.to("both/b").tags().await, ["v1", "v1-plant-1"]);
    assert_eq!(conflicts(&node).await, [0.0, 0.0, 1.0]);
    assert!(node.log().contains(SAID) && node.log().contains("keep-both"));
}

#[tokio::test]
async fn where_both_are_kept_nothing_else_loses_its_name() {
    let mut parent = parent().await;
    let node = below(&parent).named("plant-1").more(RULES).start().await;
    let another = parent.new_image("both/b", "v1-plant-1", &[4000]);

    let [_, first] = moved(&mut parent, &node, "both/b").await;
    let [theirs, second] = moved(&mut parent, &node, "both/b").await;

    let names = ["v1", "v1-plant-1", "v1-plant-1-2", "v1-plant-1-3"];
    for (tag, image) in names.into_iter().zip([&theirs, &another, &first, &second]) {
        assert!(parent.has_image("both/b", tag, image), "{tag}");
    }
    assert_eq!(node.to("both/b").tags().await, names);
    assert!(node.log().contains("tag=v1-plant-1-3"), "{}", node.log());
}

#[tokio::test]
async fn a_tag_that_is_pushed_while_an_older_one_gives_way_is_delivered_too() {
    let mut parent = parent().await;
    let node = below(&parent).named("plant-1").more(RULES).start().await;
    parent.stop().await;
    let [first, second] = [Image::of(&[1000]), Image::of(&[2000])];
    node.to("both/b").image("v1", &first).await;
    parent.new_image("both/b", "v1", &[3000]);
    let gate = Gate::closed();
    parent.fault(
        Fault::put("/manifests/v1-plant-1")
            .pause_reading_after(0, &gate)
            .times(1),
    );
    parent.start_again().await;
    parent.is_put("v1-plant-1").await;

    node.to("both/b").image("v1", &second).await;
    gate.open();
    node.drained().await;

    // It was pushed when theirs was there.
    assert!(parent.has_image("both/b", "v1", &second));
    assert!(parent.has_image("both/b", "v1-plant-1", &first));
    node.to("both/b").assert_has("v1", &second).await;
    assert_eq!(conflicts(&node).await, [0.0, 0.0, 1.0]);
}

#[tokio::test]
async fn a_tag_that_was_deleted_here_before_it_was_pushed_is_no_conflict() {
    let mut parent = parent().await;
    let conflict = "[queue]\nconflict = \"parent-wins\"\n";
    let node = below(&parent).more(conflict).start().await;
    let before = parent.new_image("a", "v1", &[1000]);
    node.to("a").assert_has("v1", &before).await;
    parent.stop().await;
    let image = Image::of(&[2000]);
    assert_eq!(node.to("a").delete("manifests/v1").await.status, 202);
    node.to("a").image("v1", &image).await;

    parent.start_again().await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert_eq!(conflicts(&node).await, [0.0; 3]);
}

#[tokio::test]
async fn what_the_parent_has_anew_under_a_tag_that_was_deleted_here_and_there_is_shown() {
    let parent = parent().await;
    let node = below(&parent).freshness("absent_ttl = \"0s\"").start().await;
    let [old, new] = [Image::of(&[1000]), Image::of(&[2000])];
    for image in [&old, &new] {
        node.to("a").image("stable", image).await;
        node.drained().await;
    }
    assert_eq!(node.to("a").delete("manifests/stable").await.status, 202);
    node.drained().await;

    parent.tag("a", "stable", &old.manifest.digest);

    node.to("a").assert_has("stable", &old).await;
    assert_eq!(node.to("a").tags().await, ["stable"]);
}

#[tokio::test]
async fn a_tag_that_nobody_else_moved_is_no_conflict_however_often_it_is_pushed() {
    let mut parent = parent().await;
    let conflict = "[queue]\nconflict = \"parent-wins\"\n";
    let mut node = below(&parent).more(conflict).start().await;
    let images: Vec<Image> = (0..6).map(|_| Image::of(&[1000])).collect();

    node.to("a").image("v1", &images[0]).await;
    node.drained().await;
    node.to("a").image("v1", &images[1]).await;
    node.drained().await;
    node.restart().await;
    node.to("a").image("v1", &images[2]).await;
    node.drained().await;
    parent.stop().await;
    node.to("a").image("v1", &images[3]).await;
    node.restart().await;
    node.to("a").image("v1", &images[4]).await;
    node.to("a").image("v1", &images[5]).await;
    parent.start_again().await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &images[5]));
    assert_eq!(conflicts(&node).await, [0.0; 3]);
}

#[tokio::test]
async fn a_tag_of_the_parents_that_was_never_asked_for_here_may_be_moved_like_any_other() {
    let parent = parent().await;
    parent.new_image("a", "v1", &[1000]);
    let conflict = "[queue]\nconflict = \"parent-wins\"\n";
    let node = below(&parent).more(conflict).start().await;
    let ours = Image::of(&[2000]);

    node.to("a").image("v1", &ours).await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &ours));
    assert_eq!(conflicts(&node).await, [0.0; 3]);
}

#[tokio::test]
async fn a_tag_that_was_deleted_here_and_moved_at_the_parent_stays_there_and_it_is_said() {
    let mut parent = parent().await;
    let before = parent.new_image("a", "v1", &[1000]);
    let node = below(&parent).start().await;
    node.to("a").assert_has("v1", &before).await;
    parent.stop().await;

    assert_eq!(node.to("a").delete("manifests/v1").await.status, 202);
    let theirs = parent.new_image("a", "v1", &[2000]);
    parent.start_again().await;
    node.drained().await;

    assert!(parent.has_image("a", "v1", &theirs));
    node.to("a").assert_has("v1", &theirs).await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("wharf_queue_undone_total", &[("reason", "moved")]), 1.0);
    assert!(
        node.log()
            .contains("the parent has something else by now under a tag that was deleted here")
    );
}

#[tokio::test]
async fn what_was_deleted_here_and_there_and_is_pushed_there_again_is_shown_after_a_while() {
    let parent = parent().await;
    let mut node = below(&parent).freshness("absent_ttl = \"0s\"").placed();
    node.environment("FAILPOINTS", "queue.hidden=return(0)");
    node.start().await;
    let image = Image::of(&[1000]);
    node.to("a").image("v1", &image).await;
    node.to("a").manifest("v2", &image.manifest).await;
    node.drained().await;
    for deleted in ["v1".to_owned(), image.manifest.digest.clone()] {
        assert_eq!(node.to("a").delete(&format!("manifests/{deleted}")).await.status, 202);
    }
    node.drained().await;
    for tag in ["v1", "v2"] {
        parent.image("a", tag, &image);
    }
    node.to("a")
        .get("manifests/v1")
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");

    for tag in ["v1", "v2"] {
        eventually("it is shown once something else was delivered", async || {
            node.to("a").image("other", &Image::of(&[10])).await;
            node.drained().await;
            node.to("a").get(&format!("manifests/{tag}")).await.status == 200
        })
        .await;
        node.to("a").assert_has(tag, &image).await;
    }
}

/// The parent takes its time with the tag, of which it has nothing yet, or another image; that is when it is deleted here.
async fn deleted_on_its_way(had_another: bool) {
    let parent = parent().await;
    if had_another {
        parent.new_image("a", "v1", &[2000]);
    }
    let rule = "[[queue.rule]]\nrepositories = [\"a\"]\ndeletes = false\n";
    let node = below(&parent).freshness("absent_ttl = \"0s\"").more(rule).start().await;
    let gate = Gate::closed();
    parent.fault(Fault::put("/manifests/v1").pause_reading_after(0, &gate));
    let image = Image::of(&[1000]);
    node.to("a").image("v1", &image).await;
    parent.is_put("v1").await;

    assert_eq!(node.to("a").delete("manifests/v1").await.status, 202);
    gate.open();
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    for _ in 0..2 {
        node.to("a")
            .get("manifests/v1")
            .await
            .assert_error(404, "MANIFEST_UNKNOWN");
    }
    let theirs = parent.new_image("a", "v1", &[3000]);
    node.to("a").assert_has("v1", &theirs).await;
}

#[tokio::test]
async fn a_tag_that_is_deleted_here_while_it_is_on_its_way_does_not_come_back_from_the_parent() {
    deleted_on_its_way(false).await;
}

#[tokio::test]
async fn a_tag_that_is_deleted_while_it_is_on_its_way_in_the_place_of_another_does_not_come_back() {
    deleted_on_its_way(true).await;
}

#[tokio::test]
async fn a_parent_that_deletes_nothing_keeps_what_was_deleted_here_hidden_and_it_is_said() {
    let parent = parent().await;
    parent.deletes(false);
    let node = below(&parent).start().await;
    let image = Image::of(&[1000]);
    node.to("a").image("v1", &image).await;
    node.to("a").manifest("v2", &image.manifest).await;
    node.drained().await;

    assert_eq!(node.to("a").delete("manifests/v1").await.status, 202);
    node.drained().await;

    assert!(parent.has_image("a", "v1", &image));
    assert_eq!(node.to("a").tags().await, ["v2"]);
    node.to("a")
        .get("manifests/v1")
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("wharf_queue_undone_total", &[("reason", "unsupported")]),
        1.0
    );
}
