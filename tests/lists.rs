//! What a registry lists (distribution spec, "Content Discovery"): of its own, and together with what its parent has, whatever
//! that makes of `n`, `last` and the list of referrers, and while it is away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::client::Reply;
use crate::support::content::{Image, Manifest, OCI_INDEX, OCI_MANIFEST, random, sha256};
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Paging, Upstream};

/// Where half of what is listed is.
#[derive(Clone, Copy, Debug)]
enum Half {
    /// There is no parent; all is here.
    Here,
    /// At a parent that makes this of pages, and has a list of referrers or does not.
    Above(Paging, bool),
    /// At a parent that has gone away since it was listed.
    Away,
}

const HALVES: [Half; 5] = [
    Half::Here,
    Half::Above(Paging::Ignored, false),
    Half::Above(Paging::Honoured, true),
    Half::Above(Paging::AtMost(1), true),
    Half::Away,
];

/// A registry, and the parent that has half of what it lists, if there is one.
struct Pair {
    node: Node,
    parent: Option<Upstream>,
}

impl Pair {
    async fn with(half: Half) -> Self {
        let parent = match half {
            Half::Here => None,
            Half::Above(..) | Half::Away => Some(Upstream::start().await),
        };
        if let (Half::Above(paging, referrers), Some(parent)) = (half, &parent) {
            parent.paging(paging);
            parent.referrers(referrers);
        }
        let setup = match &parent {
            None => Setup::alone(),
            Some(parent) => Setup::below(&parent.url()).tag_ttl("0s"),
        };
        let node = setup.registry().start().await;
        Self { node, parent }
    }

    fn here(&self) -> Pusher {
        Pusher::of(self.node.client(), "a")
    }

    /// To where the other half is.
    async fn there(&self, tag: &str, image: &Image) {
        match &self.parent {
            Some(parent) => parent.image("a", tag, image),
            None => self.here().image(tag, image).await,
        }
    }

    /// Lists once, and takes the parent away if it is to be.
    async fn settle(&mut self, half: Half, list: &str) {
        if matches!(half, Half::Away) {
            assert_eq!(self.here().get(list).await.status, 200);
            self.parent.as_mut().expect("a parent").stop().await;
        }
    }
}

/// The path and query that the `Link` of a page leads to.
fn next(reply: &Reply) -> Option<String> {
    let link = reply.header("link");
    let target = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(target.to_owned())
}

/// What every page has under `key`, beginning at `target`.
async fn walk(node: &Node, target: &str, key: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut target) = (Vec::new(), Some(format!("/v2/a/{target}")));
    while let Some(at) = target {
        let page = node.get(&at).await;
        assert_eq!(page.status, 200, "{page}");
        pages.push(page.json()[key].as_array().cloned().expect("a list"));
        target = next(&page);
        assert!(pages.len() < 20, "the pages do not end");
    }
    pages
}

#[tokio::test]
async fn tags_of_both_halves_come_in_order_and_in_pages_as_they_are_asked_for() {
    for half in HALVES {
        let mut pair = Pair::with(half).await;
        let image = Image::of(&[10]);
        for tag in ["d", "B"] {
            pair.there(tag, &image).await;
        }
        for tag in ["c", "A", "e"] {
            pair.here().image(tag, &image).await;
        }
        pair.settle(half, "tags/list").await;
        let pages = async |query: &str| walk(&pair.node, &format!("tags/list{query}"), "tags").await;

        let all = pair.here().get("tags/list").await;
        assert_eq!(
            all.json(),
            json!({ "name": "a", "tags": ["A", "B", "c", "d", "e"] }),
            "{half:?}"
        );
        assert!(!all.has("link"), "{half:?}: {all}");
        assert_eq!(
            pages("?n=2").await,
            [vec!["A", "B"], vec!["c", "d"], vec!["e"]],
            "{half:?}"
        );
        assert_eq!(pages("?n=5").await, [["A", "B", "c", "d", "e"]], "{half:?}");
        assert_eq!(pages("?last=c").await, [["d", "e"]], "{half:?}");
        assert_eq!(pages("?n=2&last=b").await, [vec!["c", "d"], vec!["e"]], "{half:?}");
        assert_eq!(pages("?last=e").await, [[""; 0]], "{half:?}");
        let none = pair.here().get("tags/list?n=0").await;
        assert_eq!(none.json()["tags"], json!([]), "{half:?}");
        assert!(!none.has("link"), "{half:?}: {none}");
    }
}

/// What refers to a subject in every way there is.
struct Referring {
    subject: Image,
    /// It says its type, and has annotations.
    typed: Image,
    /// It says none, so that its config's counts.
    untyped: Image,
    /// An index without a type.
    index: Manifest,
    /// It has no subject, and stands in the list under the fallback tag.
    listed: Image,
}

impl Referring {
    fn new() -> Self {
        let subject = Image::of(&[100]);
        let about = subject.manifest.descriptor();
        let untyped = Image::built(OCI_MANIFEST, vec![random(9)], sha256, |body| {
            body["config"]["mediaType"] = "application/vnd.example.config".into();
            body["subject"] = about.clone();
        });
        let index = Manifest::new(
            OCI_INDEX,
            &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": about }),
        );
        Self {
            typed: Image::referring_to(&subject.manifest, "application/vnd.typed"),
            listed: Image::of(&[11]),
            subject,
            untyped,
            index,
        }
    }

    /// The tag of clients whose registry has no list of referrers, with this in it.
    fn fallback(&self, listed: &Manifest, artifact_type: &str) -> (String, Manifest) {
        let mut entry = listed.descriptor();
        entry["artifactType"] = artifact_type.into();
        let list = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
        (
            self.subject.manifest.digest.replace(':', "-"),
            Manifest::new(OCI_INDEX, &list),
        )
    }

    /// The types that the list is to tell, by digest.
    fn expected(&self) -> BTreeMap<String, Value> {
        let digest = |image: &Image| image.manifest.digest.clone();
        [
            (digest(&self.typed), "application/vnd.typed".into()),
            (digest(&self.untyped), "application/vnd.example.config".into()),
            (self.index.digest.clone(), Value::Null),
            (digest(&self.listed), "application/vnd.listed".into()),
        ]
        .into()
    }
}

#[tokio::test]
async fn referrers_of_both_halves_are_listed_with_type_and_annotations_filtered_and_in_pages() {
    for half in HALVES {
        let mut pair = Pair::with(half).await;
        let refer = Referring::new();
        pair.there("v1", &refer.subject).await;
        pair.there("typed", &refer.typed).await;
        if let (Half::Above(_, false), Some(parent)) = (half, &pair.parent) {
            let (tag, list) = refer.fallback(&refer.typed.manifest, "application/vnd.typed");
            parent.manifest("a", Some(&tag), &list);
        }
        let here = pair.here();
        here.blobs_of(&refer.untyped).await;
        here.manifest(&refer.untyped.manifest.digest, &refer.untyped.manifest)
            .await;
        here.manifest(&refer.index.digest, &refer.index).await;
        here.image("listed", &refer.listed).await;
        let (tag, list) = refer.fallback(&refer.listed.manifest, "application/vnd.listed");
        here.manifest(&tag, &list).await;
        let target = format!("referrers/{}", refer.subject.manifest.digest);
        pair.settle(half, &target).await;

        let all = here.get(&target).await;
        let index = all.json();
        assert_eq!(
            (all.status, all.header("content-type")),
            (200, OCI_INDEX),
            "{half:?}: {all}"
        );
        assert_eq!(
            (&index["schemaVersion"], &index["mediaType"]),
            (&json!(2), &json!(OCI_INDEX)),
            "{half:?}"
        );
        assert!(!all.has("oci-filters-applied"), "{half:?}: {all}");
        let entries = index["manifests"].as_array().cloned().expect("a list");
        let types = entries.iter().map(|entry| {
            let digest = entry["digest"].as_str().expect("a digest").to_owned();
            (digest, entry["artifactType"].clone())
        });
        assert_eq!(types.collect::<BTreeMap<_, _>>(), refer.expected(), "{half:?}");
        assert_eq!(entries.len(), 4, "{half:?}: twice in the list");

        let filtered = here
            .get(&format!("{target}?artifactType=application/vnd.example.config"))
            .await;
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType", "{half:?}");
        let some = filtered.json()["manifests"].as_array().cloned().expect("a list");
        assert_eq!(some.len(), 1, "{half:?}: {filtered}");
        assert_eq!(some[0]["digest"], json!(refer.untyped.manifest.digest), "{half:?}");

        let pages = walk(&pair.node, &format!("{target}?n=1"), "manifests").await;
        assert_eq!((pages.len(), pages.concat().len()), (4, 4), "{half:?}");

        let unknown = here.get(&format!("referrers/{}", sha256(&random(8)))).await;
        assert_eq!(
            (unknown.status, &unknown.json()["manifests"]),
            (200, &json!([])),
            "{half:?}: {unknown}"
        );
        here.get("referrers/sha256:123")
            .await
            .assert_error(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn what_refers_has_its_annotations_in_the_list() {
    let pair = Pair::with(Half::Here).await;
    let refer = Referring::new();
    pair.here().blobs_of(&refer.typed).await;
    pair.here().manifest("sig", &refer.typed.manifest).await;

    let list = pair
        .here()
        .get(&format!("referrers/{}", refer.subject.manifest.digest))
        .await;

    let entry = &list.json()["manifests"][0];
    assert_eq!(
        entry["annotations"],
        json!({ "org.example.kind": "application/vnd.typed" })
    );
    assert_eq!(entry["mediaType"], OCI_MANIFEST);
    assert_eq!(entry["size"], refer.typed.manifest.bytes.len());
}
