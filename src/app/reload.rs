//! Settings that change while the node runs: all of a change, or nothing of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry as Metrics};
use sha2::{Digest as _, Sha256};

use crate::auth::Guard;
use crate::config::{self, Config};
use crate::listener::{Handshakes, Tls};
use crate::units::{Clock, Live, with_causes};
use crate::{admin, fetch, push, queue};

/// How often files that settings name are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Reads the settings anew, as they were read at the start.
pub type Load = Box<dyn Fn() -> Result<(Config, config::Places), config::Error> + Send + Sync>;

/// Puts new settings in force. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reload {
    shared: Arc<Shared>,
}

struct Shared {
    load: Load,
    /// What is in force. Held while that changes.
    current: Mutex<Config>,
    rooms: Rooms,
    clock: Clock,
    counted: Counted,
}

/// What can be told of new settings.
pub(super) struct Rooms {
    pub(super) guard: Guard,
    pub(super) admin: Live<admin::Config>,
    pub(super) admin_tls: Option<Tls>,
    /// `None`: plain HTTP.
    pub(super) handshakes: Option<Handshakes>,
    pub(super) limits: Live<fetch::Limits>,
    pub(super) push: Live<push::Config>,
    pub(super) queue: Live<queue::Config>,
}

struct Counted {
    reloads: IntCounterVec,
    certificate_ends: IntGauge,
}

impl Reload {
    pub(super) fn new(
        load: Load,
        current: Config,
        rooms: Rooms,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, prometheus::Error> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "wharf_reloads_total",
                "Settings and certificates that were read anew while the node ran",
            ),
            &["outcome"],
        )?;
        let certificate_ends = IntGauge::new(
            "wharf_certificate_expiry_seconds",
            "When the first of the certificates that are shown ends, in seconds since 1970; 0 without TLS",
        )?;
        metrics.register(Box::new(reloads.clone()))?;
        metrics.register(Box::new(certificate_ends.clone()))?;
        for outcome in ["done", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let reload = Self {
            shared: Arc::new(Shared {
                load,
                current: Mutex::new(current),
                rooms,
                clock,
                counted: Counted {
                    reloads,
                    certificate_ends,
                },
            }),
        };
        // It was read a moment ago; if it is broken by now, the next look says so.
        let read = reload.shared.current.lock().read_tls();
        if let Ok((Some(tls), _)) = read {
            reload.shared.counted.certificate(&tls);
        }
        Ok(reload)
    }

    /// Reads everything anew. Blocks for the files.
    ///
    /// # Errors
    ///
    /// In words: what is wrong, or what takes a restart. Nothing was changed then.
    pub(super) fn all(&self) -> Result<(), String> {
        let mut current = self.shared.current.lock();
        let outcome = self.shared.read_anew(&current);
        self.shared.settle(outcome, &mut current)
    }

    /// Looks at the files that settings name, for as long as the node runs; what has changed in them holds at once.
    pub(super) async fn watch(self) {
        let mut seen = self.look().await;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.look().await;
            if now == seen {
                continue;
            }
            seen = now;
            let this = self.clone();
            let _ = tokio::task::spawn_blocking(move || this.files()).await;
        }
    }

    async fn look(&self) -> Vec<(PathBuf, Option<[u8; 32]>)> {
        let this = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let files = this.shared.current.lock().files();
            files
                .into_iter()
                .map(|path| (hash(&path), path))
                .map(|(hash, path)| (path, hash))
                .collect()
        });
        looking.await.unwrap_or_default()
    }

    /// Reads the files anew that settings name, and not the settings.
    fn files(&self) {
        let mut current = self.shared.current.lock();
        let outcome = self.shared.read_files(&current);
        let _ = self.shared.settle(outcome, &mut current);
    }
}

/// What is to be in force.
struct Next {
    config: Config,
    tls: Option<Tls>,
    admin_tls: Option<Tls>,
}

impl Shared {
    fn read_anew(&self, current: &Config) -> Result<Next, String> {
        let (config, places) = (self.load)().map_err(|error| error.to_string())?;
        let findings = config.check(&places, &self.clock);
        if !findings.wrong.is_empty() {
            return Err(config::Error::of(&places, findings.wrong).to_string());
        }
        let fixed = current.takes_restart(&config);
        if !fixed.is_empty() {
            return Err(format!(
                "{} changed, which takes a restart; nothing was changed",
                fixed.join(", ")
            ));
        }
        let (tls, admin_tls) = config.read_tls()?;
        if tls.is_some() != self.rooms.handshakes.is_some() {
            return Err(
                "listen.cert_file changed from plain HTTP to TLS or back, which takes a restart; nothing was changed"
                    .to_owned(),
            );
        }
        Ok(Next { config, tls, admin_tls })
    }

    fn read_files(&self, current: &Config) -> Result<Next, String> {
        let (tls, admin_tls) = current.read_tls()?;
        let config = Config {
            auth: current.auth.read_anew()?,
            admin: current.admin.read_anew()?,
            ..current.clone()
        };
        Ok(Next { config, tls, admin_tls })
    }

    /// Puts it in force, or says why not.
    fn settle(&self, outcome: Result<Next, String>, current: &mut Config) -> Result<(), String> {
        let Next { config, tls, admin_tls } = outcome.inspect_err(|reason| {
            self.counted.reloads.with_label_values(&["refused"]).inc();
            tracing::error!(reason, "the settings could not be read anew; those before go on");
        })?;
        let rooms = &self.rooms;
        if let (Some(handshakes), Some(tls)) = (&rooms.handshakes, &tls) {
            handshakes.replace(tls);
            self.counted.certificate(tls);
        }
        if let (Some(shown), Some(tls)) = (&rooms.admin_tls, admin_tls) {
            // pingora makes these handshakes, by what it was told at the start.
            if !shown.show(tls) {
                tracing::error!(
                    "the authorities in [admin] client_ca_file changed, which takes a restart: until then the old ones count"
                );
            }
        }
        rooms.admin.set(config.admin.clone());
        rooms.guard.reconfigure(config.auth.clone());
        rooms.limits.set(config.limits.clone());
        rooms.push.set(config.push.clone());
        rooms.queue.set(config.queue.clone());
        *current = config;
        self.counted.reloads.with_label_values(&["done"]).inc();
        tracing::info!("the settings were read anew");
        Ok(())
    }
}

impl Counted {
    fn certificate(&self, tls: &Tls) {
        let ends = tls.ends().and_then(|ends| i64::try_from(ends).ok());
        self.certificate_ends.set(ends.unwrap_or_default());
    }
}

fn hash(path: &Path) -> Option<[u8; 32]> {
    Some(Sha256::digest(std::fs::read(path).ok()?).into())
}

impl Config {
    /// Certificates of the registry port and of the operators'.
    fn read_tls(&self) -> Result<(Option<Tls>, Option<Tls>), String> {
        let tls = Tls::read(&self.listen.tls, self.listen.http2).map_err(|error| with_causes(&error))?;
        let admin = Tls::read(&self.admin.tls, false).map_err(|error| with_causes(&error))?;
        Ok((tls, admin))
    }

    /// Files that settings name, and whose content is looked at now and then.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.listen.tls.paths();
        files.extend(self.admin.paths());
        files.extend(self.auth.files().map(Path::to_owned));
        files.sort();
        files
    }
}

/// What the admin port asks for it by.
pub(super) fn asked(reload: Reload) -> admin::Reload {
    Arc::new(move || reload.all())
}
