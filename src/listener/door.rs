use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
// Unlike tokio's it does not wake the thread that it runs on: measured half a system call a request.
use pingora::time::timeout;

use super::bound::Bound;
use super::broken::Broken;
use super::client::{Client, authorization};
use super::incoming::{self, Coming, Nothing};
use super::log::Entry;
use super::pace::Pace;
use super::refused::Limit;
use super::send::{self, Meter, Socket};
use super::{Config, Connections, Refused, RequestLog};
use crate::auth::Principal;
use crate::oci::{Code, Registry, error_body};
use crate::serve::{Body, Content, Kind, Reply, Request, Serve};
use crate::units::with_causes;

/// Bodies up to this leave through the session: a few kilobytes are not worth a descriptor of their own.
const SMALL: u64 = 16 << 10;
/// Bytes of a body nobody asked for that are read before the answer, so that it is not lost in a reset.
const DRAINED: usize = 64 << 10;
/// How long a connection that broke may take to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// The application behind the registry port: reads requests, has them answered, sends the replies.
pub(super) struct Door {
    pub(super) serve: Arc<ArcSwap<Serve>>,
    pub(super) bound: Bound,
    pub(super) config: Config,
    pub(super) connections: Connections,
    pub(super) refused: Refused,
    pub(super) log: RequestLog,
    options: HttpServerOptions,
}

impl Door {
    pub(super) fn new(
        serve: Arc<ArcSwap<Serve>>,
        bound: Bound,
        config: Config,
        connections: Connections,
        refused: Refused,
        log: RequestLog,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(config.idle_timeout);
        Self {
            serve,
            bound,
            config,
            connections,
            refused,
            log,
            options,
        }
    }

    async fn answer(&self, session: &mut ServerSession) -> Sent {
        let serve = self.serve.load_full();
        let bound = self.bound.to(|| session.server_addr()?.as_inet().copied());
        let digest = session.digest().and_then(|digest| digest.ssl_digest.clone());
        let client = Client::of(digest.as_deref(), remote(session));
        let mut from = client.remote;
        let mut is_last = is_doubtful(session.req_header());
        let reply = if self.is_push(session) {
            // It is looked at while its body is read.
            let head = session.req_header().clone();
            match self.request(&head, bound, &client) {
                Ok(request) => {
                    from = request.remote;
                    let mut body = Coming::new(session, &self.config, &self.refused);
                    let reply = serve.answer(&request, &mut body).await;
                    is_last |= body.is_broken();
                    Ok(reply)
                }
                Err(reply) => Err(reply),
            }
        } else {
            match self.request(session.req_header(), bound, &client) {
                Ok(request) => {
                    from = request.remote;
                    Ok(serve.answer(&request, &mut Nothing).await)
                }
                Err(reply) => Err(reply),
            }
        };
        if is_last || reply.is_err() || !session.is_body_done() {
            session.set_keepalive(None);
        }
        let reply = reply.unwrap_or_else(|reply| reply);
        Sent {
            from,
            ..self.send(session, reply).await
        }
    }

    /// What is asked for, or what is said to a head that nobody answers.
    fn request<'a>(
        &self,
        head: &'a RequestHeader,
        bound: Option<&'a Registry>,
        client: &Client<'a>,
    ) -> Result<Request<'a>, Reply> {
        let path = std::str::from_utf8(head.raw_path()).unwrap_or("");
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let field = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = head.uri.authority().map(http::uri::Authority::as_str).or(field);
        if field.is_none() && head.version == http::Version::HTTP_11 {
            return Err(malformed());
        }
        if head.headers.len() > self.config.head_fields {
            self.refused.count(Limit::HeadFields);
            return Err(too_large());
        }
        let way = client.way(&head.headers, host, &self.config.trusted_proxies);
        Ok(Request {
            method: head.method.as_str(),
            path,
            query,
            headers: &head.headers,
            host: way.host,
            scheme: way.scheme,
            remote: way.remote,
            authorization: authorization(&head.headers),
            peer: client.peer,
            bound,
        })
    }

    /// Whether the request brings something that may be wanted.
    fn is_push(&self, session: &ServerSession) -> bool {
        let method = &session.req_header().method;
        let path = session.req_header().uri.path();
        self.serve.load().reads_body(method.as_str(), path)
    }

    /// Reads a body that nobody asked for, as far as that is worth it. False if there is no end to it.
    async fn take_unwanted(&self, session: &mut ServerSession) -> bool {
        match drain_small(session).await {
            Drained::All => {}
            Drained::Part => {
                self.refused.count(Limit::Body);
                session.set_keepalive(None);
            }
            Drained::Malformed => return false,
        }
        true
    }

    async fn send(&self, session: &mut ServerSession, reply: Reply) -> Sent {
        let mut sent = Sent {
            kind: reply.kind,
            outcome: reply.outcome.map(|outcome| outcome.as_str()),
            status: reply.status,
            from: None,
            who: reply.who.clone(),
            meter: Meter::default(),
            reason: reply.reason().cloned(),
            broken: None,
        };
        let is_head = session.req_header().method == http::Method::HEAD;
        let pace = &mut self.pace(session);
        let Some(header) = header(&reply) else {
            sent.broken = Some("the header could not be built".to_owned());
            return sent;
        };
        let outcome = match reply.body {
            _ if is_head => head_only(session, header, pace).await,
            Body::Empty => head_only(session, header, pace).await,
            Body::Bytes(bytes) => whole(session, header, bytes, pace, &mut sent.meter).await,
            Body::Content(mut content) => {
                let large = reply.length.is_some_and(|length| length > SMALL);
                Box::pin(body(session, header, large, &mut content, pace, &mut sent.meter)).await
            }
        };
        if let Err(Broken::Slow) = outcome {
            self.refused.count(Limit::MinRate);
        }
        sent.broken = outcome.err().map(|broken| with_causes(&broken));
        sent
    }

    /// For one reply.
    fn pace(&self, session: &ServerSession) -> Pace {
        Pace::new(&self.config, session.as_http1().map(|http1| http1.stream().id()))
    }

    /// Says that what came is no request. There is none that could be looked at.
    async fn refuse(&self, session: &mut ServerSession) {
        self.end_with(session, malformed()).await;
    }

    /// Says that there is too much to do for this client, which may ask again.
    pub(super) async fn turn_away(&self, session: &mut ServerSession) {
        let message = "this client has more requests in work than listen.http2_streams or \
            listen.connections_per_address allows; ask again in a while";
        let mut reply = refusal(503, Code::TooManyRequests, message);
        reply.headers.push((RETRY_AFTER, HeaderValue::from_static("5")));
        self.end_with(session, reply).await;
    }

    async fn end_with(&self, session: &mut ServerSession, reply: Reply) {
        if let (Some(header), Body::Bytes(bytes)) = (header(&reply), reply.body) {
            let pace = &mut self.pace(session);
            session.set_keepalive(None);
            let _ = whole(session, header, bytes, pace, &mut Meter::default()).await;
        }
    }

    fn record(&self, session: &ServerSession, sent: &Sent, began: Instant) {
        let head = session.req_header();
        self.serve
            .load()
            .finished(head.method.as_str(), sent.kind, sent.status, sent.meter.bytes);
        let query = head.uri.query().unwrap_or_default();
        let namespace = super::log::namespace(query);
        self.log.line(&Entry {
            remote: sent.from,
            who: sent.who.as_ref().map(Principal::name).filter(|name| !name.is_empty()),
            method: head.method.as_str(),
            path: head.uri.path(),
            namespace,
            status: sent.status,
            bytes: sent.meter.bytes,
            took: now().duration_since(began),
            first_byte: sent.meter.first.map(|first| first.duration_since(began)),
            kind: sent.kind.as_str(),
            outcome: sent.outcome,
            reason: sent.reason.as_ref().and_then(|reason| reason.to_str().ok()),
            broken: sent.broken.clone(),
        });
    }
}

/// What became of a reply.
struct Sent {
    kind: Kind,
    outcome: Option<&'static str>,
    status: u16,
    /// Where the request came from.
    from: Option<IpAddr>,
    /// Whom it was for.
    who: Option<Principal>,
    /// Of the body.
    meter: Meter,
    /// Why it brings nothing.
    reason: Option<HeaderValue>,
    /// Why it was broken off: the connection cannot be used again.
    broken: Option<String>,
}

#[async_trait]
impl HttpServerApp for Door {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let patience = self.config.idle_timeout + self.config.header_timeout;
        match timeout(patience, session.read_request()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return None,
            Ok(Err(_)) | Err(_) => {
                self.refuse(&mut session).await;
                return None;
            }
        }
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.config.idle_timeout.as_secs()));
        }
        let busy = self.connections.busy();
        let began = now();
        if self.connections.is_draining() || *shutdown.borrow() {
            session.set_keepalive(None);
        }
        if !self.is_push(&session) && !self.take_unwanted(&mut session).await {
            self.refuse(&mut session).await;
            return None;
        }
        let sent = self.answer(&mut session).await;
        self.record(&session, &sent, began);
        drop(busy);
        if sent.broken.is_some() {
            session.set_keepalive(None);
            let _ = timeout(FAREWELL, session.shutdown()).await;
            return None;
        }
        if self.is_push(&session) && !session.is_body_done() {
            incoming::see_off(&mut session).await;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let finished = timeout(self.config.write_timeout, session.finish()).await;
        let reusable = finished.ok()?.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = H2Options::new();
        options
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(self.config.http2_streams)
            .max_header_list_size(u32::try_from(self.config.head_size.bytes()).unwrap_or(u32::MAX));
        Some(options)
    }
}

/// Whether the connection ends with the answer: the client says so, in whichever of its fields, or the body comes in chunks, of
/// which pingora lets sizes, extensions and trailers pass that others refuse, or see the end of elsewhere.
fn is_doubtful(head: &RequestHeader) -> bool {
    let mut fields = head.headers.get_all(CONNECTION).iter();
    let closes = fields.any(|field| {
        let mut words = field.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    closes || head.headers.contains_key(TRANSFER_ENCODING)
}

/// Where the connection comes from.
fn remote(session: &ServerSession) -> Option<IpAddr> {
    Some(session.client_addr()?.as_inet()?.ip())
}

fn header(reply: &Reply) -> Option<Box<ResponseHeader>> {
    let mut header = ResponseHeader::build_no_case(reply.status, Some(reply.headers.len() + 3)).ok()?;
    for (name, value) in &reply.headers {
        header.append_header(name.clone(), value.clone()).ok()?;
    }
    match reply.length {
        // RFC 9110, 8.6.
        _ if matches!(reply.status, 204 | 304) => {}
        Some(length) => {
            header.append_header(CONTENT_LENGTH, length).ok()?;
        }
        None => {
            header.append_header(TRANSFER_ENCODING, "chunked").ok()?;
        }
    }
    Some(Box::new(header))
}

/// What is said to bytes that are no request, also for want of the one Host (RFC 9112, section 3.2).
pub(super) fn malformed() -> Reply {
    let message = "this is no request of HTTP/1.1; look at its first line, its lengths, and its one Host field";
    refusal(400, Code::Unknown, message)
}

/// What is said to a head without end (RFC 6585, section 5).
pub(super) fn too_large() -> Reply {
    let message = "the first line and the fields of this request are more than listen.head_size or listen.head_fields \
        allows; send less";
    refusal(431, Code::Unknown, message)
}

fn refusal(status: u16, code: Code, message: &str) -> Reply {
    let body = error_body(code, message, None);
    Reply {
        status,
        headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        length: Some(body.len() as u64),
        body: Body::Bytes(body.into()),
        kind: Kind::Other,
        outcome: None,
        who: None,
    }
}

async fn head_only(session: &mut ServerSession, header: Box<ResponseHeader>, pace: &mut Pace) -> Result<(), Broken> {
    send::header(session, header, pace).await?;
    send::end(session, pace, 0).await
}

async fn whole(
    session: &mut ServerSession,
    header: Box<ResponseHeader>,
    bytes: Bytes,
    pace: &mut Pace,
    meter: &mut Meter,
) -> Result<(), Broken> {
    send::header(session, header, pace).await?;
    send::whole(session, bytes, pace, meter).await
}

async fn body(
    session: &mut ServerSession,
    header: Box<ResponseHeader>,
    large: bool,
    content: &mut Content,
    pace: &mut Pace,
    meter: &mut Meter,
) -> Result<(), Broken> {
    let socket = if large { Socket::of(session) } else { None };
    let Some(mut socket) = socket else {
        send::header(session, header, pace).await?;
        return send::through_session(session, content, pace, meter).await;
    };
    // What is still on its way must not wait for a full packet.
    let here = content.source.is_stored();
    if here {
        socket.cork();
    }
    header_alone(session, header, pace).await?;
    let outcome = socket.body(content, pace, meter).await;
    if here {
        socket.uncork();
    }
    outcome
}

/// Writes the header and leaves the body to us, the session being none the wiser.
///
/// pingora takes the answer to a HEAD for complete with its header and flushes it; the connection stays
/// usable afterwards. This rests on its behaviour, not on its word: the version is pinned and a test watches.
async fn header_alone(session: &mut ServerSession, header: Box<ResponseHeader>, pace: &mut Pace) -> Result<(), Broken> {
    let method = session.req_header().method.clone();
    session.req_header_mut().set_method(http::Method::HEAD);
    let written = send::header(session, header, pace).await;
    session.req_header_mut().set_method(method);
    written
}

/// What became of a body that nobody asked for.
enum Drained {
    /// There is nothing more of it.
    All,
    /// It is too large, too slow, or waits to be asked for: the connection ends with the answer.
    Part,
    /// Nobody can say where it ends.
    Malformed,
}

/// Reads a small body that no route here wants.
async fn drain_small(session: &mut ServerSession) -> Drained {
    if session.is_body_empty() {
        return Drained::All;
    }
    if session.req_header().headers.contains_key(EXPECT) {
        return Drained::Part;
    }
    let drain = async {
        let mut read = 0;
        while read <= DRAINED {
            match session.read_request_body().await {
                Ok(Some(bytes)) => read += bytes.len(),
                Ok(None) => return Drained::All,
                Err(_) => return Drained::Malformed,
            }
        }
        Drained::Part
    };
    tokio::time::timeout(Duration::from_secs(1), drain)
        .await
        .unwrap_or(Drained::Part)
}

#[expect(clippy::disallowed_methods, reason = "the outermost function reads the clock")]
fn now() -> Instant {
    Instant::now()
}
