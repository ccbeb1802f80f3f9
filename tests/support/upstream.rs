//! A registry that can be told to lie: the parent of the node under test.
//!
//! It is honest until a [`Fault`] says otherwise, writes down every request, and counts each byte of a body that the
//! kernel took. It can be stopped (its port then refuses) and started again on the same port. It serves pulls; told so, it
//! takes pushes too (`pushes.rs`).

mod arrival;
mod fault;
mod framing;
mod h2;
mod intake;
mod ledger;
mod pushes;
mod registry;
mod target;
mod tokens;
mod uploads;
mod wire;
mod writing;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::authority::Authority;
use crate::support::content::{Image, Manifest, sha256};
use crate::support::ports::{Family, free, listen_again};
use crate::support::transport;

pub use arrival::Arrival;
pub use fault::{Cut, Fault, Gate, Length, RangeRule};
pub use ledger::Seen;
pub use pushes::Locations;
pub use registry::Paging;
pub use target::What;
pub use tokens::{Access, Book, OAuth, basic};
pub use uploads::Broken;

use ledger::Ledger;
use registry::{Registry, Reply};
use wire::Wire;

/// The parent. Dropping it stops it.
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    serving: Option<JoinHandle<()>>,
}

/// What every connection of one parent sees.
struct Shared {
    registry: Mutex<Registry>,
    faults: Mutex<Vec<Fault>>,
    access: Mutex<Access>,
    book: Mutex<Option<Arc<Book>>>,
    ledger: Ledger,
}

impl Upstream {
    /// Over what all speak, on 127.0.0.1.
    pub async fn start() -> Self {
        Self::on(Family::V4).await
    }

    pub async fn on(family: Family) -> Self {
        let tls = transport::authority().map(|authority| authority.server(&[b"http/1.1"]).into());
        Self::begun(family, tls).await
    }

    /// Over `https`, HTTP/1.1 alone.
    pub async fn tls(authority: &Authority) -> Self {
        Self::begun(Family::V4, Some(authority.server(&[b"http/1.1"]).into())).await
    }

    /// Over `https`, HTTP/2 alone.
    pub async fn h2(authority: &Authority) -> Self {
        Self::begun(Family::V4, Some(authority.server(&[b"h2"]).into())).await
    }

    /// Over `https` with this leaf, HTTP/1.1 alone; over `http` without one.
    pub async fn over(family: Family, authority: Option<&Authority>) -> Self {
        Self::begun(
            family,
            authority.map(|authority| authority.server(&[b"http/1.1"]).into()),
        )
        .await
    }

    /// Over `https` as `server` says.
    pub async fn serving(server: Arc<rustls::ServerConfig>) -> Self {
        Self::begun(Family::V4, Some(server.into())).await
    }

    /// Starts again with what `server` says; connections end.
    pub async fn present(&mut self, server: Arc<rustls::ServerConfig>) {
        self.stop().await;
        self.tls = Some(server.into());
        self.start_again().await;
    }

    async fn begun(family: Family, tls: Option<TlsAcceptor>) -> Self {
        let shared = Arc::new(Shared {
            registry: Mutex::new(Registry::with_referrers()),
            faults: Mutex::default(),
            access: Mutex::default(),
            book: Mutex::default(),
            ledger: Ledger::default(),
        });
        let mut upstream = Self {
            shared,
            address: free(family),
            tls,
            serving: None,
        };
        upstream.start_again().await;
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Closes every connection and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Ends with "cancelled", which is what was asked for.
            let _ = serving.await;
        }
    }

    /// Listens again on the address it had, with all it knew.
    pub async fn start_again(&mut self) {
        let listener = listen_again(self.address).await;
        self.serving = Some(tokio::spawn(accept(
            listener,
            self.tls.clone(),
            Arc::clone(&self.shared),
        )));
    }
}

/// What it has.
impl Upstream {
    pub fn blob(&self, repository: &str, bytes: &Bytes) -> String {
        let digest = sha256(bytes);
        self.blob_as(repository, &digest, bytes);
        digest
    }

    /// Stores `bytes` under any name, also a wrong one.
    pub fn blob_as(&self, repository: &str, digest: &str, bytes: &Bytes) {
        self.shared.registry.lock().put_blob(repository, digest, bytes);
    }

    pub fn without_blob(&self, repository: &str, digest: &str) {
        self.shared.registry.lock().drop_blob(repository, digest);
    }

    pub fn manifest(&self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        self.shared.registry.lock().put_manifest(repository, tag, manifest);
    }

    /// Stores all blobs of the image and tags its manifest.
    pub fn image(&self, repository: &str, tag: &str, image: &Image) {
        self.blob_as(repository, &image.config_digest(), &image.config);
        for (at, layer) in image.layers.iter().enumerate() {
            self.blob_as(repository, &image.layer(at), layer);
        }
        self.manifest(repository, Some(tag), &image.manifest);
    }

    /// A new image with layers of these sizes, stored and tagged.
    pub fn new_image(&self, repository: &str, tag: &str, layer_sizes: &[usize]) -> Image {
        let image = Image::of(layer_sizes);
        self.image(repository, tag, &image);
        image
    }

    pub fn without_tag(&self, repository: &str, tag: &str) {
        self.shared.registry.lock().drop_tag(repository, tag);
    }

    pub fn without_manifest(&self, repository: &str, digest: &str) {
        self.shared.registry.lock().drop_manifest(repository, digest);
    }

    pub fn paging(&self, paging: Paging) {
        self.shared.registry.lock().paging = paging;
    }

    pub fn referrers(&self, supported: bool) {
        self.shared.registry.lock().referrers = supported;
    }

    /// It begins no upload.
    pub fn declines_pushes(&self, declines: bool) {
        self.shared.registry.lock().declines_pushes = declines;
    }
}

/// What it does otherwise than an honest registry.
impl Upstream {
    pub fn fault(&self, fault: Fault) {
        let mut faults = self.shared.faults.lock();
        faults.retain(|fault| !fault.is_spent());
        faults.push(fault);
    }

    /// Honest from now on.
    pub fn without_faults(&self) {
        self.shared.faults.lock().clear();
    }

    pub fn access(&self, access: Access) {
        *self.shared.access.lock() = access;
    }

    /// Gives out the tokens of `book` at `/token`.
    pub fn token_service(&self, book: &Arc<Book>) {
        *self.shared.book.lock() = Some(Arc::clone(book));
    }

    /// Demands tokens of `book`, given out by itself.
    pub fn bearer(&self, book: &Arc<Book>) {
        self.token_service(book);
        self.access(Access::Bearer {
            book: Arc::clone(book),
            realm: format!("{}/token", self.url()),
        });
    }
}

/// What it was asked.
impl Upstream {
    /// All requests of `method` (any, when that is empty) whose path contains `path_part`.
    pub fn seen(&self, method: &str, path_part: &str) -> Vec<Seen> {
        self.shared
            .ledger
            .all()
            .into_iter()
            .filter(|seen| seen.matches(method, path_part))
            .collect()
    }

    pub fn count(&self, method: &str, path_part: &str) -> usize {
        self.seen(method, path_part).len()
    }

    /// Requests other than the ping, which a node may send when it likes.
    pub fn asked(&self) -> usize {
        self.seen("", "").iter().filter(|seen| seen.path != "/v2/").count()
    }

    /// Bytes of bodies sent for paths that contain `path_part`.
    pub fn body_bytes(&self, path_part: &str) -> u64 {
        self.seen("", path_part).iter().map(Seen::body_bytes).sum()
    }

    pub fn connections(&self) -> u64 {
        self.shared.ledger.connections()
    }

    pub fn forget(&self) {
        self.shared.ledger.forget();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Shared {
    /// Whether `seen` is refused whatever it brings, and how to spoil its answer.
    fn judge(&self, seen: &Seen) -> (Option<Reply>, Fault) {
        let honest = Fault::any("");
        let takes_pushes = self.registry.lock().manners.takes_pushes;
        let needs = match takes_pushes {
            true => target::needs(seen),
            false => target::needs_of_a_pull(seen),
        };
        if seen.is_content()
            && let Some(refusal) = self.access.lock().refusal(seen, &needs)
        {
            return (Some(refusal), honest);
        }
        let fault = self
            .faults
            .lock()
            .iter()
            .find(|fault| fault.takes(seen))
            .cloned()
            .unwrap_or(honest);
        let refused = fault
            .status
            .filter(|status| *status >= 400 && takes_pushes && seen.is_write());
        (refused.map(Reply::empty), fault)
    }

    /// Does what `seen` wants and answers it, honestly but for what is kept.
    fn carry_out(&self, seen: &Seen, fault: &Fault, body: Bytes) -> Reply {
        let book = self.book.lock().clone().filter(|_| seen.path == "/token");
        if let Some(book) = book {
            return book.answer(seen);
        }
        let mut registry = self.registry.lock();
        if registry.manners.takes_pushes
            && let Some(reply) = self.write(&mut registry, seen, fault, body)
        {
            return reply;
        }
        registry.answer(seen, fault.range)
    }
}

fn spoiled(mut reply: Reply, fault: &Fault) -> Reply {
    if let Some(status) = fault.status {
        reply = match status {
            400.. => Reply::error(status, fault.code.unwrap_or("UNKNOWN"), "the script says so"),
            _ => Reply { status, ..reply },
        };
    }
    if let Some(body) = &fault.body {
        reply.body = body.clone();
    }
    if let Some(offset) = fault.flip_at {
        reply.body = flipped(&reply, offset);
    }
    let replaced = |name: &str| {
        let given = fault.headers.iter().map(|(given, _)| given).chain(&fault.without);
        given.into_iter().any(|given| given.eq_ignore_ascii_case(name))
    };
    reply.headers.retain(|(name, _)| !replaced(name));
    reply.headers.extend(fault.headers.iter().cloned());
    reply
}

/// The body with one bit of the object's byte at `offset` changed, if that byte is in it.
fn flipped(reply: &Reply, offset: u64) -> Bytes {
    let content_range = reply.headers.iter().find(|(name, _)| name == "Content-Range");
    let first: u64 = content_range
        .and_then(|(_, value)| value.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok())
        .unwrap_or(0);
    let mut body = reply.body.to_vec();
    if let Some(byte) = offset.checked_sub(first).and_then(|at| body.get_mut(at as usize)) {
        *byte ^= 1;
    }
    body.into()
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Owned by this task: when it is aborted, every connection goes with it.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        shared.ledger.connected();
        connections.spawn(serve(tcp, tls.clone(), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Small answers in two writes must not wait for an acknowledgement.
    let _ = tcp.set_nodelay(true);
    let Some(tls) = tls else {
        return wire::converse(shared, Wire::Plain(tcp)).await;
    };
    let Ok(stream) = tls.accept(tcp).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        h2::converse(shared, stream).await;
    } else {
        wire::converse(shared, Wire::Tls(Box::new(stream))).await;
    }
}
