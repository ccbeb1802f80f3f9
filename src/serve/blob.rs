use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG};

use super::manifest::{DIGEST, FOR_EVER};
use super::{Body, Content, Refusal, Reply, Request, Segment, Serve};
use crate::auth::Permit;
use crate::oci::{Code, ContentRange, Digest, Ranges, Resolved, error_body, media};

/// `GET` and `HEAD /v2/<name>/blobs/<digest>` (end-2), with ranges (RFC 9110, 14) also of what is not here yet.
pub(super) async fn get(
    serve: &Serve,
    request: &Request<'_>,
    permit: &Permit,
    digest: &Digest,
) -> Result<Reply, Refusal> {
    let asker = serve.asker(request)?;
    let refuse = |error| Refusal::Blob {
        error,
        repository: permit.repository().clone(),
        digest: *digest,
    };
    if request.is_head() || request.has(digest) {
        let (size, outcome) = serve.shelf.blob_size(permit, digest, &asker).await.map_err(refuse)?;
        if let Some(push) = &serve.push {
            push.found(permit, digest).await;
        }
        // A range is for GET alone (RFC 9110, 14.2).
        let reply = if request.has(digest) {
            Reply::new(304)
        } else {
            shape(Resolved::Whole, Some(size)).0
        };
        return Ok(describe(reply, digest).tell_status(&serve.node, outcome, None));
    }
    let ranges = request.ranges(digest);
    let from = ranges.as_ref().and_then(Ranges::first_from).unwrap_or(0);
    let mut source = serve.shelf.blob(permit, digest, from, &asker).await.map_err(refuse)?;
    let resolved = match ranges {
        None => Resolved::Whole,
        Some(ranges) => {
            let size = serve.shelf.settle(permit, &mut source, &asker).await.map_err(refuse)?;
            ranges.resolve(size)
        }
    };
    let (reply, segments) = shape(resolved, source.size());
    let mut reply = describe(reply, digest).tell_source(&serve.node, &source);
    if !segments.is_empty() {
        reply.body = Body::Content(Box::new(Content { source, segments }));
    }
    Ok(reply)
}

fn describe(reply: Reply, digest: &Digest) -> Reply {
    let digest = digest.to_string();
    reply
        .with_text(DIGEST, &digest)
        .with_text(ETAG, &format!("\"{digest}\""))
        .with(ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        .with(CACHE_CONTROL, FOR_EVER)
}

/// Status, length and type of the reply, and which bytes it has.
fn shape(resolved: Resolved, size: Option<u64>) -> (Reply, Vec<Segment>) {
    let octets = HeaderValue::from_static(media::OCTET_STREAM);
    match resolved {
        Resolved::Whole => {
            let mut reply = Reply::new(200).with(CONTENT_TYPE, octets);
            reply.length = size;
            (reply, vec![Segment::Part(0..size.unwrap_or(u64::MAX))])
        }
        Resolved::One(range) => {
            let mut reply = Reply::new(206)
                .with(CONTENT_TYPE, octets)
                .with_text(CONTENT_RANGE, &content_range(&range, size));
            reply.length = Some(range.end - range.start);
            (reply, vec![Segment::Part(range)])
        }
        Resolved::Many(ranges) => {
            let segments = multipart(ranges, size);
            let mut reply =
                Reply::new(206).with_text(CONTENT_TYPE, &format!("multipart/byteranges; boundary={BOUNDARY}"));
            reply.length = Some(segments.iter().map(Segment::len).sum());
            (reply, segments)
        }
        Resolved::Unsatisfiable => {
            let size = size.unwrap_or_default();
            (
                Reply::new(416)
                    .with_text(CONTENT_RANGE, &format!("bytes */{size}"))
                    .json(error_body(
                        Code::RangeInvalid,
                        &format!("no such range: it has {size} bytes"),
                        None,
                    )),
                Vec::new(),
            )
        }
    }
}

/// Any text that content is unlikely to have; readers go by the lengths.
const BOUNDARY: &str = "wharf-7d1a4c0e5b9f4f0c";

/// RFC 9110, 14.6.
fn multipart(ranges: Vec<Range<u64>>, size: Option<u64>) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(2 * ranges.len() + 1);
    let mut line = "";
    for range in ranges {
        let part = content_range(&range, size);
        let head = format!(
            "{line}--{BOUNDARY}\r\nContent-Type: {}\r\nContent-Range: {part}\r\n\r\n",
            media::OCTET_STREAM
        );
        segments.push(Segment::Bytes(Bytes::from(head)));
        segments.push(Segment::Part(range));
        line = "\r\n";
    }
    segments.push(Segment::Bytes(Bytes::from(format!("\r\n--{BOUNDARY}--\r\n"))));
    segments
}

fn content_range(range: &Range<u64>, total: Option<u64>) -> String {
    ContentRange {
        first: range.start,
        last: range.end - 1,
        total,
    }
    .to_string()
}
