//! Who asks: tokens, passwords in files, certificates; what is given out for them, and how it is taken away.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::client::{Client, Reply, Request, basic, manifest};
use crate::support::content::{Image, random, sha256};
use crate::support::logins::Token;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::{eventually, transport};

/// A registry that asks everybody.
fn asking() -> Setup {
    Setup::alone().registry().more("[auth]\n")
}

/// One with an image, and a token that may do everything.
async fn stage() -> (Node, Token, Image) {
    let node = asking().start().await;
    let admin = node.token("admin", &["*:all"]).await;
    let image = Image::of(&[1000]);
    Pusher::of(admin.client(&node), "plant/app").image("v1", &image).await;
    (node, admin, image)
}

/// What a refusal looks like, but for the clock.
fn looks(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let mut headers = reply.headers.clone();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (reply.status, headers, reply.text())
}

#[tokio::test]
async fn who_says_nothing_is_told_where_to_log_in_on_every_route() {
    let (node, _, image) = stage().await;
    let digest = &image.manifest.digest;
    let host = node.address().to_string();
    let scheme = transport::scheme();

    for (method, target, scope) in [
        ("GET", "/v2/".to_owned(), None),
        ("HEAD", "/v2/".to_owned(), None),
        (
            "GET",
            "/v2/plant/app/manifests/v1".to_owned(),
            Some("repository:plant/app:pull"),
        ),
        (
            "HEAD",
            format!("/v2/plant/app/manifests/{digest}"),
            Some("repository:plant/app:pull"),
        ),
        (
            "GET",
            format!("/v2/plant/app/blobs/{}", image.layer(0)),
            Some("repository:plant/app:pull"),
        ),
        (
            "GET",
            "/v2/plant/app/tags/list".to_owned(),
            Some("repository:plant/app:pull"),
        ),
        (
            "GET",
            format!("/v2/plant/app/referrers/{digest}"),
            Some("repository:plant/app:pull"),
        ),
        ("GET", "/v2/_catalog".to_owned(), Some("registry:catalog:*")),
        (
            "POST",
            "/v2/plant/app/blobs/uploads/".to_owned(),
            Some("repository:plant/app:pull,push"),
        ),
        (
            "PUT",
            "/v2/plant/app/manifests/v2".to_owned(),
            Some("repository:plant/app:pull,push"),
        ),
        (
            "DELETE",
            "/v2/plant/app/manifests/v1".to_owned(),
            Some("repository:plant/app:delete"),
        ),
        (
            "GET",
            format!("/v2/_wharf/receipts?repository=plant/app&digest={digest}"),
            Some("repository:plant/app:pull"),
        ),
    ] {
        let reply = node
            .send(Request::new(method, &target).header("Content-Length", "0"))
            .await;

        assert_eq!(reply.status, 401, "{method} {target}: {reply}");
        if method != "HEAD" {
            reply.assert_error(401, "UNAUTHORIZED");
        }
        let scope = scope.map_or(String::new(), |scope| format!(",scope=\"{scope}\""));
        assert_eq!(
            reply.header("www-authenticate"),
            format!("Bearer realm=\"{scheme}://{host}/v2/_wharf/token\",service=\"{host}\"{scope}"),
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn a_wrong_password_an_unknown_name_and_one_that_is_disabled_look_alike() {
    let (node, admin, _) = stage().await;
    let off = node.token("off", &["*:all"]).await;
    node.token_deed("disable", "off").await;
    let asked = async |client: Client| looks(&client.get("/v2/plant/app/tags/list").await);

    let wrong = asked(node.client().logged_in("admin", "wrong")).await;

    assert_eq!(wrong.0, 401);
    assert_eq!(asked(node.client().logged_in("nobody", "wrong")).await, wrong);
    assert_eq!(asked(off.client(&node)).await, wrong);
    assert_eq!(asked(node.client().logged_in("admin", "")).await, wrong);
    assert_eq!(asked(node.client().saying("Basic !!!")).await, wrong);
    assert_eq!(asked(node.client().saying("Digest x")).await, wrong);
    assert_eq!(asked(admin.client(&node)).await.0, 200);
}

#[tokio::test]
async fn who_may_not_see_a_repository_is_answered_the_same_whether_it_exists_or_not() {
    let (node, _, image) = stage().await;
    let other = node.token("other", &["office/*:all"]).await;
    let digest = image.layer(0);

    for client in [
        other.client(&node),
        node.client(),
        node.bearer(&other, &["repository:plant/app:pull"]).await,
    ] {
        for (method, rest) in [
            ("GET", "manifests/v1".to_owned()),
            ("GET", format!("blobs/{digest}")),
            ("GET", "tags/list".to_owned()),
            ("PUT", "manifests/v1".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
        ] {
            let asked = async |name: &str| {
                let request = Request::new(method, &format!("/v2/{name}/{rest}"));
                let (status, headers, text) = looks(&client.send(request.header("Content-Length", "0")).await);
                let blank = |text: String| text.replace(name, "NAME");
                let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, blank(value))).collect();
                (status, headers, blank(text))
            };

            let (exists, does_not) = (asked("plant/app").await, asked("plant/non").await);

            assert!([401, 403].contains(&exists.0), "{method} {rest}: {exists:?}");
            assert_eq!(exists, does_not, "{method} {rest}");
        }
    }
}

#[tokio::test]
async fn either_password_logs_in_and_a_replaced_one_ends_at_once_on_open_connections_too() {
    let (node, _, _) = stage().await;
    let token = node.token("line-1", &["plant/*:pull"]).await;
    let [first, second] = &token.passwords;
    let said =
        |password: &str| Request::get("/v2/plant/app/manifests/v1").header("Authorization", &basic("line-1", password));
    let (mut kept, bearer) = (
        node.client().connect().await,
        node.bearer(&token, &["repository:plant/app:pull"]).await,
    );
    for password in [first, second] {
        let open = kept.open(said(password)).await;
        let (reply, connection) = open.rest().await;
        assert_eq!(reply.status, 200, "{reply}");
        kept = connection;
    }
    assert_eq!(bearer.get("/v2/plant/app/manifests/v1").await.status, 200);

    let new = node.rotate("line-1", 1).await;

    let (reply, connection) = kept.open(said(first)).await.rest().await;
    assert_eq!(reply.status, 401, "{reply}");
    let (reply, _) = connection.open(said(second)).await.rest().await;
    assert_eq!(reply.status, 200, "{reply}");
    assert_eq!(node.send(said(&new)).await.status, 200);
    // What was given out for the replaced password is void too.
    let reply = bearer.get("/v2/plant/app/manifests/v1").await;
    reply.assert_error(401, "UNAUTHORIZED");
    assert!(
        reply.header("www-authenticate").contains("error=\"invalid_token\""),
        "{reply}"
    );
}

#[tokio::test]
async fn a_token_that_is_disabled_deleted_or_over_lets_nobody_in_and_enabling_does_again() {
    let (node, _, _) = stage().await;
    let token = node.token("line-1", &["plant/*:pull"]).await;
    let bearer = node.bearer(&token, &["repository:plant/app:pull"]).await;
    let asked = async || {
        let target = manifest("plant/app", "v1");
        (
            token.client(&node).get(&target).await.status,
            bearer.get(&target).await.status,
        )
    };
    assert_eq!(asked().await, (200, 200));

    node.token_deed("disable", "line-1").await;
    assert_eq!(asked().await, (401, 401));
    node.token_deed("enable", "line-1").await;
    assert_eq!(asked().await, (200, 200));
    node.token_deed("delete", "line-1").await;
    assert_eq!(asked().await, (401, 401));

    let create = async |expires: &str| {
        let body = format!(
            r#"{{"name":"short","permissions":[{{"repositories":["*"],"actions":["pull"]}}],"expires":"{expires}"}}"#
        );
        node.admin_post("/api/tokens/create", body.as_bytes()).await
    };
    let past = create("2020-01-01").await;
    assert_eq!(past.status, 400, "{past}");
    assert!(past.text().contains("is past"), "{past}");
    let soon = std::process::Command::new("date")
        .args(["-u", "-d", "+4 seconds", "+%FT%TZ"])
        .output();
    let told = create(String::from_utf8(soon.unwrap().stdout).unwrap().trim())
        .await
        .json();
    let password = told["passwords"]["password1"].as_str().unwrap();
    let short = node.client().logged_in("short", password);
    assert_eq!(short.get("/v2/").await.status, 200);
    eventually("it is over", async || short.get("/v2/").await.status == 401).await;
}

#[tokio::test]
async fn tokens_survive_a_kill_and_the_loss_of_a_copy_and_no_file_holds_a_password() {
    let (mut node, admin, _) = stage().await;
    let refresh = node
        .ask_for_token(&admin.client(&node), "offline_token=true")
        .await
        .json();
    let refresh = refresh["refresh_token"].as_str().unwrap().to_owned();

    for lost in ["", "tokens", "tokens.copy"] {
        node.kill();
        if !lost.is_empty() {
            std::fs::remove_file(node.data().join(lost)).unwrap();
        }
        node.start().await;
        assert_eq!(admin.client(&node).get("/v2/").await.status, 200, "without {lost:?}");
        let form = format!("grant_type=refresh_token&refresh_token={refresh}");
        let again = node
            .send(Request::new("POST", "/v2/_wharf/token").body(form.as_bytes()))
            .await;
        assert_eq!(
            again.status, 200,
            "what was signed before a restart holds after it: {again}"
        );
        node.rotate("admin", 2).await;
    }

    let secrets: Vec<&str> = admin.passwords.iter().map(String::as_str).collect();
    let mut folders = vec![node.data()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let bytes = std::fs::read(entry.path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(
                secrets.iter().all(|secret| !text.contains(secret)),
                "{:?}",
                entry.path()
            );
        }
    }
    assert!(files >= 6, "only {files} files");
}

/// The lines of a file that is kept twice, as they stand in it now.
fn kept(node: &Node, name: &str) -> String {
    std::fs::read_to_string(node.data().join(name)).unwrap_or_default()
}

#[tokio::test]
async fn what_is_taken_away_holds_at_once_on_a_disk_that_takes_nothing_and_what_is_given_does_not() {
    let (mut node, admin, _) = stage().await;
    let [gone, off, turned] = [
        node.token("gone", &["*:pull"]).await,
        node.token("off", &["*:pull"]).await,
        node.token("turned", &["*:pull"]).await,
    ];
    node.token("on", &["*:pull"]).await;
    node.token_deed("disable", "on").await;
    let bearer = node.bearer(&gone, &["repository:plant/app:pull"]).await;
    let status = async |client: Client| client.get("/v2/plant/app/tags/list").await.status;
    for token in [&gone, &off, &turned] {
        assert_eq!(status(token.client(&node)).await, 200);
    }
    // Where a folder stands no file is written.
    std::fs::create_dir(node.data().join("tokens.new")).unwrap();
    let before = kept(&node, "tokens");

    for deed in ["delete?name=gone", "disable?name=off", "rotate?name=turned&password=1"] {
        let reply = node.admin_post(&format!("/api/tokens/{deed}"), b"").await;
        assert_eq!(reply.status, 503, "{reply}");
        let words = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(
            words.contains("holds until the node is started anew") && words.contains("not on the disk"),
            "{words}"
        );
        assert!(!words.contains("wharf_"), "{words}");
    }
    for (target, body) in [("enable?name=on", ""), ("create", r#"{"name":"new","permissions":[]}"#)] {
        let reply = node.admin_post(&format!("/api/tokens/{target}"), body.as_bytes()).await;
        assert_eq!(reply.status, 503, "{reply}");
        assert!(reply.text().contains("nothing was changed"), "{reply}");
    }
    for client in [
        gone.client(&node),
        off.client(&node),
        turned.client(&node),
        bearer.clone(),
    ] {
        assert_eq!(status(client).await, 401);
    }
    let other = node.client().logged_in("turned", &turned.passwords[1]);
    assert_eq!(status(other.clone()).await, 200);
    assert_eq!(status(admin.client(&node)).await, 200);
    let list = node.admin("/api/tokens").await.json();
    let tokens = list["tokens"].as_array().unwrap();
    let enabled: Vec<(&str, bool)> = tokens
        .iter()
        .map(|token| (token["name"].as_str().unwrap(), token["enabled"] == true))
        .collect();
    assert_eq!(
        enabled,
        [("admin", true), ("off", false), ("on", false), ("turned", true)]
    );
    assert_eq!(kept(&node, "tokens"), before);

    // Once the disk takes it, it is there, and holds after a kill.
    std::fs::remove_dir(node.data().join("tokens.new")).unwrap();
    eventually("it is on the disk", async || {
        !kept(&node, "tokens.copy").contains("\"gone\"")
    })
    .await;
    node.restart().await;
    for client in [gone.client(&node), off.client(&node), turned.client(&node), bearer] {
        assert_eq!(status(client).await, 401);
    }
    assert_eq!(
        status(node.client().logged_in("turned", &turned.passwords[1])).await,
        200
    );
    let new = node.rotate("turned", 1).await;
    assert_eq!(status(node.client().logged_in("turned", &new)).await, 200);
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_one_copy_that_was_written_is_enough() {
    let mut node = asking().placed();
    // The keys, a token, and then the first copy alone.
    node.environment("FAILPOINTS", "store.kept=5*off->1*return->off");
    node.start().await;
    let token = node.token("line-1", &["*:pull"]).await;
    assert_eq!(token.client(&node).get("/v2/").await.status, 200);

    // The second copy fails: done.
    node.token_deed("disable", "line-1").await;
    assert_eq!(token.client(&node).get("/v2/").await.status, 401);
    assert!(kept(&node, "tokens").contains("\"enabled\":false"));
    assert!(kept(&node, "tokens.copy").contains("\"enabled\":true"));
    eventually("it is in the log", async || node.log().contains("lies in one copy")).await;
    node.environment("FAILPOINTS", "store.kept=3*off->2*return->off");
    node.restart().await;
    assert_eq!(token.client(&node).get("/v2/").await.status, 401);
    assert_eq!(
        kept(&node, "tokens"),
        kept(&node, "tokens.copy"),
        "it was written anew at the start"
    );

    node.token_deed("enable", "line-1").await;
    let reply = node.admin_post("/api/tokens/delete?name=line-1", b"").await;
    assert_eq!(reply.status, 507, "{reply}");
    assert_eq!(token.client(&node).get("/v2/").await.status, 401);
    eventually("it is on the disk", async || {
        !kept(&node, "tokens.copy").contains("line-1")
    })
    .await;
}

#[tokio::test]
async fn nobody_who_logs_in_waits_for_the_disk_when_a_new_key_is_due() {
    let (mut node, admin, _) = stage().await;
    node.kill();
    for name in ["keys", "keys.copy"] {
        // Of a year ago.
        let text = kept(&node, name);
        let (_, line) = text.lines().last().unwrap().split_once(' ').unwrap();
        let mut key: Value = serde_json::from_str(line).unwrap();
        key["made"] = "2025-01-01T00:00:00Z".into();
        let sealed = |text: &str| format!("{:08x}", crc32c::crc32c(text.as_bytes()));
        let (head, line) = ("wharfkept 1 7 1", key.to_string());
        let text = format!("{head} {}\n{} {line}\n", sealed(head), sealed(&line));
        std::fs::write(node.data().join(name), text).unwrap();
    }
    let old = kept(&node, "keys");
    node.environment("FAILPOINTS", "store.kept=sleep(3000)");
    node.start().await;
    let lasting = async || {
        let begun = Instant::now();
        let told = node
            .ask_for_token(&admin.client(&node), "offline_token=true")
            .await
            .json();
        (begun.elapsed(), told["refresh_token"].as_str().unwrap().to_owned())
    };

    let (first, refresh) = lasting().await;
    let (second, _) = lasting().await;

    assert!(first + second < Duration::from_secs(2), "{first:?} and {second:?}");
    assert_eq!(kept(&node, "keys"), old, "it takes its time");
    eventually("the new key is kept", async || {
        kept(&node, "keys.copy").lines().count() == 3
    })
    .await;
    // What the old one signed is good still.
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let again = node
        .send(Request::new("POST", "/v2/_wharf/token").body(form.as_bytes()))
        .await;
    assert_eq!(again.status, 200, "{again}");
}

#[tokio::test]
async fn a_damaged_or_removed_token_file_lets_nobody_in_and_the_node_starts() {
    let (mut node, admin, _) = stage().await;
    node.kill();
    for name in ["tokens", "tokens.copy"] {
        std::fs::write(node.data().join(name), b"\xff\x00 rubbish").unwrap();
    }

    node.start().await;

    assert_eq!(admin.client(&node).get("/v2/").await.status, 401);
    let again = node.token("admin", &["*:all"]).await;
    assert_eq!(again.client(&node).get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_token_service_grants_what_was_asked_for_and_may_be_done_and_merges_scopes() {
    let (node, _, image) = stage().await;
    let token = node.token("dev", &["plant/*:pull", "dev/*:push"]).await;
    let tags = |name: &str| format!("/v2/{name}/tags/list");

    let both = node
        .bearer(
            &token,
            &["repository:plant/app:pull,push", "repository:dev/app:pull,push"],
        )
        .await;
    assert_eq!(both.get(&tags("plant/app")).await.status, 200);
    let begin = Request::new("POST", "/v2/dev/app/blobs/uploads/").header("Content-Length", "0");
    assert_eq!(both.send(begin.clone()).await.status, 202);
    // It was asked for, and is none of its rights.
    let denied = Request::new("POST", "/v2/plant/app/blobs/uploads/").header("Content-Length", "0");
    both.send(denied).await.assert_error(403, "DENIED");

    let narrow = node.bearer(&token, &["repository:dev/app:pull"]).await;
    let reply = narrow.send(begin).await;
    reply.assert_error(401, "UNAUTHORIZED");
    assert!(
        reply
            .header("www-authenticate")
            .ends_with("scope=\"repository:dev/app:pull,push\",error=\"insufficient_scope\""),
        "{reply}"
    );
    let reply = narrow.get(&manifest("plant/app", &image.manifest.digest)).await;
    reply.assert_error(401, "UNAUTHORIZED");
    // Two in one parameter, as OAuth2 has them.
    let query = "scope=repository:plant/app:pull%20repository:dev/app:pull";
    let told = node.ask_for_token(&token.client(&node), query).await.json();
    let one = node
        .client()
        .saying(&format!("Bearer {}", told["access_token"].as_str().unwrap()));
    assert_eq!(one.get(&tags("plant/app")).await.status, 200);
    assert_eq!(told["token"], told["access_token"]);
    assert_eq!(told["expires_in"], 300);
    assert!(told["issued_at"].as_str().unwrap().ends_with('Z') && told["refresh_token"].is_null());
}

#[tokio::test]
async fn the_token_service_is_where_each_client_looks_and_takes_get_and_post() {
    let (node, admin, _) = stage().await;
    let [password, _] = &admin.passwords;
    let works = async |reply: Reply| {
        assert_eq!(reply.status, 200, "{reply}");
        let told = reply.json();
        let client = node
            .client()
            .saying(&format!("Bearer {}", told["access_token"].as_str().unwrap()));
        assert_eq!(client.get("/v2/plant/app/tags/list").await.status, 200);
        told
    };
    let scope = "scope=repository:plant/app:pull";

    for path in ["/v2/_wharf/token", "/token", "/acr/oauth2/token"] {
        works(admin.client(&node).get(&format!("{path}?service=x&{scope}")).await).await;
        let form = format!("grant_type=password&username=admin&password={password}&service=x&{scope}");
        works(node.send(Request::new("POST", path).body(form.as_bytes())).await).await;
        let form = format!("service=x&{scope}");
        works(
            admin
                .client(&node)
                .send(Request::new("POST", path).body(form.as_bytes()))
                .await,
        )
        .await;
        let form = format!("grant_type=password&username=admin&password={password}&access_type=offline&{scope}");
        let told = works(node.send(Request::new("POST", path).body(form.as_bytes())).await).await;
        let refresh = told["refresh_token"].as_str().unwrap();
        let form = format!("grant_type=refresh_token&refresh_token={refresh}&{scope}");
        works(node.send(Request::new("POST", path).body(form.as_bytes())).await).await;
        // One for logins opens nothing, and one that opens something is none for logins.
        let reply = node
            .client()
            .saying(&format!("Bearer {refresh}"))
            .get("/v2/plant/app/tags/list")
            .await;
        reply.assert_error(401, "UNAUTHORIZED");
        let form = format!(
            "grant_type=refresh_token&refresh_token={}",
            told["token"].as_str().unwrap()
        );
        assert_eq!(
            node.send(Request::new("POST", path).body(form.as_bytes())).await.status,
            401
        );
        let wrong = format!("grant_type=password&username=admin&password=x&{scope}");
        assert_eq!(
            node.send(Request::new("POST", path).body(wrong.as_bytes()))
                .await
                .status,
            401
        );
        let odd = node.send(Request::new("POST", path).body(b"grant_type=magic")).await;
        assert_eq!(odd.status, 400, "{odd}");
        assert_eq!(node.get(path).await.status, 401, "nobody has no rights here");
        assert_eq!(node.send(Request::new("DELETE", path)).await.status, 405);
        let large = Request::new("POST", path).body(&vec![b'a'; 100_000]);
        assert_eq!(node.send(large).await.status, 400);
    }
}

#[tokio::test]
async fn what_was_not_signed_here_is_worth_nothing() {
    let (node, admin, _) = stage().await;
    let (other, ..) = stage().await;
    let foreign = other.token("x", &["*:all"]).await;
    let foreign = other
        .ask_for_token(&foreign.client(&other), "scope=repository:plant/app:pull")
        .await;
    let foreign = foreign.json()["token"].as_str().unwrap().to_owned();
    let good = node
        .ask_for_token(&admin.client(&node), "scope=repository:plant/app:pull")
        .await;
    let good = good.json()["token"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = good.split('.').collect();
    let mut flipped = good.clone().into_bytes();
    let last = flipped.len() - 10;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let claims = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiIsImV4cCI6OTk5OTk5OTk5OX0";
    let forged = [
        foreign,
        String::from_utf8(flipped).unwrap(),
        format!("{}.{}.{}.", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.../../keys.{}.{}", parts[0], parts[2], parts[3]),
        format!("{}..{}.{}", parts[0], parts[2], parts[3]),
        format!("{claims}."),
        format!("eyJhbGciOiJIUzI1NiIsImp3ayI6e319.{claims}.x"),
        String::new(),
        ".".repeat(8000),
        "wharf1.".to_owned(),
    ];

    for token in &forged {
        let reply = node
            .client()
            .saying(&format!("Bearer {token}"))
            .get("/v2/plant/app/tags/list")
            .await;
        assert_eq!(reply.status, 401, "{token}: {reply}");
    }

    let client = node.client().saying(&format!("Bearer {good}"));
    assert_eq!(client.get("/v2/plant/app/tags/list").await.status, 200);
    // Too long for the head of a request.
    let dots = node.client().saying(&format!("Bearer {}", ".".repeat(1_000_000)));
    assert_eq!(dots.get("/v2/").await.status, 431);
}

#[tokio::test]
async fn what_a_token_says_of_the_password_behind_it_is_said_otherwise_at_every_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "a weak one\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let identity = format!(
        "[[identity]]\nname = \"line-1\"\npassword_file = \"{}\"\n",
        path.display()
    );
    let mut said = Vec::new();
    for _ in 0..2 {
        let node = Setup::alone().registry().more(&identity).start().await;
        let client = node.client().logged_in("line-1", "a weak one");

        let told = node.ask_for_token(&client, "scope=repository:a:pull").await.json();

        let claims = told["token"].as_str().unwrap().split('.').nth(2).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["s"], "line-1");
        said.push(claims["v"].as_str().unwrap().to_owned());
    }

    assert!(!said[0].is_empty());
    // Else one list of passwords, hashed once, would do for the tokens of all nodes.
    assert_ne!(said[0], said[1]);
}

#[tokio::test]
async fn two_logins_in_one_request_are_none() {
    let (node, admin, _) = stage().await;
    let said = basic("admin", &admin.passwords[0]);

    let request = Request::get("/v2/plant/app/tags/list")
        .header("Authorization", &said)
        .header("Authorization", &said);

    assert_eq!(node.send(request).await.status, 401);
}

#[tokio::test]
async fn a_mirror_that_knows_nobody_asks_nobody_and_looks_at_no_login() {
    let parent = crate::support::upstream::Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;

    for client in [
        node.client(),
        node.client().logged_in("who", "ever"),
        node.client().saying("Bearer x"),
    ] {
        assert_eq!(client.get("/v2/").await.status, 200);
        client.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    }
    assert_eq!(node.get("/v2/_wharf/token").await.status, 404);
    assert!(
        parent
            .seen("", "")
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn who_logs_in_by_htpasswd_pays_for_bcrypt_once_and_new_lines_hold_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    let line = |name: &str, password: &str| {
        let hash = bcrypt::hash(password, 11).unwrap().replacen("$2b$", "$2y$", 1);
        format!("{name}:{hash}\n")
    };
    std::fs::write(&path, format!("# people\n\n{}", line("ada", "correct horse"))).unwrap();
    let settings = format!(
        "[auth]\nhtpasswd_file = \"{}\"\n[[permission]]\nidentities = [\"*\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n",
        path.display()
    );
    let node = Setup::alone().registry().more(&settings).start().await;
    let ada = node.client().logged_in("ada", "correct horse");
    let hidden = node.admin_post("/api/tokens/create", br#"{"name":"ada"}"#).await;
    assert_eq!(hidden.status, 409, "{hidden}");
    assert!(hidden.text().contains("ada stands in the settings already"), "{hidden}");
    let took = async |client: &Client| {
        let begun = Instant::now();
        let status = client.get("/v2/").await.status;
        (status, begun.elapsed())
    };

    let (status, first) = took(&ada).await;
    assert_eq!(status, 200);
    let mut later: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let (status, time) = took(&ada).await;
        assert_eq!(status, 200);
        later.push(time);
    }
    later.sort();
    println!(
        "the first login took {first:?}, the next ones {:?} in the middle",
        later[10]
    );
    assert!(first > Duration::from_millis(30), "{first:?} is no bcrypt");
    assert!(later[10] * 5 < first, "{first:?} and then {:?}", later[10]);
    // Who does not exist takes as long.
    let (status, unknown) = took(&node.client().logged_in("bob", "correct horse")).await;
    assert_eq!(status, 401);
    assert!(unknown > Duration::from_millis(30), "{unknown:?}");

    std::fs::write(&path, line("bob", "battery staple")).unwrap();
    eventually("bob is known", async || {
        node.client()
            .logged_in("bob", "battery staple")
            .get("/v2/")
            .await
            .status
            == 200
    })
    .await;
    assert_eq!(
        took(&ada).await.0,
        401,
        "what is remembered of who is gone is worth nothing"
    );
}

#[tokio::test]
async fn guesses_are_counted_and_slowed_down_and_who_is_known_is_not() {
    let (node, admin, _) = stage().await;
    assert_eq!(admin.client(&node).get("/v2/").await.status, 200);
    let guess = node.client().logged_in("admin", "guess");
    let took = async |client: &Client| {
        let begun = Instant::now();
        client.get("/v2/").await;
        begun.elapsed()
    };

    for _ in 0..10 {
        assert!(took(&guess).await < Duration::from_millis(200));
    }
    took(&guess).await;
    let slowed = took(&guess).await;
    assert!(slowed >= Duration::from_millis(250), "{slowed:?}");
    let known = took(&admin.client(&node)).await;
    assert!(known < Duration::from_millis(200), "{known:?}");
    let failed = node
        .metrics()
        .await
        .sum("wharf_auth_failures_total", &[("reason", "password")]) as u64;
    assert_eq!(failed, 12);

    let asked = futures_util::future::join_all((0..60).map(|_| guess.get("/v2/"))).await;
    let refused: Vec<&Reply> = asked.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() >= 20, "{} of 60 were sent away", refused.len());
    refused[0].assert_error(429, "TOOMANYREQUESTS");
    assert!(refused[0].has("retry-after"));
}

#[tokio::test]
async fn an_upload_is_its_own_pushers_alone() {
    let (node, admin, _) = stage().await;
    let other = node.token("other", &["*:all"]).await;
    let (mine, others) = (
        Pusher::of(admin.client(&node), "plant/app"),
        Pusher::of(other.client(&node), "plant/app"),
    );
    let bytes = random(1000);
    let location = mine.open().await;
    assert_eq!(mine.patch(&location, None, &bytes[..500]).await.status, 202);

    for request in [
        Request::get(&location),
        Request::new("PATCH", &location).body(b"x"),
        Request::new("PUT", &format!("{location}?digest={}", sha256(&bytes))).body(b"x"),
        Request::new("DELETE", &location),
    ] {
        others.send(request).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }

    assert_eq!(mine.send(Request::get(&location)).await.header("range"), "0-499");
    let put = mine.finish(&location, &sha256(&bytes), &bytes[500..]).await;
    assert_eq!(put.status, 201, "{put}");
}

#[tokio::test]
async fn rights_that_are_taken_away_end_an_upload_that_is_under_way() {
    let (node, _, _) = stage().await;
    let token = node.token("ci", &["plant/*:push"]).await;
    let pusher = Pusher::of(token.client(&node), "plant/app");
    let location = pusher.open().await;
    assert_eq!(pusher.patch(&location, None, &random(100)).await.status, 202);

    node.token_deed("disable", "ci").await;

    assert_eq!(pusher.patch(&location, None, &random(100)).await.status, 401);
    assert_eq!(pusher.send(Request::get(&location)).await.status, 401);
}

#[tokio::test]
async fn a_token_command_makes_shows_and_changes_tokens_of_a_node_that_runs_and_of_one_that_is_stopped() {
    let mut node = asking().start().await;
    let data = node.data().display().to_string();
    let run = |args: &[&str], node: &Node| {
        let mut command = std::process::Command::new(crate::support::node::binary());
        command.arg("token").args(args);
        match args.contains(&"--data") {
            true => {}
            false => {
                command.args(["--admin", &node.admin_url()]);
            }
        }
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let password = |told: &str, which: &str| {
        let line = told.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };

    let (code, told, _) = run(&["create", "line-1", "plant/*:pull", "--expires", "90d"], &node);
    assert_eq!(code, Some(0), "{told}");
    let login = node.client().logged_in("line-1", &password(&told, "password1"));
    assert_eq!(login.get("/v2/").await.status, 200);
    let (_, list, _) = run(&["list"], &node);
    assert!(
        list.contains("line-1") && list.contains("plant/*:content/read,metadata/read"),
        "{list}"
    );
    let (_, told, _) = run(&["rotate", "line-1", "--password", "1"], &node);
    assert_eq!(login.get("/v2/").await.status, 401);
    let login = node.client().logged_in("line-1", &password(&told, "password1"));
    assert_eq!(login.get("/v2/").await.status, 200);
    for (args, code, words) in [
        (&["create", "line-1"][..], 1, "line-1 is there already"),
        (&["disable", "nobody"], 1, "there is no token nobody"),
        (&["create", "a:b"], 1, "up to 64 letters"),
        (&["create", "x", "--expires", "10000-01-01"], 2, "beyond the year 9999"),
        (&["create", "x", "--expires", "200000d"], 2, "beyond 100 years"),
        (&["create", "x", "plant/*:fly"], 2, "\"fly\" is no action"),
        (&["rotate", "line-1", "--password", "3"], 2, "3"),
        (&["create", "x", "--data", &data], 1, "a node runs on"),
    ] {
        let (found, _, told) = run(args, &node);
        assert!(
            found == Some(code) && told.contains(words),
            "{args:?}: {found:?} {told}"
        );
    }

    node.kill();
    let (code, _, told) = run(&["disable", "line-1", "--data", &data], &node);
    assert_eq!(code, Some(0), "{told}");
    let (_, told, _) = run(&["create", "line-2", "*:all", "--data", &data], &node);
    node.start().await;
    assert_eq!(login.get("/v2/").await.status, 401);
    let two = node.client().logged_in("line-2", &password(&told, "password2"));
    assert_eq!(two.get("/v2/").await.status, 200);
    let listed: Value = serde_json::from_str(&run(&["list", "--json"], &node).1).unwrap();
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 2);
}
