//! What is pushed here and deleted here: promises that only this store keeps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::debt::{Named, Owing, What};
use super::fact::{Fact, Key, stamp};
use super::index::Row;
use super::journal::Mark;
use super::records::{Confirmed, Origin, Records};
use super::{Error, Held, Link, Shared, Slot, Store};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag, media};

/// A manifest that was pushed.
pub struct Pushed {
    /// Its bytes and its exact type.
    pub held: Arc<Held>,
    /// Names that it is to have.
    pub tags: Vec<Tag>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// What it needs and what lies here, of this repository: it stays as long as the manifest.
    pub needs: Vec<Digest>,
    /// To whom it is owed; `None` without a parent.
    pub owing: Option<Owing>,
    /// What the parent has under its tags, where that was asked for.
    pub above: HashMap<Tag, Digest>,
    /// Those of its tags that are not moved if they are there already and name something else.
    pub fixed: Vec<Tag>,
}

/// That what the parent has is to be hidden.
#[derive(Debug, Default)]
pub struct Hide {
    /// What it has under these tags, as it just said.
    pub known: HashMap<Tag, Option<Digest>>,
}

/// What nobody needs, as [`Store::sweep`] found it.
#[derive(Debug, Default)]
pub struct Swept {
    /// Blobs of repositories; the same blob may be several's.
    pub blobs: Vec<(Repository, Digest)>,
    /// Bytes that leave the disk.
    pub bytes: u64,
}

impl Store {
    /// Takes in what lies here as a blob of `repository`. A kill leaves it so, a power cut until a manifest names it may not.
    /// `None` if it does not lie here.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn adopt(&self, repository: &Repository, digest: &Digest) -> Result<Option<Link>, Error> {
        if !self.holds(digest) {
            return Ok(None);
        }
        match self.shared.say_blob(repository, digest) {
            Ok(link) => Ok(Some(link)),
            // It left between the two looks.
            Err(Error::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has a blob that was pushed more than `age` ago count as pushed now. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn renew(&self, repository: &Repository, digest: &Digest, age: Duration) -> Result<(), Error> {
        let (digest, now) = (*digest, stamp());
        let oldest = now.saturating_sub(age.as_secs());
        let renewed = |records: &Records| {
            let fact = records.fact(repository, &Key::Blob(digest));
            match fact {
                Some(Fact::Blob { at, media_type, .. }) if *at < oldest => Some(Wish::to_say(vec![Fact::Blob {
                    digest,
                    at: now,
                    media_type: media_type.clone(),
                }])),
                _ => None,
            }
        };
        self.shared.say_if(repository, renewed).map(drop)
    }

    /// Takes in a manifest: when this returns, it and all that it needs survive a power cut. Blocks.
    ///
    /// # Errors
    ///
    /// * [`Error::Gone`]: something that it needs lies here no more.
    /// * [`Error::TagTaken`]: a tag is there that was not to be moved.
    /// * [`Error::Io`], [`Error::ReadOnly`], [`Error::Full`]: the disk refused. Nothing was promised.
    pub fn accept(&self, repository: &Repository, pushed: Pushed) -> Result<(), Error> {
        let Pushed {
            held,
            tags,
            subject,
            needs,
            owing,
            above,
            fixed,
        } = pushed;
        let digest = *held.digest();
        let mut file = self.begin_document(repository, digest.algorithm())?;
        let blob = match file.write(std::slice::from_ref(held.bytes())) {
            Ok(()) => file.place(&digest, Some(held.media_type()), |_| Ok(()))?,
            Err(error) => {
                file.cancel();
                return Err(error);
            }
        };
        // What is still to be synced is pinned by nobody: if it leaves, the promise is not made.
        let mut closure = needs.clone();
        closure.push(digest);
        self.shared.make_durable(&closure)?;
        let at = stamp();
        // All of them, known before or not: what was idle until now may be going just now.
        let blobs = {
            let ledger = self.shared.ledger.lock();
            let media_type = |digest: &Digest| ledger.entry(digest)?.media_type.as_deref().map(str::to_owned);
            let blob = |digest: &Digest| Fact::Blob {
                digest: *digest,
                at,
                media_type: media_type(digest),
            };
            needs.iter().map(blob).collect::<Vec<_>>()
        };
        let manifest = Fact::Manifest {
            digest,
            media_type: held.media_type().to_owned(),
            at,
            subject,
        };
        let mut say: Vec<Fact> = blobs.into_iter().chain([manifest]).collect();
        say.extend(tags.iter().cloned().map(|tag| Fact::Tag { tag, digest }));
        let mut unsay = vec![Key::Buried(Reference::Digest(digest))];
        unsay.extend(tags.into_iter().map(|tag| Key::Buried(Reference::Tag(tag))));
        let tags_named: Vec<Tag> = say.iter().filter_map(Fact::tag).cloned().collect();
        let mut taken = None;
        let wish = |records: &Records| {
            taken = fixed
                .iter()
                .find_map(|tag| records.taken(repository, tag, above.get(tag), &digest));
            if taken.is_some() {
                return None;
            }
            let known = |tag: &Tag| records.tag(repository, &Slot::Tag(tag.clone()))?.parent_digest;
            let was = |tag: &Tag| known(tag).or_else(|| above.get(tag).copied());
            let named = |tag: Tag| Named {
                was: was(&tag),
                fixed: fixed.contains(&tag),
                tag,
            };
            let tags = tags_named.into_iter().map(named).collect();
            let number = self.shared.journal.next();
            say.extend(owing.map(|owing| owing.debt(number, What::Push { digest, tags, subject })));
            Some(Wish {
                unsay,
                ..Wish::to_say(say)
            })
        };
        let said = self.shared.say_if(repository, wish)?;
        if let Some((tag, digest)) = taken {
            return Err(Error::TagTaken { tag, digest });
        }
        let mark = said.unwrap_or_else(|| self.shared.journal.mark());
        self.shared
            .journal
            .sync(mark)
            .inspect_err(|error| self.shared.health.note(error))?;
        self.shared.hot.keep(held);
        drop(blob);
        Ok(())
    }

    /// Takes tags and manifests, or a blob, away from `repository`; when this returns, that survives a power cut. Blocks.
    ///
    /// With `hide`, what the parent has under these names is hidden: of a tag, as long as it is this. Of a tag that was
    /// pushed here and of which nobody knows what the parent has, that is the first that is heard of. A manifest may be about
    /// a `subject`, which the parent is told with the delete.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: the disk refused.
    pub fn drop_named(
        &self,
        repository: &Repository,
        name: &Reference,
        hide: Option<Hide>,
        subject: Option<Digest>,
        owing: Option<Owing>,
    ) -> Result<(), Error> {
        let wish = |records: &Records| {
            let mut wish = what_goes(records, repository, name, hide.as_ref());
            let was = match name {
                Reference::Tag(tag) => records.tag(repository, &Slot::Tag(tag.clone())).map(|row| row.digest),
                Reference::Digest(digest) => Some(*digest),
            };
            let (number, name) = (self.shared.journal.next(), name.clone());
            wish.say
                .extend(owing.map(|owing| owing.debt(number, What::Delete { name, was, subject })));
            Some(wish)
        };
        let mark = self.shared.say_if(repository, wish)?;
        mark.map_or(Ok(()), |mark| self.shared.journal.sync(mark))
    }

    /// Whether it is known what the parent has under a tag.
    pub fn knows_above(&self, repository: &Repository, tag: &Tag) -> bool {
        let records = self.shared.records.lock();
        let row = records.tag(repository, &Slot::Tag(tag.clone()));
        row.is_some_and(|row| row.parent_digest.is_some())
    }

    /// Whether a manifest or a tag was pushed here, and not deleted since; it may be lost.
    pub fn was_pushed(&self, repository: &Repository, name: &Reference) -> bool {
        let key = match name {
            Reference::Tag(tag) => Key::Tag(tag.clone()),
            Reference::Digest(digest) => Key::Manifest(*digest),
        };
        self.shared.records.lock().fact(repository, &key).is_some()
    }

    /// Whether a blob is this repository's, and was not deleted since; it may be lost.
    pub fn has_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        let records = self.shared.records.lock();
        records.fact(repository, &Key::Blob(*digest)).is_some()
    }

    /// Takes in what lies here as a blob of `repository`, if a manifest that was pushed still needs it and it was not deleted
    /// meanwhile; whether it is one now.
    ///
    /// # Errors
    ///
    /// As [`Store::adopt`].
    pub fn adopt_for(&self, manifest: &Digest, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let (digest, at) = (*digest, stamp());
        let wish = |records: &Records| {
            let is_said = records.fact(repository, &Key::Manifest(*manifest)).is_some();
            let is_buried = records
                .fact(repository, &Key::Buried(Reference::Digest(digest)))
                .is_some();
            (is_said && !is_buried).then(|| {
                Wish::to_say(vec![Fact::Blob {
                    digest,
                    at,
                    media_type: None,
                }])
            })
        };
        match self.shared.say_if(repository, wish) {
            Ok(said) => Ok(said.is_some()),
            Err(Error::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this was pushed as a blob and nothing says that it is a manifest.
    pub fn is_no_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        let records = self.shared.records.lock();
        let is_blob = match records.fact(repository, &Key::Blob(*digest)) {
            Some(fact) => fact.media_type().is_none(),
            None => return false,
        };
        let is_manifest = records.fact(repository, &Key::Manifest(*digest)).is_some();
        let has_no_type = |entry: &super::ledger::Entry| entry.media_type.is_none();
        is_blob && !is_manifest && self.shared.ledger.lock().entry(digest).is_some_and(has_no_type)
    }

    /// The tags that were pushed here and go with `name`.
    pub fn tags_that_go(&self, repository: &Repository, name: &Reference) -> Vec<Tag> {
        let records = self.shared.records.lock();
        let mut tags = match name {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(digest) => records.tags_of(repository, digest),
        };
        tags.retain(|tag| records.fact(repository, &Key::Tag(tag.clone())).is_some());
        tags
    }

    /// Whether the content lies here, of this repository, and is a manifest.
    pub fn is_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        let Some(link) = self.linked(repository, digest) else {
            return self.was_pushed(repository, &Reference::Digest(*digest));
        };
        let ledger = self.shared.ledger.lock();
        let entry = ledger.entry(link.digest());
        entry.is_some_and(|entry| entry.media_type.as_deref().is_some_and(media::is_manifest))
    }

    /// The tags that `name` is, or that name it, as far as they are known here, and what they name.
    pub fn named_by(&self, repository: &Repository, name: &Reference) -> Vec<(Tag, Digest)> {
        let records = self.shared.records.lock();
        match name {
            Reference::Tag(tag) => {
                let row = records.tag(repository, &Slot::Tag(tag.clone()));
                row.map(|row| (tag.clone(), row.digest)).into_iter().collect()
            }
            Reference::Digest(digest) => {
                let tags = records.tags_of(repository, digest).into_iter();
                tags.map(|tag| (tag, *digest)).collect()
            }
        }
    }

    /// The repositories in which `digest` is linked.
    pub fn holders(&self, digest: &Digest) -> Vec<Repository> {
        let ids = self.shared.ledger.lock().repositories(digest);
        self.shared.records.lock().named(&ids)
    }

    /// Whether what the parent has under `name` is hidden, if that is `digest`. Something else it shows again.
    pub fn hides(&self, repository: &Repository, name: &Reference, digest: &Digest) -> bool {
        let (parent, sent) = match self.shared.records.lock().fact(repository, &Key::Buried(name.clone())) {
            Some(Fact::Buried { parent, sent, .. }) => (*parent, *sent),
            _ => return false,
        };
        let (say, unsay) = match parent {
            Some(parent) if parent == *digest => return true,
            _ if matches!(name, Reference::Digest(_)) || sent == Some(*digest) => return true,
            // The first that is heard of it since.
            None => {
                let (name, parent) = (name.clone(), Some(*digest));
                (vec![Fact::Buried { name, parent, sent }], Vec::new())
            }
            Some(_) => {
                let names = [name.clone(), Reference::Digest(*digest)];
                (Vec::new(), names.map(Key::Buried).to_vec())
            }
        };
        let hides = !say.is_empty();
        if let Err(error) = self.shared.say(repository, say, unsay) {
            tracing::warn!(%repository, %name, %error, "what the parent has now could not be written down");
        }
        hides
    }

    /// Names under which what the parent has is hidden.
    pub fn hidden(&self, repository: &Repository) -> Vec<Reference> {
        let buried = self.shared.records.lock().buried(repository);
        buried.into_iter().map(|(name, _)| name).collect()
    }

    /// Whether anything was ever pushed to `repository`, or known of it.
    pub fn knows(&self, repository: &Repository) -> bool {
        self.shared.records.lock().repository_id(repository).is_some()
    }

    /// The tags that were pushed here, in ASCII order.
    pub fn pushed_tags(&self, repository: &Repository) -> Vec<String> {
        self.shared.records.lock().pushed_tags(repository)
    }

    /// What was pushed here and refers to `digest`.
    pub fn pushed_referrers(&self, repository: &Repository, digest: &Digest) -> Vec<Link> {
        let referrers = self.shared.records.lock().referrers(repository, digest);
        referrers.into_iter().map(Link::new).collect()
    }

    /// Finds the blobs that no manifest of their repository needs and that were pushed longer than `unused` ago; takes them
    /// away unless it is a `dry` run. Reads every manifest that was pushed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: a manifest could not be read, or the disk refused.
    pub async fn sweep(&self, unused: Duration, dry: bool) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        // In a dry run, how many would let go of a blob so far.
        let mut less: HashMap<Digest, u32> = HashMap::new();
        let oldest = stamp().saturating_sub(unused.as_secs());
        let repositories: Vec<Repository> = self.shared.records.lock().all();
        for repository in repositories {
            let (facts, accepted) = {
                let records = self.shared.records.lock();
                let facts: Vec<Fact> = records.facts_of(&repository).cloned().collect();
                (facts, records.accepted(&repository))
            };
            let needed = self.needed(&facts).await?;
            let idle = facts.iter().filter_map(|fact| match fact {
                Fact::Blob { digest, at, .. } if *at <= oldest && !needed.contains(digest) => Some(*digest),
                _ => None,
            });
            for digest in idle {
                let is_idle = |records: &Records| {
                    let fact = records.fact(&repository, &Key::Blob(digest));
                    let is_old = matches!(fact, Some(Fact::Blob { at, .. }) if *at <= oldest);
                    is_old && records.accepted(&repository) == accepted
                };
                let before = less.entry(digest).or_default();
                if let Some(bytes) = self
                    .shared
                    .let_go(&repository, &digest, is_idle, dry.then_some(*before))?
                {
                    *before += 1;
                    swept.bytes += bytes;
                    swept.blobs.push((repository.clone(), digest));
                }
            }
        }
        Ok(swept)
    }

    /// What the manifests among `facts` need. One that cannot be read needs everything: nothing is taken away.
    async fn needed(&self, facts: &[Fact]) -> Result<HashSet<Digest>, Error> {
        let mut needed = HashSet::new();
        for fact in facts {
            let Fact::Manifest { digest, .. } = fact else { continue };
            let link = Link::new(*digest);
            let Some(held) = self.held(&link).await? else {
                return Ok(facts.iter().filter_map(Fact::content).copied().collect());
            };
            if let Ok(manifest) = Manifest::parse(held.bytes()) {
                needed.extend(manifest.children().map(|child| child.digest));
            }
        }
        Ok(needed)
    }
}

impl Shared {
    /// Writes down what holds from now on. What it speaks of lies here, and is linked in the repository.
    ///
    /// # Errors
    ///
    /// * [`Error::Gone`]: it does not lie here.
    /// * [`Error::Io`], [`Error::ReadOnly`]: the disk refused. Nothing has changed.
    pub(super) fn say(&self, repository: &Repository, say: Vec<Fact>, unsay: Vec<Key>) -> Result<Mark, Error> {
        let wish = Wish {
            say,
            unsay,
            ..Wish::default()
        };
        let said = self.say_if(repository, |_| Some(wish))?;
        Ok(said.unwrap_or_else(|| self.journal.mark()))
    }

    /// The same, as it is to be by what holds when it is said; `None` if nothing is.
    pub(super) fn say_if(
        &self,
        repository: &Repository,
        wish: impl FnOnce(&Records) -> Option<Wish>,
    ) -> Result<Option<Mark>, Error> {
        let mut records = self.records.lock();
        let wish = wish(&records);
        let Some(Wish {
            say,
            mut unsay,
            lack,
            above,
            is_kept,
        }) = wish
        else {
            return Ok(None);
        };
        unsay.retain(|key| records.fact(repository, key).is_some());
        if say.is_empty() && unsay.is_empty() && lack.is_empty() {
            return Ok(Some(self.journal.mark()));
        }
        let id = records.enrol(repository, &self.index);
        let content = |fact: &Fact| fact.content().copied();
        let is_new = |fact: &Fact| records.fact(repository, &fact.key()).is_none();
        let owned: Vec<Digest> = say.iter().filter(|fact| is_new(fact)).filter_map(content).collect();
        let gone = unsay.iter().filter_map(|key| records.fact(repository, key));
        let disowned: Vec<Digest> = gone.filter_map(content).collect();
        self.own_all(&say, &owned)?;
        let unsaid = unsay.clone();
        let written = records.change(repository, say.clone(), unsay, &self.journal, &self.index);
        let mut ledger = self.ledger.lock();
        if written.is_err() {
            owned.iter().for_each(|digest| ledger.disown(digest));
        } else {
            disowned.iter().for_each(|digest| ledger.disown(digest));
        }
        let (mark, number) = written.inspect_err(|error| self.health.note(error))?;
        for fact in &say {
            if let Some(digest) = fact.content()
                && ledger.link(digest, id) == Some(true)
            {
                let digest = *digest;
                self.index.write(Row::Link { repository: id, digest });
            }
            if let Some((digest, media_type)) = fact.content().zip(fact.media_type()) {
                ledger.set_media_type(digest, media_type);
            }
        }
        let kept = |digest: &Digest| {
            let keys = [Key::Blob(*digest), Key::Manifest(*digest)];
            keys.iter().any(|key| records.fact(repository, key).is_some())
        };
        for key in unsaid.into_iter().filter(|_| !is_kept) {
            if let Key::Blob(digest) | Key::Manifest(digest) = key
                && !kept(&digest)
            {
                ledger.unlink(&digest, id);
                self.index.write(Row::NoLink { repository: id, digest });
            }
        }
        for name in lack {
            match name {
                Reference::Tag(tag) => records.untag(repository, &Slot::Tag(tag), &self.index),
                Reference::Digest(digest) => {
                    ledger.unlink(&digest, id);
                    self.index.write(Row::NoLink { repository: id, digest });
                }
            }
        }
        if let Some((tag, digest, confirmed)) = above {
            records.confirm(repository, &Slot::Tag(tag), &digest, confirmed, &self.index);
        }
        self.index.write(Row::Changes(number));
        Ok(Some(mark))
    }

    /// A tag that was pushed here is the parent's again once that has the same under it.
    pub(super) fn hand_back(&self, repository: &Repository, tag: &Tag, digest: &Digest, confirmed: Confirmed) {
        let wish = |records: &Records| {
            let row = records.tag(repository, &Slot::Tag(tag.clone()))?;
            (row.origin == Origin::Pushed && row.digest == *digest).then(|| Wish {
                unsay: vec![Key::Tag(tag.clone())],
                above: Some((tag.clone(), *digest, confirmed)),
                ..Wish::default()
            })
        };
        if let Err(error) = self.say_if(repository, wish) {
            tracing::warn!(%repository, %tag, %error, "that the parent has a tag now could not be written down");
        }
    }

    /// A blob that lies here is the repository's from now on, whatever was deleted before.
    pub(super) fn say_blob(&self, repository: &Repository, digest: &Digest) -> Result<Link, Error> {
        let (digest, at) = (*digest, stamp());
        let buried = Key::Buried(Reference::Digest(digest));
        let blob = Fact::Blob {
            digest,
            at,
            media_type: None,
        };
        let _mark = self.say(repository, vec![blob], vec![buried])?;
        Ok(Link::new(digest))
    }

    /// What was lost and has come again is here for all to whom it was promised.
    pub(super) fn link_claimants(&self, digest: &Digest) {
        if !self.ledger.lock().is_owned(digest) {
            return;
        }
        let records = self.records.lock();
        let mut ledger = self.ledger.lock();
        for id in records.claimants(digest) {
            if ledger.link(digest, id) == Some(true) {
                let digest = *digest;
                self.index.write(Row::Link { repository: id, digest });
            }
        }
    }

    /// Keeps `owned` from being evicted, if all that is spoken of lies here.
    fn own_all(&self, say: &[Fact], owned: &[Digest]) -> Result<(), Error> {
        let mut ledger = self.ledger.lock();
        if let Some(digest) = say
            .iter()
            .filter_map(Fact::content)
            .find(|digest| !ledger.holds(digest))
        {
            return Err(Error::Gone { digest: *digest });
        }
        for digest in owned {
            ledger.own(digest);
        }
        Ok(())
    }

    /// Takes a blob from a repository, if it is still idle; the bytes that leave the disk for it. In a dry run, after so many
    /// that have let go of it, it only says so.
    fn let_go(
        &self,
        repository: &Repository,
        digest: &Digest,
        is_idle: impl Fn(&Records) -> bool,
        dry: Option<u32>,
    ) -> Result<Option<u64>, Error> {
        let room = self.ledger.lock().freed_by(dry.unwrap_or(0) + 1, digest);
        if dry.is_some() {
            return Ok(is_idle(&self.records.lock()).then_some(room));
        }
        let wish = |records: &Records| {
            is_idle(records).then(|| Wish {
                unsay: vec![Key::Blob(*digest)],
                ..Wish::default()
            })
        };
        if self.say_if(repository, wish)?.is_none() {
            return Ok(None);
        }
        let victim = self.ledger.lock().drop_unowned(digest);
        let freed = if victim.is_some() { room } else { 0 };
        self.unlink(victim.into_iter().collect());
        Ok(Some(freed))
    }
}

/// What is to change at once.
#[derive(Default)]
pub(super) struct Wish {
    pub(super) say: Vec<Fact>,
    pub(super) unsay: Vec<Key>,
    /// What the parent is not known to have any more.
    pub(super) lack: Vec<Reference>,
    /// What it has under a tag.
    pub(super) above: Option<(Tag, Digest, Confirmed)>,
    /// The parent has what is unsaid: it is the repository's as before.
    pub(super) is_kept: bool,
}

impl Wish {
    pub(super) fn to_say(say: Vec<Fact>) -> Self {
        Self { say, ..Self::default() }
    }

    pub(super) fn to_unsay(unsay: Vec<Key>) -> Self {
        Self {
            unsay,
            ..Self::default()
        }
    }
}

/// What is pushed under the tag `name` and is not paid: it may arrive at the parent yet.
fn on_its_way(records: &Records, repository: &Repository, name: &Reference) -> Option<Digest> {
    let Reference::Tag(tag) = name else { return None };
    let mut pushes = records.unpaid(repository).filter(|debt| debt.is_about(tag));
    // What was pushed before under the tag is not sent any more, but for what is being sent just now.
    pushes.find_map(|debt| debt.pushed().copied())
}

/// What has to change for `name` to be gone; a manifest takes its tags with it.
fn what_goes(records: &Records, repository: &Repository, name: &Reference, hide: Option<&Hide>) -> Wish {
    let mut names = vec![name.clone()];
    let mut unsay = Vec::new();
    if let Reference::Digest(digest) = name {
        unsay.extend([Key::Manifest(*digest), Key::Blob(*digest)]);
        let tags = records.tags_of(repository, digest).into_iter();
        names.extend(tags.map(Reference::Tag));
    }
    unsay.extend(names.iter().filter_map(|name| match name {
        Reference::Tag(tag) => Some(Key::Tag(tag.clone())),
        Reference::Digest(_) => None,
    }));
    let parent = |name: &Reference, hide: &Hide| match name {
        Reference::Digest(digest) => Some(Some(*digest)),
        Reference::Tag(tag) => {
            let row = records.tag(repository, &Slot::Tag(tag.clone()));
            match (row, hide.known.get(tag)) {
                (Some(row), _) if row.origin == Origin::Parent => Some(Some(row.digest)),
                // There is nothing to hide, or what is on its way.
                (_, Some(None)) => on_its_way(records, repository, name).map(Some),
                (_, Some(Some(digest))) => Some(Some(*digest)),
                (row, None) => Some(row.and_then(|row| row.parent_digest)),
            }
        }
    };
    let bury = names
        .iter()
        .filter_map(|name| Some((name.clone(), parent(name, hide?)?)));
    let say = bury.map(|(name, parent)| Fact::Buried {
        sent: on_its_way(records, repository, &name),
        name,
        parent,
    });
    Wish {
        say: say.collect(),
        unsay,
        lack: names,
        ..Wish::default()
    }
}
