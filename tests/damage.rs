//! What others do to the files of a store, and what a failing disk does: nobody gets a wrong byte, and the node goes on.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::stage::Stage;
use crate::support::upstream::{Cut, Fault, Upstream};

const MIB: usize = 1 << 20;

/// A node that has the content, and stands still.
async fn stopped_with(size: usize) -> Stage {
    let mut stage = Stage::cold(size).await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    stage.node.stop().await;
    stage
}

type Damage = fn(&Path);

fn shortened(path: &Path) {
    rewrite(path, |content| content.truncate(content.len() - 1));
}

fn emptied(path: &Path) {
    rewrite(path, Vec::clear);
}

fn zeroed(path: &Path) {
    rewrite(path, |content| content.fill(0));
}

fn flipped(path: &Path) {
    rewrite(path, |content| *content.last_mut().expect("a byte") ^= 1);
}

fn lengthened(path: &Path) {
    rewrite(path, |content| content.push(0));
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).expect("a file");
    change(&mut content);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    fs::write(path, content).expect("our own file");
}

fn turned_into_a_pipe(path: &Path) {
    fs::remove_file(path).expect("a file");
    mkfifo(path, Mode::S_IRWXU).expect("a pipe");
}

fn turned_into_a_link(path: &Path) {
    let elsewhere = path.with_extension("elsewhere");
    fs::rename(path, &elsewhere).expect("a file");
    symlink(elsewhere, path).expect("a link");
}

fn turned_into_a_socket(path: &Path) {
    fs::remove_file(path).expect("a file");
    drop(UnixListener::bind(path).expect("a socket"));
}

fn turned_into_a_folder(path: &Path) {
    fs::remove_file(path).expect("a file");
    fs::create_dir(path).expect("a folder");
}

const OF_BYTES: [Damage; 5] = [shortened, emptied, zeroed, flipped, lengthened];
const OF_KIND: [Damage; 4] = [
    turned_into_a_pipe,
    turned_into_a_link,
    turned_into_a_socket,
    turned_into_a_folder,
];

#[tokio::test]
async fn content_that_was_damaged_at_rest_is_fetched_again_and_without_the_parent_never_served() {
    let mut stage = stopped_with(100_000).await;
    let path = stage.node.stored_at(&stage.digest);
    for damage in OF_BYTES.into_iter().chain(OF_KIND) {
        damage(&path);
        stage.parent.stop().await;
        stage.node.start().await;

        let reply = stage.node.get(&stage.target).await;
        assert!(matches!(reply.status, 503 | 404), "{reply}");
        assert!(!reply.is_false_for(&stage.digest), "{reply}");

        stage.parent.start_again().await;
        stage.parent.forget();
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        assert_eq!(stage.parent.count("GET", &stage.digest), 1);
        assert!(stage.node.has_stored(&stage.digest));
        stage.node.stop().await;
    }
}

#[tokio::test]
async fn content_that_others_replaced_under_a_running_node_is_fetched_again() {
    let mut stage = stopped_with(100_000).await;
    stage.node.start().await;
    let path = stage.node.stored_at(&stage.digest);
    // What has the right length is trusted until a restart.
    for damage in [shortened, emptied, lengthened].into_iter().chain(OF_KIND) {
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        stage.parent.forget();
        damage(&path);

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        assert_eq!(stage.parent.count("GET", &stage.digest), 1);
        assert!(path.symlink_metadata().unwrap().is_file());
    }
}

#[tokio::test]
async fn a_file_that_was_removed_under_a_running_node_is_fetched_again_and_counted() {
    let stage = Stage::cold(100_000).await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    fs::remove_file(stage.node.stored_at(&stage.digest)).unwrap();

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);

    assert!(stage.node.has_stored(&stage.digest));
    assert_eq!(stage.parent.count("GET", &stage.digest), 2);
    assert_eq!(stage.node.metrics().await.sum("wharf_vanished_total", &[]), 1.0);
}

#[tokio::test]
async fn folders_that_were_removed_under_a_running_node_are_made_anew() {
    let mut stage = Stage::cold(100_000).await;
    for gone in [&["blobs"][..], &["partial"], &["blobs", "partial", "quarantine"]] {
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        for folder in gone {
            fs::remove_dir_all(stage.node.data().join(folder)).unwrap();
        }

        let new = random(100_000);
        let digest = stage.parent.blob("a", &new);
        stage.node.get(&blob("a", &digest)).await.assert_is(&new);
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);

        assert!(stage.node.has_stored(&digest) && stage.node.has_stored(&stage.digest));
    }
    assert_eq!(stage.node.metrics().await.sum("wharf_unkept_transfers_total", &[]), 0.0);
    // Quarantine too, once it is needed.
    fs::remove_dir(stage.node.data().join("quarantine")).unwrap();
    stage.node.stop().await;
    flipped(&stage.node.stored_at(&stage.digest));
    stage.node.start().await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.node.data().join("quarantine").read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn what_the_disk_does_not_give_back_is_fetched_again_and_without_the_parent_is_503() {
    // Opened, or hashed after a start.
    for failing in ["store.open=1*return", "store.hash=1*return"] {
        for with_parent in [true, false] {
            let mut stage = stopped_with(MIB).await;
            stage.node.environment("FAILPOINTS", failing);
            stage.node.start().await;
            if !with_parent {
                stage.parent.stop().await;
            }

            let reply = stage.node.get(&stage.target).await;

            if with_parent {
                reply.assert_is(&stage.bytes);
                assert_eq!(stage.parent.count("GET", &stage.digest), 2, "{failing}");
            } else {
                assert_eq!(reply.status, 503, "{failing}: {reply}");
                assert!(!reply.is_false_for(&stage.digest));
            }
            assert_eq!(stage.node.metrics().await.sum("wharf_quarantined_total", &[]), 1.0);
        }
    }
}

#[tokio::test]
async fn a_bad_moment_of_the_disk_and_a_right_that_was_taken_cost_one_reply_and_no_content() {
    // Neither opened nor moved; hashed and not moved; EACCES and EPERM say nothing of the file.
    for failing in [
        "store.open=1*return;store.isolate=1*return",
        "store.hash=1*return;store.isolate=1*return",
        "store.open=1*return(13)",
        "store.open=1*return(1)",
    ] {
        let mut stage = stopped_with(MIB).await;
        stage.node.environment("FAILPOINTS", failing);
        stage.node.start().await;
        stage.parent.stop().await;

        let reply = stage.node.get(&stage.target).await;
        // What cannot be hashed is tried once more.
        let expected = if failing.starts_with("store.hash") { 200 } else { 503 };
        assert_eq!(reply.status, expected, "{failing}: {reply}");
        assert!(!reply.is_false_for(&stage.digest));

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        assert_eq!(stage.node.metrics().await.sum("wharf_quarantined_total", &[]), 0.0);
        // It is on record as well.
        stage.node.environment("FAILPOINTS", "");
        stage.node.stop().await;
        stage.node.start().await;
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
}

/// A node with an image that was stopped in good order, so that all records are in one file.
async fn with_records() -> (Upstream, Node, crate::support::content::Image) {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10_000]);
    let mut node = Node::below(&parent).await;
    assert_pulls(&node, &image).await;
    for at in 0..60 {
        // Names take pages.
        let repository = format!("{at:0>200}");
        let bytes = random(10);
        let digest = parent.blob(&repository, &bytes);
        node.get(&blob(&repository, &digest)).await.assert_is(&bytes);
    }
    node.stop().await;
    whole_index(&node.data().join("index.db"));
    (parent, node, image)
}

/// Has all rows in the one file.
fn whole_index(path: &Path) {
    let index = rusqlite::Connection::open(path).unwrap();
    index
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

async fn assert_pulls(node: &Node, image: &crate::support::content::Image) {
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn an_index_cut_at_any_page_lets_the_node_start_and_pull() {
    let (parent, mut node, image) = with_records().await;
    let path = node.data().join("index.db");
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages >= 12, "{pages} pages");

    for page in 0..pages {
        // Every other time in the middle of a page.
        let cut = page * 4096 + 100 * (page % 2);
        node.kill();
        remove_records(&node);
        fs::write(&path, &whole[..cut]).unwrap();
        node.start().await;
        assert_pulls(&node, &image).await;
    }
    // The content was found without any record of it.
    assert_eq!(parent.count("GET", &image.layer(0)), 1);
}

#[tokio::test]
async fn an_index_with_any_page_made_garbage_lets_the_node_start_and_pull() {
    let (_parent, mut node, image) = with_records().await;
    let path = node.data().join("index.db");
    let whole = fs::read(&path).unwrap();

    for page in 0..whole.len() / 4096 {
        let mut content = whole.clone();
        content[page * 4096..(page + 1) * 4096].copy_from_slice(&random(4096));
        node.kill();
        remove_records(&node);
        fs::write(&path, content).unwrap();
        node.start().await;
        assert_pulls(&node, &image).await;
    }
}

fn remove_records(node: &Node) {
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        // Not all are there.
        let _ = fs::remove_file(node.data().join(name));
    }
}

#[tokio::test]
async fn records_without_rights_are_given_them_back() {
    let (mut parent, mut node, image) = with_records().await;
    parent.stop().await;
    for name in ["index.db", "journal.log"] {
        let path = node.data().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();

        node.start().await;

        assert_pulls(&node, &image).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_journal_with_any_byte_of_its_head_changed_is_set_aside() {
    let (_parent, mut node, image) = with_records().await;
    let path = node.data().join("journal.log");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 16);

    for at in 0..whole.len() {
        let mut content = whole.clone();
        content[at] ^= 1;
        fs::write(&path, &content).unwrap();
        node.start().await;
        assert_pulls(&node, &image).await;
        node.kill();
        assert_eq!(fs::read(&path).unwrap(), whole);
        let aside = node.data().join(format!("journal.log.aside-{}", at + 1));
        assert_eq!(fs::read(aside).unwrap(), content);
    }
}

#[tokio::test]
async fn ten_thousand_files_of_others_hold_up_no_start_and_no_link_among_them_is_followed() {
    const JUNK: usize = 10_000;
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    let bytes = random(50_000);
    fs::write(&secret, &bytes).unwrap();
    let digest = sha256(&bytes);
    let parent = Upstream::start().await;
    let mut node = Setup::below(&parent.url()).placed();
    let data = node.data();
    let hex = &digest[7..];
    let fan = data.join("blobs/sha256").join(&hex[..2]);
    for folder in [&fan, &data.join("partial"), &data.join("quarantine")] {
        fs::create_dir_all(folder).unwrap();
        for at in 0..JUNK / 4 {
            fs::write(folder.join(format!("junk-{at}")), b"junk").unwrap();
        }
    }
    for at in 0..JUNK / 4 {
        fs::write(data.join(format!("junk-{at}")), b"junk").unwrap();
    }
    // Right names, wrong kinds.
    symlink(&secret, fan.join(hex)).unwrap();
    symlink(&secret, data.join("partial").join(digest.replacen(':', "-", 1))).unwrap();
    symlink(elsewhere.path(), data.join("blobs/sha512")).unwrap();
    symlink("/", data.join("blobs/sha256/root")).unwrap();
    let pipe = sha256(b"pipe");
    mkfifo(&data.join("partial").join(pipe.replacen(':', "-", 1)), Mode::S_IRWXU).unwrap();
    let socket = sha256(b"socket");
    fs::create_dir_all(node.stored_at(&socket).parent().unwrap()).unwrap();
    // The address of a socket is short, so it is made where it is.
    let made = std::env::temp_dir().join(format!("{}.socket", std::process::id()));
    drop(UnixListener::bind(&made).unwrap());
    fs::rename(&made, node.stored_at(&socket))
        .or_else(|_| fs::write(node.stored_at(&socket), b"").and_then(|()| fs::remove_file(&made)))
        .unwrap();

    let begun = Instant::now();
    node.start().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    // The parent has nothing of it: what lies there is not handed out, whatever its name.
    assert_eq!(node.get(&blob("a", &digest)).await.status, 404);
    for (name, content) in [
        (&digest, bytes.clone()),
        (&pipe, Bytes::from_static(b"pipe")),
        (&socket, Bytes::from_static(b"socket")),
    ] {
        assert_eq!(&parent.blob("a", &content), name);
        for _ in 0..2 {
            node.get(&blob("a", name)).await.assert_is(&content);
        }
        assert!(node.stored_at(name).symlink_metadata().unwrap().is_file());
        assert_eq!(parent.count("GET", name), if *name == digest { 2 } else { 1 });
    }

    assert_eq!(node.metrics().await.sum("wharf_unkept_transfers_total", &[]), 0.0);
    assert_eq!(fs::read(&secret).unwrap(), bytes);
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 1, "a link was followed");
    let junk = node
        .files()
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("junk-"));
    assert_eq!(junk.count(), JUNK);
}

#[tokio::test]
async fn what_cannot_be_read_of_an_earlier_download_is_begun_anew_and_kept() {
    let mut stage = Stage::placed(4 * MIB).await;
    // The first MiB can be read.
    stage.node.environment("FAILPOINTS", "store.continue=1*off->return");
    stage.node.start().await;
    stage
        .parent
        .fault(Fault::get(&stage.digest).cut_after(3 * MIB as u64, Cut::Fin).times(1));
    stage
        .parent
        .fault(Fault::get(&stage.digest).ranged().status(404).times(1));
    let (broken, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;
    assert!(!broken.complete, "{broken}");

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);

    assert!(stage.node.has_stored(&stage.digest));
}

#[tokio::test]
async fn what_came_wrong_and_cannot_be_removed_is_not_built_upon() {
    for cut_after in [4 * MIB, 3 * MIB] {
        let mut stage = Stage::placed(4 * MIB).await;
        stage.node.environment("FAILPOINTS", "store.discard=return");
        stage.node.start().await;
        let flipped = Fault::get(&stage.digest).flip_at(MIB as u64);
        stage
            .parent
            .fault(flipped.cut_after(cut_after as u64, Cut::Fin).times(1));
        let other = Fault::get(&stage.digest)
            .ranged()
            .header("Content-Range", "bytes 3145728-4194304/4194305");
        stage.parent.fault(other.times(1));
        let (broken, _) = stage.node.client().open(Request::get(&stage.target)).await.rest().await;
        assert!(!broken.complete, "{broken}");
        assert!(stage.node.partial_of(&stage.digest).exists(), "it could be removed");
        stage.parent.without_faults();
        // Whoever asks while it is given up is given up with it.
        eventually("it is given up", async || {
            stage.node.metrics().await.sum("wharf_flights", &[]) == 0.0
        })
        .await;

        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn what_the_disk_neither_gives_nor_moves_is_fetched_past_it_with_few_questions() {
    for (failing, what) in [
        ("store.hash=return;store.isolate=return", "blob"),
        ("store.open=return;store.isolate=return", "blob"),
        ("store.read=return;store.isolate=return", "manifest"),
    ] {
        let parent = Upstream::start().await;
        let image = parent.new_image("a", "v1", &[MIB]);
        let (target, bytes) = match what {
            "blob" => (blob("a", &image.layer(0)), &image.layers[0]),
            _ => (manifest("a", &image.manifest.digest), &image.manifest.bytes),
        };
        let mut node = Setup::below(&parent.url()).placed();
        node.start().await;
        node.get(&manifest("a", "v1")).await;
        node.get(&target).await.assert_is(bytes);
        // Nor does it take anything anew.
        let failing = format!("{failing};store.partial=return");
        node.environment("FAILPOINTS", &failing);
        node.restart().await;
        parent.forget();

        let mut statuses = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            let reply = node.get(&target).await;
            assert!(
                begun.elapsed() < Duration::from_secs(3),
                "{failing}: {:?}",
                begun.elapsed()
            );
            assert!(reply.status != 200 || reply.body == *bytes, "{failing}: {reply}");
            statuses.push(reply.status);
        }

        // It may be a bad moment, once.
        assert!(matches!(statuses[0], 200 | 503), "{failing}: {statuses:?}");
        assert_eq!(statuses[2], 200, "{failing}: {statuses:?}");
        let asked = parent.seen("", "/v2/a/").len();
        assert!(asked <= 6, "{failing}: {asked} questions for three pulls");
    }
}
