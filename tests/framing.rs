//! Requests whose end two servers would find in different places, and answers like that from above.
//!
//! Whatever is made of the first request, nothing that stands behind it may be taken for a second one.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::authority::Authority;
use crate::support::client::blob;
use crate::support::content::{random, sha256};
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

/// What an attacker hides behind another request.
const HIDDEN: &str = "GET /v2/smuggled/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n";

/// Targets that are answered early, each in a way of its own: from memory, from the disk, as unknown, as no API.
const EARLY: [&str; 4] = ["/v2/", "/v2/a/manifests/v1", "/v2/a/tags/list", "/nowhere"];

/// Fields that leave in doubt where a body ends, with what follows the head.
fn doubtful() -> Vec<(&'static str, String)> {
    let chunk = |size: &str| format!("{size}\r\nx\r\n0\r\n\r\n");
    vec![
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n".to_owned(),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n".to_owned(),
        ),
        ("Transfer-Encoding: chunked, identity\r\n", chunk("1")),
        ("Transfer-Encoding: identity\r\n", String::new()),
        ("Transfer-Encoding: identity, chunked\r\n", chunk("1")),
        ("Transfer-Encoding: \x0bchunked\r\n", chunk("1")),
        ("Transfer-Encoding: xchunked\r\n", chunk("1")),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            chunk("1"),
        ),
        ("Transfer-Encoding : chunked\r\n", chunk("1")),
        ("Content-Length: 0, 0\r\n", String::new()),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", String::new()),
        ("Content-Length: +0\r\n", String::new()),
        ("Content-Length: -1\r\n", String::new()),
        ("Content-Length: 0x0\r\n", String::new()),
        ("Content-Length: 18446744073709551616\r\n", String::new()),
        ("Content-Length: \r\n", String::new()),
        ("Content-Length : 0\r\n", String::new()),
        ("X: y\r\n Content-Length: 5\r\n", String::new()),
        (" X: y\r\n", String::new()),
        ("X\r\n", String::new()),
        ("X\0: y\r\n", String::new()),
        ("X: y\0\r\n", String::new()),
        ("Transfer-Encoding: chunked\r\n", chunk("+1")),
        ("Transfer-Encoding: chunked\r\n", chunk("0x1")),
        ("Transfer-Encoding: chunked\r\n", chunk("-1")),
        ("Transfer-Encoding: chunked\r\n", chunk("10000000000000000")),
        ("Transfer-Encoding: chunked\r\n", chunk("FFFFFFFFFFFFFFFF1")),
        ("Transfer-Encoding: chunked\r\n", chunk("z")),
        ("Transfer-Encoding: chunked\r\n", "1\r\nxx\r\n0\r\n\r\n".to_owned()),
    ]
}

/// Writes, and reads to the end, which must come.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    // The other side may answer and close before it has all.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(
        read.is_ok(),
        "no end after {request:?}: {}",
        String::from_utf8_lossy(&answer)
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status codes of the answers in a row.
fn answers(text: &str) -> Vec<u16> {
    let starts = text.match_indices("HTTP/1.").map(|(at, _)| &text[at + 9..]);
    starts.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

async fn stage() -> (Upstream, Node) {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[1000]);
    let node = Node::below(&parent).await;
    for target in EARLY {
        node.get(target).await;
    }
    (parent, node)
}

/// Whether the answer is one refusal.
fn is_one_refusal(answer: &str) -> bool {
    let statuses = answers(answer);
    statuses.len() == 1 && (400..500).contains(&statuses[0]) && !answer.contains("smuggled")
}

#[tokio::test]
async fn a_request_whose_end_is_in_doubt_is_refused_and_its_connection_closed() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let mut wrong = Vec::new();

    for (fields, body) in doubtful() {
        for target in EARLY {
            for method in ["GET", "HEAD", "PUT"] {
                let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}{HIDDEN}");
                let answer = exchange(TcpStream::connect(node.address()).await.unwrap(), &request).await;
                if !is_one_refusal(&answer) {
                    wrong.push(format!("{method} {target} {fields:?} {body:?}: {:?}", answers(&answer)));
                }
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!node.log().contains("smuggled"), "{}", node.log());
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn the_same_over_tls() {
    let (parent, authority, folder) = (Upstream::start().await, Authority::new(), tempfile::tempdir().unwrap());
    parent.new_image("a", "v1", &[1000]);
    let (certificate, key) = authority.leaf_files(folder.path());
    let setup = Setup::below(&parent.url()).listen(&format!("cert_file = {certificate:?}"));
    let node = setup.listen(&format!("key_file = {key:?}")).start().await;
    let connector = TlsConnector::from(authority.client(&[b"http/1.1"]));

    for (fields, body) in doubtful() {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}{HIDDEN}");
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let stream = connector.connect(node.address().ip().into(), stream).await.unwrap();
        let answer = exchange(stream, &request).await;

        assert!(is_one_refusal(&answer), "{fields:?} {body:?}: {answer}");
    }

    assert!(!node.log().contains("smuggled"), "{}", node.log());
    assert_eq!(parent.asked(), 0);
}

#[tokio::test]
async fn what_is_no_request_for_a_registry_opens_no_way_to_anything_else() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let parents = parent.address();

    for request in [
        format!("POST /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("CONNECT {parents} HTTP/1.1\r\nHost: {parents}\r\n\r\n{HIDDEN}"),
        format!("CONNECT {parents} HTTP/1.1\r\nHost: {parents}\r\nContent-Length: 3\r\n\r\n{HIDDEN}"),
        format!("GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}"),
        format!("GET  /v2/ HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}"),
        format!("GET /v2/ HTTP/1.1 \r\nHost: x\r\n\r\n{HIDDEN}"),
        format!("GET /v2/ HTTP/1.2\r\nHost: x\r\n\r\n{HIDDEN}"),
        format!("GET /v2/ HTTP/3.0\r\nHost: x\r\n\r\n{HIDDEN}"),
        format!("G\rT /v2/ HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}"),
    ] {
        let answer = exchange(TcpStream::connect(node.address()).await.unwrap(), &request).await;

        assert!(is_one_refusal(&answer), "{request:?}: {answer}");
    }

    assert!(!node.log().contains("smuggled"), "{}", node.log());
    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn an_upgrade_is_ignored_and_a_request_behind_it_is_ours_to_answer() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let last = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    for fields in [
        "Connection: Upgrade\r\nUpgrade: foo\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    ] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n{last}");
        let answer = exchange(TcpStream::connect(node.address()).await.unwrap(), &request).await;

        let statuses = answers(&answer);
        assert!(
            matches!(statuses[..], [200 | 400] | [200, 200]),
            "{request:?}: {answer}"
        );
    }

    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn a_request_for_an_address_elsewhere_is_answered_from_here() {
    let (parent, node) = stage().await;
    let asked = parent.asked();

    for host in [parent.address().to_string(), "169.254.169.254".to_owned()] {
        for path in ["/v2/", "/latest/meta-data/"] {
            let request = format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = exchange(TcpStream::connect(node.address()).await.unwrap(), &request).await;

            assert!(
                matches!(answers(&answer)[..], [200 | 400 | 404]),
                "{request:?}: {answer}"
            );
        }
    }

    assert_eq!(parent.asked(), asked);
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_read_or_ends_the_connection() {
    let (parent, node) = stage().await;
    let asked = parent.asked();
    let last = "HEAD /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    for (bytes, answered) in [(0, 2), (51, 2), (64 << 10, 2), (1 << 20, 1)] {
        for (method, target) in [
            ("GET", EARLY[1]),
            ("HEAD", EARLY[1]),
            ("GET", EARLY[3]),
            ("PUT", EARLY[1]),
        ] {
            let mut body = HIDDEN.to_owned();
            body.extend(std::iter::repeat_n('x', bytes));
            body.truncate(bytes);
            let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n");
            let answer = exchange_in_two(&node, &(head + &body), last).await;

            assert_eq!(answers(&answer).len(), answered, "{method} {target} {bytes}: {answer}");
        }
    }

    let refused = node
        .metrics()
        .await
        .sum("wharf_refused_total", &[("limit", "request_body")]);
    assert_eq!(refused, 4.0);
    assert!(!node.log().contains("smuggled"), "{}", node.log());
    assert_eq!(parent.asked(), asked);
}

/// The second part once the first has been answered.
async fn exchange_in_two(node: &Node, first: &str, second: &str) -> String {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let _ = stream.write_all(first.as_bytes()).await;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap() + &exchange(stream, second).await
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_connection_with_the_answer() {
    let (_parent, node) = stage().await;
    let begun = std::time::Instant::now();

    let request = "GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    let answer = exchange(TcpStream::connect(node.address()).await.unwrap(), request).await;

    assert_eq!(answers(&answer), [200]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// A parent that answers the first request of each connection with these bytes, and nothing after them.
async fn parent_that_says(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let mut first = true;
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if std::mem::take(&mut first) {
                        let _ = stream.write_all(&answer).await;
                        // Some answers end with their connection.
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn an_answer_from_above_whose_end_is_in_doubt_poisons_no_other() {
    let (wanted, poison) = (random(5), random(5));
    let (wanted_digest, other_digest) = (sha256(&wanted), sha256(&random(5)));
    let second = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".as_slice(), &poison].concat();
    for fields in [
        "Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: 0\r\n",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let url = parent_that_says([head.as_bytes(), &wanted, &second].concat()).await;
        let node = Setup::below(&url)
            .more(
                "[limits]
attempts = 1
",
            )
            .start()
            .await;

        let first = node.get(&blob("a", &wanted_digest)).await;
        let other = node.get(&blob("a", &other_digest)).await;

        assert!(
            first.status != 200 || !first.complete || first.body == wanted,
            "{fields:?}: {first}"
        );
        assert!(other.status != 200 || !other.complete, "{fields:?}: {other}");
        assert!(!node.has_stored(&sha256(&poison)) && !node.has_stored(&other_digest));
    }
}
