//! What uploads under way may hold, and what becomes of one that does not come.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::support::client::{Connection, Request};
use crate::support::content::{Image, Manifest, OCI_MANIFEST, random, sha256};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;

const MIB: usize = 1 << 20;

async fn small() -> Node {
    Setup::alone().registry().capacity("64MiB").start().await
}

async fn refused(node: &Node, limit: &str) -> u64 {
    node.metrics().await.sum("wharf_refused_total", &[("limit", limit)]) as u64
}

/// A client that announced `announced` bytes and sent `sent` of them, of which one write is on the disk.
async fn under_way(node: &Node, location: &str, announced: usize, sent: usize) -> Connection {
    let before = uploaded(node).0;
    let patch = Request::new("PATCH", location).header("Content-Length", &announced.to_string());
    let mut connection = node.client().connect().await;
    connection.write(&patch.written("node")).await.unwrap();
    connection.write(&random(sent)).await.unwrap();
    eventually("something is on the disk", async || uploaded(node).0 > before).await;
    connection
}

/// Bytes of all uploads, as their files are long, and as they lie on the disk.
fn uploaded(node: &Node) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(node.data().join("uploads")).unwrap();
    let metadata = files.map(|file| file.unwrap().metadata().unwrap());
    metadata.fold((0, 0), |(length, room), file| {
        (length + file.len(), room + file.blocks() * 512)
    })
}

#[tokio::test]
async fn uploads_hold_at_most_half_of_the_budget_and_what_is_kept_is_pulled_meanwhile() {
    let node = small().await;
    let app = Pusher::of(node.client(), "a");
    let image = Image::of(&[MIB]);
    app.image("v1", &image).await;
    let (first, second) = (app.open().await, app.open().await);
    let begun = app.patch(&first, None, &random(20 * MIB)).await;
    assert_eq!(begun.status, 202, "{begun}");

    let beyond = app.patch(&second, None, &random(13 * MIB)).await;

    beyond.assert_error(507, "UNAVAILABLE");
    assert!(
        beyond.text().contains("half of storage.capacity") && beyond.text().contains("finish or cancel some"),
        "{beyond}"
    );
    assert_eq!(refused(&node, "upload_room").await, 1);
    app.assert_has("v1", &image).await;
    app.send(Request::get(&second))
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    // Manifests are no uploads.
    let second = app.open().await;
    let fill = app.patch(&second, None, &random(11 * MIB)).await;
    assert_eq!(fill.status, 202, "{fill}");
    for count in 0..3 {
        let mut body = serde_json::from_slice::<serde_json::Value>(&image.manifest.bytes).unwrap();
        body["annotations"] = serde_json::json!({ "k": "x".repeat(MIB + count) });
        let large = Manifest::new(OCI_MANIFEST, &body);
        app.manifest(&format!("w{count}"), &large).await;
    }
    assert_eq!(app.send(Request::new("DELETE", &first)).await.status, 204);
    let now = app.patch(&second, None, &random(13 * MIB)).await;
    assert_eq!(now.status, 202, "{now}");
}

#[tokio::test]
async fn an_upload_that_was_announced_and_does_not_come_holds_what_came() {
    let mut node = small().await;
    let app = Pusher::of(node.client(), "a");
    let location = app.open().await;

    drop(under_way(&node, &location, 30 * MIB, 2 * MIB).await);
    eventually("the rest of its room is there for another", async || {
        let another = app.open().await;
        let taken = app.patch(&another, None, &random(20 * MIB)).await.status;
        app.send(Request::new("DELETE", &another)).await;
        taken == 202
    })
    .await;
    assert!(uploaded(&node).1 < 3 << 20, "{:?}", uploaded(&node));

    // And so after a kill in the middle of one.
    let location = app.open().await;
    let _connection = under_way(&node, &location, 20 * MIB, 2 * MIB).await;
    assert!(uploaded(&node).1 >= 20 << 20, "{:?}", uploaded(&node));
    node.kill();
    node.start().await;
    assert!(uploaded(&node).1 < 5 << 20, "{:?}", uploaded(&node));
    let app = Pusher::of(node.client(), "a");
    let another = app.open().await;
    assert_eq!(app.patch(&another, None, &random(20 * MIB)).await.status, 202);
}

#[tokio::test]
async fn an_upload_that_lay_for_long_goes_where_uploads_hold_much_and_stays_where_they_do_not() {
    for (bytes, status) in [(20 * MIB, 404), (MIB, 204)] {
        let mut node = small().await;
        let location = Pusher::of(node.client(), "a").open().await;
        let app = Pusher::of(node.client(), "a");
        assert_eq!(app.patch(&location, None, &random(bytes)).await.status, 202);
        node.stop().await;
        for file in fs::read_dir(node.data().join("uploads")).unwrap() {
            let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(11 * 60))
                .unwrap();
        }

        node.start().await;

        let asked = Pusher::of(node.client(), "a").send(Request::get(&location)).await;
        assert_eq!(asked.status, status, "{bytes} bytes: {asked}");
    }
}

#[tokio::test]
async fn a_file_among_the_uploads_that_is_none_is_left_alone_and_not_counted() {
    let mut node = Setup::alone().registry().capacity("64MiB").placed();
    fs::create_dir_all(node.data().join("uploads")).unwrap();
    let strange = node.data().join("uploads/notes.txt");
    fs::write(&strange, random(40 * MIB)).unwrap();
    node.start().await;
    let app = Pusher::of(node.client(), "a");
    let bytes = random(25 * MIB);

    let digest = app.blob(&bytes).await;

    app.get(&format!("blobs/{digest}")).await.assert_is(&bytes);
    assert_eq!(fs::metadata(&strange).unwrap().len(), 40 << 20);
}

#[tokio::test]
async fn what_the_limits_of_pushes_refuse_is_counted_by_their_names() {
    let node = Setup::alone()
        .registry()
        .more(
            "[push]\nuploads = 1\nblob = \"1MiB\"\n[limits]\nmanifest = \"64KiB\"\ndescriptors = 128\njson_depth = 8\n",
        )
        .start()
        .await;
    let app = Pusher::of(node.client(), "a");
    let location = app.open().await;
    let bytes = random(MIB + 1);

    app.begin("").await.assert_error(429, "TOOMANYREQUESTS");
    let large = app.finish(&location, &sha256(&bytes), &bytes).await;
    large.assert_error(413, "SIZE_INVALID");
    let manifests = [
        (
            format!("{{\"x\":\"{}\"}}", "y".repeat(64 << 10)),
            413,
            "manifest",
            "limits.manifest",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"x":{}{}}}"#,
                "[".repeat(9),
                "]".repeat(9)
            ),
            400,
            "json_depth",
            "limits.json_depth",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[{}]}}"#,
                [CONFIG; 129].join(",")
            ),
            400,
            "descriptors",
            "limits.descriptors",
        ),
    ];
    for (manifest, status, limit, setting) in manifests {
        let put = Request::new("PUT", "/v2/a/manifests/v1")
            .header("Content-Type", OCI_MANIFEST)
            .body(manifest.as_bytes());
        let reply = app.send(put).await;
        assert!(
            reply.status == status && reply.text().contains(setting),
            "{limit}: {reply}"
        );
        assert_eq!(refused(&node, limit).await, 1, "{limit}");
    }
    assert_eq!(refused(&node, "uploads").await, 1);
    assert_eq!(refused(&node, "blob").await, 1);
}

const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

#[tokio::test]
async fn a_blob_that_clients_ask_for_is_kept_for_the_manifest_that_may_follow() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nunused_ttl = \"1s\"\n")
        .start()
        .await;
    let app = Pusher::of(node.client(), "a");
    let image = Image::of(&[1000]);
    app.blobs_of(&image).await;
    let stray = app.blob(&random(1000)).await;
    let wanted = [image.layer(0), image.config_digest()];

    eventually("what nobody asks for would go", async || {
        for digest in &wanted {
            assert_eq!(app.head(&format!("blobs/{digest}")).await.status, 200);
        }
        let idle = node.collect("unused=2s&dry_run=true").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        idle["blobs"].to_string().contains(&stray)
    })
    .await;
    let gone = node.collect("unused=2s").await["blobs"].to_string();

    assert!(
        gone.contains(&stray) && !wanted.iter().any(|digest| gone.contains(&**digest)),
        "{gone}"
    );
    app.manifest("v1", &image.manifest).await;
    app.assert_has("v1", &image).await;
}
