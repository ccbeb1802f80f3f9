//! What every HTTP client of this room has in common.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, retry};
use rustls::ClientConfig;

/// How this program calls itself.
const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// One transfer may fill a long fat link: bytes under way before the reader takes them. A Gbit/s over 33 ms.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Below what servers and middle boxes usually grant, so that we hang up first.
const IDLE_AT_MOST: Duration = Duration::from_secs(30);

/// For answers of which `unread` may lie unread at once over HTTP/2. Our own redirects, our own retries, no proxy from
/// the environment, no compression. Connections to IPv6 and IPv4 addresses are raced by the
/// connector, the other family 300 ms behind the first (RFC 8305).
pub(super) fn builder(tls: ClientConfig, unread: usize) -> reqwest::ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .pool_idle_timeout(IDLE_AT_MOST)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(connection_window(unread))
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

/// Bytes under way over one connection of HTTP/2, where so many bodies may lie unread without keeping others from theirs.
fn connection_window(bodies: usize) -> u32 {
    /// RFC 9113, 6.9.1.
    const MOST: u32 = i32::MAX as u32;
    u32::try_from(bodies).map_or(MOST, |bodies| bodies.saturating_mul(STREAM_WINDOW_BYTES).min(MOST))
}
