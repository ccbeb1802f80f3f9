//! The second listener, for operators: metrics, health, readiness, a page that shows them, and what a command asks for.

mod cache;
mod config;
mod operator;
mod page;
mod queue;
mod sync;
mod token;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use pingora::apps::http_app::ServeHttp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::http::ServerSession;
use pingora::services::listening::Service;
use prometheus::{Encoder, Registry, TextEncoder};

pub use config::Config;

use self::operator::Verdict;
use crate::auth::{Guard, Peer};
use crate::events::{Audit, Deed};
use crate::listener::Tls;
use crate::push::Push;
use crate::queue::Queue;
use crate::status::{Receipts, Status, Summaries};
use crate::sync::Syncer;
use crate::units::Live;

/// The admin port's answers.
pub struct Admin {
    /// What operators see.
    pub status: Status,
    /// What is counted.
    pub metrics: Registry,
    /// `None`: a mirror.
    pub push: Option<Push>,
    /// What waits for the parent.
    pub queue: Queue,
    /// What is fetched before anyone asks.
    pub sync: Syncer,
    /// How far up pushes have got.
    pub receipts: Receipts,
    /// How this node stands, and those below.
    pub summaries: Summaries,
    /// Who may log in at the registry port.
    pub guard: Guard,
    /// Puts new settings in force.
    pub reload: Reload,
    /// Who is an operator.
    pub config: Live<Config>,
    /// Where deeds are put on record.
    pub audit: Audit,
}

/// Reads the settings anew; in words what is wrong with them.
pub type Reload = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The admin port as a service for pingora's server. `tls`: plain HTTP without.
pub fn service(admin: Admin, tls: Option<&Tls>) -> Service<Admin> {
    let address = admin.config.get().address.to_string();
    let mut service = Service::new("admin".to_owned(), admin);
    service.threads = Some(1);
    let listener = ListenerConfig::tcp(address);
    service.add_listener(match tls {
        Some(tls) => listener.tls(tls.settings()),
        None => listener,
    });
    service
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let verdict = self.judge(session);
        self.record_stranger(session, verdict);
        match verdict {
            Verdict::Operator => self.answer(session).await,
            Verdict::Foreign(why) => words(403, why),
            // Whoever looks after machines may know whether this one lives.
            Verdict::Stranger if session.req_header().uri.path() == "/healthz" => self.health().await,
            Verdict::Stranger if session.req_header().uri.path() == "/readyz" => self.briefly().await,
            Verdict::Stranger if self.config.get().token.is_none() => words(
                403,
                "the admin port takes the certificate of an operator, as [admin] certificates names them\n",
            ),
            verdict => {
                if verdict == Verdict::Wrong {
                    tracing::warn!(remote = ?session.client_addr().map(ToString::to_string), "a wrong token at the admin port");
                    tokio::time::sleep(operator::WAIT).await;
                }
                let mut reply = words(
                    401,
                    "the admin port takes its token, as Bearer or as the password of Basic\n",
                );
                let challenge = http::HeaderValue::from_static("Basic realm=\"wharf admin\", charset=\"UTF-8\"");
                reply.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
                reply
            }
        }
    }
}

impl Admin {
    fn judge(&self, session: &ServerSession) -> Verdict {
        let digest = session.digest().and_then(|digest| digest.ssl_digest.as_deref());
        let peer = digest.and_then(|digest| digest.extension.get::<Peer>());
        operator::judge(session.req_header(), &self.config.get(), peer)
    }

    /// Who is no operator is put on record with what they tried, but for those who only asked where to log in.
    fn record_stranger(&self, session: &ServerSession, verdict: Verdict) {
        let head = session.req_header();
        let status = match verdict {
            Verdict::Operator => return,
            Verdict::Stranger if head.method != http::Method::POST => return,
            Verdict::Stranger | Verdict::Wrong if self.config.get().token.is_some() => 401,
            Verdict::Stranger | Verdict::Wrong | Verdict::Foreign(_) => 403,
        };
        let path = head.uri.path();
        self.audit.record(&Deed {
            claimed: &operator::claimed(head).unwrap_or_default(),
            how: "admin",
            remote: remote(session),
            action: match is_deed(path) {
                true => path.trim_start_matches("/api/"),
                false => "login",
            },
            status,
            ..Deed::default()
        });
    }

    async fn answer(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (path, is_read) = (head.uri.path(), matches!(head.method.as_str(), "GET" | "HEAD"));
        let is_deed = is_deed(path);
        // What is asked there is how it stands.
        let is_deed = is_deed && !(is_read && path == sync::SYNC);
        if is_deed && head.method == http::Method::POST {
            let query = head.uri.query().unwrap_or_default().to_owned();
            let path = path.to_owned();
            let mut reference = query.clone();
            let reply = match path.as_str() {
                cache::GC => cache::collect(self.push.as_ref(), &query).await,
                queue::RETRY => queue::retry(&self.queue, &query).await,
                queue::DROP => queue::drop_items(&self.queue, &query).await,
                sync::SYNC => sync::order(&self.sync, &query).await,
                sync::PLAN => sync::plan(&self.sync, &query).await,
                RELOAD => self.reload().await,
                _ => match body(session).await {
                    Ok(body) => {
                        reference = token::reference(&path, &query, &body);
                        token::act(&self.guard, &path, &query, body).await
                    }
                    Err(refusal) => refusal,
                },
            };
            self.audit.record(&Deed {
                who: "operator",
                how: "admin",
                remote: remote(session),
                action: path.trim_start_matches("/api/"),
                reference: &reference,
                status: reply.status().as_u16(),
                ..Deed::default()
            });
            return reply;
        }
        if !is_read {
            return words(405, "this port answers GET; POST only where something is done\n");
        }
        match path {
            "/" => text(
                200,
                "text/html; charset=utf-8",
                page::render(&self.status.readiness().await, self.status.queue().as_ref()).into(),
            ),
            "/healthz" => self.health().await,
            "/readyz" => self.readiness().await,
            STATUS => json(200, &self.summaries.now()),
            "/metrics" => self.metrics(),
            token::LIST => token::list(&self.guard).await,
            queue::LIST => queue::list(&self.queue).await,
            sync::SYNC => sync::report(&self.sync, head.uri.query().unwrap_or_default()).await,
            sync::COMPLETE => sync::complete(&self.sync, head.uri.query().unwrap_or_default()).await,
            queue::RECEIPTS => {
                let query = head.uri.query().unwrap_or_default().to_owned();
                queue::receipt(&self.receipts, &query).await
            }
            _ if is_deed => words(405, "this takes POST\n"),
            _ => words(
                404,
                "there are /, /metrics, /healthz, /readyz, /api/status, /api/queue, /api/sync, /api/complete, /api/receipts, /api/tokens, /api/reload and /api/cache/gc here\n",
            ),
        }
    }
}

/// How this node stands, and those below.
const STATUS: &str = "/api/status";

/// Where new settings are put in force.
const RELOAD: &str = "/api/reload";

impl Admin {
    async fn reload(&self) -> Response<Vec<u8>> {
        let reload = self.reload.clone();
        match tokio::task::spawn_blocking(move || reload()).await {
            Ok(Ok(())) => json(200, &serde_json::json!({ "reloaded": true })),
            Ok(Err(reason)) => refuse(409, &reason),
            Err(_) => refuse(500, "the node made a mistake; its log says which"),
        }
    }

    async fn health(&self) -> Response<Vec<u8>> {
        let (status, word) = if self.status.answers().await {
            (200, "ok\n")
        } else {
            (503, "starting\n")
        };
        text(status, "text/plain; charset=utf-8", word.into())
    }

    /// Readiness, for who is no operator.
    async fn briefly(&self) -> Response<Vec<u8>> {
        let ready = self.status.readiness().await.ready;
        json(if ready { 200 } else { 503 }, &serde_json::json!({ "ready": ready }))
    }

    async fn readiness(&self) -> Response<Vec<u8>> {
        let readiness = self.status.readiness().await;
        let status = if readiness.ready { 200 } else { 503 };
        text(
            status,
            "application/json",
            serde_json::to_vec_pretty(&readiness).unwrap_or_default(),
        )
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        self.status.observe();
        self.sync.observe();
        let mut lines = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut lines) {
            Ok(()) => text(200, "text/plain; version=0.0.4; charset=utf-8", lines),
            Err(error) => text(500, "text/plain; charset=utf-8", error.to_string().into()),
        }
    }
}

/// Whether something is done there.
fn is_deed(path: &str) -> bool {
    [cache::GC, queue::RETRY, queue::DROP, sync::SYNC, sync::PLAN, RELOAD].contains(&path)
        || token::DEEDS.contains(&path)
}

fn remote(session: &ServerSession) -> Option<IpAddr> {
    session.client_addr().and_then(|address| Some(address.as_inet()?.ip()))
}

/// What a request brings, if it is not too much.
async fn body(session: &mut ServerSession) -> Result<Vec<u8>, Response<Vec<u8>>> {
    const MOST: usize = 1 << 20;
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(None) => return Ok(body),
            Ok(Some(piece)) if body.len() + piece.len() <= MOST => body.extend_from_slice(&piece),
            Ok(Some(_)) => return Err(refuse(413, "the body has more than 1 MiB")),
            Err(_) => return Err(refuse(400, "the body broke off")),
        }
    }
}

/// Does what may wait for the disk, while others are answered: this port has one thread.
async fn beside(work: impl FnOnce() -> Response<Vec<u8>> + Send + 'static) -> Response<Vec<u8>> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| refuse(500, "the node made a mistake; its log says which"))
}

fn refuse(status: u16, words: &str) -> Response<Vec<u8>> {
    json(status, &serde_json::json!({ "error": words }))
}

fn json(status: u16, body: &impl serde::Serialize) -> Response<Vec<u8>> {
    text(
        status,
        "application/json",
        serde_json::to_vec_pretty(body).unwrap_or_default(),
    )
}

fn words(status: u16, words: &'static str) -> Response<Vec<u8>> {
    text(status, "text/plain; charset=utf-8", words.into())
}

fn text(status: u16, kind: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let built = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store");
    built
        .header(http::header::CONTENT_LENGTH, body.len())
        .body(body)
        .expect("a fixed header is valid")
}
