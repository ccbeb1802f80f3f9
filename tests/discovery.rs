//! Lists: tags, referrers, repositories. Pages are made here, whatever the parent makes of `n` and `last`.

use serde_json::json;

use crate::support::client::{Reply, manifest};
use crate::support::content::{Image, OCI_INDEX, random, sha256};
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Paging, Upstream};

/// A parent with these tags in repository `a`, and a node below it.
async fn tagged(tags: &[&str]) -> (Upstream, Node) {
    let parent = Upstream::start().await;
    let image = Image::of(&[10]);
    for tag in tags {
        parent.image("a", tag, &image);
    }
    let node = Node::below(&parent).await;
    (parent, node)
}

/// The path and query that the `Link` of a page leads to.
fn next(reply: &Reply) -> Option<String> {
    let link = reply.header("link");
    if link.is_empty() {
        return None;
    }
    assert!(link.starts_with("</v2/") && link.contains("rel=\"next\""), "{reply}");
    Some(link[1..link.find('>').expect("the end of the target")].to_owned())
}

/// The tags of every page, beginning at `target`.
async fn walk(node: &Node, target: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(target.to_owned());
    while let Some(at) = target {
        let reply = node.get(&at).await;
        assert_eq!(
            (reply.status, reply.json()["name"].as_str()),
            (200, Some("a")),
            "{reply}"
        );
        pages.push(serde_json::from_value(reply.json()["tags"].clone()).expect("a list of tags"));
        target = next(&reply);
        assert!(pages.len() < 20, "the pages do not end");
    }
    pages
}

#[tokio::test]
async fn tags_are_listed_in_order_whole_without_n() {
    let (_parent, node) = tagged(&["v2", "b", "v1", "a"]).await;

    let reply = node.get("/v2/a/tags/list").await;

    assert_eq!(reply.json(), json!({ "name": "a", "tags": ["a", "b", "v1", "v2"] }));
    assert!(reply.header("content-type").starts_with("application/json"), "{reply}");
    assert!(!reply.has("link"), "{reply}");
}

#[tokio::test]
async fn pages_are_made_here_whatever_the_parent_makes_of_n() {
    for paging in [Paging::Ignored, Paging::Honoured, Paging::AtMost(1)] {
        let (parent, node) = tagged(&["a", "b", "c", "d", "e"]).await;
        parent.paging(paging);

        assert_eq!(
            walk(&node, "/v2/a/tags/list?n=2").await,
            [vec!["a", "b"], vec!["c", "d"], vec!["e"]],
            "{paging:?}"
        );
        assert_eq!(
            walk(&node, "/v2/a/tags/list?last=c").await.concat(),
            ["d", "e"],
            "{paging:?}"
        );
        assert_eq!(
            walk(&node, "/v2/a/tags/list?n=2&last=bb").await,
            [vec!["c", "d"], vec!["e"]],
            "{paging:?}"
        );
        assert_eq!(
            walk(&node, "/v2/a/tags/list?n=5").await,
            [vec!["a", "b", "c", "d", "e"]],
            "{paging:?}"
        );
        assert_eq!(
            walk(&node, "/v2/a/tags/list?last=e").await.concat(),
            [""; 0],
            "{paging:?}"
        );
    }
}

#[tokio::test]
async fn none_are_listed_when_none_are_asked_for() {
    let (_parent, node) = tagged(&["a", "b"]).await;

    let reply = node.get("/v2/a/tags/list?n=0").await;

    assert_eq!(reply.json()["tags"], json!([]));
    assert!(!reply.has("link"), "{reply}");
}

#[tokio::test]
async fn a_number_that_is_none_is_refused_and_a_huge_one_is_harmless() {
    let (_parent, node) = tagged(&["a", "b"]).await;

    for n in ["-1", "a", "1.5"] {
        node.get(&format!("/v2/a/tags/list?n={n}"))
            .await
            .assert_error(400, "PAGINATION_NUMBER_INVALID");
    }
    for n in ["2147483648", "99999999999999999999999"] {
        let reply = node.get(&format!("/v2/a/tags/list?n={n}")).await;
        assert_eq!(reply.json()["tags"], json!(["a", "b"]), "{reply}");
    }
}

#[tokio::test]
async fn tags_of_an_unknown_repository_are_404() {
    let (_parent, node) = tagged(&["a"]).await;

    node.get("/v2/unknown/tags/list")
        .await
        .assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn while_the_parent_is_away_the_tags_that_were_pulled_are_listed_and_marked() {
    let (mut parent, node) = tagged(&["a", "b", "c"]).await;
    for tag in ["a", "c"] {
        assert_eq!(node.get(&manifest("a", tag)).await.status, 200);
    }
    parent.stop().await;

    let reply = node.get("/v2/a/tags/list").await;

    assert_eq!(
        (reply.status, &reply.json()["tags"]),
        (200, &json!(["a", "c"])),
        "{reply}"
    );
    assert!(reply.header("warning").starts_with("299 - \""), "{reply}");
}

#[tokio::test]
async fn the_link_of_a_prefixed_list_leads_to_the_same_upstream() {
    let (parent, quay) = (Upstream::start().await, Upstream::start().await);
    for tag in ["a", "b", "c"] {
        quay.new_image("x", tag, &[10]);
    }
    let url = format!("url = \"{}\"", quay.url());
    let node = Setup::below(&parent.url()).upstream("quay.io", &[&url]).start().await;

    for first in ["/v2/quay.io/x/tags/list?n=2", "/v2/x/tags/list?n=2&ns=quay.io"] {
        let page = node.get(first).await;
        assert_eq!(page.json()["tags"], json!(["a", "b"]), "{page}");
        let page = node.get(&next(&page).expect("a second page")).await;
        assert_eq!(page.json()["tags"], json!(["c"]), "{first}: {page}");
    }
}

/// A parent with an image and two artifacts that refer to it, and a node below it.
async fn referred() -> (Upstream, Node, Image, [Image; 2]) {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let artifacts = ["application/x.sbom", "application/x.signature"]
        .map(|artifact_type| Image::referring_to(&image.manifest, artifact_type));
    for artifact in &artifacts {
        parent.image("a", "to-be-untagged", artifact);
    }
    parent.without_tag("a", "to-be-untagged");
    let node = Node::below(&parent).await;
    (parent, node, image, artifacts)
}

/// The digests that a list of referrers names, in order.
#[track_caller]
fn listed(reply: &Reply) -> Vec<String> {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, OCI_INDEX),
        "{reply}"
    );
    let body = reply.json();
    assert_eq!(
        (&body["schemaVersion"], &body["mediaType"]),
        (&json!(2), &json!(OCI_INDEX)),
        "{reply}"
    );
    let entries = body["manifests"].as_array().expect("a list").iter();
    let mut digests: Vec<String> = entries
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    digests.sort();
    digests
}

fn digests(images: &[&Image]) -> Vec<String> {
    let mut digests: Vec<String> = images.iter().map(|image| image.manifest.digest.clone()).collect();
    digests.sort();
    digests
}

fn referrers(digest: &str) -> String {
    format!("/v2/a/referrers/{digest}")
}

#[tokio::test]
async fn referrers_come_from_the_parent_with_types_and_annotations() {
    let (_parent, node, image, [sbom, signature]) = referred().await;

    let reply = node.get(&referrers(&image.manifest.digest)).await;

    assert_eq!(listed(&reply), digests(&[&sbom, &signature]));
    for entry in reply.json()["manifests"].as_array().unwrap() {
        assert_eq!(
            entry["annotations"]["org.example.kind"], entry["artifactType"],
            "{reply}"
        );
    }
    node.get(&manifest("a", &sbom.manifest.digest))
        .await
        .assert_is(&sbom.manifest.bytes);
}

#[tokio::test]
async fn referrers_are_filtered_here_and_the_answer_says_so() {
    let (_parent, node, image, [sbom, _]) = referred().await;

    let target = format!("{}?artifactType=application/x.sbom", referrers(&image.manifest.digest));
    let reply = node.get(&target).await;

    assert_eq!(listed(&reply), digests(&[&sbom]));
    assert_eq!(reply.header("oci-filters-applied"), "artifactType");
}

#[tokio::test]
async fn without_the_api_above_the_fallback_tag_is_the_list() {
    let (parent, node, image, [sbom, signature]) = referred().await;
    parent.referrers(false);
    let entries = json!([
        { "mediaType": sbom.manifest.media_type, "digest": sbom.manifest.digest,
          "size": sbom.manifest.bytes.len(), "artifactType": "application/x.sbom" },
        { "mediaType": signature.manifest.media_type, "digest": signature.manifest.digest,
          "size": signature.manifest.bytes.len(), "artifactType": "application/x.signature" },
    ]);
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let list = crate::support::content::Manifest::new(OCI_INDEX, &body);
    parent.manifest("a", Some(&image.manifest.digest.replace(':', "-")), &list);

    let all = node.get(&referrers(&image.manifest.digest)).await;
    let filtered = format!("{}?artifactType=application/x.sbom", referrers(&image.manifest.digest));

    assert_eq!(listed(&all), digests(&[&sbom, &signature]));
    assert_eq!(listed(&node.get(&filtered).await), digests(&[&sbom]));
}

#[tokio::test]
async fn nothing_refers_to_what_nobody_knows() {
    for supported in [true, false] {
        let (parent, node, _, _) = referred().await;
        parent.referrers(supported);

        let reply = node.get(&referrers(&sha256(&random(10)))).await;

        assert_eq!(listed(&reply), [""; 0], "API above: {supported}");
    }
}

#[tokio::test]
async fn referrers_of_no_digest_are_refused() {
    let (parent, node, _, _) = referred().await;
    let asked = parent.asked();

    for digest in ["sha256:abc", "latest", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        node.get(&referrers(digest)).await.assert_error(400, "DIGEST_INVALID");
    }
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn referrers_that_were_seen_are_listed_while_the_parent_is_away() {
    let (mut parent, node, image, [sbom, signature]) = referred().await;
    let target = referrers(&image.manifest.digest);
    assert_eq!(listed(&node.get(&target).await).len(), 2);
    for artifact in [&sbom, &signature] {
        assert_eq!(node.get(&manifest("a", &artifact.manifest.digest)).await.status, 200);
    }
    parent.stop().await;

    let reply = node.get(&target).await;

    assert_eq!(listed(&reply), digests(&[&sbom, &signature]));
}

#[tokio::test]
async fn the_catalog_is_local_content_in_pages_and_asks_nobody() {
    let (parent, quay) = (Upstream::start().await, Upstream::start().await);
    for name in ["plant/b", "plant/a", "never/pulled"] {
        parent.new_image(name, "v1", &[10]);
    }
    quay.new_image("x", "v1", &[10]);
    let url = format!("url = \"{}\"", quay.url());
    let node = Setup::below(&parent.url()).upstream("quay.io", &[&url]).start().await;
    for name in ["plant/b", "plant/a", "quay.io/x"] {
        assert_eq!(node.get(&manifest(name, "v1")).await.status, 200);
    }
    parent.fault(Fault::any("_catalog").status(500));
    let asked = (parent.asked(), quay.asked());

    let all = node.get("/v2/_catalog").await;
    let page = node.get("/v2/_catalog?n=2").await;

    assert_eq!(
        all.json()["repositories"],
        json!(["plant/a", "plant/b", "quay.io/x"]),
        "{all}"
    );
    assert_eq!(page.json()["repositories"], json!(["plant/a", "plant/b"]), "{page}");
    let rest = node.get(&next(&page).expect("a second page")).await;
    assert_eq!(rest.json()["repositories"], json!(["quay.io/x"]), "{rest}");
    assert_eq!((parent.asked(), quay.asked()), asked);
}

#[tokio::test]
async fn questions_for_what_refers_to_nothing_leave_no_record_and_are_answered_from_memory_for_a_while() {
    let parent = Upstream::start().await;
    let mut node = Node::below(&parent).await;
    let unknown: Vec<_> = (0..50).map(|_| referrers(&sha256(&random(32)))).collect();
    for target in unknown.iter().chain(&unknown) {
        let reply = node.get(target).await;
        assert_eq!(reply.status, 200, "{reply}");
    }
    assert_eq!(parent.count("GET", "/referrers/"), 50);

    node.stop().await;

    let index = rusqlite::Connection::open(node.data().join("index.db")).unwrap();
    let slots: i64 = index
        .query_row("SELECT count(*) FROM slot", [], |row| row.get(0))
        .unwrap();
    assert_eq!(slots, 0);
}
