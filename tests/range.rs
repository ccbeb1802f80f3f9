//! Parts of blobs: here already, not here yet, and just on their way.

use bytes::Bytes;

use crate::support::client::{Reply, Request};
use crate::support::eventually;
use crate::support::stage::Stage;
use crate::support::upstream::Fault;

const MIB: usize = 1 << 20;

impl Stage {
    async fn warm(size: usize) -> Self {
        let stage = Self::cold(size).await;
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        stage
    }

    async fn range(&self, range: &str) -> Reply {
        self.node.range(&self.target, range).await
    }

    /// The ranges that the parent was asked for.
    fn ranges_asked_for(&self) -> Vec<String> {
        let seen = self.parent.seen("GET", &self.digest);
        let ranges = seen.iter().filter_map(|seen| seen.header("range").map(str::to_owned));
        ranges.collect()
    }

    async fn ranged_requests(&self) -> f64 {
        self.node.metrics().await.sum("wharf_parent_ranged_requests_total", &[])
    }
}

/// The forms of a single range, with the first and last byte that each means in an object of `size` bytes.
fn satisfiable(size: usize) -> [(String, usize, usize); 4] {
    [
        ("0-9".to_owned(), 0, 9),
        ("500-".to_owned(), 500, size - 1),
        ("-5".to_owned(), size - 5, size - 1),
        (format!("{}-99999999999", size - 2), size - 2, size - 1),
    ]
}

/// The forms that no object of `size` bytes can satisfy.
fn unsatisfiable(size: usize) -> [String; 2] {
    ["5-2".to_owned(), format!("{size}-")]
}

#[tokio::test]
async fn every_form_of_range_of_a_warm_blob_is_206_with_exactly_its_bytes() {
    let stage = Stage::warm(2048).await;

    for (range, first, last) in satisfiable(2048) {
        stage.range(&range).await.assert_part(&stage.bytes, first, last);
    }
    // The bytes that the conformance program asks for.
    for (range, first, last) in [("500-1499", 500, 1499), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)] {
        stage.range(range).await.assert_part(&stage.bytes, first, last);
    }
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
}

#[tokio::test]
async fn an_impossible_range_of_a_warm_blob_is_416_and_leaves_the_connection_usable() {
    let stage = Stage::warm(2048).await;

    for range in unsatisfiable(2048) {
        let connection = stage.node.client().connect().await;
        let (refused, connection) = connection
            .open(Request::get(&stage.target).range(&range))
            .await
            .rest()
            .await;
        let (next, _) = connection.open(Request::get(&stage.target)).await.rest().await;

        assert_eq!((refused.status, refused.complete), (416, true), "{range}: {refused}");
        assert_eq!(refused.header("content-range"), "bytes */2048", "{range}: {refused}");
        next.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn every_form_of_range_of_a_cold_blob_is_206_for_at_most_one_full_transfer() {
    let size = 40_000;

    for (range, first, last) in satisfiable(size) {
        let stage = Stage::cold(size).await;

        stage.range(&range).await.assert_part(&stage.bytes, first, last);

        let whole = stage.parent.seen("GET", &stage.digest);
        assert!(
            whole.iter().filter(|seen| seen.header("range").is_none()).count() <= 1,
            "{range}"
        );
        eventually("the blob is here", async || stage.node.has_stored(&stage.digest)).await;
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
        assert!(
            stage.parent.body_bytes(&stage.digest) <= (size + last - first + 1) as u64,
            "{range}"
        );
    }
}

#[tokio::test]
async fn an_impossible_range_of_a_cold_blob_is_416_with_the_size() {
    for range in unsatisfiable(40_000) {
        let stage = Stage::cold(40_000).await;

        let refused = stage.range(&range).await;

        assert_eq!((refused.status, refused.complete), (416, true), "{range}: {refused}");
        assert_eq!(refused.header("content-range"), "bytes */40000", "{range}: {refused}");
        stage.node.get(&stage.target).await.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn several_ranges_come_all_or_as_the_whole() {
    let stage = Stage::warm(5000).await;

    let reply = stage.range("0-9,100-109,4990-").await;

    if reply.status == 200 {
        return reply.assert_is(&stage.bytes);
    }
    assert_eq!((reply.status, reply.complete), (206, true), "{reply}");
    assert_eq!(
        parts(&reply),
        [(0, 9), (100, 109), (4990, 4999)].map(|(first, last)| part(&stage.bytes, first, last))
    );
}

#[tokio::test]
async fn several_ranges_of_a_cold_blob_come_all_or_as_the_whole() {
    let stage = Stage::cold(50_000).await;

    let reply = stage.range("10-19,40000-40009").await;

    if reply.status == 200 {
        return reply.assert_is(&stage.bytes);
    }
    assert_eq!((reply.status, reply.complete), (206, true), "{reply}");
    assert_eq!(
        parts(&reply),
        [(10, 19), (40_000, 40_009)].map(|(first, last)| part(&stage.bytes, first, last))
    );
}

#[tokio::test]
async fn a_range_that_is_no_range_is_ignored() {
    let stage = Stage::warm(5000).await;

    for header in ["bytes=", "bytes=a-b", "lines=0-9", "bytes=--5", "0-9", "bytes=0-9, x"] {
        let reply = stage
            .node
            .send(Request::get(&stage.target).header("Range", header))
            .await;
        reply.assert_is(&stage.bytes);
    }
}

#[tokio::test]
async fn more_overlapping_ranges_than_the_blob_holds_are_answered_with_the_whole() {
    let stage = Stage::warm(5000).await;
    let ranges: Vec<String> = (0..200).map(|_| "0-4999".to_owned()).collect();

    stage.range(&ranges.join(",")).await.assert_is(&stage.bytes);
}

#[tokio::test]
async fn a_range_counts_only_for_the_blob_that_the_client_has_begun() {
    let stage = Stage::warm(5000).await;
    let with = |condition: &str| Request::get(&stage.target).range("10-19").header("If-Range", condition);

    let same = stage.node.send(with(&format!("\"{}\"", stage.digest))).await;
    let other = stage.node.send(with("\"sha256:other\"")).await;

    same.assert_part(&stage.bytes, 10, 19);
    other.assert_is(&stage.bytes);
}

#[tokio::test]
async fn a_pull_that_broke_off_goes_on_by_range_while_the_blob_is_still_coming() {
    let (stage, gate, first) = Stage::under_way(20_000_000, 12_000_000).await;

    drop(first);
    let mut second = stage
        .node
        .client()
        .open(Request::get(&stage.target).range("10000000-"))
        .await;
    assert!(second.read(1_000_000).await.len() >= 1_000_000);
    gate.open();

    second.last().await.assert_part(&stage.bytes, 10_000_000, 19_999_999);
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
}

#[tokio::test]
async fn a_range_just_ahead_waits_for_the_running_download() {
    let (stage, gate, _leader) = Stage::under_way(12 * MIB, MIB).await;

    let (client, target) = (stage.node.client(), stage.target.clone());
    let near = tokio::spawn(async move { client.range(&target, &format!("{}-{}", 10 * MIB, 10 * MIB + 99)).await });
    gate.open();

    near.await.unwrap().assert_part(&stage.bytes, 10 * MIB, 10 * MIB + 99);
    assert_eq!(stage.parent.count("GET", &stage.digest), 1);
    assert_eq!(stage.ranged_requests().await, 0.0);
}

#[tokio::test]
async fn a_range_far_ahead_gets_a_request_of_its_own_that_is_counted() {
    let (stage, gate, leader) = Stage::under_way(48 * MIB, MIB).await;
    let (first, last) = (40 * MIB, 40 * MIB + 9999);

    let far = stage.range(&format!("{first}-{last}")).await;

    far.assert_part(&stage.bytes, first, last);
    assert_eq!(stage.ranged_requests().await, 1.0);
    assert_eq!(stage.ranges_asked_for(), [format!("bytes={first}-{last}")]);
    gate.open();
    assert!(leader.last().await.body == stage.bytes);
    assert_eq!(stage.parent.count("GET", &stage.digest), 2);
}

#[tokio::test]
async fn sixteen_mebibytes_ahead_is_waited_for_and_one_byte_more_is_asked_for() {
    let (stage, gate, _leader) = Stage::under_way(24 * MIB, MIB).await;
    let edge = MIB + 16 * MIB;

    let (client, target) = (stage.node.client(), stage.target.clone());
    let near = tokio::spawn(async move { client.range(&target, &format!("{edge}-{}", edge + 99)).await });
    let far = stage.range(&format!("{}-{}", edge + 1, edge + 100)).await;
    let asked_for = stage.ranges_asked_for();
    gate.open();

    far.assert_part(&stage.bytes, edge + 1, edge + 100);
    near.await.unwrap().assert_part(&stage.bytes, edge, edge + 99);
    assert_eq!(asked_for, [format!("bytes={}-{}", edge + 1, edge + 100)]);
    assert_eq!(stage.ranges_asked_for(), asked_for);
    assert_eq!(stage.ranged_requests().await, 1.0);
}

#[tokio::test]
async fn an_open_range_far_ahead_of_which_little_is_read_does_not_fetch_the_tail() {
    let (stage, gate, _leader) = Stage::under_way(96 * MIB, MIB).await;

    let mut far = stage
        .node
        .client()
        .open(Request::get(&stage.target).range(&format!("{}-", 20 * MIB)))
        .await;
    let part = far.read(100_000).await.to_vec();
    drop(far);

    assert!(part == stage.bytes[20 * MIB..20 * MIB + part.len()]);
    let ranged = || {
        stage
            .parent
            .seen("GET", &stage.digest)
            .into_iter()
            .find(|seen| seen.header("range").is_some())
    };
    eventually("the ranged request ends", async || {
        ranged().is_some_and(|seen| seen.ended())
    })
    .await;
    assert!(
        ranged().unwrap().body_bytes() < 76 * MIB as u64,
        "the whole tail was fetched"
    );
    gate.open();
}

#[tokio::test]
async fn head_with_a_range_tells_of_the_whole() {
    let stage = Stage::warm(5000).await;

    let reply = stage.node.send(Request::head(&stage.target).range("0-9")).await;

    // RFC 9110, 14.2: Range is defined for GET alone.
    assert_eq!((reply.status, reply.header("content-length")), (200, "5000"), "{reply}");
}

#[tokio::test]
async fn a_range_of_a_manifest_is_never_garbage() {
    let stage = Stage::cold(10).await;
    let image = stage.parent.new_image("a", "v1", &[10]);

    let reply = stage.node.range("/v2/a/manifests/v1", "0-9").await;

    match reply.status {
        206 => reply.assert_part(&image.manifest.bytes, 0, 9),
        _ => reply.assert_is(&image.manifest.bytes),
    }
}

type Part = (String, Vec<u8>);

fn part(object: &Bytes, first: usize, last: usize) -> Part {
    (
        format!("bytes {first}-{last}/{}", object.len()),
        object[first..=last].to_vec(),
    )
}

/// The `Content-Range` and the bytes of each part of a `multipart/byteranges` body.
fn parts(reply: &Reply) -> Vec<Part> {
    let media_type = reply.header("content-type");
    let boundary = media_type
        .strip_prefix("multipart/byteranges; boundary=")
        .expect(media_type);
    let boundary = boundary.trim_matches('"');
    let mut rest = &reply.body[..];
    let mut parts = Vec::new();
    let find = |rest: &[u8], what: &[u8]| rest.windows(what.len()).position(|window| window == what);
    while let Some(at) = find(rest, format!("--{boundary}\r\n").as_bytes()) {
        rest = &rest[at + boundary.len() + 4..];
        let end = find(rest, b"\r\n\r\n").expect("the head of a part");
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let content_range = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-range: ")
                    .map(str::to_owned)
            })
            .expect("a Content-Range in each part");
        rest = &rest[end + 4..];
        let end = find(rest, format!("\r\n--{boundary}").as_bytes()).expect("the end of a part");
        parts.push((content_range, rest[..end].to_vec()));
        rest = &rest[end + 2..];
    }
    assert!(
        rest.starts_with(format!("--{boundary}--").as_bytes()),
        "the last boundary is missing"
    );
    parts
}

/// The end of a blob, asked for while its transfer is held near its beginning; `lie` is what the parent does to the
/// request that the node makes for it.
async fn end_of_a_held_transfer(lie: impl FnOnce(Fault) -> Fault) -> (Stage, Reply) {
    let (stage, gate, leader) = Stage::under_way(48 * MIB, MIB / 2).await;
    stage.parent.fault(lie(Fault::get(&stage.digest).ranged()));

    let mut end = stage
        .node
        .client()
        .open(Request::get(&stage.target).range(&format!("{}-", 40 * MIB)))
        .await;
    end.read(7 * MIB).await;
    assert_eq!(stage.ranged_requests().await, 1.0);
    gate.open();
    let (reply, _) = end.rest().await;
    assert!(leader.last().await.body == stage.bytes);
    (stage, reply)
}

#[tokio::test]
async fn the_end_of_a_blob_asked_for_on_its_own_is_whole_once_the_transfer_agrees() {
    let (stage, reply) = end_of_a_held_transfer(|fault| fault).await;

    reply.assert_part(&stage.bytes, 40 * MIB, 48 * MIB - 1);
}

#[tokio::test]
async fn the_end_of_a_blob_asked_for_on_its_own_is_never_whole_with_other_bytes_than_the_transfer_brought() {
    let (_stage, reply) = end_of_a_held_transfer(|fault| fault.flip_at(41 * MIB as u64)).await;

    assert!(!reply.complete, "{reply}");
}
