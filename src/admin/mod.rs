//! The second listener, for operators: metrics, health, readiness, a page that shows them, and what a command asks for.

mod cache;
mod config;
mod page;
mod queue;
mod token;

use async_trait::async_trait;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use pingora::apps::http_app::ServeHttp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::http::ServerSession;
use pingora::services::listening::Service;
use prometheus::{Encoder, Registry, TextEncoder};

pub use config::Config;

use crate::auth::Guard;
use crate::push::Push;
use crate::queue::Queue;
use crate::status::{Receipts, Status};

/// The admin port's answers.
pub struct Admin {
    status: Status,
    metrics: Registry,
    /// `None`: a mirror.
    push: Option<Push>,
    queue: Queue,
    receipts: Receipts,
    guard: Guard,
}

/// The admin port as a service for pingora's server.
pub fn service(
    config: &Config,
    status: Status,
    metrics: Registry,
    push: Option<Push>,
    queue: Queue,
    receipts: Receipts,
    guard: Guard,
) -> Service<Admin> {
    let admin = Admin {
        status,
        metrics,
        push,
        queue,
        receipts,
        guard,
    };
    let mut service = Service::new("admin".to_owned(), admin);
    service.threads = Some(1);
    service.add_listener(ListenerConfig::tcp(config.address.to_string()));
    service
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (path, is_read) = (head.uri.path(), matches!(head.method.as_str(), "GET" | "HEAD"));
        let is_deed = [cache::GC, queue::RETRY, queue::DROP].contains(&path) || token::DEEDS.contains(&path);
        if is_deed && head.method == http::Method::POST {
            // A page that a browser shows must not do what its reader may.
            if head.headers.contains_key(http::header::ORIGIN) {
                return words(403, "no page of another origin may ask for this\n");
            }
            let query = head.uri.query().unwrap_or_default().to_owned();
            let path = path.to_owned();
            return match path.as_str() {
                cache::GC => cache::collect(self.push.as_ref(), &query).await,
                queue::RETRY => queue::retry(&self.queue, &query).await,
                queue::DROP => queue::drop_items(&self.queue, &query).await,
                _ => match body(session).await {
                    Ok(body) => token::act(&self.guard, &path, &query, body).await,
                    Err(refusal) => refusal,
                },
            };
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
            "/metrics" => self.metrics(),
            token::LIST => token::list(&self.guard),
            queue::LIST => queue::list(&self.queue),
            queue::RECEIPTS => {
                let query = head.uri.query().unwrap_or_default().to_owned();
                queue::receipt(&self.receipts, &query).await
            }
            _ if is_deed => words(405, "this takes POST\n"),
            _ => words(
                404,
                "there are /, /metrics, /healthz, /readyz, /api/queue, /api/receipts, /api/tokens and /api/cache/gc here\n",
            ),
        }
    }
}

impl Admin {
    async fn health(&self) -> Response<Vec<u8>> {
        let (status, word) = if self.status.answers().await {
            (200, "ok\n")
        } else {
            (503, "starting\n")
        };
        text(status, "text/plain; charset=utf-8", word.into())
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
        let mut lines = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut lines) {
            Ok(()) => text(200, "text/plain; version=0.0.4; charset=utf-8", lines),
            Err(error) => text(500, "text/plain; charset=utf-8", error.to_string().into()),
        }
    }
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
