//! The HTTP clients of one upstream, made anew when the files behind their TLS change.
//!
//! Three of them: only those for the upstream's own origin can show its certificate, and none waits for connections of
//! another. Blobs have one of their own: over HTTP/2 all of a client's answers share one connection and its window, which
//! bodies that wait for slow readers may fill. Connections are never shared between upstreams, so none is used under
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

use super::client::builder;
use super::config::Config;
use super::egress::Egress;
use super::gate::{Limits, Load};
use super::tls;

/// Connections that are being made at a time by one client, handshakes included.
const CONNECTS: usize = 8;

/// The files are looked at so often, and whenever TLS fails.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The clients, and what they are made of.
pub(super) struct Clients {
    made: Instant,
    /// When the files were last looked at every so often: ms since it was made.
    looked_ms: AtomicU64,
    current: Arc<ArcSwap<Made>>,
    /// Held by the one look that runs, on a thread that may wait for a file system.
    files: Arc<Mutex<Files>>,
}

struct Made {
    /// For questions to the upstream's own origin.
    questions: Client,
    /// For blobs of it.
    blobs: Client,
    /// For any other origin.
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
            current: Arc::new(ArcSwap::from_pointee(Made::new(config, &egress))),
            files: Arc::new(Mutex::new(Files {
                stamps: stamps(config),
                config: config.clone(),
                egress,
            })),
        }
    }

    /// The client for such a load of the upstream's own origin, or the one for any other. Waits for no file.
    pub(super) fn pick(&self, is_home: bool, load: Load, now: Instant) -> Client {
        let now_ms = u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX);
        let since = now_ms.saturating_sub(self.looked_ms.load(Ordering::Relaxed));
        if u128::from(since) >= LOOK_EVERY.as_millis()
            && let Ok(files) = Arc::clone(&self.files).try_lock_owned()
        {
            self.looked_ms.store(now_ms, Ordering::Relaxed);
            let current = Arc::clone(&self.current);
            tokio::task::spawn_blocking(move || look(files, &current));
        }
        let made = self.current.load();
        match (is_home, load) {
            (true, Load::Question) => made.questions.clone(),
            (true, Load::Transfer | Load::Part | Load::Upload) => made.blobs.clone(),
            (false, _) => made.elsewhere.clone(),
        }
    }

    /// Has idle connections closed now, and those in use when they are no longer.
    pub(super) async fn renew(&self) {
        let files = self.files.lock().await;
        let made = Made::new(&files.config, &files.egress);
        self.current.store(Arc::new(made));
    }

    /// Looks whether the files changed; true if there are other clients now.
    pub(super) async fn look(&self) -> bool {
        let files = Arc::clone(&self.files).lock_owned().await;
        let current = Arc::clone(&self.current);
        let looking = tokio::task::spawn_blocking(move || look(files, &current));
        looking.await.unwrap_or(false)
    }
}

fn look(mut files: OwnedMutexGuard<Files>, current: &ArcSwap<Made>) -> bool {
    let stamps = stamps(&files.config);
    if stamps == files.stamps {
        return false;
    }
    let mut config = files.config.clone();
    if let Err(reason) = config.read_again() {
        // A pair of files that is being replaced is not one for a moment: the next look tells.
        tracing::warn!(reason, retry_s = LOOK_EVERY.as_secs(), "changed TLS files not taken");
        return false;
    }
    current.store(Arc::new(Made::new(&config, &files.egress)));
    files.stamps = stamps;
    tracing::info!(upstream = config.host(), "changed TLS files taken");
    files.config = config;
    true
}

impl Made {
    fn new(config: &Config, egress: &Egress) -> Self {
        let unread = Limits::of(config).unread();
        let client = |identity| {
            let tls = tls::client(&config.authorities, identity);
            let mut builder = builder(tls, unread)
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
            questions: client(config.identity.as_ref()),
            blobs: client(config.identity.as_ref()),
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
