//! One pass: what is selected is looked for at the parent, compared with what is here, fetched, and shown once it is whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::closure::{Closure, Want, sum};
use super::config::Rule;
use super::state::{Progress, RuleReport, Scope};
use super::{Shared, Trigger};
use crate::fetch::{Error, Sighting};
use crate::oci::{Digest, Repository, Tag};
use crate::parent::Class;
use crate::store::{Origin, Slot};
use crate::units::{Size, with_causes};

/// Tags that are looked at, and whose content is fetched, at a time.
const TAGS_AT_ONCE: usize = 8;

/// After what the parent told it is looked so often at the most what is not selected any more.
const SETTLED: Duration = Duration::from_secs(60);

/// Troubles that are told one by one.
const TOLD: usize = 20;

/// Of the tags that a pass knows from before, those that it takes away at once: one in so many, and always as many as
/// [`FEW`]. A parent that seems to have lost more than that has more likely lost its head.
const MOST_DROPPED: usize = 2;
const FEW: usize = 10;

/// Of a tag, or a list, that the parent gave as the last it knew.
const OLD: &str = "the parent could not ask its own, and this is the last that it knew";

/// What a pass has taken for selected so far.
#[derive(Default)]
pub(super) struct Taken {
    digests: HashSet<Digest>,
    bytes: u64,
}

/// A tag that is selected.
struct Wanted {
    repository: Repository,
    tag: Tag,
    want: Want,
    priority: i64,
    /// The rules that select it, by their places.
    rules: Vec<usize>,
    /// How urgent it is.
    class: Class,
}

/// What is selected, as far as it could be found out.
struct Selection {
    /// How urgent that is.
    class: Class,
    wanted: Vec<Arc<Wanted>>,
    /// Tags that are here and that the parent has no longer.
    gone: Vec<(Repository, Tag)>,
    troubles: Vec<String>,
}

/// Why a tag is not here, whole.
enum Miss {
    /// The parent has it no longer.
    Gone,
    Failed(String),
}

/// Work on all that is wanted, some of it at a time; what is done comes in no order.
struct Spread<'a, T> {
    left: std::iter::Cloned<std::slice::Iter<'a, Arc<Wanted>>>,
    under_way: JoinSet<(Arc<Wanted>, Result<T, Miss>)>,
}

impl<'a, T: Send + 'static> Spread<'a, T> {
    fn over(wanted: &'a [Arc<Wanted>]) -> Self {
        Self {
            left: wanted.iter().cloned(),
            under_way: JoinSet::new(),
        }
    }

    /// Begins nothing more.
    fn stop(&mut self) {
        self.left = [].iter().cloned();
    }

    /// What was done next; `None`: all was.
    async fn next<F>(&mut self, work: impl Fn(Arc<Wanted>) -> F) -> Option<(Arc<Wanted>, Result<T, Miss>)>
    where
        F: Future<Output = Result<T, Miss>> + Send + 'static,
    {
        loop {
            while self.under_way.len() < TAGS_AT_ONCE
                && let Some(wanted) = self.left.next()
            {
                let working = work(Arc::clone(&wanted));
                self.under_way.spawn(async move { (wanted, working.await) });
            }
            match self.under_way.join_next().await? {
                Ok(done) => return Some(done),
                // A mistake of ours, which the log has: it is made again in the next pass, or not.
                Err(error) => tracing::error!(%error, "a tag was given up"),
            }
        }
    }
}

/// What a pass would do.
#[derive(Debug, Default, Serialize)]
pub struct Planned {
    /// Tags that would be fetched, or moved.
    pub fetch: Vec<PlannedTag>,
    /// Tags that would be taken away.
    pub drop: Vec<String>,
    /// Tags of which all is here.
    pub unchanged: u64,
    /// Bytes that would be fetched, each blob once.
    pub bytes: u64,
    /// What could not be looked at.
    pub errors: Vec<String>,
}

/// A tag that would be fetched.
#[derive(Debug, Serialize)]
pub struct PlannedTag {
    /// As clients write it.
    pub name: String,
    /// What it names at the parent.
    pub digest: Digest,
    /// Blobs that are missing.
    pub blobs: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// What of a tag lies here, as far as what lies here tells.
#[derive(Debug, Serialize)]
pub struct Completeness {
    /// What it names here.
    pub digest: Digest,
    /// Whether nothing is missing.
    pub complete: bool,
    /// Manifests, lists of referrers and blobs.
    pub items: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Of them, those that are missing.
    pub missing_items: usize,
    /// As they are said to have.
    pub missing_bytes: u64,
}

impl Shared {
    /// Makes a pass over what `scope` names.
    pub(super) async fn pass(self: &Arc<Self>, trigger: Trigger, scope: &Scope) {
        if scope.is_ordered() {
            self.referred.invalidate_all();
        }
        let rules = self.rules();
        self.book.lock().begin(trigger, self.clock.wall(), self.clock.now());
        let mut selection = self.select(&rules, scope, trigger.class()).await;
        selection.wanted.sort_by_key(|wanted| Reverse(wanted.priority));
        self.progress(|progress| progress.tags = selection.wanted.len() as u64);
        // What is named comes on top of what is selected already.
        if scope.is_whole() {
            *self.taken.lock() = Taken::default();
            let others = selection.wanted.iter().any(|wanted| self.is_from_elsewhere(wanted));
            self.book.lock().has_others = others;
        }
        let reports = self.bring_all(&rules, scope, &mut selection).await;
        let Selection {
            wanted,
            gone,
            mut troubles,
            ..
        } = selection;
        if let Err(why) = self.drop_gone(&wanted, gone, scope.is_ordered()) {
            troubles.push(why);
        }
        if scope.is_whole() {
            self.keep_selected(&rules, &wanted, troubles.is_empty()).await;
        } else {
            self.settle().await;
        }
        self.close(scope.is_whole().then_some(reports), troubles);
    }

    /// Whether it does not come by the parent, which tells nothing of it.
    fn is_from_elsewhere(&self, wanted: &Wanted) -> bool {
        let parents = self.names.unprefixed();
        !self.fetch.is_through(parents, &wanted.repository.registry)
    }

    /// Brings what is wanted, some of it at a time, and adds what is gone and what went wrong; what each rule comes to.
    async fn bring_all(self: &Arc<Self>, rules: &[Rule], scope: &Scope, selection: &mut Selection) -> Vec<RuleReport> {
        let mut reports: Vec<RuleReport> = rules.iter().enumerate().map(report_of).collect();
        let Selection {
            wanted: all,
            gone,
            troubles,
            ..
        } = selection;
        let mut fates = Spread::over(all);
        let work = |wanted: Arc<Wanted>| {
            let shared = Arc::clone(self);
            async move { shared.bring(&wanted).await }
        };
        while let Some((wanted, fate)) = fates.next(work).await {
            self.progress(|progress| progress.tags_done += 1);
            for rule in &wanted.rules {
                let report = &mut reports[*rule];
                match &fate {
                    Ok(closure) => {
                        report.tags += 1;
                        report.complete += 1;
                        report.bytes += closure.bytes();
                    }
                    Err(Miss::Gone) => report.absent += 1,
                    Err(Miss::Failed(_)) => report.tags += 1,
                }
            }
            match fate {
                Ok(_) => {}
                Err(Miss::Gone) => {
                    if scope.is_ordered() && !self.is_parents(&wanted.repository, &wanted.tag) {
                        troubles.push(format!("{}: there is no such tag", self.name_of(&wanted)));
                    }
                    gone.push((wanted.repository.clone(), wanted.tag.clone()));
                }
                Err(Miss::Failed(why)) => {
                    troubles.push(format!("{}: {why}", self.name_of(&wanted)));
                    // The others would wait for it one after the other.
                    if self.away(&wanted.repository.registry, wanted.class).is_some() {
                        fates.stop();
                    }
                }
            }
        }
        if self.book.lock().pass.progress.tags_done < all.len() as u64 {
            troubles.push("not all tags were looked at".to_owned());
        }
        reports
    }

    /// After a look at everything: what is selected stays, and what is so no longer may go.
    async fn keep_selected(&self, rules: &[Rule], wanted: &[Arc<Wanted>], is_well: bool) {
        let mut kept = self.taken.lock().digests.clone();
        // Of what could not be looked at, what is shown stays.
        if !is_well {
            kept.extend(self.shown().await);
        }
        self.store.select_only(kept);
        if is_well {
            let leaving = |wanted: &Arc<Wanted>| {
                let said = wanted.rules.iter();
                let said = said.map(|rule| rules[*rule].leaving.unwrap_or(self.leaving));
                let key = (self.names.spell(&wanted.repository), wanted.tag.clone());
                Some((key, said.max()?))
            };
            let gone = self.let_go(wanted.iter().filter_map(leaving).collect()).await;
            self.progress(|progress| progress.dropped += gone);
        }
    }

    /// Ends the pass in the book. `reports`: what each rule comes to, if all of it was looked at.
    fn close(&self, reports: Option<Vec<RuleReport>>, mut troubles: Vec<String>) {
        let now = self.clock.wall();
        let mut book = self.book.lock();
        let is_whole = reports.is_some();
        if let Some(mut reports) = reports {
            for report in &mut reports {
                let earlier = book.rules.iter().find(|earlier| earlier.name == report.name);
                report.in_sync_as_of = match troubles.is_empty() && report.complete == report.tags {
                    true => Some(now.into()),
                    false => earlier.and_then(|earlier| earlier.in_sync_as_of),
                };
            }
            book.rules = reports;
        }
        let untold = troubles.len().saturating_sub(TOLD);
        troubles.truncate(TOLD);
        if untold > 0 {
            troubles.push(format!("and {untold} more"));
        }
        troubles.into_iter().for_each(|trouble| book.fail(trouble));
        book.end(now, is_whole);
        self.metrics.ended(book.pass.sync_state);
        let pass = &book.pass;
        match pass.errors.first() {
            None => tracing::debug!(number = pass.number, tags = pass.progress.tags, "in sync"),
            Some(error) => tracing::warn!(number = pass.number, errors = pass.errors.len(), error, "not in sync"),
        }
    }

    /// What a pass over what `scope` names would do.
    pub(super) async fn planned(self: &Arc<Self>, scope: &Scope) -> Planned {
        let rules = self.rules();
        let Selection {
            wanted,
            mut gone,
            troubles,
            class: _,
        } = self.select(&rules, scope, Class::Manual).await;
        let mut planned = Planned {
            errors: troubles,
            ..Planned::default()
        };
        let mut looks = Spread::over(&wanted);
        let work = |wanted: Arc<Wanted>| {
            let shared = Arc::clone(self);
            async move { shared.look(&wanted).await }
        };
        let mut counted = HashSet::new();
        while let Some((wanted, seen)) = looks.next(work).await {
            match seen {
                Ok((Sighting { digest, .. }, closure)) => {
                    let slot = Slot::Tag(wanted.tag.clone());
                    let is_named = self
                        .store
                        .tag(&wanted.repository, &slot)
                        .is_some_and(|row| row.digest == digest);
                    if is_named && closure.missing.is_empty() {
                        planned.unchanged += 1;
                        continue;
                    }
                    let new = closure.missing.iter().filter(|(digest, _)| counted.insert(*digest));
                    planned.bytes = planned.bytes.saturating_add(sum(new.map(|(_, bytes)| bytes)));
                    planned.fetch.push(PlannedTag {
                        name: self.name_of(&wanted),
                        digest,
                        blobs: closure.missing.len(),
                        bytes: closure.missing_bytes(),
                    });
                }
                Err(Miss::Gone) => gone.push((wanted.repository.clone(), wanted.tag.clone())),
                Err(Miss::Failed(why)) => planned.errors.push(format!("{}: {why}", self.name_of(&wanted))),
            }
        }
        let known = |(repository, tag): &(Repository, Tag)| self.is_parents(repository, tag);
        let gone = gone.iter().filter(|gone| known(gone));
        planned.drop = gone
            .map(|(repository, tag)| format!("{}:{tag}", self.names.spell(repository)))
            .collect();
        planned.drop.sort();
        planned
    }

    /// Lets go of what was selected and is so no longer, now and then: all that is here is walked for it.
    async fn settle(&self) {
        let now = self.clock.now();
        {
            let mut settled = self.settled.lock();
            if now.saturating_duration_since(*settled) < SETTLED {
                return;
            }
            *settled = now;
        }
        let kept = self.shown().await;
        let sizes = kept.iter().filter_map(|digest| self.store.size_of(digest));
        let bytes = sizes.fold(0, u64::saturating_add);
        self.store.select_only(kept.clone());
        *self.taken.lock() = Taken { digests: kept, bytes };
    }

    /// Keeps from eviction what is here of what the rules select, without asking anybody.
    pub(super) async fn recall(&self) {
        self.store.select(&self.shown().await);
    }

    /// What the tags that are here and that the rules select need.
    async fn shown(&self) -> HashSet<Digest> {
        let rules = self.rules();
        let mut kept = HashSet::new();
        for repository in self.store.repositories() {
            let name = self.names.spell(&repository);
            let tags = self.store.tags(&repository);
            for rule in rules.iter().filter(|rule| rule.has(&name)) {
                let want = want_of(rule);
                for tag in rule.tags.among(tags.iter().map(String::as_str)) {
                    let row = tag
                        .parse()
                        .ok()
                        .and_then(|tag| self.store.tag(&repository, &Slot::Tag(tag)));
                    let Some(row) = row else { continue };
                    if let Ok(closure) = self.closure(&repository, &row.digest, &want, None).await {
                        kept.extend(closure.items.into_keys());
                    }
                }
            }
        }
        kept
    }

    /// What of the tag lies here; `None`: it names nothing here.
    pub(super) async fn completeness(&self, repository: &Repository, tag: &Tag, want: &Want) -> Option<Completeness> {
        let row = self.store.tag(repository, &Slot::Tag(tag.clone()))?;
        let closure = self.closure(repository, &row.digest, want, None).await.ok()?;
        Some(Completeness {
            digest: row.digest,
            complete: closure.missing.is_empty(),
            items: closure.items.len(),
            bytes: closure.bytes(),
            missing_items: closure.missing.len(),
            missing_bytes: closure.missing_bytes(),
        })
    }

    async fn select(&self, rules: &[Rule], scope: &Scope, class: Class) -> Selection {
        let mut selection = Selection {
            class,
            wanted: Vec::new(),
            gone: Vec::new(),
            troubles: Vec::new(),
        };
        let mut repositories: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let catalog = self.catalog(rules, scope, &mut selection).await;
        for (place, rule) in rules.iter().enumerate() {
            let matching = catalog.iter().map(String::as_str).filter(|name| rule.has(name));
            for name in rule.named().chain(matching) {
                let places = repositories.entry(name.to_owned()).or_default();
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        if scope.is_whole() {
            for (name, places) in repositories {
                self.select_tags(rules, &name, &places, None, &mut selection).await;
            }
            return selection;
        }
        for (name, tag) in &scope.named {
            let places = repositories.get(name).cloned().unwrap_or_default();
            if scope.is_fed && places.is_empty() {
                continue;
            }
            // Of the newest few one more or less changes which those are.
            let is_of_few = scope.is_fed && places.iter().any(|place| rules[*place].tags.newest.is_some());
            let only = tag.as_ref().filter(|_| !is_of_few).map(Tag::as_str);
            self.select_tags(rules, name, &places, only, &mut selection).await;
        }
        selection
    }

    /// The names of the parent's repositories, if a rule needs them.
    async fn catalog(&self, rules: &[Rule], scope: &Scope, selection: &mut Selection) -> Vec<String> {
        if !scope.is_whole() {
            return scope.named.iter().map(|(name, _)| name.clone()).collect();
        }
        if !rules.iter().any(Rule::has_patterns) {
            return Vec::new();
        }
        // What is known from before is looked at too: it may be gone, or hidden from the list.
        let here = self.store.repositories();
        let mut names: Vec<String> = here.iter().map(|repository| self.names.spell(repository)).collect();
        let registry = self.names.unprefixed();
        match self.fetch.catalog(registry, &self.asker(selection.class)).await {
            Ok(there) => {
                let there = there.into_iter().map(|name| Repository::new(registry.clone(), name));
                names.extend(there.map(|repository| self.names.spell(&repository)));
            }
            Err(error) => {
                let why = with_causes(&error);
                let what = "the list of repositories, which patterns need";
                selection.troubles.push(format!("{what}: {why}"));
            }
        }
        names
    }

    /// Adds the tags of a repository that these rules select; without any rule, all, or the one that is named.
    async fn select_tags(
        &self,
        rules: &[Rule],
        name: &str,
        places: &[usize],
        only: Option<&str>,
        selection: &mut Selection,
    ) {
        let Some(repository) = self.names.meant(name) else {
            selection.troubles.push(format!("{name:?} is no name of a repository"));
            return;
        };
        if !self.fetch.asks(&repository.registry) {
            selection
                .troubles
                .push(format!("{name}: there is no parent to bring it from"));
            return;
        }
        let needs_list =
            only.is_none() && (places.is_empty() || places.iter().any(|place| rules[*place].tags.exactly().is_none()));
        let (mut there, mut is_old) = (Vec::new(), false);
        if needs_list {
            match self.fetch.tags_now(&repository, &self.asker(selection.class)).await {
                Ok((tags, is_stale)) => {
                    there = tags;
                    is_old = is_stale;
                }
                // It need not exist yet.
                Err(Error::Absent { .. }) => {}
                Err(error) => {
                    selection.troubles.push(format!("{name}: {}", with_causes(&error)));
                    return;
                }
            }
        }
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let class = selection.class;
        let mut add = |tag: &str, place: Option<usize>| {
            let Ok(parsed) = tag.parse::<Tag>() else { return };
            let rule = place.map(|place| &rules[place]);
            let want = rule.map_or_else(Want::default, want_of);
            let entry = wanted.entry(tag.to_owned());
            let entry = entry
                .and_modify(|wanted| wanted.want = wanted.want.or(&want))
                .or_insert_with(|| Wanted {
                    repository: repository.clone(),
                    tag: parsed,
                    want: want.clone(),
                    priority: i64::MIN,
                    rules: Vec::new(),
                    class,
                });
            entry.priority = entry.priority.max(rule.map_or(0, |rule| rule.priority));
            entry.rules.extend(place);
        };
        for place in places {
            let tags = &rules[*place].tags;
            let chosen = match (only, tags.exactly()) {
                (Some(tag), _) => tags.among([tag]),
                (None, Some(names)) => tags.among(names.iter().map(String::as_str)),
                (None, None) => tags.among(there.iter().map(String::as_str)),
            };
            chosen.into_iter().for_each(|tag| add(tag, Some(*place)));
        }
        // What no rule selects is brought when somebody names it.
        match only {
            Some(tag) => add(tag, None),
            None if places.is_empty() => there.iter().for_each(|tag| add(tag, None)),
            None => {}
        }
        if is_old {
            // What it does not name may be there all the same.
            selection.troubles.push(format!("{name}: {OLD}"));
        }
        if places.is_empty() && only.is_none() && there.is_empty() {
            selection.troubles.push(format!("{name}: there is no tag"));
        }
        if needs_list && !is_old {
            let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
            let is_selected = |tag: &str| places.iter().any(|place| rules[*place].tags.may_have(tag));
            let here = self.store.tags(&repository);
            let gone = here
                .iter()
                .filter(|tag| !there.contains(tag.as_str()) && is_selected(tag));
            let gone = gone.filter_map(|tag| tag.parse().ok());
            selection.gone.extend(gone.map(|tag| (repository.clone(), tag)));
        }
        selection.wanted.extend(wanted.into_values().map(Arc::new));
    }

    /// What the parent has under a tag, and what that needs.
    async fn look(&self, wanted: &Wanted) -> Result<(Sighting, Closure), Miss> {
        let Wanted { repository, tag, .. } = wanted;
        let failed = |error: Error| Miss::Failed(with_causes(&error));
        let asker = self.asker(wanted.class);
        let seen = self.fetch.sight(repository, tag, &asker).await.map_err(failed)?;
        let seen = seen.ok_or(Miss::Gone)?;
        let closure = self.closure(repository, &seen.digest, &wanted.want, Some(&asker)).await;
        Ok((seen, closure.map_err(failed)?))
    }

    /// Brings a tag here, and shows it once it is whole.
    async fn bring(self: &Arc<Self>, wanted: &Wanted) -> Result<Closure, Miss> {
        let Wanted { repository, tag, .. } = wanted;
        let (seen, closure) = self.look(wanted).await?;
        if !wanted.rules.is_empty() {
            self.take(&closure).map_err(Miss::Failed)?;
        }
        let missing = closure.missing_bytes();
        self.progress(|progress| progress.bytes += missing);
        let mut blobs = JoinSet::new();
        for (digest, _) in &closure.missing {
            let (shared, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
            let class = wanted.class;
            blobs.spawn(async move {
                let _turn = shared.turns.acquire().await;
                let came = |bytes| shared.progress(|progress| progress.bytes_done += bytes);
                shared
                    .fetch
                    .bring(&repository, &digest, &shared.asker(class), came)
                    .await
            });
        }
        while let Some(ended) = blobs.join_next().await {
            let brought = ended.unwrap_or(Err(Error::Interrupted));
            brought.map_err(|error| Miss::Failed(with_causes(&error)))?;
        }
        // What found no room went through unkept.
        if let Some(lost) = closure
            .items
            .keys()
            .find(|digest| self.store.linked(repository, digest).is_none())
        {
            let trouble = self.store.trouble();
            let why = trouble.unwrap_or_else(|| format!("there is no room for {lost}"));
            return Err(Miss::Failed(why));
        }
        self.fetch.show(repository, tag, &seen);
        match seen.is_stale {
            true => Err(Miss::Failed(OLD.to_owned())),
            false => Ok(closure),
        }
    }

    /// Counts what is selected, and keeps it from eviction; in words that there is no room for it beside what was before it.
    fn take(&self, closure: &Closure) -> Result<(), String> {
        let mut taken = self.taken.lock();
        let new = closure
            .items
            .iter()
            .filter(|(digest, _)| !taken.digests.contains(digest));
        let more = sum(new.map(|(_, bytes)| bytes));
        // Something passes through beside it.
        let most = self.store.capacity() / 10 * 9;
        if taken.bytes.saturating_add(more) > most {
            return Err(format!(
                "there is no room: it needs {} more, and what is selected before it has {} of the {} that a selection may",
                Size::of(more),
                Size::of(taken.bytes),
                Size::of(most)
            ));
        }
        taken.bytes += more;
        taken.digests.extend(closure.items.keys());
        drop(taken);
        self.store.select(closure.items.keys());
        Ok(())
    }

    /// Takes away what the parent has no longer, unless that is too much at once and nobody named it.
    fn drop_gone(&self, wanted: &[Arc<Wanted>], gone: Vec<(Repository, Tag)>, is_named: bool) -> Result<(), String> {
        let gone: Vec<(Repository, Tag)> = gone
            .into_iter()
            .filter(|(repository, tag)| self.is_parents(repository, tag))
            .collect();
        let lost: HashSet<&(Repository, Tag)> = gone.iter().collect();
        let is_lost = |wanted: &Wanted| lost.contains(&(wanted.repository.clone(), wanted.tag.clone()));
        let still = wanted
            .iter()
            .filter(|wanted| self.is_parents(&wanted.repository, &wanted.tag) && !is_lost(wanted))
            .count();
        if gone.len() > FEW && !is_named && gone.len() * MOST_DROPPED > gone.len() + still {
            return Err(format!(
                "the parent has {} of {} tags no longer, which is too many at once: nothing is taken away; name the repositories to `wharf sync` if that is right",
                gone.len(),
                gone.len() + still
            ));
        }
        for (repository, tag) in gone {
            tracing::info!(repository = self.names.spell(&repository), %tag, "the parent has this tag no longer");
            self.fetch.hide(&repository, &tag);
            self.progress(|progress| progress.dropped += 1);
        }
        Ok(())
    }

    /// Whether the tag is here because the parent has it.
    pub(super) fn is_parents(&self, repository: &Repository, tag: &Tag) -> bool {
        let row = self.store.tag(repository, &Slot::Tag(tag.clone()));
        row.is_some_and(|row| row.origin == Origin::Parent)
    }

    fn progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.book.lock().pass.progress);
    }

    fn name_of(&self, wanted: &Wanted) -> String {
        format!("{}:{}", self.names.spell(&wanted.repository), wanted.tag)
    }
}

fn want_of(rule: &Rule) -> Want {
    Want {
        platforms: rule.platforms.clone(),
        referrers: rule.referrers,
    }
}

fn report_of((place, rule): (usize, &Rule)) -> RuleReport {
    let name = match rule.name.as_str() {
        "" => format!("rule {}", place + 1),
        name => name.to_owned(),
    };
    RuleReport {
        name,
        ..RuleReport::default()
    }
}
