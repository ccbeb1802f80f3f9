//! Clients that are slow, or that write what HTTP/1.1 forbids or hardly allows.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::support::authority::Authority;
use crate::support::client::{Client, Request, blob, manifest, reqwest_trusting};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Fault, Gate, Upstream};

/// Larger than what the kernels of both sides hold between them.
const LARGE: usize = 24_000_000;

/// A node that has an image with one large layer, and cuts off who takes too little in a second.
async fn impatient(lines: &[String]) -> (Upstream, Node, Image) {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[LARGE]);
    let setup = Setup::below(&parent.url()).listen("write_timeout = \"1s\"");
    let node = lines.iter().fold(setup, |setup, line| setup.listen(line)).start().await;
    (parent, node, image)
}

/// A connection whose kernel holds little.
async fn narrow(node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(node.address()).await.unwrap()
}

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
async fn a_request_without_a_host_or_with_two_is_refused_in_the_form_of_the_specification() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    let node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await;
    let asked = parent.asked();

    for target in ["/v2/", "/v2/a/manifests/v1", "/v2/a/manifests/v2"] {
        for fields in [
            "",
            "Accept: */*\r\n",
            "Range: bytes=0-1\r\n",
            "Host: x\r\nHost: x\r\n",
            "Host: x\r\nUser-Agent: y\r\nhost: z\r\n",
        ] {
            let answer = answer(&node, &format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await;

            assert!(answer.starts_with("HTTP/1.1 400 "), "{target} {fields:?}: {answer}");
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert!(body["errors"][0]["code"].is_string(), "{answer}");
        }
    }
    assert_eq!(parent.asked(), asked);
    // HTTP/1.0 knows no Host.
    let old = answer(&node, "GET /v2/ HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.") && old.contains(" 200 OK\r\n"), "{old}");
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

#[tokio::test]
async fn a_client_that_reads_a_byte_a_second_is_cut_off() {
    let (_parent, node, image) = impatient(&[]).await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    let mut stream = narrow(&node).await;
    let request = Request::get(&blob("a", &image.layer(0))).written("x");
    stream.write_all(&request).await.unwrap();

    let reading = tokio::spawn(async move {
        while stream.read_u8().await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });

    eventually("it is cut off", async || node.log().contains("broken: the client")).await;
    reading.abort();
}

/// The same behind TLS, with the authority that its clients trust.
async fn impatient_behind_tls() -> (Upstream, Node, Image, Authority) {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.leaf_files(folder.path());
    let files = [("cert_file", certificate), ("key_file", key)];
    let (parent, node, image) = impatient(&files.map(|(name, path)| format!("{name} = {path:?}"))).await;
    (parent, node, image, authority)
}

#[tokio::test]
async fn a_client_that_reads_nothing_over_tls_is_cut_off() {
    let (_parent, node, image, authority) = impatient_behind_tls().await;
    let client = Client::tls(node.address(), authority.client(&[b"http/1.1"]));
    let mut open = client.open(Request::get(&blob("a", &image.layer(0)))).await;
    open.read(1000).await;

    eventually("it is cut off", async || node.log().contains("broken: the client")).await;
}

#[tokio::test]
async fn a_stream_of_http_2_that_is_not_read_is_cut_off_and_the_connection_goes_on() {
    let (_parent, node, image, authority) = impatient_behind_tls().await;
    let client = reqwest_trusting(Some(&authority));
    let url = format!("https://{}{}", node.address(), blob("a", &image.layer(0)));
    let mut unread = client.get(&url).send().await.unwrap();
    assert_eq!(unread.version(), reqwest::Version::HTTP_2);
    unread.chunk().await.unwrap();

    eventually("it is cut off", async || node.log().contains("broken: the client")).await;

    assert_eq!(client.head(&url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_reads_slowly_and_steadily_gets_all_of_it() {
    let (_parent, node, image) = impatient(&[]).await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    let mut open = node.client().open(Request::get(&blob("a", &image.layer(0)))).await;

    // Far less than what the kernel waits for before it says that there is room again.
    for step in 1..40 {
        open.read(step * 20_000).await;
        sleep(Duration::from_millis(100)).await;
    }

    open.rest().await.0.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn time_that_the_parent_takes_is_not_held_against_the_client() {
    let (parent, node, image) = impatient(&[]).await;
    let gate = Gate::closed();
    parent.fault(Fault::get(&image.layer(0)).hold_after(300_000, &gate));
    let mut open = node.client().open(Request::get(&blob("a", &image.layer(0)))).await;
    open.read(100_000).await;

    // Longer than a client may take nothing.
    sleep(Duration::from_millis(2500)).await;
    gate.open();

    open.rest().await.0.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn how_little_is_too_little_is_a_setting() {
    let (_parent, node, image) = impatient(&["min_rate = \"4MiB\"".to_owned()]).await;
    let mut open = node.client().open(Request::get(&blob("a", &image.layer(0)))).await;

    let cut = async || {
        let read = open.so_far().body.len();
        open.read(read + 20_000).await;
        sleep(Duration::from_millis(50)).await;
        node.log().contains("broken: the client")
    };

    eventually("it is cut off", cut).await;
}
