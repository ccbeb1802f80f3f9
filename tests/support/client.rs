//! A client that sees what really came over the wire: whole or broken, to the byte, at its own pace.
//!
//! One connection a request unless a [`Connection`] is kept. No redirects, no retries, no decoding but of chunks.

mod reply;
mod request;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustls::ClientConfig;

use crate::support::authority::{Authority, install_provider};

pub use reply::Reply;
pub use request::Request;
pub use wire::{Connection, Open};

/// Where to ask.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    /// Said with every request.
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn of(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            headers: Vec::new(),
        }
    }

    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self {
            address,
            tls: Some(config),
            headers: Vec::new(),
        }
    }

    /// The same, as somebody.
    pub fn saying(self, authorization: &str) -> Self {
        self.with("Authorization", authorization)
    }

    /// The same, with a field more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, with a name and a password.
    pub fn logged_in(self, name: &str, password: &str) -> Self {
        self.saying(&basic(name, password))
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send(Request::get(target)).await
    }

    pub async fn head(&self, target: &str) -> Reply {
        self.send(Request::head(target)).await
    }

    /// `GET` with `Range: bytes=<range>`.
    pub async fn range(&self, target: &str, range: &str) -> Reply {
        self.send(Request::get(target).range(range)).await
    }

    /// Sends and reads to the end, whole or broken; then the other side must close, with nothing after the reply.
    pub async fn send(&self, request: Request) -> Reply {
        self.open(request.header("Connection", "close")).await.last().await
    }

    /// Sends and reads the head of the answer alone.
    pub async fn open(&self, request: Request) -> Open {
        let said = self.headers.iter();
        let request = said.fold(request, |request, (name, value)| request.header(name, value));
        self.connect().await.open(request).await
    }

    pub async fn connect(&self) -> Connection {
        Connection::to(self.address, self.tls.clone()).await
    }
}

/// `Authorization` of a name and a password.
pub fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// A well-known client, where the wire does not matter or is HTTP/2.
pub fn reqwest_trusting(authority: Option<&Authority>) -> reqwest::Client {
    install_provider();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if let Some(authority) = authority {
        let ca = reqwest::Certificate::from_pem(authority.ca_pem()).expect("our CA");
        builder = builder.tls_certs_only([ca]);
    }
    builder.build().expect("a client")
}

/// `target` of a blob.
pub fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// `target` of a manifest.
pub fn manifest(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// What became of a body that was compared while it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compared {
    pub bytes: u64,
    pub equal: bool,
    pub complete: bool,
}

impl Compared {
    /// All of `expected` came, and the reply ended as announced.
    pub fn is_whole(self, expected: &Bytes) -> bool {
        self.equal && self.complete && self.bytes == expected.len() as u64
    }
}
