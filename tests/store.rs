//! What lies on disk: any content starts, the budget holds, what was not wharf's stays, and no crash makes bytes wrong.

use std::fs;
use std::path::Path;

use tokio::task::JoinSet;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{Image, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::stage::Stage;
use crate::support::upstream::{Fault, Gate, Upstream};

const MIB: usize = 1 << 20;

/// A node whose data folder `fill` fills before the first start, and its parent with image `a:v1`.
async fn begun_on(fill: impl FnOnce(&Path)) -> (Upstream, Node, Image) {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let mut node = Setup::below(&parent.url()).placed();
    fs::create_dir_all(node.data()).expect("a writable folder");
    fill(&node.data());
    node.start().await;
    (parent, node, image)
}

async fn assert_pulls(node: &Node, name: &str, image: &Image) {
    node.get(&manifest(name, &image.manifest.digest))
        .await
        .assert_is(&image.manifest.bytes);
    for (at, layer) in image.layers.iter().enumerate() {
        node.get(&blob(name, &image.layer(at))).await.assert_is(layer);
    }
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let digest = sha256(b"some content");
    let hex = digest.split_once(':').expect("a digest").1.to_owned();
    let foreign = [
        "README.txt".to_owned(),
        "lost+found/note".to_owned(),
        "blobs/.keep".to_owned(),
        "blobs/sha256/zz/not-hex".to_owned(),
        format!("blobs/sha256/{}/{hex}.bak", &hex[..2]),
        "blobs/md5/aa/x".to_owned(),
        "partial/notes.txt".to_owned(),
        "uploads/report.pdf".to_owned(),
        "quarantine/why.md".to_owned(),
        "docker/registry/v2/repositories/x/_layers".to_owned(),
    ];
    let names = foreign.clone();

    let (_parent, mut node, image) = begun_on(move |data| {
        for name in &names {
            let path = data.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
            fs::write(path, format!("belongs to somebody: {name}")).expect("a writable folder");
        }
    })
    .await;
    assert_pulls(&node, "a", &image).await;
    node.restart().await;
    node.stop().await;

    for name in foreign {
        let content = fs::read_to_string(node.data().join(&name)).unwrap_or_default();
        assert_eq!(content, format!("belongs to somebody: {name}"));
    }
}

#[tokio::test]
async fn records_of_any_content_let_the_node_start() {
    for name in ["index.db", "journal.log", "index.db-wal", "wharf.lock"] {
        for content in [
            Vec::new(),
            vec![0; 8192],
            random(10_000).to_vec(),
            b"SQLite format 3\0".to_vec(),
        ] {
            let (_parent, node, image) = begun_on(|data| fs::write(data.join(name), &content).unwrap()).await;
            assert_pulls(&node, "a", &image).await;
        }
    }
}

#[tokio::test]
async fn records_that_were_damaged_after_use_let_the_node_start_and_serve() {
    for name in ["index.db", "journal.log"] {
        for damage in [damage_by_cutting, damage_by_zeroing, damage_by_removing] {
            let (_parent, mut node, image) = begun_on(|_| {}).await;
            node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
            assert_pulls(&node, "a", &image).await;
            node.stop().await;
            damage(&node.data().join(name));

            node.start().await;

            node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
            assert_pulls(&node, "a", &image).await;
        }
    }
}

fn damage_by_cutting(path: &Path) {
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
}

fn damage_by_zeroing(path: &Path) {
    let length = fs::metadata(path).map_or(4096, |metadata| metadata.len() as usize);
    fs::write(path, vec![0; length]).unwrap();
}

fn damage_by_removing(path: &Path) {
    // It may not have been there.
    let _ = fs::remove_file(path);
}

#[tokio::test]
async fn what_stands_in_the_way_is_moved_aside_with_all_that_it_holds() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("mine"), "mine").unwrap();
    let (_parent, mut node, image) = begun_on(|data| {
        fs::create_dir(data.join("blobs")).unwrap();
        for file in ["blobs/sha256", "partial"] {
            fs::write(data.join(file), format!("a file called {file}")).unwrap();
        }
        for folder in ["index.db", "journal.log", "wharf.lock"] {
            fs::create_dir(data.join(folder)).unwrap();
            fs::write(data.join(folder).join("inside"), format!("in {folder}")).unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.path().join("away"), data.join("quarantine")).unwrap();
    })
    .await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
    node.stop().await;

    for (aside, content) in [
        ("blobs/sha256.aside-1", "a file called blobs/sha256"),
        ("partial.aside-1", "a file called partial"),
        ("index.db.aside-1/inside", "in index.db"),
        ("journal.log.aside-1/inside", "in journal.log"),
        ("wharf.lock.aside-1/inside", "in wharf.lock"),
    ] {
        assert_eq!(
            fs::read_to_string(node.data().join(aside)).unwrap_or_default(),
            content,
            "{aside}"
        );
    }
    assert!(node.data().join("quarantine.aside-1").is_symlink());
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 1, "a link was followed");
}

#[tokio::test]
async fn records_of_a_newer_wharf_are_refused_and_left_untouched() {
    for (name, newer) in [("index.db", newer_index as fn(&Path)), ("journal.log", newer_journal)] {
        let (_parent, mut node, _image) = begun_on(|_| {}).await;
        node.stop().await;
        let path = node.data().join(name);
        newer(&path);
        let before = fs::read(&path).unwrap();

        node.spawn();
        let status = node.ended().await;

        assert!(!status.success(), "{name}");
        assert!(
            node.log().contains("start the newer wharf again"),
            "{name}: {}",
            node.log()
        );
        assert!(fs::read(&path).unwrap() == before, "{name} was touched");
        assert!(
            !node.data().join(format!("{name}.aside-1")).exists(),
            "{name} was set aside"
        );
    }
}

#[tokio::test]
async fn an_index_that_another_program_holds_stops_the_start_and_keeps_its_tags() {
    let (mut parent, mut node, image) = begun_on(|_| {}).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
    node.stop().await;
    let path = node.data().join("index.db");
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();

    node.spawn();
    let status = node.ended().await;
    drop(holder);

    assert!(!status.success());
    let log = node.log();
    assert!(log.contains("index.db") && log.contains("start again"), "{log}");
    assert!(!node.data().join("index.db.aside-1").exists());
    parent.stop().await;
    node.start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
}

fn newer_index(path: &Path) {
    let index = rusqlite::Connection::open(path).unwrap();
    index.pragma_update(None, "user_version", 99).unwrap();
}

fn newer_journal(path: &Path) {
    let mut head = fs::read(path).unwrap();
    head[8..12].copy_from_slice(&99_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..12]).to_le_bytes();
    head[12..16].copy_from_slice(&checksum);
    fs::write(path, head).unwrap();
}

#[tokio::test]
async fn blobs_that_are_not_what_they_are_called_are_never_served() {
    let bytes = random(50_000);
    let digest = sha256(&bytes);
    let hex = digest.split_once(':').expect("a digest").1.to_owned();
    for content in [Vec::new(), vec![0; 50_000], bytes[..49_999].to_vec()] {
        let folder = hex.clone();
        let (parent, node, _) = begun_on(move |data| {
            let folder_path = data.join("blobs/sha256").join(&folder[..2]);
            fs::create_dir_all(&folder_path).unwrap();
            fs::write(folder_path.join(&folder), content).unwrap();
        })
        .await;
        parent.blob("a", &bytes);

        let reply = node.get(&blob("a", &digest)).await;

        assert!(!reply.is_false_for(&digest), "{reply}");
        node.get(&blob("a", &digest)).await.assert_is(&bytes);
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let (parent, first, image) = begun_on(|_| {}).await;
    let mut second = Setup::below(&parent.url()).placed();
    fs::remove_dir_all(second.data()).ok();
    std::os::unix::fs::symlink(first.data(), second.data()).unwrap();

    second.spawn();
    let status = second.ended().await;

    assert!(!status.success());
    assert!(
        second.log().contains("another"),
        "the reason is not given: {}",
        second.log()
    );
    assert_pulls(&first, "a", &image).await;
}

#[tokio::test]
async fn a_path_that_is_a_file_is_refused_and_left_as_it_is() {
    let mut node = Setup::alone().placed();
    fs::write(node.data(), "settings of somebody").unwrap();

    node.spawn();
    let status = node.ended().await;

    assert_eq!(status.code(), Some(2));
    assert!(node.log().contains("is not a folder"), "{}", node.log());
    assert_eq!(fs::read(node.data()).unwrap(), b"settings of somebody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_holds_at_every_instant_and_every_pull_is_right() {
    let parent = Upstream::start().await;
    let blobs: Vec<_> = (0..24).map(|_| random(12 * MIB)).collect();
    let node = Setup::below(&parent.url()).capacity("96MiB").start().await;
    let budget = 96 << 20;

    let mut most = 0;
    for three in blobs.chunks(3) {
        let mut pulls = JoinSet::new();
        for bytes in three {
            let (client, target, bytes) = (node.client(), blob("a", &parent.blob("a", bytes)), bytes.clone());
            pulls.spawn(async move {
                let open = client.open(Request::get(&target)).await;
                open.compare(&bytes).await.is_whole(&bytes)
            });
        }
        while !pulls.is_empty() {
            most = most.max(node.disk_bytes());
            while let Some(whole) = pulls.try_join_next() {
                assert!(whole.expect("no panic"), "wrong bytes");
            }
            // While it is looked at the node stands still; it must also move.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    assert!(most <= budget, "{most} bytes on disk");
    assert!(
        node.disk_bytes() > budget / 3,
        "hardly anything is kept: {}",
        node.disk_bytes()
    );
    let metrics = node.metrics().await;
    assert!(metrics.sum("wharf_evicted_bytes_total", &[]) >= (100 << 20) as f64);
    assert!(metrics.sum("wharf_storage_bytes", &[]) <= budget as f64);
}

#[tokio::test]
async fn what_is_larger_than_the_whole_budget_is_served_and_not_kept() {
    let parent = Upstream::start().await;
    let bytes = random(80 * MIB);
    let digest = parent.blob("a", &bytes);
    let node = Setup::below(&parent.url()).capacity("64MiB").start().await;

    for _ in 0..2 {
        let whole = node
            .client()
            .open(Request::get(&blob("a", &digest)))
            .await
            .compare(&bytes)
            .await;
        assert!(whole.is_whole(&bytes), "{whole:?}");
    }

    assert!(node.disk_bytes() <= 64 << 20);
    assert!(!node.has_stored(&digest));
}

#[tokio::test]
async fn a_cold_image_leaves_before_a_layer_of_a_warm_one() {
    let mut parent = Upstream::start().await;
    let images: Vec<Image> = ["warm", "cold", "new"]
        .map(|tag| parent.new_image(tag, "v1", &[16 * MIB, 16 * MIB]))
        .to_vec();
    let [warm, cold, new] = &images[..] else { unreachable!() };
    let node = Setup::below(&parent.url()).capacity("96MiB").start().await;
    for (name, image) in [("warm", warm), ("cold", cold)] {
        node.get(&manifest(name, "v1")).await.assert_is(&image.manifest.bytes);
        assert_pulls(&node, name, image).await;
    }

    // The manifest alone is asked for again, as `imagePullPolicy: Always` does. Use is noted to the second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    node.get(&manifest("warm", "v1")).await.assert_is(&warm.manifest.bytes);
    node.get(&manifest("new", "v1")).await.assert_is(&new.manifest.bytes);
    assert_pulls(&node, "new", new).await;
    parent.stop().await;

    assert_pulls(&node, "warm", warm).await;
    assert!(!node.has_stored(&cold.layer(0)) || !node.has_stored(&cold.layer(1)));
}

#[tokio::test]
async fn what_is_fetched_again_while_its_old_file_is_leaving_stays() {
    let parent = Upstream::start().await;
    let [(old, old_bytes), (cold, cold_bytes), (new, new_bytes)] = [4, 44, 10].map(|size| {
        let bytes = random(size * MIB);
        (parent.blob("a", &bytes), bytes)
    });
    let mut node = Setup::below(&parent.url()).capacity("64MiB").placed();
    node.environment("FAILPOINTS", "store.evict.before_unlink=1*sleep(3000)");
    node.start().await;
    for (digest, bytes) in [(&old, &old_bytes), (&cold, &cold_bytes)] {
        node.get(&blob("a", digest)).await.assert_is(bytes);
    }

    let (client, target) = (node.client(), blob("a", &new));
    let evicting = tokio::spawn(async move { client.open(Request::get(&target)).await.compare(&new_bytes).await });
    eventually("the old blob leaves", async || {
        node.metrics().await.sum("wharf_evicted_bytes_total", &[]) >= old_bytes.len() as f64
    })
    .await;
    assert!(node.has_stored(&old), "the eviction does not stand still");
    node.get(&blob("a", &old)).await.assert_is(&old_bytes);
    evicting.await.unwrap();

    assert!(node.has_stored(&old));
    let aside = node.stored_at(&old).with_file_name(format!("{}.aside-1", &old[7..]));
    assert!(!aside.exists(), "a file that is in no books");
    node.get(&blob("a", &old)).await.assert_is(&old_bytes);
    assert_eq!(parent.count("GET", &old), 2);
}

#[tokio::test]
async fn room_is_not_lent_before_what_had_it_has_left() {
    let parent = Upstream::start().await;
    let [(cold, cold_bytes), (first, first_bytes), (second, second_bytes)] = [44, 16, 30].map(|size| {
        let bytes = random(size * MIB);
        (parent.blob("a", &bytes), bytes)
    });
    let mut node = Setup::below(&parent.url()).capacity("64MiB").placed();
    node.environment("FAILPOINTS", "store.evict.before_unlink=1*sleep(3000)");
    node.start().await;
    node.get(&blob("a", &cold)).await.assert_is(&cold_bytes);

    let (client, target) = (node.client(), blob("a", &first));
    let evicting = tokio::spawn(async move { client.open(Request::get(&target)).await.compare(&first_bytes).await });
    eventually("the cold blob leaves", async || {
        node.metrics().await.sum("wharf_evicted_bytes_total", &[]) >= cold_bytes.len() as f64
    })
    .await;
    assert!(node.has_stored(&cold), "the eviction does not stand still");
    node.get(&blob("a", &second)).await.assert_is(&second_bytes);

    assert!(!node.has_stored(&cold), "more lay on the disk than the budget allows");
    evicting.await.unwrap();
    assert!(node.has_stored(&first) && node.has_stored(&second));
}

#[tokio::test]
async fn a_node_killed_in_a_pull_serves_no_wrong_bytes_and_completes_the_next() {
    let (mut stage, gate, open) = Stage::under_way(8_000_000, 4_000_000).await;

    stage.node.kill();
    let (broken, _) = open.rest().await;
    gate.open();
    assert!(!broken.complete);
    assert!(!stage.node.has_stored(&stage.digest));
    stage.node.start().await;

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.node.has_stored(&stage.digest));
}

#[tokio::test]
async fn a_partial_download_that_was_damaged_while_the_node_was_down_is_not_built_upon() {
    let (mut stage, gate, _leader) = Stage::under_way(8_000_000, 4_000_000).await;
    stage.node.kill();
    gate.open();
    let path = stage.node.partial_of(&stage.digest);
    let mut content = fs::read(&path).unwrap();
    content[2_000_000] ^= 1;
    fs::write(&path, content).unwrap();
    stage.node.start().await;

    let reply = stage.node.get(&stage.target).await;

    assert!(!reply.is_false_for(&stage.digest), "{reply}");
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn a_partial_download_that_cannot_be_opened_stays_on_the_books() {
    let (mut stage, gate, _leader) = Stage::under_way(8_000_000, 4_000_000).await;
    stage.node.kill();
    gate.open();
    stage.node.environment("FAILPOINTS", "store.partial=return");
    stage.node.start().await;
    let before = stage
        .node
        .metrics()
        .await
        .sum("wharf_storage_bytes", &[("state", "partial")]);
    assert!(before > 0.0);

    let reply = stage.node.get(&stage.target).await;

    assert!(!reply.is_false_for(&stage.digest), "{reply}");
    assert!(stage.node.partial_of(&stage.digest).exists());
    let after = stage
        .node
        .metrics()
        .await
        .sum("wharf_storage_bytes", &[("state", "partial")]);
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_was_pulled_is_there_after_a_stop_without_the_parent() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000, 200_000]);
    let mut node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;

    assert!(node.stop().await.success());
    parent.stop().await;
    node.start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill_without_the_parent() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000, 200_000]);
    let mut node = Node::below(&parent).await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
    // Rows that can be fetched again are written behind.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;

    node.kill();
    parent.stop().await;
    node.start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
}

#[tokio::test]
async fn what_the_index_refused_for_a_while_is_on_record_once_it_takes_rows_again() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100_000, 200_000]);
    let mut node = Setup::below(&parent.url()).placed();
    // More often than the writer has patience with the first rows.
    node.environment("FAILPOINTS", "store.index=6*return");
    node.start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
    eventually("rows are given up", async || {
        node.metrics().await.sum("wharf_index_errors_total", &[]) >= 6.0
    })
    .await;

    node.stop().await;
    parent.stop().await;
    node.start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    assert_pulls(&node, "a", &image).await;
}

#[tokio::test]
async fn killed_again_and_again_a_node_never_serves_wrong_bytes() {
    let parent = Upstream::start().await;
    let images: Vec<Image> = (0..6)
        .map(|at| parent.new_image("a", &format!("v{at}"), &[700_000, 30_000]))
        .collect();
    let mut node = Node::below(&parent).await;

    for (at, image) in images.iter().enumerate() {
        let (client, digest) = (node.client(), image.layer(0));
        let target = blob("a", &digest);
        let pull = tokio::spawn(async move { client.open(Request::get(&target)).await.rest().await.0 });
        // At another place of the pull each time.
        let reached = 120_000 * at as u64;
        eventually("the pull gets on", async || parent.body_bytes(&digest) >= reached).await;
        node.kill();
        // A connection that was closed before any head of a reply ends the task; it brought no bytes.
        if let Ok(reply) = pull.await {
            assert!(!reply.is_false_for(&digest), "{reply}");
        }
        node.start().await;
    }

    for image in &images {
        assert_pulls(&node, "a", image).await;
    }
}

/// The node is stopped in good order, then one byte of a layer of `size` bytes changes on its disk.
async fn damaged_at_rest(size: usize) -> (Upstream, Node, bytes::Bytes, String) {
    let parent = Upstream::start().await;
    let bytes = random(size);
    let digest = parent.blob("a", &bytes);
    let mut node = Node::below(&parent).await;
    node.get(&blob("a", &digest)).await.assert_is(&bytes);
    node.stop().await;
    node.damage(&digest, size as u64 / 3);
    node.start().await;
    (parent, node, bytes, digest)
}

#[tokio::test]
async fn a_small_layer_that_was_damaged_at_rest_is_mended_before_anyone_sees_it() {
    let (parent, node, bytes, digest) = damaged_at_rest(8 * MIB).await;

    node.get(&blob("a", &digest)).await.assert_is(&bytes);

    assert_eq!(parent.count("GET", &digest), 2);
    assert_eq!(node.metrics().await.sum("wharf_quarantined_total", &[]), 1.0);
}

#[tokio::test]
async fn a_large_layer_that_was_damaged_at_rest_never_arrives_whole_and_is_mended_for_the_next() {
    let (parent, node, bytes, digest) = damaged_at_rest(48 * MIB).await;

    let (broken, _) = node.client().open(Request::get(&blob("a", &digest))).await.rest().await;
    assert!(!broken.complete, "{broken:?}");
    node.get(&blob("a", &digest)).await.assert_is(&bytes);

    assert_eq!(parent.count("GET", &digest), 2);
}

#[tokio::test]
async fn after_a_restart_large_layers_are_served_at_once_and_whole_and_by_parts_without_the_parent() {
    let mut parent = Upstream::start().await;
    let bytes = random(48 * MIB);
    let digest = parent.blob("a", &bytes);
    let mut node = Node::below(&parent).await;
    node.get(&blob("a", &digest)).await.assert_is(&bytes);
    node.stop().await;
    parent.stop().await;
    node.start().await;

    let last = bytes.len() - 1;
    let part = node.range(&blob("a", &digest), &format!("{}-", last - 999)).await;
    part.assert_part(&bytes, last - 999, last);
    for _ in 0..2 {
        node.get(&blob("a", &digest)).await.assert_is(&bytes);
    }

    assert_eq!(node.metrics().await.sum("wharf_quarantined_total", &[]), 0.0);
}

#[tokio::test]
async fn a_pull_that_goes_on_after_a_kill_is_kept_though_no_manifest_tells_its_size() {
    let parent = Upstream::start().await;
    let bytes = random(40 * MIB);
    let digest = parent.blob("a", &bytes);
    let gate = Gate::closed();
    parent.fault(Fault::get(&digest).hold_after(30 * MIB as u64, &gate).times(1));
    // A quarter of the budget is less than the blob.
    let mut node = Setup::below(&parent.url()).capacity("100MiB").start().await;
    let mut open = node.client().open(Request::get(&blob("a", &digest))).await;
    open.read(29 * MIB).await;
    node.restart().await;
    gate.open();

    node.get(&blob("a", &digest)).await.assert_is(&bytes);

    assert!(node.has_stored(&digest));
    assert!(parent.body_bytes(&digest) < 60 * MIB as u64, "all of it was sent again");
}
