//! Five hundred clients that send, or take, a byte in a while, and come again whenever they are cut off.
//!
//! `torture::crowd` has those that stand still. These keep moving, and all that a node may do about it is to count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{Image, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::descriptors;
use crate::support::upstream::Upstream;

const DAWDLERS: usize = 500;
/// From one byte to the next.
const PAUSE: Duration = Duration::from_secs(2);
/// A head is here by then.
const HEADER: Duration = Duration::from_secs(10);
/// Over so long a client sends or takes a kilobyte a second.
const WINDOW: Duration = Duration::from_secs(2);
/// How long a body is read whose answer is out, so that the client gets to see it.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a timer on a busy machine may be late by.
const SLACK: Duration = Duration::from_secs(3);
/// A reader is there for so long. That it was cut off it would see after what its kernel holds, in days.
const READING: Duration = Duration::from_secs(6);

/// Larger than what the kernels of both sides hold between them.
const LARGE: usize = 24_000_000;
/// What a normal client pulls.
const LAYER: usize = 4 << 20;

/// How a client dawdles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Header,
    Body,
    Reading,
}

/// What came of those that dawdled in one way.
#[derive(Debug, Default)]
struct Lives {
    count: AtomicUsize,
    longest: Mutex<Duration>,
}

impl Lives {
    fn ended(&self, after: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut longest = self.longest.lock();
        *longest = after.max(*longest);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// What one sends before it dawdles, and what it dawdles with.
fn written(way: Way, large: &str) -> (Vec<u8>, Bytes) {
    match way {
        Way::Header => {
            let request = Request::get("/v2/").header("X-Long", &"x".repeat(1000)).written("node");
            (Vec::new(), request.into())
        }
        Way::Body => {
            let body = random(1000);
            let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&body));
            let head = Request::new("POST", &target)
                .header("Content-Length", "1000")
                .written("node");
            (head, body)
        }
        Way::Reading => (Request::get(large).written("node"), Bytes::new()),
    }
}

/// Once, until it is cut off; a reader leaves.
async fn dawdle(address: SocketAddr, way: Way, large: &str) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let Ok(mut stream) = socket.connect(address).await else {
        return;
    };
    let (head, bytes) = written(way, large);
    if stream.write_all(&head).await.is_err() {
        return;
    }
    if way == Way::Reading {
        let reading = async {
            while stream.read_u8().await.is_ok() {
                sleep(PAUSE).await;
            }
        };
        let _ = timeout(READING, reading).await;
        // Its kernel holds what it did not read: this is a reset.
        return;
    }
    let mut answer = [0; 1000];
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        // What is said before the end is taken.
        let pause = Instant::now() + PAUSE;
        while let Ok(read) = tokio::time::timeout_at(pause.into(), stream.read(&mut answer)).await {
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }
}

/// The median of many times that it takes to pull a manifest and its layer ten times over one connection.
async fn median(node: &Node, image: &Image) -> Duration {
    let mut times = Vec::new();
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    for _ in 0..15 {
        let begun = Instant::now();
        for _ in 0..10 {
            take(&mut stream, &manifest("a", "v1"), image.manifest.bytes.len()).await;
            take(&mut stream, &blob("a", &image.layer(0)), LAYER).await;
        }
        times.push(begun.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    times.sort();
    times[times.len() / 2]
}

/// Pulls so many bytes, which were looked at before.
async fn take(stream: &mut TcpStream, target: &str, length: usize) {
    stream.write_all(&Request::get(target).written("node")).await.unwrap();
    let mut buffer = vec![0; 256 << 10];
    let (mut head, mut count) = (None, 0);
    while head.is_none_or(|head| count < head + length) {
        let most = if head.is_none() { 16 << 10 } else { buffer.len() };
        let at = if head.is_none() { count } else { 0 };
        let read = stream.read(&mut buffer[at..most]).await.unwrap();
        assert!(read > 0, "it was cut off");
        count += read;
        if head.is_none() {
            let end = buffer[..count].windows(4).position(|four| four == b"\r\n\r\n");
            head = end.map(|end| end + 4);
        }
    }
    assert_eq!(count, head.unwrap() + length);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_that_move_a_byte_in_two_seconds_are_cut_off_and_a_pull_takes_less_than_twice_as_long() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[LAYER, LARGE]);
    let setup = Setup::below(&parent.url())
        .registry()
        .listen("header_timeout = \"10s\"");
    let node = setup.listen("write_timeout = \"2s\"").start().await;
    for at in 0..2 {
        node.get(&blob("a", &image.layer(at)))
            .await
            .assert_is(&image.layers[at]);
    }
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    let before = descriptors(node.pid());
    let alone = median(&node, &image).await;

    let lives: Arc<[Lives; 3]> = Arc::default();
    let mut dawdling = JoinSet::new();
    for number in 0..DAWDLERS {
        let (address, large, lives) = (node.address(), blob("a", &image.layer(1)), Arc::clone(&lives));
        let way = [Way::Header, Way::Body, Way::Reading][number % 3];
        dawdling.spawn(async move {
            loop {
                let begun = Instant::now();
                dawdle(address, way, &large).await;
                lives[number % 3].ended(begun.elapsed());
            }
        });
    }
    let begun = Instant::now();
    eventually("most of them are there", async || {
        descriptors(node.pid()) > before + 400
    })
    .await;
    let mut beside = Vec::new();
    // Long enough for each head to be cut off once.
    while begun.elapsed() < HEADER + SLACK {
        beside.push(median(&node, &image).await);
    }
    let there = descriptors(node.pid()) - before;
    dawdling.shutdown().await;
    eventually("they are left", async || descriptors(node.pid()) < before + 20).await;
    // What else goes on here is not to be held against them.
    let alone = alone.max(median(&node, &image).await);
    beside.sort();
    let beside = beside[beside.len() / 2];

    println!("ten pulls took {alone:?} alone and {beside:?} beside {there} connections of dawdlers; {lives:?}");
    assert!(beside <= alone * 2, "{beside:?} instead of {alone:?}");
    let [header, body, reading] = &*lives;
    for (lives, most) in [(header, HEADER), (body, 2 * WINDOW + FAREWELL), (reading, READING)] {
        let longest = *lives.longest.lock();
        assert!(lives.count() >= DAWDLERS / 3, "not all of them were cut off: {lives:?}");
        assert!(longest < most + SLACK, "{longest:?} instead of {most:?}");
    }
    let metrics = node.metrics().await;
    let refused = |limit| metrics.sum("wharf_refused_total", &[("limit", limit)]) as usize;
    assert!(refused("header_timeout") >= header.count());
    // Each reader was cut off before it left.
    assert!(
        refused("min_rate") >= body.count() + reading.count(),
        "{} of {lives:?}",
        refused("min_rate")
    );
}
