//! What can be seen of a node from outside: numbers, health, log lines, limits; and what must never be seen.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::content::sha256;
use crate::support::eventually;
use crate::support::metrics::Metrics;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Access, Book, Fault, Gate, Upstream};

const CANARY: &str = "canary-5ecre7";

async fn sum(node: &Node, name: &str, labels: &[(&str, &str)]) -> f64 {
    node.metrics().await.sum(name, labels)
}

#[tokio::test]
async fn the_metrics_that_dashboards_rely_on_exist_with_their_labels() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let node = Node::below(&parent).await;
    for target in [manifest("a", "v1"), blob("a", &image.layer(0))] {
        assert_eq!(node.get(&target).await.status, 200);
    }
    let expected: [(&str, &[&str]); 9] = [
        ("wharf_requests_total", &["kind", "method", "status"]),
        ("wharf_cache_requests_total", &["kind", "outcome"]),
        ("wharf_served_bytes_total", &[]),
        ("wharf_parent_requests_total", &["status", "upstream"]),
        ("wharf_parent_bytes_total", &["direction", "upstream"]),
        ("wharf_storage_bytes", &["state"]),
        ("wharf_storage_capacity_bytes", &[]),
        ("wharf_evicted_bytes_total", &[]),
        ("wharf_parent_up", &[]),
    ];

    let metrics = node.metrics().await;

    for (name, labels) in expected {
        assert!(metrics.has(name), "{name} is missing");
        let has = metrics.labels(name);
        assert!(
            labels.iter().all(|label| has.iter().any(|key| key == label)),
            "{name} has the labels {has:?}"
        );
    }
    assert_eq!(metrics.sum("wharf_storage_capacity_bytes", &[]), (2_u64 << 30) as f64);
    assert_eq!(metrics.sum("wharf_parent_up", &[]), 1.0);
}

#[tokio::test]
async fn the_metrics_of_queue_and_synchronisation_say_that_nothing_waits() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;

    let metrics = node.metrics().await;

    for name in [
        "wharf_queue_items",
        "wharf_queue_oldest_seconds",
        "wharf_sync_lag_seconds",
    ] {
        assert!(metrics.has(name), "{name} is missing");
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
}

#[tokio::test]
async fn the_metrics_match_the_load_that_was_driven() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let digest = image.layer(0);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).hold_after(50_000, &gate));
    let node = Node::below(&parent).await;

    let mut first = node.client().open(Request::get(&blob("a", &digest))).await;
    first.read(1000).await;
    let mut second = node.client().open(Request::get(&blob("a", &digest))).await;
    second.read(1000).await;
    gate.open();
    assert_eq!(first.last().await.body.len() + second.last().await.body.len(), 200_000);
    for _ in 0..3 {
        assert_eq!(node.get(&blob("a", &digest)).await.status, 200);
    }
    assert_eq!(node.head(&blob("a", &digest)).await.status, 200);
    assert_eq!(node.range(&blob("a", &digest), "0-9").await.status, 206);
    assert_eq!(node.get(&manifest("a", "absent")).await.status, 404);

    eventually("all requests are counted", async || {
        sum(&node, "wharf_requests_total", &[("method", "GET"), ("kind", "blob")]).await == 6.0
    })
    .await;
    let metrics: Metrics = node.metrics().await;
    let cache = |outcome| metrics.sum("wharf_cache_requests_total", &[("kind", "blob"), ("outcome", outcome)]);
    assert_eq!((cache("miss"), cache("collapsed")), (1.0, 1.0));
    // Three, one by HEAD and a part.
    assert_eq!(cache("hit"), 5.0);
    let requests = |labels: &[(&str, &str)]| metrics.sum("wharf_requests_total", labels);
    assert_eq!(requests(&[("method", "GET"), ("kind", "blob"), ("status", "200")]), 5.0);
    assert_eq!(
        requests(&[("method", "HEAD"), ("kind", "blob"), ("status", "200")]),
        1.0
    );
    assert_eq!(requests(&[("kind", "blob"), ("status", "206")]), 1.0);
    assert_eq!(requests(&[("kind", "manifest"), ("status", "404")]), 1.0);
    let served = metrics.sum("wharf_served_bytes_total", &[]);
    assert!((500_010.0..510_000.0).contains(&served), "{served}");
    let from_parent = metrics.sum("wharf_parent_bytes_total", &[("direction", "down")]);
    assert!((100_000.0..110_000.0).contains(&from_parent), "{from_parent}");
    let committed = metrics.sum("wharf_storage_bytes", &[("state", "committed")]);
    assert!((100_000.0..110_000.0).contains(&committed), "{committed}");
}

#[tokio::test]
async fn no_metric_grows_a_series_for_each_repository() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let lines = async || node.admin("/metrics").await.text().lines().count();
    for name in ["one/app", "two/app"] {
        node.get(&manifest(name, "v1")).await;
        node.get(&blob(name, &sha256(name.as_bytes()))).await;
    }
    let before = lines().await;

    for at in 0..50 {
        node.get(&manifest(&format!("repository-{at}"), "v1")).await;
        node.get(&blob(&format!("repository-{at}"), &sha256(&[at]))).await;
    }

    assert_eq!(lines().await, before);
    assert!(!node.admin("/metrics").await.text().contains("repository-"));
}

#[tokio::test]
async fn health_does_not_depend_on_the_parent_and_readiness_says_what_is_wrong() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    let known = async |up: bool| {
        eventually("what became of the parent is known", async || {
            node.get(&manifest("a", "absent")).await;
            (sum(&node, "wharf_parent_up", &[]).await == 1.0) == up
        })
        .await;
        (node.admin("/healthz").await.status, node.admin("/readyz").await)
    };
    // Without its parent a node is as ready as with it: what is here is served.
    let assert_ready = |(health, ready): (u16, Reply), up: bool| {
        assert_eq!((health, ready.status), (200, 200), "{ready}");
        let said = ready.json();
        assert_eq!(said["ready"], true, "{ready}");
        assert_eq!(said["upstreams"][0]["up"], up, "{ready}");
        said["reasons"].as_array().expect("a list").clone()
    };

    assert!(assert_ready(known(true).await, true).is_empty());
    parent.stop().await;
    let reasons = assert_ready(known(false).await, false);
    parent.start_again().await;
    let again = assert_ready(known(true).await, true);

    assert_eq!(reasons.len(), 1, "{reasons:?}");
    let reason = reasons[0].as_str().expect("words");
    assert!(
        reason.contains(&parent.address().to_string()) && reason.contains("cannot be reached"),
        "{reason}"
    );
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test]
async fn the_admin_port_shows_nothing_of_the_registry_and_the_registry_nothing_of_it() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;

    assert_eq!(node.admin("/v2/a/manifests/v1").await.status, 404);
    for target in ["/metrics", "/healthz", "/readyz", "/api/status"] {
        assert_eq!(node.get(target).await.status, 404, "{target}");
    }
    assert_eq!(node.admin("/").await.status, 200);
}

#[tokio::test]
async fn each_request_is_one_line_of_json_with_what_it_cost() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("requests.log");
    let node = Setup::below(&parent.url())
        .log("format = \"json\"")
        .log(&format!("requests = \"{}\"", path.display()))
        .start()
        .await;
    let targets = [
        manifest("a", "v1"),
        blob("a", &image.layer(0)),
        blob("a", &image.layer(0)),
        manifest("a", "absent"),
        "/v2/".to_owned(),
    ];

    for target in &targets {
        node.get(target).await;
    }
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the lines are written", async || {
        lines().lines().count() >= targets.len()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(250)).await;

    let lines: Vec<Value> = lines()
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(lines.len(), targets.len(), "{lines:#?}");
    for (line, target) in lines.iter().zip(&targets) {
        let text = line.to_string();
        assert!(text.contains(target.as_str()), "{target}: {text}");
        assert_eq!(line["method"], "GET", "{text}");
        assert!(line["status"].is_u64() && line["bytes"].is_u64(), "{text}");
    }
    assert_eq!(
        (&lines[1]["status"], &lines[1]["bytes"]),
        (&200.into(), &100_000.into())
    );
    assert_eq!(lines[3]["status"], 404);
    assert!(lines.iter().all(|line| line["reason"].is_null()), "{lines:#?}");
}

#[tokio::test]
async fn the_line_of_a_request_that_came_to_nothing_says_why() {
    for format in ["json", "text"] {
        let mut parent = Upstream::start().await;
        let node = Setup::below(&parent.url())
            .log(&format!("format = \"{format}\""))
            .start()
            .await;
        parent.stop().await;

        // The second goes by the way of requests with a body.
        node.get(&manifest("a", "v1")).await;
        node.send(Request::get(&manifest("a", "v1")).header("Content-Length", "0"))
            .await;

        let said = || {
            node.log()
                .matches("reason")
                .filter(|_| node.log().contains("cannot be reached"))
                .count()
        };
        eventually("both lines are written", async || said() >= 2).await;
        assert!(!node.log().contains("broken"), "{}", node.log());
    }
}

#[tokio::test]
async fn a_line_break_in_a_request_makes_no_second_line() {
    let parent = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("requests.log");
    let node = Setup::below(&parent.url())
        .log(&format!("requests = \"{}\"", path.display()))
        .start()
        .await;

    for target in [
        "/v2/a%0aforged/manifests/v1",
        "/v2/a%0d%0aforged%1b[31m/manifests/v1?ns=%0aforged",
    ] {
        node.get(target).await;
    }
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the lines are written", async || lines().lines().count() >= 2).await;

    assert_eq!(lines().lines().count(), 2, "{}", lines());
    assert!(!lines().contains('\u{1b}'));
}

#[tokio::test]
async fn no_secret_is_ever_written_or_answered() {
    let parent = Upstream::start().await;
    let book = Book::of("operator", CANARY);
    parent.bearer(&book);
    let image = parent.new_image("a", "v1", &[1000]);
    let storage = Upstream::start().await;
    storage.blob("signed", &image.layers[0]);
    let signed = format!(
        "{}/v2/signed/blobs/{}?signature={CANARY}",
        storage.url(),
        image.layer(0)
    );
    parent.fault(Fault::get(&image.layer(0)).redirect(&signed));
    let mut node = Setup::below(&parent.url())
        .parent("username = \"operator\"")
        .parent("password_env = \"PARENT_PASSWORD\"")
        .log("level = \"trace\"")
        .placed();
    node.environment("PARENT_PASSWORD", CANARY);
    node.start().await;
    let with = |target: &str| {
        Request::get(target)
            .header("Authorization", &format!("Bearer {CANARY}"))
            .header("Cookie", &format!("session={CANARY}"))
    };

    let mut answers = String::new();
    for target in [
        manifest("a", "v1"),
        blob("a", &image.layer(0)),
        manifest("a", "absent"),
        manifest("unknown", "v1"),
        format!("/v2/a/tags/list?token={CANARY}"),
    ] {
        let reply = node.send(with(&target)).await;
        answers += &format!("{:?}{}", reply.headers, reply.text());
    }
    parent.access(Access::Basic {
        user: "another".to_owned(),
        password: "another".to_owned(),
    });
    storage.fault(Fault::any("").status(403));
    for target in [manifest("a", "v3"), blob("a", &sha256(b"x"))] {
        let reply = node.send(with(&target)).await;
        answers += &format!("{:?}{}", reply.headers, reply.text());
    }
    for page in ["/metrics", "/readyz", "/healthz", "/", "/api/status"] {
        answers += &node.admin(page).await.text();
    }
    node.stop().await;

    assert!(!answers.contains(CANARY), "in an answer: {}", around(&answers));
    assert!(!node.log().contains(CANARY), "in the log: {}", around(&node.log()));
    // Tokens that the parent gave out are secrets too.
    assert!(!node.log().contains("token-0-of-"), "a token in the log");
    for (path, _) in node.files() {
        let bytes = std::fs::read(node.data().join(&path)).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&bytes).contains(CANARY),
            "in {}",
            path.display()
        );
    }
}

#[tokio::test]
async fn no_secret_of_those_who_log_in_is_written_or_answered() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let admin = format!("{CANARY}-of-operators");
    let (token, password) = (secret("admin-token", &admin), secret("password", CANARY));
    let hash = bcrypt::hash(format!("{CANARY}-of-people"), 4).unwrap();
    let htpasswd = secret("htpasswd", &format!("ada:{hash}\n"));
    let audit = folder.path().join("audit.log");
    let settings = format!(
        "[auth]\nhtpasswd_file = {htpasswd:?}\n[audit]\nlog = {audit:?}\n\
         [[identity]]\nname = \"line-1\"\npassword_file = {password:?}\n\
         [[permission]]\nidentities = [\"*\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n"
    );
    let mut node = Setup::alone()
        .registry()
        .admin(&format!("token_file = {token:?}"))
        .log("level = \"trace\"")
        .more(&settings)
        .placed();
    node.start().await;
    let ada = format!("{CANARY}-of-people");
    let mut answers = String::new();
    let mut given: Vec<String> = Vec::new();
    for (name, password) in [
        ("line-1", CANARY),
        ("ada", ada.as_str()),
        ("ada", "canary-5ecre7-wrong"),
    ] {
        let client = node.client().logged_in(name, password);
        for target in ["/v2/", "/v2/a/tags/list", "/v2/_catalog", "/v2/a/manifests/v1"] {
            let reply = client.get(target).await;
            answers += &format!("{:?}{}", reply.headers, reply.text());
        }
        let reply = client
            .get("/v2/_wharf/token?offline_token=true&scope=repository:a:pull")
            .await;
        match reply.status {
            200 => given.extend(["token", "refresh_token"].map(|key| reply.json()[key].as_str().unwrap().to_owned())),
            _ => answers += &reply.text(),
        }
        // Where it does not belong, it is not taken, and goes nowhere.
        let query = format!("/v2/_wharf/token?grant_type=password&username={name}&password={password}");
        let reply = node.get(&query).await;
        assert_eq!(reply.status, 401, "{reply}");
        answers += &reply.text();
    }
    for token in &given {
        let reply = node
            .client()
            .saying(&format!("Bearer {token}"))
            .get("/v2/b/tags/list")
            .await;
        answers += &format!("{:?}{}", reply.headers, reply.text());
    }
    let as_operator = |target: &str| Request::get(target).header("Authorization", &format!("Bearer {admin}"));
    for page in ["/metrics", "/readyz", "/", "/api/tokens", "/api/queue"] {
        answers += &node.admin_send(as_operator(page)).await.text();
    }
    let wrong = Request::get("/metrics").header("Authorization", &format!("Bearer {CANARY}-wrong"));
    answers += &node.admin_send(wrong).await.text();
    let commands = std::fs::read(format!("/proc/{}/cmdline", node.pid())).unwrap();
    answers += &String::from_utf8_lossy(&commands);
    node.stop().await;

    let audit = std::fs::read_to_string(audit).unwrap();
    assert!(audit.lines().count() >= 3, "{audit}");
    for (what, text) in [
        ("an answer", &answers),
        ("the log", &node.log()),
        ("the record", &audit),
    ] {
        assert!(!text.contains(CANARY), "in {what}: {}", around(text));
        for secret in given.iter().chain([&hash]) {
            assert!(!text.contains(secret.as_str()), "a token or hash in {what}");
        }
    }
    for (path, _) in node.files() {
        let bytes = std::fs::read(node.data().join(&path)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(CANARY), "in {}", path.display());
        assert!(
            given.iter().all(|token| !text.contains(token.as_str())),
            "in {}",
            path.display()
        );
    }
}

/// What stands around the canary.
fn around(text: &str) -> &str {
    let at = text.find(CANARY).unwrap_or(0);
    let (mut first, mut last) = (at.saturating_sub(200), (at + 200).min(text.len()));
    while !text.is_char_boundary(first) {
        first += 1;
    }
    while !text.is_char_boundary(last) {
        last -= 1;
    }
    &text[first..last]
}

#[tokio::test]
async fn a_request_log_that_was_moved_away_is_begun_anew_at_a_hangup() {
    let parent = Upstream::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("requests.log");
    let node = Setup::below(&parent.url())
        .log(&format!("requests = \"{}\"", path.display()))
        .start()
        .await;
    node.get("/v2/before/tags/list").await;
    let old = path.with_extension("1");
    std::fs::rename(&path, &old).unwrap();

    node.signal(Signal::SIGHUP);
    eventually("the log is begun anew", async || path.exists()).await;
    node.get("/v2/after/tags/list").await;

    let has = |path: &Path, word: &str| std::fs::read_to_string(path).unwrap_or_default().contains(word);
    eventually("both requests are written", async || {
        has(&old, "before") && has(&path, "after")
    })
    .await;
    assert!(!has(&path, "before"));
}
