//! Settings that change while the node runs: all of a change, or nothing of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry as Metrics};
use sha2::{Digest as _, Sha256};

use crate::auth::Guard;
use crate::config::{self, Config};
use crate::events::{Audit, Deed};
use crate::listener::{Handshakes, Tls};
use crate::oci::Registry;
use crate::units::{Clock, Live, with_causes};
use crate::{admin, fetch, parent, push, queue, sync};

/// How often files that settings name are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// For so long a file that changed has to stay as it is before it is read: whoever writes it may be in the middle.
const STILL: Duration = Duration::from_millis(500);

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
    audit: Audit,
    clock: Clock,
    counted: Counted,
}

/// Who had it read anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// An operator at the admin port, which puts that on record itself.
    Asked,
    /// SIGHUP.
    Signal,
    /// A file that the settings name changed.
    File,
}

/// What the files that settings name hold: a hash of each, or nothing of what cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Look(Vec<(PathBuf, Option<[u8; 32]>)>);

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
    pub(super) sync: Live<Vec<sync::Rule>>,
    pub(super) schedule: Live<parent::Schedule>,
    /// By the upstream's name.
    pub(super) bandwidth: HashMap<Registry, Live<parent::Bandwidth>>,
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
        audit: Audit,
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
                audit,
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

    /// Reads everything anew, as it is at this moment. Blocks for the files.
    ///
    /// # Errors
    ///
    /// In words: what is wrong, or what takes a restart. Nothing was changed then.
    pub(super) fn all(&self, cause: Cause) -> Result<(), String> {
        let mut current = self.shared.current.lock();
        let outcome = self.shared.read_anew(&current);
        self.shared.settle(outcome, &mut current, cause)
    }

    /// Looks at the files that settings name, for as long as the node runs; what has changed in them holds within seconds. `read`: what
    /// they held before certificates were read.
    pub(super) async fn watch(self, read: Look) {
        let this = self.clone();
        let is_read = tokio::task::spawn_blocking(move || this.shared.is_read()).await;
        // Passwords were read with the settings, before that.
        let mut seen = is_read.unwrap_or_default().then_some(read);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.look().await;
            if seen.as_ref() != Some(&now) {
                seen = Some(self.act(now).await);
            }
        }
    }

    async fn look(&self) -> Look {
        let this = self.clone();
        let looking = tokio::task::spawn_blocking(move || Look::at(&this.shared.current.lock()));
        looking.await.unwrap_or(Look(Vec::new()))
    }

    /// Reads the files once they stand still; what they hold then. `now`: what they hold by the last look.
    async fn act(&self, mut now: Look) -> Look {
        loop {
            tokio::time::sleep(STILL).await;
            let again = self.look().await;
            if again == now {
                let (this, expected) = (self.clone(), again.clone());
                let reading = tokio::task::spawn_blocking(move || this.files(&expected));
                if reading.await.unwrap_or(true) {
                    return now;
                }
            }
            now = again;
        }
    }

    /// Reads the files anew that settings name, and not the settings; `false`: they changed meanwhile, and nothing was done.
    fn files(&self, expected: &Look) -> bool {
        let mut current = self.shared.current.lock();
        let (next, refused) = self.shared.read_files(&current);
        if Look::at(&current) != *expected {
            return false;
        }
        self.shared.settle_files(next, &refused, &mut current);
        true
    }
}

impl Look {
    pub(super) fn at(config: &Config) -> Self {
        let files = config.files().into_iter();
        Self(
            files
                .map(|path| (hash(&path), path))
                .map(|(hash, path)| (path, hash))
                .collect(),
        )
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
        let (mut config, places) = (self.load)().map_err(|error| error.to_string())?;
        // What a file cannot say now it has said before.
        for rule in &mut config.sync {
            let files = || current.sync.iter().filter_map(|rule| rule.from.as_ref());
            rule.from = rule.from.take().map(|from| {
                let before = files().find(|before| before.path == from.path);
                from.or(before)
            });
        }
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

    /// Whether passwords and the operators' token are what their files hold now.
    fn is_read(&self) -> bool {
        let current = self.current.lock();
        let is_as_it_lies = |rule: &sync::Rule| rule.from.as_ref().is_none_or(sync::Deployment::is_as_it_lies);
        current.auth.read_anew().as_ref() == Ok(&current.auth)
            && current.admin.read_anew().as_ref() == Ok(&current.admin)
            && current.sync.iter().all(is_as_it_lies)
    }

    /// What files say now, and why some of it is not taken: a certificate is no reason to let somebody in for longer, nor are users
    /// one to show an old certificate.
    fn read_files(&self, current: &Config) -> (Next, Vec<String>) {
        let (mut config, mut refused) = (current.clone(), Vec::new());
        let (tls, admin_tls) = current.read_tls().unwrap_or_else(|reason| {
            refused.push(reason);
            (None, None)
        });
        let auth = current.auth.read_anew().and_then(|auth| match current.auth.emptied(&auth) {
            Some(path) => Err(format!(
                "htpasswd_file {} has nobody in it any more; if that is meant, ask for it by SIGHUP or POST /api/reload",
                path.display()
            )),
            None => Ok(auth),
        });
        match auth {
            Ok(auth) => config.auth = auth,
            Err(reason) => refused.push(reason),
        }
        match current.admin.read_anew() {
            Ok(admin) => config.admin = admin,
            Err(reason) => refused.push(reason),
        }
        for rule in &mut config.sync {
            rule.from = rule.from.as_ref().map(sync::Deployment::read_anew);
            refused.extend(rule.from.as_ref().and_then(sync::Deployment::trouble));
        }
        (Next { config, tls, admin_tls }, refused)
    }

    /// Puts in force what is taken, and says what is not.
    fn settle_files(&self, next: Next, refused: &[String], current: &mut Config) {
        self.record(Cause::File, refused.is_empty());
        for reason in refused {
            tracing::error!(reason, "a file could not be read anew; what it held before goes on");
        }
        self.take(next, current);
        let outcome = if refused.is_empty() { "done" } else { "refused" };
        self.counted.reloads.with_label_values(&[outcome]).inc();
        if refused.is_empty() {
            tracing::info!("files that the settings name were read anew");
        }
    }

    fn take(&self, next: Next, current: &mut Config) {
        for words in next.config.auth.refused() {
            tracing::warn!(reason = words, "a line of htpasswd_file is not looked at");
        }
        self.put_in_force(&next, current);
        *current = next.config;
    }

    /// Puts it in force, or says why not.
    fn settle(&self, outcome: Result<Next, String>, current: &mut Config, cause: Cause) -> Result<(), String> {
        self.record(cause, outcome.is_ok());
        let next = outcome.inspect_err(|reason| {
            self.counted.reloads.with_label_values(&["refused"]).inc();
            tracing::error!(reason, "the settings could not be read anew; those before go on");
        })?;
        self.take(next, current);
        self.counted.reloads.with_label_values(&["done"]).inc();
        tracing::info!("the settings were read anew");
        Ok(())
    }

    /// What restricts comes first. Identities and permissions are one table; a tag that either settings hold immutable is so while
    /// that is swapped.
    fn put_in_force(&self, next: &Next, current: &Config) {
        let Next { config, tls, admin_tls } = next;
        let rooms = &self.rooms;
        rooms.admin.set(config.admin.clone());
        rooms.push.set(current.push.until(&config.push));
        rooms.guard.reconfigure(config.auth.clone());
        rooms.push.set(config.push.clone());
        rooms.limits.set(config.limits.clone());
        rooms.queue.set(config.queue.clone());
        if config.schedule != current.schedule {
            rooms.schedule.set(config.schedule.clone());
        }
        for (upstream, bandwidth) in config.bandwidths() {
            if let Some(live) = rooms.bandwidth.get(upstream) {
                live.set(bandwidth.clone());
            }
        }
        // What is the same is left alone: a change leads to a pass.
        if config.sync != current.sync {
            rooms.sync.set(config.sync.clone());
        }
        if let (Some(handshakes), Some(tls)) = (&rooms.handshakes, tls) {
            handshakes.replace(tls);
            self.counted.certificate(tls);
        }
        if let (Some(shown), Some(tls)) = (&rooms.admin_tls, admin_tls) {
            // pingora makes these handshakes, by what it was told at the start.
            if !shown.show(tls.clone()) {
                tracing::error!(
                    "the authorities in [admin] client_ca_file changed, which takes a restart: until then the old ones count"
                );
            }
        }
    }

    fn record(&self, cause: Cause, is_done: bool) {
        let how = match cause {
            Cause::Asked => return,
            Cause::Signal => "signal",
            Cause::File => "file",
        };
        self.audit.record(&Deed {
            who: "operator",
            how,
            action: "reload",
            status: if is_done { 200 } else { 409 },
            ..Deed::default()
        });
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
        files.extend(
            self.sync
                .iter()
                .filter_map(|rule| Some(rule.from.as_ref()?.path.clone())),
        );
        files.sort();
        files
    }
}

/// What the admin port asks for it by.
pub(super) fn asked(reload: Reload) -> admin::Reload {
    Arc::new(move || reload.all(Cause::Asked))
}
