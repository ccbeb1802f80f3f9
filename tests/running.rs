//! A node begins, runs within its limits, and ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::process::sockets;
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_node_that_says_it_is_ready_takes_connections() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();

    for _ in 0..10 {
        node.spawn();
        eventually("the node says it is ready", async || node.is_ready().await).await;

        assert!(tokio::net::TcpStream::connect(node.address()).await.is_ok());
        node.kill();
    }
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();
    node.limit("-Sn 256");
    node.start().await;

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("our own child");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("the limit");
    let numbers: Vec<&str> = line["Max open files".len()..].split_whitespace().collect();

    assert_eq!(numbers[0], numbers[1], "{line}");
}

#[tokio::test]
async fn a_node_out_of_descriptors_waits_and_never_ends() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let mut node = Setup::below(&parent.url()).placed();
    node.limit("-n 128");
    node.start().await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(node.client().connect().await);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(idle);

    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[tokio::test]
async fn connections_beyond_what_the_descriptors_allow_wait_their_turn() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[1000]);
    let mut node = Setup::below(&parent.url()).placed();
    node.limit("-n 400");
    node.start().await;

    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(node.client().connect().await);
        // A connection counts when its task begins, so a burst may overshoot.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("no more are taken", async || {
        node.log().contains("as many connections as allowed")
    })
    .await;

    // Half of what is left when files and upstreams have theirs, and what the node itself holds.
    let taken = sockets(node.pid());
    assert!((60..100).contains(&taken), "{taken} sockets");
    drop(idle);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_ends_well_and_soon() {
    let parent = Upstream::start().await;
    let mut node = Node::below(&parent).await;

    let status = node.stop().await;

    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_reply_under_way_is_finished_before_the_node_stops() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[30_000_000]);
    let mut node = Node::below(&parent).await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    let mut open = node.client().open(Request::get(&blob("a", &image.layer(0)))).await;
    open.read(1000).await;

    node.signal(Signal::SIGTERM);
    eventually("it says that it is not ready any more", async || {
        let said = node.admin("/readyz").await;
        said.status == 503 && said.text().contains("stopping")
    })
    .await;
    let (reply, _) = open.rest().await;

    reply.assert_is(&image.layers[0]);
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn an_answer_from_memory_under_way_is_finished_before_the_node_stops() {
    let parent = Upstream::start().await;
    let image = Image::with_a_large_manifest();
    parent.image("a", "v1", &image);
    let mut node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    // Its kernel is to hold little, so that the node has to wait.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(node.address()).await.unwrap();
    let request = Request::get(&manifest("a", "v1")).written("x");
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![stream.read_u8().await.unwrap()];

    node.signal(Signal::SIGTERM);
    let ended = tokio::time::timeout(Duration::from_secs(4), node.ended()).await;
    stream.read_to_end(&mut answer).await.unwrap();

    assert!(ended.is_err(), "the node ended before its answer");
    assert!(
        answer.ends_with(&image.manifest.bytes),
        "only {} bytes came",
        answer.len()
    );
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn what_was_used_is_on_record_when_a_node_is_killed_while_it_stops() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[20 * MIB, 20 * MIB, 20 * MIB]);
    let [renewed, older, new] = [0, 1, 2].map(|at| image.layer(at));
    let mut node = Setup::below(&parent.url()).capacity("64MiB").start().await;
    for digest in [&renewed, &older] {
        assert_eq!(node.get(&blob("a", digest)).await.status, 200);
    }
    assert!(node.stop().await.success());
    node.start().await;
    // Use is noted to the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let records = || {
        std::fs::metadata(node.data().join("index.db-wal"))
            .and_then(|wal| wal.modified())
            .ok()
    };
    let mut open = node.client().open(Request::get(&blob("a", &renewed))).await;
    open.read(1000).await;

    let before = records();
    node.signal(Signal::SIGTERM);
    let written = async {
        while records() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It may have been something else: what follows the signal does so at once.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    // Without a signal it would be written some seconds later.
    let written = tokio::time::timeout(Duration::from_secs(2), written).await;
    assert!(written.is_ok(), "nothing was written");
    node.restart().await;
    assert_eq!(node.get(&blob("a", &new)).await.status, 200);
    parent.stop().await;

    assert!(node.has_stored(&renewed) && !node.has_stored(&older));
}

#[tokio::test]
async fn a_password_in_the_settings_is_refused_with_the_remedy() {
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).parent("password = \"canary\"").placed();

    node.spawn();
    let status = node.ended().await;

    assert!(!status.success());
    assert!(node.log().contains("password_file"), "{}", node.log());
    assert!(!node.log().contains("canary"), "{}", node.log());
}
