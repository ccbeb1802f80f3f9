//! The gate that every request to one upstream passes, with the class of what it is for: whether it is asked at
//! all and now, and how much at a time.
//!
//! Two bounds, first come first served: bodies of blobs under way, and questions whose header has not come. A
//! transfer waits for its body's place first and then asks like all others, so that no question ever waits for
//! bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::breaker::{Breaker, Phase, Sign, Turn, Verdict};
use super::config::Config;
use super::error::Error;
use super::flow::Line;
use super::hours::{Closed, Hours};
use super::metrics::Series;
use super::place::{Place, Urgency};
use crate::units::{Clock, Moment};

/// Whether what may cross in a day has is looked at so often while something crosses.
const LOOK: Duration = Duration::from_secs(1);

/// What a request is for, the most urgent first. Places are given first come, first served; windows and bandwidth go by class.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// A client waits for it.
    Interactive,
    /// A push that is owed to the parent.
    WriteBack,
    /// Fetching what an operator wants now, whether a window is open or not.
    Manual,
    /// Fetching before anyone asks.
    Synchronisation,
}

impl Class {
    /// All of them, the first first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::WriteBack, Self::Manual, Self::Synchronisation];

    /// As in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::WriteBack => "write_back",
            Self::Manual => "manual",
            Self::Synchronisation => "synchronisation",
        }
    }
}

/// How much is asked of one upstream at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    /// Bodies of blobs.
    pub(super) transfers: usize,
    /// Requests whose header has not come.
    pub(super) requests: usize,
}

impl Limits {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            transfers: config.transfers,
            requests: config.requests,
        }
    }

    /// Places of transfers that are lent at a time.
    fn lendable(self) -> usize {
        self.transfers.div_ceil(2)
    }

    /// Bodies that may lie unread: all that have a place, and all that lent theirs.
    pub(super) fn unread(self) -> usize {
        self.transfers + self.lendable()
    }
}

/// What a request brings, if it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Load {
    /// A header, or a short body.
    Question,
    /// A blob, or the rest of one.
    Transfer,
    /// A part of one, read as fast as its client reads; worth having only at once.
    Part,
    /// A blob on its way up: its answer comes when it is all there, so it takes no place of questions.
    Upload,
}

/// How long the gate is waited at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Patience {
    /// For a place, and for an upstream that is away to come back.
    pub(super) span: Duration,
    /// Whether something older is served meanwhile: an upstream that is away is not waited for.
    pub(super) is_spare: bool,
}

/// One upstream's gate.
#[derive(Debug)]
pub(super) struct Gate {
    node: String,
    breaker: Mutex<Watched>,
    /// Counts what the breaker was told.
    told: watch::Sender<u64>,
    /// Somebody waits for a probe.
    pub(super) wanted: Notify,
    questions: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    /// Of the transfers, those that a slow client may hold.
    parts: Arc<Semaphore>,
    /// Places of transfers that may be lent.
    lendable: Arc<Semaphore>,
    /// Bodies that are sent.
    uploads: Arc<Semaphore>,
    /// In the order of [`Class::ALL`].
    inside: [IntGauge; 4],
    series: Series,
    pub(super) hours: Hours,
    pub(super) line: Line,
    clock: Clock,
}

#[derive(Debug)]
struct Watched {
    breaker: Breaker,
    /// Whether someone probes.
    probing: bool,
    /// Ended so far.
    probes: u64,
}

impl Gate {
    pub(super) fn new(node: &str, limits: Limits, series: &Series, hours: Hours, line: Line, clock: Clock) -> Self {
        series.phase(Phase::Closed);
        Self {
            node: node.to_owned(),
            breaker: Mutex::new(Watched {
                breaker: Breaker::new(),
                probing: false,
                probes: 0,
            }),
            told: watch::Sender::new(0),
            wanted: Notify::new(),
            questions: Arc::new(Semaphore::new(limits.requests)),
            transfers: Arc::new(Semaphore::new(limits.transfers)),
            parts: Arc::new(Semaphore::new(limits.transfers.div_ceil(2))),
            lendable: Arc::new(Semaphore::new(limits.lendable())),
            uploads: Arc::new(Semaphore::new(limits.transfers)),
            inside: Class::ALL.map(|class| series.inside(class)),
            series: series.clone(),
            hours,
            line,
            clock,
        }
    }

    /// Waits until a request of this class may be sent. The pass is held until the answer's body
    /// has been read; the place of a transfer for as long as `place` keeps it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], or why the upstream is not asked.
    pub(super) async fn pass(
        self: &Arc<Self>,
        class: Class,
        load: Load,
        place: Option<&Place>,
        patience: Patience,
    ) -> Result<Pass, Error> {
        let urgency = place.map_or_else(|| Urgency::of(class), Place::urgency);
        if let Some(error) = self.closed(urgency.get()) {
            return Err(self.refused(error));
        }
        let until = self.clock.now() + patience.span;
        if let Some(error) = self.refuses() {
            return Err(self.refused(error));
        }
        let body = self.room(load, place, until).await?;
        let (turn, question) = loop {
            let turn = self.admitted(patience, until).await?;
            let question = Arc::clone(&self.questions);
            let question = match load {
                Load::Part => Some(question.try_acquire_owned().map_err(|_| self.busy("requests"))?),
                Load::Upload => None,
                _ => Some(self.in_time(until, "requests", question.acquire_owned()).await?),
            };
            // Those who were answered meanwhile may have found that it wants no more of them.
            if turn.is_some() || self.is_closed() {
                break (turn, question);
            }
        };
        let pass = Pass {
            gate: Arc::clone(self),
            _inside: Counted::new(self.inside[class as usize].clone()),
            _body: body,
            question: Some((question, turn)),
            urgency,
            load,
        };
        // It was waited for.
        match self.closed(pass.class()) {
            Some(error) => Err(self.refused(error)),
            None => Ok(pass),
        }
    }

    /// Waits, for some time, while others are served that come first.
    pub(super) async fn clear(&self, class: Class, place: Option<&Place>) -> Result<(), Error> {
        let urgency = place.map_or_else(|| Urgency::of(class), Place::urgency);
        if let Some(error) = self.closed(urgency.get()) {
            return Err(self.refused(error));
        }
        self.line.down.clear(&urgency).await;
        Ok(())
    }

    /// Why the class is not let through, whatever the upstream does: no window is open, or what may cross in a day has.
    pub(super) fn closed(&self, class: Class) -> Option<Error> {
        let spent = || {
            let both = [&self.line.down, &self.line.up].map(|flow| flow.spent(class));
            let until = both.into_iter().flatten().next()?;
            Some((Closed { until }, "the bytes of the day have crossed"))
        };
        let closed = self.hours.closed(class).map(|closed| (closed, "its window is closed"));
        let (Closed { until }, reason) = closed.or_else(spent)?;
        let wait = until.and_then(|until| until.duration_since(self.clock.wall()).ok());
        let opens = until.map_or_else(String::new, |until| format!(", until {}", Moment::from(until)));
        Some(Error::Closed {
            layer: self.node.clone(),
            reason: format!("{reason}{opens}"),
            wait,
        })
    }

    /// Why the upstream is not asked now; whoever has something to serve instead need not try.
    pub(super) fn away(&self) -> Option<Error> {
        let now = self.clock.now();
        self.watched(&mut self.breaker.lock(), |breaker| breaker.away(now))
    }

    /// A request told something of the upstream.
    pub(super) fn observe(&self, sign: Sign) {
        let now = self.clock.now();
        self.change(|breaker| breaker.observe(sign, now, rand::random()));
    }

    /// A probe did.
    pub(super) fn probed(&self, sign: Sign) {
        let now = self.clock.now();
        self.breaker.lock().probes += 1;
        self.change(|breaker| breaker.probed(sign, now, rand::random()));
    }

    /// The caller is to probe from now on, until [`Prober::next`] says that it is over; `None`: it is not.
    pub(super) fn wants_probing(self: &Arc<Self>) -> Option<Prober> {
        let mut watched = self.breaker.lock();
        let wants = watched.breaker.probe_at().is_some() && !watched.probing;
        watched.probing |= wants;
        wants.then(|| Prober {
            gate: Arc::clone(self),
            probes: true,
        })
    }

    fn is_closed(&self) -> bool {
        self.breaker.lock().breaker.phase() == Phase::Closed
    }

    fn refuses(&self) -> Option<Error> {
        let mut watched = self.breaker.lock();
        let now = self.clock.now();
        let away = self.watched(&mut watched, |breaker| breaker.away(now));
        away.filter(|_| watched.breaker.phase() == Phase::Resting)
    }

    /// A place for the body that `load` brings.
    async fn room(&self, load: Load, kept: Option<&Place>, until: Instant) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        let at_once = |places: &Arc<Semaphore>| {
            let place = Arc::clone(places).try_acquire_owned();
            place.map_err(|_| self.busy("transfers"))
        };
        match load {
            Load::Question => Ok(Vec::new()),
            Load::Upload => {
                // Nobody waits for it, and a thin line takes its time.
                let _waiting = Counted::new(self.series.waiting());
                let place = Arc::clone(&self.uploads).acquire_owned().await;
                Ok(vec![place.map_err(|_| self.busy("transfers"))?])
            }
            Load::Part => Ok(vec![at_once(&self.parts)?, at_once(&self.transfers)?]),
            Load::Transfer if kept.is_some_and(Place::is_taken) => Ok(Vec::new()),
            Load::Transfer => {
                let place = Arc::clone(&self.transfers).acquire_owned();
                let place = self.in_time(until, "transfers", place).await?;
                match kept {
                    Some(kept) => kept.hold(place, &self.lendable),
                    None => return Ok(vec![place]),
                }
                Ok(Vec::new())
            }
        }
    }

    /// Waits until the breaker lets a request through, or says why not.
    async fn admitted(self: &Arc<Self>, patience: Patience, until: Instant) -> Result<Option<Trial>, Error> {
        let mut told = self.told.subscribe();
        let mut probes_before = None;
        loop {
            let (verdict, probes) = {
                let mut watched = self.breaker.lock();
                let now = self.clock.now();
                let verdict = self.watched(&mut watched, |breaker| breaker.admit(now));
                (verdict, watched.probes)
            };
            let reason = match verdict {
                Verdict::Go => return Ok(None),
                Verdict::Try(turn) => {
                    let gate = Arc::clone(self);
                    return Ok(Some(Trial { gate, turn }));
                }
                Verdict::Refuse(error) => return Err(self.refused(error)),
                Verdict::Probe(error) if *probes_before.get_or_insert(probes) < probes => {
                    return Err(self.refused(error));
                }
                Verdict::Probe(error) => {
                    self.wanted.notify_one();
                    error
                }
                Verdict::Queue(error) => error,
            };
            if patience.is_spare {
                return Err(self.refused(reason));
            }
            let left = until.saturating_duration_since(self.clock.now());
            if tokio::time::timeout(left, told.changed()).await.is_err() {
                return Err(self.refused(reason));
            }
        }
    }

    async fn in_time<T, E>(
        &self,
        until: Instant,
        limit: &'static str,
        place: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let left = until.saturating_duration_since(self.clock.now());
        let _waiting = Counted::new(self.series.waiting());
        match tokio::time::timeout(left, place).await {
            Ok(Ok(place)) => Ok(place),
            // Nobody closes a semaphore.
            Ok(Err(_)) | Err(_) => Err(self.busy(limit)),
        }
    }

    fn busy(&self, limit: &'static str) -> Error {
        self.refused(Error::Busy {
            layer: self.node.clone(),
            limit,
        })
    }

    fn refused(&self, error: Error) -> Error {
        self.series.refused(match &error {
            Error::Busy { .. } => "busy",
            Error::Closed { .. } => "closed",
            error if error.retry_after().is_some() => "resting",
            _ => "open",
        });
        error
    }

    /// Changes the breaker, and lets all who wait look again.
    fn change(&self, change: impl FnOnce(&mut Breaker)) {
        self.watched(&mut self.breaker.lock(), change);
        self.told.send_modify(|times| *times += 1);
    }

    /// Asks the breaker or changes it, and says so if that changes what it is.
    fn watched<T>(&self, watched: &mut Watched, with: impl FnOnce(&mut Breaker) -> T) -> T {
        let before = watched.breaker.phase();
        let outcome = with(&mut watched.breaker);
        let after = watched.breaker.phase();
        if before != after {
            self.series.phase(after);
            self.say(after, watched.breaker.away(self.clock.now()));
        }
        outcome
    }

    fn say(&self, phase: Phase, away: Option<Error>) {
        let upstream = self.series.upstream();
        match (phase, away) {
            (Phase::Open, Some(error)) => {
                tracing::warn!(upstream, %error, "upstream is only probed from now on");
            }
            (Phase::Resting, Some(error)) => {
                let wait_s = error.retry_after().map_or(0, |wait| wait.as_secs());
                tracing::warn!(upstream, wait_s, %error, "upstream is left alone");
            }
            (phase, _) => tracing::info!(upstream, state = phase.as_str(), "upstream is asked again"),
        }
    }
}

/// The right to one request, while the window is open; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    urgency: Urgency,
    load: Load,
    _inside: Counted,
    _body: Vec<OwnedSemaphorePermit>,
    question: Option<(Option<OwnedSemaphorePermit>, Option<Trial>)>,
}

impl Pass {
    /// The header is here: others may ask.
    pub(super) fn answered(&mut self) {
        self.question = None;
    }

    /// What it is for, by now.
    pub(super) fn class(&self) -> Class {
        self.urgency.get()
    }

    pub(super) fn line(&self) -> &Line {
        &self.gate.line
    }

    /// Whether it is better begun again later than kept waiting.
    pub(super) fn may_make_way(&self) -> bool {
        self.load == Load::Transfer
    }

    /// Does `work`, unless the window closes before it is done: then that is the error, and the work is dropped.
    pub(super) async fn while_open<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let gate = &self.gate;
        if gate.hours.lets_through(self.class()) {
            return Ok(work.await);
        }
        let mut turns = gate.hours.subscribe();
        if let Some(error) = gate.closed(self.class()) {
            return Err(error);
        }
        let closing = async {
            loop {
                if let Some(error) = gate.closed(self.class()) {
                    return error;
                }
                // The bytes of the day tell nobody.
                let _ = tokio::time::timeout(LOOK, turns.changed()).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            error = closing => Err(error),
        }
    }
}

/// Counts as long as it lives.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whoever probes; another may when it is dropped.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) gate: Arc<Gate>,
    /// Whether there is still something to probe.
    probes: bool,
}

impl Prober {
    /// When the next probe is due; `None`: never, and somebody else probes the next time.
    pub(super) fn next(&mut self) -> Option<Instant> {
        let mut watched = self.gate.breaker.lock();
        let at = watched.breaker.probe_at();
        watched.probing = at.is_some();
        self.probes = at.is_some();
        at
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if self.probes {
            self.gate.breaker.lock().probing = false;
        }
    }
}

/// The turn to ask while all others wait; given back when dropped.
#[derive(Debug)]
struct Trial {
    gate: Arc<Gate>,
    turn: Turn,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.gate.change(|breaker| breaker.leave(self.turn));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bandwidth::Bandwidth;
    use super::super::metrics::Metrics;
    use super::*;
    use crate::units::{Live, Notes};

    fn gate(transfers: usize, requests: usize) -> (Arc<Gate>, Series) {
        let series = Metrics::new(&prometheus::Registry::new()).of("quay.io");
        let limits = Limits { transfers, requests };
        let clock = Clock::system();
        let hours = Hours::always(clock.clone());
        let line = Line::new(
            "quay.io",
            &Live::new(Bandwidth::default()),
            &hours,
            &Notes::forgotten(),
            &clock,
        );
        (Arc::new(Gate::new("here", limits, &series, hours, line, clock)), series)
    }

    const SHORT: Patience = Patience {
        span: Duration::from_millis(20),
        is_spare: false,
    };
    const LONG: Patience = Patience {
        span: Duration::from_secs(9),
        is_spare: false,
    };

    #[tokio::test]
    async fn a_pass_is_counted_by_class_until_it_is_dropped() {
        let (gate, series) = gate(1, 1);

        let pass = gate
            .pass(Class::Synchronisation, Load::Question, None, SHORT)
            .await
            .unwrap();
        assert_eq!(series.inside(Class::Synchronisation).get(), 1);
        assert_eq!(series.inside(Class::Interactive).get(), 0);

        drop(pass);
        assert_eq!(series.inside(Class::Synchronisation).get(), 0);
    }

    #[tokio::test]
    async fn a_transfer_keeps_its_place_while_its_bytes_come_and_a_question_until_its_header() {
        let (gate, _) = gate(1, 1);
        let mut transfer = gate
            .pass(Class::Interactive, Load::Transfer, None, SHORT)
            .await
            .unwrap();

        let asked = gate.pass(Class::Interactive, Load::Question, None, SHORT).await;
        assert!(matches!(asked, Err(Error::Busy { limit: "requests", .. })));
        transfer.answered();
        drop(
            gate.pass(Class::Interactive, Load::Question, None, SHORT)
                .await
                .unwrap(),
        );
        let second = gate.pass(Class::Interactive, Load::Transfer, None, SHORT).await;
        assert!(matches!(second, Err(Error::Busy { limit: "transfers", .. })));

        drop(transfer);
        gate.pass(Class::Interactive, Load::Transfer, None, SHORT)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn parts_take_no_more_than_half_of_the_places_and_wait_for_none() {
        let (gate, _) = gate(4, 64);
        let part = || gate.pass(Class::Interactive, Load::Part, None, LONG);
        let held = [part().await.unwrap(), part().await.unwrap()];

        assert!(matches!(part().await, Err(Error::Busy { .. })));
        let transfer = gate.pass(Class::Interactive, Load::Transfer, None, SHORT).await;

        assert!(transfer.is_ok());
        drop(held);
    }
}
