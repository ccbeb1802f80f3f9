//! The admin port: who is an operator; what is put on record of what was done; nodes behind a proxy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{Client, Request, basic, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup, binary};
use crate::support::pushing::Pusher;
use crate::support::transport;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn token_file(folder: &TempDir) -> String {
    let path = folder.path().join("admin-token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// A node whose admin port wants a token.
async fn guarded(folder: &TempDir) -> Node {
    let path = token_file(folder);
    let mut node = Setup::alone()
        .registry()
        .admin(&format!("token_file = \"{path}\""))
        .placed();
    node.start().await;
    node
}

const DEEDS: [&str; 9] = [
    "/api/cache/gc",
    "/api/queue/retry",
    "/api/queue/drop",
    "/api/tokens/create",
    "/api/tokens/rotate",
    "/api/tokens/enable",
    "/api/tokens/disable",
    "/api/tokens/delete",
    "/api/reload",
];

#[tokio::test]
async fn who_does_not_know_the_token_learns_whether_the_node_lives_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let node = guarded(&folder).await;

    assert_eq!(node.admin("/healthz").await.status, 200);
    let ready = node.admin("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, serde_json::json!({ "ready": true }))
    );
    for target in [
        "/",
        "/metrics",
        "/api/queue",
        "/api/tokens",
        "/api/receipts",
        "/nowhere",
    ] {
        let reply = node.admin(target).await;
        assert_eq!(reply.status, 401, "{target}: {reply}");
        assert!(reply.header("www-authenticate").starts_with("Basic realm="), "{reply}");
        for said in [format!("Bearer {TOKEN}"), basic("any", TOKEN)] {
            let reply = node
                .admin_send(Request::get(target).header("Authorization", &said))
                .await;
            assert_ne!(reply.status, 401, "{target}: {reply}");
        }
    }
    for target in DEEDS {
        assert_eq!(node.admin_post(target, b"").await.status, 401, "{target}");
        let wrong = Request::new("POST", target)
            .header("Content-Length", "0")
            .header("Authorization", "Bearer x");
        assert_eq!(node.admin_send(wrong).await.status, 401, "{target}");
    }
    // A command is told the token by its environment.
    let list = |token: Option<&str>| {
        let mut command = std::process::Command::new(binary());
        command
            .args(["token", "list", "--admin", &node.admin_url()])
            .env_remove("WHARF_ADMIN_TOKEN");
        if let Some(token) = token {
            command.env("WHARF_ADMIN_TOKEN", token);
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(list(Some(TOKEN)).0);
    let (passed, words) = list(None);
    assert!(!passed && words.contains("WHARF_ADMIN_TOKEN"), "{words}");
}

#[tokio::test]
async fn no_get_changes_anything_and_no_page_of_a_browser_is_an_operator() {
    let node = Setup::alone().registry().start().await;

    for target in DEEDS {
        for method in ["GET", "HEAD"] {
            let reply = node.admin_send(Request::new(method, target)).await;
            assert_eq!(reply.status, 405, "{method} {target}: {reply}");
        }
        for method in ["PUT", "DELETE", "PATCH"] {
            let reply = node
                .admin_send(Request::new(method, target).header("Content-Length", "0"))
                .await;
            assert_eq!(reply.status, 405, "{method} {target}: {reply}");
        }
        let page = Request::new("POST", target)
            .header("Content-Length", "0")
            .header("Origin", "http://evil.example");
        assert_eq!(node.admin_send(page).await.status, 403, "{target}");
        // A name that a page made point here.
        let rebound = Request::new("POST", target)
            .header("Content-Length", "0")
            .header("Host", "evil.example:5001");
        assert_eq!(node.admin_send(rebound).await.status, 403, "{target}");
    }
    for target in ["/", "/metrics", "/api/tokens"] {
        let rebound = Request::get(target).header("Host", "evil.example");
        assert_eq!(node.admin_send(rebound).await.status, 403, "{target}");
        for host in ["localhost:5001", "127.0.0.1", "[::1]:5001"] {
            let reply = node.admin_send(Request::get(target).header("Host", host)).await;
            assert_eq!(reply.status, 200, "{target} at {host}: {reply}");
        }
    }
}

#[tokio::test]
async fn an_admin_port_that_others_reach_does_not_start_without_a_token() {
    let mut node = Setup::alone().admin_on("0.0.0.0").placed();
    node.spawn();
    let status = node.ended().await;
    assert_eq!(status.code(), Some(2), "{}", node.log());
    assert!(node.log().contains("token_file"), "{}", node.log());

    let folder = TempDir::new().unwrap();
    let path = token_file(&folder);
    let mut node = Setup::alone()
        .admin_on("0.0.0.0")
        .admin(&format!("token_file = \"{path}\""))
        .placed();
    node.start().await;
    assert_eq!(node.admin("/metrics").await.status, 401);
}

#[tokio::test]
async fn what_was_done_and_what_was_denied_is_on_record_with_who_and_where() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.log");
    let settings = format!("[auth]\n[audit]\nlog = \"{}\"\n", path.display());
    let node = Setup::alone().registry().more(&settings).start().await;
    assert_eq!(node.get("/v2/").await.status, 401);
    let token = node.token("ci", &["plant/*:push"]).await;
    let ci = Pusher::of(token.client(&node), "plant/app");
    let image = Image::of(&[10]);
    ci.image("v1", &image).await;
    ci.get("manifests/v1").await.assert_is(&image.manifest.bytes);
    assert_eq!(ci.delete("manifests/v1").await.status, 403);
    assert_eq!(token.client(&node).get("/v2/office/app/tags/list").await.status, 403);
    node.client()
        .logged_in("ci", "wrong-password-canary")
        .get("/v2/_wharf/token")
        .await;
    node.ask_for_token(&token.client(&node), "scope=repository:plant/app:pull")
        .await;
    node.token_deed("disable", "ci").await;

    let mut lines: Vec<Value> = Vec::new();
    eventually("all of it is on record", async || {
        let text = fs::read_to_string(&path).unwrap();
        lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().any(|line| line["action"] == "tokens/disable")
    })
    .await;

    let has = |who: &str, action: &str, repository: &str, reference: &str, outcome: &str| {
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let found = lines.iter().any(|line| {
            text(line, "who") == who
                && text(line, "action") == action
                && text(line, "repository") == repository
                && (reference.is_empty() || text(line, "reference") == reference)
                && text(line, "outcome") == outcome
                && text(line, "remote") == "127.0.0.1"
                && text(line, "time").ends_with('Z')
        });
        assert!(
            found,
            "no {who} {action} {repository} {reference} {outcome} in {lines:#?}"
        );
    };
    has("operator", "tokens/create", "", "name=ci", "done");
    has("ci", "upload", "plant/app", &image.layer(0), "done");
    has("ci", "push", "plant/app", "v1", "done");
    has("ci", "pull", "plant/app", "v1", "done");
    has("ci", "delete", "plant/app", "v1", "denied");
    has("ci", "list", "office/app", "", "denied");
    has("anonymous", "login", "", "", "denied");
    let failed = lines
        .iter()
        .find(|line| line["outcome"] == "denied" && line["action"] == "login");
    assert_eq!(failed.unwrap()["claimed"], "ci");
    // Who only asked where to log in, as clients do before anything else, is none of them.
    let denied = lines
        .iter()
        .filter(|line| line["action"] == "login" && line["outcome"] == "denied");
    assert_eq!(denied.count(), 1, "{lines:#?}");
    has("ci", "login", "", "", "done");
    has("operator", "tokens/disable", "", "name=ci", "done");
    let text = fs::read_to_string(&path).unwrap();
    for secret in ["wrong-password-canary", &token.passwords[0], "wharf1."] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn who_fails_at_the_admin_port_and_what_changes_by_itself_is_on_record_too() {
    let folder = TempDir::new().unwrap();
    let (path, users) = (folder.path().join("audit.log"), folder.path().join("htpasswd"));
    fs::write(&users, format!("ada:{}\n", bcrypt::hash("a", 4).unwrap())).unwrap();
    let settings = format!(
        "[auth]\nhtpasswd_file = \"{}\"\n[audit]\nlog = \"{}\"\n",
        users.display(),
        path.display()
    );
    let mut node = Setup::alone()
        .registry()
        .admin(&format!("token_file = \"{}\"", token_file(&folder)))
        .more(&settings)
        .placed();
    node.start().await;

    let said = |request: Request, said: &str| request.header("Authorization", said);
    let post = |target: &str| Request::new("POST", target).header("Content-Length", "0");
    let guess = basic("root", "wrong-token-canary");
    assert_eq!(
        node.admin_send(said(Request::get("/metrics"), &guess)).await.status,
        401
    );
    assert_eq!(
        node.admin_send(said(post("/api/tokens/delete?name=ci"), &guess))
            .await
            .status,
        401
    );
    assert_eq!(node.admin_send(post("/api/reload")).await.status, 401);
    let page = post("/api/reload").header("Origin", "http://evil.example");
    assert_eq!(node.admin_send(page).await.status, 403);
    assert_eq!(node.admin("/metrics").await.status, 401);
    node.signal(nix::sys::signal::Signal::SIGHUP);
    let form = format!(
        "grant_type=password&username=eve%0A{}&password=form-canary",
        "x".repeat(100)
    );
    let reply = node
        .send(Request::new("POST", "/v2/_wharf/token").body(form.as_bytes()))
        .await;
    assert_eq!(reply.status, 401);
    fs::write(&users, format!("bob:{}\n", bcrypt::hash("b", 4).unwrap())).unwrap();

    let mut lines: Vec<Value> = Vec::new();
    eventually("all of it is on record", async || {
        let text = fs::read_to_string(&path).unwrap();
        lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().any(|line| line["how"] == "file")
    })
    .await;

    let told: Vec<[&str; 5]> = lines
        .iter()
        .map(|line| ["who", "claimed", "how", "action", "outcome"].map(|key| line[key].as_str().unwrap_or_default()))
        .collect();
    let eve = format!("eve\n{}...", "x".repeat(60));
    for line in [
        ["anonymous", "root", "admin", "login", "denied"],
        ["anonymous", "root", "admin", "tokens/delete", "denied"],
        ["anonymous", "", "admin", "reload", "denied"],
        ["operator", "", "signal", "reload", "done"],
        ["anonymous", &eve, "", "login", "denied"],
        ["operator", "", "file", "reload", "done"],
    ] {
        assert!(told.contains(&line), "no {line:?} in {told:#?}");
    }
    // Who only asked is none of them.
    assert_eq!(told.len(), 7, "{told:#?}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_is_said_once_and_counted_and_the_node_serves() {
    let node = Setup::alone()
        .registry()
        .more("[auth]\n[audit]\nlog = \"/dev/full\"\n")
        .start()
        .await;
    let failures = async || {
        node.metrics()
            .await
            .sum("wharf_log_failures_total", &[("log", "audit")])
    };

    node.token("ci", &["*:all"]).await;
    eventually("some attempts failed", async || failures().await > 2.0).await;

    assert_eq!(
        node.log().matches("a log cannot be written").count(),
        1,
        "{}",
        node.log()
    );
    assert_eq!(
        node.metrics()
            .await
            .sum("wharf_log_lost_lines_total", &[("log", "audit")]),
        0.0
    );
    assert_eq!(
        node.metrics()
            .await
            .sum("wharf_log_failures_total", &[("log", "requests")]),
        0.0
    );
    assert!(std::path::Path::new("/dev/full").exists());
}

#[tokio::test]
async fn behind_a_proxy_of_ours_addresses_are_those_that_the_client_used() {
    let trusting = Setup::alone().registry().listen("trusted_proxies = [\"127.0.0.1\"]");
    let node = trusting.more("[auth]\n").start().await;
    let token = node.token("ci", &["*:all"]).await;
    let forwarded = |client: Client| {
        client
            .with("X-Forwarded-Host", "l4.plant.example:8000")
            .with("X-Forwarded-Proto", "https")
            .with("X-Forwarded-For", "192.0.2.7")
    };

    let reply = forwarded(node.client()).get("/v2/").await;
    assert_eq!(
        reply.header("www-authenticate"),
        "Bearer realm=\"https://l4.plant.example:8000/v2/_wharf/token\",service=\"l4.plant.example:8000\""
    );
    let through = Pusher::of(forwarded(token.client(&node)), "a");
    let location = through.open().await;
    assert!(
        location.starts_with("/v2/a/blobs/uploads/"),
        "relative, so that no proxy has to know of it: {location}"
    );
    through.image("v1", &Image::of(&[10])).await;
    eventually("the client's own address is in the log", async || {
        node.log().contains(" 192.0.2.7 ")
    })
    .await;
    // What the client said itself stands before what the proxy added.
    let said_more = node
        .client()
        .with("X-Forwarded-Host", "evil.example, l4.plant.example:8000")
        .with("X-Forwarded-Proto", "http, https")
        .with("X-Forwarded-For", "203.0.113.9, 192.0.2.8:4711")
        .get("/v2/")
        .await;
    assert_eq!(said_more.header("www-authenticate"), reply.header("www-authenticate"));
    eventually("an address is one with its port too", async || {
        node.log().contains(" 192.0.2.8 ")
    })
    .await;
    // Nothing of what a header says ends up in another header as it is.
    let odd = node.client().with("X-Forwarded-Host", "a\"b.example").get("/v2/").await;
    assert!(
        odd.header("www-authenticate")
            .starts_with("Bearer realm=\"/v2/_wharf/token\""),
        "{odd}"
    );

    let strict = Setup::alone().registry().more("[auth]\n").start().await;
    let reply = forwarded(strict.client()).get("/v2/").await;
    assert!(
        reply
            .header("www-authenticate")
            .contains(&format!("\"{}://{}/", transport::scheme(), strict.address())),
        "{reply}"
    );
    let named = Setup::alone()
        .registry()
        .listen("login_server = \"l4.example\"")
        .more("[auth]\n")
        .start()
        .await;
    let reply = named.client().get("/v2/").await;
    assert!(
        reply
            .header("www-authenticate")
            .contains("://l4.example/v2/_wharf/token\",service=\"l4.example\""),
        "{reply}"
    );
    assert_eq!(named.client().get(&manifest("a", "v1")).await.status, 401);
}

#[tokio::test]
async fn while_a_token_is_written_the_admin_port_answers_others() {
    let mut node = Setup::alone().registry().more("[auth]\n").placed();
    node.environment("FAILPOINTS", "auth.tokens=sleep(4000)");
    node.start().await;
    let asked = async |target: &str, after_ms: u64| {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        let begun = Instant::now();
        assert_eq!(node.admin(target).await.status, 200, "{target}");
        begun.elapsed()
    };

    let begun = Instant::now();
    let making = async {
        node.token("ci", &["*:pull"]).await;
        begun.elapsed()
    };
    let (made, listed, alive) = tokio::join!(making, asked("/api/tokens", 500), asked("/healthz", 1000));

    assert!(made >= Duration::from_secs(4), "{made:?}");
    for (what, took) in [("the list", listed), ("the health", alive)] {
        assert!(took < Duration::from_secs(2), "{what} waited for the token: {took:?}");
    }
}
