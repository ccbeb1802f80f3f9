//! The disk fails, the process is killed, two do different things at once: what was acknowledged stays, and the rest is said.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::support::client::Request;
use crate::support::content::{Image, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

fn to(node: &Node, repository: &str) -> Pusher {
    Pusher::of(node.client(), repository)
}

async fn registry() -> Node {
    Setup::alone().registry().start().await
}

/// Started once more, where these places fail.
async fn restarted(node: &mut Node, failpoints: &str) {
    node.kill();
    node.environment("FAILPOINTS", failpoints);
    node.start().await;
}

#[tokio::test]
async fn what_an_earlier_run_was_promised_is_not_replaced_by_a_push_of_the_same() {
    let mut node = registry().await;
    let image = Image::of(&[100_000]);
    to(&node, "a").image("v1", &image).await;
    node.restart().await;
    let file = |node: &Node| fs::metadata(node.stored_at(&image.layer(0))).unwrap().ino();
    let before = file(&node);

    to(&node, "b").image("v1", &image).await;

    assert_eq!(file(&node), before, "another file took its place");
    to(&node, "a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn what_an_earlier_run_left_damaged_is_healed_by_a_push_of_the_same() {
    let mut node = registry().await;
    let image = Image::of(&[100_000]);
    to(&node, "a").image("v1", &image).await;
    node.stop().await;
    node.damage(&image.layer(0), 5000);
    node.start().await;

    to(&node, "b").image("v1", &image).await;

    to(&node, "a").assert_has("v1", &image).await;
    to(&node, "b").assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_manifest_is_not_taken_in_where_a_layer_of_an_earlier_run_is_damaged() {
    let mut node = registry().await;
    let image = Image::of(&[100_000]);
    to(&node, "a").blobs_of(&image).await;
    node.stop().await;
    node.damage(&image.layer(0), 5000);
    node.start().await;
    let app = to(&node, "a");

    let refused = app.put_manifest("v1", &image.manifest).await;

    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(app.head(&format!("blobs/{}", image.layer(0))).await.status, 404);
    app.image("v1", &image).await;
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_blob_that_lost_its_bytes_with_the_power_can_be_pushed_again() {
    let mut node = registry().await;
    let image = Image::of(&[100_000, 50]);
    to(&node, "a").blobs_of(&image).await;
    node.stop().await;
    for (layer, length) in [(0, 0), (1, 20)] {
        let path = node.stored_at(&image.layer(layer));
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
    }

    node.start().await;

    let app = to(&node, "a");
    for layer in [0, 1] {
        assert_eq!(app.head(&format!("blobs/{}", image.layer(layer))).await.status, 404);
    }
    app.image("v1", &image).await;
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_record_of_a_wrong_size_takes_no_content_away() {
    let mut node = registry().await;
    let image = Image::of(&[100_000]);
    to(&node, "a").image("v1", &image).await;
    node.stop().await;
    let index = rusqlite::Connection::open(node.data().join("index.db")).unwrap();
    let changed = index.execute("UPDATE blob SET size = size + 1", []).unwrap();
    assert!(changed > 0);
    drop(index);

    node.start().await;

    to(&node, "a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_sync_that_fails_refuses_the_push_and_costs_no_image_that_was_there() {
    let mut node = registry().await;
    let base = random(60_000);
    let (old, new) = (
        Image::with_layers(vec![base.clone()]),
        Image::with_layers(vec![base, random(9)]),
    );
    to(&node, "a").image("v1", &old).await;
    restarted(&mut node, "store.sync=return").await;
    let app = to(&node, "a");

    app.blobs_of(&new).await;
    let refused = app.put_manifest("v2", &new.manifest).await;

    assert!(matches!(refused.status, 400 | 503), "{refused}");
    app.assert_has("v1", &old).await;
    restarted(&mut node, "").await;
    let app = to(&node, "a");
    app.assert_has("v1", &old).await;
    app.image("v2", &new).await;
    app.assert_has("v2", &new).await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_synced_promises_nothing_until_it_was_written_anew() {
    let mut node = registry().await;
    let (first, second) = (Image::of(&[1000]), Image::of(&[2000]));
    to(&node, "a").image("v1", &first).await;
    restarted(&mut node, "store.journal.sync=1*return->off").await;
    let app = to(&node, "a");
    app.blobs_of(&second).await;

    let refused = app.put_manifest("v2", &second.manifest).await;

    refused.assert_error(503, "UNAVAILABLE");
    eventually("it is written anew and takes pushes", async || {
        app.put_manifest("v2", &second.manifest).await.status == 201
    })
    .await;
    restarted(&mut node, "").await;
    to(&node, "a").assert_has("v1", &first).await;
    to(&node, "a").assert_has("v2", &second).await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_takes_nothing_in_and_loses_nothing() {
    let mut node = registry().await;
    let image = Image::of(&[1000]);
    to(&node, "a").image("v1", &image).await;
    restarted(&mut node, "store.journal.append=return").await;
    let app = to(&node, "a");
    let bytes = random(500);
    let location = app.open().await;

    app.finish(&location, &sha256(&bytes), &bytes)
        .await
        .assert_error(503, "UNAVAILABLE");
    app.put_manifest("v2", &image.manifest)
        .await
        .assert_error(503, "UNAVAILABLE");
    app.delete("manifests/v1").await.assert_error(503, "UNAVAILABLE");

    app.assert_has("v1", &image).await;
    restarted(&mut node, "").await;
    assert_eq!(to(&node, "a").tags().await, ["v1"]);
}

#[tokio::test]
async fn a_journal_that_is_gone_and_cannot_be_made_anew_is_not_believed_at_the_next_start() {
    let mut node = registry().await;
    let images = [Image::of(&[1000]), Image::of(&[2000])];
    to(&node, "a").image("v0", &images[0]).await;
    node.stop().await;
    fs::remove_file(node.data().join("journal.log")).unwrap();
    node.environment("FAILPOINTS", "store.journal.anew=return");
    node.start().await;
    let app = to(&node, "a");
    app.assert_has("v0", &images[0]).await;
    let location = app.open().await;
    let bytes = random(500);

    app.finish(&location, &sha256(&bytes), &bytes)
        .await
        .assert_error(503, "UNAVAILABLE");

    restarted(&mut node, "").await;
    let app = to(&node, "a");
    app.assert_has("v0", &images[0]).await;
    app.image("v1", &images[1]).await;
    restarted(&mut node, "").await;
    assert_eq!(to(&node, "a").tags().await, ["v0", "v1"]);
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_hole_and_the_upload_goes_on_where_it_is_told() {
    let mut node = registry().await;
    restarted(&mut node, "store.upload.write=1*off->1*return->off").await;
    let app = to(&node, "a");
    let bytes = random(6 * MIB);
    let location = app.open().await;

    let failed = app.patch(&location, None, &bytes).await;

    failed.assert_error(503, "UNAVAILABLE");
    let status = app.send(Request::get(&location)).await;
    let last: usize = status.header("range").split_once('-').unwrap().1.parse().unwrap();
    assert!(last > 0 && last + 1 < bytes.len(), "{status}");
    let rest = app.finish(&location, &sha256(&bytes), &bytes[last + 1..]).await;
    assert_eq!(rest.status, 201, "{rest}");
    app.get(&format!("blobs/{}", sha256(&bytes))).await.assert_is(&bytes);
}

#[tokio::test]
async fn an_error_of_the_last_write_is_said_and_the_upload_goes_on() {
    let mut node = registry().await;
    restarted(&mut node, "store.upload.write=1*return->off").await;
    let app = to(&node, "a");
    let bytes = random(700_000);
    let location = app.open().await;

    app.finish(&location, &sha256(&bytes), &bytes)
        .await
        .assert_error(503, "UNAVAILABLE");

    let again = app.finish(&location, &sha256(&bytes), &bytes).await;
    assert_eq!(again.status, 201, "{again}");
}

#[tokio::test]
async fn a_delete_survives_a_kill_before_the_index_has_it() {
    let mut node = registry().await;
    let (image, kept) = (Image::of(&[1000]), Image::of(&[2000]));
    to(&node, "a").image("v1", &image).await;
    to(&node, "a").image("v2", &kept).await;
    let loose = to(&node, "a").blob(&random(700)).await;
    node.stop().await;
    node.environment("FAILPOINTS", "store.index=return");
    node.start().await;
    let app = to(&node, "a");
    let digest = &image.manifest.digest;
    assert_eq!(app.delete(&format!("manifests/{digest}")).await.status, 202);
    assert_eq!(app.delete(&format!("blobs/{loose}")).await.status, 202);

    restarted(&mut node, "").await;

    let app = to(&node, "a");
    app.get(&format!("manifests/{digest}"))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    app.get("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    app.get(&format!("blobs/{loose}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
    app.assert_has("v2", &kept).await;
    assert_eq!(app.tags().await, ["v2"]);
}

#[tokio::test]
async fn a_delete_takes_no_tag_that_has_moved_meanwhile() {
    let node = registry().await;
    let app = to(&node, "a");
    let images: Vec<Image> = (0..60).map(|_| Image::of(&[10])).collect();
    app.image("v", &images[0]).await;
    for pair in images.windows(2) {
        app.blobs_of(&pair[1]).await;
        let old = format!("manifests/{}", pair[0].manifest.digest);

        let (moved, deleted) = tokio::join!(app.put_manifest("v", &pair[1].manifest), app.delete(&old));

        assert_eq!((moved.status, deleted.status), (201, 202), "{moved} {deleted}");
        app.get("manifests/v").await.assert_is(&pair[1].manifest.bytes);
    }
}

#[tokio::test]
async fn what_was_lost_and_pushed_again_is_not_evicted_for_what_is_pulled() {
    let parent = Upstream::start().await;
    let node = Setup::below(&parent.url()).registry().capacity("64MiB").start().await;
    let app = to(&node, "a");
    let image = Image::of(&[8 * MIB]);
    app.image("v1", &image).await;
    fs::remove_file(node.stored_at(&image.layer(0))).unwrap();
    assert_ne!(app.get(&format!("blobs/{}", image.layer(0))).await.status, 200);

    app.image("v1", &image).await;
    for count in 0..12 {
        let name = format!("big{count}");
        let pulled = parent.new_image(&name, "v1", &[6 * MIB]);
        let blob = to(&node, &name).get(&format!("blobs/{}", pulled.layer(0))).await;
        assert_eq!(blob.status, 200);
    }

    assert!(node.has_stored(&image.layer(0)));
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn what_was_pushed_and_is_lost_can_be_deleted() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[10]);
    app.image("v1", &image).await;
    let mut node = node;
    node.stop().await;
    fs::remove_file(node.stored_at(&image.manifest.digest)).unwrap();
    node.start().await;
    let app = to(&node, "a");
    assert_eq!(app.get("manifests/v1").await.status, 404);

    assert_eq!(app.delete("manifests/v1").await.status, 202);

    assert_eq!(app.tags().await, Vec::<String>::new());
}

#[tokio::test]
async fn while_many_push_the_journal_is_written_anew_and_a_kill_takes_nothing() {
    let mut node = registry().await;
    let journal = node.data().join("journal.log");
    let length = || fs::metadata(&journal).map_or(0, |metadata| metadata.len());
    let images: Vec<Image> = (0..8).map(|_| Image::of(&[10])).collect();
    let push = async |pusher: usize, round: usize| {
        let app = to(&node, &format!("team{pusher}"));
        app.manifest(&format!("r{round}-{}", "x".repeat(100)), &images[pusher].manifest)
            .await;
    };
    for (pusher, image) in images.iter().enumerate() {
        to(&node, &format!("team{pusher}")).blobs_of(image).await;
    }

    let (mut rounds, mut longest) = (0, 0);
    while length() >= longest {
        longest = length();
        join_all((0..images.len()).map(|pusher| push(pusher, rounds))).await;
        rounds += 1;
        assert!(rounds < 2000, "it grew to {longest} bytes and was not written anew");
    }
    join_all((0..images.len()).map(|pusher| push(pusher, rounds))).await;
    rounds += 1;
    node.kill();
    node.lose_index();
    node.start().await;

    for pusher in 0..images.len() {
        let app = to(&node, &format!("team{pusher}"));
        assert_eq!(app.tags().await.len(), rounds, "of pusher {pusher}");
    }
}

#[tokio::test]
async fn blobs_are_collected_while_images_are_pushed_and_none_that_is_needed() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nunused_ttl = \"1s\"\n")
        .start()
        .await;
    let shared: Bytes = random(5000);
    let push = async |pusher: usize| {
        let app = to(&node, "a");
        for round in 0..25 {
            let image = Image::with_layers(vec![shared.clone(), random(100)]);
            let tag = format!("p{pusher}-{round}");
            // As clients do: what is here is not pushed.
            for layer in image.layers.iter().chain([&image.config]) {
                if app.head(&format!("blobs/{}", sha256(layer))).await.status != 200 {
                    app.blob(layer).await;
                }
            }
            app.manifest(&tag, &image.manifest).await;
            app.assert_has(&tag, &image).await;
            app.delete(&format!("manifests/{}", image.manifest.digest)).await;
        }
    };
    let collect = async {
        let mut collected = 0;
        for _ in 0..60 {
            let swept = node.collect("unused=2s").await;
            collected += swept["blobs"].as_array().unwrap().len();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        collected
    };

    let (_, collected) = tokio::join!(join_all((0..4).map(push)), collect);

    assert!(collected > 20, "only {collected} blobs were collected");
}
