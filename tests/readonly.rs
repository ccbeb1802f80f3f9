//! A disk that takes nothing, turned so while the node runs or before it starts: what is here is served, the rest passes by.

use crate::disk::is_played;
use crate::support::client::{blob, manifest};
use crate::support::content::{Image, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

/// The shell command that makes a node's folder read-only, whoever wrote to it before.
fn seal(node: &Node) -> String {
    let data = node.data();
    let data = data.display();
    format!("mount --bind {data} {data} && mount -o remount,bind,ro {data}")
}

async fn assert_pulls(node: &Node, name: &str, image: &Image) {
    node.get(&manifest(name, "v1")).await.assert_is(&image.manifest.bytes);
    for (at, layer) in image.layers.iter().enumerate() {
        node.get(&blob(name, &image.layer(at))).await.assert_is(layer);
    }
}

async fn reasons(node: &Node) -> String {
    let reply = node.admin("/readyz").await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()["reasons"].to_string()
}

/// The shell command that puts what a node has on a disk with no room left at all.
fn fill_up(node: &Node) -> String {
    let (data, full) = (node.data(), node.folder().join("full"));
    let (data, full) = (data.display(), full.display());
    format!(
        "mkdir -p {full} && mount -t tmpfs -o size=48m none {full} && cp -a {data}/. {full}/ && \
         mount --bind {full} {data} && (dd if=/dev/zero of={data}/ballast bs=4k status=none 2>&1 | true)"
    )
}

#[tokio::test]
async fn a_node_starts_on_a_disk_without_any_room_and_serves_what_is_there() {
    if !is_played("a full disk") {
        return;
    }
    let parent = Upstream::start().await;
    let warm = parent.new_image("warm", "v1", &[8 * MIB, 100_000]);
    let cold = parent.new_image("cold", "v1", &[4 * MIB, 50_000]);
    // With a floor of free space content would leave at once.
    let setup = Setup::below(&parent.url())
        .capacity("64MiB")
        .storage("keep_free = \"0B\"");
    let mut node = setup.start().await;
    assert_pulls(&node, "warm", &warm).await;
    node.stop().await;
    let asked = parent.count("GET", "/blobs/");

    let fill_up = fill_up(&node);
    node.mount(&fill_up);
    node.start().await;
    assert_pulls(&node, "warm", &warm).await;

    assert_eq!(parent.count("GET", "/blobs/"), asked);
    assert_pulls(&node, "cold", &cold).await;
    let ballast = node.data().join("ballast");
    node.among_its_mounts(&format!("rm {}", ballast.display()));
    eventually("it is well again", async || reasons(&node).await == "[]").await;
}

#[tokio::test]
async fn a_first_start_on_a_disk_without_any_room_lets_pulls_through() {
    if !is_played("a full disk") {
        return;
    }
    let parent = Upstream::start().await;
    let cold = parent.new_image("cold", "v1", &[4 * MIB, 50_000]);
    let mut node = Setup::below(&parent.url()).capacity("64MiB").placed();
    std::fs::create_dir(node.data()).expect("a writable folder");
    let fill_up = fill_up(&node);
    node.mount(&fill_up);

    node.start().await;

    assert_pulls(&node, "cold", &cold).await;
    assert_ne!(reasons(&node).await, "[]");
}

#[tokio::test]
async fn on_a_disk_that_turns_read_only_nothing_leaves_and_every_pull_is_served() {
    if !is_played("a read-only disk") {
        return;
    }
    let parent = Upstream::start().await;
    let warm = parent.new_image("warm", "v1", &[24 * MIB, 16 * MIB]);
    let cold = parent.new_image("cold", "v1", &[20 * MIB, 100_000]);
    let mut node = Setup::below(&parent.url()).capacity("64MiB").placed();
    // In mounts of its own.
    node.mount("true");
    node.start().await;
    assert_pulls(&node, "warm", &warm).await;
    let asked = parent.count("GET", "/blobs/");

    let seal = seal(&node);
    node.among_its_mounts(&seal);
    eventually("it is said without any pull", async || {
        reasons(&node).await.contains("read-only")
    })
    .await;
    for _ in 0..2 {
        assert_pulls(&node, "cold", &cold).await;
        assert_pulls(&node, "warm", &warm).await;
    }
    assert!(!node.has_stored(&cold.layer(0)));
    assert_eq!(
        parent.count("GET", "/blobs/"),
        asked + 4,
        "what was here was fetched, or what was fetched was kept"
    );

    node.among_its_mounts(&format!("umount {}", node.data().display()));
    eventually("it is well again without any pull", async || {
        !reasons(&node).await.contains("read-only")
    })
    .await;
    assert_pulls(&node, "cold", &cold).await;
    assert!(node.has_stored(&cold.layer(0)));
}

/// Pulled, then stopped or killed, then started on a read-only disk without the parent.
async fn starts_on_a_read_only_disk(kill: bool) {
    let mut parent = Upstream::start().await;
    let warm = parent.new_image("warm", "v1", &[3 * MIB, 100_000]);
    let mut node = Node::below(&parent).await;
    assert_pulls(&node, "warm", &warm).await;
    if kill {
        eventually("what is on record is on the disk", async || {
            recorded(&node) >= 2 + i64::try_from(warm.layers.len()).unwrap()
        })
        .await;
        node.kill();
    } else {
        node.stop().await;
    }
    parent.stop().await;
    let seal = seal(&node);
    node.mount(&seal);

    node.start().await;

    assert_pulls(&node, "warm", &warm).await;
    assert!(reasons(&node).await.contains("read-only"));
    parent.start_again().await;
    let cold = parent.new_image("cold", "v1", &[3 * MIB]);
    assert_pulls(&node, "cold", &cold).await;
    assert!(!node.has_stored(&cold.layer(0)));

    // Once it takes something, all that is new is kept, and is known to the next start.
    node.among_its_mounts(&format!("mount -o remount,bind,rw {}", node.data().display()));
    eventually("it is well again", async || !reasons(&node).await.contains("read-only")).await;
    assert_pulls(&node, "cold", &cold).await;
    node.stop().await;
    parent.stop().await;
    node.forget_mounts();
    node.start().await;
    assert_pulls(&node, "cold", &cold).await;
    assert_pulls(&node, "warm", &warm).await;
}

/// Links and tags in the index of a node, as another program reads them.
fn recorded(node: &Node) -> i64 {
    let index = rusqlite::Connection::open(node.data().join("index.db")).expect("an index");
    let count = |table: &str| -> rusqlite::Result<i64> {
        index.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
    };
    count("link").and_then(|links| Ok(links + count("slot")?)).unwrap_or(0)
}

#[tokio::test]
async fn a_node_starts_on_a_read_only_disk_after_a_stop_and_serves_what_is_there() {
    if is_played("a read-only disk") {
        starts_on_a_read_only_disk(false).await;
    }
}

#[tokio::test]
async fn a_node_starts_on_a_read_only_disk_after_a_kill_and_serves_what_is_there() {
    if is_played("a read-only disk") {
        starts_on_a_read_only_disk(true).await;
    }
}

#[tokio::test]
async fn whatever_the_records_on_a_read_only_disk_are_the_node_starts_and_pulls_go_through() {
    if !is_played("a read-only disk") {
        return;
    }
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[MIB]);
    let mut node = Node::below(&parent).await;
    assert_pulls(&node, "a", &image).await;
    node.stop().await;
    let seal = seal(&node);
    node.mount(&seal);

    for name in ["index.db", "journal.log", "wharf.lock"] {
        let path = node.data().join(name);
        let whole = std::fs::read(&path).unwrap();
        for content in [Some(random(10_000).to_vec()), Some(Vec::new()), None] {
            match &content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            node.start().await;
            assert_pulls(&node, "a", &image).await;
            node.kill();
            assert_eq!(std::fs::read(&path).ok(), content, "{name} was touched");
        }
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test]
async fn an_empty_folder_on_a_read_only_disk_is_enough_for_a_start() {
    if !is_played("a read-only disk") {
        return;
    }
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[MIB]);
    let mut node = Setup::below(&parent.url()).placed();
    std::fs::create_dir(node.data()).unwrap();
    let seal = seal(&node);
    node.mount(&seal);

    node.start().await;

    assert_pulls(&node, "a", &image).await;
}
