//! Content that an earlier process left: hashed while it is handed out, all but its last piece.

use std::sync::Arc;
use std::time::Duration;

use super::flight::{Flight, Head};
use super::lead::{self, Place};
use super::{Asker, Error, Outcome, Shared, Source};
use crate::oci::{Digest, Repository};
use crate::store::Blob;

/// Bytes that are hashed before any of them leaves, so that damage is mended before anyone sees it.
/// Takes about 10 ms.
const AT_ONCE: u64 = 16 << 20;

/// Where the disk takes longer for it, a client gets its header first.
const SOON: Duration = Duration::from_secs(1);

impl Shared {
    /// Linked content that lies here; `None` if it does not, or turned out to be damaged.
    pub(super) async fn stored(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        asker: &Asker,
        outcome: Outcome,
    ) -> Result<Option<Source>, Error> {
        loop {
            let Some(link) = self.store.linked(repository, digest) else {
                return Ok(None);
            };
            let blob = match self.store.read(&link) {
                Ok(Some(blob)) => blob,
                // Gone, or refused by the disk so often that the upstream is the better choice.
                Ok(None) => return Ok(None),
                Err(_) if !self.store.holds(digest) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if blob.is_verified() {
                return Ok(Some(Source::stored(blob, outcome)));
            }
            let is_small = blob.size() <= AT_ONCE;
            let flight = self.recheck(repository, blob);
            // Whether it is right, gone, or shunned: the next look tells.
            if is_small && tokio::time::timeout(SOON, flight.landed()).await.is_ok() {
                continue;
            }
            if let Ok(head) = flight.head().await
                && let Some(source) = Source::flight(self, &flight, &head, asker, outcome, 0)
            {
                return Ok(Some(source));
            }
            drop(flight.landed().await);
        }
    }

    /// The flight that hashes `blob`, begun if there is none.
    fn recheck(self: &Arc<Self>, repository: &Repository, blob: Blob) -> Arc<Flight> {
        let digest = *blob.digest();
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&digest) {
            flight.admit(repository);
            return flight.clone();
        }
        let (size, blob) = (blob.size(), Arc::new(blob));
        let flight = Arc::new(Flight::of_stored(digest, repository.clone()));
        let head = Head {
            total: Some(size),
            media_type: blob.media_type().map(str::to_owned),
            cache_status: None,
        };
        flight.begin(head, Some(blob.clone()), 0);
        flights.insert(digest, flight.clone());
        drop(flights);

        let place = Place::new(self, &flight);
        let (shared, flying) = (self.clone(), flight.clone());
        self.runtime.spawn(async move {
            let turn = shared.hashing.acquire().await;
            let reader = flying.clone();
            let hashing =
                tokio::task::spawn_blocking(move || blob.verify(|position| reader.advance(position, Some(size))));
            let outcome = hashing.await;
            drop(turn);
            drop(place);
            match outcome {
                Ok(Ok(())) => {
                    flying.land(size);
                    lead::link(&shared, &flying);
                }
                Ok(Err(error)) => flying.fail(error.into()),
                Err(_) => flying.fail(Error::Interrupted),
            }
        });
        flight
    }
}
