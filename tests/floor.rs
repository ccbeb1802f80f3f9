//! A disk that others fill: what `storage.keep_free` names stays free, content makes way for it, and pulls go on.
//!
//! The node's folder is a file system of its own, which nobody else sees; another process fills it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::disk::is_played;
use crate::support::client::{Request, blob};
use crate::support::content::random;
use crate::support::eventually;
use crate::support::stage::Stage;

const MIB: usize = 1 << 20;
const FLOOR: u64 = 32 << 20;
const KEPT: &str = "keep_free = \"32MiB\"";

/// Blobs that the parent has, with their digests.
fn blobs(stage: &Stage, count: usize, size: usize) -> Vec<(String, Bytes)> {
    let one = |_| {
        let bytes = random(size);
        (stage.parent.blob("a", &bytes), bytes)
    };
    (0..count).map(one).collect()
}

impl Stage {
    async fn pull_all(&self, blobs: &[(String, Bytes)]) {
        for (digest, bytes) in blobs {
            self.node.get(&blob("a", digest)).await.assert_is(bytes);
        }
    }

    /// How many of them lie in the store.
    fn stored(&self, blobs: &[(String, Bytes)]) -> Vec<bool> {
        let is_here = |digest: &str| self.seen(self.node.stored_at(digest)).exists();
        blobs.iter().map(|(digest, _)| is_here(digest)).collect()
    }

    /// Bytes and names that the disk has free.
    fn free(&self) -> (u64, u64) {
        let seen = nix::sys::statvfs::statvfs(&self.seen(self.node.data())).expect("the node's disk");
        (seen.blocks_available() * seen.fragment_size(), seen.files_available())
    }

    /// Another process writes until no more than `free` bytes are left.
    fn fill_down_to(&self, free: u64) {
        let filler = self.node.data().join("of-somebody-else");
        let bytes = self.free().0 - free;
        self.node
            .among_its_mounts(&format!("head -c {bytes} /dev/zero >> {}", filler.display()));
    }

    fn empty_again(&self) {
        let filler = self.seen(self.node.data().join("of-somebody-else"));
        std::fs::remove_file(filler).expect("our own file");
    }
}

#[tokio::test]
async fn while_others_fill_the_disk_the_coldest_content_leaves_and_the_rest_stays() {
    if !is_played("a disk that fills up") {
        return;
    }
    let stage = Stage::on_a_disk("size=160M", &[KEPT], 0).await;
    let blobs = blobs(&stage, 3, 24 * MIB);
    stage.pull_all(&blobs).await;
    assert_eq!(stage.stored(&blobs), [true; 3]);

    stage.fill_down_to(FLOOR - (10 << 20));

    eventually("the floor is free again", async || stage.free().0 >= FLOOR).await;
    assert_eq!(stage.stored(&blobs), [false, true, true]);
    assert_eq!(stage.trouble().await, "");
    let metrics = stage.node.metrics().await;
    let shown = metrics.sum("wharf_storage_free_bytes", &[]);
    assert!((shown - stage.free().0 as f64).abs() < MIB as f64, "{shown}");
    stage.pull_all(&blobs[1..]).await;
    assert_eq!(stage.parent.count("GET", "/blobs/"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_that_would_take_of_the_floor_however_many_ask_at_once() {
    if !is_played("a disk that fills up") {
        return;
    }
    let stage = Stage::on_a_disk("size=160M", &[KEPT], 0).await;
    let blobs = blobs(&stage, 6, 12 * MIB);
    stage.fill_down_to(FLOOR + (30 << 20));
    let done = Arc::new(AtomicBool::new(false));
    let (ended, seen) = (done.clone(), stage.seen(stage.node.data()));
    let sampler = std::thread::spawn(move || {
        let mut least = u64::MAX;
        while !ended.load(Ordering::Relaxed) {
            let now = nix::sys::statvfs::statvfs(&seen).expect("the node's disk");
            least = least.min(now.blocks_available() * now.fragment_size());
        }
        least
    });

    let mut pulls = JoinSet::new();
    for (digest, bytes) in blobs.clone() {
        let client = stage.node.client();
        pulls.spawn(async move {
            let open = client.open(Request::get(&blob("a", &digest))).await;
            open.compare(&bytes).await.is_whole(&bytes)
        });
    }
    let whole = pulls.join_all().await;
    done.store(true, Ordering::Relaxed);
    let least = sampler.join().expect("no panic");

    assert_eq!(whole, [true; 6]);
    // The index grows without asking.
    assert!(least >= FLOOR - (2 << 20), "{least} bytes were free");
    let kept = stage.stored(&blobs).into_iter().filter(|kept| *kept).count();
    assert!((1..=2).contains(&kept), "{kept} were kept");
    assert_eq!(stage.unkept().await, (6 - kept) as f64);
}

#[tokio::test]
async fn below_the_floor_pulls_go_through_unkept_and_readyz_says_so_until_there_is_room() {
    if !is_played("a disk that fills up") {
        return;
    }
    let stage = Stage::on_a_disk("size=128M", &[KEPT], 16 * MIB).await;
    stage.fill_down_to(FLOOR / 2);

    eventually("it is said without any pull", async || {
        stage.reason().await.contains("storage.keep_free")
    })
    .await;
    stage.trouble().await;
    let before = stage.free();
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.unkept().await, 1.0);
    assert!(before.0 - stage.free().0 < MIB as u64, "something was written");
    stage.empty_again();

    eventually("it is well without any pull", async || stage.reason().await.is_empty()).await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.stored(&[(stage.digest.clone(), Bytes::new())]), [true]);
}

#[tokio::test]
async fn content_that_makes_no_room_by_leaving_does_not_go_on_leaving() {
    if !is_played("a disk that fills up") {
        return;
    }
    let stage = Stage::on_a_disk("size=192M", &[KEPT], 0).await;
    let old = blobs(&stage, 3, 16 * MIB);
    stage.pull_all(&old).await;
    // Who holds a file open keeps its room, as a snapshot would.
    let _held: Vec<_> = old
        .iter()
        .map(|(digest, _)| std::fs::File::open(stage.seen(stage.node.stored_at(digest))).expect("it is here"))
        .collect();
    stage.fill_down_to(FLOOR + (4 << 20));

    let new = blobs(&stage, 4, 8 * MIB);
    stage.pull_all(&new).await;

    assert_eq!(stage.stored(&old), [false, true, true], "more than one left");
    assert_eq!(stage.stored(&new), [false; 4]);
    assert_eq!(stage.unkept().await, 4.0);
    stage.empty_again();
    stage.pull_all(&new).await;
    assert_eq!(stage.stored(&new), [true; 4]);
}

#[tokio::test]
async fn on_a_disk_without_names_for_files_old_content_makes_way_and_names_stay_free() {
    if !is_played("a disk without inodes") {
        return;
    }
    // The folders take some 520 names, and a twentieth of all stays free.
    let stage = Stage::on_a_disk("size=64M,nr_inodes=640", &[], 0).await;
    let blobs = blobs(&stage, 120, 1000);

    for one in &blobs {
        stage.pull_all(std::slice::from_ref(one)).await;
        assert!(stage.free().1 >= 30, "{} names are free", stage.free().1);
    }

    let stored = stage.stored(&blobs);
    assert_eq!(stage.unkept().await, 0.0);
    assert!(!stored[0] && stored[119], "{stored:?}");
    assert!(stored.iter().filter(|stored| **stored).count() > 40, "{stored:?}");
}

#[tokio::test]
async fn when_others_took_every_name_for_a_file_pulls_go_through_unkept() {
    if !is_played("a disk without inodes") {
        return;
    }
    let stage = Stage::on_a_disk("size=64M,nr_inodes=700", &["keep_free = \"0B\""], 100_000).await;
    let theirs = stage.node.data().join("theirs");
    stage.node.among_its_mounts(&format!(
        "mkdir {0} && cd {0} && seq 1000 | xargs touch 2>/dev/null; true",
        theirs.display()
    ));

    for _ in 0..2 {
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
    assert_eq!(stage.unkept().await, 2.0);
    assert!(stage.trouble().await.contains("No space left"));
    std::fs::remove_dir_all(stage.seen(theirs)).expect("our own files");

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.stored(&[(stage.digest.clone(), Bytes::new())]), [true]);
    assert_eq!(stage.trouble().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_others_write_without_pause_the_floor_holds_as_long_as_there_is_content_to_leave() {
    const CHUNK: usize = 64 << 10;
    if !is_played("a disk that fills up") {
        return;
    }
    let stage = Stage::on_a_disk("size=160M", &[KEPT], 0).await;
    // Small, so that little more leaves than is lacking.
    let blobs = blobs(&stage, 640, 128 << 10);
    stage.pull_all(&blobs).await;
    stage.fill_down_to(FLOOR + (2 << 20));

    // Another process takes three quarters of what could leave.
    let theirs = stage.seen(stage.node.data().join("without-pause"));
    let filler = std::thread::spawn(move || {
        let mut file = std::fs::File::create(theirs).expect("a file of our own");
        for _ in 0..(60 * MIB / CHUNK) {
            file.write_all(&[0; CHUNK]).expect("the disk has room");
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let mut turns = 0;
    while !filler.is_finished() {
        let (digest, bytes) = &blobs[turns % blobs.len()];
        stage.node.get(&blob("a", digest)).await.assert_is(bytes);
        turns += 1;
        // What is written between two looks, and on a busy machine some more.
        assert!(stage.free().0 >= FLOOR / 4, "{} bytes are free", stage.free().0);
    }
    filler.join().expect("the disk never was full");

    assert!(turns > 0);
    eventually("the floor is free again", async || stage.free().0 >= FLOOR).await;
    assert!(stage.stored(&blobs).contains(&true), "all left");
}
