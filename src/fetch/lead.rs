//! Flying: one transfer from the first request to the commit.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fail::fail_point;
use futures_util::FutureExt;

use super::error::{is_passing, mangles_range};
use super::flight::{Flight, Head, Kind};
use super::writer::{Finished, Writer};
use super::{Asker, Error, Limit, Shared};
use crate::oci::Reference;
use crate::parent::{self, Answer, Ask, Parent, What};
use crate::store::Staged;
use crate::units::with_causes;

/// Bytes gathered before they are hashed and written in one go.
const GATHER: u64 = 1 << 20;

/// The same where nothing is kept: what waits for slow readers is memory.
const PASSING: u64 = 64 << 10;

/// The same for the first ones of an attempt, which a client waits for.
const FIRST: u64 = 16 << 10;

/// How long the transfer lets those who wait for its first bytes go first.
const COURTESY: Duration = Duration::from_millis(1);

/// Bytes that make an attempt worth it.
const FRUIT: u64 = 4 << 10;

/// A transfer under way waits no longer in all, without any bytes, for a parent that wants to be left alone.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// What a transfer has done so far.
struct Transfer<'a> {
    shared: &'a Arc<Shared>,
    flight: &'a Arc<Flight>,
    parent: &'a Parent,
    asker: &'a Asker,
    kind: Kind,
    /// Bytes of the whole, once they are known.
    total: Option<u64>,
    media_type: Option<String>,
    /// The upstream mangles `Range`: all is asked for, and what is here passed over.
    is_rangeless: bool,
    /// Some of what is here was not received by this transfer.
    is_continued: bool,
    /// What an earlier transfer left, until the header has come.
    left: Option<Staged>,
    /// Where the bytes go, once it has.
    writer: Option<Writer>,
    /// How long its parent took until it sent, the last time.
    header: Duration,
    /// Among the transfers of the parent, until its last byte has come.
    place: parent::Place,
}

/// What an attempt brought.
enum Came {
    Whole,
    /// As much as was asked for.
    Part,
}

/// Why an attempt ended before the last byte.
enum Cut {
    /// Worth another attempt at the same offset.
    Again(Error),
    Final(Error),
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Flies until the content is stored or the flight has failed; removes it from the table.
pub(super) async fn fly(shared: Arc<Shared>, flight: Arc<Flight>, kind: Kind, asker: Asker) {
    shared.metrics.flights.inc();
    let place = Place::new(&shared, &flight);
    let outcome = transfer(&shared, &flight, kind, &asker).await;
    let key = (flight.repository.clone(), flight.digest);
    match &outcome {
        Err(error @ Error::Corrupt { .. }) => {
            shared.spoiled.insert(key.clone(), error.clone());
            shared.distrust.note(key, error, shared.clock.now());
        }
        Err(error @ Error::Damaged { .. }) => shared.spoiled.insert(key, error.clone()),
        // What came right heals: it may be evicted, and be asked for by a part, before the lie is forgotten.
        Ok(_) => {
            shared.spoiled.invalidate(&key);
            shared.distrust.forget(&key);
        }
        Err(_) => {}
    }
    // Out of the table first: whoever asks after the end must not join a flight that is over.
    drop(place);
    match outcome {
        Ok(size) => {
            flight.land(size);
            // Whoever was admitted while the last byte was checked.
            link(&shared, &flight);
        }
        Err(error) => {
            if error.is_closed() {
                tracing::info!(digest = %flight.digest, repository = %flight.repository, reason = %error, "transfer paused; it goes on where it was");
            } else if !matches!(error, Error::Absent { .. }) {
                tracing::warn!(digest = %flight.digest, repository = %flight.repository, error = %with_causes(&error), "transfer failed");
            }
            flight.fail(error);
        }
    }
    shared.metrics.flights.dec();
}

/// A flight's entry in the table, which it leaves however it ends.
pub(super) struct Place {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
}

impl Place {
    pub(super) fn new(shared: &Arc<Shared>, flight: &Arc<Flight>) -> Self {
        Self {
            shared: shared.clone(),
            flight: flight.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.flights.lock().remove(&self.flight.digest);
        if std::thread::panicking() {
            self.flight.fail(Error::Interrupted);
        }
    }
}

async fn transfer(shared: &Arc<Shared>, flight: &Arc<Flight>, kind: Kind, asker: &Asker) -> Result<u64, Error> {
    let parent = shared.parent(&flight.repository)?;
    let total = shared.announced.get(&(flight.repository.clone(), flight.digest));
    let mut transfer = Transfer {
        shared,
        flight,
        parent,
        asker,
        kind,
        total,
        media_type: None,
        is_rangeless: false,
        is_continued: false,
        left: None,
        writer: None,
        header: Duration::ZERO,
        place: parent::Place::new(flight.urgency.clone()),
    };
    fail_point!("fetch.fly");
    transfer.pick_up().await;
    let mut fruitless = 0;
    let mut rested = Duration::ZERO;
    loop {
        let before = transfer.here();
        match transfer.attempt().await {
            Ok(Came::Whole) => return transfer.finish().await,
            Ok(Came::Part) => (fruitless, rested) = (0, Duration::ZERO),
            Err(Cut::Final(error)) => {
                transfer.give_up(&error).await;
                return Err(error);
            }
            // It waits for its turn.
            Err(Cut::Again(error)) if error.made_way() => {}
            Err(Cut::Again(error)) => {
                let brought = transfer.here().saturating_sub(before);
                if brought >= FRUIT {
                    (fruitless, rested) = (0, Duration::ZERO);
                } else {
                    fruitless += 1;
                }
                let wish = wished(&error);
                rested += wish;
                if rested > LONGEST_WISH {
                    return Err(error);
                }
                if fruitless >= shared.limits.get().attempts {
                    shared.metrics.refused(Limit::Attempts);
                    return Err(error);
                }
                shared.metrics.resumed.inc();
                tracing::info!(digest = %flight.digest, here = transfer.here(), error = %with_causes(&error), "transfer cut; it goes on where it was");
                tokio::time::sleep(pause(fruitless).max(wish)).await;
            }
        }
    }
}

impl Transfer<'_> {
    /// Finds what an earlier transfer left, so that only the rest is asked for.
    async fn pick_up(&mut self) {
        let (store, digest, total) = (self.shared.store.clone(), self.flight.digest, self.total);
        if !store.has_left(&digest) {
            return;
        }
        let staged = tokio::task::spawn_blocking(move || {
            let mut staged = store.stage(&digest, total)?;
            if total.is_some_and(|total| staged.unhashed() > total) {
                staged.restart()?;
            }
            Ok::<_, crate::store::Error>(staged)
        });
        if let Ok(Ok(staged)) = staged.await {
            self.left = Some(staged);
        }
    }

    /// Bytes that are here, hashed or not.
    fn here(&self) -> u64 {
        let left = || self.left.as_ref().map_or(0, Staged::unhashed);
        self.writer.as_ref().map_or_else(left, Writer::written)
    }

    /// Asks for what is missing and takes in what comes.
    async fn attempt(&mut self) -> Result<Came, Cut> {
        let before = self.here();
        let bought = match self.kind {
            // It is short.
            Kind::Manifest => None,
            Kind::Blob if self.is_rangeless => None,
            Kind::Blob => self.parent.buy(&self.place, self.header).await,
        };
        let outcome = self.attempt_at(bought).await;
        if let Some(bought) = bought {
            let came = self.here().saturating_sub(before);
            self.parent.refund(&self.place, bought.saturating_sub(came));
            let is_short = match &outcome {
                Err(Cut::Again(Error::Ended { .. })) => true,
                // Nobody says how much there is.
                Ok(()) => self.total.is_none(),
                Err(_) => false,
            };
            if is_short && came > 0 && came >= bought {
                return Ok(Came::Part);
            }
        }
        outcome.map(|()| Came::Whole)
    }

    async fn attempt_at(&mut self, bought: Option<u64>) -> Result<(), Cut> {
        let asked = self.shared.clock.now();
        let mut answer = self.ask(bought).await?;
        self.header = self.shared.clock.now().saturating_duration_since(asked);
        let skip = self.check(&answer)?;
        if self.is_rangeless || (answer.status == 200 && self.here() > 0) {
            answer.stay();
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin(&answer).await,
        };
        // The followers have the header, and see what an earlier transfer left as it is hashed.
        let outcome = match writer.catch_up(self.shared, self.flight, self.total).await {
            Ok(()) => self.take_in(&mut answer, skip, &mut writer).await,
            Err(error) => {
                self.flight.forget_left();
                tracing::warn!(digest = %self.flight.digest, error = %with_causes(&error), "the disk does not give back what an earlier transfer left; it is fetched again from there on");
                Err(Cut::Again(error))
            }
        };
        self.writer = Some(writer);
        outcome
    }

    async fn ask(&mut self, bought: Option<u64>) -> Result<Answer, Cut> {
        let reference = Reference::Digest(self.flight.digest);
        let what = match self.kind {
            Kind::Manifest => What::Manifest(&reference),
            Kind::Blob => What::Blob(&self.flight.digest),
        };
        let here = self.here();
        let is_all = self
            .total
            .is_some_and(|total| bought.is_some_and(|bought| bought >= total));
        let is_part = !self.is_rangeless && (here > 0 || (bought.is_some() && !is_all));
        // Of what may be whole already the last byte is asked for again: nothing is no part that could be asked for.
        let from = match self.total {
            Some(total) if here < total => here,
            _ => here.saturating_sub(1),
        };
        // What the range of a part may not go beyond is where it ends.
        let last = bought.map(|bought| from + bought.max(1) - 1);
        let ask = Ask {
            range: is_part.then_some((from, last)),
            place: Some(&self.place),
            paid: bought.unwrap_or(0),
            ..self.shared.ask(self.asker, &self.flight.repository, what)
        };
        match self.shared.put_to(self.parent, ask).await {
            Ok(answer) => Ok(answer),
            // Of nothing there are no parts.
            Err(error @ parent::Error::RangeUnsatisfiable { .. }) if here == 0 && is_part => {
                self.is_rangeless = true;
                Err(Cut::Again(error.into()))
            }
            Err(parent::Error::RangeUnsatisfiable { .. }) => Err(self.past_the_end()),
            Err(parent::Error::Spoiled { .. }) if self.left.is_some() => Err(self.past_the_end()),
            Err(parent::Error::Spoiled { layer }) => Err(Cut::Final(self.corrupt(&format!("{layer} got wrong bytes")))),
            Err(error) if is_part && mangles_range(&error, self.writer.is_none()) => {
                self.is_rangeless = true;
                Err(Cut::Again(error.into()))
            }
            Err(error) if self.writer.is_some() && is_passing(&error) => Err(Cut::Again(error.into())),
            Err(error) => Err(Cut::Final(error.into())),
        }
    }

    /// What is here is not the beginning of what the parent has, if an earlier transfer left it.
    fn past_the_end(&mut self) -> Cut {
        match self.left.take() {
            Some(staged) => {
                staged.discard();
                Cut::Again(self.ended(0))
            }
            None => Cut::Final(self.corrupt("fewer bytes than it announced")),
        }
    }

    /// Whether the answer fits what is here already; bytes of it to pass over.
    fn check(&mut self, answer: &Answer) -> Result<u64, Cut> {
        let (start, total) = match (&answer.head.content_range, answer.status) {
            (Some(range), 206) => (range.first, range.total),
            (_, 206) => return Err(self.corrupt("a part without saying which").into()),
            _ => (0, answer.head.length),
        };
        if start > self.here() {
            return Err(self.corrupt("another part than was asked for").into());
        }
        if let (Some(known), Some(said)) = (self.total, total)
            && known != said
        {
            return Err(self
                .corrupt(&format!("{said} bytes where {known} were announced"))
                .into());
        }
        self.total = self.total.or(total);
        if self.total.is_some_and(|total| total > self.most()) {
            return Err(self.beyond().into());
        }
        if self.total.is_some_and(|total| total < self.here()) {
            return Err(self.past_the_end());
        }
        Ok(self.here() - start)
    }

    /// Chooses where the bytes go and lets the followers in.
    async fn begin(&mut self, answer: &Answer) -> Writer {
        let writer = match self.left.take() {
            Some(staged) => {
                if self.total.is_some() {
                    staged.expect_size();
                }
                self.is_continued = true;
                Writer::going_on(staged)
            }
            None => Writer::begin(self.shared, self.flight, self.total).await,
        };
        self.media_type = answer.head.media_type.clone();
        let head = Head {
            total: self.total,
            media_type: self.media_type.clone(),
            cache_status: answer.head.cache_status.clone(),
        };
        self.flight.begin(head, writer.file(), writer.unhashed());
        writer
    }

    async fn take_in(&self, answer: &mut Answer, mut skip: u64, writer: &mut Writer) -> Result<(), Cut> {
        let mut came = Batch::default();
        came.take(answer, FIRST).await;
        let mut is_first = true;
        loop {
            skip -= split_off(&mut came.pieces, skip)
                .iter()
                .map(|piece| piece.len() as u64)
                .sum::<u64>();
            self.measure(writer.written() + came.bytes())?;
            if std::mem::take(&mut is_first) {
                // A kept connection gives hundreds of KiB at once, and goes on to keep every core busy: the first
                // few go out before that.
                let first = split_off(&mut came.pieces, FIRST);
                self.show(writer, first).await?;
                let shown = self.flight.shown();
                let _ = tokio::time::timeout(COURTESY, self.flight.window.read_to(shown)).await;
            }
            let mut next = Batch::default();
            let most = if writer.passes_by() { PASSING } else { GATHER };
            let showing = self.show(writer, came.pieces);
            match came.end {
                None => next.take_during(answer, most, showing).await?,
                Some(_) => showing.await?,
            }
            let complete = self.total.map(|total| total == writer.written());
            match came.end {
                None => came = next,
                Some(Ok(())) if complete != Some(false) => return Ok(()),
                Some(Ok(())) => return Err(Cut::Again(self.ended(writer.written()))),
                Some(Err(_)) if complete == Some(true) => return Ok(()),
                Some(Err(error)) => return Err(Cut::Again(error.into())),
            }
        }
    }

    /// Whether the content may have so many bytes.
    fn measure(&self, bytes: u64) -> Result<(), Error> {
        // Without a word how much comes, no more is taken than the store could hold.
        let most = self
            .total
            .unwrap_or_else(|| self.most().min(self.shared.store.capacity()));
        if self.total.is_none() && bytes > self.most() {
            return Err(self.beyond());
        }
        if bytes > most {
            return Err(self.corrupt("more bytes than it announced, or than are taken unannounced"));
        }
        Ok(())
    }

    /// Writes out what came, and shows it to those who follow.
    async fn show(&self, writer: &mut Writer, pieces: Vec<Bytes>) -> Result<(), Error> {
        if pieces.is_empty() {
            return Ok(());
        }
        let passes_by = writer.passes_by();
        let writing = writer.write(self.shared, self.flight, self.total, pieces);
        // Readers that are slower than the upstream must not keep others from it.
        let is_seen = match passes_by {
            true => self.place.lend_during(writing).await?,
            false => writing.await?,
        };
        is_seen.then_some(()).ok_or(Error::TooSlow)
    }

    /// Bytes that the content may have.
    fn most(&self) -> u64 {
        match self.kind {
            Kind::Manifest => self.shared.limits.get().manifest.bytes(),
            Kind::Blob => self.shared.limits.get().blob.bytes(),
        }
    }

    fn beyond(&self) -> Error {
        let (what, limit) = match self.kind {
            Kind::Manifest => ("a manifest", Limit::Manifest),
            Kind::Blob => ("a blob", Limit::Blob),
        };
        self.shared.beyond(&self.flight.repository, what, limit)
    }

    /// The last check; then everyone may read to the end.
    async fn finish(mut self) -> Result<u64, Error> {
        self.place.give_back();
        let writer = self.writer.take().ok_or(Error::Interrupted)?;
        let written = writer.written();
        let media_type = self.media_type.take().filter(|_| self.kind == Kind::Manifest);
        match writer.finish(self.shared, self.flight, media_type).await? {
            Finished::Stored => link(self.shared, self.flight),
            Finished::Unkept => {}
            // Who is to blame is not known.
            Finished::Wrong(actual) if self.is_continued => {
                let digest = self.flight.digest;
                return Err(Error::Damaged { digest, actual });
            }
            Finished::Wrong(actual) => return Err(self.corrupt(&format!("the bytes hash to {actual}"))),
        }
        Ok(written)
    }

    /// What a parent sent that lies is not built upon later; what it sent before it went is.
    async fn give_up(&mut self, error: &Error) {
        if let (Some(writer), Error::Corrupt { .. } | Error::Beyond { .. }) = (self.writer.take(), error) {
            writer.discard().await;
        }
    }

    fn corrupt(&self, reason: &str) -> Error {
        self.shared.metrics.corrupt.inc();
        Error::Corrupt {
            layer: self.parent.name().to_owned(),
            digest: self.flight.digest,
            reason: reason.to_owned(),
        }
    }

    /// It went away, which is no lie: what it sent is kept.
    fn ended(&self, bytes: u64) -> Error {
        Error::Ended {
            layer: self.parent.name().to_owned(),
            bytes,
        }
    }
}

/// Everyone who may follow has the content from here on.
pub(super) fn link(shared: &Shared, flight: &Flight) {
    for repository in flight.admitted() {
        shared.store.link(&repository, &flight.digest);
    }
}

/// What came of an answer and has not been written out.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    /// Whether that was all, and how it ended.
    end: Option<Result<(), parent::Error>>,
}

impl Batch {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Waits for something, and takes what is there without waiting, up to about `most` bytes.
    async fn take(&mut self, answer: &mut Answer, most: u64) {
        if self.pieces.is_empty() && self.end.is_none() {
            self.note(answer.chunk().await);
        }
        while self.wants(most)
            && let Some(ready) = answer.chunk().now_or_never()
        {
            self.note(ready);
        }
    }

    /// The same, beside the writing of what came before: so that nobody wakes another for every few KiB.
    async fn take_during<E>(
        &mut self,
        answer: &mut Answer,
        most: u64,
        writing: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let mut writing = pin!(writing);
        loop {
            tokio::select! {
                biased;
                written = &mut writing => {
                    written?;
                    break;
                }
                chunk = answer.chunk(), if self.wants(most) => self.note(chunk),
            }
        }
        self.take(answer, most).await;
        Ok(())
    }

    fn wants(&self, most: u64) -> bool {
        self.end.is_none() && self.bytes() < most
    }

    fn note(&mut self, chunk: Result<Option<Bytes>, parent::Error>) {
        match chunk {
            Ok(Some(piece)) => self.pieces.push(piece),
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error)),
        }
    }
}

/// The first `bytes` of them, or all that there are; the rest stays.
fn split_off(pieces: &mut Vec<Bytes>, mut bytes: u64) -> Vec<Bytes> {
    let mut first = Vec::new();
    pieces.retain_mut(|piece| {
        let here = bytes.min(piece.len() as u64);
        bytes -= here;
        if here > 0 {
            // `here` is at most the length of a slice in memory.
            first.push(piece.split_to(here as usize));
        }
        !piece.is_empty()
    });
    first
}

fn pause(fruitless: u32) -> Duration {
    if fruitless == 0 {
        Duration::ZERO
    } else {
        Duration::from_millis(100 << fruitless.min(6))
    }
}

/// For how long a parent wants to be left alone.
fn wished(error: &Error) -> Duration {
    let wish = match error {
        Error::Parent(error) => error.retry_after(),
        _ => None,
    };
    wish.unwrap_or_default()
}
