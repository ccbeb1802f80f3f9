//! Before pingora's door: reads the head of a request within a deadline, answers at once what is hot and
//! plain, and hands everything else over as it came.
//!
//! Plain is a GET or HEAD of HTTP/1.1 whose fields are all of a short list, with nothing behind its head.
//! Whatever is odd in any way is pingora's to judge: this reads no bodies and refuses nothing but silence,
//! heads without end, and requests whose end is in doubt. Measured: a hot manifest costs half of what it does behind the door.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use http::HeaderMap;
use httparse::Status;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::http::{ServerSession, date::get_cached_date};
use pingora::protocols::{ALPN, Stream, l4};
use pingora::server::ShutdownWatch;
use pingora::time::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::Client;
use super::connections::{Busy, Open};
use super::door::{self, Door};
use super::framing;
use super::log::Entry;
use super::pace::Pace;
use super::prompt::Prompt;
use super::refused::Limit;
use super::streams::Streams;
use super::tls::Handshakes;
use crate::auth::Principal;
use crate::serve::{Body, Reply, Request};

/// Fields that a plain request may have.
const FIELDS: usize = 64;
/// Fields that change nothing about a hot answer, but for who may have it.
const PLAIN: [&str; 6] = [
    "host",
    "authorization",
    "user-agent",
    "accept",
    "accept-encoding",
    "docker-distribution-api-version",
];

/// The first to see a connection.
pub struct Porch {
    door: Arc<Door>,
    /// `None`: plain HTTP.
    handshakes: Option<Handshakes>,
}

/// What came of waiting for a request.
enum Head {
    /// As many bytes as came at once; the head is whole.
    Whole,
    /// The client is gone, or asked for nothing for too long.
    Gone,
    /// It began, and did not get to the end in time.
    Late,
    /// It sends a head without end.
    TooLarge,
    /// It sends what begins no request, like the greeting of TLS.
    Foreign,
}

/// How long a client that was refused may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

impl Porch {
    pub(super) fn new(door: Door, handshakes: Option<Handshakes>) -> Self {
        let door = Arc::new(door);
        Self { door, handshakes }
    }

    /// The stream behind its TLS, if there is any to be; `None` if it does not come about in time.
    async fn shake_hands(&self, stream: Stream) -> Option<Stream> {
        let Some(handshakes) = &self.handshakes else {
            return Some(stream);
        };
        let acceptor = handshakes.acceptor();
        let plain = stream.into_any().downcast::<l4::stream::Stream>().ok()?;
        match timeout(self.door.config.handshake_timeout, acceptor.tls_handshake(*plain)).await {
            Ok(Ok(stream)) => Some(Box::new(Prompt::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client's TLS handshake failed");
                None
            }
            Err(_) => {
                self.door.refused.count(Limit::HandshakeTimeout);
                None
            }
        }
    }

    /// Answers requests until one is not for here, which is busy from then on, or the connection ends.
    async fn linger(&self, stream: &mut Stream, client: &Client<'_>, buffer: &mut BytesMut) -> Option<Busy> {
        loop {
            buffer.clear();
            match self.head(stream, buffer).await {
                Head::Whole => {}
                Head::Gone => return None,
                Head::Late => {
                    self.door.refused.count(Limit::HeaderTimeout);
                    return None;
                }
                Head::TooLarge => {
                    self.door.refused.count(Limit::HeadSize);
                    refuse(stream, &written(&door::too_large())).await;
                    return None;
                }
                // Clients that try HTTPS before HTTP, as Docker and Podman do, see by the first five bytes what to do.
                Head::Foreign => {
                    refuse(stream, &written(&door::malformed())).await;
                    return None;
                }
            }
            let busy = self.door.connections.busy();
            let began = now();
            let Some(answer) = self.answer(stream, client, buffer) else {
                if framing::is_certain(buffer) {
                    return Some(busy);
                }
                refuse(stream, &written(&door::malformed())).await;
                return None;
            };
            let mut pace = Pace::new(&self.door.config, Some(stream.id()));
            let sent = pace.wait(0, send(stream, &answer.bytes)).await;
            if sent.is_err() {
                self.door.refused.count(Limit::MinRate);
            }
            self.record(stream, &answer, began);
            if !matches!(sent, Ok(Ok(()))) || answer.last {
                return None;
            }
        }
    }

    /// Reads until the head is whole: the first byte may take as long as a connection may be idle, the
    /// rest as long as a head may take.
    async fn head(&self, stream: &mut Stream, buffer: &mut BytesMut) -> Head {
        if !matches!(
            timeout(self.door.config.idle_timeout, stream.read_buf(buffer)).await,
            Ok(Ok(1..))
        ) {
            return Head::Gone;
        }
        let most = usize::try_from(self.door.config.head_size.bytes()).unwrap_or(usize::MAX);
        // Most heads come whole, and then this looks at their last bytes only.
        if buffer.ends_with(b"\r\n\r\n") && buffer[0].is_ascii_uppercase() && buffer.len() <= most {
            return Head::Whole;
        }
        if !buffer.first().is_some_and(|first| begins_request(*first)) {
            return Head::Foreign;
        }
        let rest = async {
            let mut seen = 0;
            loop {
                let end = end_within(buffer, seen);
                seen = buffer.len();
                if end.unwrap_or(seen) > most {
                    return Head::TooLarge;
                }
                if end.is_some() {
                    return Head::Whole;
                }
                if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
                    return Head::Gone;
                }
            }
        };
        timeout(self.door.config.header_timeout, rest)
            .await
            .unwrap_or(Head::Late)
    }

    /// The whole reply, if the request is plain and what it asks for is in memory.
    fn answer<'a>(&self, stream: &Stream, client: &Client<'_>, head: &'a [u8]) -> Option<Answer<'a>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(Status::Complete(length)) = parsed.parse(head) else {
            return None;
        };
        let (Some(method @ ("GET" | "HEAD")), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version)
        else {
            return None;
        };
        if length != head.len() || !target.starts_with('/') || parsed.headers.len() > self.door.config.head_fields {
            return None;
        }
        let (mut host, mut authorization) = (None, None);
        for field in &*parsed.headers {
            if !PLAIN.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
                return None;
            }
            let slot = match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => &mut host,
                13 if field.name.eq_ignore_ascii_case("authorization") => &mut authorization,
                _ => continue,
            };
            if slot.replace(std::str::from_utf8(field.value).ok()?).is_some() {
                return None;
            }
        }
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let digest = stream.get_socket_digest();
        let bound = self.door.bound.to(|| digest.as_ref()?.local_addr()?.as_inet().copied());
        let none = HeaderMap::new();
        let request = Request {
            method,
            path,
            query,
            headers: &none,
            host: Some(host?),
            scheme: client.scheme,
            remote: client.remote,
            authorization,
            peer: client.peer,
            bound,
        };
        let reply = self.door.serve.load().answer_at_once(&request)?;
        let Body::Bytes(body) = &reply.body else { return None };
        let last = self.door.connections.is_draining();
        let sent = if method == "GET" { body.len() } else { 0 };
        let mut bytes = render(&reply, body.len(), last);
        bytes.extend_from_slice(&body[..sent]);
        Some(Answer {
            reply,
            bytes,
            sent: sent as u64,
            last,
            method,
            path,
            query,
        })
    }

    fn record(&self, stream: &Stream, answer: &Answer<'_>, began: Instant) {
        let Reply {
            kind,
            status,
            outcome,
            who,
            ..
        } = &answer.reply;
        let took = now().duration_since(began);
        self.door
            .serve
            .load()
            .finished(answer.method, *kind, *status, answer.sent);
        self.door.log.line(&Entry {
            remote: remote(stream),
            who: who.as_ref().map(Principal::name).filter(|name| !name.is_empty()),
            method: answer.method,
            path: answer.path,
            namespace: answer.query.and_then(super::log::namespace),
            status: *status,
            bytes: answer.sent,
            took,
            first_byte: Some(took),
            kind: kind.as_str(),
            outcome: outcome.map(|outcome| outcome.as_str()),
            reason: answer.reply.reason().and_then(|reason| reason.to_str().ok()),
            broken: None,
        });
    }
}

/// A reply as it goes over the wire.
struct Answer<'a> {
    reply: Reply,
    bytes: Vec<u8>,
    /// Of the body.
    sent: u64,
    /// The connection ends with it.
    last: bool,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

#[async_trait]
impl ServerApp for Porch {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let open = Open::new(&self.door.connections, remote(&stream));
        let mut stream = self.shake_hands(stream).await?;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            let streams = Arc::new(Streams::new(self.door.clone(), open));
            return streams.process_new(stream, shutdown).await;
        }
        let mut buffer = BytesMut::with_capacity(4 << 10);
        let digest = stream.get_ssl_digest();
        let client = Client::of(digest.as_deref(), remote(&stream));
        while let Some(busy) = self.linger(&mut stream, &client, &mut buffer).await {
            let mut session = ServerSession::new_http1(stream);
            session.set_keepalive(Some(self.door.config.idle_timeout.as_secs()));
            hand_over(
                &mut session,
                std::mem::replace(&mut buffer, BytesMut::with_capacity(4 << 10)),
            );
            (stream, _) = self.door.process_new_http(session, shutdown).await?.consume();
            drop(busy);
        }
        None
    }
}

/// The head goes to the door as if it had read it itself.
fn hand_over(session: &mut ServerSession, head: BytesMut) {
    session.set_pipelined_prefix(head);
}

/// Status line and fields, up to and with the empty line.
fn render(reply: &Reply, length: usize, last: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(768 + length);
    let status = http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::OK);
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    for (name, value) in &reply.headers {
        field(name.as_str().as_bytes(), value.as_bytes());
    }
    field(b"content-length", length.to_string().as_bytes());
    field(b"date", get_cached_date().as_bytes());
    field(b"connection", if last { b"close" } else { b"keep-alive" });
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Who asks.
fn remote(stream: &Stream) -> Option<IpAddr> {
    Some(stream.get_socket_digest()?.peer_addr()?.as_inet()?.ip())
}

/// A refusal as it goes over the wire, the last of its connection.
fn written(reply: &Reply) -> Vec<u8> {
    let body: &[u8] = match &reply.body {
        Body::Bytes(bytes) => bytes,
        _ => &[],
    };
    let mut bytes = render(reply, body.len(), true);
    bytes.extend_from_slice(body);
    bytes
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Says why, and reads what is still coming: closing before would take the answer back (RFC 9112, section 9.6).
async fn refuse(stream: &mut Stream, answer: &[u8]) {
    let said = async {
        send(stream, answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(FAREWELL, said).await;
}

/// A method's first letter, or the empty line that may stand before it (RFC 9112, sections 2.2 and 3.1).
fn begins_request(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r\n".contains(&byte)
}

/// Where the head ends, behind its last, empty line, if that is here; the first `seen` bytes were looked at before.
///
/// A line may end without its carriage return, and empty lines before the first one are none of the head
/// (RFC 9112, section 2.2).
fn end_within(head: &[u8], seen: usize) -> Option<usize> {
    let first = head.iter().position(|byte| !b"\r\n".contains(byte))?;
    // What begins the end may be among the last bytes that were seen.
    let from = first.max(seen.saturating_sub(2));
    (from..head.len()).find_map(|at| match &head[at..] {
        [b'\n', b'\n', ..] => Some(at + 2),
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[expect(clippy::disallowed_methods, reason = "the outermost function reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(head: &str) -> bool {
        end_within(head.as_bytes(), 0).is_some()
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_lines_end() {
        for head in [
            "G\r\nH: x\r\n\r\n",
            "G\nH: x\n\n",
            "G\nH: x\n\r\n",
            "G\r\nH: x\r\n\n",
            "G\n\nmore",
        ] {
            assert!(ends(head), "{head:?}");
        }
        for head in [
            "",
            "G",
            "G\r\n",
            "G\r\nH: x\r\n\r",
            "G\r\r",
            "\r\n\r\n",
            "\n\n",
            "\r\n\r\nG\r\n",
        ] {
            assert!(!ends(head), "{head:?}");
        }
    }

    #[test]
    fn what_stands_behind_a_head_is_none_of_it() {
        assert_eq!(end_within(b"G\r\n\r\nG\r\n\r\n", 0), Some(5));
        assert_eq!(end_within(b"\r\nG\n\nG", 0), Some(5));
    }

    #[test]
    fn a_head_that_comes_in_pieces_ends_where_it_ends_whole() {
        for head in ["\r\nG / HTTP/1.1\r\nH: x\r\n\r\n", "G / HTTP/1.1\nH: x\n\r\n", "G\n\n"] {
            for seen in 0..head.len() {
                assert!(!ends(&head[..seen]), "{head:?}");
                assert_eq!(
                    end_within(head.as_bytes(), seen),
                    Some(head.len()),
                    "{head:?} after {seen}"
                );
            }
        }
    }
}
