//! The HTTP clients of one upstream, made anew when the files behind their TLS change.
//!
//! Two of them: only the one for the upstream's own origin can show its certificate. Connections are
//! never shared between upstreams, so none is used under another's identity.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use reqwest::Client;
use tower::limit::ConcurrencyLimitLayer;

use super::config::Config;
use super::egress::Egress;
use super::tls;
use super::wire::builder;

/// Connections that are being made at a time, handshakes included.
const CONNECTS: usize = 8;

/// The files are looked at so often, and whenever TLS fails.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Both clients, and what they are made of.
pub(super) struct Clients {
    config: Config,
    egress: Egress,
    current: ArcSwap<Pair>,
    looked: Mutex<Looked>,
}

struct Pair {
    home: Client,
    elsewhere: Client,
}

/// When the files were last looked at, and what they were when they were last read.
struct Looked {
    at: Instant,
    stamps: Vec<Stamp>,
}

/// A file as the file system tells it from another: inode, size, time of change in s and ns.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Clients {
    pub(super) fn new(config: &Config, egress: Egress, now: Instant) -> Self {
        Self {
            current: ArcSwap::from_pointee(Pair::new(config, &egress)),
            looked: Mutex::new(Looked {
                at: now,
                stamps: stamps(config),
            }),
            config: config.clone(),
            egress,
        }
    }

    /// The client for the upstream's own origin, or the one for any other.
    pub(super) fn pick(&self, is_home: bool, now: Instant) -> Client {
        let is_due = now.saturating_duration_since(self.looked.lock().at) >= LOOK_EVERY;
        if is_due {
            self.look(now);
        }
        let pair = self.current.load();
        match is_home {
            true => pair.home.clone(),
            false => pair.elsewhere.clone(),
        }
    }

    /// Looks whether the files changed; true if there are other clients now.
    pub(super) fn look(&self, now: Instant) -> bool {
        let mut looked = self.looked.lock();
        looked.at = now;
        let stamps = stamps(&self.config);
        if stamps == looked.stamps {
            return false;
        }
        let mut config = self.config.clone();
        if let Err(reason) = config.read_again() {
            // A pair that is being replaced is not one for a moment: the next look tells.
            tracing::warn!(reason, retry_s = LOOK_EVERY.as_secs(), "changed TLS files not taken");
            return false;
        }
        self.current.store(Arc::new(Pair::new(&config, &self.egress)));
        looked.stamps = stamps;
        tracing::info!(upstream = config.host(), "changed TLS files taken");
        true
    }
}

impl Pair {
    fn new(config: &Config, egress: &Egress) -> Self {
        let client = |identity| {
            let tls = tls::client(&config.authorities, identity);
            let mut builder = builder(tls)
                .connect_timeout(config.connect_timeout)
                .read_timeout(config.read_timeout)
                .dns_resolver(Arc::new(egress.clone()))
                .connector_layer(ConcurrencyLimitLayer::new(CONNECTS));
            for proxy in config.proxies.made() {
                builder = builder.proxy(proxy);
            }
            builder
                .build()
                .expect("the TLS configuration is given whole, and nothing else can fail")
        };
        let elsewhere = client(None);
        Self {
            home: match &config.identity {
                Some(identity) => client(Some(identity)),
                None => elsewhere.clone(),
            },
            elsewhere,
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
