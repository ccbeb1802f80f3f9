//! Killed at each point of the store where it would hurt: nobody was told too much, and the next start makes it good.
//!
//! A failpoint holds the program still at the point, which is known by what lies on the disk; then it is killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;
const BUDGET: u64 = 64 << 20;

/// Names that wharf never gives, in folders that are its own.
const FOREIGN: [&str; 4] = [
    "mine.txt",
    "blobs/sha256/README",
    "partial/notes.txt",
    "quarantine/why.md",
];

/// Content that the parent has.
struct Content {
    bytes: Bytes,
    digest: String,
    target: String,
}

impl Content {
    fn at(parent: &Upstream, size: usize) -> Self {
        let bytes = random(size);
        let digest = parent.blob("a", &bytes);
        Self {
            target: blob("a", &digest),
            bytes,
            digest,
        }
    }
}

/// A node that stands still as soon as it comes to a point of the store.
struct Stage {
    parent: Upstream,
    node: Node,
    /// What it kept before, on record.
    kept: Vec<Content>,
    /// What it is about to be asked for.
    next: Content,
}

impl Stage {
    /// `failpoint` as the variable `FAILPOINTS` has it; a blob of each of the sizes `kept` lies there already.
    async fn still_at(failpoint: &str, kept: &[usize], next: usize) -> Self {
        let parent = Upstream::start().await;
        let mut node = Setup::below(&parent.url()).capacity("64MiB").start().await;
        let kept: Vec<Content> = kept.iter().map(|size| Content::at(&parent, *size)).collect();
        for content in &kept {
            node.get(&content.target).await.assert_is(&content.bytes);
        }
        for name in FOREIGN {
            fs::write(node.data().join(name), name).expect("a writable folder");
        }
        node.stop().await;
        node.environment("FAILPOINTS", failpoint);
        node.start().await;
        Self {
            next: Content::at(&parent, next),
            parent,
            node,
            kept,
        }
    }

    /// Asks for what is next, waits until `holds`, and kills. Nobody may have been told that it was all there.
    async fn kill_when(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let (client, target) = (self.node.client(), self.next.target.clone());
        let pull = tokio::spawn(async move { client.open(Request::get(&target)).await.rest().await.0 });
        eventually(what, async || holds(self)).await;
        self.node.kill();
        // A connection that was closed before any head of a reply ends the task; it brought no bytes.
        if let Ok(reply) = pull.await {
            assert!(!reply.complete, "{reply}");
        }
        self.node.environment("FAILPOINTS", "");
    }

    fn kept_files(&self) -> usize {
        self.kept
            .iter()
            .filter(|content| self.node.has_stored(&content.digest))
            .count()
    }

    /// Whatever is asked for comes right, what is on the disk is in the books, and what others put there still is.
    async fn assert_all_is_well(&self) {
        self.assert_books_agree("after the start").await;
        for content in self.kept.iter().chain([&self.next]) {
            self.node.get(&content.target).await.assert_is(&content.bytes);
        }
        self.assert_books_agree("after the pulls").await;
        assert!(
            self.node.disk_bytes() <= BUDGET,
            "{} bytes on disk",
            self.node.disk_bytes()
        );
        for name in FOREIGN {
            let content = fs::read_to_string(self.node.data().join(name)).unwrap_or_default();
            assert_eq!(content, name, "not what was put there");
        }
    }

    /// The node's account of its disk is that of the file system, but for the files of others.
    async fn assert_books_agree(&self, when: &str) {
        let room = |folder| self.node.room_of(folder, &FOREIGN);
        eventually(&format!("the gauges agree with the disk {when}"), async || {
            let metrics = self.node.metrics().await;
            let gauge = |state| metrics.sum("wharf_storage_bytes", &[("state", state)]) as u64;
            let disk = [room("blobs"), room("partial") + room("quarantine"), 0];
            ["committed", "partial", "reserved"].map(gauge) == disk
        })
        .await;
    }
}

#[tokio::test]
async fn killed_before_a_download_is_moved_into_place_a_node_completes_the_next_pull() {
    let mut stage = Stage::still_at("store.commit.before_rename=pause", &[100_000], 3 * MIB).await;

    stage
        .kill_when("all bytes are on the disk", |stage| {
            let partial = fs::metadata(stage.node.partial_of(&stage.next.digest));
            partial.is_ok_and(|partial| partial.len() == 3 * MIB as u64)
        })
        .await;
    assert!(!stage.node.has_stored(&stage.next.digest));
    stage.node.start().await;

    stage.assert_all_is_well().await;
    assert!(stage.node.has_stored(&stage.next.digest));
    assert_eq!(stage.parent.count("GET", &stage.kept[0].digest), 1);
}

#[tokio::test]
async fn killed_before_what_is_in_place_is_recorded_a_node_need_not_fetch_it_again() {
    let mut stage = Stage::still_at("store.commit.after_rename=pause", &[100_000], 3 * MIB).await;

    stage
        .kill_when("the content is in its place", |stage| {
            stage.node.has_stored(&stage.next.digest)
        })
        .await;
    stage.node.start().await;

    stage.assert_all_is_well().await;
    assert_eq!(stage.parent.count("GET", &stage.next.digest), 1);
    assert_eq!(stage.parent.count("GET", &stage.kept[0].digest), 1);
}

#[tokio::test]
async fn killed_between_two_evictions_a_node_keeps_its_budget_and_fetches_what_left() {
    let kept = [12 * MIB + 100; 4];
    let mut stage = Stage::still_at("store.evict.before_unlink=1*off->pause", &kept, 24 * MIB).await;

    stage
        .kill_when("one file has left and the next is about to", |stage| {
            stage.kept_files() == 3
        })
        .await;
    stage.node.start().await;

    assert_eq!(stage.kept_files(), 3, "the start itself removed something");
    stage.assert_all_is_well().await;
}

#[tokio::test]
async fn killed_when_a_file_has_left_a_node_drops_what_is_still_on_record_of_it() {
    let kept = [12 * MIB + 100; 4];
    let mut stage = Stage::still_at("store.evict.after_unlink=pause", &kept, 24 * MIB).await;

    stage
        .kill_when("one file has left", |stage| stage.kept_files() == 3)
        .await;
    stage.node.start().await;

    assert_eq!(stage.kept_files(), 3, "the start itself removed something");
    stage.assert_all_is_well().await;
}

#[tokio::test]
async fn killed_when_a_row_is_gone_and_its_file_is_not_a_node_finds_the_file_again() {
    let kept = [12 * MIB + 100; 4];
    let mut stage = Stage::still_at("store.evict.before_unlink=pause", &kept, 24 * MIB).await;
    let index = stage.node.data().join("index.db");
    let rows = || -> rusqlite::Result<usize> {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let found = rusqlite::Connection::open(&index)?.query_row("SELECT count(*) FROM blob", [], count)?;
        Ok(usize::try_from(found).unwrap_or(0))
    };
    assert_eq!(rows(), Ok(4));

    stage.kill_when("one row is gone", |_| rows() == Ok(3)).await;
    assert_eq!(stage.kept_files(), 4);
    stage.node.start().await;

    stage.assert_all_is_well().await;
}

#[tokio::test]
async fn killed_at_any_moment_of_its_first_start_a_node_starts_the_next_time() {
    let parent = Upstream::start().await;
    let content = Content::at(&parent, 10_000);
    let mut node = Setup::below(&parent.url()).placed();

    for moment in 0..20 {
        // What an earlier start made is there no more.
        let _ = fs::remove_dir_all(node.data());
        node.spawn();
        // A start takes some 50 ms to the end of the index.
        tokio::time::sleep(Duration::from_millis(moment * 4)).await;
        node.kill();

        node.start().await;
        node.get(&content.target).await.assert_is(&content.bytes);
        assert!(node.has_stored(&content.digest));
        let aside = node.files().into_iter().filter(|(path, _)| is_aside(path)).count();
        assert_eq!(aside, 0, "after {} ms: {:?}", moment * 4, node.files());
        node.kill();
    }
}

#[tokio::test]
async fn killed_before_its_journal_has_its_name_a_node_finds_nothing_damaged() {
    let mut node = Setup::below("http://127.0.0.1:9").placed();
    node.environment("FAILPOINTS", "store.journal.made=sleep(60000)");
    node.spawn();
    let made = node.data().join("journal.new");
    eventually("a journal is being made", async || {
        made.metadata().is_ok_and(|metadata| metadata.len() == 16)
    })
    .await;
    assert!(!node.data().join("journal.log").exists());

    node.kill();
    node.environment("FAILPOINTS", "");
    node.start().await;

    assert!(node.data().join("journal.log").exists());
    assert!(!node.files().into_iter().any(|(path, _)| is_aside(&path)));
}

fn is_aside(path: &Path) -> bool {
    path.to_string_lossy().contains(".aside-")
}

#[tokio::test]
async fn killed_again_and_again_while_it_recovers_from_a_kill_a_node_comes_to_the_same_end() {
    let mut parent = Upstream::start().await;
    let sizes = [700_000, 3 * MIB, 10].into_iter().chain((0..200).map(|at| 1000 + at));
    let kept: Vec<Content> = sizes.map(|size| Content::at(&parent, size)).collect();
    let image = parent.new_image("a", "v1", &[10]);
    let mut node = Setup::below(&parent.url()).start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    for content in &kept {
        node.get(&content.target).await.assert_is(&content.bytes);
    }
    // Rows that can be fetched again are written behind.
    let index = node.data().join("index.db");
    eventually("all is on record", async || {
        let count = |index: rusqlite::Connection| -> rusqlite::Result<i64> {
            index.query_row("SELECT count(*) FROM link", [], |row| row.get(0))
        };
        rusqlite::Connection::open(&index).and_then(count) == Ok(kept.len() as i64 + 1)
    })
    .await;
    node.kill();
    parent.stop().await;

    for at in 0_u64..20 {
        node.spawn();
        // Spread over the first 300 ms, in no order.
        tokio::time::sleep(Duration::from_millis(at * 7919 % 300)).await;
        node.kill();
    }
    node.start().await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    for content in &kept {
        node.get(&content.target).await.assert_is(&content.bytes);
    }
    assert_eq!(node.metrics().await.sum("wharf_quarantined_total", &[]), 0.0);
    assert_eq!(node.files().into_iter().filter(|(path, _)| is_aside(path)).count(), 0);
}
