//! What an operator and a client learn when the parent answers and does not give what it is asked for.

use std::time::Duration;

use serde_json::Value;

use crate::support::chain::Chain;
use crate::support::client::{Reply, blob, manifest};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::road::Road;
use crate::support::upstream::{Access, Book, Fault, Length, Upstream};

/// What `/readyz` says is wrong; the node is ready all the same.
async fn reasons(node: &Node) -> Vec<String> {
    let reply = node.admin("/readyz").await;
    assert_eq!(reply.status, 200, "{reply}");
    let Value::Array(reasons) = reply.json()["reasons"].take() else {
        panic!("no reasons: {reply}")
    };
    reasons
        .iter()
        .map(|reason| reason.as_str().unwrap().to_owned())
        .collect()
}

async fn assert_in_trouble(node: &Node, words: &str) {
    let reasons = reasons(node).await;
    assert!(reasons.len() == 1 && reasons[0].contains(words), "{words}: {reasons:?}");
    let page = node.admin("/").await.text();
    assert!(!page.contains("everything is as it should be"), "{words}: {page}");
    assert!(
        node.log().contains("does not give what it is asked for"),
        "{}",
        node.log()
    );
}

fn message(reply: &Reply) -> String {
    reply.json()["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn readyz_and_the_page_say_why_questions_are_refused_until_one_is_answered() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let node = road.below(&parent).start().await;
        assert_eq!(reasons(&node).await, [] as [&str; 0]);
        let scheme = parent.url().split(':').next().unwrap().to_owned();
        let page = "<html><title>Log in to the plant</title></html>";

        for (fault, words) in [
            (
                Fault::any("/v2/")
                    .status(200)
                    .header("content-type", "text/html")
                    .body(page),
                "portal",
            ),
            (
                Fault::any("/v2/").redirect(&format!("{scheme}://127.0.0.1:1/")),
                "sends us to 127.0.0.1:1, which cannot be reached",
            ),
            (
                Fault::any("/v2/")
                    .status(400)
                    .header("content-type", "text/html")
                    .body(page),
                "plant",
            ),
        ] {
            let tag = words.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
            let image = parent.new_image("a", &tag, &[10]);
            parent.fault(fault);
            let refused = node.get(&manifest("a", &tag)).await;
            assert!(refused.status >= 500, "{words}: {refused}");
            assert_in_trouble(&node, words).await;

            parent.without_faults();
            node.get(&manifest("a", &tag)).await.assert_is(&image.manifest.bytes);
            assert_eq!(reasons(&node).await, [] as [&str; 0], "{words}");
        }
    }
}

#[tokio::test]
async fn readyz_names_a_login_that_is_refused_and_one_that_is_missing() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.new_image("a", "v1", &[10]);
        parent.access(Access::Bearer {
            book: Book::of("l4", "secret"),
            realm: format!("{}/token", parent.url()),
        });
        parent.token_service(&Book::of("l4", "secret"));
        let password = road.file("password", "wrong\n");
        let wrong = road
            .below(&parent)
            .parent("username = \"l4\"")
            .parent(&format!("password_file = \"{password}\""))
            .start()
            .await;
        let stranger = road.below(&parent).start().await;

        assert_eq!(wrong.get(&manifest("a", "v1")).await.status, 502);
        assert_eq!(stranger.get(&manifest("a", "v1")).await.status, 404);

        assert_in_trouble(&wrong, "look at its credentials").await;
        assert_in_trouble(&stranger, "give username and password_file").await;
    }
}

#[tokio::test]
async fn a_stranger_who_is_refused_one_repository_of_many_is_in_no_trouble() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.fault(Fault::any("/private/").status(401));

    assert_eq!(node.get(&manifest("private", "v1")).await.status, 404);

    assert_eq!(reasons(&node).await, [] as [&str; 0]);
}

#[tokio::test]
async fn an_account_that_may_not_have_one_repository_of_many_is_in_no_trouble_and_is_told_by_every_layer() {
    let cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[10]);
    cloud.access(Access::Basic {
        user: "l5".to_owned(),
        password: "secret".to_owned(),
    });
    let top = Setup::below(&cloud.url())
        .named("l5")
        .tag_ttl("1s")
        .asking_as("l5", "secret")
        .start()
        .await;
    let below = Setup::below(&top.url()).named("l4").tag_ttl("1s").start().await;
    below.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    cloud.fault(Fault::any("/office/").status(403));

    for node in [&top, &below] {
        let reply = node.get(&manifest("office", "v1")).await;
        reply.assert_error(404, "MANIFEST_UNKNOWN");
        assert!(
            reply
                .text()
                .contains("refuses access (403 to the configured user, who may not have it there)"),
            "{reply}"
        );
        assert_eq!(reply.header("wharf-denied"), "403", "{reply}");
        assert_eq!(reasons(node).await, [] as [&str; 0]);
    }

    // What the layer below has and the one above has not any more stays there.
    for node in [&top, &below] {
        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    }
    let mut top = top;
    top.kill();
    std::fs::remove_dir_all(top.data()).unwrap();
    top.start().await;
    cloud.fault(Fault::any("/v2/a/").status(403));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(top.get(&manifest("a", "v1")).await.status, 404);
    let reply = below.get(&manifest("a", "v1")).await;
    reply.assert_is(&image.manifest.bytes);
}

#[tokio::test]
async fn a_failure_far_above_is_told_once_in_the_same_words_by_every_layer() {
    let mut cloud = Upstream::start().await;
    cloud.new_image("a", "v1", &[10]);
    let chain = Chain::below(&cloud).await;
    let address = cloud.address().to_string();
    cloud.stop().await;

    for (node, name) in [(&chain.l5, "l5"), (&chain.l4, "l4"), (&chain.l3, "l3")] {
        let said = message(&node.get(&manifest("a", "v1")).await);
        let told = format!("{name}: manifest v1 of a: {address} cannot be reached: no connection to its address");
        assert_eq!(said, told);
        // The one that failed is known to each.
        let reasons = reasons(node).await;
        assert!(
            reasons.len() == 1 && reasons[0].contains(&address),
            "{name}: {reasons:?}"
        );
    }
    let head = chain.l3.head(&manifest("a", "v1")).await;
    assert_eq!(head.header("wharf-layer"), address);
    assert!(head.header("wharf-reason").contains("cannot be reached"), "{head}");
}

#[tokio::test]
async fn a_layer_that_serves_what_it_has_says_below_that_its_parent_is_away() {
    let mut cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[10]);
    let road = Road::plain();
    let l5 = road.below(&cloud).tag_ttl("100ms").start().await;
    let l4 = road.below_url(&l5.url()).tag_ttl("100ms").start().await;
    l4.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    cloud.stop().await;
    let tells = async || {
        l4.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
        let reasons = reasons(&l4).await;
        reasons
            .iter()
            .any(|reason| reason.contains(&cloud.address().to_string()))
    };

    eventually("the lower layer tells of the cloud", tells).await;
}

#[tokio::test]
async fn what_a_gateway_says_of_tls_is_quoted_with_a_remedy() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.new_image("a", "v1", &[10]);
        let node = road.below(&parent).start().await;
        let page = |title: &str| format!("<html><head><title>{title}</title></head></html>");

        for (title, remedy) in [
            (
                "400 No required SSL certificate was sent",
                "give cert_file and key_file",
            ),
            ("400 The plain HTTP request was sent to HTTPS port", "write https://"),
        ] {
            parent.fault(
                Fault::any("/v2/")
                    .status(400)
                    .header("content-type", "text/html")
                    .body(page(title)),
            );
            let said = message(&node.get(&manifest("a", "v1")).await);
            assert!(said.contains(title) && said.contains(remedy), "{said}");
            parent.without_faults();
        }
    }
}

#[tokio::test]
async fn a_portals_page_in_the_place_of_a_blob_is_refused_before_any_of_it_leaves() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let bytes = random(100_000);
        let digest = parent.blob("a", &bytes);
        let node = road.below(&parent).start().await;
        parent.fault(
            Fault::get("/blobs/")
                .header("content-type", "text/html")
                .without("docker-content-digest")
                .length(Length::Chunked)
                .body("<html>Log in</html>"),
        );

        let reply = node.get(&blob("a", &digest)).await;

        reply.assert_error(502, "UNAVAILABLE");
        assert!(message(&reply).contains("portal"), "{reply}");
    }
}

#[tokio::test]
async fn a_silent_token_service_is_not_taken_for_a_dead_registry() {
    let road = Road::plain();
    let (parent, realm) = (road.upstream().await, road.upstream().await);
    let book = Book::expiring_after(1);
    realm.token_service(&book);
    parent.access(Access::Bearer {
        book,
        realm: format!("{}/token", realm.url()),
    });
    let image = parent.new_image("a", "v1", &[10, 20]);
    let node = road
        .below(&parent)
        .parent(&format!("auth_hosts = [\"{}\"]", realm.address()))
        .parent("connect_timeout = \"500ms\"")
        .freshness("answer_within = \"2s\"")
        .freshness("stale_after = \"1s\"")
        .start()
        .await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    realm.fault(Fault::any("/token").silent());
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let late = node.get(&blob("a", &image.layer(1))).await;

    assert!(late.status >= 500, "{late}");
    assert!(!node.log().contains("upstream does not answer"), "{}", node.log());
    assert_eq!(node.metrics().await.sum("wharf_parent_up", &[]), 1.0);
    realm.without_faults();
    node.get(&blob("a", &image.layer(1))).await.assert_is(&image.layers[1]);
}
