//! What a node does when its parent fails, is away, wants rest or is slow: who waits, who is served, who is asked.

use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::chain::Chain;
use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::ports::Family;
use crate::support::upstream::{Book, Cut, Fault, Gate, Upstream};

/// A node whose tags are old at once.
fn doubting(parent: &Upstream) -> Setup {
    Setup::below(&parent.url()).tag_ttl("0s")
}

async fn is(node: &Node, state: &str) -> bool {
    node.metrics().await.sum("wharf_parent_state", &[("state", state)]) == 1.0
}

async fn sum(node: &Node, name: &str, labels: &[(&str, &str)]) -> f64 {
    node.metrics().await.sum(name, labels)
}

#[track_caller]
fn assert_stale(reply: &Reply) {
    assert_eq!(reply.status, 200, "{reply}");
    assert!(reply.all("warning").starts_with("299 - \""), "{reply}");
}

/// An error of the gateway that says when to come again.
#[track_caller]
fn assert_later(reply: &Reply) {
    assert!(matches!(reply.status, 502..=504), "{reply}");
    reply.assert_error(reply.status, "UNAVAILABLE");
    assert!(reply.header("retry-after").parse::<u64>().is_ok(), "{reply}");
}

/// A blob that the parent has and the node has not.
fn new_blob(parent: &Upstream) -> (String, bytes::Bytes) {
    let bytes = random(1000);
    let digest = parent.blob("b", &bytes);
    (blob("b", &digest), bytes)
}

#[tokio::test]
async fn a_parent_that_is_away_is_not_asked_by_two_hundred_warm_pulls_and_that_is_said_once() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = doubting(&parent).start().await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.stop().await;

    for _ in 0..200 {
        assert_stale(&node.get(&manifest("a", "v1")).await);
    }

    assert!(is(&node, "open").await);
    assert_eq!(sum(&node, "wharf_parent_opened_total", &[("state", "open")]).await, 1.0);
    assert_eq!(sum(&node, "wharf_parent_up", &[]).await, 0.0);
    let sent = sum(&node, "wharf_parent_requests_total", &[("status", "error")]).await;
    assert!((1.0..=10.0).contains(&sent), "{sent} requests to a parent that is away");
    assert_eq!(node.log().matches("upstream is only probed").count(), 1);
    let ready = node.admin("/readyz").await;
    assert_eq!(ready.status, 200, "{ready}");
    assert!(ready.text().contains("cannot be reached"), "{ready}");
}

#[tokio::test]
async fn a_parent_that_is_back_is_noticed_by_the_next_miss_at_once() {
    let mut parent = Upstream::start().await;
    let (target, bytes) = new_blob(&parent);
    let node = Node::below(&parent).await;
    parent.stop().await;
    assert_later(&node.get(&target).await);
    // The probes that nobody waits for grow rare meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    parent.start_again().await;

    let begun = Instant::now();
    node.get(&target).await.assert_is(&bytes);

    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_parent_that_is_back_is_noticed_without_any_pull() {
    let mut parent = Upstream::start().await;
    let (target, _) = new_blob(&parent);
    let node = Node::below(&parent).await;
    parent.stop().await;
    assert_later(&node.get(&target).await);
    assert!(is(&node, "open").await);
    parent.start_again().await;

    eventually("a probe finds it", async || is(&node, "closed").await).await;

    assert_eq!(sum(&node, "wharf_parent_up", &[]).await, 1.0);
    assert_eq!(parent.asked(), 0);
    assert_eq!(node.log().matches("upstream is asked again").count(), 1);
}

#[tokio::test]
async fn twenty_misses_wait_for_one_probe() {
    let mut parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let targets: Vec<_> = (0..20).map(|_| new_blob(&parent)).collect();
    parent.stop().await;
    assert_later(&node.get(&targets[0].0).await);
    let gate = Gate::closed();
    parent.fault(Fault::get("/v2/").times(1).hold_head(&gate));
    parent.start_again().await;
    eventually("it is probed", async || parent.count("GET", "/v2/") == 1).await;

    let mut pulls = JoinSet::new();
    for (target, bytes) in targets {
        let client = node.client();
        pulls.spawn(async move { client.get(&target).await.body == bytes });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = parent.count("", "");
    gate.open();

    assert_eq!(asked, 1, "only the probe");
    assert_eq!(pulls.join_all().await, [true; 20]);
}

/// A listener at the address whose queue is full: the kernel answers nothing to who wants to connect.
struct BlackHole {
    _listening: tokio::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn at(address: std::net::SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listening = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self {
            _listening: listening,
            _waiting: waiting,
        }
    }
}

/// How long each of `count` pulls of a warm tag took, the longest last.
async fn warm_pulls(node: &Node, count: usize) -> Vec<Duration> {
    let mut spans = Vec::new();
    for _ in 0..count {
        let reply = node.get(&manifest("a", "v1")).await;
        assert_eq!(reply.status, 200, "{reply}");
        spans.push(reply.head_after);
    }
    spans.sort();
    spans
}

#[tokio::test]
async fn a_black_hole_costs_a_miss_the_connect_timeout_and_warm_pulls_nothing() {
    let mut parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let (target, bytes) = new_blob(&parent);
    let node = doubting(&parent)
        .parent("connect_timeout = \"1s\"")
        .freshness("stale_after = \"300ms\"")
        .start()
        .await;
    let before = warm_pulls(&node, 1000).await;
    parent.stop().await;
    let hole = BlackHole::at(parent.address()).await;

    let after = warm_pulls(&node, 1000).await;

    let extra = after[990].saturating_sub(before[990]);
    assert!(
        extra < Duration::from_millis(10),
        "{extra:?} more at the 99th percentile"
    );
    eventually("it is left", async || is(&node, "open").await).await;
    for _ in 0..2 {
        let miss = node.get(&target).await;
        assert_later(&miss);
        assert!(miss.head_after < Duration::from_millis(2500), "{:?}", miss.head_after);
    }
    drop(hole);
    parent.start_again().await;
    let begun = Instant::now();
    node.get(&target).await.assert_is(&bytes);
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_parent_that_is_there_and_silent_is_left_and_found_again() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let (target, bytes) = new_blob(&parent);
    let node = doubting(&parent)
        .parent("connect_timeout = \"500ms\"")
        .freshness("answer_within = \"1s\"")
        .freshness("stale_after = \"200ms\"")
        .start()
        .await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.fault(Fault::any("").silent());

    let first = node.get(&target).await;
    assert_eq!(first.status, 504, "{first}");
    assert_later(&first);
    eventually("it is left", async || is(&node, "open").await).await;
    let spans = warm_pulls(&node, 50).await;

    assert!(spans[49] < Duration::from_millis(200), "{:?}", spans[49]);
    parent.without_faults();
    // Nobody asks meanwhile: the node looks by itself, once the probe that the silence swallowed has ended.
    eventually("a probe is answered", async || is(&node, "closed").await).await;
    node.get(&target).await.assert_is(&bytes);
}

#[tokio::test]
async fn a_failure_of_a_moment_is_asked_again_inside_the_reply() {
    for status in [500, 502, 503, 504] {
        let parent = Upstream::start().await;
        let image = parent.new_image("a", "v1", &[10]);
        parent.fault(Fault::get("/manifests/").times(2).status(status));
        let node = Node::below(&parent).await;

        let reply = node.get(&manifest("a", &image.manifest.digest)).await;

        reply.assert_is(&image.manifest.bytes);
        assert_eq!(parent.count("GET", "/manifests/"), 3);
    }
}

#[tokio::test]
async fn while_something_old_waits_to_be_served_a_failing_parent_is_asked_once() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = doubting(&parent).start().await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    parent.forget();
    parent.fault(Fault::any("/manifests/").status(500));

    let reply = node.get(&manifest("a", "v1")).await;

    assert_stale(&reply);
    assert!(reply.head_after < Duration::from_millis(500), "{:?}", reply.head_after);
    assert_eq!(parent.asked(), 1);
}

#[tokio::test]
async fn a_parent_that_fails_again_and_again_is_spared_until_it_answers() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let (target, bytes) = new_blob(&parent);
    parent.fault(Fault::any("/blobs/").status(500));
    for _ in 0..2 {
        assert_later(&node.get(&new_blob(&parent).0).await);
    }
    assert!(is(&node, "open").await || is(&node, "trying").await);
    parent.forget();

    let mut pulls = JoinSet::new();
    for _ in 0..50 {
        let (client, target) = (node.client(), new_blob(&parent).0);
        pulls.spawn(async move { client.get(&target).await.status });
    }
    let replies = pulls.join_all().await;

    assert!(replies.iter().all(|status| matches!(status, 502..=504)), "{replies:?}");
    // One tries after each answered probe, four times a second at the most.
    assert!(parent.asked() <= 10, "{} requests for fifty pulls", parent.asked());
    parent.without_faults();
    node.get(&target).await.assert_is(&bytes);
    eventually("it is asked as before", async || is(&node, "closed").await).await;
}

/// Where a parent says that it is asked too often.
async fn limited(fault: Fault) -> (Upstream, Node, String) {
    let parent = Upstream::start().await;
    parent.bearer(&Book::anonymous());
    parent.new_image("warm", "v1", &[10]);
    let (target, _) = new_blob(&parent);
    let node = doubting(&parent).start().await;
    assert_eq!(node.get(&manifest("warm", "v1")).await.status, 200);
    parent.fault(fault);
    (parent, node, target)
}

#[tokio::test]
async fn a_wish_to_rest_is_kept_for_every_repository_and_kind_and_never_handed_on_as_429() {
    for (path, status, wish) in [
        ("/manifests/", 429, "3"),
        ("/blobs/", 429, "3"),
        ("/token", 429, "3"),
        ("/blobs/", 503, "3"),
    ] {
        let (parent, node, target) =
            limited(Fault::any(path).times(1).status(status).header("Retry-After", wish)).await;
        let cold = match path {
            "/manifests/" => manifest("b", "none"),
            _ => target.clone(),
        };

        let first = node.get(&cold).await;
        let asked = parent.count("", "");
        let refused = [
            node.get(&target).await,
            node.get(&manifest("c", "v1")).await,
            node.get("/v2/d/tags/list").await,
        ];
        let warm = node.get(&manifest("warm", "v1")).await;

        for reply in refused.iter().chain([&first]) {
            assert_eq!(reply.status, 503, "{path}: {reply}");
            assert_later(reply);
            let wait: u64 = reply.header("retry-after").parse().unwrap();
            assert!((1..=3).contains(&wait), "{path}: {reply}");
            assert_eq!(reply.header("wharf-layer"), parent.address().to_string(), "{reply}");
        }
        assert!(
            refused
                .iter()
                .all(|reply| reply.head_after < Duration::from_millis(500))
        );
        assert_stale(&warm);
        assert_eq!(parent.count("", ""), asked, "{path}: asked though it wants rest");
        assert!(is(&node, "resting").await);
        assert!(node.admin("/readyz").await.text().contains("left alone"));
        eventually("its time is over", async || node.get(&target).await.status == 200).await;
        assert_eq!(
            sum(&node, "wharf_parent_opened_total", &[("state", "resting")]).await,
            1.0
        );
        assert!(sum(&node, "wharf_parent_refused_total", &[("reason", "resting")]).await >= 3.0);
    }
}

#[tokio::test]
async fn a_wish_may_be_a_date() {
    let wish = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(30));
    let (_parent, node, target) = limited(Fault::any("/blobs/").status(429).header("Retry-After", &wish)).await;

    let reply = node.get(&target).await;

    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((20..=30).contains(&wait), "{reply}");
}

#[tokio::test]
async fn after_a_rest_one_request_tries_and_all_others_wait_for_its_answer() {
    let (parent, node, _) = limited(Fault::any("/blobs/").times(1).status(429).header("Retry-After", "1")).await;
    assert_eq!(node.get(&new_blob(&parent).0).await.status, 503);
    let gate = Gate::closed();
    parent.fault(Fault::any("/blobs/").times(1).hold_head(&gate));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = parent.count("GET", "/blobs/");

    let mut pulls = JoinSet::new();
    for _ in 0..10 {
        let (client, (target, bytes)) = (node.client(), new_blob(&parent));
        pulls.spawn(async move { client.get(&target).await.body == bytes });
    }
    eventually("one is sent", async || parent.count("GET", "/blobs/") > before).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = parent.count("GET", "/blobs/") - before;
    gate.open();

    assert_eq!(sent, 1);
    assert_eq!(pulls.join_all().await, [true; 10]);
}

#[tokio::test]
async fn what_a_node_above_cannot_have_now_keeps_nobody_from_what_it_has() {
    for fault in [
        Fault::any("").status(429).header("Retry-After", "60"),
        Fault::any("").status(500),
    ] {
        let cloud = Upstream::start().await;
        let image = cloud.new_image("a", "v1", &[1000]);
        let chain = Chain::below(&cloud).await;
        chain
            .l4
            .get(&blob("a", &image.layer(0)))
            .await
            .assert_is(&image.layers[0]);
        cloud.fault(fault);

        for _ in 0..8 {
            let miss = chain.l3.get(&new_blob(&cloud).0).await;
            assert_later(&miss);
            assert_eq!(miss.header("wharf-layer"), cloud.address().to_string(), "{miss}");
        }

        chain
            .l3
            .get(&blob("a", &image.layer(0)))
            .await
            .assert_is(&image.layers[0]);
        assert!(is(&chain.l3, "closed").await && is(&chain.l4, "closed").await);
    }
}

#[tokio::test]
async fn a_failure_at_the_top_is_asked_again_by_the_top_layer_alone() {
    let cloud = Upstream::start().await;
    let (target, _) = new_blob(&cloud);
    cloud.fault(Fault::any("/blobs/").status(500));
    let chain = Chain::below(&cloud).await;

    assert_later(&chain.l3.get(&target).await);

    assert!(
        (1..=3).contains(&cloud.count("GET", "/blobs/")),
        "{}",
        cloud.count("GET", "/blobs/")
    );
}

#[tokio::test]
async fn the_topmost_layer_gives_up_first_and_its_word_reaches_the_bottom_in_time() {
    let cloud = Upstream::start().await;
    cloud.new_image("a", "v1", &[10]);
    let within = Duration::from_secs(3);
    let chain = Chain::set_up(&cloud.url(), Family::V4, |setup| {
        setup.freshness("answer_within = \"3s\"")
    })
    .await;
    // Each learns that its parent is a node.
    assert_eq!(chain.l3.get(&manifest("a", "v1")).await.status, 200);
    cloud.fault(Fault::any("").silent());

    let reply = chain.l3.get(&new_blob(&cloud).0).await;

    assert_eq!(reply.status, 504, "{reply}");
    assert_eq!(reply.header("wharf-layer"), cloud.address().to_string(), "{reply}");
    assert!(reply.head_after < within, "{:?}", reply.head_after);
    assert!(
        cloud
            .seen("", "")
            .iter()
            .all(|seen| seen.header("wharf-answer-within").is_none())
    );
}

#[tokio::test]
async fn what_a_node_below_says_shortens_its_wait_and_nonsense_does_not() {
    let parent = Upstream::start().await;
    parent.fault(Fault::any("").silent());

    for (said, shortest, longest) in [
        ("300", 250, 1000),
        ("99999", 1400, 2500),
        ("0", 1400, 2500),
        ("-3", 1400, 2500),
    ] {
        // One that was not answered before knows its parent to be away, and waits less.
        let node = Setup::below(&parent.url())
            .freshness("answer_within = \"1500ms\"")
            .start()
            .await;
        let request = Request::get(&new_blob(&parent).0).header("Wharf-Answer-Within", said);
        let reply = node.send(request).await;

        assert_eq!(reply.status, 504, "{said}: {reply}");
        let took = reply.head_after.as_millis();
        assert!(took >= shortest && took < longest, "{said}: {took} ms");
    }
}

#[tokio::test]
async fn a_parent_that_is_a_node_is_told_a_little_less_than_what_is_left() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::any("").header("Wharf", "0.1.0"));
    let node = Node::below(&parent).await;
    assert_eq!(node.get("/v2/a/tags/list").await.status, 200);
    parent.forget();

    let said = Request::get(&manifest("a", "v1")).header("Wharf-Answer-Within", "5000");
    assert_eq!(node.send(said).await.status, 200);
    assert_eq!(node.get(&new_blob(&parent).0).await.status, 200);

    let told = |method, path| -> u64 {
        let seen = parent.seen(method, path);
        seen[0]
            .header("wharf-answer-within")
            .expect("it is told")
            .parse()
            .unwrap()
    };
    assert!((4000..=4750).contains(&told("HEAD", "/manifests/")));
    assert!((18_000..=19_000).contains(&told("GET", "/blobs/")));
}

#[tokio::test]
async fn so_many_transfers_at_a_time_and_a_question_waits_for_none_of_them() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let gate = Gate::closed();
    parent.fault(Fault::get("/blobs/").times(2).hold_after(500, &gate));
    let node = Setup::below(&parent.url()).parent("transfers = 2").start().await;
    let mut pulls = JoinSet::new();
    for _ in 0..5 {
        let (client, (target, bytes)) = (node.client(), new_blob(&parent));
        pulls.spawn(async move { client.get(&target).await.body == bytes });
    }
    let waiting = async || sum(&node, "wharf_parent_waiting", &[]).await;
    eventually("three wait", async || waiting().await == 3.0).await;

    let reply = node.get(&manifest("a", "v1")).await;
    let sent = parent.count("GET", "/blobs/");
    gate.open();

    reply.assert_is(&image.manifest.bytes);
    assert_eq!(sent, 2);
    assert_eq!(pulls.join_all().await, [true; 5]);
    assert_eq!(waiting().await, 0.0);
}

#[tokio::test]
async fn a_transfer_that_is_cut_goes_on_before_one_that_waits_begins() {
    let parent = Upstream::start().await;
    let gate = Gate::closed();
    let ((cut, cut_bytes), (next, next_bytes)) = (new_blob(&parent), new_blob(&parent));
    parent.fault(
        Fault::get(&cut)
            .times(1)
            .hold_after(300, &gate)
            .cut_after(600, Cut::Fin),
    );
    let node = Setup::below(&parent.url()).parent("transfers = 1").start().await;
    let begin = |target: &str| {
        let (client, target) = (node.client(), target.to_owned());
        tokio::spawn(async move { client.get(&target).await })
    };
    let first = begin(&cut);
    eventually("the first comes", async || parent.count("GET", "/blobs/") == 1).await;
    let second = begin(&next);
    let waiting = async || sum(&node, "wharf_parent_waiting", &[]).await;
    eventually("the second waits", async || waiting().await == 1.0).await;
    gate.open();

    first.await.unwrap().assert_is(&cut_bytes);
    second.await.unwrap().assert_is(&next_bytes);

    let asked: Vec<bool> = parent
        .seen("GET", "/blobs/")
        .iter()
        .map(|seen| seen.header("range").is_some())
        .collect();
    assert_eq!(asked, [false, true, false], "whether the rest was asked for, in order");
}

#[tokio::test]
async fn who_waits_to_ask_does_not_ask_any_more_when_the_parent_wants_rest() {
    let parent = Upstream::start().await;
    let gate = Gate::closed();
    parent.fault(
        Fault::get("/blobs/")
            .times(1)
            .hold_head(&gate)
            .status(429)
            .header("Retry-After", "60"),
    );
    let node = Setup::below(&parent.url()).parent("requests = 1").start().await;
    let mut pulls = JoinSet::new();
    for _ in 0..10 {
        let (client, (target, _)) = (node.client(), new_blob(&parent));
        pulls.spawn(async move { client.get(&target).await.status });
    }
    let waiting = async || sum(&node, "wharf_parent_waiting", &[]).await;
    eventually("nine wait", async || waiting().await == 9.0).await;
    eventually("one is sent", async || parent.count("GET", "/blobs/") == 1).await;
    gate.open();

    assert_eq!(pulls.join_all().await, [503; 10]);
    assert_eq!(parent.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn who_waits_for_a_place_beyond_the_budget_is_told_to_come_again_and_why() {
    let parent = Upstream::start().await;
    let gate = Gate::closed();
    parent.fault(Fault::get("/blobs/").times(1).hold_after(500, &gate));
    let node = Setup::below(&parent.url())
        .named("narrow")
        .parent("transfers = 1")
        .freshness("answer_within = \"1s\"")
        .start()
        .await;
    let (client, (target, _)) = (node.client(), new_blob(&parent));
    let first = tokio::spawn(async move { client.get(&target).await });
    eventually("the first comes", async || parent.count("GET", "/blobs/") == 1).await;

    let second = node.get(&new_blob(&parent).0).await;

    assert_eq!(second.status, 503, "{second}");
    assert_later(&second);
    assert_eq!(second.header("wharf-layer"), "narrow");
    assert!(second.text().contains("transfers"), "{second}");
    assert_eq!(
        sum(&node, "wharf_parent_refused_total", &[("reason", "busy")]).await,
        1.0
    );
    // It says nothing of the parent.
    assert!(is(&node, "closed").await);
    gate.open();
    first.await.unwrap();
}

#[tokio::test]
async fn a_page_of_a_portal_in_between_is_believed_by_nobody() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let node = doubting(&parent).start().await;
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
    assert_eq!(node.get("/v2/a/tags/list").await.status, 200);
    let files = node.files().len();
    let page = "<html><body>Please log in</body></html>";
    let portal = Fault::any("")
        .status(200)
        .without("Docker-Content-Digest")
        .without("Docker-Distribution-API-Version");
    parent.fault(portal.header("Content-Type", "text/html").body(page));

    assert_stale(&node.get(&manifest("a", "v1")).await);
    assert_stale(&node.get("/v2/a/tags/list").await);
    for target in [
        manifest("a", "v2"),
        manifest("b", &image.manifest.digest),
        blob("b", &image.layer(0)),
        "/v2/b/tags/list".to_owned(),
    ] {
        let reply = node.get(&target).await;
        assert!(reply.status == 502 || !reply.complete, "{target}: {reply}");
    }

    assert!(!node.has_stored(&image.layer(0)));
    assert_eq!(node.files().len(), files);
    parent.without_faults();
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn an_anonymous_refusal_high_above_hides_no_tag_and_is_404_where_there_is_none() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = doubting(&parent).start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    parent.fault(Fault::any("/v2/a/").status(401));

    let unknown = node.get(&manifest("a", "v2")).await;
    parent.without_faults();
    // What a node above says that has no such tag itself.
    let above = Fault::any("/v2/a/")
        .status(404)
        .header("Wharf", "0.1.0")
        .header("Wharf-Denied", "1");
    parent.fault(above);
    let known = node.get(&manifest("a", "v1")).await;
    let neither = node.get(&manifest("a", "v2")).await;

    for reply in [unknown, neither] {
        reply.assert_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(reply.header("wharf-denied"), "1", "{reply}");
    }
    known.assert_is(&image.manifest.bytes);
    assert_stale(&known);
}

#[tokio::test]
async fn what_the_parent_refuses_or_forgot_is_served_by_its_digest_without_asking() {
    for status in [401, 403, 404] {
        let parent = Upstream::start().await;
        let image = parent.new_image("a", "v1", &[1000]);
        let node = Node::below(&parent).await;
        let targets = [manifest("a", &image.manifest.digest), blob("a", &image.layer(0))];
        for target in &targets {
            assert_eq!(node.get(target).await.status, 200);
        }
        parent.fault(Fault::any("").status(status));
        let asked = parent.count("", "");

        for target in &targets {
            assert_eq!(node.get(target).await.status, 200);
        }

        assert_eq!(parent.count("", ""), asked);
    }
}

#[tokio::test]
async fn only_so_many_connections_are_made_at_a_time() {
    let address = crate::support::ports::free(Family::V4);
    let listening = tokio::net::TcpListener::bind(address).await.unwrap();
    let node = Setup::below(&format!("https://{address}"))
        .parent("connect_timeout = \"3s\"")
        .start()
        .await;
    let mut pulls = JoinSet::new();
    for _ in 0..20 {
        let client = node.client();
        let target = blob("a", &crate::support::content::sha256(&random(10)));
        pulls.spawn(async move { client.get(&target).await.status });
    }

    // Nobody shakes hands with them, so that none is ever made.
    let mut made = Vec::new();
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(700), listening.accept()).await {
        made.push(stream);
    }

    assert_eq!(made.len(), 8);
    pulls.abort_all();
}

#[tokio::test]
async fn of_a_silent_parent_one_old_tag_waits_and_no_other_until_it_answers() {
    let parent = Upstream::start().await;
    let images = ["v1", "v2"].map(|tag| parent.new_image("a", tag, &[10]));
    let node = doubting(&parent)
        .freshness("answer_within = \"6s\"")
        .freshness("stale_after = \"1s\"")
        .start()
        .await;
    for (tag, image) in ["v1", "v2"].iter().zip(&images) {
        node.get(&manifest("a", tag)).await.assert_is(&image.manifest.bytes);
    }
    parent.fault(Fault::any("").silent());

    let first = node.get(&manifest("a", "v1")).await;
    assert!(first.head_after >= Duration::from_secs(1), "{:?}", first.head_after);
    assert_stale(&first);
    assert!(is(&node, "closed").await, "it is not asked any more as it is");
    for tag in ["v1", "v2", "v1", "v2"] {
        let next = node.get(&manifest("a", tag)).await;
        assert!(
            next.head_after < Duration::from_millis(500),
            "{tag}: {:?}",
            next.head_after
        );
        assert_stale(&next);
    }

    parent.without_faults();
    let moved = parent.new_image("a", "v2", &[20]);
    eventually("it is believed again", async || {
        node.get(&manifest("a", "v2")).await.body == moved.manifest.bytes
    })
    .await;
}

#[tokio::test]
async fn a_404_that_no_registry_says_takes_no_tag_away() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let node = doubting(&parent).start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    let page = || {
        Fault::any("")
            .status(404)
            .body("<h1>404 Not Found</h1>")
            .header("Content-Type", "text/html")
    };
    parent.fault(page());

    let tag = node.get(&manifest("a", "v1")).await;
    assert_stale(&tag);
    let unknown = node.get(&manifest("a", "v9")).await;
    assert_eq!(unknown.status, 502, "{unknown}");
    assert!(
        unknown.text().contains("is that the address of a registry?"),
        "{unknown}"
    );

    // Some registries say it so too.
    parent.without_faults();
    parent.fault(
        Fault::any("/manifests/")
            .status(404)
            .body("<h1>no</h1>")
            .header("Content-Type", "text/html"),
    );
    assert_eq!(node.get(&manifest("a", "v1")).await.status, 404);
}

#[tokio::test]
async fn what_the_parent_still_allows_is_shown_as_it_says_it() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = doubting(&parent).start().await;

    for left in [76, 75] {
        parent.without_faults();
        let limits = Fault::any("/manifests/").header("RateLimit-Limit", "100;w=21600");
        parent.fault(limits.header("RateLimit-Remaining", &format!("{left};w=21600")));
        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);

        assert_eq!(sum(&node, "wharf_parent_ratelimit_limit", &[]).await, 100.0);
        assert_eq!(
            sum(&node, "wharf_parent_ratelimit_remaining", &[]).await,
            f64::from(left)
        );
    }
    let asked = parent.count("", "") as f64;
    assert_eq!(sum(&node, "wharf_parent_requests_total", &[]).await, asked);
}
