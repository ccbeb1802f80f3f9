use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::pull::{Outcome, Pull};
use super::{Dice, MIB, Object, Quarry, progress, sized};
use crate::support::content::{Image, random, sha256};
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Fault, Upstream};
use crate::support::{eventually, needs};

/// `_IOR('X', 125, __u32)` of the kernel's `fs.h`.
const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// What becomes of the file system's own log when the power fails.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Log {
    Flushed = 1,
    Lost = 2,
}

/// A node whose folder is an ext4 of its own, in a file.
pub struct Machine {
    pub parent: Upstream,
    pub node: Node,
    disk: PathBuf,
    mounting: String,
}

impl Machine {
    async fn new() -> Self {
        let parent = Upstream::start().await;
        let node = Setup::below(&parent.url()).capacity("192MiB").placed();
        Self::of(parent, node).await
    }

    /// A registry of its own. `failpoints` as the variable `FAILPOINTS` has them.
    async fn registry(failpoints: &str) -> Self {
        let mut node = Setup::alone().registry().capacity("192MiB").placed();
        node.environment("FAILPOINTS", failpoints);
        Self::of(Upstream::start().await, node).await
    }

    pub async fn of(parent: Upstream, mut node: Node) -> Self {
        let disk = node.folder().join("disk");
        let file = File::create(&disk).and_then(|file| file.set_len(320 << 20));
        file.expect("a file with holes");
        std::fs::create_dir(node.data()).expect("a writable folder");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk));
        let mounting = format!("mount -o loop {} {}", disk.display(), node.data().display());
        node.mount(&mounting);
        node.start().await;
        Self {
            parent,
            node,
            disk,
            mounting,
        }
    }

    pub async fn start_without_index(&mut self) {
        let index = self.node.data().join("index.db");
        let index = index.display();
        self.node.mount(&format!("rm -f {index} {index}-wal {index}-shm"));
        self.node.start().await;
        self.node.forget_mounts();
        self.node.mount(&self.mounting);
    }

    /// The disk takes nothing any more, the node is gone, and what the disk has is all that there is.
    pub async fn lose_power(&mut self, log: Log) {
        let seen = format!("/proc/{}/root{}", self.node.pid(), self.node.data().display());
        let folder = File::open(seen).expect("the node's folder");
        shut_down(&folder, log);
        drop(folder);
        self.kill().await;
    }

    /// The node is gone, and the disk is free.
    pub async fn kill(&mut self) {
        self.node.kill();
        // Its mounts go with it. Mounted a second time before that, the disk would still be the dead one.
        eventually("the disk is free", async || {
            let used = Command::new("losetup").arg("-j").arg(&self.disk).output();
            used.is_ok_and(|used| used.stdout.is_empty())
        })
        .await;
    }
}

/// Ends a file system as a power cut would: nothing that is not on the medium gets there.
#[allow(unsafe_code, reason = "no library has this call")]
fn shut_down(folder: &File, log: Log) {
    let flag = log as u32;
    // SAFETY: the call reads one 32-bit number at the address, and the descriptor is open.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_SHUTDOWN as _, &raw const flag) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn run(command: &mut Command) {
    let output = command.env("PATH", needs::path()).output().expect("a program");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// What was acknowledged, by repository and tag.
struct Promises {
    /// A layer of all images: pushed once more after each restart.
    base: Bytes,
    kept: Vec<(String, String, Image)>,
}

impl Promises {
    fn new() -> Self {
        Self {
            base: random(300_000),
            kept: Vec::new(),
        }
    }
}

/// Pushes images until the power fails right behind an answer; how many of those acknowledged are lost, of these and of
/// earlier cuts.
async fn lost_of_what_was_pushed(machine: &mut Machine, promises: &mut Promises, cut: usize, dice: &mut Dice) -> usize {
    let repository = format!("cut/{cut}");
    let app = Pusher::of(machine.node.client(), &repository);
    for number in 0..=dice.below(4) {
        let layers = vec![
            random(dice.size(MIB)),
            random(1000),
            Bytes::new(),
            promises.base.clone(),
        ];
        let (tag, image) = (format!("v{number}"), Image::with_layers(layers));
        app.image(&tag, &image).await;
        promises.kept.push((repository.clone(), tag, image));
    }
    // That nothing is promised of this push takes nothing from what is promised of the same bytes.
    if dice.below(2) == 0 {
        let other = Pusher::of(machine.node.client(), &format!("other/{cut}"));
        other.blob(&promises.base).await;
        tokio::time::sleep(Duration::from_millis(dice.below(300) as u64)).await;
    }
    let log = *dice.one_of(&[Log::Flushed, Log::Lost]);
    machine.lose_power(log).await;
    // The index is nothing that a promise needs.
    if cut.is_multiple_of(2) {
        machine.start_without_index().await;
    } else {
        machine.node.start().await;
    }
    let mut lost = 0;
    let recent = promises.kept.len().saturating_sub(8);
    let earlier = (0..4).map(|_| dice.below(promises.kept.len())).collect::<Vec<_>>();
    for (repository, tag, image) in (recent..promises.kept.len())
        .chain(earlier)
        .map(|at| &promises.kept[at])
    {
        let app = Pusher::of(machine.node.client(), repository);
        let manifest = app.get(&format!("manifests/{tag}")).await;
        let mut is_whole = manifest.status == 200 && manifest.body == image.manifest.bytes;
        for bytes in image.layers.iter().chain([&image.config]) {
            let blob = app.get(&format!("blobs/{}", sha256(bytes))).await;
            assert!(
                blob.status != 200 || !blob.complete || blob.body == *bytes,
                "wrong bytes: {blob}"
            );
            is_whole &= blob.status == 200 && blob.complete;
        }
        lost += usize::from(!is_whole);
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut_with_the_index_and_without() {
    let programs = ["unshare", "mount", "losetup", "mkfs.ext4"];
    if !needs::met("power cuts of pushes", "a disk of its own", &programs) {
        return;
    }
    let mut dice = Dice::new();
    let mut machine = Machine::registry("").await;
    let mut promises = Promises::new();
    for cut in 1..=sized(10, 100) {
        let lost = lost_of_what_was_pushed(&mut machine, &mut promises, cut, &mut dice).await;
        assert_eq!(lost, 0, "cut {cut}");
        progress(&format!("cut {cut}: nothing that was acknowledged is lost"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_sync_its_content_or_its_journal_is_found_out() {
    let programs = ["unshare", "mount", "losetup", "mkfs.ext4"];
    if !needs::met("power cuts without syncs", "a disk of its own", &programs) {
        return;
    }
    let mut dice = Dice::new();
    for what in ["store.unsynced.content=return", "store.unsynced.journal=return"] {
        let mut machine = Machine::registry(what).await;
        let mut promises = Promises::new();
        let mut cuts = 0;
        while lost_of_what_was_pushed(&mut machine, &mut promises, cuts, &mut dice).await == 0 {
            cuts += 1;
            assert!(cuts < 20, "{what}: nothing was lost in {cuts} cuts: they cut nothing");
        }
        progress(&format!("{what} is found out by cut {}", cuts + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_at_any_moment_a_node_starts_and_serves_no_wrong_byte() {
    let programs = ["unshare", "mount", "losetup", "mkfs.ext4"];
    if !needs::met("power cuts", "a disk of its own", &programs) {
        return;
    }
    let cuts = sized(20, 100);
    let mut dice = Dice::new();
    let mut machine = Machine::new().await;
    let quarry = Quarry::new(24 * MIB);
    let mut objects: VecDeque<Object> = VecDeque::new();
    let mut kept = 0;

    for cut in 1..=cuts {
        let sizes = (0..6).map(|_| dice.another().size(24 * MIB)).collect::<Vec<_>>();
        let new = quarry.objects(&mut dice, &machine.parent, "a", sizes);
        machine.parent.fault(Fault::get("/blobs/").pace(8 << 20));
        let mut pulls = JoinSet::new();
        for object in &new {
            let pull = Pull::of(machine.node.address(), object);
            pulls.spawn(async move { pull.run().await });
        }
        objects.extend(new);
        objects.drain(..objects.len().saturating_sub(40));
        // Syncs come a second after the bytes.
        tokio::time::sleep(Duration::from_millis(dice.below(1200) as u64)).await;
        let log = *dice.one_of(&[Log::Flushed, Log::Lost]);
        machine.lose_power(log).await;
        for outcome in pulls.join_all().await {
            assert!(
                !matches!(outcome, Outcome::Wrong | Outcome::Stuck),
                "cut {cut}: {outcome:?}"
            );
        }

        machine.parent.without_faults();
        machine.parent.stop().await;
        machine.node.start().await;
        let (mut whole, mut away) = (0, 0);
        for object in &objects {
            match Pull::of(machine.node.address(), object).run().await {
                Outcome::Whole => whole += 1,
                Outcome::Broken | Outcome::Refused(502..=504) => away += 1,
                other => panic!("cut {cut}, {log:?}: {other:?} of {}", object.digest),
            }
        }
        kept += whole;
        progress(&format!(
            "cut {cut}, {log:?}: {whole} objects are still here, {away} are not"
        ));
        machine.parent.start_again().await;
        // Those of before may have left for want of room.
        for object in &objects {
            let outcome = Pull::of(machine.node.address(), object).run().await;
            assert_eq!(outcome, Outcome::Whole, "cut {cut}, {log:?}: {} bytes", object.len());
        }
    }
    assert!(kept > 0, "no cut left anything, so nothing was tried");
}
