//! A disk that is full, turns read-only or fails: clients have their pulls all the same, and nobody gets wrong bytes.
//!
//! The node's folder is a file system of its own, which nobody else sees.

use std::path::PathBuf;

use crate::support::needs;
use crate::support::stage::Stage;

const MIB: usize = 1 << 20;

impl Stage {
    /// The node lies on an empty disk of `room` bytes.
    async fn on_a_disk_of(room: usize, size: usize) -> Self {
        let mut stage = Self::placed(size).await;
        let data = stage.node.data();
        std::fs::create_dir(&data).expect("a writable folder");
        stage
            .node
            .mount(&format!("mount -t tmpfs -o size={room} tmpfs {}", data.display()));
        stage.node.start().await;
        stage
    }

    /// A path below `storage.path`, as one finds it from outside of the node's mounts.
    fn seen(&self, path: PathBuf) -> PathBuf {
        let own = path.strip_prefix("/").expect("an absolute path").to_owned();
        PathBuf::from(format!("/proc/{}/root", self.node.pid())).join(own)
    }

    fn has_stored(&self) -> bool {
        self.seen(self.node.stored_at(&self.digest)).exists()
    }

    async fn unkept(&self) -> f64 {
        self.node.metrics().await.sum("wharf_unkept_transfers_total", &[])
    }
}

fn is_played(test: &str) -> bool {
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
async fn on_a_full_disk_no_wrong_bytes_are_taken_for_right_and_with_room_all_is_well_again() {
    if !is_played("a full disk") {
        return;
    }
    let stage = Stage::on_a_disk_of(32 * MIB, 8 * MIB).await;
    let filler = stage.seen(stage.node.data().join("of-somebody-else"));

    assert!(
        std::fs::write(&filler, vec![1; 33 * MIB]).is_err(),
        "the disk is not full"
    );
    for _ in 0..2 {
        let reply = stage.node.get(&stage.target).await;
        assert!(!reply.is_false_for(&stage.digest), "{reply}");
    }
    assert!(!stage.has_stored());
    std::fs::remove_file(&filler).expect("our own file");

    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.has_stored());
}

#[tokio::test]
async fn a_disk_that_fails_one_write_costs_one_reply_at_most_and_no_wrong_bytes() {
    let mut stage = Stage::placed(3 * MIB).await;
    // The first piece is written, the second is not.
    stage.node.environment("FAILPOINTS", "store.write=1*off->1*return");
    stage.node.start().await;

    let reply = stage.node.get(&stage.target).await;

    assert!(!reply.is_false_for(&stage.digest), "{reply}");
    stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    assert!(stage.node.has_stored(&stage.digest));
}
