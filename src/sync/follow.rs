//! Following the feed of the parent: what it tells is not fresh here any more, is told on to the nodes below, and, where a rule
//! selects it, is brought at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::{Line, OLDEST, Told, VERSION};
use super::state::{Scope, State};
use super::{Shared, Syncer, Trigger};
use crate::oci::{Registry, Repository, Tag};
use crate::parent::{Class, Since};
use crate::store::{About, Event, Slot};
use crate::units::with_causes;

/// How long the parent may have nothing to tell.
const WAIT: Duration = Duration::from_secs(50);

/// Between two attempts, longer each time.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A parent without a feed may have one some day.
const NONE: Duration = Duration::from_secs(300);

/// It is looked so often whether anybody wants the feed, or the parent is back.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of the feed.
#[derive(Default)]
pub(super) struct Following {
    pub(super) state: Fed,
    /// What has changed, of what a rule may select; a repository alone: anything of it.
    pub(super) changed: BTreeSet<(Repository, Option<Tag>)>,
    /// Something was missed.
    pub(super) has_missed: bool,
    /// When it was last heard, or could not be as the parent was away.
    pub(super) heard: Option<Instant>,
    /// Whether the parent itself hears what happens above it, as far as it said.
    pub(super) is_whole: bool,
}

/// Whether what happens above is heard.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Fed {
    /// Nobody knows yet.
    #[default]
    Unknown,
    /// As it happens.
    Live,
    /// Not at this time.
    Off,
    /// The parent has none.
    None,
}

impl Following {
    /// Whether the parent hears all that happens above it, as far as it said when it was last heard.
    pub(super) fn is_whole_or_was(&self) -> bool {
        self.is_whole || self.state == Fed::Off
    }
}

impl Fed {
    /// As reports name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Live => "live",
            Self::Off => "off",
            Self::None => "none",
        }
    }
}

/// How far it was followed.
#[derive(Default)]
struct Known {
    epoch: String,
    last: u64,
}

impl Syncer {
    /// Follows the feed of the parent, for as long as the node runs, while a rule or a node below wants to know.
    pub async fn follow(self) {
        let shared = &self.shared;
        let registry = shared.names.unprefixed().clone();
        if !shared.fetch.asks(&registry) {
            shared.is_fed(Fed::None, false);
            // Nothing is above.
            shared.feed.hears(true);
            return;
        }
        let (mut known, mut pause) = (Known::default(), PAUSE);
        loop {
            let is_wanted = !shared.rules.get().is_empty() || shared.feed.is_listened_to();
            if !is_wanted || shared.is_away(Class::Synchronisation) {
                shared.is_fed(Fed::Off, false);
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match shared.ask_for_news(&registry, &known).await {
                Ok(Some(told)) => {
                    pause = PAUSE;
                    known = shared.hear(told, &known);
                }
                Ok(None) => {
                    shared.is_fed(Fed::None, false);
                    known = Known::default();
                    tokio::time::sleep(NONE).await;
                }
                Err(words) => {
                    tracing::debug!(words, "the feed of the parent broke off");
                    shared.is_fed(Fed::Off, false);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

impl Shared {
    /// What the parent has to tell; `None`: it has no feed, or one of another form.
    async fn ask_for_news(&self, registry: &Registry, known: &Known) -> Result<Option<Told>, String> {
        let since = Since {
            version: VERSION,
            epoch: &known.epoch,
            last: known.last,
            // What came while it was not heard is told at once; and whoever tries a parent that failed must not take long for it.
            wait: match self.following.lock().state {
                Fed::Live => WAIT,
                _ => Duration::ZERO,
            },
        };
        let asker = self.asker_at_once(Class::Synchronisation);
        let answer = self.fetch.feed(registry, since, &asker).await;
        let Some(bytes) = answer.map_err(|error| with_causes(&error))? else {
            return Ok(None);
        };
        let told = serde_json::from_slice::<Told>(&bytes).map_err(|error| error.to_string())?;
        Ok((OLDEST..=VERSION).contains(&told.version).then_some(told))
    }

    /// Takes in what the parent tells; how far it is known by now.
    fn hear(self: &Arc<Self>, told: Told, known: &Known) -> Known {
        if told.complete && told.epoch == known.epoch {
            let events: Vec<Event> = told
                .events
                .iter()
                .filter(|line| line.sequence > known.last)
                .filter_map(|line| self.meant(line, &told.unprefixed))
                .collect();
            // What is brought just now may not be what the tag names any more.
            let is_still = self.book.lock().pass.sync_state != State::Syncing;
            for event in &events {
                self.fetch.doubt(&event.repository, &event.about);
                if !(is_still && self.knows(event)) {
                    self.note(event);
                }
            }
            // In this order: whoever is told asks at once.
            self.feed.tell(events);
        } else {
            self.fetch.doubt_all();
            self.feed.renew();
            let is_first = known.epoch.is_empty() && self.book.lock().pass.number == 0;
            self.following.lock().has_missed |= !is_first;
        }
        self.is_fed(Fed::Live, told.heard);
        let is_all = {
            let following = self.following.lock();
            told.heard && !following.has_missed && following.changed.is_empty()
        };
        if is_all {
            self.book.lock().stands(self.clock.wall());
        }
        self.wake.notify_one();
        Known {
            epoch: told.epoch,
            last: told.last,
        }
    }

    /// What a line tells of, as this node calls it; `None`: of what it does not know.
    fn meant(&self, line: &Line, unprefixed: &str) -> Option<Event> {
        let ours = self.names.unprefixed();
        let registry = match line.ns.as_str() {
            "" if ours.is_own() || ours.as_str() == unprefixed => ours.clone(),
            "" => return None,
            named => named.parse().ok()?,
        };
        let repository = Repository::new(registry, line.repository.parse().ok()?);
        let about = match (&line.tag, &line.subject) {
            (Some(tag), _) => About::Tag(tag.clone()),
            (None, Some(subject)) => About::Referrers(*subject),
            (None, None) => return None,
        };
        self.fetch.asks(&repository.registry).then_some(Event {
            repository,
            about,
            digest: line.digest,
        })
    }

    /// Whether a tag names here already what it names there.
    fn knows(&self, event: &Event) -> bool {
        let About::Tag(tag) = &event.about else { return false };
        let row = self.store.tag(&event.repository, &Slot::Tag(tag.clone()));
        row.is_some_and(|row| Some(row.digest) == event.digest)
    }

    /// Has it looked at, if a rule may select it.
    fn note(&self, event: &Event) {
        let name = self.names.spell(&event.repository);
        if !self.rules().iter().any(|rule| rule.has(&name)) {
            return;
        }
        let tag = match &event.about {
            About::Tag(tag) => Some(tag.clone()),
            About::Referrers(subject) => {
                self.referred.invalidate(&(event.repository.clone(), *subject));
                None
            }
        };
        self.following.lock().changed.insert((event.repository.clone(), tag));
    }

    fn is_fed(&self, fed: Fed, is_whole: bool) {
        self.feed.hears(is_whole);
        let mut following = self.following.lock();
        following.is_whole = is_whole;
        let was = std::mem::replace(&mut following.state, fed);
        match fed {
            Fed::Live => following.heard = Some(self.clock.now()),
            // It will tell what happens meanwhile.
            Fed::Off if following.heard.is_some() && self.is_away(Class::Synchronisation) => {
                following.heard = Some(self.clock.now());
            }
            Fed::Off | Fed::Unknown => {}
            Fed::None => following.heard = None,
        }
        drop(following);
        if was != fed {
            tracing::info!(feed = fed.as_str(), "the feed of the parent");
            self.wake.notify_one();
        }
    }

    /// What has changed since it was looked at, and why.
    pub(super) fn take_changed(&self) -> Option<(Trigger, Scope)> {
        let changed = std::mem::take(&mut self.following.lock().changed);
        let named = changed
            .into_iter()
            .map(|(repository, tag)| (self.names.spell(&repository), tag));
        let named: Vec<(String, Option<Tag>)> = named.collect();
        (!named.is_empty()).then_some((Trigger::ChangeFeed, Scope { named, is_fed: true }))
    }
}
