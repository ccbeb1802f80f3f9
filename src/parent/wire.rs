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
use reqwest::{Method, Request, Response};
use url::Url;

use super::breaker::Sign;
use super::clients::Clients;
use super::config::Config;
use super::egress::Egress;
use super::error::Error;
use super::failure::Failure;
use super::gate::{Gate, Load};
use super::metrics::Series;
use super::origin::Origin;
use super::outgoing::Outgoing;
use crate::units::Clock;

/// RFC 9110, 15.5.8: of a plain request through a proxy; no registry says it.
const PROXY_WANTS_LOGIN: u16 = 407;

/// A body that nobody wants is read to its end only if it is no longer than this, for the sake
/// of the connection.
const DRAIN_BYTES: u64 = 16 * 1024;

/// Connections to one upstream and to where it sends us.
#[derive(Debug)]
pub(super) struct Wire {
    clients: Clients,
    clock: Clock,
    /// Whom errors name.
    pub(super) layer: String,
    home: Option<Origin>,
    series: Series,
    gate: Arc<Gate>,
    /// Requests that the upstream itself answered.
    heard: AtomicU64,
    /// Requests to the upstream itself that were given up before it answered.
    unanswered: AtomicU64,
    /// What `heard` was when somebody last waited in vain, and one more; 0 before the first time.
    let_down: AtomicU64,
    /// Whether the upstream itself answered last time; true before the first.
    up: AtomicBool,
}

impl Wire {
    pub(super) fn new(
        config: &Config,
        layer: &str,
        egress: Egress,
        series: Series,
        gate: Arc<Gate>,
        clock: Clock,
    ) -> Self {
        Self {
            clients: Clients::new(config, egress, clock.now()),
            clock,
            layer: layer.to_owned(),
            home: Origin::of(&config.url),
            series,
            gate,
            heard: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            let_down: AtomicU64::new(0),
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

    /// Somebody with something old to serve waited in vain.
    pub(super) fn let_down(&self) {
        self.let_down.store(self.heard() + 1, Ordering::Relaxed);
    }

    /// Whether that is so, and the upstream has answered nobody since.
    pub(super) fn is_silent(&self) -> bool {
        self.let_down.load(Ordering::Relaxed) == self.heard() + 1
    }

    /// Counts the requests to the upstream itself that were given up, or failed, before it answered.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Closes all connections that nobody uses.
    pub(super) async fn hang_up(&self) {
        self.clients.renew().await;
    }

    pub(super) fn is_home(&self, url: &Url) -> bool {
        Origin::of(url) == self.home
    }

    /// Sends one request without a body.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        load: Load,
    ) -> Result<Response, Error> {
        self.send_with(method, url, headers, load, &Outgoing::Nothing).await
    }

    /// Sends a form to a token service.
    pub(super) async fn post(&self, url: &Url, headers: &HeaderMap, form: &str) -> Result<Response, Error> {
        let form = Outgoing::Form(form.to_owned());
        self.send_with(&Method::POST, url, headers, Load::Question, &form).await
    }

    /// Sends one request with what it carries, and once more if a connection that had lain idle turns out to be dead or the
    /// other side says that it did not look at the request (GOAWAY, REFUSED_STREAM), which is safe for what may be done twice
    /// (RFC 9110, 9.2.2); and once more if TLS failed, so that no connection was made, and its files have changed. A POST whose connection broke may have used up a refresh token: it is not sent again.
    pub(super) async fn send_with(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        load: Load,
        body: &Outgoing,
    ) -> Result<Response, Error> {
        let is_home = self.is_home(url);
        let mut again = true;
        loop {
            let mut request = Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers.clone();
            *request.body_mut() = body.body(self.series.sent());
            let client = self.clients.pick(is_home, load, self.clock.now());
            let waiting = Waiting(is_home.then_some(&self.unanswered));
            let outcome = client.execute(request).await;
            if outcome.is_ok() {
                waiting.end();
            }
            match outcome {
                Ok(response) if response.status() == PROXY_WANTS_LOGIN => {
                    self.series.answered(PROXY_WANTS_LOGIN);
                    self.series.failed(Failure::Proxy);
                    return Err(Error::Unreachable {
                        layer: self.layer.clone(),
                        elsewhere: None,
                        failure: Failure::Proxy,
                        source: Arc::new(std::io::Error::other("the proxy wants another login")),
                    });
                }
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
                    let failure = Failure::of(&error);
                    let is_mended = failure.is_of_tls() && self.clients.look().await;
                    let is_safe = !matches!(*method, Method::POST | Method::PATCH) && body.is_short();
                    let is_passing = is_safe && !error.is_connect() && !error.is_timeout() && !failure.is_of_tls();
                    if again && (is_mended || is_passing) {
                        again = false;
                        continue;
                    }
                    self.series.failed(failure);
                    tracing::debug!(upstream = self.layer, %method, ?error, "upstream did not answer");
                    let is_told = is_home && failure != Failure::Address && !is_ours(&error);
                    let elsewhere = (!is_home).then(|| host(url));
                    let error = self.unreachable(failure, elsewhere, error);
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

    /// An answer that sends us where we do not go.
    pub(super) fn untrusted(&self, reason: &'static str) -> Error {
        tracing::warn!(upstream = self.layer, reason, "upstream not followed");
        self.series.failed(Failure::Redirect);
        Error::Untrusted {
            layer: self.layer.clone(),
            reason,
        }
    }

    /// Our own login was refused, or could not be had.
    pub(super) fn note_credentials(&self) {
        self.series.failed(Failure::Credentials);
    }

    /// The budget of a question ended before the answer came.
    pub(super) fn note_late(&self) {
        self.series.failed(Failure::Timeout);
    }

    fn unreachable(&self, failure: Failure, elsewhere: Option<String>, error: reqwest::Error) -> Error {
        if failure == Failure::Address {
            return Error::Untrusted {
                layer: self.layer.clone(),
                reason: "it sends us to a name that leads inside the network; if that is right, list the host in redirect_hosts",
            };
        }
        Error::Unreachable {
            layer: self.layer.clone(),
            elsewhere,
            failure,
            source: Arc::new(error),
        }
    }
}

/// Counts a request unless it is answered, also when whoever waits for it stops to.
struct Waiting<'a>(Option<&'a AtomicU64>);

impl Waiting<'_> {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0 {
            unanswered.fetch_add(1, Ordering::Relaxed);
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

/// What of a URL may be named: the rest of it may be signed.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// How many requests are allowed or left, as Docker Hub says it: `76;w=21600`.
fn allowance(headers: &HeaderMap, name: &str) -> Option<i64> {
    let written = headers.get(name)?.to_str().ok()?;
    written.split(';').next()?.trim().parse().ok()
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
