//! Which registry a request means, however it was named, and who may learn of it.

use std::net::SocketAddr;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::Image;
use crate::support::node::{Node, Setup};
use crate::support::ports::{Family, free};
use crate::support::upstream::Upstream;

/// A node with a parent that means itself by unprefixed names, and a second upstream, `quay.io`, with the same
/// repository and other content.
struct Two {
    parent: Upstream,
    quay: Upstream,
    node: Node,
    own: Image,
    theirs: Image,
}

impl Two {
    async fn start(lines: &[&str]) -> Self {
        let (parent, quay) = (Upstream::start().await, Upstream::start().await);
        let own = parent.new_image("plant/app", "v1", &[1000]);
        let theirs = quay.new_image("plant/app", "v1", &[1000]);
        let url = format!("url = \"{}\"", quay.url());
        let lines: Vec<&str> = [url.as_str()].into_iter().chain(lines.iter().copied()).collect();
        let node = Setup::below(&parent.url()).upstream("quay.io", &lines).start().await;
        Self {
            parent,
            quay,
            node,
            own,
            theirs,
        }
    }
}

#[tokio::test]
async fn ns_and_prefixes_choose_among_upstreams_with_the_same_repository() {
    let two = Two::start(&[]).await;
    let ways = [
        "/v2/plant/app/manifests/v1?ns=quay.io",
        "/v2/quay.io/plant/app/manifests/v1",
        "/quay.io/v2/plant/app/manifests/v1",
        "/v2/quay.io/plant/app/manifests/v1?ns=quay.io",
        "/quay.io/v2/plant/app/manifests/v1?ns=quay.io",
    ];

    two.node
        .get(&manifest("plant/app", "v1"))
        .await
        .assert_is(&two.own.manifest.bytes);
    for way in ways {
        two.node.get(way).await.assert_is(&two.theirs.manifest.bytes);
        two.node.head(way).await;
    }
    let layer = blob("quay.io/plant/app", &two.theirs.layer(0));
    two.node.get(&layer).await.assert_is(&two.theirs.layers[0]);

    assert_eq!(
        two.quay.count("GET", "/v2/plant/app/manifests/"),
        1,
        "five names, one identity"
    );
    assert_eq!(two.parent.count("GET", "/v2/plant/app/manifests/"), 1);
}

#[tokio::test]
async fn a_namespace_that_was_used_is_named_in_the_answer() {
    let two = Two::start(&[]).await;

    let with = two.node.get("/v2/plant/app/manifests/v1?ns=quay.io").await;
    let blob = two
        .node
        .get(&format!("{}?ns=quay.io", blob("plant/app", &two.theirs.layer(0))))
        .await;
    let without = two.node.get("/v2/plant/app/manifests/v1").await;

    assert_eq!(with.header("oci-namespace"), "quay.io", "{with}");
    assert_eq!(blob.header("oci-namespace"), "quay.io", "{blob}");
    assert!(!without.has("oci-namespace"), "{without}");
}

#[tokio::test]
async fn an_unknown_namespace_is_404_and_causes_no_connection() {
    let two = Two::start(&[]).await;
    let lure = Upstream::start().await;
    let before = (two.parent.asked(), two.quay.asked());

    for name in [
        "ghcr.io",
        &lure.address().to_string(),
        "169.254.169.254",
        "quay.io.evil",
        "quay.io%2F..",
    ] {
        for target in ["/v2/plant/app/manifests/v1", "/v2/plant/app/tags/list"] {
            two.node
                .get(&format!("{target}?ns={name}"))
                .await
                .assert_error(404, "NAME_UNKNOWN");
        }
    }

    assert_eq!(lure.connections(), 0);
    assert_eq!((two.parent.asked(), two.quay.asked()), before);
}

#[tokio::test]
async fn the_host_of_a_request_can_choose_the_upstream() {
    let two = Two::start(&["hosts = [\"quay.plant.example\"]"]).await;
    let named = |host: &str| Request::get("/v2/plant/app/manifests/v1").header("Host", host);

    two.node
        .send(named("quay.plant.example"))
        .await
        .assert_is(&two.theirs.manifest.bytes);
    two.node
        .send(named("QUAY.plant.example:5000"))
        .await
        .assert_is(&two.theirs.manifest.bytes);
    two.node
        .send(named("wharf.plant.example"))
        .await
        .assert_is(&two.own.manifest.bytes);
}

#[tokio::test]
async fn a_port_of_its_own_can_choose_the_upstream() {
    let address = free(Family::V4);
    let two = Two::start(&[&format!("listen = \"{address}\"")]).await;
    let bound = two.node.client_at(address);

    bound
        .get("/v2/plant/app/manifests/v1")
        .await
        .assert_is(&two.theirs.manifest.bytes);
    bound
        .get("/v2/plant/app/manifests/v1?ns=quay.io")
        .await
        .assert_is(&two.theirs.manifest.bytes);
    two.node
        .get("/v2/plant/app/manifests/v1")
        .await
        .assert_is(&two.own.manifest.bytes);

    assert_eq!(bound.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn an_address_is_told_from_another_with_the_same_port() {
    for bound in ["127.0.0.2", "[::1]"] {
        let (parent, quay) = (Upstream::start().await, Upstream::start().await);
        let own = parent.new_image("plant/app", "v1", &[1000]);
        let theirs = quay.new_image("plant/app", "v1", &[1000]);
        let mut node = Setup::below(&parent.url()).placed();
        let bound: SocketAddr = format!("{bound}:{}", node.address().port()).parse().unwrap();
        let lines = [format!("url = \"{}\"", quay.url()), format!("listen = \"{bound}\"")];
        node.setup = node
            .setup
            .clone()
            .upstream("quay.io", &lines.each_ref().map(String::as_str));
        node.start().await;

        let main = node.get("/v2/plant/app/manifests/v1").await;
        let beside = node.client_at(bound).get("/v2/plant/app/manifests/v1").await;

        main.assert_is(&own.manifest.bytes);
        beside.assert_is(&theirs.manifest.bytes);
    }
}

#[tokio::test]
async fn a_port_on_every_address_chooses_the_upstream_by_each_of_them() {
    for every in ["0.0.0.0", "[::]"] {
        let loopback = free(Family::V4);
        let two = Two::start(&[&format!("listen = \"{every}:{}\"", loopback.port())]).await;

        for address in [loopback, SocketAddr::from(([127, 0, 0, 2], loopback.port()))] {
            // Asked for at once the second time, from memory.
            for _ in 0..2 {
                let reply = two.node.client_at(address).get("/v2/plant/app/manifests/v1").await;
                reply.assert_is(&two.theirs.manifest.bytes);
            }
        }
        let main = two.node.get("/v2/plant/app/manifests/v1").await;
        main.assert_is(&two.own.manifest.bytes);
    }
}

#[tokio::test]
async fn an_alias_is_the_upstream_itself() {
    let two = Two::start(&["aliases = [\"q\", \"registry.local\"]"]).await;

    for way in [
        "/v2/q/plant/app/manifests/v1",
        "/v2/plant/app/manifests/v1?ns=registry.local",
        "/registry.local/v2/plant/app/manifests/v1",
        "/v2/quay.io/plant/app/manifests/v1",
    ] {
        two.node.get(way).await.assert_is(&two.theirs.manifest.bytes);
    }

    assert_eq!(two.quay.count("GET", "/manifests/"), 1);
}

#[tokio::test]
async fn all_names_of_a_docker_hub_image_are_one_image_fetched_once() {
    let hub = Upstream::start().await;
    let image = hub.new_image("library/alpine", "3", &[1000]);
    let node = Setup::below(&hub.url())
        .parent("namespace = \"docker.io\"")
        .start()
        .await;
    let repositories = [
        ("library/alpine", ""),
        ("alpine", ""),
        ("docker.io/alpine", ""),
        ("docker.io/library/alpine", ""),
        ("index.docker.io/library/alpine", ""),
        ("registry-1.docker.io/library/alpine", ""),
        ("library/alpine", "?ns=docker.io"),
        ("alpine", "?ns=docker.io"),
        ("library/alpine", "?ns=index.docker.io"),
        ("library/alpine", "?ns=registry-1.docker.io"),
        ("library/alpine", "?ns=Docker.IO"),
        ("library/alpine", "?ns=docker.io%3A443"),
        ("docker.io/library/alpine", "?ns=docker.io"),
    ];

    for (repository, query) in repositories {
        node.get(&format!("{}{query}", manifest(repository, "3")))
            .await
            .assert_is(&image.manifest.bytes);
        node.get(&format!("{}{query}", blob(repository, &image.layer(0))))
            .await
            .assert_is(&image.layers[0]);
    }

    assert_eq!(hub.count("GET", "/manifests/"), 1);
    assert_eq!(hub.count("GET", "/blobs/"), 1);
    for seen in hub.seen("", "/v2/") {
        assert!(
            seen.path == "/v2/" || seen.path.starts_with("/v2/library/alpine/"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn docker_io_may_be_an_upstream_beside_a_parent_of_another_name() {
    let (parent, hub) = (Upstream::start().await, Upstream::start().await);
    let (own, theirs) = (
        parent.new_image("alpine", "3", &[10]),
        hub.new_image("library/alpine", "3", &[10]),
    );
    let url = format!("url = \"{}\"", hub.url());
    let node = Setup::below(&parent.url()).upstream("docker.io", &[&url]).start().await;

    node.get("/v2/alpine/manifests/3").await.assert_is(&own.manifest.bytes);
    for way in [
        "/v2/docker.io/alpine/manifests/3",
        "/v2/alpine/manifests/3?ns=docker.io",
        "/docker.io/v2/library/alpine/manifests/3?ns=docker.io",
    ] {
        node.get(way).await.assert_is(&theirs.manifest.bytes);
    }
}

#[tokio::test]
async fn a_foreign_parent_never_sees_ns() {
    let two = Two::start(&[]).await;
    for way in [
        "/v2/plant/app/manifests/v1?ns=quay.io",
        "/v2/plant/app/tags/list?ns=quay.io",
        &format!("{}?ns=quay.io", blob("plant/app", &two.theirs.layer(0))),
        &format!("/v2/plant/app/referrers/{}?ns=quay.io", two.theirs.manifest.digest),
    ] {
        assert_eq!(two.node.get(way).await.status, 200, "{way}");
    }

    for seen in two.quay.seen("", "").into_iter().chain(two.parent.seen("", "")) {
        assert!(!seen.query.contains("ns="), "{seen:?}");
        assert!(!seen.path.contains("quay.io"), "{seen:?}");
    }
}

#[tokio::test]
async fn between_nodes_a_name_travels_canonically() {
    let (cloud, quay) = (Upstream::start().await, Upstream::start().await);
    let image = quay.new_image("plant/app", "v1", &[1000]);
    let hub = Upstream::start().await;
    let alpine = hub.new_image("library/alpine", "3", &[1000]);
    let at = |upstream: &Upstream| format!("url = \"{}\"", upstream.url());
    let top = Setup::below(&cloud.url())
        .named("l5")
        .upstream("quay.io", &[&at(&quay)])
        .upstream("docker.io", &[&at(&hub)])
        .start()
        .await;
    let below = |parent: &Node, name: &str| {
        Setup::below(&parent.url())
            .named(name)
            .upstream("quay.io", &["aliases = [\"q\"]"])
            .upstream("docker.io", &[])
    };
    let middle = below(&top, "l4").start().await;
    let bottom = below(&middle, "l3").start().await;

    for way in ["/v2/q/plant/app/manifests/v1", "/v2/plant/app/manifests/v1?ns=quay.io"] {
        bottom.get(way).await.assert_is(&image.manifest.bytes);
    }
    for way in [
        "/v2/docker.io/alpine/manifests/3",
        "/v2/library/alpine/manifests/3?ns=index.docker.io",
    ] {
        bottom.get(way).await.assert_is(&alpine.manifest.bytes);
    }
    // What travelled under one name is there under the others, in each layer.
    middle
        .get("/v2/quay.io/plant/app/manifests/v1")
        .await
        .assert_is(&image.manifest.bytes);
    top.get("/v2/plant/app/manifests/v1?ns=quay.io")
        .await
        .assert_is(&image.manifest.bytes);

    assert_eq!(quay.count("GET", "/v2/plant/app/manifests/"), 1);
    assert_eq!(hub.count("GET", "/v2/library/alpine/manifests/"), 1);
    assert_eq!(cloud.asked(), 0);
    for seen in quay.seen("", "").into_iter().chain(hub.seen("", "")) {
        assert!(!seen.query.contains("ns="), "{seen:?}");
    }
}

#[tokio::test]
async fn a_first_component_that_is_not_configured_is_part_of_the_name() {
    let parent = Upstream::start().await;
    let image = parent.new_image("ghcr.io/plant/app", "v1", &[10]);
    let node = Node::below(&parent).await;

    node.get("/v2/ghcr.io/plant/app/manifests/v1")
        .await
        .assert_is(&image.manifest.bytes);
}
