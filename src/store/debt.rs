//! What is owed to the parent: pushes and deletes that were taken in here and that it is to hear of.
//!
//! A debt is written down with the promise, in the same line of the journal, and has a number: its place in the order in
//! which pushes were taken in. Once it is paid it is remembered for a while, as the parent may lose what it has.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::fact::{Fact, Key, stamp};
use super::own::Wish;
use super::records::{Records, Slot};
use super::{Confirmed, Error, Held, Link, Store};
use crate::oci::{Digest, Reference, Repository, Tag};

/// A push or a delete.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Debt {
    /// Later ones have higher numbers.
    pub number: u64,
    /// The registry that it is owed to, by its URL.
    pub to: String,
    /// Who pushed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When it was taken in: seconds since 1970.
    pub at: u64,
    /// What is owed.
    pub what: What,
    /// How far it is.
    #[serde(default, skip_serializing_if = "State::is_owed")]
    pub state: State,
    /// Whether the parent had it before, and lost it: it may have been deleted there, so that happens once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_again: bool,
}

/// What is owed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A manifest with all that it needs, and then its tags.
    Push {
        /// Of the manifest.
        digest: Digest,
        /// Names that it is to have.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<Named>,
        /// What it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<Digest>,
    },
    /// A tag or a manifest is to go.
    Delete {
        /// What was deleted here.
        name: Reference,
        /// What it meant here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Digest>,
        /// What it was about: it may be listed there under a tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<Digest>,
    },
}

/// A tag that was moved here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Named {
    /// The tag.
    pub tag: Tag,
    /// What the parent had under it by then, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Digest>,
    /// Whoever pushed it may not move it: what the parent has under it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

/// How far a debt is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be paid.
    #[default]
    Owed,
    /// The parent refuses it, and an operator has to look at it.
    Parked {
        /// What the parent said.
        reason: String,
    },
    /// The parent has it.
    Paid {
        /// Since when: seconds since 1970.
        at: u64,
    },
    /// The parent has, and keeps, what was to be deleted there.
    Undone {
        /// Since when: seconds since 1970.
        at: u64,
    },
    /// An operator gave it up: what was pushed for it may be let go of.
    Dropped,
}

impl State {
    fn is_owed(&self) -> bool {
        matches!(self, Self::Owed)
    }
}

impl Debt {
    /// Whether the parent has it.
    pub fn is_paid(&self) -> bool {
        matches!(self.state, State::Paid { .. })
    }

    /// Whether nothing is to be done about it any more.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Paid { .. } | State::Undone { .. } | State::Dropped)
    }

    /// Whether it moves or deletes a tag.
    pub(super) fn is_about(&self, tag: &Tag) -> bool {
        match &self.what {
            What::Push { tags, .. } => tags.iter().any(|named| named.tag == *tag),
            What::Delete { name, .. } => matches!(name, Reference::Tag(deleted) if deleted == tag),
        }
    }

    /// Whether the parent has it since then, in seconds since 1970, or is yet to have it.
    fn is_since(&self, since: u64) -> bool {
        match self.state {
            State::Paid { at } => at >= since,
            State::Undone { .. } | State::Dropped => false,
            State::Owed | State::Parked { .. } => true,
        }
    }

    /// Whether it deletes a manifest, and with it all its tags.
    fn deletes(&self, manifest: &Digest) -> bool {
        matches!(&self.what, What::Delete { name: Reference::Digest(deleted), .. } if deleted == manifest)
    }

    /// The manifest that is pushed.
    pub fn pushed(&self) -> Option<&Digest> {
        match &self.what {
            What::Push { digest, .. } => Some(digest),
            What::Delete { .. } => None,
        }
    }

    /// The tags that are moved.
    pub fn tags(&self) -> &[Named] {
        match &self.what {
            What::Push { tags, .. } => tags,
            What::Delete { .. } => &[],
        }
    }
}

/// To whom a push is owed, and by whose doing.
#[derive(Clone, Debug)]
pub struct Owing {
    /// The parent's URL.
    pub to: String,
    /// Who pushed.
    pub by: String,
}

impl Owing {
    /// A debt of this moment.
    pub(super) fn debt(self, number: u64, what: What) -> Fact {
        let Self { to, by } = self;
        Fact::Debt(Debt {
            number,
            to,
            by,
            at: stamp(),
            what,
            state: State::Owed,
            is_again: false,
        })
    }
}

impl Store {
    /// Whether something is owed, changes; it can be waited on.
    pub fn debts_changed(&self) -> watch::Receiver<u64> {
        self.shared.records.lock().debts_changed()
    }

    /// The repositories with debts that are not paid, in the order in which the oldest of each was taken in.
    pub fn indebted(&self) -> Vec<Repository> {
        self.shared.records.lock().indebted()
    }

    /// The repositories that have something to be paid to `to`, in the order in which the first of it was taken in.
    pub fn due(&self, to: &str) -> Vec<Repository> {
        let records = self.shared.records.lock();
        let first = |repository: &Repository| {
            let is_due = |debt: &&Debt| debt.state == State::Owed && debt.to == to;
            records.unpaid(repository).find(is_due).map(|debt| debt.number)
        };
        let mut due: Vec<(u64, Repository)> = records
            .indebted()
            .into_iter()
            .filter_map(|repository| Some((first(&repository)?, repository)))
            .collect();
        due.sort_by_key(|(number, _)| *number);
        due.into_iter().map(|(_, repository)| repository).collect()
    }

    /// Whether a later debt than `number` pushes what a delete is about.
    pub fn is_pushed_since(&self, repository: &Repository, number: u64, name: &Reference) -> bool {
        let records = self.shared.records.lock();
        let pushes = |debt: &&Debt| match name {
            Reference::Tag(tag) => debt.tags().iter().any(|named| named.tag == *tag),
            Reference::Digest(digest) => debt.pushed() == Some(digest),
        };
        records
            .debts(repository)
            .filter(|debt| debt.number > number)
            .any(|debt| pushes(&debt))
    }

    /// Whether a manifest was pushed under tags, and all of them mean something else here by now.
    pub fn is_superseded(&self, repository: &Repository, digest: &Digest) -> bool {
        let records = self.shared.records.lock();
        let mut is_named = false;
        for debt in records.debts(repository).filter(|debt| debt.pushed() == Some(digest)) {
            for named in debt.tags() {
                if is_standing(&records, repository, debt, &named.tag) {
                    return false;
                }
                is_named = true;
            }
        }
        is_named
    }

    /// The tags that were pushed and that a list of the parent's may not have, if it was asked for at `since`, in seconds since
    /// 1970: as they were delivered later, or are just being delivered.
    pub fn delivered_tags(&self, repository: &Repository, since: u64) -> Vec<Tag> {
        let records = self.shared.records.lock();
        let (mut seen, mut gone) = (HashSet::new(), HashSet::new());
        let mut delivered = Vec::new();
        // The last word on a tag is the one that counts.
        for debt in records.debts(repository).rev() {
            match &debt.what {
                What::Delete { name, .. } => {
                    gone.insert(name);
                }
                What::Push { digest, tags, .. } => {
                    let is_gone = gone.contains(&Reference::Digest(*digest));
                    for Named { tag, .. } in tags.iter().filter(|named| seen.insert(&named.tag)) {
                        let is_gone = is_gone || gone.contains(&Reference::Tag(tag.clone()));
                        if debt.is_since(since) && !is_gone {
                            delivered.push(tag.clone());
                        }
                    }
                }
            }
        }
        delivered
    }

    /// The same of the manifests that are about `subject`.
    pub fn delivered_referrers(&self, repository: &Repository, subject: &Digest, since: u64) -> Vec<Link> {
        let records = self.shared.records.lock();
        let of = |debt: &Debt| match &debt.what {
            What::Push {
                digest,
                subject: Some(about),
                ..
            } if about == subject => Some(*digest),
            _ => None,
        };
        let late = records
            .debts(repository)
            .filter(|debt| debt.is_since(since))
            .filter_map(of);
        let is_here = |digest: &Digest| {
            let buried = Key::Buried(Reference::Digest(*digest));
            records.fact(repository, &buried).is_none()
        };
        late.filter(is_here).map(Link::new).collect()
    }

    /// The debts of a repository, in their order.
    pub fn debts(&self, repository: &Repository) -> Vec<Debt> {
        let records = self.shared.records.lock();
        records.debts(repository).cloned().collect()
    }

    /// The first that is to be paid to `to`.
    pub fn first_owed(&self, repository: &Repository, to: &str) -> Option<Debt> {
        let records = self.shared.records.lock();
        let is_due = |debt: &&Debt| debt.state == State::Owed && debt.to == to;
        records.unpaid(repository).find(is_due).cloned()
    }

    /// One of them.
    pub fn debt(&self, repository: &Repository, number: u64) -> Option<Debt> {
        match self.shared.records.lock().fact(repository, &Key::Debt(number)) {
            Some(Fact::Debt(debt)) => Some(debt.clone()),
            _ => None,
        }
    }

    /// When a manifest was last pushed here, if it is not let go of: seconds since 1970.
    pub fn pushed_at(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        match self.shared.records.lock().fact(repository, &Key::Manifest(*digest)) {
            Some(Fact::Manifest { at, .. }) => Some(*at),
            _ => None,
        }
    }

    /// Every repository with a debt, paid ones included.
    pub fn with_debts(&self) -> Vec<Repository> {
        self.shared.records.lock().with_debts()
    }

    /// Writes down how far a debt is, if it is on record. A power cut may take that: then it is paid again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn set_debt(&self, repository: &Repository, number: u64, state: State) -> Result<(), Error> {
        let wish = |records: &Records| {
            let Some(Fact::Debt(debt)) = records.fact(repository, &Key::Debt(number)) else {
                return None;
            };
            let state = state.clone();
            // What an operator settled meanwhile stays settled.
            let is_due = !debt.is_settled() && debt.state != state;
            is_due.then(|| Wish::to_say(vec![Fact::Debt(Debt { state, ..debt.clone() })]))
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Has the parent told of it what it is now owed for: of `number`, that it is owed to `to`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn turn_debt(&self, repository: &Repository, number: u64, to: &str) -> Result<(), Error> {
        let wish = |records: &Records| {
            let Some(Fact::Debt(debt)) = records.fact(repository, &Key::Debt(number)) else {
                return None;
            };
            let (to, state) = (to.to_owned(), State::Owed);
            (!debt.is_settled()).then(|| {
                Wish::to_say(vec![Fact::Debt(Debt {
                    to,
                    state,
                    ..debt.clone()
                })])
            })
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Forgets a debt, as if it had never been. A power cut may bring it back.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn forget_debt(&self, repository: &Repository, number: u64) -> Result<(), Error> {
        let wish = |_: &Records| Some(Wish::to_unsay(vec![Key::Debt(number)]));
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Gives a debt up: its tags are the parent's again, and [`Store::release`] lets go of what was pushed for it. A power cut
    /// may bring it back, until [`Store::sync_changes`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn drop_debt(&self, repository: &Repository, number: u64) -> Result<(), Error> {
        let wish = |records: &Records| {
            let debt = records.unpaid(repository).find(|debt| debt.number == number)?;
            let stands = |named: &&Named| is_standing(records, repository, debt, &named.tag);
            let tags = debt.tags().iter().filter(stands);
            let unsay = tags.map(|named| Key::Tag(named.tag.clone())).collect();
            let state = State::Dropped;
            Some(Wish {
                unsay,
                ..Wish::to_say(vec![Fact::Debt(Debt { state, ..debt.clone() })])
            })
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Returns when all that was written down so far survives a power cut. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: the disk refused.
    pub fn sync_changes(&self) -> Result<(), Error> {
        self.shared.journal.sync(self.shared.journal.mark())
    }

    /// The tags of a debt that were neither moved nor deleted here since.
    pub fn standing_tags(&self, repository: &Repository, debt: &Debt) -> Vec<Named> {
        let records = self.shared.records.lock();
        let tags = debt.tags().iter();
        tags.filter(|named| is_standing(&records, repository, debt, &named.tag))
            .cloned()
            .collect()
    }

    /// Pushes a manifest that is here once more, and these of its tags: the parent lost them. Whether all that it needs is
    /// here. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn owe_again(
        &self,
        repository: &Repository,
        debt: &Debt,
        tags: Vec<Named>,
        needs: &[Digest],
        subject: Option<Digest>,
    ) -> Result<bool, Error> {
        let Some(digest) = debt.pushed() else { return Ok(false) };
        let mut closure = needs.to_vec();
        closure.push(*digest);
        match self.shared.make_durable(&closure) {
            Ok(()) => {}
            Err(Error::Gone { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let at = stamp();
        let wish = |records: &Records| {
            let is_buried = records
                .fact(repository, &Key::Buried(Reference::Digest(*digest)))
                .is_some();
            let is_paid =
                matches!(records.fact(repository, &Key::Debt(debt.number)), Some(Fact::Debt(debt)) if debt.is_paid());
            if is_buried || !is_paid {
                // It was deleted here while the parent was asked.
                return None;
            }
            let ledger = self.shared.ledger.lock();
            let media_type = ledger.entry(digest)?.media_type.as_deref()?.to_owned();
            let blobs: Option<Vec<Fact>> = needs
                .iter()
                .map(|digest| {
                    let media_type = ledger.entry(digest)?.media_type.as_deref().map(str::to_owned);
                    let digest = *digest;
                    Some(Fact::Blob { digest, at, media_type })
                })
                .collect();
            let mut say = blobs?;
            let mut tags = tags;
            tags.retain(|named| is_standing(records, repository, debt, &named.tag));
            let digest = *digest;
            say.push(Fact::Manifest {
                digest,
                media_type,
                at,
                subject,
            });
            say.extend(tags.iter().map(|named| Fact::Tag {
                tag: named.tag.clone(),
                digest,
            }));
            say.push(Fact::Debt(Debt {
                number: self.shared.journal.next(),
                what: What::Push { digest, tags, subject },
                state: State::Owed,
                is_again: true,
                ..debt.clone()
            }));
            Some(Wish {
                unsay: vec![Key::Debt(debt.number)],
                ..Wish::to_say(say)
            })
        };
        match self.shared.say_if(repository, wish) {
            Ok(Some(mark)) => self.shared.journal.sync(mark).map(|()| true),
            Ok(None) | Err(Error::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The parent has `digest` under a tag that was pushed here: the tag is the parent's again.
    pub fn agree(&self, repository: &Repository, tag: &Tag, digest: &Digest, confirmed: Confirmed) {
        self.confirm(repository, &Slot::Tag(tag.clone()), digest, confirmed);
    }

    /// The parent's tag is what holds from now on, and not `digest`, if that is still what was pushed here under it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn yield_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), Error> {
        let wish = |records: &Records| {
            let key = Key::Tag(tag.clone());
            let is_it =
                matches!(records.fact(repository, &key), Some(Fact::Tag { digest: here, .. }) if here == digest);
            is_it.then(|| Wish::to_unsay(vec![key]))
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Whether the content was not lost, though the disk may not give it back just now.
    pub fn is_on_record(&self, digest: &Digest) -> bool {
        self.shared.ledger.lock().holds(digest)
    }

    /// Content of a repository that is to be sent to the parent, whole: a manifest. `None` if it is not here.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    pub async fn manifest_of(&self, repository: &Repository, digest: &Digest) -> Result<Option<Arc<Held>>, Error> {
        match self.linked(repository, digest) {
            Some(link) => self.held(&link).await,
            None => Ok(None),
        }
    }

    /// Room of what is here and may exist nowhere else, in bytes.
    pub fn owned(&self) -> u64 {
        self.shared.ledger.lock().owned()
    }
}

/// Whether no later debt moves or deletes a tag of this one, or deletes what it names.
fn is_standing(records: &Records, repository: &Repository, debt: &Debt, tag: &Tag) -> bool {
    let ends = |other: &Debt| other.is_about(tag) || debt.pushed().is_some_and(|digest| other.deletes(digest));
    let mut later = records
        .debts(repository)
        .rev()
        .take_while(|other| other.number > debt.number);
    !later.any(ends)
}

/// Of a debt that the parent was paid just now.
pub fn paid_now() -> State {
    State::Paid { at: stamp() }
}

/// Of a delete that the parent did not carry out.
pub fn undone_now() -> State {
    State::Undone { at: stamp() }
}
