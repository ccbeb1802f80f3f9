//! A blob for a client: from here, along a flight, or by leading one.

use std::sync::Arc;

use super::error::is_method_refused;
use super::flight::{Flight, Head, Kind};
use super::freshness::WORK;
use super::here::PUSH_PATIENCE;
use super::lead;
use super::{Asker, Error, Fetch, Outcome, Shared, Source};
use crate::oci::{Digest, Reference, Repository};
use crate::parent::{Ask, What};

/// The part one plays in a flight.
enum Part {
    Lead(Arc<Flight>),
    Follow(Arc<Flight>),
    /// It was committed between two looks.
    Stored,
    /// It came wrong too often.
    None(Error),
}

impl Fetch {
    /// The content of `digest`, if `repository` has it.
    ///
    /// Returns when its header is known, at the latest at the deadline of `asker`; the bytes may still be on
    /// their way. `from` is the first byte wanted: who goes on after a reply that was broken off for wrong bytes is
    /// not given more of them.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] if the repository's upstream does not have it; else why it could not be asked.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        asker: &Asker,
    ) -> Result<Source, Error> {
        let shared = &self.shared;
        shared.stays_away(repository, &Reference::Digest(*digest), digest)?;
        shared.vouch(repository, digest, Kind::Blob, asker).await?;
        // No parent is to blame for the time that the disk takes.
        if let Some(source) = shared.stored(repository, digest, asker, Outcome::Hit).await? {
            return Ok(source);
        }
        shared
            .in_time(repository, asker, shared.blob(repository, digest, from, asker))
            .await
    }

    /// Has a blob come here whole, for nobody in particular, and says how many bytes more of it have.
    ///
    /// # Errors
    ///
    /// As [`Fetch::blob`].
    pub async fn bring(
        &self,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
        came: impl Fn(u64),
    ) -> Result<(), Error> {
        let asker = asker.for_all(self.shared.clock.now() + WORK, false);
        self.shared
            .stays_away(repository, &Reference::Digest(*digest), digest)?;
        let mut source = self.shared.blob(repository, digest, 0, &asker).await?;
        let size = source.settle().await?;
        let mut at = 0;
        while let Some(piece) = source.piece(at..size).await? {
            at += piece.len();
            came(piece.len());
        }
        Ok(())
    }

    /// Bytes of a blob, for a HEAD: nothing is transferred.
    ///
    /// # Errors
    ///
    /// As [`Fetch::blob`].
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(u64, Outcome), Error> {
        let shared = &self.shared;
        shared.stays_away(repository, &Reference::Digest(*digest), digest)?;
        shared.vouch(repository, digest, Kind::Blob, asker).await?;
        if let Some(size) = shared.size_here(repository, digest) {
            return Ok((size, Outcome::Hit));
        }
        let asked = shared.blob_size(repository, digest, asker);
        if shared.pushed_to(repository).is_none() {
            return shared.in_time(repository, asker, asked).await;
        }
        if let Some(error) = shared.parent(repository)?.is_shut(asker.class) {
            return shared.or_push_it(repository, asker, Err(error.into()));
        }
        let outcome = shared.within(PUSH_PATIENCE, repository, asker, asked).await;
        shared.or_push_it(repository, asker, outcome)
    }

    /// Bytes of the content that `source` brings; waits for the last of them, if the upstream does not say before.
    ///
    /// # Errors
    ///
    /// Why the transfer failed, or that it takes too long.
    pub async fn settle(&self, repository: &Repository, source: &mut Source, asker: &Asker) -> Result<u64, Error> {
        self.shared.in_time(repository, asker, source.settle()).await
    }
}

impl Shared {
    async fn blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        asker: &Asker,
    ) -> Result<Source, Error> {
        let key = (repository.clone(), *digest);
        loop {
            if let Some(source) = self.stored(repository, digest, asker, Outcome::Hit).await? {
                return Ok(source);
            }
            if let Some(error) = self.spoiled.get(&key).filter(|_| from > 0) {
                return Err(error);
            }
            if self.store.holds(digest) {
                self.confirm(repository, digest, Kind::Blob, asker).await?;
                if let Some(source) = self.stored(repository, digest, asker, Outcome::Miss).await? {
                    return Ok(source);
                }
            }
            let Some((flight, head, outcome)) = self.join(repository, digest, Kind::Blob, asker).await? else {
                continue;
            };
            match Source::flight(self, &flight, &head, asker, outcome, 0) {
                Some(source) => return Ok(source),
                // Nothing is kept and the beginning is gone: wait for the end of that one.
                None => drop(flight.landed().await),
            }
        }
    }

    async fn blob_size(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
    ) -> Result<(u64, Outcome), Error> {
        let said = self.confirm(repository, digest, Kind::Blob, asker).await?;
        if let Some(size) = self.size_here(repository, digest) {
            return Ok((size, Outcome::Miss));
        }
        if let Some(size) = said.or_else(|| self.announced.get(&(repository.clone(), *digest))) {
            return Ok((size, Outcome::Miss));
        }
        // An upstream that says no length to a HEAD: the content itself tells.
        let mut source = self.blob(repository, digest, 0, asker).await?;
        Ok((source.settle().await?, Outcome::Miss))
    }

    /// Bytes of linked content that lies here.
    fn size_here(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        self.store.size(&self.store.linked(repository, digest)?)
    }

    /// The flight that answers this question, joined or begun, and its header.
    ///
    /// `None`: look again. It lies here by now, or the flight under way was for another question, or it failed another
    /// repository.
    pub(super) async fn join(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<Option<(Arc<Flight>, Arc<Head>, Outcome)>, Error> {
        let (flight, outcome) = match self.take_part(repository, digest, kind, asker) {
            Part::Stored => return Ok(None),
            Part::None(error) => return Err(error),
            Part::Lead(flight) => (flight, Outcome::Miss),
            Part::Follow(flight) => (flight, Outcome::Collapsed),
        };
        if !flight.admits(repository) {
            self.confirm(repository, digest, kind, asker).await?;
            flight.admit(repository);
            if flight.is_done() {
                self.store.link(repository, digest);
            }
        }
        if flight.kind.is_some_and(|other| other != kind) {
            // Its answers are not ours: registries say 404 to the one question and 200 to the other.
            drop(flight.landed().await);
            return Ok(None);
        }
        match flight.head().await {
            Ok(head) => Ok(Some((flight, head, outcome))),
            // Another repository's upstream failed; ours was not asked yet.
            Err(_) if flight.repository != *repository => Ok(None),
            // It was nobody's, and the window closed.
            Err(error) if outcome == Outcome::Collapsed && error.is_closed() && asker.is_urgent() => Ok(None),
            // It was given up because its first client left.
            Err(error) if outcome == Outcome::Collapsed && error.is_late() && asker.outwaits(flight.asker.as_ref()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Joins the flight of `digest`, or begins one for `repository`.
    fn take_part(self: &Arc<Self>, repository: &Repository, digest: &Digest, kind: Kind, asker: &Asker) -> Part {
        let asker = &asker.with_nothing_instead();
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(digest) {
            flight.urgency.rise(asker.class);
            return Part::Follow(flight.clone());
        }
        // A flight leaves the table after its content was committed.
        if self.store.holds(digest) {
            return Part::Stored;
        }
        let key = (repository.clone(), *digest);
        if let Some(error) = self.distrust.refuses(&key, self.clock.now()) {
            self.metrics.distrusted.inc();
            return Part::None(error);
        }
        let budget = self.windows.clone();
        let flight = Arc::new(Flight::new(*digest, repository.clone(), kind, asker.clone(), budget));
        flights.insert(*digest, flight.clone());
        drop(flights);
        self.runtime
            .spawn(lead::fly(self.clone(), flight.clone(), kind, asker.clone()));
        Part::Lead(flight)
    }

    /// Asks the upstream of `repository` whether it has `digest`, and links it if it lies here.
    ///
    /// Bytes, if the upstream says.
    pub(super) async fn confirm(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<Option<u64>, Error> {
        let key = (repository.clone(), *digest, kind);
        let (shared, asker) = (self.clone(), asker.with_nothing_instead());
        let work = || {
            let (repository, digest, kind) = key.clone();
            async move { shared.ask_whether(&repository, &digest, kind, &asker).await }
        };
        let (answer, _) = self
            .confirming
            .join(&self.runtime, key.clone(), work)
            .await
            .ok_or(Error::Interrupted)?;
        answer
    }

    async fn ask_whether(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        asker: &Asker,
    ) -> Result<Option<u64>, Error> {
        let reference = Reference::Digest(*digest);
        let what = match kind {
            Kind::Manifest => What::Manifest(&reference),
            Kind::Blob => What::Blob(digest),
        };
        let ask = Ask {
            head: true,
            ..self.ask(asker, repository, what)
        };
        let parent = self.parent(repository)?;
        let answer = match self.put_to(parent, ask).await {
            // The body is not read.
            Err(error) if is_method_refused(&error) => self.put_to(parent, Ask { head: false, ..ask }).await?,
            answer => answer?,
        };
        self.store.link(repository, digest);
        Ok(answer.head.length)
    }
}
