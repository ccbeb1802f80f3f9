//! One pass: what is selected is looked for at the parent, compared with what is here, fetched, and shown once it is whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::closure::{Closure, Want, sum};
use super::config::Rule;
use super::leave::is_too_much;
use super::selection::{OLD, Selection, Wanted};
use super::sift::Sifted;
use super::state::{Progress, RuleReport, Scope};
use super::{Leaving, Shared, Trigger};
use crate::fetch::{Error, Sighting};
use crate::oci::{Digest, Reference, Repository, Tag};
use crate::parent::Class;
use crate::store::{Origin, Slot, TagRow};
use crate::units::{Size, with_causes};

/// Tags that are looked at, and whose content is fetched, at a time.
const TAGS_AT_ONCE: usize = 8;

/// After what the parent told it is looked so often at the most what is not selected any more.
const SETTLED: Duration = Duration::from_secs(60);

/// Troubles that are told one by one.
const TOLD: usize = 20;

/// What a pass has taken for selected so far.
#[derive(Default)]
pub(super) struct Taken {
    digests: HashSet<Digest>,
    bytes: u64,
}

/// What came of a look at what is wanted.
struct Brought {
    /// What each rule comes to.
    reports: Vec<RuleReport>,
    /// What rules select, with what becomes of each once they do so no longer.
    selected: BTreeMap<(String, Reference), Leaving>,
}

/// What the parent has of what is wanted.
pub(super) struct Look {
    pub(super) digest: Digest,
    /// Of a tag.
    seen: Option<Sighting>,
    pub(super) sifted: Sifted,
}

/// Why a tag is not here, whole.
pub(super) enum Miss {
    /// The parent has it no longer.
    Gone,
    Failed(String),
}

/// Work on all that is wanted, some of it at a time; what is done comes in no order.
pub(super) struct Spread<'a, T> {
    left: std::iter::Cloned<std::slice::Iter<'a, Arc<Wanted>>>,
    under_way: JoinSet<(Arc<Wanted>, Result<T, Miss>)>,
}

impl<'a, T: Send + 'static> Spread<'a, T> {
    pub(super) fn over(wanted: &'a [Arc<Wanted>]) -> Self {
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
    pub(super) async fn next<F>(&mut self, work: impl Fn(Arc<Wanted>) -> F) -> Option<(Arc<Wanted>, Result<T, Miss>)>
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
    /// Whether there is more: a manifest is missing, and nobody knows what that needs.
    pub at_least: bool,
    /// Platforms that were asked about and that it does not have anywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_platforms: Vec<String>,
}

impl Shared {
    /// Makes a pass over what `scope` names.
    pub(super) async fn pass(self: &Arc<Self>, trigger: Trigger, scope: &Scope) {
        if scope.is_ordered() {
            self.referred.invalidate_all();
        }
        let written = Arc::clone(&*self.rules.get());
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
        let brought = self.bring_all(&rules, scope, &mut selection).await;
        let Selection {
            wanted,
            gone,
            mut troubles,
            unseen,
            ..
        } = selection;
        if let Err(why) = self.drop_gone(&wanted, gone, scope.is_ordered()) {
            troubles.push(why);
        }
        if scope.is_whole() {
            // What was selected when it began may not be what is so now: another pass follows.
            let is_well = troubles.is_empty() && Arc::ptr_eq(&written, &*self.rules.get());
            self.keep_selected(brought.selected, is_well).await;
        } else {
            self.settle().await;
        }
        let reports = scope.is_whole().then_some((brought.reports, unseen));
        self.close(reports, troubles);
    }

    /// Whether it does not come by the parent, which tells nothing of it.
    fn is_from_elsewhere(&self, wanted: &Wanted) -> bool {
        let parents = self.names.unprefixed();
        !self.fetch.is_through(parents, &wanted.repository.registry)
    }

    /// Brings what is wanted, some of it at a time, and adds what is gone and what went wrong.
    async fn bring_all(self: &Arc<Self>, rules: &Arc<[Rule]>, scope: &Scope, selection: &mut Selection) -> Brought {
        let mut brought = Brought {
            reports: rules.iter().enumerate().map(report_of).collect(),
            selected: BTreeMap::new(),
        };
        let Selection {
            wanted: all,
            gone,
            troubles,
            unseen,
            ..
        } = selection;
        let mut fates = Spread::over(all);
        let work = |wanted: Arc<Wanted>| {
            let (shared, rules) = (Arc::clone(self), Arc::clone(rules));
            async move { shared.bring(&wanted, &rules).await }
        };
        let mut makes_way = false;
        while let Some((wanted, fate)) = fates.next(work).await {
            self.progress(|progress| progress.tags_done += 1);
            if wanted.class == Class::Synchronisation && !self.book.lock().orders.is_empty() {
                makes_way = true;
                fates.stop();
            }
            // What is not known to be left out is taken for selected.
            let takers = fate.as_ref().map_or(&wanted.rules, |sifted| &sifted.rules);
            brought.selected.extend(self.leaving_of(&wanted, takers, rules));
            for rule in takers {
                let report = &mut brought.reports[*rule];
                match &fate {
                    Ok(sifted) => {
                        report.tags += 1;
                        report.complete += 1;
                        report.bytes += sifted.closure.bytes();
                    }
                    Err(Miss::Gone) => report.absent += 1,
                    Err(Miss::Failed(_)) => report.tags += 1,
                }
            }
            match fate {
                Ok(_) => {}
                Err(Miss::Gone) => {
                    let is_here = wanted.tag().is_some_and(|tag| self.is_parents(&wanted.repository, tag));
                    if scope.is_ordered() && !is_here {
                        troubles.push(format!("{}: there is no such tag", self.name_of(&wanted)));
                    }
                    // Whoever named it one by one is told that it is not there.
                    for rule in &wanted.rules {
                        let report = &mut brought.reports[*rule];
                        if report.missing.len() < TOLD {
                            report.missing.push(self.name_of(&wanted));
                        }
                        if rules[*rule].from.is_some() {
                            troubles.push(format!("{}: the parent does not have it", self.name_of(&wanted)));
                        }
                    }
                    gone.extend(wanted.tag().map(|tag| (wanted.repository.clone(), tag.clone())));
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
            let why = match makes_way {
                true => "the rest waits for what somebody asked for",
                false => "not all tags were looked at",
            };
            troubles.push(why.to_owned());
            unseen.extend(0..rules.len());
        }
        brought
    }

    /// After a look at everything: what is selected stays, and, if all was well, what is so no longer may go.
    async fn keep_selected(&self, selected: BTreeMap<(String, Reference), Leaving>, is_well: bool) {
        let mut kept = self.taken.lock().digests.clone();
        // Of what could not be looked at, what is shown stays.
        if !is_well {
            kept.extend(self.shown().await);
        }
        self.store.select_only(kept);
        let gone = self.let_go(selected, is_well).await;
        self.progress(|progress| progress.dropped += gone);
    }

    /// Ends the pass in the book. `reports`: what each rule comes to, if all of it was looked at, and those of which something could
    /// not be.
    fn close(&self, reports: Option<(Vec<RuleReport>, BTreeSet<usize>)>, mut troubles: Vec<String>) {
        let now = self.clock.wall();
        let mut book = self.book.lock();
        let is_whole = reports.is_some();
        if let Some((mut reports, unseen)) = reports {
            for (place, report) in reports.iter_mut().enumerate() {
                let earlier = book.rules.iter().find(|earlier| earlier.name == report.name);
                match (unseen.contains(&place), earlier) {
                    // What was not looked at is as it was.
                    (true, Some(earlier)) if earlier.tags > report.tags => *report = earlier.clone(),
                    (true, earlier) => report.in_sync_as_of = earlier.and_then(|earlier| earlier.in_sync_as_of),
                    (false, _) if report.complete == report.tags => report.in_sync_as_of = Some(now.into()),
                    (false, earlier) => report.in_sync_as_of = earlier.and_then(|earlier| earlier.in_sync_as_of),
                }
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

    /// What that which is here and that the rules select needs. While a file that names images cannot be read, what was selected
    /// before counts.
    async fn shown(&self) -> HashSet<Digest> {
        let mut kept = HashSet::new();
        let rules = self.rules();
        for wanted in self.selected_here(&rules) {
            let Some(digest) = self.named_here(&wanted.repository, &wanted.reference) else {
                continue;
            };
            if let Ok(sifted) = self.sift(&wanted, &rules, &digest, None).await {
                kept.extend(sifted.closure.items.into_keys());
            }
        }
        if rules.iter().any(Rule::is_unread) {
            for (repository, reference) in self.remembered() {
                let Some(digest) = self.named_here(&repository, &reference) else {
                    continue;
                };
                if let Ok(closure) = self.closure(&repository, &digest, &Want::everything(), None).await {
                    kept.extend(closure.items.into_keys());
                }
            }
        }
        kept
    }

    /// What it names here, as far as it names anything.
    pub(super) fn named_here(&self, repository: &Repository, reference: &Reference) -> Option<Digest> {
        match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => Some(self.store.tag(repository, &Slot::Tag(tag.clone()))?.digest),
        }
    }

    /// What of the tag lies here; `None`: it names nothing here.
    pub(super) async fn completeness(&self, repository: &Repository, tag: &Tag, want: &Want) -> Option<Completeness> {
        let row = self.store.tag(repository, &Slot::Tag(tag.clone()))?;
        let closure = self.closure(repository, &row.digest, want, None).await.ok()?;
        let manifest = self.manifest(repository, &row.digest, None).await.ok().flatten();
        let strange = manifest.map_or_else(Vec::new, |held| want.not_among(held.bytes()));
        Some(Completeness {
            digest: row.digest,
            complete: closure.missing.is_empty() && strange.is_empty(),
            items: closure.items.len(),
            bytes: closure.bytes(),
            missing_items: closure.missing.len() + strange.len(),
            missing_bytes: closure.missing_bytes(),
            at_least: closure.is_partial,
            missing_platforms: strange,
        })
    }

    /// What the parent has of it, and what rules take of that.
    pub(super) async fn look(&self, wanted: &Wanted, rules: &[Rule]) -> Result<Look, Miss> {
        let failed = |error: Error| Miss::Failed(with_causes(&error));
        let repository = &wanted.repository;
        let (digest, seen) = match &wanted.reference {
            Reference::Tag(tag) => {
                let known = self.store.tag(repository, &Slot::Tag(tag.clone()));
                let is_settled =
                    |row: &&TagRow| row.origin == Origin::Parent && self.fetch.is_immutable(repository, tag);
                if let Some(row) = known.as_ref().filter(is_settled) {
                    (row.digest, None)
                } else {
                    let asker = self.asker(&repository.registry, wanted.class).await;
                    let known = known.map(|row| row.digest);
                    let seen = self.fetch.sight(repository, tag, known.as_ref(), &asker).await;
                    let seen = seen.map_err(failed)?.ok_or(Miss::Gone)?;
                    (seen.digest, Some(seen))
                }
            }
            Reference::Digest(digest) => match self.manifest(repository, digest, Some(wanted.class)).await {
                Err(Error::Absent { .. }) => return Err(Miss::Gone),
                held => {
                    held.map_err(failed)?;
                    (*digest, None)
                }
            },
        };
        let sifted = self.sift(wanted, rules, &digest, Some(wanted.class)).await;
        Ok(Look {
            digest,
            seen,
            sifted: sifted.map_err(failed)?,
        })
    }

    /// Brings it here, and shows a tag once it is whole.
    async fn bring(self: &Arc<Self>, wanted: &Wanted, rules: &[Rule]) -> Result<Sifted, Miss> {
        let repository = &wanted.repository;
        let Look { seen, sifted, .. } = self.look(wanted, rules).await?;
        if sifted.rules.is_empty() && !wanted.is_named {
            return Ok(sifted);
        }
        let closure = &sifted.closure;
        if !sifted.rules.is_empty() {
            self.take(closure).map_err(Miss::Failed)?;
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
                let asker = shared.asker(&repository.registry, class).await;
                shared.fetch.bring(&repository, &digest, &asker, came).await
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
        if let Some((tag, seen)) = wanted.tag().zip(seen) {
            self.fetch.show(repository, tag, &seen);
            if seen.is_stale {
                return Err(Miss::Failed(OLD.to_owned()));
            }
        }
        Ok(sifted)
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
    fn drop_gone(
        &self,
        wanted: &[Arc<Wanted>],
        mut gone: Vec<(Repository, Tag)>,
        is_named: bool,
    ) -> Result<(), String> {
        gone.retain(|(repository, tag)| self.is_parents(repository, tag));
        if !is_named {
            self.is_little(wanted, &gone)?;
        }
        for (repository, tag) in gone {
            tracing::info!(repository = self.names.spell(&repository), %tag, "the parent has this tag no longer");
            self.fetch.hide(&repository, &tag);
            self.progress(|progress| progress.dropped += 1);
        }
        Ok(())
    }

    /// That no more of what is known seems to be gone than is believed; else that it is too much, in words.
    pub(super) fn is_little(&self, wanted: &[Arc<Wanted>], gone: &[(Repository, Tag)]) -> Result<(), String> {
        let lost: HashSet<&(Repository, Tag)> = gone.iter().collect();
        let is_still = |wanted: &Wanted| {
            let tag = wanted.tag().filter(|tag| self.is_parents(&wanted.repository, tag));
            tag.is_some_and(|tag| !lost.contains(&(wanted.repository.clone(), tag.clone())))
        };
        let still = wanted.iter().filter(|wanted| is_still(wanted)).count();
        let (gone, all) = (lost.len(), lost.len() + still);
        match is_too_much(gone, all) {
            false => Ok(()),
            true => Err(format!(
                "the parent has {gone} of {all} tags no longer, which is too many at once: nothing is taken away; name the repositories to `wharf sync` if that is right"
            )),
        }
    }

    /// Whether the tag is here because the parent has it.
    pub(super) fn is_parents(&self, repository: &Repository, tag: &Tag) -> bool {
        let row = self.store.tag(repository, &Slot::Tag(tag.clone()));
        row.is_some_and(|row| row.origin == Origin::Parent)
    }

    fn progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.book.lock().pass.progress);
    }

    pub(super) fn name_of(&self, wanted: &Wanted) -> String {
        self.written(&wanted.repository, &wanted.reference)
    }

    /// As clients write it.
    pub(super) fn written(&self, repository: &Repository, reference: &Reference) -> String {
        let name = self.names.spell(repository);
        match reference {
            Reference::Tag(tag) => format!("{name}:{tag}"),
            Reference::Digest(digest) => format!("{name}@{digest}"),
        }
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
