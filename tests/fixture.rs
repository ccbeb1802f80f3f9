//! The stage itself, looked at by a client that is not ours.

use std::time::{Duration, Instant};

use crate::support::authority::Authority;
use crate::support::client::{Client, Request, blob, manifest, reqwest_trusting};
use crate::support::content::{Image, OCI_INDEX, index, random, sha256, sha512};
use crate::support::eventually;
use crate::support::ports::Family;
use crate::support::upstream::{Access, Book, Cut, Fault, Gate, Length, Paging, RangeRule, Upstream, basic};

const SIZE: usize = 300_000;

#[tokio::test]
async fn an_honest_parent_serves_images_by_tag_and_digest() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[SIZE]);
    let url = |target: String| format!("{}{target}", parent.url());

    let client = reqwest_trusting(None);
    let by_tag = client.get(url(manifest("plant/app", "v1"))).send().await.unwrap();
    let digest = by_tag.headers()["docker-content-digest"].to_str().unwrap().to_owned();
    let body = by_tag.bytes().await.unwrap();
    let layer = client
        .get(url(blob("plant/app", &image.layer(0))))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let absent = client.get(url(manifest("plant/app", "v2"))).send().await.unwrap();

    assert_eq!(
        (sha256(&body), digest.as_str()),
        (digest.clone(), image.manifest.digest.as_str())
    );
    assert_eq!(layer, image.layers[0]);
    assert_eq!(absent.status(), 404);
    assert_eq!(parent.count("GET", "/manifests/"), 2);
    assert_eq!(parent.body_bytes("/blobs/"), SIZE as u64);
}

#[tokio::test]
async fn a_parent_speaks_over_ipv6_tls_and_http_2() {
    let authority = Authority::new();
    let parents = [
        Upstream::on(Family::V6).await,
        Upstream::tls(&authority).await,
        Upstream::h2(&authority).await,
    ];

    for parent in &parents {
        let bytes = random(SIZE);
        let digest = parent.blob("a", &bytes);
        let client = reqwest_trusting(Some(&authority));
        let reply = client
            .get(format!("{}{}", parent.url(), blob("a", &digest)))
            .send()
            .await
            .unwrap();

        assert_eq!(reply.bytes().await.unwrap(), bytes, "{}", parent.url());
        assert_eq!(parent.body_bytes("/blobs/"), SIZE as u64);
    }
    assert_eq!(parents[2].seen("GET", "")[0].header(":version"), Some("HTTP/2.0"));
}

#[tokio::test]
async fn ranges_are_honoured_ignored_or_answered_wrongly_as_told() {
    let parent = Upstream::start().await;
    let bytes = random(1000);
    let target = blob("a", &parent.blob("a", &bytes));
    let client = Client::of(parent.address());

    client.range(&target, "10-19").await.assert_part(&bytes, 10, 19);
    client.range(&target, "-5").await.assert_part(&bytes, 995, 999);
    client.range(&target, "990-2000").await.assert_part(&bytes, 990, 999);
    assert_eq!(client.range(&target, "1000-").await.status, 416);
    parent.fault(Fault::get("/blobs/").range(RangeRule::Ignored).times(1));
    client.range(&target, "10-19").await.assert_is(&bytes);
    parent.fault(Fault::get("/blobs/").range(RangeRule::OtherBytes(7)).times(1));
    let other = client.range(&target, "10-19").await;
    assert_eq!(
        (other.header("content-range"), &other.body[..]),
        ("bytes 10-19/1000", &bytes[3..13])
    );
    parent.fault(Fault::get("/blobs/").range(RangeRule::FromTheStart).times(1));
    let start = client.range(&target, "10-19").await;
    assert_eq!((start.status, start.header("content-range")), (206, "bytes 0-999/1000"));
}

#[tokio::test]
async fn a_body_is_cut_flipped_or_held_at_the_very_byte() {
    let parent = Upstream::start().await;
    let bytes = random(SIZE);
    let target = blob("a", &parent.blob("a", &bytes));
    let client = Client::of(parent.address());

    for cut in [Cut::Fin, Cut::Rst] {
        parent.forget();
        parent.fault(Fault::get("/blobs/").cut_after(100_001, cut).times(1));
        let reply = client.get(&target).await;
        assert!(!reply.complete && reply.body.len() <= 100_001, "{reply}");
        assert_eq!(parent.body_bytes("/blobs/"), 100_001);
    }
    parent.fault(Fault::get("/blobs/").flip_at(250_000).times(2));
    for (range, at) in [("0-", 250_000), ("249999-", 1)] {
        let reply = client.range(&target, range).await;
        let first = SIZE - reply.body.len();
        let wrong: Vec<usize> = (0..reply.body.len())
            .filter(|at| reply.body[*at] != bytes[first + at])
            .collect();
        assert_eq!(wrong, [at]);
    }
    let gate = Gate::closed();
    parent.fault(Fault::get("/blobs/").hold_after(200_000, &gate).times(1));
    let mut open = client.open(Request::get(&target)).await;
    assert_eq!(open.read(200_000).await.len(), 200_000);
    assert_eq!(parent.seen("GET", "").last().unwrap().body_bytes(), 200_000);
    gate.open();
    assert!(open.rest().await.0.body == bytes);
}

#[tokio::test]
async fn lengths_are_true_false_or_unsaid_as_told() {
    let parent = Upstream::start().await;
    let bytes = random(5000);
    let target = blob("a", &parent.blob("a", &bytes));
    let client = Client::of(parent.address());
    let replies = [
        (Length::Chunked, true, 5000),
        (Length::Unsaid, true, 5000),
        (Length::Says(6000), false, 5000),
        (Length::Says(4000), true, 4000),
    ];

    for (length, complete, size) in replies {
        parent.fault(Fault::get("/blobs/").length(length).times(1));
        let (reply, _) = client.open(Request::get(&target)).await.rest().await;
        assert_eq!((reply.complete, reply.body.len()), (complete, size), "{length:?}");
    }
    parent.fault(Fault::get("/blobs/").endless().times(1));
    let mut open = client.open(Request::get(&target)).await;
    assert!(open.read(1_000_000).await.len() >= 1_000_000);
    drop(open);
    eventually("the parent sees that its reader left", async || {
        parent.seen("GET", "").iter().all(|s| s.ended())
    })
    .await;
}

#[tokio::test]
async fn answers_are_delayed_paced_stalled_and_redirected_as_told() {
    let parent = Upstream::start().await;
    let bytes = random(SIZE);
    let target = blob("a", &parent.blob("a", &bytes));
    let client = Client::of(parent.address());

    parent.fault(Fault::get("/blobs/").delay(Duration::from_millis(150)).times(1));
    assert!(client.get(&target).await.head_after >= Duration::from_millis(150));
    let begun = Instant::now();
    parent.fault(Fault::get("/blobs/").pace(2_000_000).times(1));
    client.get(&target).await.assert_is(&bytes);
    assert!(begun.elapsed() >= Duration::from_millis(140), "{:?}", begun.elapsed());
    parent.fault(Fault::get("/blobs/").stall_after(1000).times(1));
    let mut open = client.open(Request::get(&target)).await;
    assert_eq!(open.read(1000).await.len(), 1000);
    assert!(!parent.seen("GET", "").last().unwrap().ended());
    parent.fault(Fault::get("/blobs/").redirect("http://elsewhere/x").times(1));
    let redirected = client.get(&target).await;
    assert_eq!(
        (redirected.status, redirected.header("location")),
        (307, "http://elsewhere/x")
    );
    parent.fault(
        Fault::any("/blobs/")
            .skip(1)
            .times(1)
            .status(429)
            .header("Retry-After", "7"),
    );
    assert_eq!(client.head(&target).await.status, 200);
    assert_eq!(client.get(&target).await.header("retry-after"), "7");
    assert_eq!(client.get(&target).await.status, 200);
}

#[tokio::test]
async fn tokens_are_given_for_a_repository_and_end() {
    let parent = Upstream::start().await;
    let book = Book::of("operator", "secret");
    parent.bearer(&book);
    let target = blob("a", &parent.blob("a", &random(10)));
    let client = Client::of(parent.address());
    let token = async |query: &str, authorization: &str| {
        client
            .send(Request::get(&format!("/token?{query}")).header("Authorization", authorization))
            .await
    };
    let with = async |token: &str| {
        client
            .send(Request::get(&target).header("Authorization", &format!("Bearer {token}")))
            .await
            .status
    };

    let challenge = client.get(&target).await.header("www-authenticate").to_owned();
    let refused = token("scope=repository:a:pull", &basic("operator", "wrong")).await;
    let other = token("scope=repository:b:pull", &basic("operator", "secret"))
        .await
        .json();
    let right = token("scope=repository:a:pull,push", &basic("operator", "secret"))
        .await
        .json();

    assert!(
        challenge.starts_with("Bearer realm=") && challenge.contains("repository:a:pull"),
        "{challenge}"
    );
    assert_eq!(refused.status, 401);
    assert_eq!(with(other["token"].as_str().unwrap()).await, 401);
    assert_eq!(with(right["token"].as_str().unwrap()).await, 200);
    book.revoke();
    assert_eq!(with(right["token"].as_str().unwrap()).await, 401);
    parent.access(Access::Basic {
        user: "a".to_owned(),
        password: "b".to_owned(),
    });
    assert_eq!(
        client
            .send(Request::get(&target).header("Authorization", &basic("a", "b")))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn lists_of_tags_and_referrers_follow_the_rule_that_was_set() {
    let parent = Upstream::start().await;
    let image = Image::sha512(&[10]);
    for tag in ["a", "b", "c"] {
        parent.image("x", tag, &image);
    }
    let artifact = Image::referring_to(&image.manifest, "application/x.sbom");
    parent.image("x", "sbom", &artifact);
    let client = Client::of(parent.address());

    assert_eq!(
        client.get("/v2/x/tags/list?n=1").await.json()["tags"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    parent.paging(Paging::AtMost(2));
    let page = client.get("/v2/x/tags/list?n=5").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["a", "b"]));
    assert!(page.header("link").contains("last=b"), "{page}");
    let referrers = client.get(&format!("/v2/x/referrers/{}", image.manifest.digest)).await;
    assert_eq!(referrers.header("content-type"), OCI_INDEX);
    assert_eq!(referrers.json()["manifests"][0]["digest"], artifact.manifest.digest);
    parent.referrers(false);
    assert_eq!(
        client
            .get(&format!("/v2/x/referrers/{}", image.manifest.digest))
            .await
            .status,
        404
    );
    assert_eq!(image.manifest.digest, sha512(&image.manifest.bytes));
    assert_eq!(index(&[&image, &artifact]).media_type, OCI_INDEX);
}

#[tokio::test]
async fn a_stopped_parent_refuses_and_comes_back_with_all_it_had() {
    let mut parent = Upstream::start().await;
    let target = blob("a", &parent.blob("a", &random(10)));
    let client = Client::of(parent.address());
    let (_, mut kept) = client.open(Request::get(&target)).await.rest().await;

    parent.stop().await;
    assert!(tokio::net::TcpStream::connect(parent.address()).await.is_err());
    assert!(kept.is_closed_within(Duration::from_secs(5)).await);
    parent.start_again().await;

    assert_eq!(client.get(&target).await.status, 200);
    assert_eq!(parent.connections(), 2);
}
