//! Clients that are slow, or that write what HTTP/1.1 forbids or hardly allows.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{blob, manifest};
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

/// What comes back for these bytes until the other side closes.
async fn answer(node: &Node, request: &str) -> String {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end after {request:?}: {answer:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn lines_that_end_without_a_carriage_return_are_understood_at_once() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let node = Node::below(&parent).await;
    let targets = [manifest("a", "v1"), manifest("a", "v1"), blob("a", &image.layer(0))];

    for target in targets {
        for (line, end) in [("\n", "\n"), ("\n", "\r\n"), ("\r\n", "\n")] {
            let head = format!("GET {target} HTTP/1.1{line}Host: x{line}Connection: close{line}{end}");
            let answer = answer(&node, &head).await;

            assert!(answer.starts_with("HTTP/1.1 200 "), "{head:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_request_in_pieces_of_one_byte_is_answered() {
    let node = Setup::alone().start().await;

    for head in [
        "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET /v2/ HTTP/1.1\nHost: x\n\n",
    ] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in head.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();

        assert_eq!(&answer, b"HTTP/1.1 200", "{head:?}");
    }
}
