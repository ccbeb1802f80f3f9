//! What was pushed, through kills, restarts and damage: an answer is a promise.

use std::fs;

use crate::support::client::Request;
use crate::support::content::{Image, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;

const MIB: usize = 1 << 20;

fn to(node: &Node, repository: &str) -> Pusher {
    Pusher::of(node.client(), repository)
}

async fn registry() -> Node {
    Setup::alone().registry().start().await
}

#[tokio::test]
async fn what_was_pushed_and_deleted_is_so_after_a_kill_with_the_index_or_without() {
    for without_index in [false, true] {
        let mut node = registry().await;
        let (kept, gone) = (Image::of(&[100_000, 0, 1]), Image::of(&[1000]));
        let app = to(&node, "plant/app");
        app.image("v1", &kept).await;
        app.image("old", &gone).await;
        let loose = random(70_000);
        let digest = app.blob(&loose).await;
        let artifact = Image::referring_to(&kept.manifest, "application/vnd.example");
        app.blobs_of(&artifact).await;
        app.manifest(&artifact.manifest.digest, &artifact.manifest).await;
        assert_eq!(app.delete("manifests/old").await.status, 202);

        node.kill();
        if without_index {
            node.lose_index();
        }
        node.start().await;

        let app = to(&node, "plant/app");
        app.assert_has("v1", &kept).await;
        app.assert_has(&gone.manifest.digest, &gone).await;
        app.get(&format!("blobs/{digest}")).await.assert_is(&loose);
        assert_eq!(app.tags().await, ["v1"], "without the index: {without_index}");
        assert_eq!(app.referrers(&kept.manifest.digest).await, [artifact.manifest.digest]);
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_kill_at_the_byte_that_was_told() {
    let mut node = registry().await;
    let app = to(&node, "a");
    let bytes = random(5 * MIB + 17);
    let location = app.open().await;
    let first = app.patch(&location, None, &bytes[..2 * MIB]).await;
    assert_eq!(first.header("range"), format!("0-{}", 2 * MIB - 1), "{first}");
    // Cut in the middle of the second.
    let patch = Request::new("PATCH", &location).header("Content-Length", &(3 * MIB).to_string());
    let mut connection = node.client().connect().await;
    connection.write(&patch.written("node")).await.unwrap();
    connection.write(&bytes[2 * MIB..4 * MIB + 5]).await.unwrap();
    eventually("some of it is on the disk", async || {
        let uploads = node.files().into_iter().filter(|(path, _)| path.starts_with("uploads"));
        uploads.map(|(_, bytes)| bytes).sum::<u64>() > 2 * MIB as u64
    })
    .await;

    node.kill();
    node.start().await;

    let app = to(&node, "a");
    let status = app.send(Request::get(&location)).await;
    let last: usize = status.header("range").trim_start_matches("0-").parse().unwrap();
    assert!((2 * MIB..=4 * MIB + 4).contains(&last), "{status}");
    let rest = &bytes[last + 1..];
    let range = format!("{}-{}", last + 1, bytes.len() - 1);
    assert_eq!(app.patch(&location, Some(&range), rest).await.status, 202);
    assert_eq!(app.finish(&location, &sha256(&bytes), b"").await.status, 201);
    app.get(&format!("blobs/{}", sha256(&bytes))).await.assert_is(&bytes);
}

#[tokio::test]
async fn an_upload_that_the_client_breaks_off_goes_on_where_it_was() {
    let node = registry().await;
    let app = to(&node, "a");
    let bytes = random(3 * MIB);
    let location = app.open().await;
    let patch = Request::new("PATCH", &location).header("Content-Length", &bytes.len().to_string());
    let mut connection = node.client().connect().await;
    connection.write(&patch.written("node")).await.unwrap();
    connection.write(&bytes[..MIB + 5]).await.unwrap();
    drop(connection);

    let mut last = 0;
    eventually("what came counts", async || {
        let status = app.send(Request::get(&location)).await;
        last = status.header("range").trim_start_matches("0-").parse().unwrap_or(0);
        // How much of it came through is the network's.
        last > 0
    })
    .await;

    assert!(last <= MIB + 4, "{last}");
    assert_eq!(
        app.finish(&location, &sha256(&bytes), &bytes[last + 1..]).await.status,
        201
    );
    app.get(&format!("blobs/{}", sha256(&bytes))).await.assert_is(&bytes);
}

#[tokio::test]
async fn a_damaged_line_of_the_journal_takes_nothing_with_it() {
    let mut node = registry().await;
    let images: Vec<Image> = (0..6).map(|_| Image::of(&[1000])).collect();
    let app = to(&node, "a");
    for (number, image) in images.iter().enumerate() {
        app.image(&format!("v{number}"), image).await;
    }
    node.stop().await;
    let path = node.data().join("journal.log");
    let mut journal = fs::read(&path).unwrap();
    let middle = journal.len() / 2;
    journal[middle] ^= 4;
    fs::write(&path, journal).unwrap();

    node.start().await;

    let app = to(&node, "a");
    for (number, image) in images.iter().enumerate() {
        app.assert_has(&format!("v{number}"), image).await;
    }
    assert!(node.log().contains("the journal is damaged"), "{}", node.log());
    // It was written anew: without the index nothing is lost either.
    node.stop().await;
    node.lose_index();
    node.start().await;
    let app = to(&node, "a");
    for (number, image) in images.iter().enumerate() {
        app.assert_has(&format!("v{number}"), image).await;
    }
}

#[tokio::test]
async fn a_journal_that_is_torn_or_gone_is_made_good_from_the_index() {
    for gone in [false, true] {
        let mut node = registry().await;
        let image = Image::of(&[1000]);
        to(&node, "a").image("v1", &image).await;
        node.stop().await;
        let path = node.data().join("journal.log");
        if gone {
            fs::remove_file(&path).unwrap();
        } else {
            let mut journal = fs::read(&path).unwrap();
            journal.extend(b"0badc0de {\"number\":99,\"na");
            fs::write(&path, journal).unwrap();
        }

        node.start().await;
        let app = to(&node, "a");
        app.assert_has("v1", &image).await;
        app.manifest("v2", &image.manifest).await;
        node.restart().await;

        assert_eq!(to(&node, "a").tags().await, ["v1", "v2"], "gone: {gone}");
    }
}
