//! A disk that is full, turns read-only or fails: clients have their pulls all the same, and nobody gets wrong bytes.
//!
//! The node's folder is a file system of its own, which nobody else sees.

use std::path::PathBuf;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::random;
use crate::support::node::Setup;
use crate::support::stage::Stage;
use crate::support::upstream::Upstream;
use crate::support::{eventually, needs};

const MIB: usize = 1 << 20;

impl Stage {
    /// The node lies on an empty disk of `room` bytes, all of which it may fill.
    async fn on_a_disk_of(room: usize, size: usize) -> Self {
        Self::on_a_disk(&format!("size={room}"), &["keep_free = \"0B\""], size).await
    }

    /// The node lies on an empty disk that is mounted with `options`, and `lines` stand under `[storage]`.
    pub async fn on_a_disk(options: &str, lines: &[&str], size: usize) -> Self {
        let mut stage = Self::placed(size).await;
        let data = stage.node.data();
        std::fs::create_dir(&data).expect("a writable folder");
        for line in lines {
            stage.node.setup = stage.node.setup.clone().storage(line);
        }
        stage
            .node
            .mount(&format!("mount -t tmpfs -o {options} tmpfs {}", data.display()));
        stage.node.start().await;
        stage
    }

    /// A path below `storage.path`, as one finds it from outside of the node's mounts.
    pub fn seen(&self, path: PathBuf) -> PathBuf {
        let own = path.strip_prefix("/").expect("an absolute path").to_owned();
        PathBuf::from(format!("/proc/{}/root", self.node.pid())).join(own)
    }

    fn has_stored(&self) -> bool {
        self.seen(self.node.stored_at(&self.digest)).exists()
    }

    /// What `/readyz` says of the disk, empty if it says nothing; the node is ready all the same.
    pub async fn trouble(&self) -> String {
        let said = self.reason().await;
        let degraded = self.node.metrics().await.sum("wharf_storage_degraded", &[]);
        assert_eq!(degraded, f64::from(!said.is_empty()));
        said
    }

    /// The same without a look at the gauge, which may have changed since.
    pub async fn reason(&self) -> String {
        let reply = self.node.admin("/readyz").await;
        assert_eq!(reply.status, 200, "{reply}");
        let said = reply.json();
        let reasons = said["reasons"].as_array().expect("a list");
        let of_disk = reasons
            .iter()
            .filter_map(|reason| reason.as_str())
            .find(|reason| reason.contains("disk"));
        of_disk.unwrap_or_default().to_owned()
    }

    pub async fn unkept(&self) -> f64 {
        self.node.metrics().await.sum("wharf_unkept_transfers_total", &[])
    }
}

pub fn is_played(test: &str) -> bool {
    needs::met(test, "mounts of its own", &["unshare", "nsenter", "mount"])
}

#[tokio::test]
async fn on_a_disk_that_turned_read_only_a_pull_goes_through_unkept() {
    if !is_played("a read-only disk") {
        return;
    }
    let stage = Stage::on_a_disk_of(64 * MIB, 3 * MIB).await;
    let partial = stage.node.data().join("partial");
    let folder = partial.display();

    stage.node.among_its_mounts(&format!(
        "mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    ));
    for pulls in 1..=2 {
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        assert_eq!(stage.unkept().await, f64::from(pulls));
    }
    assert!(!stage.has_stored());
    stage.node.among_its_mounts(&format!("umount {folder}"));

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.has_stored());
    assert_eq!(stage.parent.count("GET", &stage.digest), 3);
}

#[tokio::test]
async fn on_a_full_disk_pulls_go_through_unkept_and_readyz_says_so_until_there_is_room() {
    if !is_played("a full disk") {
        return;
    }
    // 3 MiB are left of the disk, which the budget knows nothing of.
    let stage = Stage::on_a_disk_of(64 * MIB, 24 * MIB).await;
    let filler = stage.seen(stage.node.data().join("of-somebody-else"));
    std::fs::write(&filler, vec![1; 61 * MIB]).expect("room for that");

    for pulls in 1..=2 {
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        assert_eq!(stage.unkept().await, f64::from(pulls));
    }
    assert!(!stage.has_stored());
    assert!(stage.trouble().await.contains("No space left on device"));
    std::fs::remove_file(&filler).expect("our own file");

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.has_stored());
    assert_eq!(stage.trouble().await, "");
}

#[tokio::test]
async fn on_a_disk_that_others_fill_old_content_makes_way_for_new() {
    if !is_played("a full disk") {
        return;
    }
    let stage = Stage::on_a_disk_of(64 * MIB, 24 * MIB).await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.has_stored());
    let filler = stage.seen(stage.node.data().join("of-somebody-else"));
    std::fs::write(&filler, vec![1; 37 * MIB]).expect("room for that");

    let new = random(16 * MIB);
    let digest = stage.parent.blob("a", &new);
    stage.node.get(&blob("a", &digest)).await.assert_is(&new);

    assert_eq!(stage.unkept().await, 0.0);
    assert!(!stage.has_stored() && stage.seen(stage.node.stored_at(&digest)).exists());
}

#[tokio::test]
async fn a_disk_that_fails_one_write_costs_no_reply_and_keeps_nothing() {
    let mut stage = Stage::placed(3 * MIB).await;
    // The first piece is written, the second is not.
    stage.node.environment("FAILPOINTS", "store.write=1*off->1*return");
    stage.node.start().await;

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(!stage.node.has_stored(&stage.digest));
    assert!(stage.trouble().await.contains("Input/output error"));

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.node.has_stored(&stage.digest));
    assert_eq!(stage.trouble().await, "");
}

#[tokio::test]
async fn all_who_follow_a_pull_get_it_whole_though_the_disk_fails_in_the_middle() {
    let mut stage = Stage::placed(48 * MIB).await;
    stage.node.environment("FAILPOINTS", "store.write=12*off->1*return");
    stage.node.start().await;

    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, target, bytes) = (stage.node.client(), stage.target.clone(), stage.bytes.clone());
        pulls.spawn(async move {
            let open = client.open(Request::get(&target)).await;
            open.compare(&bytes).await.is_whole(&bytes)
        });
    }

    assert!(pulls.join_all().await.into_iter().all(|whole| whole));
    assert!(stage.unkept().await >= 1.0);
}

#[tokio::test]
async fn content_that_cannot_be_synced_is_dropped_and_fetched_again() {
    let mut stage = Stage::placed(MIB).await;
    stage.node.environment("FAILPOINTS", "store.sync=1*return");
    stage.node.start().await;

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    eventually("it is dropped", async || !stage.node.has_stored(&stage.digest)).await;
    assert!(stage.trouble().await.contains("Input/output error"));

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert_eq!(stage.parent.count("GET", &stage.digest), 2);
}

#[tokio::test]
async fn after_a_failed_read_content_is_hashed_before_it_is_trusted_again() {
    let mut stage = Stage::placed(3 * MIB).await;
    stage.node.start().await;
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    stage.node.environment("FAILPOINTS", "listener.sendfile=1*return");
    stage.node.restart().await;

    let broken = stage.open().await.rest().await.0;
    assert!(!broken.complete, "{broken}");
    stage.node.damage(&stage.digest, MIB as u64);
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);

    assert_eq!(stage.parent.count("GET", &stage.digest), 2);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_from_the_disk_is_fetched_again() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10]);
    let mut node = Setup::below(&parent.url()).placed();
    node.start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.environment("FAILPOINTS", "store.read=1*return");
    node.restart().await;

    let reply = node.get(&manifest("a", &image.manifest.digest)).await;

    reply.assert_is(&image.manifest.bytes);
    assert_eq!(parent.count("GET", &image.manifest.digest), 2);
}

#[tokio::test]
async fn what_a_tag_meant_is_still_served_when_what_it_means_now_could_not_be_kept() {
    let mut parent = Upstream::start().await;
    let old = parent.new_image("a", "v1", &[10]);
    let mut node = Setup::below(&parent.url()).tag_ttl("0s").placed();
    // The manifest of the old image is written once, and everything after it is refused.
    node.environment("FAILPOINTS", "store.write=1*off->return");
    node.start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&old.manifest.bytes);
    let new = parent.new_image("a", "v1", &[20]);
    node.get(&manifest("a", "v1")).await.assert_is(&new.manifest.bytes);

    parent.stop().await;

    let reply = node.get(&manifest("a", "v1")).await;
    reply.assert_is(&old.manifest.bytes);
    assert!(reply.header("cache-status").contains("stale"), "{reply}");
}

#[tokio::test]
async fn the_end_of_content_that_is_not_kept_can_be_asked_for_too() {
    let mut stage = Stage::placed(96 * MIB).await;
    stage.node.environment("FAILPOINTS", "store.write=return");
    stage.node.start().await;

    let open = stage.open().await;
    assert!(open.compare(&stage.bytes).await.is_whole(&stage.bytes));

    let (first, last) = (80 * MIB, 96 * MIB - 1);
    let reply = stage.node.range(&stage.target, &format!("{first}-")).await;

    reply.assert_part(&stage.bytes, first, last);
}
