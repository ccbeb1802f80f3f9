//! What has changed here, told to the nodes below as it happens: the last of it, in order and numbered.
//!
//! It lives in memory. Whoever asks for what is forgotten, or for another run of this node, is told so and looks at everything
//! (RecoveryService); what is told is a hint, and the node below asks what is true.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::oci::{Digest, Registry, Repository, Tag};
use crate::parent::Schedule;
use crate::store::{About, Event, Store};
use crate::units::{Clock, Live, Moment};

/// The newest form of the feed that this program speaks. 2 told what refers to manifests as well, and when it happened.
pub const VERSION: u32 = 2;

/// The oldest.
pub const OLDEST: u32 = 1;

/// Events that are remembered, however long they might be.
const MOST: usize = 10_000;

/// Events in one answer.
const PAGE: usize = 1000;

/// Nobody is kept waiting for longer than that: what stands in between hangs up after a minute, usually.
const LONGEST: Duration = Duration::from_secs(55);

/// Whoever asked within this still listens.
const LISTENS: Duration = Duration::from_secs(120);

/// The feed of one node. Clones are the same.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    ring: Mutex<Ring>,
    /// Changes with the ring, and at the end.
    grown: watch::Sender<Grown>,
    unprefixed: Registry,
    schedule: Live<Schedule>,
    clock: Clock,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Grown {
    last: u64,
    renewed: u64,
    is_over: bool,
}

struct Ring {
    /// Which run it is, or which part of one: another one, and nothing of before counts.
    epoch: String,
    /// Number of the last.
    last: u64,
    numbered: VecDeque<Numbered>,
    /// What was told last of each, as far as it is remembered.
    told: HashMap<(Repository, About), (u64, Option<Digest>)>,
    /// When somebody last asked.
    asked: Option<Instant>,
    /// Whether what happens above is heard.
    is_heard: bool,
}

/// An event with its number.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    since: Instant,
    at: Moment,
    event: Event,
}

impl Numbered {
    /// Of what.
    fn repository(&self) -> &Repository {
        &self.event.repository
    }
}

/// What a node below is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Told {
    /// In which form.
    pub version: u32,
    /// Which run of the node.
    pub epoch: String,
    /// What it means by a repository without a registry; empty: its own.
    #[serde(default)]
    pub unprefixed: String,
    /// The number up to which nothing is missing.
    pub last: u64,
    /// Whether nothing is missing since what was asked for.
    pub complete: bool,
    /// Whether the node would know of what happens above it: nothing is above it, or it hears that.
    #[serde(default)]
    pub heard: bool,
    /// In the order in which it happened.
    pub events: Vec<Line>,
}

/// One event, as it is written.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    /// Its number. There may be others in between that are not for whoever asks.
    pub sequence: u64,
    /// The registry, where that is not the one that is meant anyway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ns: String,
    /// The repository.
    pub repository: String,
    /// Which tag; else it is about a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// What refers to this manifest has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// What the tag names now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
}

/// What a node below asks for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The newest form that it understands.
    pub version: u32,
    /// The run that it knows; empty: none.
    pub epoch: String,
    /// The last number of it that it knows.
    pub since: u64,
    /// How long it would wait.
    pub wait: Duration,
}

impl Feed {
    /// Begins empty, of a node that means `unprefixed` by a repository without a registry. What is older than the schedule's `message_ttl` is forgotten.
    pub fn new(unprefixed: Registry, schedule: Live<Schedule>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            ring: Mutex::new(Ring::new()),
            grown: watch::Sender::new(Grown::default()),
            unprefixed,
            schedule,
            clock,
        }))
    }

    /// Tells what changes in `store`, for as long as the node runs.
    pub async fn gather(self, store: Store) {
        let mut changes = store.events();
        let mut known = *changes.borrow_and_update();
        while changes.changed().await.is_ok() {
            let (events, count) = store.events_after(known);
            known = count;
            match events {
                Some(events) => self.tell(events),
                None => self.renew(),
            }
        }
    }

    /// Tells these, but for what was told already.
    pub(super) fn tell(&self, events: Vec<Event>) {
        let (now, at) = (self.0.clock.now(), Moment::from(self.0.clock.wall()));
        let mut ring = self.0.ring.lock();
        for event in events {
            ring.add(event, now, at);
        }
        ring.forget(now, self.0.schedule.get().message_ttl.duration());
        let last = ring.last;
        drop(ring);
        self.0.grown.send_if_modified(|grown| {
            let is_more = grown.last != last;
            grown.last = last;
            is_more
        });
    }

    /// Whoever listens is to look at everything: something may have changed that nobody told.
    pub(super) fn renew(&self) {
        let mut ring = self.0.ring.lock();
        *ring = Ring {
            asked: ring.asked,
            is_heard: ring.is_heard,
            ..Ring::new()
        };
        drop(ring);
        self.0.grown.send_modify(|grown| {
            grown.last = 0;
            grown.renewed += 1;
        });
    }

    /// Whether what happens above is heard here, from now on.
    pub(super) fn hears(&self, is_heard: bool) {
        self.0.ring.lock().is_heard = is_heard;
    }

    /// The node stops: nobody waits any longer.
    pub fn end(&self) {
        self.0.grown.send_modify(|grown| grown.is_over = true);
    }

    /// Whether a node below listens, or did a moment ago.
    pub(super) fn is_listened_to(&self) -> bool {
        let asked = self.0.ring.lock().asked;
        asked.is_some_and(|asked| self.0.clock.now().saturating_duration_since(asked) < LISTENS)
    }

    /// What happened since, in the form that is asked for: at once if something did, else as soon as something does. `shows`: whether
    /// an event is for whoever asks.
    ///
    /// `None`: in no such form.
    pub async fn since(&self, question: &Question, shows: impl Fn(&Repository) -> bool) -> Option<Told> {
        let version = question.version.min(VERSION);
        if version < OLDEST {
            return None;
        }
        let mut grown = self.0.grown.subscribe();
        let wait = question.wait.min(LONGEST);
        let until = self.0.clock.now() + wait;
        loop {
            let is_over = grown.borrow_and_update().is_over;
            let told = self.told(question, version, &shows);
            let is_news = !told.complete || !told.events.is_empty();
            let left = until.saturating_duration_since(self.0.clock.now());
            if is_news || is_over || tokio::time::timeout(left, grown.changed()).await.is_err() {
                return Some(told);
            }
        }
    }

    fn told(&self, question: &Question, version: u32, shows: impl Fn(&Repository) -> bool) -> Told {
        let now = self.0.clock.now();
        let mut ring = self.0.ring.lock();
        ring.asked = Some(now);
        ring.forget(now, self.0.schedule.get().message_ttl.duration());
        let first = ring.last - ring.numbered.len() as u64;
        let complete = question.epoch == ring.epoch && (first..=ring.last).contains(&question.since);
        let (mut events, mut last) = (Vec::new(), ring.last);
        if complete {
            let new = ring.numbered.iter().filter(|numbered| numbered.number > question.since);
            for numbered in new.filter(|numbered| shows(numbered.repository())) {
                if events.len() == PAGE {
                    last = numbered.number - 1;
                    break;
                }
                events.extend(self.line(numbered, version));
            }
        }
        Told {
            version,
            epoch: ring.epoch.clone(),
            unprefixed: self.0.unprefixed.as_str().to_owned(),
            last,
            complete,
            heard: ring.is_heard,
            events,
        }
    }
}

impl Feed {
    /// As it is written in a form; `None`: the form knows no such thing.
    fn line(&self, numbered: &Numbered, version: u32) -> Option<Line> {
        let Event {
            repository,
            about,
            digest,
        } = &numbered.event;
        let (tag, subject) = match about {
            About::Tag(tag) => (Some(tag.clone()), None),
            About::Referrers(_) if version < 2 => return None,
            About::Referrers(subject) => (None, Some(*subject)),
        };
        Some(Line {
            sequence: numbered.number,
            ns: match repository.registry == self.0.unprefixed {
                true => String::new(),
                false => repository.registry.as_str().to_owned(),
            },
            repository: repository.name.as_str().to_owned(),
            tag,
            subject,
            digest: *digest,
            at: (version >= 2).then_some(numbered.at),
        })
    }
}

impl Ring {
    fn new() -> Self {
        Self {
            epoch: format!("{:016x}", rand::random::<u64>()),
            last: 0,
            numbered: VecDeque::new(),
            told: HashMap::new(),
            asked: None,
            is_heard: false,
        }
    }

    fn add(&mut self, event: Event, since: Instant, at: Moment) {
        let key = (event.repository.clone(), event.about.clone());
        let is_known = self
            .told
            .get(&key)
            .is_some_and(|(_, digest)| digest.is_some() && *digest == event.digest);
        if is_known {
            return;
        }
        self.last += 1;
        self.told.insert(key, (self.last, event.digest));
        self.numbered.push_back(Numbered {
            number: self.last,
            since,
            at,
            event,
        });
    }

    fn forget(&mut self, now: Instant, ttl: Duration) {
        let is_old = |numbered: &Numbered| now.saturating_duration_since(numbered.since) > ttl;
        while self.numbered.len() > MOST || self.numbered.front().is_some_and(is_old) {
            let Some(Numbered { number, event, .. }) = self.numbered.pop_front() else {
                return;
            };
            let key = (event.repository, event.about);
            if self.told.get(&key).is_some_and(|(last, _)| *last == number) {
                self.told.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Hands;

    fn feed(ttl: &str) -> (Feed, Hands) {
        let (clock, hand) = Clock::manual();
        let schedule = toml::from_str(&format!("message_ttl = \"{ttl}\"")).unwrap();
        (Feed::new(Registry::own(), Live::new(schedule), clock), hand)
    }

    fn event(repository: &str, tag: &str, digest: Option<&str>) -> Event {
        Event {
            repository: Repository::new(Registry::own(), repository.parse().unwrap()),
            about: About::Tag(tag.parse().unwrap()),
            digest: digest.map(|bytes| Digest::of(bytes.as_bytes())),
        }
    }

    fn ask(version: u32, told: Option<&Told>) -> Question {
        Question {
            version,
            epoch: told.map(|told| told.epoch.clone()).unwrap_or_default(),
            since: told.map_or(0, |told| told.last),
            wait: Duration::ZERO,
        }
    }

    async fn told(feed: &Feed, question: &Question) -> Told {
        feed.since(question, |_| true).await.unwrap()
    }

    #[tokio::test]
    async fn events_are_told_in_order_once_and_what_is_known_already_not_again() {
        let (feed, _) = feed("2d");
        let first = told(&feed, &ask(2, None)).await;
        assert!(!first.complete);

        feed.tell(vec![event("a", "v1", Some("1")), event("b", "v1", Some("2"))]);
        feed.tell(vec![
            event("a", "v1", Some("1")),
            event("a", "v1", None),
            event("a", "v1", None),
        ]);
        let second = told(&feed, &ask(2, Some(&first))).await;

        let seen: Vec<_> = second
            .events
            .iter()
            .map(|line| (line.sequence, line.repository.as_str(), line.digest.is_some()))
            .collect();
        // Of what nobody says what it is, nobody can say that it is the same.
        assert_eq!(seen, [(1, "a", true), (2, "b", true), (3, "a", false), (4, "a", false)]);
        assert!(second.complete && told(&feed, &ask(2, Some(&second))).await.events.is_empty());
    }

    #[tokio::test]
    async fn more_than_fits_in_one_answer_is_told_in_the_next_and_nothing_of_it_twice() {
        let (feed, _) = feed("2d");
        let mut last = told(&feed, &ask(2, None)).await;
        let all = PAGE as u64 * 2 + 7;
        feed.tell((0..all).map(|at| event("a", &format!("v{at}"), Some("1"))).collect());

        let mut seen = Vec::new();
        for length in [PAGE, PAGE, 7, 0] {
            last = told(&feed, &ask(2, Some(&last))).await;
            assert!(
                last.complete && last.events.len() == length,
                "{} events",
                last.events.len()
            );
            seen.extend(last.events.iter().map(|line| line.sequence));
        }
        assert!(seen.into_iter().eq(1..=all));
    }

    #[tokio::test]
    async fn no_more_events_are_remembered_than_there_may_be() {
        let (feed, _) = feed("2d");
        let first = told(&feed, &ask(2, None)).await;
        let one = |at: usize| event("a", &format!("v{at}"), Some("1"));

        feed.tell((0..MOST).map(one).collect());
        assert!(told(&feed, &ask(2, Some(&first))).await.complete);
        feed.tell(vec![one(MOST)]);
        assert!(!told(&feed, &ask(2, Some(&first))).await.complete);
    }

    #[tokio::test]
    async fn whoever_missed_what_is_forgotten_is_told_that_something_is_missing() {
        let (feed, hand) = feed("1d");
        let first = told(&feed, &ask(2, None)).await;
        feed.tell(vec![event("a", "v1", Some("1"))]);
        hand.advance(Duration::from_secs(86_401));
        feed.tell(vec![event("a", "v2", Some("2"))]);

        let second = told(&feed, &ask(2, Some(&first))).await;
        assert!(!second.complete && second.events.is_empty() && second.last == 2);
        assert!(told(&feed, &ask(2, Some(&second))).await.complete);

        feed.renew();
        assert!(!told(&feed, &ask(2, Some(&second))).await.complete);
    }

    #[tokio::test]
    async fn what_is_not_for_whoever_asks_is_passed_over_and_counts_as_known() {
        let (feed, _) = feed("2d");
        let first = told(&feed, &ask(2, None)).await;
        feed.tell(vec![event("a", "v1", Some("1")), event("b", "v1", Some("2"))]);

        let shows = |repository: &Repository| repository.name.as_str() == "a";
        let second = feed.since(&ask(2, Some(&first)), shows).await.unwrap();

        assert_eq!((second.events.len(), second.last), (1, 2));
    }

    #[tokio::test]
    async fn an_older_form_tells_less_and_a_newer_one_is_answered_in_ours() {
        let (feed, _) = feed("2d");
        let first = told(&feed, &ask(1, None)).await;
        assert_eq!(first.version, 1);
        let signed = Event {
            about: About::Referrers(Digest::of(b"x")),
            ..event("a", "v1", None)
        };
        feed.tell(vec![event("a", "v1", Some("1")), signed]);

        let old = told(&feed, &ask(1, Some(&first))).await;
        let new = told(&feed, &ask(VERSION + 1, Some(&first))).await;

        assert!(old.events.len() == 1 && old.events[0].at.is_none() && old.last == 2);
        assert!(new.version == VERSION && new.events.len() == 2 && new.events[1].subject.is_some());
        assert!(feed.since(&ask(0, None), |_| true).await.is_none());
    }

    #[tokio::test]
    async fn whoever_asks_waits_until_something_happens_and_no_longer_than_the_node_runs() {
        let (feed, _) = feed("2d");
        let first = told(&feed, &ask(2, None)).await;
        let waiting = |told: &Told| Question {
            wait: Duration::from_secs(50),
            ..ask(2, Some(told))
        };

        let question = waiting(&first);
        let (second, ()) = tokio::join!(told(&feed, &question), async {
            tokio::task::yield_now().await;
            feed.tell(vec![event("a", "v1", Some("1"))]);
        });
        assert_eq!(second.events.len(), 1);

        let question = waiting(&second);
        let (third, ()) = tokio::join!(told(&feed, &question), async {
            tokio::task::yield_now().await;
            feed.end();
        });
        assert!(third.complete && third.events.is_empty());
    }
}
