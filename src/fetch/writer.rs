//! The writing end of a flight: into a file while the disk takes it, else past those who follow.

use std::sync::Arc;

use bytes::Bytes;

use super::flight::Flight;
use super::{Error, Readable, Shared};
use crate::oci::{Digest, Hasher};
use crate::store::{self, Staged};

/// Where the bytes of one transfer go, and how many have.
pub(super) struct Writer {
    end: End,
    written: u64,
}

enum End {
    /// Into a file that becomes the stored one.
    File(Staged),
    /// Through the flight's window, hashed on the way; kept nowhere.
    Window(Hasher),
    /// A thread died with it.
    Lost,
}

/// What a writer found when it was finished.
pub(super) enum Finished {
    Stored,
    /// The bytes are right, and nothing of them is kept.
    Unkept,
    /// They hash to this instead.
    Wrong(Digest),
}

impl Writer {
    /// Goes on with what an earlier transfer left.
    pub(super) fn going_on(staged: Staged) -> Self {
        let written = staged.written();
        Self {
            end: End::File(staged),
            written,
        }
    }

    /// Begins at the first byte; without a file if none can be had.
    pub(super) async fn begin(shared: &Shared, flight: &Flight, total: Option<u64>) -> Self {
        let (store, digest) = (shared.store.clone(), flight.digest);
        let staged = tokio::task::spawn_blocking(move || {
            let mut staged = store.stage(&digest, total)?;
            staged.restart()?;
            Ok(staged)
        });
        let outcome: Result<Staged, store::Error> = match staged.await {
            Ok(outcome) => outcome,
            Err(_) => return Self::past(flight, 0, Hasher::new(digest.algorithm())),
        };
        match outcome {
            Ok(staged) => Self::going_on(staged),
            Err(error) => {
                pass_by(shared, flight, &error);
                Self::past(flight, 0, Hasher::new(digest.algorithm()))
            }
        }
    }

    fn past(flight: &Flight, written: u64, hasher: Hasher) -> Self {
        flight.window.open(written);
        Self {
            end: End::Window(hasher),
            written,
        }
    }

    /// Bytes of the content that followers could be shown.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes behind them that an earlier transfer left, to be hashed by [`Writer::catch_up`] before more is written.
    pub(super) fn unhashed(&self) -> u64 {
        match &self.end {
            End::File(staged) => staged.unhashed(),
            End::Window(_) | End::Lost => 0,
        }
    }

    /// Hashes what an earlier transfer left, and shows it to those who follow.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: some of it cannot be read; the transfer goes on from there ([`Writer::written`]).
    pub(super) async fn catch_up(&mut self, shared: &Shared, flight: &Flight, total: Option<u64>) -> Result<(), Error> {
        while self.unhashed() > 0 {
            let _turn = shared.hashing.acquire().await;
            let End::File(mut staged) = std::mem::replace(&mut self.end, End::Lost) else {
                break;
            };
            let hashing = tokio::task::spawn_blocking(move || {
                let outcome = staged.catch_up();
                (staged, outcome)
            });
            let (staged, outcome) = hashing.await.map_err(|_| Error::Interrupted)?;
            self.written = staged.written();
            self.end = End::File(staged);
            flight.advance(self.written, total);
            outcome?;
        }
        Ok(())
    }

    /// Whether bytes pass by those who follow, at the pace of the slowest.
    pub(super) fn passes_by(&self) -> bool {
        matches!(self.end, End::Window(_))
    }

    /// What followers read from; `None` where bytes pass by.
    pub(super) fn file(&self) -> Option<Arc<dyn Readable>> {
        match &self.end {
            End::File(staged) => Some(staged.spool()),
            End::Window(_) | End::Lost => None,
        }
    }

    /// Appends, and shows it to those who follow. When the disk refuses, what follows passes by.
    ///
    /// False if it passes by and nobody is there to see it.
    pub(super) async fn write(
        &mut self,
        shared: &Shared,
        flight: &Flight,
        total: Option<u64>,
        pieces: Vec<Bytes>,
    ) -> Result<bool, Error> {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = match std::mem::replace(&mut self.end, End::Lost) {
            End::File(mut staged) => {
                let writing = tokio::task::spawn_blocking(move || {
                    let outcome = staged.write(&pieces);
                    (staged, pieces, outcome)
                });
                let (staged, pieces, outcome) = writing.await.map_err(|_| Error::Interrupted)?;
                let Err(error) = outcome else {
                    self.end = End::File(staged);
                    self.written += bytes;
                    flight.advance(self.written, total);
                    return Ok(true);
                };
                pass_by(shared, flight, &error);
                let abandoning = tokio::task::spawn_blocking(move || staged.abandon());
                let hasher = abandoning.await.map_err(|_| Error::Interrupted)?;
                *self = Self::past(flight, self.written, hasher);
                pieces
            }
            other => {
                self.end = other;
                pieces
            }
        };
        self.pass(flight, total, pieces).await
    }

    async fn pass(&mut self, flight: &Flight, total: Option<u64>, pieces: Vec<Bytes>) -> Result<bool, Error> {
        let End::Window(hasher) = &mut self.end else {
            return Err(Error::Interrupted);
        };
        for piece in pieces {
            hasher.update(&piece);
            let bytes = piece.len() as u64;
            if !flight.window.push(piece).await {
                return Ok(false);
            }
            // Shown at once: the window frees what was read, and nobody reads what is not shown.
            self.written += bytes;
            flight.advance(self.written, total);
        }
        Ok(true)
    }

    /// The last check. `media_type` is kept with a manifest.
    pub(super) async fn finish(
        self,
        shared: &Shared,
        flight: &Flight,
        media_type: Option<String>,
    ) -> Result<Finished, Error> {
        let actual = match self.end {
            End::File(staged) => {
                let committing = tokio::task::spawn_blocking(move || staged.commit(media_type.as_deref()));
                match committing.await.map_err(|_| Error::Interrupted)? {
                    Ok(()) => return Ok(Finished::Stored),
                    Err(store::Error::DigestMismatch { actual, .. }) => actual,
                    Err(error) => {
                        pass_by(shared, flight, &error);
                        return Ok(Finished::Unkept);
                    }
                }
            }
            End::Window(hasher) => hasher.finish(),
            End::Lost => return Err(Error::Interrupted),
        };
        Ok(if actual == flight.digest {
            Finished::Unkept
        } else {
            Finished::Wrong(actual)
        })
    }

    /// Keeps nothing of it.
    pub(super) async fn discard(self) {
        if let End::File(staged) = self.end {
            // Waited for: the next transfer of this content may not begin before.
            let _ = tokio::task::spawn_blocking(move || staged.discard()).await;
        }
    }
}

fn pass_by(shared: &Shared, flight: &Flight, error: &store::Error) {
    shared.metrics.unkept.inc();
    tracing::warn!(digest = %flight.digest, %error, "content goes through unkept");
}
