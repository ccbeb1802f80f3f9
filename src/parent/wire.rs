//! The wire to one upstream: every request for its sake leaves here and is counted here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Response, retry};
use rustls_pki_types::CertificateDer;
use tower::limit::ConcurrencyLimitLayer;
use url::Url;

use super::breaker::Sign;
use super::config::Config;
use super::egress::Egress;
use super::error::Error;
use super::gate::Gate;
use super::metrics::Series;
use super::origin::Origin;
use super::tls;

/// How this program calls itself.
pub(super) const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// One transfer may fill a long fat link: bytes under way before the reader takes them.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Connections that are being made at a time, handshakes included.
const CONNECTS: usize = 8;

/// Below what servers and middle boxes usually grant, so that we hang up first.
const IDLE_AT_MOST: Duration = Duration::from_secs(30);

/// A body that nobody wants is read to its end only if it is no longer than this, for the sake
/// of the connection.
const DRAIN_BYTES: u64 = 16 * 1024;

/// Connections to one upstream and to where it sends us.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    /// Whom errors name.
    pub(super) layer: String,
    home: Option<Origin>,
    series: Series,
    gate: Arc<Gate>,
    /// Requests that the upstream itself answered.
    heard: AtomicU64,
    /// Whether the upstream itself answered last time; true before the first.
    up: AtomicBool,
}

impl Wire {
    pub(super) fn new(config: &Config, layer: String, egress: Egress, series: Series, gate: Arc<Gate>) -> Self {
        let client = builder(&config.authorities)
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .dns_resolver(Arc::new(egress))
            .connector_layer(ConcurrencyLimitLayer::new(CONNECTS))
            .build()
            .expect("the TLS configuration is given whole, and nothing else can fail");
        Self {
            client,
            layer,
            home: Origin::of(&config.url),
            series,
            gate,
            heard: AtomicU64::new(0),
            up: AtomicBool::new(true),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Counts the requests that the upstream itself answered.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(super) fn is_home(&self, url: &Url) -> bool {
        Origin::of(url) == self.home
    }

    /// Sends one request without a body, and again if a connection that had lain idle turns out
    /// to be dead, which is safe for what only reads (RFC 9110, 9.2.2).
    pub(super) async fn send(&self, method: &Method, url: &Url, headers: &HeaderMap) -> Result<Response, Error> {
        let is_home = self.is_home(url);
        let mut again = true;
        loop {
            let mut request = Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers.clone();
            match self.client.execute(request).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    tracing::debug!(upstream = self.layer, %method, status, "upstream answered");
                    self.series.answered(status);
                    if is_home {
                        self.heard.fetch_add(1, Ordering::Relaxed);
                        self.note(true);
                        if let Some(left) = allowance(response.headers(), "ratelimit-remaining") {
                            self.series.allows(left);
                        }
                        if let Some(limit) = allowance(response.headers(), "ratelimit-limit") {
                            self.series.limits_to(limit);
                        }
                    }
                    return Ok(response);
                }
                Err(error) => {
                    self.series.unanswered();
                    let error = error.without_url();
                    if again && !error.is_connect() && !error.is_timeout() {
                        again = false;
                        continue;
                    }
                    tracing::debug!(upstream = self.layer, %method, ?error, "upstream did not answer");
                    let is_told = is_home && !is_ours(&error);
                    let error = self.unreachable(error);
                    if is_told {
                        self.note(false);
                        self.gate.observe(match error.is_broken() {
                            true => Sign::Failing(error.clone()),
                            false => Sign::Away(error.clone()),
                        });
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Remembers whether the upstream answers, and says so when that changes.
    pub(super) fn note(&self, up: bool) {
        self.series.is_up(up);
        if self.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        if up {
            tracing::info!(upstream = self.layer, "upstream answers again");
        } else {
            tracing::warn!(upstream = self.layer, "upstream does not answer");
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        Error::Unreachable {
            layer: self.layer.clone(),
            source: Arc::new(error),
        }
    }
}

/// Whether the fault is this process's and says nothing of the upstream: no descriptor or memory is left.
fn is_ours(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
        .any(|number| matches!(number, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// How many requests are allowed or left, as Docker Hub says it: `76;w=21600`.
fn allowance(headers: &HeaderMap, name: &str) -> Option<i64> {
    let written = headers.get(name)?.to_str().ok()?;
    written.split(';').next()?.trim().parse().ok()
}

/// What every client of this room has in common: our own redirects, our own retries, no proxy from
/// the environment, no compression. Connections to IPv6 and IPv4 addresses are raced by the
/// connector, the other family 300 ms behind the first (RFC 8305).
pub(super) fn builder(authorities: &[CertificateDer<'static>]) -> reqwest::ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls::client(authorities))
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .pool_idle_timeout(IDLE_AT_MOST)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

/// Reads the short body of an answer that is passed over, so that its connection can be used
/// again; what is long or slow is hung up on.
pub(super) async fn drain(mut response: Response) {
    if response.content_length().is_none_or(|length| length > DRAIN_BYTES) {
        return;
    }
    let all = async { while let Ok(Some(_)) = response.chunk().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
}

/// The first `limit` bytes of a body, and whether that is all; `None` if it broke off.
pub(super) async fn head_of(response: &mut Response, limit: usize) -> Option<(Bytes, bool)> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                body.extend_from_slice(&chunk[..limit - body.len()]);
                return Some((body.into(), false));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Some((body.into(), true)),
            Err(_) => return None,
        }
    }
}
