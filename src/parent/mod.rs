//! The registry above, and any upstream: HTTP, tokens, redirects, and the gate that every request
//! passes with its class.
//!
//! What is sent is written here and never copied from a client's request. Credentials reach the
//! upstream itself and the token service it is known to have, and nobody else; nothing that an
//! upstream says of where to go or how to log in is handed down.

pub use answer::{Answer, Head};
pub use ask::{Ask, Since, What};
pub use bandwidth::Bandwidth;
pub use config::{Config, Login};
pub use error::{Cause, Error, Failure};
pub use gate::Class;
pub use hours::Hours;
pub use kind::MODE_HEADER;
pub use metrics::Metrics;
pub use outgoing::Pieces;
pub use place::{Place, Urgency};
pub use proxy::Proxies;
pub use push::{Opened, Part, Put, Session};
pub use schedule::Schedule;
pub use tls::Identity;
pub use upstream::Upstream;
pub use verdict::{DENIED_ACCOUNT, DENIED_HEADER, DENIED_STRANGER, LAYER_HEADER, REASON_HEADER, SPOILED_HEADER};
pub use via::{Hops, NodeId};
pub use within::{class_told, told};

pub mod http;

#[cfg(test)]
pub mod fuzz;

mod answer;
mod ask;
mod authority;
mod bandwidth;
mod breaker;
mod challenge;
mod client;
mod clients;
mod config;
pub mod connection_string;
mod egress;
mod error;
mod exchange;
mod failure;
mod flow;
mod gate;
mod helper;
mod hours;
mod kind;
mod link;
mod login;
mod metrics;
mod offer;
mod origin;
mod outgoing;
mod pace;
mod place;
mod probe;
mod proxy;
mod pulse;
mod push;
mod realm;
mod redirect;
mod refused;
mod report;
mod schedule;
#[cfg(feature = "failpoints")]
mod script;
mod shared;
mod tls;
mod token;
mod token_service;
mod trouble;
mod upstream;
mod verdict;
mod via;
mod wire;
mod within;
mod written;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::oci::{Name, Registry, Repository};
use crate::select::Filter;
use crate::units::{Clock, Live, Notes};

use breaker::Sign;
use gate::{Load, Patience};
use kind::Kind;
use shared::Shared;

/// A registry that can be asked. Clones ask the same one, by the same connections.
#[derive(Clone, Debug)]
pub struct Parent {
    shared: Arc<Shared>,
    /// What this registry means by a name without any other.
    registry: Registry,
    filter: Filter,
    reach: Reach,
}

/// What a node's ways to its upstreams have in common, and what changes while it runs.
#[derive(Clone, Debug)]
pub struct Given {
    /// The windows.
    pub hours: Hours,
    /// How much of the line is taken.
    pub bandwidth: Live<Bandwidth>,
    /// What outlives the process.
    pub notes: Notes,
}

/// What may be asked of a registry beside its own content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reach {
    /// Any registry's, named by `ns`, if it is a wharf node.
    Through,
    /// Nothing: names go as they are.
    Own,
}

impl Parent {
    /// The registry that `config` describes. `registry` is what it means by an unprefixed name and,
    /// unless it is its own, what it is called in metrics and errors. Through one that `travels`
    /// other registries' content can be asked for, if it is a wharf node.
    ///
    /// Connects to nothing.
    pub fn new(
        config: Config,
        registry: Registry,
        node: &NodeId,
        travels: bool,
        line: Given,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let name = match travels || registry.is_own() {
            true => config.host(),
            false => registry.to_string(),
        };
        Self {
            shared: Arc::new(Shared::new(&config, &name, node, line, clock, metrics)),
            registry,
            filter: config.filter,
            reach: if travels { Reach::Through } else { Reach::Own },
        }
    }

    /// The same registry, asked for what another `filter` admits: for an upstream that is reached
    /// through the parent.
    pub fn with_filter(&self, filter: Filter) -> Self {
        Self { filter, ..self.clone() }
    }

    /// Whether it may be asked for this repository at all, whatever its registry.
    pub fn admits(&self, name: &Name) -> bool {
        self.filter.admits(name.as_str())
    }

    /// Asks, and returns as soon as the head of a 200 or 206 is here. After a bad moment of the upstream it asks
    /// again, unless something older is served instead.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but [`Error::Cut`] and [`Error::TooLarge`]. [`Error::Absent`] without any
    /// request, if the repository is not admitted; [`Error::Loop`], if the request has been here.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Error> {
        let layer = || self.shared.wire.layer.clone();
        if !ask.is_for_all() && !self.admits(&ask.repository.name) {
            return Err(Error::Absent { layer: layer() });
        }
        if ask.hops.contains(&self.shared.node) || ask.hops.is_too_long() {
            return Err(Error::Loop {
                layer: self.shared.node.name.clone(),
            });
        }
        // One that nobody probes would stay closed to all.
        probe::watch(&self.shared);
        let outcome = self.ask_in_time(&ask).await;
        self.shared.trouble.note(self.name(), outcome.as_ref(), self.is_away());
        probe::watch(&self.shared);
        outcome
    }

    async fn ask_in_time(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let Shared { gate, clock, wire, .. } = &*self.shared;
        if ask.load() == Load::Transfer && ask.paid == 0 {
            // Not of its time.
            gate.clear(ask.class, ask.place).await?;
        }
        let began = clock.now();
        let patience = Patience {
            span: within::less_the_way(ask.patience),
            is_spare: ask.is_spare,
        };
        let pass = gate.pass(ask.class, ask.load(), ask.place, patience).await?;
        let (heard, unanswered) = (wire.heard(), wire.unanswered());
        let left = ask.budget.saturating_sub(clock.now() - began);
        let asking = tokio::time::timeout(left, self.ask_again(ask, began + patience.span));
        // Boxed, like all that is deep.
        match pass.while_open(Box::pin(asking)).await? {
            Ok(answer) => {
                let answer = answer?.holding(pass, ask.paid);
                if ask.class != Class::Interactive {
                    self.shared.hours.used();
                }
                Ok(answer)
            }
            Err(_) => {
                wire.note_late();
                let error = self.shared.timed_out(ask.budget);
                let is_silent = wire.heard() == heard && wire.unanswered() > unanswered;
                if is_silent && left >= (ask.budget / 2).min(self.shared.connect_timeout) {
                    wire.note(false);
                    gate.observe(Sign::Away(error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Asks, and again after a bad moment, if that is before `until`.
    async fn ask_again(&self, ask: &Ask<'_>, until: Instant) -> Result<Answer, Error> {
        let Shared { gate, clock, .. } = &*self.shared;
        let ns = self.ns(&ask.repository.registry).await?;
        let mut again = if ask.is_spare { 0 } else { AGAIN };
        loop {
            let left = until.saturating_duration_since(clock.now());
            let error = match self.shared.exchange(ask, ns, left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = LEAST_PAUSE + (MOST_PAUSE - LEAST_PAUSE).mul_f64(rand::random());
            let is_moment = self.shared.is_moment(&error) && gate.away().is_none();
            if again == 0 || !is_moment || pause >= left {
                return Err(error);
            }
            // A dead connection was replaced once already.
            again = if error.is_broken() { 0 } else { again - 1 };
            tokio::time::sleep(pause).await;
            if let Some(error) = gate.away() {
                return Err(error);
            }
        }
    }

    /// Why it is not asked now, whatever the windows say; `None`: a question would be sent at once.
    pub fn away(&self) -> Option<Error> {
        self.shared.gate.away()
    }

    /// Whether it is the same registry, at the same URL.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Why nothing of this class is asked now; `None`: the window is open.
    pub fn closed(&self, class: Class) -> Option<Error> {
        self.shared.gate.closed(class)
    }

    /// Why a question of this class is not sent now; `None`: it is. Who has something to serve instead need not wait for it.
    pub fn is_shut(&self, class: Class) -> Option<Error> {
        self.closed(class).or_else(|| self.away())
    }

    /// Waits until a question of this class may be asked, as far as nobody waits for it and the registry is no node: so many a minute.
    /// Before it is asked, so that whoever joins it does not wait.
    pub async fn turn(&self, class: Class) {
        if class == Class::Synchronisation && !self.is_wharf() {
            self.shared.pulse.turn().await;
        }
    }

    /// Waits until the next part of a transfer may be asked for, and pays for it: how many bytes. `None`: the line has no rate, and
    /// the whole may be asked for. `header`: how long the upstream takes until it sends.
    pub async fn buy(&self, place: &Place, header: Duration) -> Option<u64> {
        let urgency = place.urgency();
        // Outside the window the gate says so.
        if self.closed(urgency.get()).is_some() {
            return None;
        }
        self.shared.gate.line.down.buy(&urgency, header).await
    }

    /// Of what was bought for a transfer so many bytes did not come.
    pub fn refund(&self, place: &Place, bytes: u64) {
        self.shared.gate.line.down.refund(place.urgency().get(), bytes);
    }

    /// Hangs up whenever a window closes, for as long as the node runs: what lies idle is closed as well.
    pub async fn keep_hours(self) {
        let mut turns = self.shared.hours.subscribe();
        let mut is_open = turns.borrow_and_update().is_open;
        loop {
            match tokio::time::timeout(IDLE, turns.changed()).await {
                Ok(Err(_)) => return,
                Ok(Ok(())) => {
                    is_open = turns.borrow_and_update().is_open;
                    if is_open {
                        // It may be time to look whether it is back.
                        probe::watch(&self.shared);
                    } else {
                        self.shared.wire.hang_up().await;
                    }
                }
                // What was asked all the same has left connections behind.
                Err(_) if !is_open => self.shared.wire.hang_up().await,
                Err(_) => {}
            }
        }
    }

    /// Has it probed soon, if it is away: somebody has something for it.
    pub fn seek(&self) {
        probe::watch(&self.shared);
        self.shared.gate.wanted.notify_one();
    }

    /// Shows it our login again, though it refused that lately: an operator says that it is mended.
    pub fn show_login_again(&self) {
        self.shared.authority.forget_refusals();
    }

    /// Somebody with something old to serve waited for its answer in vain.
    pub fn let_down(&self) {
        self.shared.wire.let_down();
    }

    /// Whether that is so, and it has answered nobody since: it is not worth while to wait for it again.
    pub fn is_silent(&self) -> bool {
        self.shared.wire.is_silent()
    }

    /// Why it does not give what it is asked for, though it may well answer, and for how long it has not; `None` if the
    /// last question went well.
    pub fn trouble(&self) -> Option<(Duration, String)> {
        self.shared.trouble.now(self.is_away())
    }

    fn is_away(&self) -> bool {
        !self.up() || self.away().is_some()
    }

    /// Asks whether it is there (end-1) and what it is.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; any answer at all is a good one.
    pub async fn ping(&self) -> Result<(), Error> {
        let greeted = self.shared.greet().await.map(|_| ());
        // One that nobody probes would stay away for ever.
        probe::watch(&self.shared);
        greeted
    }

    /// Whether it was a wharf node when it last said what it is; before that, not.
    pub fn is_wharf(&self) -> bool {
        self.shared.memory.last() == Kind::Wharf
    }

    /// Finds out whether it takes pushes; one that is no node is offered one to `repository`.
    ///
    /// # Errors
    ///
    /// As [`Parent::ping`], and of its credentials: nothing new is known.
    pub async fn sound_out(&self, repository: &Repository) -> Result<(), Error> {
        if !self.admits(&repository.name) {
            return Ok(());
        }
        let limit = self.shared.connect_timeout;
        let sounded = tokio::time::timeout(limit, self.shared.sound_out(repository)).await;
        probe::watch(&self.shared);
        sounded.unwrap_or_else(|_| Err(self.shared.timed_out(limit)))
    }

    /// Whether it is known to take no pushes: it said so, or declined one.
    pub fn refuses_pushes(&self) -> bool {
        self.shared.memory.refuses_pushes()
    }

    /// What it is called in errors and metrics: the registry's name, or `host:port`.
    pub fn name(&self) -> &str {
        &self.shared.wire.layer
    }

    /// Whether it answered at all when it was last asked; true before the first time.
    pub fn up(&self) -> bool {
        self.shared.wire.is_up()
    }

    /// What to send as `ns`, so that it knows which registry is meant. A foreign registry sees none.
    async fn ns<'a>(&self, registry: &'a Registry) -> Result<Option<&'a Registry>, Error> {
        if self.reach == Reach::Own || registry.is_own() {
            return Ok(None);
        }
        match self.shared.kind().await? {
            Kind::Wharf => Ok(Some(registry)),
            Kind::Foreign if *registry == self.registry => Ok(None),
            Kind::Foreign => Err(Error::NeedsWharf {
                layer: self.shared.wire.layer.clone(),
                registry: registry.to_string(),
            }),
        }
    }
}

/// Outside the window what lies idle is closed so often.
const IDLE: Duration = Duration::from_secs(5);

/// A question is repeated so often after a bad moment, each time after a pause by chance between these.
const AGAIN: u32 = 2;
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
