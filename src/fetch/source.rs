use std::ops::Range;
use std::sync::Arc;

use super::flight::{Flight, Follower, HELD_BACK};
use super::{Asker, Error, Outcome, Piece, Shared};
use crate::oci::Hasher;
use crate::parent::{Answer, Ask, What};
use crate::store::Blob;

/// A position so many bytes ahead of the transfer under way is asked for on its own.
const FAR: u64 = 16 << 20;

/// Bytes compared at a time.
const COMPARED: u64 = 1 << 20;

/// Content on its way to a client, wherever it comes from.
pub struct Source {
    from: Origin,
    outcome: Outcome,
    cache_status: Option<String>,
}

enum Origin {
    Stored(Arc<Blob>),
    Flight(Box<Following>),
}

/// A reader of a flight.
struct Following {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    follower: Follower,
    asker: Asker,
    total: Option<u64>,
    /// A request of its own for a part that is far ahead.
    own: Own,
}

/// A request for a part alone, which does not wait for the flight.
enum Own {
    /// Not asked yet.
    No,
    Running {
        answer: Box<Answer>,
        part: Part,
    },
    /// It ended or failed; the flight is waited for.
    Over(Option<Part>),
}

/// Bytes that went out without being part of the flight.
struct Part {
    range: Range<u64>,
    hasher: Hasher,
}

impl Source {
    pub(super) fn stored(blob: Blob, outcome: Outcome) -> Self {
        Self {
            from: Origin::Stored(Arc::new(blob)),
            outcome,
            cache_status: None,
        }
    }

    /// Follows a flight whose header has come. `None` if its first bytes went by unkept.
    pub(super) fn flight(
        shared: &Arc<Shared>,
        flight: &Arc<Flight>,
        head: &super::flight::Head,
        asker: &Asker,
        outcome: Outcome,
        position: u64,
    ) -> Option<Self> {
        let following = Following {
            shared: shared.clone(),
            flight: flight.clone(),
            follower: flight.follow(position)?,
            asker: asker.clone(),
            total: head.total,
            own: Own::No,
        };
        Some(Self {
            from: Origin::Flight(Box::new(following)),
            outcome,
            cache_status: head.cache_status.clone(),
        })
    }

    /// How it came about.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether all of it lies here.
    pub fn is_stored(&self) -> bool {
        matches!(self.from, Origin::Stored(_))
    }

    /// What the upstream's `Cache-Status` said, entries of the nodes above.
    pub fn cache_status(&self) -> Option<&str> {
        self.cache_status.as_deref()
    }

    /// Bytes of the content; `None` while an upstream that does not say is still sending.
    pub fn size(&self) -> Option<u64> {
        match &self.from {
            Origin::Stored(blob) => Some(blob.size()),
            Origin::Flight(following) => following.total,
        }
    }

    /// Waits until the size is known: at the latest when the last byte is here.
    ///
    /// # Errors
    ///
    /// Why the transfer failed.
    pub async fn settle(&mut self) -> Result<u64, Error> {
        match &mut self.from {
            Origin::Stored(blob) => Ok(blob.size()),
            Origin::Flight(following) => {
                if let Some(total) = following.total {
                    return Ok(total);
                }
                let size = following.flight.landed().await?;
                following.total = Some(size);
                Ok(size)
            }
        }
    }

    /// The next bytes within `range`, at least one; `None` when it is exhausted.
    ///
    /// Waits for bytes that are still on their way. Ranges must ascend.
    ///
    /// # Errors
    ///
    /// Why the transfer failed: the reply must be broken off, never completed.
    pub async fn piece(&mut self, range: Range<u64>) -> Result<Option<Piece>, Error> {
        if range.is_empty() {
            return Ok(None);
        }
        match &mut self.from {
            Origin::Stored(blob) => {
                let end = range.end.min(blob.size());
                Ok((range.start < end).then(|| Piece::File(blob.clone(), range.start..end)))
            }
            Origin::Flight(following) => following.piece(range).await,
        }
    }
}

impl Following {
    async fn piece(&mut self, range: Range<u64>) -> Result<Option<Piece>, Error> {
        if matches!(self.own, Own::No) && self.may_ask(range.start) {
            self.ask_for(&range).await;
        }
        if let Some(bytes) = self.own_piece(&range).await {
            return Ok(Some(bytes));
        }
        let piece = self.follower.piece(range.start, range.end).await?;
        let end = piece.as_ref().map(|piece| range.start + piece.len());
        if end.is_some() && end == self.total {
            self.compare().await?;
        }
        Ok(piece)
    }

    /// Whether waiting for `position` takes long, and what another request brings could be compared in the end: not
    /// while the disk takes nothing, and not of bytes that lie here.
    fn may_ask(&self, position: u64) -> bool {
        let asks_upstream = self.flight.kind.is_some();
        asks_upstream && self.follower.is_far(position, FAR) && self.shared.store.trouble().is_none()
    }

    /// A request for this part alone. Its last bytes, if they end the content, are left to the flight,
    /// which knows whether the digest agrees.
    async fn ask_for(&mut self, range: &Range<u64>) {
        let last = self.total.map(|total| total.saturating_sub(HELD_BACK).min(range.end));
        let Some(end) = last.filter(|end| *end > range.start) else {
            return;
        };
        let Ok(parent) = self.shared.parent(&self.flight.repository) else {
            return;
        };
        self.shared.metrics.ranged.inc();
        let what = What::Blob(&self.flight.digest);
        let ask = Ask {
            range: Some((range.start, Some(end - 1))),
            // The flight brings the same bytes.
            is_spare: true,
            ..self.shared.ask(&self.asker, &self.flight.repository, what)
        };
        self.own = match self.shared.put_to(parent, ask).await {
            Ok(answer) if fits(&answer, range.start, end, self.total) => {
                let (range, hasher) = (range.start..range.start, Hasher::new(self.flight.digest.algorithm()));
                Own::Running {
                    answer: Box::new(answer),
                    part: Part { range, hasher },
                }
            }
            _ => Own::Over(None),
        };
    }

    /// The next bytes of the request of our own; `None` when it ended, was cut, or is elsewhere.
    async fn own_piece(&mut self, range: &Range<u64>) -> Option<Piece> {
        let Own::Running { answer, part } = &mut self.own else {
            return None;
        };
        if part.range.end == range.start
            && let Ok(Some(mut bytes)) = answer.chunk().await
            && !bytes.is_empty()
        {
            let most = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let is_whole = bytes.len() <= most;
            bytes.truncate(most);
            part.range.end += bytes.len() as u64;
            part.hasher.update(&bytes);
            self.follower.move_to(part.range.end);
            if !is_whole {
                // What was cut off stands nowhere any more: the next bytes would be others.
                self.end_own();
            }
            return Some(Piece::Bytes(bytes));
        }
        self.end_own();
        None
    }

    /// From here on the flight is waited for.
    fn end_own(&mut self) {
        let over = std::mem::replace(&mut self.own, Own::Over(None));
        if let Own::Running { part, .. } = over {
            self.own = Own::Over(Some(part));
        }
    }

    /// Before the last byte of the content leaves: what was asked for on its own must have been the same.
    async fn compare(&mut self) -> Result<(), Error> {
        let Own::Over(part) = &mut self.own else { return Ok(()) };
        let Some(Part { range, hasher }) = part.take() else {
            return Ok(());
        };
        // Nothing to compare with where nothing is kept.
        let file = self.follower.whole_file().ok_or(Error::Interrupted)?;
        let mut stored = Hasher::new(self.flight.digest.algorithm());
        let mut position = range.start;
        while position < range.end {
            let end = range.end.min(position + COMPARED);
            stored.update(&super::piece::read(file.clone(), position..end).await?);
            position = end;
        }
        if stored.finish() == hasher.finish() {
            return Ok(());
        }
        self.shared.metrics.corrupt.inc();
        Err(Error::Corrupt {
            layer: self.shared.parent(&self.flight.repository)?.name().to_owned(),
            digest: self.flight.digest,
            reason: "a part that was asked for on its own had other bytes than the whole".to_owned(),
        })
    }
}

fn fits(answer: &Answer, start: u64, end: u64, total: Option<u64>) -> bool {
    let range = answer.head.content_range.as_ref();
    answer.status == 206
        && range.is_some_and(|range| {
            range.first == start && range.last == end - 1 && (range.total.is_none() || range.total == total)
        })
}
