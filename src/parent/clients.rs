//! The HTTP clients of one upstream, made anew when the files behind their TLS change.
//!
//! Two of them: only the one for the upstream's own origin can show its certificate, and neither waits
//! for connections of the other. Connections are never shared between upstreams, so none is used under
//! another's identity.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use reqwest::Client;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tower::limit::ConcurrencyLimitLayer;

use super::config::Config;
use super::egress::Egress;
use super::tls;
use super::wire::builder;

/// Connections that are being made at a time by one client, handshakes included.
const CONNECTS: usize = 8;

/// The files are looked at so often, and whenever TLS fails.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Both clients, and what they are made of.
pub(super) struct Clients {
    made: Instant,
    /// When the files were last looked at every so often: ms since it was made.
    looked_ms: AtomicU64,
    current: Arc<ArcSwap<Pair>>,
    /// Held by the one look that runs, on a thread that may wait for a file system.
    files: Arc<Mutex<Files>>,
}

struct Pair {
    home: Client,
    elsewhere: Client,
}

/// What clients are made of, and what its files were when they were last read.
struct Files {
    config: Config,
    egress: Egress,
    stamps: Vec<Stamp>,
}

/// A file as the file system tells it from another: inode, size, time of change in s and ns.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Clients {
    pub(super) fn new(config: &Config, egress: Egress, now: Instant) -> Self {
        Self {
            made: now,
            looked_ms: AtomicU64::new(0),
            current: Arc::new(ArcSwap::from_pointee(Pair::new(config, &egress))),
            files: Arc::new(Mutex::new(Files {
                stamps: stamps(config),
                config: config.clone(),
                egress,
            })),
        }
    }

    /// The client for the upstream's own origin, or the one for any other. Waits for no file.
    pub(super) fn pick(&self, is_home: bool, now: Instant) -> Client {
        let now_ms = u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX);
        let since = now_ms.saturating_sub(self.looked_ms.load(Ordering::Relaxed));
        if u128::from(since) >= LOOK_EVERY.as_millis()
            && let Ok(files) = Arc::clone(&self.files).try_lock_owned()
        {
            self.looked_ms.store(now_ms, Ordering::Relaxed);
            let current = Arc::clone(&self.current);
            tokio::task::spawn_blocking(move || look(files, &current));
        }
        let pair = self.current.load();
        match is_home {
            true => pair.home.clone(),
            false => pair.elsewhere.clone(),
        }
    }

    /// Looks whether the files changed; true if there are other clients now.
    pub(super) async fn look(&self) -> bool {
        let files = Arc::clone(&self.files).lock_owned().await;
        let current = Arc::clone(&self.current);
        let looking = tokio::task::spawn_blocking(move || look(files, &current));
        looking.await.unwrap_or(false)
    }
}

fn look(mut files: OwnedMutexGuard<Files>, current: &ArcSwap<Pair>) -> bool {
    let stamps = stamps(&files.config);
    if stamps == files.stamps {
        return false;
    }
    let mut config = files.config.clone();
    if let Err(reason) = config.read_again() {
        // A pair that is being replaced is not one for a moment: the next look tells.
        tracing::warn!(reason, retry_s = LOOK_EVERY.as_secs(), "changed TLS files not taken");
        return false;
    }
    current.store(Arc::new(Pair::new(&config, &files.egress)));
    files.stamps = stamps;
    tracing::info!(upstream = config.host(), "changed TLS files taken");
    true
}

impl Pair {
    fn new(config: &Config, egress: &Egress) -> Self {
        let client = |identity| {
            let tls = tls::client(&config.authorities, identity);
            let mut builder = builder(tls)
                .connect_timeout(config.connect_timeout)
                .dns_resolver(Arc::new(egress.clone()))
                .connector_layer(ConcurrencyLimitLayer::new(CONNECTS));
            for proxy in config.proxies.made() {
                builder = builder.proxy(proxy);
            }
            builder
                .build()
                .expect("the TLS configuration is given whole, and nothing else can fail")
        };
        Self {
            home: client(config.identity.as_ref()),
            elsewhere: client(None),
        }
    }
}

/// Says nothing: a client's own words name its proxy's password.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

fn stamps(config: &Config) -> Vec<Stamp> {
    let identity = config.identity.as_ref();
    let files: [Option<&PathBuf>; 3] = [
        config.ca_file.as_ref(),
        identity.map(|identity| &identity.cert_file),
        identity.map(|identity| &identity.key_file),
    ];
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.into_iter().flatten().map(stamp).collect()
}
