//! The stage itself, looked at by a client that is not ours.

use std::time::{Duration, Instant};

use futures_util::stream;

use crate::support::authority::Authority;
use crate::support::client::{Client, Request, blob, manifest, reqwest_trusting};
use crate::support::content::{Image, OCI_INDEX, index, random, sha256, sha512};
use crate::support::eventually;
use crate::support::ports::Family;
use crate::support::pushing::Pusher;
use crate::support::upstream::{
    Access, Book, Broken, Cut, Fault, Gate, Length, Locations, Paging, RangeRule, Upstream, What, basic,
};

const SIZE: usize = 300_000;

/// A parent that takes pushes, and who pushes to its repository `a`.
async fn pushed_to() -> (Upstream, Pusher) {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    let app = to(&parent, "a");
    (parent, app)
}

fn to(parent: &Upstream, repository: &str) -> Pusher {
    Pusher::of(Client::of(parent.address()), repository)
}

/// Sends `request` and returns all that comes for it, also when that is nothing.
async fn answer_to(parent: &Upstream, request: Request) -> String {
    let mut connection = Client::of(parent.address()).connect().await;
    let written = request.header("Connection", "close").written("parent");
    // The other side may have had enough before it has all.
    let _ = connection.write(&written).await;
    String::from_utf8_lossy(&connection.read_to_end().await).into_owned()
}

/// Sends the head of a `PATCH` of 1000 bytes and these, then hangs up.
async fn hang_up_within(parent: &Upstream, location: &str, bytes: &[u8]) {
    let mut connection = Client::of(parent.address()).connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: parent\r\nContent-Length: 1000\r\n\r\n");
    connection.write(&[head.as_bytes(), bytes].concat()).await.unwrap();
    drop(connection);
    all_ended(parent).await;
}

async fn all_ended(parent: &Upstream) {
    eventually("every request ends", async || {
        parent.seen("", "").iter().all(|seen| seen.ended())
    })
    .await;
}

fn put_manifest(reference: &str, image: &Image) -> Request {
    Request::new("PUT", &manifest("a", reference))
        .header("Content-Type", &image.manifest.media_type)
        .body(&image.manifest.bytes)
}

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

#[tokio::test]
async fn a_parent_that_was_not_told_to_takes_no_push() {
    let parent = Upstream::start().await;
    let app = to(&parent, "a");
    let image = Image::of(&[10]);

    let begun = app.begin("").await;
    let put = app.put_manifest("v1", &image.manifest).await;
    let finished = app
        .finish(begun.header("location"), &image.layer(0), &image.layers[0])
        .await;

    assert_eq!((begun.status, app.delete("manifests/v1").await.status), (202, 204));
    assert_eq!((put.status, finished.status), (404, 404));
    assert!(parent.blobs().is_empty() && parent.manifests().is_empty());
    assert!(parent.arrivals().iter().all(|arrival| !arrival.kept));
}

#[tokio::test]
async fn what_was_pushed_to_a_parent_is_pulled_listed_and_referred_to() {
    let (parent, app) = pushed_to().await;
    let image = Image::sha512(&[SIZE, 0, 10]);
    let artifact = Image::referring_to(&image.manifest, "application/x.sbom");

    app.blobs_of(&image).await;
    app.manifest(&image.manifest.digest, &image.manifest).await;
    app.blobs_of(&artifact).await;
    let referring = app.put_manifest("sbom", &artifact.manifest).await;
    let several = index(&[&image, &artifact]);
    app.manifest("both", &several).await;

    app.assert_has(&image.manifest.digest, &image).await;
    app.assert_has("sbom", &artifact).await;
    let put = (
        referring.header("docker-content-digest"),
        referring.header("oci-subject"),
    );
    assert_eq!(put, (&artifact.manifest.digest[..], &image.manifest.digest[..]));
    let target = manifest("a", &artifact.manifest.digest);
    assert_eq!(referring.header("location"), target);
    assert_eq!(app.tags().await, ["both", "sbom"]);
    assert_eq!(
        app.referrers(&image.manifest.digest).await,
        [&artifact.manifest.digest[..]]
    );
    parent.referrers(false);
    assert!(!app.put_manifest("sbom", &artifact.manifest).await.has("oci-subject"));
}

#[tokio::test]
async fn an_upload_goes_on_where_it_is_and_nowhere_else() {
    let (parent, app) = pushed_to().await;
    let bytes = random(1000);

    let begun = app.begin("").await;
    let id = begun.header("docker-upload-uuid").to_owned();
    assert_eq!(begun.header("range"), "0-0");
    assert!(
        begun
            .header("location")
            .starts_with(&format!("/v2/a/blobs/uploads/{id}?"))
    );
    let first = app.patch(begun.header("location"), Some("0-599"), &bytes[..600]).await;
    assert_eq!((first.status, first.header("range")), (202, "0-599"));
    let location = first.header("location");
    assert_ne!(location, begun.header("location"));
    for (range, piece) in [("700-999", &bytes[700..]), ("0-599", &bytes[..600]), ("x", &bytes[..1])] {
        let refused = app.patch(location, Some(range), piece).await;
        refused.assert_error(416, "RANGE_INVALID");
        assert_eq!(
            (refused.header("range"), refused.header("location")),
            ("0-599", location)
        );
    }
    let short = app.patch(location, Some("600-999"), &bytes[600..700]).await;
    short.assert_error(400, "SIZE_INVALID");
    let second = app.patch(location, None, &bytes[600..900]).await;
    let asked = Client::of(parent.address()).get(second.header("location")).await;
    assert_eq!((asked.status, asked.header("range")), (204, "0-899"));
    let nameless = Request::new("PUT", asked.header("location")).header("Content-Length", "0");
    app.send(nameless).await.assert_error(400, "DIGEST_INVALID");
    let put = app
        .finish(asked.header("location"), &sha256(&bytes), &bytes[900..])
        .await;

    assert_eq!(
        (put.status, put.header("docker-content-digest")),
        (201, &sha256(&bytes)[..])
    );
    app.get(&format!("blobs/{}", sha256(&bytes))).await.assert_is(&bytes);
    app.patch(location, None, b"x")
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_upload_ends_with_a_wrong_digest_or_when_it_is_cancelled() {
    let (parent, app) = pushed_to().await;
    parent.locations(Locations::Absolute);

    let [wrong, cancelled, other] = [app.open().await, app.open().await, app.open().await];
    assert!(wrong.starts_with(&parent.url()), "{wrong}");
    let path = |location: &str| location.strip_prefix(&parent.url()).unwrap().to_owned();
    let elsewhere = path(&other).replace("/v2/a/", "/v2/b/");
    let put = app.finish(&path(&wrong), &sha256(b"promised"), b"what came").await;
    put.assert_error(400, "DIGEST_INVALID");
    let deleted = app.send(Request::new("DELETE", &path(&cancelled))).await;

    assert_eq!(deleted.status, 204);
    for location in [path(&wrong), path(&cancelled), elsewhere] {
        let put = app.finish(&location, &sha256(b"x"), b"x").await;
        put.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert!(parent.blobs().is_empty() && parent.open_uploads("a") == 1);
}

#[tokio::test]
async fn a_blob_comes_in_one_request_or_from_another_repository() {
    let (parent, app) = pushed_to().await;
    let (here, there) = (random(1000), random(1000));
    let digest = parent.blob("b", &there);
    let mount = format!("?mount={digest}&from=b");

    let whole = Request::new("POST", &format!("/v2/a/blobs/uploads/?digest={}", sha256(&here)));
    assert_eq!(app.send(whole.body(&here)).await.status, 201);
    parent.mounts(false);
    assert_eq!(app.begin(&mount).await.status, 202);
    assert_eq!(app.head(&format!("blobs/{digest}")).await.status, 404);
    parent.mounts(true);
    assert_eq!(app.begin(&format!("?mount={digest}&from=c")).await.status, 202);
    let mounted = app.begin(&mount).await;

    assert_eq!(
        (mounted.status, mounted.header("location")),
        (201, &blob("a", &digest)[..])
    );
    app.get(&format!("blobs/{digest}")).await.assert_is(&there);
    app.get(&format!("blobs/{}", sha256(&here))).await.assert_is(&here);
    assert_eq!((parent.open_uploads("a"), parent.blob_bytes_received()), (2, 1000));
    assert_eq!((parent.times_kept(&sha256(&here)), parent.times_kept(&digest)), (1, 0));
}

#[tokio::test]
async fn bodies_of_unsaid_length_are_taken_over_http_1_and_2() {
    let authority = Authority::new();
    for parent in [Upstream::tls(&authority).await, Upstream::h2(&authority).await] {
        parent.takes_pushes();
        let bytes = random(SIZE);
        let client = reqwest_trusting(Some(&authority));
        let at = |location: &str| format!("{}{location}", parent.url());
        let location = |reply: &reqwest::Response| at(reply.headers()["location"].to_str().unwrap());

        let begun = client.post(at("/v2/a/blobs/uploads/")).send().await.unwrap();
        let pieces = bytes
            .chunks(70_000)
            .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
        let body = reqwest::Body::wrap_stream(stream::iter(pieces.collect::<Vec<_>>()));
        let patched = client.patch(location(&begun)).body(body).send().await.unwrap();
        assert_eq!(patched.headers()["range"], format!("0-{}", SIZE - 1));
        let put = format!("{}&digest={}", location(&patched), sha256(&bytes));
        let put = client.put(put).send().await.unwrap();

        assert_eq!(
            (put.status().as_u16(), parent.blob_bytes_received()),
            (201, SIZE as u64)
        );
        let pulled = client.get(at(&blob("a", &sha256(&bytes)))).send().await.unwrap();
        assert_eq!(pulled.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_manifest_waits_for_all_that_it_names_to_be_in_its_own_repository() {
    let (parent, app) = pushed_to().await;
    let image = Image::of(&[10]);
    let several = index(&[&image]);
    to(&parent, "b").image("v1", &image).await;

    let refused = app.put_manifest("v1", &image.manifest).await;
    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    parent.lacking(404);
    app.blob(&image.layers[0]).await;
    let refused = app.put_manifest("v1", &image.manifest).await;
    refused.assert_error(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(refused.text().contains(&image.config_digest()), "{refused}");
    app.blob(&image.config).await;
    let refused = app.put_manifest("all", &several).await;
    refused.assert_error(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(app.put_manifest("v1", &image.manifest).await.status, 201);
    assert_eq!(app.put_manifest("all", &several).await.status, 201);
    let other = app.put_manifest(&several.digest, &image.manifest).await;

    other.assert_error(400, "DIGEST_INVALID");
    let mut broken = image.manifest.clone();
    broken.bytes = broken.bytes.slice(1..);
    app.put_manifest("v2", &broken)
        .await
        .assert_error(400, "MANIFEST_INVALID");
    assert_eq!(parent.manifests_kept("a"), ["v1", "all"]);
}

#[tokio::test]
async fn manifests_are_deleted_by_tag_and_by_digest_unless_the_parent_deletes_nothing() {
    let (parent, app) = pushed_to().await;
    let image = Image::of(&[10]);
    for tag in ["v1", "v2", "v3"] {
        app.image(tag, &image).await;
    }
    let by_digest = format!("manifests/{}", image.manifest.digest);

    parent.deletes(false);
    app.delete("manifests/v1").await.assert_error(405, "UNSUPPORTED");
    parent.deletes(true);
    assert_eq!(app.delete("manifests/v1").await.status, 202);
    app.delete("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(app.tags().await, ["v2", "v3"]);
    app.assert_has(&image.manifest.digest, &image).await;
    assert_eq!(app.delete(&by_digest).await.status, 202);
    app.delete(&by_digest).await.assert_error(404, "MANIFEST_UNKNOWN");

    assert!(app.tags().await.is_empty() && parent.manifests().is_empty());
    let absent = to(&parent, "b").delete("manifests/v1").await;
    absent.assert_error(404, "NAME_UNKNOWN");
    assert_eq!(app.delete(&format!("blobs/{}", image.layer(0))).await.status, 202);
    assert_eq!(parent.blobs(), [("a".to_owned(), image.config_digest())].into());
}

#[tokio::test]
async fn every_request_of_a_push_is_written_down_with_its_bytes() {
    let (parent, app) = pushed_to().await;
    let image = Image::of(&[SIZE]);
    app.image("v1", &image).await;
    app.image("v1", &image).await;
    app.manifest(&image.manifest.digest, &image.manifest).await;
    to(&parent, "b").put_manifest("v1", &image.manifest).await;

    let layer = What::Blob(image.layer(0));
    let upload = What::Upload(String::new());
    let v1 = What::Manifest("v1".to_owned());
    let arrivals = parent.arrivals();
    let seen: Vec<_> = arrivals
        .iter()
        .map(|arrival| {
            (
                &arrival.method[..],
                &arrival.what,
                arrival.received_bytes,
                arrival.status,
            )
        })
        .collect();
    assert_eq!(
        seen[..2],
        [("POST", &upload, 0, 202), ("PUT", &layer, SIZE as u64, 201)]
    );
    assert_eq!(seen[4], ("PUT", &v1, image.manifest.bytes.len() as u64, 201));
    let last = arrivals.last().unwrap();
    assert_eq!((&last.repository[..], last.status, last.kept), ("b", 400, false));
    assert_eq!(arrivals[4].digest.as_ref(), Some(&image.manifest.digest));

    let blobs = 2 * (SIZE + image.config.len());
    assert_eq!(parent.blob_bytes_received(), blobs as u64);
    assert_eq!(
        (
            parent.times_kept(&image.layer(0)),
            parent.times_kept(&image.manifest.digest)
        ),
        (2, 3)
    );
    assert_eq!(parent.manifests_kept("a"), ["v1", "v1", &image.manifest.digest]);
    parent.forget();
    assert!(parent.arrivals().is_empty() && parent.tag_of("a", "v1").is_some());
}

#[tokio::test]
async fn what_came_before_a_client_hung_up_is_kept_forgotten_or_gone_with_its_upload() {
    let (parent, app) = pushed_to().await;
    let bytes = random(1000);
    let cases = [
        (Broken::Kept, 204, "0-399"),
        (Broken::Forgotten, 204, "0-99"),
        (Broken::Gone, 404, ""),
    ];

    for (broken, status, range) in cases {
        parent.when_broken(broken);
        let location = app.open().await;
        app.patch(&location, None, &bytes[..100]).await;
        hang_up_within(&parent, &location, &bytes[100..400]).await;

        let asked = Client::of(parent.address()).get(&location).await;
        assert_eq!((asked.status, asked.header("range")), (status, range), "{broken:?}");
        let cut = parent
            .arrivals()
            .into_iter()
            .rfind(|arrival| arrival.method == "PATCH")
            .unwrap();
        assert_eq!((cut.received_bytes, cut.status, cut.kept), (300, 0, false));
    }
}

#[tokio::test]
async fn an_upload_at_an_old_location_is_cancelled_by_a_parent_that_minds() {
    let (parent, app) = pushed_to().await;
    let location = app.open().await;
    let newer = app.patch(&location, None, b"some").await.header("location").to_owned();
    assert_eq!(app.patch(&location, None, b"more").await.status, 202);

    parent.minds_locations(true);
    app.patch(&newer, None, b"more")
        .await
        .assert_error(404, "BLOB_UPLOAD_INVALID");

    app.patch(&newer, None, b"more")
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let pieces = app.patch(&app.open().await, None, b"some").await;
    let put = app
        .finish(pieces.header("location"), &sha256(b"some more"), b" more")
        .await;
    assert_eq!(put.status, 201, "{put}");
}

#[tokio::test]
async fn a_parent_restored_from_a_backup_has_lost_what_came_since() {
    let (parent, app) = pushed_to().await;
    let [before, since] = [Image::of(&[10]), Image::of(&[20])];
    app.image("v1", &before).await;
    let upload = app.open().await;
    let backup = parent.backup();
    app.image("v1", &since).await;
    app.image("v2", &since).await;
    app.patch(&upload, None, b"since").await;
    let other = app.open().await;

    parent.restore(backup);

    app.assert_has("v1", &before).await;
    assert_eq!(app.tags().await, ["v1"]);
    assert_eq!(app.head(&format!("blobs/{}", since.layer(0))).await.status, 404);
    app.patch(&other, None, b"x")
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(app.finish(&upload, &sha256(b"all"), b"all").await.status, 201);
}

#[tokio::test]
async fn what_was_carried_out_may_go_unanswered() {
    let (parent, app) = pushed_to().await;
    let image = Image::of(&[10]);
    let layer = &image.layers[0];
    parent.fault(Fault::put("/manifests/").unanswered(Cut::Rst).times(2));
    parent.fault(Fault::put("/blobs/uploads/").unanswered(Cut::Fin).times(1));

    let location = format!("{}&digest={}", app.open().await, image.layer(0));
    let put = answer_to(&parent, Request::new("PUT", &location).body(layer)).await;
    app.blob(&image.config).await;
    let tagged = [
        answer_to(&parent, put_manifest("v1", &image)).await,
        answer_to(&parent, put_manifest("v2", &image)).await,
        answer_to(&parent, put_manifest("v3", &image)).await,
    ];

    assert_eq!((&put[..], &tagged[0][..], &tagged[1][..]), ("", "", ""));
    assert!(tagged[2].starts_with("HTTP/1.1 201 "), "{}", tagged[2]);
    app.assert_has("v1", &image).await;
    assert_eq!(app.tags().await, ["v1", "v2", "v3"]);
    let first = parent
        .arrivals()
        .into_iter()
        .find(|arrival| arrival.method == "PUT")
        .unwrap();
    assert_eq!(
        (first.status, first.kept, first.what),
        (0, true, What::Blob(image.layer(0)))
    );
    assert_eq!(parent.times_kept(&image.manifest.digest), 3);
}

#[tokio::test]
async fn puts_to_one_repository_are_refused_with_a_status_until_the_lie_ends() {
    let (parent, app) = pushed_to().await;
    let image = Image::of(&[10]);
    app.blobs_of(&image).await;

    for (status, code) in [
        (400, "UNKNOWN"),
        (403, "DENIED"),
        (413, "SIZE_INVALID"),
        (429, "TOOMANYREQUESTS"),
    ] {
        let lie = Fault::put("/v2/a/")
            .status(status)
            .code(code)
            .header("Retry-After", "7");
        parent.fault(lie.clone());
        let refused = app.put_manifest("v1", &image.manifest).await;
        refused.assert_error(status, code);
        assert_eq!(refused.header("retry-after"), "7");
        let put = app.finish(&app.open().await, &sha256(b"x"), b"x").await;
        put.assert_error(status, code);
        to(&parent, "b").image("v1", &image).await;
        assert_eq!(app.tags().await, [""; 0], "a refused manifest was kept");
        lie.end();
    }

    app.manifest("v1", &image.manifest).await;
    parent.fault(Fault::put("").status(500));
    to(&parent, "b")
        .put_manifest("v2", &image.manifest)
        .await
        .assert_error(500, "UNKNOWN");
    parent.without_faults();
    assert_eq!(to(&parent, "b").put_manifest("v2", &image.manifest).await.status, 201);
    assert_eq!(parent.manifests_kept("a"), ["v1"]);
}

#[tokio::test]
async fn a_body_may_be_refused_before_it_has_come() {
    let (parent, app) = pushed_to().await;
    parent.fault(Fault::patch("").status(413).code("SIZE_INVALID").unread());
    let location = app.open().await;
    let mut connection = Client::of(parent.address()).connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: parent\r\nContent-Length: 1000\r\n\r\n");

    connection.write(head.as_bytes()).await.unwrap();
    let reply = connection.read_to_end().await;

    assert!(
        reply.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&reply)
    );
    assert_eq!(parent.blob_bytes_received(), 0);
}

#[tokio::test]
async fn writes_are_refused_where_reads_are_not() {
    let (parent, app) = pushed_to().await;
    let image = parent.new_image("a", "v1", &[10]);

    for (status, code) in [(401, "UNAUTHORIZED"), (403, "DENIED")] {
        let lie = Fault::write("").status(status).code(code);
        parent.fault(lie.clone());
        app.begin("").await.assert_error(status, code);
        app.patch("/v2/a/blobs/uploads/x", None, b"x")
            .await
            .assert_error(status, code);
        app.put_manifest("v2", &image.manifest).await.assert_error(status, code);
        app.delete("manifests/v1").await.assert_error(status, code);
        app.assert_has("v1", &image).await;
        lie.end();
    }

    assert_eq!((app.tags().await, parent.open_uploads("a")), (vec!["v1".to_owned()], 0));
    parent.declines_pushes(true);
    app.begin("").await.assert_error(405, "UNSUPPORTED");
    app.delete("manifests/v1").await.assert_error(405, "UNSUPPORTED");
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_token_pushes_deletes_and_mounts_only_as_far_as_its_grant_goes() {
    let (parent, _) = pushed_to().await;
    let book = Book::anonymous();
    parent.bearer(&book);
    let image = parent.new_image("a", "v1", &[10]);
    let digest = parent.blob("b", &random(10));
    let client = Client::of(parent.address());
    let send = async |scopes: &[&str], method: &str, target: &str| {
        let query: String = scopes
            .iter()
            .map(|scope| format!("scope=repository:{scope}&"))
            .collect();
        let token = client.get(&format!("/token?{query}")).await.json();
        let shown = format!("Bearer {}", token["token"].as_str().unwrap());
        let request = Request::new(method, target).header("Content-Length", "0");
        client.send(request.header("Authorization", &shown)).await
    };
    let uploads = "/v2/a/blobs/uploads/";
    let mount = format!("{uploads}?mount={digest}&from=b");

    let refused = send(&["a:pull"], "POST", uploads).await;
    refused.assert_error(401, "UNAUTHORIZED");
    let challenge = refused.header("www-authenticate");
    assert!(
        challenge.contains(r#"scope="repository:a:pull,push",error="insufficient_scope""#),
        "{challenge}"
    );
    assert_eq!(send(&["a:pull,push"], "POST", uploads).await.status, 202);
    let refused = send(&["a:pull,push"], "POST", &mount).await;
    let challenge = refused.header("www-authenticate");
    assert!(
        challenge.contains(r#"scope="repository:a:pull,push repository:b:pull""#),
        "{challenge}"
    );
    assert_eq!(send(&["a:pull,push", "b:pull"], "POST", &mount).await.status, 201);
    let v1 = manifest("a", "v1");
    assert_eq!(send(&["a:pull,push"], "DELETE", &v1).await.status, 401);
    assert_eq!(send(&["a:delete"], "DELETE", &v1).await.status, 202);

    book.withhold("push");
    assert_eq!(send(&["a:pull,push"], "POST", uploads).await.status, 401);
    let pulled = send(&["a:pull,push"], "GET", &blob("a", &image.layer(0))).await;
    pulled.assert_is(&image.layers[0]);
    book.withhold_nothing();
    assert_eq!(send(&["a:pull,push"], "POST", uploads).await.status, 202);
}

#[tokio::test]
async fn an_upload_that_the_parent_forgot_is_unknown_at_its_next_piece() {
    let (parent, app) = pushed_to().await;
    let location = app.open().await;
    let gate = Gate::closed();
    app.patch(&location, None, b"some").await;
    parent.fault(Fault::patch("").pause_reading_after(1, &gate).times(1));

    let half_way = async {
        eventually("a byte is read", async || parent.blob_bytes_received() == 5).await;
        parent.forget_uploads();
        gate.open();
    };
    let (patched, ()) = tokio::join!(app.patch(&location, None, b"more"), half_way);

    patched.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    app.patch(&location, None, b"x")
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    app.blob(b"a new one").await;
}

#[tokio::test]
async fn a_connection_is_cut_once_when_so_many_bytes_of_uploads_have_come() {
    let (parent, app) = pushed_to().await;
    let bytes = random(1000);

    for cut in [Cut::Rst, Cut::Fin] {
        parent.forget();
        let [first, second] = [app.open().await, app.open().await];
        parent.fault(Fault::any("/blobs/uploads/").cut_arrival_after(700, cut));
        assert_eq!(app.patch(&first, None, &bytes[..600]).await.status, 202);
        let reply = answer_to(&parent, Request::new("PATCH", &second).body(&bytes)).await;
        all_ended(&parent).await;
        assert_eq!((&reply[..], parent.blob_bytes_received()), ("", 700));
        let asked = Client::of(parent.address()).get(&second).await;
        assert_eq!(asked.header("range"), "0-99");
        let put = app
            .finish(asked.header("location"), &sha256(&bytes), &bytes[100..])
            .await;
        assert_eq!(put.status, 201, "{put}");
    }
    parent.when_broken(Broken::Forgotten);
    let location = app.open().await;
    parent.fault(Fault::put("/blobs/uploads/").cut_arrival_after(1000, Cut::Rst));
    let put = Request::new("PUT", &format!("{location}&digest={}", sha256(&bytes)));
    assert_eq!(answer_to(&parent, put.body(&bytes)).await, "");
    all_ended(&parent).await;
    app.blob(&bytes).await;
    assert_eq!(app.finish(&location, &sha256(b"all"), b"all").await.status, 201);
}

#[tokio::test]
async fn a_request_over_http_2_is_cut_or_left_unanswered_alone() {
    let authority = Authority::new();
    let parent = Upstream::h2(&authority).await;
    parent.takes_pushes();
    let client = reqwest_trusting(Some(&authority));
    let begin = || client.post(format!("{}/v2/a/blobs/uploads/", parent.url())).send();
    let location = begin().await.unwrap().headers()["location"]
        .to_str()
        .unwrap()
        .to_owned();
    let patch = || {
        client
            .patch(format!("{}{location}", parent.url()))
            .body(vec![7; 1000])
            .send()
    };

    parent.fault(Fault::patch("").cut_arrival_after(400, Cut::Rst));
    assert!(patch().await.is_err());
    assert_eq!(parent.blob_bytes_received(), 400);
    parent.fault(Fault::patch("").unanswered(Cut::Rst).times(1));
    assert!(patch().await.is_err());

    assert_eq!(patch().await.unwrap().headers()["range"], "0-2399");
    assert_eq!(parent.connections(), 1);
}

#[tokio::test]
async fn a_parent_that_stalls_takes_no_byte_before_its_gate_opens() {
    let (parent, app) = pushed_to().await;
    let bytes = random(SIZE);
    for at in [0, 100_000] {
        parent.forget();
        let gate = Gate::closed();
        parent.fault(Fault::patch("").pause_reading_after(at, &gate).times(1));
        let location = app.open().await;

        let patching = app.patch(&location, None, &bytes);
        tokio::pin!(patching);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut patching).await;
        assert!(early.is_err(), "it was answered behind a closed gate");
        assert_eq!(parent.blob_bytes_received(), at);
        gate.open();

        assert_eq!(patching.await.header("range"), format!("0-{}", SIZE - 1));
    }
}

#[tokio::test]
async fn a_manifest_that_was_taken_is_not_kept_or_its_tag_is_another_as_told() {
    let (parent, app) = pushed_to().await;
    let [old, new] = [Image::of(&[10]), Image::of(&[20])];
    app.image("v1", &old).await;
    app.blobs_of(&new).await;

    parent.fault(Fault::put("/manifests/").not_kept().times(1));
    let lost = app.put_manifest("v1", &new.manifest).await;
    assert_eq!(
        (lost.status, lost.header("docker-content-digest")),
        (201, &new.manifest.digest[..])
    );
    app.assert_has("v1", &old).await;
    assert_eq!(
        app.head(&format!("manifests/{}", new.manifest.digest)).await.status,
        404
    );
    assert_eq!(parent.times_kept(&new.manifest.digest), 0);
    parent.fault(Fault::put("/manifests/v2").tags_instead(&old.manifest.digest).times(1));
    let other = app.put_manifest("v2", &new.manifest).await;

    assert_eq!(
        (other.status, other.header("docker-content-digest")),
        (201, &new.manifest.digest[..])
    );
    app.assert_has("v2", &old).await;
    app.assert_has(&new.manifest.digest, &new).await;
    let location = app.open().await;
    parent.fault(Fault::put("/blobs/").not_kept().times(1));
    assert_eq!(app.finish(&location, &sha256(b"lost"), b"lost").await.status, 201);
    assert_eq!(app.head(&format!("blobs/{}", sha256(b"lost"))).await.status, 404);
}

#[tokio::test]
async fn a_stopped_parent_comes_back_with_what_was_pushed_and_with_uploads_half_way() {
    let (mut parent, app) = pushed_to().await;
    let image = Image::of(&[10]);
    app.image("v1", &image).await;
    let location = app.open().await;
    app.patch(&location, None, b"some").await;
    let mut connection = Client::of(parent.address()).connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: parent\r\nContent-Length: 1000\r\n\r\n more");
    connection.write(head.as_bytes()).await.unwrap();
    eventually("the piece is here", async || {
        parent.seen("PATCH", "").last().unwrap().received_bytes() == 5
    })
    .await;

    parent.stop().await;
    parent.start_again().await;

    app.assert_has("v1", &image).await;
    assert_eq!(Client::of(parent.address()).get(&location).await.header("range"), "0-8");
    assert_eq!(app.finish(&location, &sha256(b"some more."), b".").await.status, 201);
}

#[tokio::test]
async fn what_a_parent_has_is_read_and_its_tags_are_moved_behind_the_back_of_who_pushed() {
    let (parent, app) = pushed_to().await;
    let [old, new] = [Image::of(&[10]), Image::of(&[20])];
    app.image("v1", &old).await;
    app.image("v2", &new).await;
    assert_eq!(parent.tag_of("a", "v1").as_ref(), Some(&old.manifest.digest));

    parent.tag("a", "v1", &new.manifest.digest);

    app.assert_has("v1", &new).await;
    assert_eq!(parent.tag_of("a", "v1").as_ref(), Some(&new.manifest.digest));
    assert_eq!((parent.tag_of("a", "v3"), parent.tag_of("b", "v1")), (None, None));
    let held = |digests: &[String]| digests.iter().map(|digest| ("a".to_owned(), digest.clone())).collect();
    assert_eq!(
        parent.manifests(),
        held(&[old.manifest.digest.clone(), new.manifest.digest.clone()])
    );
    let blobs = [old.layer(0), old.config_digest(), new.layer(0), new.config_digest()];
    assert_eq!(parent.blobs(), held(&blobs));
}
