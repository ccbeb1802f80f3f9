//! A client pushes: uploads, manifests, deletes (distribution spec, "Push" and "Content Management").

use std::process::Command;

use serde_json::json;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::{
    DOCKER_MANIFEST, Image, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, random, sha256, sha512,
};
use crate::support::eventually;
use crate::support::node::{Node, Setup, binary};
use crate::support::pushing::Pusher;

const MIB: usize = 1 << 20;

async fn registry() -> Node {
    Setup::alone().registry().start().await
}

fn to(node: &Node, repository: &str) -> Pusher {
    Pusher::of(node.client(), repository)
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|letter| letter == '-' || letter.is_ascii_hexdigit())
}

#[tokio::test]
async fn an_upload_has_a_relative_location_with_a_uuid_and_its_blob_is_to_be_had_at_the_location_of_the_last_answer() {
    let node = registry().await;
    let app = to(&node, "plant/app");
    let bytes = random(3 * MIB + 7);
    let digest = sha256(&bytes);

    let begun = app.begin("").await;
    let location = begun.header("location").to_owned();
    let put = app.finish(&location, &digest, &bytes).await;

    assert_eq!((begun.status, begun.header("range")), (202, "0-0"), "{begun}");
    let id = begun.header("docker-upload-uuid");
    assert!(is_uuid(id), "{begun}");
    assert_eq!(location, format!("/v2/plant/app/blobs/uploads/{id}"));
    assert_eq!(
        (put.status, put.header("docker-content-digest")),
        (201, &*digest),
        "{put}"
    );
    assert_eq!(put.header("location"), blob("plant/app", &digest));
    node.get(put.header("location")).await.assert_is(&bytes);
    app.get(&format!("blobs/uploads/{id}"))
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_stream_without_type_length_or_range_and_an_empty_put_make_a_blob_as_docker_pushes_it() {
    let node = registry().await;
    let app = to(&node, "a");
    let bytes = random(2 * MIB + 3);
    let location = app.open().await;
    let mut chunked = Vec::new();
    for piece in bytes.chunks(100_000) {
        chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");

    let patch = Request::new("PATCH", &location).header("Transfer-Encoding", "chunked");
    let mut connection = node.client().connect().await;
    connection
        .write(&patch.header("Connection", "close").written("node"))
        .await
        .unwrap();
    connection.write(&chunked).await.unwrap();
    let patched = node_reply(connection).await;
    let put = app.finish(&location, &sha256(&bytes), b"").await;

    assert!(patched.starts_with("HTTP/1.1 202"), "{patched}");
    assert!(patched.contains(&format!("0-{}", bytes.len() - 1)), "{patched}");
    assert_eq!(put.status, 201, "{put}");
    app.get(&format!("blobs/{}", sha256(&bytes))).await.assert_is(&bytes);
}

/// What comes over a connection until it closes.
async fn node_reply(mut connection: crate::support::client::Connection) -> String {
    String::from_utf8_lossy(&connection.read_to_end().await).into_owned()
}

#[tokio::test]
async fn a_blob_comes_in_one_post_with_its_digest() {
    let node = registry().await;
    for bytes in [random(100_000), random(0), b"{}"[..].into()] {
        for digest in [sha256(&bytes), sha512(&bytes)] {
            let target = format!("/v2/a/blobs/uploads/?digest={digest}");
            let post = Request::new("POST", &target).body(&bytes);
            let post = if bytes.is_empty() {
                post.header("Content-Length", "0")
            } else {
                post
            };

            let reply = node.send(post).await;

            assert_eq!(
                (reply.status, reply.header("location")),
                (201, &*blob("a", &digest)),
                "{reply}"
            );
            node.get(&blob("a", &digest)).await.assert_is(&bytes);
        }
    }
}

#[tokio::test]
async fn chunks_go_on_where_the_last_one_ended_and_one_out_of_order_is_416_and_harms_nothing() {
    let node = registry().await;
    let app = to(&node, "a");
    let bytes = random(300_000);
    let digest = sha256(&bytes);
    let location = app.open().await;

    let first = app.patch(&location, Some("0-99999"), &bytes[..100_000]).await;
    assert_eq!((first.status, first.header("range")), (202, "0-99999"), "{first}");
    assert!(
        is_uuid(first.header("docker-upload-uuid")) && first.header("location") == location,
        "{first}"
    );

    for wrong in ["200000-299999", "0-99999", "99999-199998"] {
        let refused = app.patch(&location, Some(wrong), &bytes[..100_000]).await;
        refused.assert_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(refused.header("range"), "0-99999", "{wrong}: {refused}");
    }
    let put = Request::new("PUT", &format!("{location}?digest={digest}"))
        .header("Content-Range", "200000-299999")
        .body(&bytes[200_000..]);
    node.send(put).await.assert_error(416, "BLOB_UPLOAD_INVALID");
    for garbled in ["bytes 100000-199999", "100000", "199999-100000", "x-y"] {
        let refused = app.patch(&location, Some(garbled), &bytes[..100_000]).await;
        refused.assert_error(400, "BLOB_UPLOAD_INVALID");
    }
    let short = app
        .patch(&location, Some("100000-199999"), &bytes[100_000..150_000])
        .await;
    short.assert_error(400, "SIZE_INVALID");

    let status = app.send(Request::get(&location)).await;
    assert_eq!((status.status, status.header("range")), (204, "0-99999"), "{status}");
    assert!(
        status.header("location") == location && !status.has("content-length"),
        "{status}"
    );
    let second = app
        .patch(&location, Some("100000-199999"), &bytes[100_000..200_000])
        .await;
    assert_eq!(second.header("range"), "0-199999", "{second}");
    let put = Request::new("PUT", &format!("{location}?digest={digest}"))
        .header("Content-Range", "200000-299999")
        .body(&bytes[200_000..]);
    assert_eq!(node.send(put).await.status, 201);
    app.get(&format!("blobs/{digest}")).await.assert_is(&bytes);
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_however_they_come_and_nothing_is_kept() {
    let node = registry().await;
    let app = to(&node, "a");
    let (bytes, wrong) = (random(50_000), sha256(b"something else"));

    let location = app.open().await;
    app.finish(&location, &wrong, &bytes)
        .await
        .assert_error(400, "DIGEST_INVALID");
    let location = app.open().await;
    app.patch(&location, None, &bytes).await;
    app.finish(&location, &wrong, b"")
        .await
        .assert_error(400, "DIGEST_INVALID");
    let post = Request::new("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"));
    node.send(post.body(&bytes)).await.assert_error(400, "DIGEST_INVALID");

    for digest in [&wrong, &sha256(&bytes)] {
        app.get(&format!("blobs/{digest}"))
            .await
            .assert_error(404, "BLOB_UNKNOWN");
    }
    app.send(Request::get(&location))
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    for unknown in ["sha256:short", "blake3:00ff", "sha3:x"] {
        let location = app.open().await;
        app.finish(&location, unknown, &bytes)
            .await
            .assert_error(400, "DIGEST_INVALID");
    }
    let location = app.open().await;
    let nameless = Request::new("PUT", &location).body(&bytes);
    node.send(nameless).await.assert_error(400, "DIGEST_INVALID");
    assert_eq!(node.room_of("blobs", &[]), 0);
}

#[tokio::test]
async fn fourteen_layers_are_pushed_at_a_time_as_containerd_pushes_them() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[300_000; 14]);

    let uploads = image.layers.iter().map(|layer| app.blob(layer));
    let digests = futures_util::future::join_all(uploads).await;
    app.blob(&image.config).await;
    app.manifest("v1", &image.manifest).await;

    assert!(
        digests
            .iter()
            .enumerate()
            .all(|(at, digest)| *digest == image.layer(at))
    );
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn an_upload_can_be_cancelled_and_is_gone_then() {
    let node = registry().await;
    let app = to(&node, "a");
    let location = app.open().await;
    app.patch(&location, None, &random(MIB)).await;

    let cancelled = app.send(Request::new("DELETE", &location)).await;

    assert_eq!(cancelled.status, 204, "{cancelled}");
    for method in ["GET", "DELETE"] {
        let again = app.send(Request::new(method, &location)).await;
        again.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    app.patch(&location, None, b"more")
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(node.room_of("uploads", &[]), 0);
}

#[tokio::test]
async fn an_upload_is_its_repositorys_alone() {
    let node = registry().await;
    let location = to(&node, "a").open().await;
    let id = location.rsplit('/').next().unwrap();

    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let target = format!("/v2/b/blobs/uploads/{id}?digest={}", sha256(b"x"));
        let reply = node
            .send(Request::new(method, &target).header("Content-Length", "0"))
            .await;
        reply.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(node.get(&location).await.status, 204);
}

#[tokio::test]
async fn of_two_who_write_one_upload_one_goes_on_and_the_other_is_told() {
    let node = registry().await;
    let app = to(&node, "a");
    let bytes = random(2 * MIB);
    let location = app.open().await;
    let patch = Request::new("PATCH", &location).header("Content-Length", &bytes.len().to_string());
    let mut slow = node.client().connect().await;
    slow.write(&patch.written("node")).await.unwrap();
    slow.write(&bytes[..MIB]).await.unwrap();

    // Of no use to anybody, whoever is first.
    eventually("the first one has its turn", async || {
        app.patch(&location, Some("900000000-900000004"), b"other").await.status == 409
    })
    .await;
    slow.write(&bytes[MIB..]).await.unwrap();
    eventually("the first one is done", async || {
        app.send(Request::get(&location)).await.header("range") == format!("0-{}", bytes.len() - 1)
    })
    .await;

    assert_eq!(app.finish(&location, &sha256(&bytes), b"").await.status, 201);
}

#[tokio::test]
async fn a_manifest_is_to_be_had_by_tag_and_digest_with_its_own_type_and_to_the_byte() {
    let node = registry().await;
    let app = to(&node, "plant/app");
    for image in [Image::of(&[10_000, 1]), Image::docker(&[5000]), Image::sha512(&[700])] {
        app.blobs_of(&image).await;
        let digest = &image.manifest.digest;

        let by_digest = app.put_manifest(digest, &image.manifest).await;
        assert_eq!(
            (by_digest.status, by_digest.header("docker-content-digest")),
            (201, &**digest),
            "{by_digest}"
        );
        assert_eq!(by_digest.header("location"), manifest("plant/app", digest));
        if digest.starts_with("sha256") {
            let by_tag = app.put_manifest("v1", &image.manifest).await;
            assert_eq!(
                (by_tag.status, by_tag.header("docker-content-digest")),
                (201, &**digest),
                "{by_tag}"
            );
            app.assert_has("v1", &image).await;
        }

        let got = app.get(&format!("manifests/{digest}")).await;
        got.assert_is(&image.manifest.bytes);
        assert_eq!(got.header("content-type"), image.manifest.media_type);
        app.assert_has(digest, &image).await;
    }
}

#[tokio::test]
async fn a_manifest_that_is_none_or_names_what_is_not_here_is_refused_by_its_code() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[1000]);
    let layer = image.layer(0);
    let refused = async |reference: &str, content_type: &str, bytes: &[u8], status, code: &str| {
        let put = Request::new("PUT", &manifest("a", reference)).header("Content-Type", content_type);
        node.send(put.body(bytes)).await.assert_error(status, code);
    };

    refused("v1", OCI_MANIFEST, &image.manifest.bytes, 400, "MANIFEST_BLOB_UNKNOWN").await;
    // That another repository has it is no help.
    to(&node, "b").image("v1", &image).await;
    refused("v1", OCI_MANIFEST, &image.manifest.bytes, 400, "MANIFEST_BLOB_UNKNOWN").await;
    app.blobs_of(&image).await;
    refused("v1", OCI_MANIFEST, b"{", 400, "MANIFEST_INVALID").await;
    refused("v1", OCI_MANIFEST, b"[]", 400, "MANIFEST_INVALID").await;
    for version in ["", "\"schemaVersion\":1,", "\"schemaVersion\":\"2\","] {
        let body = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
        let body = body
            .replace("\"schemaVersion\": 2,", version)
            .replace("\n  \"schemaVersion\": 2", "\n  \"x\": 1");
        assert_ne!(body.as_bytes(), image.manifest.bytes, "{body}");
        refused("v1", OCI_MANIFEST, body.as_bytes(), 400, "MANIFEST_INVALID").await;
    }
    refused(
        "v1",
        OCI_MANIFEST,
        br#"{"schemaVersion":2,"layers":[]}"#,
        400,
        "MANIFEST_INVALID",
    )
    .await;
    refused("v1", "text/plain", &image.manifest.bytes, 400, "MANIFEST_INVALID").await;
    refused("v1", OCI_INDEX, &image.manifest.bytes, 400, "MANIFEST_INVALID").await;
    refused("v1", DOCKER_MANIFEST, &image.manifest.bytes, 400, "MANIFEST_INVALID").await;
    refused(
        &sha256(b"else"),
        OCI_MANIFEST,
        &image.manifest.bytes,
        400,
        "DIGEST_INVALID",
    )
    .await;
    let twice = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let twice = twice.replacen('{', "{\"Layers\":[],", 1);
    refused("v1", OCI_MANIFEST, twice.as_bytes(), 400, "MANIFEST_INVALID").await;
    let sizes = String::from_utf8(image.manifest.bytes.to_vec())
        .unwrap()
        .replace("1000", "1001");
    refused("v1", OCI_MANIFEST, sizes.as_bytes(), 400, "MANIFEST_INVALID").await;

    app.get("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    app.manifest("v1", &image.manifest).await;
    assert_eq!(app.head(&format!("blobs/{layer}")).await.status, 200);
}

#[tokio::test]
async fn what_was_pushed_as_a_blob_is_no_manifest() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[10]);
    for bytes in [&b"hello"[..], b"{}", &image.manifest.bytes, &random(5 * MIB)] {
        let digest = app.blob(&bytes::Bytes::copy_from_slice(bytes)).await;

        for reply in [
            app.get(&format!("manifests/{digest}")).await,
            app.head(&format!("manifests/{digest}")).await,
        ] {
            assert_eq!(reply.status, 404, "{reply}");
        }
        let deleted = app.delete(&format!("manifests/{digest}")).await;
        deleted.assert_error(404, "MANIFEST_UNKNOWN");
        app.get(&format!("blobs/{digest}")).await.assert_is(bytes);
    }
    app.image("v1", &image).await;
    app.assert_has(&image.manifest.digest, &image).await;
}

#[tokio::test]
async fn a_manifest_may_be_as_large_as_the_limit_without_a_length_and_one_byte_more_is_413() {
    let node = registry().await;
    let app = to(&node, "a");
    app.blob(b"{}").await;
    let of = |padding: usize| {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": { "mediaType": OCI_CONFIG, "digest": sha256(b"{}"), "size": 2 }, "layers": [],
            "annotations": { "padding": "x".repeat(padding) },
        })
        .to_string()
    };
    let most = of((4 << 20) - of(0).len());
    let put = |body: &str| {
        let put = Request::new("PUT", &manifest("a", "big")).header("Content-Type", OCI_MANIFEST);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let mut whole = put
            .header("Transfer-Encoding", "chunked")
            .header("Connection", "close")
            .written("node");
        whole.extend(chunk.into_bytes());
        whole
    };
    let send = async |bytes: Vec<u8>| {
        let mut connection = node.client().connect().await;
        let _ = connection.write(&bytes).await;
        node_reply(connection).await
    };

    assert_eq!(most.len(), 4 << 20);
    let taken = send(put(&most)).await;
    let refused = send(put(&(most.clone() + " "))).await;

    assert!(taken.starts_with("HTTP/1.1 201"), "{taken}");
    assert!(
        refused.starts_with("HTTP/1.1 413") && refused.contains("limits.manifest"),
        "{refused}"
    );
    app.get("manifests/big").await.assert_is(most.as_bytes());
    let announced = Request::new("PUT", &manifest("a", "big"))
        .header("Content-Type", OCI_MANIFEST)
        .body((most + " ").as_bytes());
    assert_eq!(node.send(announced).await.status, 413);
}

#[tokio::test]
async fn layers_that_lie_elsewhere_missing_subjects_and_sparse_indexes_are_taken() {
    let node = registry().await;
    let app = to(&node, "a");
    app.blob(b"{}").await;
    let foreign = |media_type: &str| json!({ "mediaType": media_type, "digest": sha256(&random(9)), "size": 9, "urls": ["https://elsewhere.example/x"] });
    let with = |layers: Vec<serde_json::Value>| {
        Manifest::new(
            OCI_MANIFEST,
            &json!({
                "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
                "config": { "mediaType": OCI_CONFIG, "digest": sha256(b"{}"), "size": 2 },
            }),
        )
    };
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        app.manifest("foreign", &with(vec![foreign(media_type)])).await;
    }
    let layer = foreign(OCI_LAYER);
    let refused = app.put_manifest("x", &with(vec![layer])).await;
    refused.assert_error(400, "MANIFEST_BLOB_UNKNOWN");

    let nowhere = Image::of(&[10]).manifest;
    let artifact = Image::referring_to(&nowhere, "application/vnd.example");
    app.blobs_of(&artifact).await;
    let put = app.put_manifest(&artifact.manifest.digest, &artifact.manifest).await;
    assert_eq!(
        (put.status, put.header("oci-subject")),
        (201, &*nowhere.digest),
        "{put}"
    );
    assert_eq!(
        app.referrers(&nowhere.digest).await,
        std::slice::from_ref(&artifact.manifest.digest)
    );

    let index = Manifest::new(
        OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [nowhere.descriptor(), artifact.manifest.descriptor()] }),
    );
    let nested = Manifest::new(
        OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index.descriptor()] }),
    );
    app.manifest("sparse", &index).await;
    app.manifest("nested", &nested).await;
    app.get("manifests/nested").await.assert_is(&nested.bytes);
}

#[tokio::test]
async fn one_request_gives_many_tags_and_says_which() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[10]);
    app.blobs_of(&image).await;
    let tags: Vec<String> = (0..10).map(|number| format!("v{number}")).collect();
    let query = format!("?tag={}", tags.join("&tag="));

    let put = app
        .put_manifest(&format!("{}{query}", image.manifest.digest), &image.manifest)
        .await;

    assert_eq!((put.status, put.all("oci-tag")), (201, tags.join(", ")), "{put}");
    for tag in &tags {
        app.get(&format!("manifests/{tag}"))
            .await
            .assert_is(&image.manifest.bytes);
    }
    assert_eq!(app.tags().await, tags);
    let many = format!(
        "{}?tag=x{}",
        image.manifest.digest,
        (0..200).map(|n| format!("&tag=t{n}")).collect::<String>()
    );
    assert_eq!(app.put_manifest(&many, &image.manifest).await.status, 414);
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_repository_that_has_it_and_uploaded_otherwise() {
    let node = registry().await;
    let (a, b, c) = (to(&node, "a"), to(&node, "b"), to(&node, "c"));
    let bytes = random(1000);
    let digest = a.blob(&bytes).await;

    let mounted = b.begin(&format!("?mount={digest}&from=a")).await;
    let anywhere = c.begin(&format!("?mount={digest}")).await;
    let not_there = to(&node, "d").begin(&format!("?mount={digest}&from=nobody")).await;
    let unknown = b.begin(&format!("?mount={}&from=a", sha256(b"nowhere"))).await;

    assert_eq!(
        (mounted.status, mounted.header("location")),
        (201, &*blob("b", &digest)),
        "{mounted}"
    );
    assert_eq!(anywhere.status, 201, "{anywhere}");
    b.get(&format!("blobs/{digest}")).await.assert_is(&bytes);
    c.get(&format!("blobs/{digest}")).await.assert_is(&bytes);
    for reply in [not_there, unknown] {
        assert_eq!(reply.status, 202, "{reply}");
        assert!(reply.header("location").contains("/blobs/uploads/"), "{reply}");
    }
    to(&node, "d")
        .get(&format!("blobs/{digest}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once_and_what_it_named_with_it() {
    let node = registry().await;
    let app = to(&node, "a");
    let image = Image::of(&[1000]);
    let digest = image.manifest.digest.clone();
    app.image("v1", &image).await;
    app.manifest("v2", &image.manifest).await;

    assert_eq!(app.delete("manifests/v1").await.status, 202);
    assert_eq!(app.head("manifests/v1").await.status, 404);
    app.get("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    app.get("manifests/v2").await.assert_is(&image.manifest.bytes);
    assert_eq!(app.tags().await, ["v2"]);
    app.delete("manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");

    assert_eq!(app.delete(&format!("manifests/{digest}")).await.status, 202);
    for reference in ["v2", &digest] {
        app.get(&format!("manifests/{reference}"))
            .await
            .assert_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(app.tags().await, Vec::<String>::new());

    let layer = image.layer(0);
    assert_eq!(app.delete(&format!("blobs/{layer}")).await.status, 202);
    app.get(&format!("blobs/{layer}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
    app.delete(&format!("blobs/{layer}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(app.head(&format!("blobs/{layer}")).await.status, 404);
    // And it can be pushed again.
    app.image("v1", &image).await;
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked_at_once() {
    let node = registry().await;
    let app = to(&node, "a");
    let bytes = random(1000);
    let location = app.open().await;
    let put = Request::new("PUT", &format!("{location}?digest={}", sha256(&bytes)))
        .header("Expect", "100-continue")
        .header("Connection", "close")
        .header("Content-Length", "1000");
    let mut connection = node.client().connect().await;

    connection.write(&put.written("node")).await.unwrap();
    let asked = connection.read_some().await;
    connection.write(&bytes).await.unwrap();
    let rest = node_reply(connection).await;

    assert!(
        asked.starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&asked)
    );
    assert!(rest.starts_with("HTTP/1.1 201"), "{rest}");
}

#[tokio::test]
async fn no_more_uploads_are_open_than_may_be_and_one_that_lies_too_long_is_thrown_away() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nuploads = 3\nupload_ttl = \"1s\"\n")
        .start()
        .await;
    let app = to(&node, "a");
    let mut locations = Vec::new();
    for _ in 0..3 {
        locations.push(app.open().await);
    }

    let fourth = app.begin("").await;

    fourth.assert_error(429, "TOOMANYREQUESTS");
    assert!(fourth.has("retry-after"), "{fourth}");
    eventually("what took too long is gone", async || app.begin("").await.status == 202).await;
    app.send(Request::get(&locations[0]))
        .await
        .assert_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_full_budget_is_507_for_pushes_while_what_was_pushed_stays() {
    let node = Setup::alone().registry().capacity("64MiB").start().await;
    let app = to(&node, "a");
    let mut pushed = Vec::new();
    let full = loop {
        let bytes = random(8 * MIB);
        let digest = sha256(&bytes);
        let location = app.open().await;
        let put = app.finish(&location, &digest, &bytes).await;
        if put.status != 201 {
            break put;
        }
        pushed.push((digest, bytes));
    };

    full.assert_error(507, "UNAVAILABLE");
    assert!(node.admin("/readyz").await.text().contains("pushes find no room"));
    // Nobody goes on with an upload that never found room.
    let uploads = node.metrics().await.sum("wharf_uploads", &[]);
    assert_eq!(uploads as u64, 0);
    assert!((4..8).contains(&pushed.len()), "{}", pushed.len());
    for (digest, bytes) in &pushed {
        app.get(&format!("blobs/{digest}")).await.assert_is(bytes);
    }
    assert!(node.disk_bytes() <= 64 << 20, "{}", node.disk_bytes());
}

#[tokio::test]
async fn a_blob_that_no_manifest_needs_goes_when_it_is_told_to_and_nothing_else_does() {
    let node = registry().await;
    let (app, other) = (to(&node, "a"), to(&node, "b"));
    let image = Image::of(&[50_000, 60_000]);
    app.image("v1", &image).await;
    let stray = random(200_000);
    let digest = app.blob(&stray).await;
    other.blob(&image.layers[0]).await;
    other.blob(&stray).await;

    let spared = node.collect("unused=1h").await;
    let planned = node.collect("unused=0s&dry_run=true").await;
    app.get(&format!("blobs/{digest}")).await.assert_is(&stray);
    let collected = node.collect("unused=0s").await;

    assert_eq!(spared["blobs"], json!([]));
    assert_eq!(
        (&planned["blobs"], &planned["bytes"]),
        (&collected["blobs"], &collected["bytes"])
    );
    assert_eq!(collected["blobs"].as_array().unwrap().len(), 3, "{collected}");
    assert!(collected["bytes"].as_u64().unwrap() >= 200_000, "{collected}");
    assert!(!node.has_stored(&digest));
    app.get(&format!("blobs/{digest}"))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
    app.assert_has("v1", &image).await;
}

#[tokio::test]
async fn wharf_cache_gc_asks_a_node_that_runs_and_opens_the_store_of_one_that_does_not() {
    let mut node = registry().await;
    let image = Image::of(&[1000]);
    to(&node, "a").image("v1", &image).await;
    let [first, second] = [random(5000), random(6000)];
    let digests = [to(&node, "a").blob(&first).await, to(&node, "a").blob(&second).await];
    let gc = |more: &[&str]| {
        let mut command = Command::new(binary());
        let output = command.args(["cache", "gc"]).args(more).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, words)
    };
    let (admin, data) = (node.admin_url(), node.data().display().to_string());

    let (code, said, words) = gc(&["--admin", &admin, "--unused", "0s", "--dry-run"]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        digests.iter().all(|digest| said.contains(&format!("a@{digest}"))),
        "{said}"
    );
    assert!(
        words.contains("2 blobs that no manifest needs") && words.contains("would go"),
        "{words}"
    );
    assert!(digests.iter().all(|digest| node.has_stored(digest)));
    let (code, _, words) = gc(&["--data", &data, "--unused", "0s"]);
    assert!(code == Some(1) && words.contains("gc --admin http://"), "{words}");
    let nowhere = node.folder().join("nowhere");
    let (code, _, words) = gc(&["--data", &nowhere.display().to_string()]);
    assert!(code == Some(1) && words.contains("is no store"), "{words}");
    assert!(!nowhere.exists());

    node.stop().await;
    let (code, _, words) = gc(&["--admin", &admin, "--unused", "0s"]);
    assert!(code == Some(1) && words.contains("--data"), "{words}");
    let (code, said, words) = gc(&["--data", &data, "--unused", "0s"]);
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{said}{words}");
    assert!(digests.iter().all(|digest| !node.has_stored(digest)));
    node.start().await;
    to(&node, "a").assert_has("v1", &image).await;
}

#[tokio::test]
async fn a_registry_that_others_reach_starts_only_if_anybody_may_push() {
    let mut node = Setup::alone().registry().listen_on("0.0.0.0").placed();
    node.spawn();
    let status = node.ended().await;
    assert_eq!(status.code(), Some(2));
    let log = node.log();
    assert!(
        log.contains("nothing says who may push") && log.contains("anonymous = true"),
        "{log}"
    );

    node.setup = node.setup.clone().more("[push]\nanonymous = true\n");
    node.start().await;
    assert_eq!(to(&node, "a").begin("").await.status, 202);
}

#[tokio::test]
async fn no_page_of_another_origin_has_anything_thrown_away() {
    let node = registry().await;
    let post = Request::new("POST", "/api/cache/gc?unused=0s").header("Content-Length", "0");

    let forged = node
        .admin_send(post.clone().header("Origin", "https://evil.example"))
        .await;

    assert_eq!(forged.status, 403, "{forged}");
    assert_eq!(node.admin("/api/cache/gc").await.status, 405);
    let odd = Request::new("POST", "/api/cache/gc?unused=soon").header("Content-Length", "0");
    let odd = node.admin_send(odd).await;
    assert!(odd.status == 400 && odd.text().contains("unused"), "{odd}");
    assert_eq!(node.admin_send(post).await.status, 200);
}

#[tokio::test]
async fn a_blob_may_be_as_large_as_the_limit_and_one_byte_more_is_413_said_or_not() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nblob = \"1MiB\"\n")
        .start()
        .await;
    let app = to(&node, "a");
    let most = random(MIB);
    app.blob(&most).await;

    let location = app.open().await;
    let more = random(MIB + 1);
    let said = app.finish(&location, &sha256(&more), &more).await;
    let location = app.open().await;
    assert_eq!(app.patch(&location, None, &most).await.status, 202);
    let in_parts = app.patch(&location, None, b"x").await;

    for refused in [said, in_parts] {
        refused.assert_error(413, "SIZE_INVALID");
        assert!(refused.text().contains("push.blob"), "{refused}");
    }
    app.get(&format!("blobs/{}", sha256(&more)))
        .await
        .assert_error(404, "BLOB_UNKNOWN");
}
