//! Blobs on their way to the parent: where each upload goes on.

use super::fact::{Fact, Key};
use super::own::Wish;
use super::records::Records;
use super::{Error, Store};
use crate::oci::{Digest, Repository};

impl Store {
    /// Where a blob's upload to the parent `to` goes on.
    pub fn sending(&self, repository: &Repository, digest: &Digest, to: &str) -> Option<String> {
        match self.shared.records.lock().fact(repository, &Key::Sending(*digest)) {
            Some(Fact::Sending { session, to: whose, .. }) if whose == to => Some(session.clone()),
            _ => None,
        }
    }

    /// Writes down where a blob's upload to the parent `to` goes on. A kill leaves it so.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn set_sending(&self, repository: &Repository, digest: &Digest, to: &str, session: &str) -> Result<(), Error> {
        let sending = Fact::Sending {
            digest: *digest,
            to: to.to_owned(),
            session: session.to_owned(),
        };
        let wish = |_: &Records| Some(Wish::to_say(vec![sending]));
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Writes down that a blob is not on its way any more.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn forget_sending(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let key = Key::Sending(*digest);
        let wish = |records: &Records| {
            let is_known = records.fact(repository, &key).is_some();
            is_known.then(|| Wish::to_unsay(vec![key.clone()]))
        };
        self.shared.say_if(repository, wish).map(drop)
    }

    /// Writes down that no blob of a repository is on its way any more, if nothing is owed there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: it could not be written down.
    pub fn forget_sendings(&self, repository: &Repository) -> Result<(), Error> {
        let wish = |records: &Records| {
            if records.unpaid(repository).next().is_some() {
                return None;
            }
            let sendings = records.facts_of(repository).filter_map(|fact| match fact {
                Fact::Sending { digest, .. } => Some(Key::Sending(*digest)),
                _ => None,
            });
            let unsay: Vec<Key> = sendings.collect();
            (!unsay.is_empty()).then(|| Wish::to_unsay(unsay))
        };
        self.shared.say_if(repository, wish).map(drop)
    }
}
