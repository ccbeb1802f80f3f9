//! The registry port: pingora's sessions to requests, replies to bytes, one log line per request.
//!
//! Decides alone how a body leaves: by sendfile where the socket is plain HTTP/1.1, else in large reads.

mod bound;
mod broken;
mod certificate;
mod client;
mod config;
mod connections;
mod door;
mod framing;
mod incoming;
mod kernel;
mod log;
mod pace;
mod porch;
mod prompt;
mod refused;
mod send;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::services::listening::Service;

pub use config::{ClientAuth, Config, TlsFiles};
pub use connections::{Connections, raise_descriptor_limit};
pub use log::{Format, RequestLog};
pub use refused::Refused;
pub use tls::{Error as TlsError, Handshakes, Tls};

use self::bound::Bound;
use self::door::Door;
use self::porch::Porch;
use crate::oci::Registry;
use crate::serve::Serve;

/// One small answer fits into this, header and body: one send instead of two.
const BUFFER: usize = 16 << 10;

/// What pingora has to say of its own is an error at most: clients that go are no news, not even before they spoke HTTP/2,
/// which it calls an error. For a filter of events.
pub const QUIET: &str =
    "pingora_core::services=error,pingora_core::apps=off,pingora_core::apps::http_app=error,h2=error";

/// What the registry port is made of.
pub struct Parts {
    /// The answers; swapped whole on a reload.
    pub serve: Arc<ArcSwap<Serve>>,
    /// Where to listen, and for which upstream if the address is bound to one.
    pub addresses: Vec<(SocketAddr, Option<Registry>)>,
    /// Plain HTTP without.
    pub handshakes: Option<Handshakes>,
    /// Limits.
    pub config: Config,
    /// How many connections, and whether they drain.
    pub connections: Connections,
    /// What limits refuse.
    pub refused: Refused,
    /// One line per request.
    pub log: RequestLog,
}

/// The registry port as a service for pingora's server.
pub fn service(parts: Parts) -> Service<Porch> {
    let bound = Bound::new(&parts.addresses);
    // What lay in a buffer below TLS would stay there while more of the body is waited for: pingora flushes at its
    // end alone. Plain bodies go past the buffer.
    let buffer = L4BufferSettings::new(BUFFER, if parts.handshakes.is_some() { 0 } else { BUFFER });
    let door = Door::new(
        parts.serve,
        bound,
        parts.config,
        parts.connections.clone(),
        parts.refused,
        parts.log,
    );
    let mut service = Service::new("registry".to_owned(), Porch::new(door, parts.handshakes));
    for (address, _) in &parts.addresses {
        // Without TLS: pingora would give a handshake a minute, so the porch makes it.
        let listener = ListenerConfig::tcp(address.to_string()).l4_buffer(buffer);
        service.add_listener(listener);
    }
    service.set_connection_filter(Arc::new(parts.connections));
    service
}
