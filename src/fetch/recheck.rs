//! Content that an earlier process left: hashed while it is handed out, all but its last piece.

use std::sync::Arc;

use super::flight::{Flight, Head};
use super::lead::{self, Place};
use super::{Asker, Error, Outcome, Shared, Source};
use crate::oci::{Digest, Repository};
use crate::store::Blob;

/// Bytes that are hashed before any of them leaves, so that damage is mended before anyone sees it.
/// Takes about 10 ms.
const AT_ONCE: u64 = 16 << 20;

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
            let Some(blob) = self.store.read(&link)? else {
                return Ok(None);
            };
            if blob.is_verified() {
                return Ok(Some(Source::stored(blob, outcome)));
            }
            let wait = blob.size() <= AT_ONCE;
            let flight = self.recheck(repository, blob);
            if !wait
                && let Ok(head) = flight.head().await
                && let Some(source) = Source::flight(self, &flight, &head, asker, outcome, 0)
            {
                return Ok(Some(source));
            }
            // Whether it is right or gone: the next look tells.
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
        self.runtime.spawn_blocking(move || {
            let outcome = blob.verify(|position| flying.advance(position, Some(size)));
            drop(place);
            match outcome {
                Ok(()) => {
                    flying.land(size);
                    lead::link(&shared, &flying);
                }
                Err(error) => flying.fail(error.into()),
            }
        });
        flight
    }
}
