//! The assembly: a Config to rooms to services. The only file that knows every room.

mod reload;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use fail::fail_point;
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use prometheus::{IntCounterVec, Opts, Registry as Metrics};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use self::reload::Load;
use self::reload::{Cause, Look, Reload, Rooms};
use crate::admin::Admin;
use crate::auth::{Gate, Guard, Shelf};
use crate::config::{Config, Mode};
use crate::events::Audit;
use crate::fetch::{Fetch, Here, Sources};
use crate::listener::{Connections, Handshakes, RequestLog, Tls};
use crate::oci::Registry;
use crate::parent::{Bandwidth, Given, Hours, NodeId, Parent};
use crate::push::{Push, Target};
use crate::queue::Queue;
use crate::router::{Named, Names, NamesError};
use crate::select::Filter;
use crate::serve::Serve;
use crate::status::{Children, Receipts, Status, Summaries, Wall};
use crate::store::{Kept, Store};
use crate::sync::{Feed, Leaving, Syncer};
use crate::units::{Clock, Live, Notes, Span};
use crate::{admin, auth, config, events, fetch, listener, parent, push, queue, serve, store, sync};

/// How long replies under way may take after the signal to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a node does not start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store's folder.
    #[error("the store cannot be opened")]
    Store(#[from] store::Error),

    /// The certificate.
    #[error("the certificate cannot be used")]
    Tls(#[from] listener::TlsError),

    /// Names of upstreams.
    #[error("the upstreams' names cannot be told apart")]
    Names(#[from] NamesError),

    /// An address that is taken or not ours.
    #[error("listening on {address}; {}", why_not(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },

    /// A log file.
    #[error("opening the log {target}; its folder must exist and be writable")]
    Log {
        /// The file.
        target: String,
        /// What the system said.
        source: std::io::Error,
    },

    /// Threads.
    #[error("starting the runtime")]
    Runtime(#[source] std::io::Error),

    /// A mistake in this program.
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Hears that everything is to be read anew (SIGHUP), from when it is made: what comes before the node runs is kept for then, and
/// without it would be the end of the process.
pub struct Hangups(Signal);

impl Hangups {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn hear() -> std::io::Result<Self> {
        // The system's handler outlives it, and whichever runtime comes next tells what it caught.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        Ok(Self(signal(SignalKind::hangup())?))
    }
}

/// A node, ready to run.
pub struct App {
    server: Server,
    connections: Connections,
    store: Store,
    log: RequestLog,
    audit: Audit,
    /// Flights live here, whoever asked for them.
    fetching: Runtime,
    fetch: Fetch,
    feed: Feed,
    reload: Reload,
}

impl App {
    /// Builds every room. `load` reads the settings anew, for when they change while the node runs. Connects to nothing; takes the store's lock.
    ///
    /// # Errors
    ///
    /// [`Error`]: what an operator has to change.
    pub fn build(config: Config, load: Load) -> Result<Self, Error> {
        let current = config.clone();
        let most_owed = config.most_owed();
        let Config {
            mode,
            node,
            listen,
            admin,
            storage,
            parent,
            upstreams,
            freshness,
            limits,
            push,
            queue,
            sync: selection,
            schedule,
            auth,
            audit,
            log,
        } = config;
        say(&node, mode, parent.as_ref(), &storage);
        fail_point!("app.build");
        // Before certificates are read, so that what changes meanwhile is seen to have changed.
        let read = Look::at(&current);
        let descriptors = listener::raise_descriptor_limit();
        let metrics = Metrics::new();
        let ports = Ports::settle(&listen, &admin, &upstreams)?;
        let names = names(parent.as_ref(), &upstreams)?;
        let filters = filters(parent.as_ref(), &upstreams);
        let counted = events::Metrics::new(&metrics)?;
        let request_log =
            RequestLog::open(&log.requests, log.format, counted.of("requests")).map_err(|source| Error::Log {
                target: log.requests.to_string(),
                source,
            })?;
        let audit = Audit::open(&audit, counted.of("audit")).map_err(|source| Error::Log {
            target: audit.log.to_string(),
            source,
        })?;
        let store = Store::open(&storage, store::Metrics::new(&metrics)?)?;
        let id = Arc::new(NodeId {
            name: node.name.as_str().to_owned(),
            id: store.instance().to_owned(),
        });

        let clock = Clock::system();
        let registry = names.unprefixed().clone();
        // Clients find room beside what is fetched before anyone asks.
        let ahead = parent.as_ref().map_or(1, |parent| parent.transfers / 2);
        let above = parent.iter().flat_map(parent::Config::hosts);
        let hosts = above.chain(listen.login_server.clone()).collect();
        let schedule = Live::new(schedule);
        let notes = notes(&store);
        let hours = Hours::new(schedule.clone(), notes.clone(), clock.clone());
        let mut lines = Lines::new(hours.clone(), notes);
        let parents = parents(
            parent,
            upstreams,
            &id,
            &mut lines,
            &clock,
            &parent::Metrics::new(&metrics),
        );
        let wall = Wall::new(clock.clone(), &metrics)?;
        let status = status(&id, mode, &store, &parents, &ports, wall.clone());
        crate::status::count_panics(&metrics)?;
        let fetching = fetching_runtime().map_err(Error::Runtime)?;
        fetching.spawn(wall.watch());
        fetching.spawn(hours.watch());
        for parent in parents.values() {
            fetching.spawn(parent.clone().keep_hours());
        }
        let within = fetching.handle().clone();
        let refused = refused(&metrics)?;
        let counted = fetch::Metrics::new(&metrics, &refused)?;
        let answer_within = freshness.answer_within;
        let parent = parents.get(&registry).cloned();
        let here = (mode == Mode::Registry).then(|| Here {
            registry: registry.clone(),
            node: id.name.clone(),
        });
        let guard = Guard::new(auth, &store, clock.clone(), auth::Metrics::new(&metrics)?)?;
        fetching.spawn(guard.clone().watch());
        let rooms = Rooms {
            guard: guard.clone(),
            admin: Live::new(ports.admin.clone()),
            admin_tls: ports.admin_tls.clone(),
            handshakes: ports.handshakes.clone(),
            limits: Live::new(limits),
            push: Live::new(push),
            queue: Live::new(queue),
            sync: Live::new(selection),
            schedule: schedule.clone(),
            bandwidth: lines.bandwidth,
        };
        let (limits, push, queue) = (rooms.limits.clone(), rooms.push.clone(), rooms.queue.clone());
        let (operators, rules) = (rooms.admin.clone(), rooms.sync.clone());
        let reload = Reload::new(load, current, rooms, audit.clone(), clock.clone(), &metrics)?;
        fetching.spawn(reload.clone().watch(read));
        let fetch = Fetch::new(
            freshness,
            limits.clone(),
            store.clone(),
            Sources { parents, here },
            within,
            clock.clone(),
            counted,
        );
        let counted = push::Metrics::new(&metrics, &refused)?;
        let (above, pushed_to) = (parent.clone(), registry.clone());
        let target = Target {
            registry,
            parent: parent.clone(),
            most_owed: Some(most_owed),
        };
        let push = (mode == Mode::Registry).then(|| {
            let (store, fetch, clock) = (store.clone(), fetch.clone(), clock.clone());
            Push::new(push, limits, store, fetch, target, guard.clone(), clock, counted)
        });
        if let Some(push) = &push {
            fetching.spawn(push.clone().watch());
            fetching.spawn(push.clone().watch_parent());
        }
        // Whatever the mode is: what was taken in before is owed.
        let counted = queue::Metrics::new(&metrics)?;
        let name = node.name.as_str();
        let told = fetch.clone();
        let owed_to = queue::Above {
            parent,
            delivered: Box::new(move |repository| told.vouched(repository)),
        };
        let queue = Queue::new(
            queue,
            most_owed.bytes(),
            store.clone(),
            owed_to,
            name,
            clock.clone(),
            counted,
        );
        fetching.spawn(queue.clone().run());
        fetching.spawn(queue.clone().watch());
        let counted = sync::Metrics::new(&metrics)?;
        let feed = Feed::new(names.unprefixed().clone(), schedule.clone(), clock.clone());
        fetching.spawn(feed.clone().gather(store.clone()));
        let parts = sync::Parts {
            names: names.clone(),
            hosts,
            store: store.clone(),
            fetch: fetch.clone(),
            feed: feed.clone(),
            leaving: match mode {
                Mode::Mirror => Leaving::Purge(Span::default()),
                Mode::Registry => Leaving::Keep,
            },
        };
        let syncer = Syncer::new(rules, parts, ahead, clock.clone(), counted);
        fetching.spawn(syncer.clone().follow());
        fetching.spawn(syncer.clone().run());
        let gate = Gate::new(guard.clone(), filters, names.unprefixed().clone());
        let shelf = Shelf::new(store.clone(), fetch.clone());
        let receipts = Receipts::new(&id, store.clone(), above.clone(), pushed_to);
        let children = Children::new(clock.clone());
        let summaries = Summaries {
            node: id.name.clone(),
            is_registry: mode == Mode::Registry,
            login_server: ports.login_server(&listen),
            store: store.clone(),
            parent: above,
            queue: queue.clone(),
            sync: syncer.clone(),
            children: children.clone(),
            clock: clock.clone(),
        };
        fetching.spawn(summaries.clone().report());
        let serve = Serve {
            node: id,
            names,
            gate,
            shelf,
            push: push.clone(),
            receipts: receipts.clone(),
            feed: feed.clone(),
            children,
            metrics: serve::Metrics::new(&metrics)?,
            clock,
            answer_within,
            login_server: listen.login_server.clone(),
            audit: audit.clone(),
        };

        let refused = listener::Refused::new(&refused);
        let connections = connections(&listen, descriptors, refused.clone());
        let watched = connections.clone();
        let status = status.stopping(Box::new(move || watched.is_draining()));
        let brings = syncer.clone();
        let status = status.behind(Box::new(move || brings.report().unwell));
        let status = status.pushed_to(push.clone()).owing(queue.clone());
        ports.say();
        let mut server = Server::new_with_opt_and_conf(None, server_settings());
        server.add_service(listener::service(listener::Parts {
            serve: Arc::new(ArcSwap::from_pointee(serve)),
            addresses: ports.addresses,
            handshakes: ports.handshakes,
            config: listen,
            connections: connections.clone(),
            refused,
            log: request_log.clone(),
        }));
        let admin = Admin {
            status,
            metrics,
            push,
            queue,
            sync: syncer,
            receipts,
            summaries,
            guard,
            reload: reload::asked(reload.clone()),
            audit: audit.clone(),
            config: operators,
        };
        server.add_service(admin::service(admin, ports.admin_tls.as_ref()));
        Ok(Self {
            server,
            connections,
            store,
            log: request_log,
            audit,
            fetching,
            fetch,
            feed,
            reload,
        })
    }

    /// Runs until a signal ends it, then lets replies end and writes down what is behind.
    pub fn run(self, hangups: Hangups) {
        let Self {
            mut server,
            connections,
            store,
            log,
            audit,
            fetching,
            fetch,
            feed,
            reload,
        } = self;
        server.bootstrap();
        server.run(RunArgs {
            shutdown_signal: Box::new(Signals {
                connections,
                store: store.clone(),
                feed,
                log: log.clone(),
                audit: audit.clone(),
                reload,
                hangups: Mutex::new(Some(hangups)),
            }),
        });
        fetching.shutdown_timeout(Duration::from_secs(1));
        fetch.flush();
        store.flush();
        log.flush();
        audit.flush();
        tracing::info!("stopped");
    }
}

/// What is started, for whoever reads the log later.
fn say(node: &config::Node, mode: Mode, parent: Option<&parent::Config>, storage: &store::Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = node.name.as_str(),
        mode = mode.as_str(),
        parent = parent.map_or("none", |parent| parent.url.as_str()),
        data = %storage.path.display(),
        capacity = %storage.capacity,
        "wharf starts"
    );
}

/// Where the node listens, and with which certificate.
struct Ports {
    addresses: Vec<(SocketAddr, Option<Registry>)>,
    handshakes: Option<Handshakes>,
    admin: admin::Config,
    admin_tls: Option<Tls>,
}

impl Ports {
    /// Reads the certificate and tries every address.
    fn settle(listen: &listener::Config, admin: &admin::Config, upstreams: &[parent::Upstream]) -> Result<Self, Error> {
        let tls = Tls::read(&listen.tls, listen.http2)?;
        let admin_tls = Tls::read(&admin.tls, false)?;
        Ok(Self {
            handshakes: tls.as_ref().map(Tls::handshakes),
            addresses: addresses(listen.address, upstreams)?,
            admin: admin::Config {
                address: settle(admin.address)?,
                ..admin.clone()
            },
            admin_tls,
        })
    }

    /// Under which address clients know the node, and whether by TLS.
    fn login_server(&self, listen: &listener::Config) -> (String, bool) {
        let (address, _) = self.addresses[0];
        let named = listen.login_server.clone();
        (named.unwrap_or_else(|| address.to_string()), self.handshakes.is_some())
    }

    fn say(&self) {
        let scheme = if self.handshakes.is_some() { "https" } else { "http" };
        for (address, registry) in &self.addresses {
            let bound = registry.as_ref().map_or("", Registry::as_str);
            tracing::info!(%address, scheme, bound, "listening");
        }
        tracing::info!(address = %self.admin.address, "admin listening");
    }
}

/// Ends the server once the last reply has left.
struct Signals {
    connections: Connections,
    store: Store,
    /// Whose listeners wait.
    feed: Feed,
    log: RequestLog,
    audit: Audit,
    reload: Reload,
    /// Taken once it is listened to.
    hangups: Mutex<Option<Hangups>>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let hangups = self.hangups.lock().take();
        let (Ok(mut terminate), Ok(mut interrupt), Some(Hangups(mut hangup))) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            hangups,
        ) else {
            return std::future::pending().await;
        };
        let (log, audit, reload) = (self.log.clone(), self.audit.clone(), self.reload.clone());
        tokio::spawn(async move {
            // Whoever rotates the request log says so like this, and whoever changed the settings.
            while hangup.recv().await.is_some() {
                log.reopen();
                audit.reopen();
                let reload = reload.clone();
                let _ = tokio::task::spawn_blocking(move || reload.all(Cause::Signal)).await;
            }
        });
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!(patience_s = PATIENCE.as_secs(), "stopping; replies under way are finished first");
                self.feed.end();
                // Whoever stops us may lose patience before we do.
                let store = self.store.clone();
                tokio::task::spawn_blocking(move || store.flush());
                tokio::select! {
                    () = self.connections.drain(PATIENCE) => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ = interrupt.recv() => {}
        }
        // Not the fast one: with it the accepting tasks never end. The grace period is nought.
        ShutdownSignal::GracefulTerminate
    }
}

fn server_settings() -> ServerConf {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ServerConf {
        threads: cores,
        // Measured: a seventh less time for each small answer.
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

/// Counts what limits refuse; each room names its own limits.
fn refused(metrics: &Metrics) -> Result<IntCounterVec, prometheus::Error> {
    let options = Opts::new("wharf_refused_total", "What a limit refused, cut off or made to wait");
    let refused = IntCounterVec::new(options, &["limit"])?;
    metrics.register(Box::new(refused.clone()))?;
    Ok(refused)
}

/// What an operator looks at where an address cannot be had.
fn why_not(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            "it must be an address of this machine, or 0.0.0.0 or [::] for all of them"
        }
        std::io::ErrorKind::PermissionDenied => "a port below 1024 takes the right to it (CAP_NET_BIND_SERVICE)",
        _ => "is another program there?",
    }
}

fn connections(listen: &listener::Config, descriptors: u64, refused: listener::Refused) -> Connections {
    let most = match listen.connections {
        0 => Connections::within(descriptors),
        most => most,
    };
    let each = match listen.connections_per_address {
        0 => usize::MAX,
        each => each,
    };
    Connections::new(most, each, listen.trusted_proxies.clone(), refused)
}

fn status(
    node: &NodeId,
    mode: Mode,
    store: &Store,
    parents: &HashMap<Registry, Parent>,
    ports: &Ports,
    wall: Wall,
) -> Status {
    let (address, _) = ports.addresses[0];
    let parents = parents.values().cloned().collect();
    Status::new(node.name.clone(), mode.as_str(), store.clone(), parents, address, wall)
}

fn fetching_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("fetch")
        .enable_all()
        .build()
}

fn names(parent: Option<&parent::Config>, upstreams: &[parent::Upstream]) -> Result<Names, NamesError> {
    let named = upstreams.iter().map(|upstream| Named {
        registry: upstream.name.clone(),
        aliases: upstream.aliases.clone(),
        hosts: upstream.hosts.clone(),
    });
    Names::new(
        named,
        parent.map_or_else(Registry::own, |parent| parent.namespace.clone()),
    )
}

fn filters(parent: Option<&parent::Config>, upstreams: &[parent::Upstream]) -> HashMap<Registry, Filter> {
    // What is nobody else's is all to be had.
    let own = || (Registry::own(), Filter::default());
    let beside = upstreams
        .iter()
        .map(|upstream| (upstream.name.clone(), upstream.filter.clone()));
    let above = parent.map_or_else(own, |parent| (parent.namespace.clone(), parent.filter.clone()));
    std::iter::once(above).chain(beside).collect()
}

/// What is noted in the store.
fn notes(store: &Store) -> Notes {
    let lines = store.kept(Kept::Notes).unwrap_or_else(|error| {
        tracing::warn!(%error, "when the parent was last spoken to is not known");
        Vec::new()
    });
    let (store, latest) = (store.clone(), Arc::new(Mutex::new(None)));
    Notes::new(lines, move |lines| {
        // Whoever notes something does not wait for the disk, and of several changes the last one counts.
        *latest.lock() = Some(lines);
        let (store, latest) = (store.clone(), Arc::clone(&latest));
        std::thread::spawn(move || {
            let Some(lines) = latest.lock().take() else { return };
            if let Err(error) = store.keep(Kept::Notes, &lines) {
                tracing::warn!(%error, "what windows and bandwidth are to know later could not be written down");
            }
        });
    })
}

/// What the ways to upstreams are made with, and how much of each is taken, by the upstream's name.
struct Lines {
    hours: Hours,
    notes: Notes,
    bandwidth: HashMap<Registry, Live<Bandwidth>>,
}

impl Lines {
    fn new(hours: Hours, notes: Notes) -> Self {
        Self {
            hours,
            notes,
            bandwidth: HashMap::new(),
        }
    }

    fn to(&mut self, upstream: &Registry, bandwidth: Bandwidth) -> Given {
        let bandwidth = Live::new(bandwidth);
        self.bandwidth.insert(upstream.clone(), bandwidth.clone());
        Given {
            hours: self.hours.clone(),
            bandwidth,
            notes: self.notes.clone(),
        }
    }
}

fn parents(
    parent: Option<parent::Config>,
    upstreams: Vec<parent::Upstream>,
    node: &NodeId,
    lines: &mut Lines,
    clock: &Clock,
    metrics: &parent::Metrics,
) -> HashMap<Registry, Parent> {
    let above = parent.map(|parent| {
        let namespace = parent.namespace.clone();
        let line = lines.to(&namespace, parent.bandwidth.clone());
        let above = Parent::new(parent, namespace.clone(), node, true, line, clock.clone(), metrics);
        (namespace, above)
    });
    let beside = upstreams.into_iter().filter_map(|upstream| {
        let asked = match (upstream.direct, &above) {
            (Some(config), _) => {
                let line = lines.to(&upstream.name, config.bandwidth.clone());
                Parent::new(config, upstream.name.clone(), node, false, line, clock.clone(), metrics)
            }
            (None, Some((_, above))) => above.with_filter(upstream.filter),
            (None, None) => return None,
        };
        Some((upstream.name, asked))
    });
    let mut parents: HashMap<Registry, Parent> = beside.collect();
    if let Some((namespace, above)) = above {
        parents.entry(namespace).or_insert(above);
    }
    parents
}

/// The addresses to listen on, each tried now: pingora would panic later.
fn addresses(main: SocketAddr, upstreams: &[parent::Upstream]) -> Result<Vec<(SocketAddr, Option<Registry>)>, Error> {
    let mut addresses = vec![(settle(main)?, None)];
    for upstream in upstreams {
        if let Some(address) = upstream.listen {
            addresses.push((settle(address)?, Some(upstream.name.clone())));
        }
    }
    Ok(addresses)
}

/// Port 0 becomes one that is free.
fn settle(address: SocketAddr) -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|source| Error::Listen { address, source })
}
