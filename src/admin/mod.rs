//! The second listener, for operators: metrics, health, readiness, and a page that shows them.

mod config;
mod page;

use async_trait::async_trait;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use pingora::apps::http_app::ServeHttp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::http::ServerSession;
use pingora::services::listening::Service;
use prometheus::{Encoder, Registry, TextEncoder};

pub use config::Config;

use crate::status::Status;

/// The admin port's answers.
pub struct Admin {
    status: Status,
    metrics: Registry,
}

/// The admin port as a service for pingora's server.
pub fn service(config: &Config, status: Status, metrics: Registry) -> Service<Admin> {
    let mut service = Service::new("admin".to_owned(), Admin { status, metrics });
    service.threads = Some(1);
    service.add_listener(ListenerConfig::tcp(config.address.to_string()));
    service
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        if !matches!(head.method.as_str(), "GET" | "HEAD") {
            return text(405, "text/plain; charset=utf-8", "this port answers GET only\n".into());
        }
        match head.uri.path() {
            "/" => text(
                200,
                "text/html; charset=utf-8",
                page::render(&self.status.readiness().await).into(),
            ),
            "/healthz" => self.health().await,
            "/readyz" => self.readiness().await,
            "/metrics" => self.metrics(),
            _ => text(
                404,
                "text/plain; charset=utf-8",
                "there are /, /metrics, /healthz and /readyz here\n".into(),
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
