//! How many requests there were, and how many answers: by parsers that are not ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;

/// A request as hyper sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// Its body came to its end.
    pub whole: bool,
}

/// The requests that hyper sees in these bytes.
pub async fn asked(bytes: &[u8]) -> Vec<Asked> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let at = seen.lock().len();
            seen.lock().push(Asked {
                method: request.method().to_string(),
                target: request.uri().to_string(),
                whole: false,
            });
            // A tunnel would be the end of all requests.
            let status = if request.method() == Method::CONNECT { 405 } else { 200 };
            let whole = request.into_body().collect().await.is_ok();
            seen.lock()[at].whole = whole;
            let answer = Response::builder().status(status).body(Empty::<Bytes>::new());
            Ok::<_, Infallible>(answer.expect("a status"))
        }
    });
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut answers, mut questions) = tokio::io::split(ours);
    let serving = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(theirs), service);
    let asking = async {
        // It may have had enough before the end.
        let _ = questions.write_all(bytes).await;
        let _ = questions.shutdown().await;
    };
    let reading = async { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await };
    let all = async { tokio::join!(serving, asking, reading) };
    let ended = tokio::time::timeout(Duration::from_secs(10), all).await;
    assert!(
        ended.is_ok(),
        "hyper waits for more than {:?}",
        bytes.escape_ascii().to_string()
    );
    let seen = seen.lock();
    seen.clone()
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// It says that the connection ends with it.
    pub closes: bool,
}

/// The answers in these bytes, all of which belong to one. `is_head`: the first is to a `HEAD`.
///
/// # Errors
///
/// What stands where an answer should, or what is missing of it.
pub fn answers(bytes: &[u8], is_head: bool) -> Result<Vec<Answer>, String> {
    let mut found: Vec<Answer> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let is_head = is_head && found.is_empty();
        let (answer, length) =
            first(rest, is_head).ok_or_else(|| format!("no answer: {:?}", rest.escape_ascii().to_string()))?;
        rest = &rest[length..];
        // It goes on after it.
        if answer.status != 100 {
            found.push(answer);
        }
    }
    Ok(found)
}

/// The answer at the beginning, and its length.
fn first(bytes: &[u8], is_head: bool) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else {
        return None;
    };
    let status = response.code?;
    let named = |name: &str| -> Vec<&[u8]> {
        let fields = response.headers.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let closes = named("connection") == [b"close"];
    let rest = &bytes[head..];
    let (body, length) = match (&named("content-length")[..], &named("transfer-encoding")[..]) {
        ([], []) if status == 100 || status == 204 || status == 304 => (Vec::new(), 0),
        ([_] | [], []) | ([], [b"chunked"]) if is_head || status == 304 => (Vec::new(), 0),
        ([length], []) if status != 204 && length.iter().all(u8::is_ascii_digit) => {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            (rest.get(..length)?.to_vec(), length)
        }
        ([], [b"chunked"]) if status != 204 => chunks(rest)?,
        _ => return None,
    };
    let answer = Answer { status, body, closes };
    Some((answer, head + length))
}

/// A body in chunks, without extensions and trailers, and how long it was with all that stands around them.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let httparse::Status::Complete((head, size)) = httparse::parse_chunk_size(&bytes[at..]).ok()? else {
            return None;
        };
        let (start, size) = (at + head, usize::try_from(size).ok()?);
        at = start.checked_add(size)?.checked_add(2)?;
        if bytes.get(at - 2..at)? != b"\r\n" {
            return None;
        }
        body.extend_from_slice(&bytes[start..at - 2]);
        if size == 0 {
            return Some((body, at));
        }
    }
}
