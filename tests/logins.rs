//! Logins upwards: OAuth2, helpers, challenges, refusals that last, token services elsewhere. Over HTTP and over TLS.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::client::{blob, manifest};
use crate::support::node::{Node, Setup};
use crate::support::road::Road;
use crate::support::upstream::{Access, Book, Fault, OAuth, Seen, Upstream, basic};

/// A node that asks as `l4` with the password `secret`, with these further lines in `[parent]`.
async fn logged_in(road: &Road, parent: &Upstream, lines: &[&str]) -> Node {
    let password = road.file("password", "secret\n");
    let mut setup = road
        .below(parent)
        .parent("username = \"l4\"")
        .parent(&format!("password_file = \"{password}\""));
    for line in lines {
        setup = setup.parent(line);
    }
    setup.start().await
}

/// Puts a program `docker-credential-test` that runs `script` into the `PATH` of the node.
async fn helped(road: &Road, parent: &Upstream, script: &str) -> Node {
    helped_by(road, road.below(parent), script).await
}

async fn helped_by(road: &Road, setup: Setup, script: &str) -> Node {
    write_helper(road, script);
    let mut node = setup.parent("credential_helper = \"test\"").placed();
    let path = std::env::var("PATH").unwrap_or_default();
    node.environment("PATH", &format!("{}:{path}", road.folder.path().display()));
    node.start().await;
    node
}

fn write_helper(road: &Road, script: &str) {
    // Written beside and moved, so that none is run half written.
    let file = road.file(
        "helper.new",
        &format!("#!/bin/sh\ncd {}\n{script}\n", road.folder.path().display()),
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(&file, road.folder.path().join("docker-credential-test.new")).unwrap();
    std::process::Command::new("mv")
        .arg("-f")
        .arg(road.folder.path().join("docker-credential-test.new"))
        .arg(road.folder.path().join("docker-credential-test"))
        .status()
        .unwrap();
    std::fs::remove_file(file).unwrap();
}

/// A script that counts its runs, writes down what it was asked, and says this user and secret.
fn says(user: &str, secret: &str) -> String {
    format!("cat >> asked; echo >> asked; printf '{{\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}'")
}

fn runs(road: &Road) -> Vec<String> {
    let asked = std::fs::read_to_string(road.folder.path().join("asked")).unwrap_or_default();
    asked.lines().map(str::to_owned).collect()
}

fn tokens(parent: &Upstream) -> Vec<Seen> {
    parent.seen("", "/token")
}

fn form(seen: &Seen, key: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(seen.body.as_bytes());
    pairs
        .find(|(name, _)| name == key)
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_refresh_token_takes_the_place_of_the_password_until_it_is_refused() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let oauth = OAuth {
            refresh: true,
            ..OAuth::default()
        };
        let book = Book::with("l4", "secret", oauth);
        parent.bearer(&book);
        for repository in ["a", "b", "c"] {
            parent.new_image(repository, "v1", &[10]);
        }
        let node = logged_in(&road, &parent, &[]).await;

        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
        assert_eq!(node.get(&manifest("b", "v1")).await.status, 200);
        book.revoke_refresh_tokens();
        assert_eq!(node.get(&manifest("c", "v1")).await.status, 200);

        let asked = tokens(&parent);
        let methods: Vec<_> = asked.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(methods, ["GET", "POST", "POST", "GET"]);
        assert_eq!(form(&asked[1], "grant_type"), "refresh_token");
        assert_eq!(form(&asked[1], "scope"), "repository:b:pull");
        assert_eq!(form(&asked[1], "service"), "the parent, and more");
        assert!(asked[1].header("authorization").is_none() && !asked[1].body.contains("secret"));
        assert_eq!(asked[3].header("authorization"), Some(basic("l4", "secret").as_str()));
    }
}

#[tokio::test]
async fn a_token_service_that_refuses_get_is_asked_by_post_and_from_then_on_at_once() {
    for (road, status) in Road::both().into_iter().zip([404, 405]) {
        let parent = road.upstream().await;
        let oauth = OAuth {
            refuses_get: Some(status),
            password: true,
            refresh: false,
        };
        parent.bearer(&Book::with("l4", "secret", oauth));
        for repository in ["a", "b"] {
            parent.new_image(repository, "v1", &[10]);
        }
        let node = logged_in(&road, &parent, &[]).await;

        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
        assert_eq!(node.get(&manifest("b", "v1")).await.status, 200);

        let asked = tokens(&parent);
        let methods: Vec<_> = asked.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(methods, ["GET", "POST", "POST"]);
        assert_eq!(form(&asked[2], "grant_type"), "password");
        assert_eq!(
            (form(&asked[2], "username"), form(&asked[2], "password")),
            ("l4".into(), "secret".into())
        );
        assert_eq!(form(&asked[2], "client_id"), "wharf");
    }
}

#[tokio::test]
async fn a_token_service_that_refuses_passwords_by_post_is_asked_by_get() {
    for road in Road::both() {
        let parent = road.upstream().await;
        for repository in ["a", "b"] {
            parent.new_image(repository, "v1", &[10]);
        }
        let oauth = OAuth {
            refuses_get: Some(405),
            password: true,
            refresh: false,
        };
        parent.bearer(&Book::with("l4", "secret", oauth));
        let node = logged_in(&road, &parent, &[]).await;
        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
        parent.forget();

        // As Azure's: GET alone, and 400 to a password by POST.
        parent.bearer(&Book::of("l4", "secret"));
        assert_eq!(node.get(&manifest("b", "v1")).await.status, 200);

        let methods: Vec<_> = tokens(&parent).into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["POST", "GET"]);
    }
}

#[tokio::test]
async fn a_token_service_that_is_lost_for_a_moment_makes_no_bad_login() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("l4", "secret"));
        parent.fault(Fault::get("/token").status(404).times(1));
        parent.new_image("a", "v1", &[10]);
        let node = logged_in(&road, &parent, &[]).await;

        let lost = node.get(&manifest("a", "v1")).await;
        lost.assert_error(502, "UNAVAILABLE");
        assert!(lost.text().contains("token service"), "{lost}");

        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    }
}

#[tokio::test]
async fn bearer_is_preferred_in_one_line_or_in_two_whatever_the_case() {
    let lines: [&[&str]; 3] = [
        &[r#"bAsIc realm="x, y", BEARER Realm="/token",SERVICE="s, t",scope="repository:a:pull,push""#],
        &[
            r#"Basic realm="x""#,
            r#"bearer realm="/token",service="s, t",scope="repository:a:pull,push""#,
        ],
        &[
            r#"Bearer realm="/token",service="s, t",scope="repository:a:pull,push""#,
            "Negotiate",
        ],
    ];
    for road in Road::both() {
        for challenge in lines {
            let parent = road.upstream().await;
            parent.token_service(&Book::of("l4", "secret"));
            parent.new_image("a", "v1", &[10]);
            let mut refusal = Fault::any("/v2/a/").status(401).times(1);
            for line in challenge {
                refusal = refusal.header("WWW-Authenticate", line);
            }
            parent.fault(refusal);
            let node = logged_in(&road, &parent, &[]).await;

            assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);

            let asked = tokens(&parent);
            assert_eq!(asked.len(), 1, "{challenge:?}");
            assert_eq!(asked[0].query, "service=s%2C+t&scope=repository%3Aa%3Apull%2Cpush");
            for seen in parent.seen("", "/v2/a/") {
                assert_ne!(seen.header("authorization"), Some(basic("l4", "secret").as_str()));
            }
        }
    }
}

#[tokio::test]
async fn a_scope_that_is_named_with_a_refusal_is_asked_for_and_no_more_than_two_tokens_are() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.token_service(&Book::anonymous());
        parent.new_image("a", "v1", &[10]);
        let challenge =
            |scope: &str| format!(r#"Bearer realm="/token",service="s",scope="{scope}",error="insufficient_scope""#);
        let refusal = |scope| {
            Fault::any("/v2/a/")
                .status(403)
                .header("WWW-Authenticate", &challenge(scope))
                .times(1)
        };
        parent.fault(
            Fault::any("/v2/a/")
                .status(401)
                .header("WWW-Authenticate", r#"Bearer realm="/token""#)
                .times(1),
        );
        parent.fault(refusal("repository:a:pull,delete"));
        let node = road.below(&parent).start().await;

        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
        let asked: Vec<_> = tokens(&parent).into_iter().map(|seen| seen.query).collect();
        assert_eq!(
            asked,
            [
                "scope=repository%3Aa%3Apull",
                "service=s&scope=repository%3Aa%3Apull%2Cdelete"
            ]
        );

        // One that wants something else each time is not followed for ever.
        parent.without_faults();
        parent.forget();
        for scope in ["x:1:pull", "x:2:pull", "x:3:pull", "x:4:pull"] {
            parent.fault(
                Fault::any("/v2/b/")
                    .status(403)
                    .header("WWW-Authenticate", &challenge(scope))
                    .times(1),
            );
        }
        assert_eq!(node.get(&manifest("b", "v1")).await.status, 404);
        assert!(tokens(&parent).len() <= 2, "{} tokens", tokens(&parent).len());
    }
}

#[tokio::test]
async fn a_refusal_without_a_challenge_is_explained_by_the_ping() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("l4", "secret"));
        let image = parent.new_image("a", "v1", &[10]);
        parent.token_service(&Book::of("l4", "secret"));
        parent.access(Access::Open);
        parent.fault(Fault::any("/v2/a/").status(401).times(1));
        parent.fault(
            Fault::get("/v2/")
                .status(401)
                .header("WWW-Authenticate", r#"Bearer realm="/token",service="s""#)
                .times(1),
        );
        let node = logged_in(&road, &parent, &[]).await;

        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

        assert_eq!(tokens(&parent).len(), 1);
        assert_eq!(tokens(&parent)[0].query, "service=s&scope=repository%3Aa%3Apull");
    }
}

#[tokio::test]
async fn a_token_that_is_always_refused_costs_two_and_no_more_for_a_while() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.token_service(&Book::of("l4", "secret"));
        let image = parent.new_image("a", "v1", &[10]);
        parent.access(Access::Bearer {
            book: Book::of("l4", "secret"),
            realm: "/token".to_owned(),
        });
        let node = logged_in(&road, &parent, &[]).await;

        for _ in 0..20 {
            for target in [manifest("a", "v1"), blob("a", &image.layer(0))] {
                let reply = node.get(&target).await;
                reply.assert_error(502, "UNAVAILABLE");
                assert!(reply.text().contains(&parent.address().to_string()), "{reply}");
                assert!(reply.text().contains("look at its credentials"), "{reply}");
                assert!(!reply.has("www-authenticate"), "{reply}");
            }
        }

        assert!(
            (1..=2).contains(&tokens(&parent).len()),
            "{} tokens",
            tokens(&parent).len()
        );
        assert!(parent.seen("", "/v2/a/").len() <= 3, "{:?}", parent.seen("", "/v2/a/"));
        let failures = node
            .metrics()
            .await
            .sum("wharf_parent_failures_total", &[("reason", "credentials")]);
        assert_eq!(failures, 1.0);
    }
}

#[tokio::test]
async fn a_password_that_is_refused_makes_no_storm_over_many_repositories() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("l4", "changed"));
        let node = logged_in(&road, &parent, &[]).await;

        for at in 0..20 {
            node.get(&manifest(&format!("r{at}"), "v1"))
                .await
                .assert_error(502, "UNAVAILABLE");
        }

        assert_eq!(tokens(&parent).len(), 1);
        assert!(parent.asked() <= 3, "{} requests", parent.asked());
    }
}

#[tokio::test]
async fn a_password_that_was_changed_is_read_again_once_the_old_one_is_refused() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "secret".to_owned(),
        });
        let (first, second) = (
            parent.new_image("a", "v1", &[1000]),
            parent.new_image("b", "v1", &[1000]),
        );
        let node = logged_in(&road, &parent, &[]).await;
        node.get(&manifest("a", "v1")).await.assert_is(&first.manifest.bytes);

        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "changed".to_owned(),
        });
        road.file("password", "changed\n");

        node.get(&manifest("b", "v1")).await.assert_is(&second.manifest.bytes);
    }
}

#[tokio::test]
async fn what_lies_here_is_served_while_the_login_is_refused() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let book = Book::of("l4", "secret");
        parent.bearer(&book);
        let image = parent.new_image("a", "v1", &[1000]);
        let password = road.file("password", "secret\n");
        let node = road
            .below(&parent)
            .parent("username = \"l4\"")
            .parent(&format!("password_file = \"{password}\""))
            .tag_ttl("0s")
            .start()
            .await;
        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

        parent.bearer(&Book::of("l4", "changed"));
        book.revoke();

        let stale = node.get(&manifest("a", "v1")).await;
        stale.assert_is(&image.manifest.bytes);
        assert!(stale.has("warning"), "{stale}");
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    }
}

#[tokio::test]
async fn no_token_service_elsewhere_is_connected_to_however_it_is_written() {
    for road in Road::both() {
        let evil = road.upstream().await;
        evil.token_service(&Book::anonymous());
        let port = evil.address().port();
        let scheme = evil.url().split(':').next().unwrap().to_owned();
        let other = if scheme == "http" { "https" } else { "http" };
        for realm in [
            format!("{scheme}://127.0.0.1:{port}/token"),
            format!("{other}://127.0.0.1:{port}/token"),
            format!("{scheme}://localhost:{port}/token"),
            format!("{scheme}://127.0.0.2:{port}/token"),
            format!("//127.0.0.1:{port}/token"),
            format!("{scheme}://l4:x@127.0.0.1:{port}/token"),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "file:///etc/passwd".to_owned(),
        ] {
            let parent = road.upstream().await;
            parent.access(Access::Bearer {
                book: Book::of("l4", "secret"),
                realm: realm.clone(),
            });
            let node = logged_in(&road, &parent, &[]).await;

            let reply = node.get(&manifest("a", "v1")).await;

            assert_eq!(reply.status, 502, "{realm}: {reply}");
            assert!(
                !reply.text().contains("169.254") && !reply.text().contains(&port.to_string()),
                "{reply}"
            );
            let failures = node
                .metrics()
                .await
                .sum("wharf_parent_failures_total", &[("reason", "redirect")]);
            assert!(failures >= 1.0, "{realm}");
        }
        assert_eq!(evil.connections(), 0);
    }
}

#[tokio::test]
async fn a_token_service_that_redirects_elsewhere_is_not_followed_by_get_nor_by_post() {
    for road in Road::both() {
        for oauth in [
            OAuth::default(),
            OAuth {
                refuses_get: Some(405),
                password: true,
                refresh: false,
            },
        ] {
            let (parent, evil) = (road.upstream().await, road.upstream().await);
            let redirect = if oauth.password {
                Fault::any("/token").skip(1)
            } else {
                Fault::any("/token")
            };
            parent.fault(redirect.redirect(&format!("{}/token", evil.url())));
            parent.bearer(&Book::with("l4", "secret", oauth));
            let node = logged_in(&road, &parent, &[]).await;

            assert_eq!(node.get(&manifest("a", "v1")).await.status, 502);

            assert_eq!(evil.connections(), 0);
            assert_eq!(tokens(&parent).len(), if oauth.password { 2 } else { 1 });
        }
    }
}

#[tokio::test]
async fn two_entries_for_one_host_share_neither_connection_nor_token() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::anonymous());
        parent.new_image("a", "v1", &[10]);
        let other = road.file("other", "other\n");
        let mut lines = vec![
            format!("url = \"{}\"", parent.url()),
            "username = \"other\"".to_owned(),
            format!("password_file = \"{other}\""),
        ];
        if parent.url().starts_with("https") {
            let ca = road.authority.ca_file(road.folder.path());
            lines.push(format!("ca_file = \"{}\"", ca.display()));
        }
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let password = road.file("password", "secret\n");
        let node = road
            .below(&parent)
            .parent("username = \"l4\"")
            .parent(&format!("password_file = \"{password}\""))
            .upstream("second.example", &lines)
            .start()
            .await;

        for target in [manifest("a", "v1"), manifest("second.example/a", "v1")] {
            assert_eq!(node.get(&target).await.status, 200);
        }

        let shown: Vec<_> = tokens(&parent)
            .iter()
            .map(|seen| seen.header("authorization").unwrap_or("").to_owned())
            .collect();
        assert_eq!(shown, [basic("l4", "secret"), basic("other", "other")]);
        assert!(parent.connections() >= 2, "{} connections", parent.connections());
        let mut bearers: Vec<_> = parent
            .seen("", "/v2/a/")
            .iter()
            .filter_map(|seen| seen.header("authorization").map(str::to_owned))
            .collect();
        bearers.dedup();
        assert_eq!(bearers.len(), 2, "{bearers:?}");
    }
}

#[tokio::test]
async fn a_helper_is_asked_for_the_host_when_credentials_are_first_wanted() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("l4", "s3cret"));
        for repository in ["a", "b"] {
            parent.new_image(repository, "v1", &[10]);
        }
        let node = helped(&road, &parent, &says("l4", "s3cret")).await;
        assert_eq!(runs(&road).len(), 0, "at the start");

        for repository in ["a", "b"] {
            assert_eq!(node.get(&manifest(repository, "v1")).await.status, 200);
        }

        assert_eq!(runs(&road), [parent.address().to_string()]);
        assert!(!node.log().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_helper_is_asked_again_after_a_refusal() {
    for road in Road::both() {
        let parent = road.upstream().await;
        parent.bearer(&Book::of("l4", "old"));
        for repository in ["a", "b"] {
            parent.new_image(repository, "v1", &[10]);
        }
        let node = helped(&road, &parent, &says("l4", "old")).await;
        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);

        parent.bearer(&Book::of("l4", "new"));
        write_helper(&road, &says("l4", "new"));

        assert_eq!(node.get(&manifest("b", "v1")).await.status, 200);
        assert_eq!(runs(&road).len(), 2);
    }
}

#[tokio::test]
async fn an_identity_token_of_a_helper_is_exchanged_and_never_shown_as_a_password() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let oauth = OAuth {
            refuses_get: Some(400),
            password: false,
            refresh: false,
        };
        let book = Book::with("l4", "secret", oauth);
        let token = book.refresh_token();
        parent.bearer(&book);
        parent.new_image("a", "v1", &[10]);
        let node = helped(&road, &parent, &says("<token>", &token)).await;

        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);

        let asked = tokens(&parent);
        assert_eq!(asked.len(), 1);
        assert_eq!(
            (form(&asked[0], "grant_type"), form(&asked[0], "refresh_token")),
            ("refresh_token".into(), token)
        );
        assert!(asked[0].header("authorization").is_none());
    }
}

#[tokio::test]
async fn a_helper_that_fails_is_named_to_clients_its_words_stand_in_the_log_and_it_stops_no_start() {
    let road = Road::plain();
    let parent = road.upstream().await;
    parent.bearer(&Book::of("l4", "secret"));
    parent.new_image("a", "v1", &[10]);
    for (script, words) in [
        (
            "cat >> asked; echo; echo 'no such region' >&2; echo more than this >&2; exit 3",
            "no such region",
        ),
        ("printf canary-5ecre7; exit 1", "it does not say why"),
        (
            "printf '{\"Username\":5,\"Secret\":\"canary-5ecre7\"}'",
            "gave no user and secret",
        ),
        ("head -c 200000 /dev/zero | tr '\\0' x", "it does not say why"),
        ("kill -9 $$", "it does not say why"),
    ] {
        let node = helped(&road, &parent, script).await;

        let reply = node.get(&manifest("a", "v1")).await;

        reply.assert_error(502, "UNAVAILABLE");
        for part in [
            "docker-credential-test",
            "look at the log",
            &parent.address().to_string(),
        ] {
            assert!(reply.text().contains(part), "{part} in {reply}");
        }
        assert!(!reply.to_string().contains(words), "{words} in {reply}");
        let log = node.log();
        assert!(log.contains(words), "{words} in {log}");
        assert!(
            !log.contains("canary-5ecre7") && !log.contains("more than this"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn the_warning_of_an_old_tag_holds_no_word_of_the_helper() {
    let road = Road::plain();
    let parent = road.upstream().await;
    parent.bearer(&Book::of("l4", "old"));
    parent.new_image("a", "v1", &[10]);
    let setup = road.below(&parent).tag_ttl("0s");
    let node = helped_by(&road, setup, &says("l4", "old")).await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);

    parent.bearer(&Book::of("l4", "new"));
    write_helper(&road, "echo canary-5ecre7 >&2; exit 1");
    let old = node.get(&manifest("a", "v1")).await;

    assert_eq!(old.status, 200);
    let warning = old.header("warning");
    assert!(warning.contains("docker-credential-test failed"), "{warning}");
    assert!(!old.to_string().contains("canary-5ecre7"), "{old}");
    assert!(node.log().contains("canary-5ecre7"), "{}", node.log());
}

#[tokio::test]
async fn a_helper_that_hangs_is_given_up_with_all_that_it_started() {
    let road = Road::plain();
    let parent = road.upstream().await;
    parent.bearer(&Book::of("l4", "secret"));
    let node = helped(&road, &parent, "echo $$ > leader; sleep 300 & echo $! > child; wait").await;

    let reply = node.get(&manifest("a", "v1")).await;

    assert!(reply.text().contains("docker-credential-test failed"), "{reply}");
    assert!(node.log().contains("did not answer within 10s"), "{}", node.log());
    for file in ["leader", "child"] {
        let pid = std::fs::read_to_string(road.folder.path().join(file)).unwrap();
        let stat = format!("/proc/{}/cmdline", pid.trim());
        crate::support::eventually("the helper is gone", async || {
            std::fs::read(&stat).is_ok_and(|line| line.is_empty()) || std::fs::metadata(&stat).is_err()
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_service_of_an_unknown_authority_is_told_nothing() {
    let (road, stranger) = (Road::tls(), Road::tls());
    let (parent, realm) = (road.upstream().await, stranger.upstream().await);
    let book = Book::of("l4", "secret");
    realm.token_service(&book);
    parent.access(Access::Bearer {
        book,
        realm: format!("{}/token", realm.url()),
    });
    parent.new_image("a", "v1", &[10]);
    let hosts = format!("auth_hosts = [\"{}\"]", realm.address());
    let node = logged_in(&road, &parent, &[&hosts]).await;

    let reply = node.get(&manifest("a", "v1")).await;

    assert!(matches!(reply.status, 502 | 503), "{reply}");
    assert!(realm.connections() > 0);
    assert_eq!(realm.seen("", "").len(), 0);
}
