//! The bytes of a blob, as they come.

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::sessions::Turn;
use super::{Error, Incoming, Limit, Progress, Push, Shared, beside};
use crate::auth::Permit;
use crate::oci::{Digest, SessionId};
use crate::store::{self, Upload};

/// Bytes gathered before each write: measured, four times cheaper than each piece for itself.
const GATHERED: usize = 1 << 20;

/// Fewer are enough when nothing is written: what comes slowly is not lost by the mebibyte when the process is killed.
const ENOUGH: usize = 128 << 10;

/// What a part says of its place: `Content-Range: <first>-<last>` (distribution spec, "Pushing a blob in chunks").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Part {
    first: u64,
    last: u64,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
            text.parse().ok().filter(|_| is_number)
        };
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last })
    }

    fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

impl Push {
    /// Takes more of an upload. `range` is its `Content-Range`, if it has one.
    ///
    /// What came before the client broke off counts.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of uploads.
    pub async fn append(
        &self,
        permit: &Permit,
        id: SessionId,
        range: Option<&str>,
        body: &mut dyn Incoming,
    ) -> Result<Progress, Error> {
        let key = (id, self.shared.scope(permit));
        let mut turn = self.shared.turn(&key)?;
        let taken = self.shared.take_part(&mut turn, range, body).await;
        taken.map_err(|error| self.shared.counted(error))?;
        Ok(turn.session.progress())
    }

    /// Takes the last of an upload and makes it a blob.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of uploads. With another digest than announced nothing is kept.
    pub async fn finish(
        &self,
        permit: &Permit,
        id: SessionId,
        range: Option<&str>,
        digest: &Digest,
        body: &mut dyn Incoming,
    ) -> Result<(), Error> {
        let key = (id, self.shared.scope(permit));
        let mut turn = self.shared.turn(&key)?;
        let taken = self.shared.take_part(&mut turn, range, body).await;
        taken.map_err(|error| self.shared.counted(error))?;
        let upload = turn.upload.take().ok_or(Error::Interrupted)?;
        let (repository, digest) = (permit.repository().clone(), *digest);
        let outcome = beside(move || upload.commit(&repository, &digest)).await?;
        self.shared.end(&key);
        outcome.map(drop).map_err(|error| self.shared.counted(error.into()))
    }

    /// Takes a blob in one request.
    ///
    /// # Errors
    ///
    /// As [`Push::begin`] and [`Push::finish`].
    pub async fn whole(&self, permit: &Permit, digest: &Digest, body: &mut dyn Incoming) -> Result<(), Error> {
        let id = self.begin(permit, digest.algorithm()).await?;
        let outcome = self.finish(permit, id, None, digest, body).await;
        if outcome.is_err() {
            // Nobody was told of it.
            let _ = self.cancel(permit, id).await;
        }
        outcome
    }
}

impl Shared {
    async fn take_part(&self, turn: &mut Turn, range: Option<&str>, body: &mut dyn Incoming) -> Result<(), Error> {
        let size = turn.session.progress().size;
        let part = range.map(|range| Part::parse(range).ok_or(Error::Range)).transpose()?;
        if part.is_some_and(|part| part.first != size) {
            return Err(Error::OutOfOrder { size });
        }
        let announced = part.map(Part::length);
        if let Some((announced, length)) = announced.zip(body.length())
            && announced != length
        {
            return Err(Error::Length {
                announced,
                came: length,
            });
        }
        self.admit_bytes(size + body.length().unwrap_or(0)).await?;
        let upload = turn.upload.take().ok_or(Error::Interrupted)?;
        let mut writing = Writing::new(upload, self.config.get().blob.bytes());
        let outcome = writing.take(body, announced).await;
        let (mut upload, outcome) = writing.end(outcome).await?;
        if outcome.is_err() {
            upload = beside(move || {
                upload.rest();
                upload
            })
            .await?;
        }
        let came = upload.size() - size;
        self.metrics.bytes.inc_by(came);
        turn.session.has(upload.size(), self.clock.now());
        // Clients begin anew after that, and never cancel.
        let is_of_no_use = upload.size() == 0 && matches!(outcome, Err(Error::NoRoom(_) | Error::NoRoomForUploads(_)));
        if is_of_no_use {
            self.end(&turn.key);
            upload.cancel();
        } else {
            *turn.upload = Some(upload);
        }
        outcome?;
        match announced {
            Some(announced) if announced != came => Err(Error::Length { announced, came }),
            _ => Ok(()),
        }
    }
}

/// An upload being written while more of it comes.
struct Writing {
    /// `None` while it is written.
    upload: Option<Upload>,
    running: Option<JoinHandle<(Upload, Result<(), store::Error>)>>,
    gathered: Vec<Bytes>,
    bytes: usize,
    size: u64,
    most: u64,
}

impl Writing {
    fn new(upload: Upload, most: u64) -> Self {
        Self {
            size: upload.size(),
            upload: Some(upload),
            running: None,
            gathered: Vec::new(),
            bytes: 0,
            most,
        }
    }

    /// Takes the body; no more of it than was announced, if that was.
    async fn take(&mut self, body: &mut dyn Incoming, announced: Option<u64>) -> Result<(), Error> {
        let start = self.size;
        if let Some(length) = body.length() {
            self.bound(length)?;
            self.reserve(length).await?;
        }
        while let Some(piece) = body.next().await? {
            self.bound(piece.len() as u64)?;
            self.size += piece.len() as u64;
            if announced.is_some_and(|announced| self.size - start > announced) {
                return Err(Error::Length {
                    announced: announced.unwrap_or(0),
                    came: self.size - start,
                });
            }
            self.bytes += piece.len();
            self.gathered.push(piece);
            if self.bytes >= GATHERED || (self.bytes >= ENOUGH && self.is_idle()) {
                self.write().await?;
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn bound(&self, more: u64) -> Result<(), Error> {
        if self.size.saturating_add(more) > self.most {
            return Err(Error::TooLarge {
                limit: Limit::Blob,
                most: self.most,
            });
        }
        Ok(())
    }

    /// Whoever says how much comes is told at once that there is no room for it.
    async fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        let mut upload = self.idle().await?;
        let (upload, outcome) = beside(move || {
            let outcome = upload.announce(bytes);
            (upload, outcome)
        })
        .await?;
        self.upload = Some(upload);
        Ok(outcome?)
    }

    /// Begins to write what was gathered, once what was begun before is done.
    async fn write(&mut self) -> Result<(), Error> {
        let mut upload = self.idle().await?;
        let pieces = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        self.running = Some(tokio::task::spawn_blocking(move || {
            let outcome = upload.write(&pieces);
            (upload, outcome)
        }));
        Ok(())
    }

    /// The upload, when nothing is written.
    async fn idle(&mut self) -> Result<Upload, Error> {
        if let Some(running) = self.running.take() {
            let (upload, outcome) = running.await.map_err(|_| Error::Interrupted)?;
            if let Err(error) = outcome {
                self.upload = Some(upload);
                // What came behind what is lost has no place.
                self.gathered.clear();
                self.bytes = 0;
                return Err(error.into());
            }
            return Ok(upload);
        }
        self.upload.take().ok_or(Error::Interrupted)
    }

    /// Writes what is left, also of a body that broke off: the upload, and what is to be said. What the disk did not take does
    /// not count.
    async fn end(mut self, outcome: Result<(), Error>) -> Result<(Upload, Result<(), Error>), Error> {
        let mut written = Ok(());
        if self.bytes > 0 {
            written = self.write().await;
        }
        match self.idle().await {
            Ok(upload) => Ok((upload, outcome.and(written))),
            Err(error) => {
                let upload = self.upload.take().ok_or(Error::Interrupted)?;
                Ok((upload, outcome.and(written).and(Err(error))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_place_is_two_numbers_in_order() {
        let at = |text| Part::parse(text).map(|part| (part.first, part.length()));

        assert_eq!(at("0-0"), Some((0, 1)));
        assert_eq!(at("5-14"), Some((5, 10)));
        for text in [
            "",
            "-",
            "1-0",
            "bytes 0-1",
            "0-1/2",
            "+0-1",
            " 0-1",
            "0-18446744073709551616",
        ] {
            assert_eq!(at(text), None, "{text:?}");
        }
    }
}
