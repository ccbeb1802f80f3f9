//! Every limit holds at its number and refuses at one more, and what it refused is counted.

mod http2;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::authority::{Authority, install_provider};
use crate::support::client::{Request, blob, manifest, reqwest_trusting};
use crate::support::content::{
    DOCKER_MANIFEST, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, random, sha256,
};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::memory;
use crate::support::upstream::{Cut, Fault, Gate, Length, Upstream};

/// How often this limit refused something.
async fn refused(node: &Node, limit: &str) -> u64 {
    node.metrics().await.sum("wharf_refused_total", &[("limit", limit)]) as u64
}

/// A node behind TLS whose section `[listen]` has these lines too.
async fn behind_tls(parent: &Upstream, authority: &Authority, lines: &[&str]) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.leaf_files(folder.path());
    let setup = Setup::below(&parent.url())
        .listen(&format!("cert_file = {certificate:?}"))
        .listen(&format!("key_file = {key:?}"));
    lines.iter().fold(setup, |setup, line| setup.listen(line)).start().await
}

/// A request of exactly so many bytes, by a field that every request has.
fn request_of(bytes: usize, target: &str) -> String {
    let head = |agent: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n");
    head(&"y".repeat(bytes - head("").len()))
}

/// The first line that comes back for these bytes, and the rest until the other side closes or is silent.
async fn answer(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, pieces: &[&[u8]]) -> String {
    for piece in pieces {
        // It may have been refused already.
        let _ = stream.write_all(piece).await;
        let _ = stream.flush().await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connected(node: &Node) -> TcpStream {
    TcpStream::connect(node.address()).await.unwrap()
}

#[tokio::test]
async fn a_head_as_large_as_allowed_is_read_and_one_byte_more_is_refused() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await;

    for target in ["/v2/", "/v2/a/manifests/v1", "/v2/a/tags/list"] {
        let most = request_of(16 << 10, target);
        let more = request_of((16 << 10) + 1, target);
        for at in [1, 5000, 16_383] {
            for (request, status) in [(&most, 200), (&more, 431)] {
                let (first, second) = request.as_bytes().split_at(at);
                let answer = answer(connected(&node).await, &[first, second]).await;

                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{target} {at}: {answer}"
                );
                assert!(status == 200 || answer.contains("\"code\""), "{answer}");
            }
        }
    }

    assert_eq!(refused(&node, "head_size").await, 9);
}

#[tokio::test]
async fn as_many_fields_as_allowed_are_read_and_one_more_is_refused_on_either_version_of_http() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    parent.new_image("a", "v1", &[10]);
    let plain = Node::below(&parent).await;
    let tls = behind_tls(&parent, &authority, &[]).await;
    let http2 = reqwest_trusting(Some(&authority));

    for target in ["/v2/".to_owned(), manifest("a", "v1")] {
        plain.get(&target).await;
        for (fields, status) in [(64, 200), (65, 431), (200, 431)] {
            let mut request = Request::get(&target);
            // Besides the host, and that it is the last.
            for _ in 2..fields {
                request = request.header("Accept", "*/*");
            }
            let reply = plain.send(request).await;
            if status == 200 {
                assert_eq!(reply.status, status, "{target} {fields}: {reply}");
            } else {
                reply.assert_error(status, "UNKNOWN");
            }

            let mut request = http2.get(format!("https://{}{target}", tls.address()));
            // Besides what it accepts.
            for at in 1..fields {
                request = request.header(format!("x-{at}"), "y");
            }
            let reply = request.send().await.unwrap();
            assert_eq!(
                (reply.status().as_u16(), reply.version()),
                (status, reqwest::Version::HTTP_2)
            );
        }
    }

    assert_eq!(refused(&plain, "head_fields").await, 4);
    assert_eq!(refused(&tls, "head_fields").await, 4);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off_at_its_deadline_however_steady_it_is() {
    let node = Setup::alone().listen("header_timeout = \"1s\"").start().await;
    let mut stream = connected(&node).await;
    let begun = Instant::now();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ").await.unwrap();

    let mut byte = [0];
    loop {
        let _ = stream.write_all(b"y").await;
        match tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await {
            Err(_) => assert!(begun.elapsed() < Duration::from_secs(5), "it is never cut off"),
            Ok(end) => break assert!(matches!(end, Ok(0) | Err(_)), "it is answered"),
        }
    }

    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(refused(&node, "header_timeout").await, 1);
}

#[tokio::test]
async fn a_handshake_that_drips_or_does_not_begin_is_cut_off_at_its_deadline() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let node = behind_tls(&parent, &authority, &["handshake_timeout = \"1s\""]).await;
    let mut hello = Vec::new();
    let name = node.address().ip().into();
    let mut session = rustls::ClientConnection::new(authority.client(&[b"http/1.1"]), name).unwrap();
    session.write_tls(&mut hello).unwrap();

    for bytes in [&[][..], &hello[..hello.len() - 1]] {
        let mut stream = connected(&node).await;
        let begun = Instant::now();
        for byte in bytes.chunks(bytes.len().max(10) / 10) {
            let _ = stream.write_all(byte).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await;

        assert!(matches!(end, Ok(Ok(0) | Err(_))), "it is never cut off");
        assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    }

    assert_eq!(refused(&node, "handshake_timeout").await, 2);
    let well = TlsConnector::from(authority.client(&[b"http/1.1"]));
    assert!(
        well.connect(node.address().ip().into(), connected(&node).await)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_its_time() {
    let node = Setup::alone().listen("idle_timeout = \"1s\"").start().await;

    for request in [
        "",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut stream = connected(&node).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let begun = Instant::now();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;

        assert!(closed.is_ok(), "it is never closed: {request:?}");
        assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
        assert_eq!(answer.is_empty(), request.is_empty());
    }
}

/// A connection of the node's client at this address, if it is taken and answers.
async fn connection_from(node: &Node, address: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let mut stream = socket.connect(node.address()).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
    stream.read_exact(&mut [0; 12]).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn one_address_has_as_many_connections_as_allowed_and_others_have_theirs() {
    let node = Setup::alone().listen("connections_per_address = 5").start().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(connection_from(&node, "127.0.0.1:0").await.expect("one of five"));
    }

    assert!(
        connection_from(&node, "127.0.0.1:0").await.is_none(),
        "a sixth is taken"
    );
    assert!(
        connection_from(&node, "127.0.0.2:0").await.is_some(),
        "another address is refused"
    );
    assert_eq!(refused(&node, "connections_per_address").await, 1);

    open.pop();
    eventually("there is room for one", async || {
        connection_from(&node, "127.0.0.1:0").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_setting_wait_and_that_is_counted() {
    let node = Setup::alone().listen("connections = 3").start().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connection_from(&node, "127.0.0.1:0").await.expect("one of three"));
    }
    let mut fourth = Box::pin(connection_from(&node, "127.0.0.1:0"));
    let waits = tokio::time::timeout(Duration::from_millis(500), &mut fourth).await;

    assert!(waits.is_err(), "a fourth is answered");
    assert_eq!(refused(&node, "connections").await, 1);
    open.pop();
    assert!(fourth.await.is_some());
}

#[tokio::test]
async fn a_client_that_takes_too_little_is_counted() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[24_000_000]);
    let node = Setup::below(&parent.url())
        .listen("write_timeout = \"1s\"")
        .start()
        .await;
    let mut open = node.client().open(Request::get(&blob("a", &image.layer(0)))).await;
    open.read(1000).await;

    eventually("it is cut off and counted", async || {
        refused(&node, "min_rate").await == 1
    })
    .await;
}

#[tokio::test]
async fn http_2_is_offered_unless_it_is_turned_off() {
    let (parent, authority) = (Upstream::start().await, Authority::new());

    for (line, version) in [
        ("http2 = true", reqwest::Version::HTTP_2),
        ("http2 = false", reqwest::Version::HTTP_11),
    ] {
        let node = behind_tls(&parent, &authority, &[line]).await;
        let url = format!("https://{}/v2/", node.address());
        let reply = reqwest_trusting(Some(&authority)).get(url).send().await.unwrap();

        assert_eq!((reply.status().as_u16(), reply.version()), (200, version));
    }
}

/// An image's manifest of exactly so many bytes.
fn manifest_of(bytes: usize) -> Manifest {
    let body = |filler: &str| json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": {"x": filler}});
    let rest = Manifest::new(OCI_MANIFEST, &body("")).bytes.len();
    Manifest::new(OCI_MANIFEST, &body(&"y".repeat(bytes - rest)))
}

fn descriptor(media_type: &str) -> Value {
    let content = random(10);
    json!({ "mediaType": media_type, "digest": sha256(&content), "size": 10 })
}

/// By digest and by tag: the one must be served byte for byte, the other refused and not asked for again.
async fn one_and_the_other(limit: &str, most: &Manifest, more: &Manifest) {
    let parent = Upstream::start().await;
    parent.manifest("a", Some("most"), most);
    parent.manifest("a", Some("more"), more);
    let node = Node::below(&parent).await;

    for reference in ["most", &most.digest] {
        node.get(&manifest("a", reference)).await.assert_is(&most.bytes);
    }
    assert_eq!(refused(&node, limit).await, 0);
    for reference in ["more", &more.digest] {
        let reply = node.get(&manifest("a", reference)).await;
        reply.assert_error(502, "UNAVAILABLE");
        assert!(reply.text().contains(&format!("limits.{limit}")), "{reply}");
        assert!(reply.has("retry-after"), "{reply}");
    }
    let again = (parent.asked(), node.get(&manifest("a", "more")).await.status);
    assert_eq!((parent.asked(), 502), again, "it is asked for again at once");
    assert!(refused(&node, limit).await >= 2);
}

#[tokio::test]
async fn a_manifest_of_four_mebibytes_passes_and_one_of_one_byte_more_does_not() {
    one_and_the_other("manifest", &manifest_of(4 << 20), &manifest_of((4 << 20) + 1)).await;
}

#[tokio::test]
async fn a_manifest_that_does_not_say_its_length_is_counted_while_it_comes() {
    let parent = Upstream::start().await;
    let (most, more) = (manifest_of(4 << 20), manifest_of((4 << 20) + 1));
    parent.manifest("a", None, &most);
    parent.manifest("a", None, &more);
    parent.fault(Fault::get("/manifests/").length(Length::Unsaid));
    let node = Node::below(&parent).await;

    node.get(&manifest("a", &most.digest)).await.assert_is(&most.bytes);
    node.get(&manifest("a", &more.digest))
        .await
        .assert_error(502, "UNAVAILABLE");
    assert_eq!(refused(&node, "manifest").await, 1);
}

#[tokio::test]
async fn a_manifest_goes_thirty_two_levels_deep_and_no_deeper() {
    let deep = |levels: usize| {
        let inner = (1..levels).fold(json!(1), |inner, _| json!([inner]));
        Manifest::new(OCI_MANIFEST, &json!({"schemaVersion": 2, "x": inner}))
    };

    one_and_the_other("json_depth", &deep(32), &deep(33)).await;
}

#[tokio::test]
async fn a_manifest_lists_as_many_layers_as_allowed_and_not_one_more() {
    let listing = |count: usize| {
        let layers: Vec<Value> = (0..count).map(|_| descriptor(OCI_LAYER)).collect();
        Manifest::new(
            OCI_MANIFEST,
            &json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": layers}),
        )
    };

    one_and_the_other("descriptors", &listing(2048), &listing(2049)).await;
}

#[tokio::test]
async fn an_index_lists_as_many_manifests_as_allowed_and_not_one_more() {
    let listing = |count: usize| {
        let manifests: Vec<Value> = (0..count).map(|_| descriptor(OCI_MANIFEST)).collect();
        Manifest::new(OCI_INDEX, &json!({"schemaVersion": 2, "manifests": manifests}))
    };

    one_and_the_other("descriptors", &listing(2048), &listing(2049)).await;
}

#[tokio::test]
async fn a_manifest_that_clients_read_in_different_ways_is_handed_to_none() {
    let parent = Upstream::start().await;
    let node = Node::below(&parent).await;
    let (one, other) = (descriptor(OCI_LAYER), descriptor(OCI_MANIFEST));
    let ambiguous = [
        (OCI_MANIFEST, format!(r#"{{"layers":[{one}],"manifests":[{other}]}}"#)),
        (OCI_INDEX, format!(r#"{{"config":{one},"manifests":[{other}]}}"#)),
        (OCI_INDEX, format!(r#"{{"mediaType":"{OCI_MANIFEST}","config":{one}}}"#)),
        (DOCKER_MANIFEST, format!(r#"{{"manifests":[{other}]}}"#)),
        (OCI_MANIFEST, format!(r#"{{"layers":[{one}],"layers":[]}}"#)),
        (OCI_MANIFEST, format!(r#"{{"layers":[{one}],"LAYERS":[]}}"#)),
        (OCI_MANIFEST, format!("{{\"layers\":[{one}],\"layer\u{17f}\":[]}}")),
        (
            OCI_MANIFEST,
            r#"{"layers":[{"digest":"sha256:00","Digest":"sha256:11"}]}"#.to_owned(),
        ),
    ];

    for (at, (media_type, text)) in ambiguous.into_iter().enumerate() {
        let bytes = bytes::Bytes::from(text);
        let document = Manifest {
            digest: sha256(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        };
        let tag = format!("v{at}");
        parent.manifest("a", Some(&tag), &document);
        for reference in [&tag, &document.digest, &document.digest] {
            node.get(&manifest("a", reference))
                .await
                .assert_error(502, "UNAVAILABLE");
        }
    }
}

#[tokio::test]
async fn a_blob_as_large_as_allowed_passes_and_one_byte_more_does_not() {
    for length in [None, Some(Length::Unsaid)] {
        let parent = Upstream::start().await;
        let (most, more) = (random(1 << 20), random((1 << 20) + 1));
        let (most_digest, more_digest) = (parent.blob("a", &most), parent.blob("a", &more));
        if let Some(length) = length {
            parent.fault(Fault::get("/blobs/").length(length));
        }
        let node = Setup::below(&parent.url())
            .more("[limits]\nblob = \"1MiB\"\n")
            .start()
            .await;

        node.get(&blob("a", &most_digest)).await.assert_is(&most);
        let reply = node.get(&blob("a", &more_digest)).await;

        assert!(reply.status == 502 || !reply.complete, "{reply}");
        assert!(!node.has_stored(&more_digest));
        assert_eq!(refused(&node, "blob").await, 1);
    }
}

#[tokio::test]
async fn a_list_has_as_many_pages_as_allowed_and_not_one_more() {
    for (pages, status) in [(3, 200), (4, 502)] {
        let parent = Upstream::start().await;
        parent.new_image("a", "v1", &[10]);
        for at in 1..=pages {
            let page = Fault::get("/tags/list")
                .times(1)
                .body(json!({"name": "a", "tags": [format!("v{at}")]}).to_string());
            parent.fault(if at < pages {
                page.header("Link", &format!("<?page={at}>; rel=\"next\""))
            } else {
                page
            });
        }
        let node = Setup::below(&parent.url())
            .more("[limits]\nlist_pages = 3\n")
            .start()
            .await;

        let reply = node.get("/v2/a/tags/list").await;

        assert_eq!((reply.status, parent.asked()), (status, 3), "{reply}");
        assert_eq!(refused(&node, "list_pages").await, u64::from(status == 502));
    }
}

#[tokio::test]
async fn a_list_has_as_many_bytes_as_allowed_and_not_one_more() {
    for (bytes, status) in [(64 << 10, 200), ((64 << 10) + 1, 502)] {
        let parent = Upstream::start().await;
        parent.new_image("a", "v1", &[10]);
        let body = json!({"name": "a", "tags": ["v1"]}).to_string();
        parent.fault(Fault::get("/tags/list").body(body.clone() + &" ".repeat(bytes - body.len())));
        let node = Setup::below(&parent.url())
            .more("[limits]\nlist = \"64KiB\"\n")
            .start()
            .await;

        let reply = node.get("/v2/a/tags/list").await;

        assert_eq!(reply.status, status, "{reply}");
        assert_eq!(refused(&node, "list").await, u64::from(status == 502));
    }
}

#[tokio::test]
async fn a_transfer_is_given_up_after_as_many_fruitless_attempts_as_allowed() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1_000_000]);
    parent.fault(Fault::get(&image.layer(0)).cut_after(0, Cut::Fin));
    let node = Setup::below(&parent.url())
        .more("[limits]\nattempts = 2\n")
        .start()
        .await;

    let reply = node.get(&blob("a", &image.layer(0))).await;

    assert!(reply.status != 200 || !reply.complete, "{reply}");
    assert_eq!(parent.count("GET", &image.layer(0)), 2);
    assert_eq!(refused(&node, "attempts").await, 1);
}

#[tokio::test]
async fn more_requests_than_allowed_on_one_connection_of_http_2_are_not_taken() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let gate = Gate::closed();
    parent.new_image("a", "v1", &[10]);
    parent.fault(Fault::any("/manifests/").hold_head(&gate));
    let node = behind_tls(&parent, &authority, &["http2_streams = 4"]).await;
    let mut connection = http2::Connection::to(&node, &authority).await;

    for stream in 0..5 {
        connection.headers(2 * stream + 1, "/v2/a/manifests/v1").await;
    }

    // RFC 9113, section 5.1.2: the stream is refused, and the others go on.
    let refusal = connection.frame_with(|frame| frame.stream == 9).await;
    assert_eq!(
        (refusal.kind, refusal.payload.as_slice()),
        (http2::RST_STREAM, &[0, 0, 0, 7][..])
    );
    gate.open();
    for _ in 0..4 {
        let answered = connection
            .frame_with(|frame| frame.kind != http2::DATA && frame.stream > 0)
            .await;
        assert_eq!(answered.kind, http2::HEADERS);
    }
}

/// A well-known client at this address.
fn reqwest_from(address: std::net::IpAddr, authority: &Authority) -> reqwest::Client {
    install_provider();
    let ca = reqwest::Certificate::from_pem(authority.ca_pem()).expect("our CA");
    let builder = reqwest::Client::builder().no_proxy().local_address(address);
    builder.tls_certs_only([ca]).build().expect("a client")
}

/// Sends what `flood` gives, over and over, on a new connection whenever one is closed. How often that was, and how many
/// bytes were taken.
async fn flooded(
    node: &Node,
    authority: &Authority,
    until: Instant,
    mut flood: impl FnMut(u32) -> Vec<u8>,
) -> (u32, usize) {
    let (mut connections, mut taken) = (0, 0);
    while Instant::now() < until {
        let Some(mut connection) = http2::Connection::accepted(node, authority).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        connections += 1;
        let mut round = 0;
        while Instant::now() < until {
            let bytes = flood(round);
            let sent = tokio::time::timeout(Duration::from_secs(1), connection.bytes(&bytes)).await;
            // One that takes no more holds nobody up either.
            if sent.is_err() {
                tokio::time::sleep_until(until.into()).await;
            }
            if !matches!(sent, Ok(true)) {
                break;
            }
            taken += bytes.len();
            connection.pass_over().await;
            round += 1;
        }
    }
    (connections, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_http_2_take_little_memory_and_others_are_served() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    parent.new_image("a", "v1", &[10]);
    let node = behind_tls(&parent, &authority, &["connections_per_address = 500"]).await;
    // Another client than the flooding one.
    let client = reqwest_from([127, 0, 0, 2].into(), &authority);
    let url = format!("https://{}{}", node.address(), manifest("a", "v1"));
    client.get(&url).send().await.unwrap();
    parent.fault(Fault::any("/v2/b").silent());
    let (before, until) = (memory(node.pid()), Instant::now() + Duration::from_secs(10));

    let stream = |at: u32| 2 * at + 1;
    // Begun and given up: what lies here, and, few at a time, what a parent is asked for that does not answer.
    let reset = |batch: u32, path: fn(u32) -> String| {
        move |round: u32| -> Vec<u8> {
            let streams = (round * batch..(round + 1) * batch).map(stream);
            let resets = streams.flat_map(|id| {
                let cancel = http2::frame(http2::RST_STREAM, 0, id, &[0, 0, 0, 8]);
                [http2::request(id, &path(id)), cancel].concat()
            });
            resets.collect()
        }
    };
    // A head that never ends.
    let endless = |round: u32| match round {
        0 => http2::open_request(1, "/v2/", false),
        _ => http2::frame(
            http2::CONTINUATION,
            0,
            1,
            &[&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat(),
        )
        .repeat(20),
    };
    // A body without bytes.
    let empty = |round: u32| match round {
        0 => http2::open_request(1, "/v2/", true),
        _ => http2::frame(http2::DATA, 0, 1, &[]).repeat(200),
    };
    let settings = |_| http2::frame(http2::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(200);
    let ping = |_| http2::frame(http2::PING, 0, 0, &[0; 8]).repeat(200);
    let served = async {
        let (mut most, mut slowest, mut count) = (0, Duration::ZERO, 0);
        while Instant::now() < until {
            let asked = Instant::now();
            assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
            slowest = slowest.max(asked.elapsed());
            most = most.max(memory(node.pid()));
            count += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (most, slowest, count)
    };
    let (known, cold, endless, empty, settings, ping, (most, slowest, count)) = tokio::join!(
        flooded(&node, &authority, until, reset(50, |_| manifest("a", "v1"))),
        flooded(
            &node,
            &authority,
            until,
            reset(10, |id| manifest(&format!("b{id}"), "v1"))
        ),
        flooded(&node, &authority, until, endless),
        flooded(&node, &authority, until, empty),
        flooded(&node, &authority, until, settings),
        flooded(&node, &authority, until, ping),
        served,
    );

    println!(
        "connections: resets {known:?} and {cold:?}, heads {endless:?}, empty data {empty:?}, settings {settings:?}, pings {ping:?}; \
         {before} bytes of memory, then at most {most}; {count} served, the slowest in {slowest:?}; parent asked {}",
        parent.asked()
    );
    for (count, taken) in [known, cold, endless, empty, settings, ping] {
        assert!(count > 0 && taken > 0, "{count} connections took {taken} bytes");
    }
    assert!(refused(&node, "http2_streams").await + refused(&node, "connections_per_address").await > 0);
    assert!(most < before + (64 << 20), "{before} bytes grew to {most}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
