//! Credentials upwards: what is asked for them, who sees them, and who never does. Each claim over HTTP and over TLS.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::node::Node;
use crate::support::ports::Family;
use crate::support::road::Road;
use crate::support::upstream::{Access, Book, Fault, Upstream, basic};

/// A node that asks its parent as `l4` with the password `secret`.
async fn with_credentials(road: &Road, parent: &Upstream, lines: &[&str]) -> Node {
    let mut setup = road
        .below(parent)
        .parent("username = \"l4\"")
        .parent("password_env = \"PARENT_PASSWORD\"");
    for line in lines {
        setup = setup.parent(line);
    }
    let mut node = setup.placed();
    node.environment("PARENT_PASSWORD", "secret");
    node.start().await;
    node
}

/// Whether any request brought the user and the password.
fn saw_password(upstream: &Upstream) -> bool {
    upstream
        .seen("", "")
        .iter()
        .any(|seen| seen.header("authorization") == Some(&basic("l4", "secret")))
}

#[track_caller]
fn assert_no_challenge(reply: &Reply) {
    assert!(!reply.has("www-authenticate"), "{reply}");
}

#[tokio::test]
async fn twenty_anonymous_pulls_of_one_repository_ask_for_one_token() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::anonymous());
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let node = road.below(&parent).start().await;

        let mut pulls = JoinSet::new();
        for at in 0..20 {
            let client = node.client();
            let target = if at % 2 == 0 {
                manifest("a", "v1")
            } else {
                blob("a", &image.layer(at % 4 / 2))
            };
            pulls.spawn(async move { client.get(&target).await.status });
        }

        assert_eq!(pulls.join_all().await, [200; 20]);
        assert_eq!(parent.count("GET", "/token"), 1);
        let token = &parent.seen("GET", "/token")[0];
        assert!(token.header("authorization").is_none(), "{token:?}");
        assert!(
            token.query.contains("scope=repository") && token.query.contains("service="),
            "{token:?}"
        );
    }
}

#[tokio::test]
async fn the_password_is_shown_to_the_token_service_alone() {
    for road in Road::both() {
        let (parent, realm) = (road.upstream().await, road.upstream().await);
        let book = Book::of("l4", "secret");
        realm.token_service(&book);
        parent.access(Access::Bearer {
            book,
            realm: format!("{}/token", realm.url()),
        });
        let image = parent.new_image("a", "v1", &[1000]);
        let hosts = format!("auth_hosts = [\"{}\"]", realm.address());
        let node = with_credentials(&road, &parent, &[&hosts]).await;

        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

        assert!(saw_password(&realm));
        assert!(!saw_password(&parent));
        assert_eq!(realm.count("", "/token"), 1);
    }
}

#[tokio::test]
async fn a_token_service_of_another_host_that_was_not_named_gets_no_password() {
    for road in Road::both() {
        let (parent, realm) = (road.upstream().await, road.upstream().await);
        let book = Book::of("l4", "secret");
        realm.token_service(&book);
        parent.access(Access::Bearer {
            book,
            realm: format!("{}/token", realm.url()),
        });
        parent.new_image("a", "v1", &[1000]);
        let node = with_credentials(&road, &parent, &[]).await;

        let reply = node.get(&manifest("a", "v1")).await;

        assert_ne!(reply.status, 200, "{reply}");
        assert!(!saw_password(&realm) && !saw_password(&parent));
    }
}

#[tokio::test]
async fn basic_is_answered_with_user_and_password() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "secret".to_owned(),
        });
        let image = parent.new_image("a", "v1", &[1000]);
        let node = with_credentials(&road, &parent, &[]).await;

        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    }
}

#[tokio::test]
async fn a_token_that_ended_is_replaced() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::expiring_after(1));
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let node = road.below(&parent).start().await;
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

        tokio::time::sleep(Duration::from_millis(1100)).await;

        node.get(&blob("a", &image.layer(1))).await.assert_is(&image.layers[1]);
    }
}

#[tokio::test]
async fn a_token_without_a_lifetime_serves_more_than_one_request() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::anonymous());
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let node = road.below(&parent).start().await;

        for at in [0, 1] {
            node.get(&blob("a", &image.layer(at)))
                .await
                .assert_is(&image.layers[at]);
        }

        assert_eq!(parent.count("", "/token"), 1);
    }
}

#[tokio::test]
async fn a_revoked_token_costs_one_renewal_and_one_repetition() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let book = Book::anonymous();
        parent.bearer(&book);
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let node = road.below(&parent).start().await;
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
        parent.forget();
        book.revoke();

        node.get(&blob("a", &image.layer(1))).await.assert_is(&image.layers[1]);

        assert_eq!(parent.count("", "/token"), 1);
        assert_eq!(parent.count("", &image.layer(1)), 2);
    }
}

#[tokio::test]
async fn who_was_refused_anonymously_is_told_that_there_is_nothing() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("somebody", "else"));
        parent.new_image("a", "v1", &[1000]);
        let node = road.below(&parent).start().await;

        let reply = node.get(&manifest("a", "v1")).await;

        assert_eq!(reply.status, 404, "{reply}");
        assert_no_challenge(&reply);
        assert!(parent.seen("", "").len() < 12, "{} requests", parent.seen("", "").len());
    }
}

#[tokio::test]
async fn when_our_own_credentials_are_refused_the_gateway_names_who_refused_them() {
    for road in Road::both() {
        for access in [
            Access::Basic {
                user: "l4".to_owned(),
                password: "changed".to_owned(),
            },
            Access::Bearer {
                book: Book::of("l4", "changed"),
                realm: "/token".to_owned(),
            },
        ] {
            let parent = road.upstream().await;
            if let Access::Bearer { book, .. } = &access {
                parent.bearer(book);
            } else {
                parent.access(access);
            }
            parent.new_image("a", "v1", &[1000]);
            let node = with_credentials(&road, &parent, &[]).await;

            let reply = node.get(&manifest("a", "v1")).await;

            reply.assert_error(502, "UNAVAILABLE");
            assert!(reply.text().contains(&parent.address().to_string()), "{reply}");
            assert_no_challenge(&reply);
            assert!(parent.seen("", "").len() < 12, "{} requests", parent.seen("", "").len());
        }
    }
}

#[tokio::test]
async fn a_client_never_sees_the_challenge_nor_the_realm_of_the_parent() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("somebody", "else"));
        let node = road.below(&parent).start().await;

        for target in [
            "/v2/".to_owned(),
            manifest("a", "v1"),
            blob("a", &crate::support::content::sha256(b"x")),
        ] {
            for request in [Request::get(&target), Request::head(&target)] {
                let reply = node.send(request).await;
                assert_no_challenge(&reply);
                assert_ne!(reply.status, 401, "{reply}");
                assert!(!reply.text().contains("/token"), "{reply}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_client_brings_for_itself_goes_nowhere() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000]);
        let node = road.below(&parent).start().await;

        for target in [
            manifest("a", "v1"),
            blob("a", &image.layer(0)),
            "/v2/a/tags/list".to_owned(),
        ] {
            let request = Request::get(&target)
                .header("Authorization", &basic("user", "hub-password"))
                .header("Cookie", "session=1")
                .header("X-Forwarded-For", "10.0.0.1");
            assert_eq!(node.send(request).await.status, 200);
        }

        for seen in parent.seen("", "") {
            for name in ["authorization", "cookie", "x-forwarded-for"] {
                assert!(seen.header(name).is_none(), "{name} in {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_credentials_and_with_the_range() {
    for road in Road::both() {
        let (parent, storage) = (road.upstream().await, road.upstream_on(Family::V6).await);
        let book = Book::of("l4", "secret");
        parent.bearer(&book);
        let image = parent.new_image("a", "v1", &[40 << 20]);
        let digest = image.layer(0);
        storage.blob("bucket", &image.layers[0]);
        parent.fault(Fault::get(&digest).redirect(&format!("{}{}", storage.url(), blob("bucket", &digest))));
        let gate = crate::support::upstream::Gate::closed();
        storage.fault(Fault::get(&digest).hold_after(1 << 20, &gate).times(1));
        let node = with_credentials(&road, &parent, &[]).await;

        let mut leader = node.client().open(Request::get(&blob("a", &digest))).await;
        leader.read(1000).await;
        node.range(&blob("a", &digest), "36700160-36700169").await.assert_part(
            &image.layers[0],
            36_700_160,
            36_700_169,
        );
        gate.open();

        let reply = leader.last().await;
        reply.assert_is(&image.layers[0]);
        assert!(!reply.has("location"), "{reply}");
        for seen in storage.seen("", "") {
            assert!(seen.header("authorization").is_none(), "{seen:?}");
        }
        let ranges: Vec<_> = storage
            .seen("GET", &digest)
            .iter()
            .filter_map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        assert_eq!(ranges, ["bytes=36700160-36700169"]);
    }
}

#[tokio::test]
async fn basic_credentials_do_not_follow_a_redirect_to_another_port_either() {
    for road in Road::both() {
        let (parent, storage) = (road.upstream().await, road.upstream().await);
        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "secret".to_owned(),
        });
        let image = parent.new_image("a", "v1", &[1000]);
        storage.image("b", "v1", &image);
        parent.fault(Fault::any("/blobs/").redirect(&format!("{}{}", storage.url(), blob("b", &image.layer(0)))));
        let node = with_credentials(&road, &parent, &[]).await;

        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

        assert!(storage.asked() > 0 && !saw_password(&storage));
    }
}

#[tokio::test]
async fn a_redirect_within_the_host_keeps_the_credentials() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "secret".to_owned(),
        });
        let image = parent.new_image("a", "v1", &[1000]);
        parent.image("elsewhere", "v1", &image);
        parent.fault(Fault::any("/v2/a/blobs/").redirect(&blob("elsewhere", &image.layer(0))));
        let node = with_credentials(&road, &parent, &[]).await;

        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    }
}

#[tokio::test]
async fn redirects_without_end_are_given_up() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000]);
        parent.fault(Fault::any("/blobs/").redirect(&blob("a", &image.layer(0))));
        let node = road.below(&parent).start().await;

        let reply = node.get(&blob("a", &image.layer(0))).await;

        assert!(matches!(reply.status, 502..=504), "{reply}");
        assert!(!reply.has("location"));
        assert!(
            parent.count("", "/blobs/") <= 24,
            "{} requests",
            parent.count("", "/blobs/")
        );
    }
}

#[tokio::test]
async fn five_redirects_in_a_row_are_followed_and_a_sixth_is_not() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000]);
        let target = blob("a", &image.layer(0));

        for (hops, status) in [(6, 502), (5, 200)] {
            parent.without_faults();
            parent.fault(Fault::any("/blobs/").redirect("/hop/1"));
            for hop in 1..hops {
                parent.fault(Fault::any(&format!("/hop/{hop}")).redirect(&format!("/hop/{}", hop + 1)));
            }
            let last = Fault::any(&format!("/hop/{hops}")).status(200);
            parent.fault(last.body(image.layers[0].clone()));
            let node = road.below(&parent).start().await;

            let reply = node.get(&target).await;

            assert_eq!(reply.status, status, "{hops} redirects: {reply}");
            assert_eq!(reply.body == image.layers[0], status == 200);
            let reached = parent.count("", &format!("/hop/{hops}"));
            assert_eq!(reached > 0, status == 200, "the sixth was connected to");
            parent.forget();
        }
    }
}

#[tokio::test]
async fn a_redirect_to_what_is_no_web_address_is_refused() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000]);
        let node = road.below(&parent).start().await;

        for location in [
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "gopher://127.0.0.1/",
            "http://",
            "::",
            "",
        ] {
            parent.without_faults();
            parent.fault(Fault::any("/blobs/").redirect(location));
            let reply = node.get(&blob("a", &image.layer(0))).await;
            assert!(matches!(reply.status, 502..=504), "{location}: {reply}");
        }
    }
}
