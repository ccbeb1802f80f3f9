//! What is to be here, by the rules and by what the parent has: found out before anything is brought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use super::Shared;
use super::config::Rule;
use super::state::Scope;
use crate::fetch::Error;
use crate::oci::{Reference, Repository, Tag};
use crate::parent::Class;
use crate::units::with_causes;

/// Lists of tags that are asked for at a time.
const LISTS_AT_ONCE: usize = 8;

/// Of a tag, or a list, that the parent gave as the last it knew.
pub(super) const OLD: &str = "the parent could not ask its own, and this is the last that it knew";

/// A tag that is selected, or what is so by its digest.
pub(super) struct Wanted {
    pub(super) repository: Repository,
    pub(super) reference: Reference,
    pub(super) priority: i64,
    /// The rules that select it by its name, by their places.
    pub(super) rules: Vec<usize>,
    /// Whether somebody names it, whatever rules say.
    pub(super) is_named: bool,
    /// How urgent it is.
    pub(super) class: Class,
}

impl Wanted {
    /// The tag, if it is one.
    pub(super) fn tag(&self) -> Option<&Tag> {
        match &self.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }
}

/// What is selected, as far as it could be found out.
pub(super) struct Selection {
    /// How urgent that is.
    pub(super) class: Class,
    /// Whether the parent told of it: what no rule selects is left alone.
    is_fed: bool,
    pub(super) wanted: Vec<Arc<Wanted>>,
    /// Tags that are here and that the parent has no longer.
    pub(super) gone: Vec<(Repository, Tag)>,
    pub(super) troubles: Vec<String>,
    /// Rules of which something could not be looked at, by their places.
    pub(super) unseen: BTreeSet<usize>,
}

impl Selection {
    fn nothing(class: Class, is_fed: bool) -> Self {
        Self {
            class,
            is_fed,
            wanted: Vec::new(),
            gone: Vec::new(),
            troubles: Vec::new(),
            unseen: BTreeSet::new(),
        }
    }

    /// Something of these rules could not be looked at, in words.
    fn miss(&mut self, places: &[usize], why: String) {
        self.unseen.extend(places);
        self.troubles.push(why);
    }
}

impl Shared {
    pub(super) async fn select(&self, rules: &[Rule], scope: &Scope, class: Class) -> Selection {
        let mut selection = Selection::nothing(class, scope.is_fed);
        if scope.is_whole() {
            for (place, rule) in rules.iter().enumerate() {
                rule.amiss()
                    .iter()
                    .for_each(|why| selection.miss(&[place], why.clone()));
            }
        }
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
        // Of the newest few one more or less changes which those are.
        let of_few = |name: &str, place: &usize| rules[*place].tags_of(name).is_some_and(|tags| tags.newest.is_some());
        let named = |(name, tag): &(String, Option<Tag>)| {
            let places = repositories.get(name).cloned().unwrap_or_default();
            let is_of_few = scope.is_fed && places.iter().any(|place| of_few(name, place));
            let only = tag.clone().filter(|_| !is_of_few);
            let is_left_alone = scope.is_fed && places.is_empty();
            (!is_left_alone).then(|| (name.clone(), places, only))
        };
        let parts: Vec<_> = match scope.is_whole() {
            true => repositories
                .into_iter()
                .map(|(name, places)| (name, places, None))
                .collect(),
            false => scope.named.iter().filter_map(named).collect(),
        };
        let look = |(name, places, only): (String, Vec<usize>, Option<Tag>)| -> BoxFuture<'_, Selection> {
            Box::pin(async move {
                let mut found = Selection::nothing(class, scope.is_fed);
                let only = only.as_ref().map(Tag::as_str);
                self.select_tags(rules, &name, &places, only, &mut found).await;
                found
            })
        };
        let mut looks = stream::iter(parts.into_iter().map(look)).buffered(LISTS_AT_ONCE);
        while let Some(found) = looks.next().await {
            selection.wanted.extend(found.wanted);
            selection.gone.extend(found.gone);
            selection.troubles.extend(found.troubles);
            selection.unseen.extend(found.unseen);
        }
        drop(looks);
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
        match self
            .fetch
            .catalog(registry, &self.asker(registry, selection.class).await)
            .await
        {
            Ok(there) => {
                let there = there.into_iter().map(|name| Repository::new(registry.clone(), name));
                names.extend(there.map(|repository| self.names.spell(&repository)));
            }
            Err(error) => {
                let why = with_causes(&error);
                let what = "the list of repositories, which patterns need";
                let with_patterns = rules.iter().enumerate().filter(|(_, rule)| rule.has_patterns());
                let places: Vec<usize> = with_patterns.map(|(place, _)| place).collect();
                selection.miss(&places, format!("{what}: {why}"));
            }
        }
        names
    }

    /// Adds what these rules select of a repository; without any rule, all its tags, or the one that is named.
    async fn select_tags(
        &self,
        rules: &[Rule],
        name: &str,
        places: &[usize],
        only: Option<&str>,
        selection: &mut Selection,
    ) {
        let is_fed = selection.is_fed;
        let Some(repository) = self.names.meant(name) else {
            selection.miss(places, format!("{name:?} is no name of a repository"));
            return;
        };
        if !self.fetch.asks(&repository.registry) {
            selection.miss(places, format!("{name}: there is no parent to bring it from"));
            return;
        }
        let chosen = || {
            places
                .iter()
                .filter_map(|place| Some((*place, rules[*place].tags_of(name)?)))
        };
        let needs_list = only.is_none() && (places.is_empty() || chosen().any(|(_, tags)| tags.exactly().is_none()));
        let (mut there, mut is_old) = (Vec::new(), false);
        if needs_list {
            let asker = self.asker(&repository.registry, selection.class).await;
            match self.fetch.tags_now(&repository, &asker).await {
                Ok((tags, is_stale)) => {
                    there = tags;
                    is_old = is_stale;
                }
                // It need not exist yet.
                Err(Error::Absent { .. }) => {}
                Err(error) => {
                    selection.miss(places, format!("{name}: {}", with_causes(&error)));
                    return;
                }
            }
        }
        if needs_list && !is_old {
            let listed: BTreeSet<&str> = there.iter().map(String::as_str).collect();
            let is_selected = |tag: &str| chosen().any(|(_, tags)| tags.may_have(tag));
            let is_missed = |tag: &String| !listed.contains(tag.as_str()) && is_selected(tag);
            let here = self.store.tags(&repository).into_iter().filter(is_missed);
            let here: Vec<Tag> = here.filter_map(|tag| tag.parse().ok()).collect();
            for tag in here.into_iter().filter(|tag| self.is_parents(&repository, tag)) {
                match self.is_gone(&repository, &tag, selection.class).await {
                    Ok(true) => selection.gone.push((repository.clone(), tag)),
                    Ok(false) => there.push(tag.to_string()),
                    Err(error) => {
                        there.push(tag.to_string());
                        selection.miss(places, format!("{name}:{tag}: {}", with_causes(&error)));
                    }
                }
            }
        }
        let mut wanted = Several::of(&repository, selection.class);
        for (place, tags) in chosen() {
            let tags = match (only, tags.exactly()) {
                (Some(tag), _) => tags.among([tag]),
                (None, Some(names)) => tags.among(names.iter().map(String::as_str)),
                (None, None) => tags.among(there.iter().map(String::as_str)),
            };
            tags.into_iter()
                .for_each(|tag| wanted.add_tag(tag, Some((place, &rules[place]))));
        }
        // What no rule selects is brought when somebody names it.
        match only {
            Some(tag) if !is_fed => wanted.add_tag(tag, None),
            Some(_) => {}
            None if places.is_empty() && !is_fed => there.iter().for_each(|tag| wanted.add_tag(tag, None)),
            None => {
                for place in places {
                    wanted.add_digests(name, *place, &rules[*place]);
                }
            }
        }
        if is_old {
            // What it does not name may be there all the same.
            selection.miss(places, format!("{name}: {OLD}"));
        }
        if places.is_empty() && only.is_none() && there.is_empty() {
            selection.troubles.push(format!("{name}: there is no tag"));
        }
        selection.wanted.extend(wanted.all());
    }

    /// Whether the parent has nothing under a tag that its list does not name: the list of a node may be older than the tag.
    async fn is_gone(&self, repository: &Repository, tag: &Tag, class: Class) -> Result<bool, Error> {
        let asker = self.asker(&repository.registry, class).await;
        let seen = self.fetch.sight(repository, tag, None, &asker).await?;
        Ok(seen.is_none())
    }

    /// What lies here of what the rules select, as far as names tell; nobody is asked.
    pub(super) fn selected_here(&self, rules: &[Rule]) -> Vec<Arc<Wanted>> {
        let mut names: BTreeSet<String> = self
            .store
            .repositories()
            .iter()
            .map(|known| self.names.spell(known))
            .collect();
        // What is named by its digest has no tag.
        names.extend(rules.iter().flat_map(Rule::named).map(ToOwned::to_owned));
        let mut selected = Vec::new();
        for name in names {
            let Some(repository) = self.names.meant(&name) else {
                continue;
            };
            let mut wanted = Several::of(&repository, Class::Synchronisation);
            let here = self.store.tags(&repository);
            for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.has(&name)) {
                if let Some(tags) = rule.tags_of(&name) {
                    let tags = tags.among(here.iter().map(String::as_str));
                    tags.into_iter()
                        .for_each(|tag| wanted.add_tag(tag, Some((place, rule))));
                }
                wanted.add_digests(&name, place, rule);
            }
            selected.extend(wanted.all());
        }
        selected
    }
}

/// What is wanted of one repository, each once.
struct Several<'a> {
    repository: &'a Repository,
    class: Class,
    wanted: BTreeMap<Reference, Wanted>,
}

impl<'a> Several<'a> {
    fn of(repository: &'a Repository, class: Class) -> Self {
        Self {
            repository,
            class,
            wanted: BTreeMap::new(),
        }
    }

    /// By a rule of this place, or because somebody names it.
    fn add(&mut self, reference: Reference, by: Option<(usize, &Rule)>) {
        let wanted = self.wanted.entry(reference).or_insert_with_key(|reference| Wanted {
            repository: self.repository.clone(),
            reference: reference.clone(),
            priority: i64::MIN,
            rules: Vec::new(),
            is_named: false,
            class: self.class,
        });
        wanted.priority = wanted.priority.max(by.map_or(0, |(_, rule)| rule.priority));
        wanted.rules.extend(by.map(|(place, _)| place));
        wanted.is_named |= by.is_none();
    }

    fn add_tag(&mut self, tag: &str, by: Option<(usize, &Rule)>) {
        if let Ok(tag) = tag.parse() {
            self.add(Reference::Tag(tag), by);
        }
    }

    /// Those that a rule names of the repository that is called so.
    fn add_digests(&mut self, name: &str, place: usize, rule: &Rule) {
        for digest in rule.digests_of(name) {
            self.add(Reference::Digest(*digest), Some((place, rule)));
        }
    }

    fn all(self) -> impl Iterator<Item = Arc<Wanted>> {
        self.wanted.into_values().map(Arc::new)
    }
}
