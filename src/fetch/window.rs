//! Where bytes pass when no file takes them: a few megabytes of memory that move along.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Kept from every follower until the digest agrees: bytes at the end of the content.
pub(super) const HELD_BACK: u64 = 64 << 10;

/// Bytes that a window holds before the sender has to wait for the slowest reader.
const CAPACITY: u64 = 8 << 20;

/// Bytes that all windows of a node hold: eight full ones. As many flights as there are slow readers may pass by at a
/// time, since a flight that waits for its readers lends its place at the gate and the next begins.
const NODE_CAPACITY: u64 = 64 << 20;

/// What the node's bytes are counted in.
const UNIT: u64 = 1 << 10;

/// How long a window waits for its first reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the sender may be held up for what the window holds, while there are readers that wait for more.
const SLOWEST: Duration = Duration::from_secs(60);

/// What the windows of a node may hold together.
///
/// Beyond it a window takes only what its readers need to go on: up to `HELD_BACK` and two pieces each.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

/// The readers of a flight, and the bytes between the slowest of them and the sender once no file takes them.
#[derive(Default)]
pub(super) struct Window {
    budget: Budget,
    state: Mutex<State>,
    /// A reader went on or left.
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// Where it begins, once it does; what lies before is in a file.
    begins: Option<u64>,
    /// Offset of the first byte held.
    start: u64,
    held: VecDeque<Held>,
    end: u64,
    /// How long the sender was held up since the window was at `timed_from`.
    waited: Duration,
    timed_from: u64,
    /// How far each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

struct Held {
    bytes: Bytes,
    /// Their part of the node's budget; `None` where they were taken beyond it.
    _part: Option<OwnedSemaphorePermit>,
}

/// What has to come before the next bytes fit.
enum Full {
    /// A reader at all.
    Unread,
    /// The slowest reader: the window is full.
    Window,
    /// Bytes that other windows hold, or readers of this one that have not read what they are shown.
    Node,
}

/// A reader's place. The window does not move past it, unless it stays behind for too long.
pub(super) struct Seat {
    window: Arc<Window>,
    id: u64,
}

impl Window {
    /// One of those that share a node's budget.
    pub(super) fn within(budget: Budget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// From this offset on bytes pass here.
    pub(super) fn open(&self, offset: u64) {
        let mut state = self.state.lock();
        state.begins = Some(offset);
        state.timed_from = offset;
        state.start = offset;
        state.end = offset;
    }

    /// Where it begins, if it does: from there on nothing can be read twice.
    pub(super) fn begins(&self) -> Option<u64> {
        self.state.lock().begins
    }

    /// A place for a reader that wants to begin at `position`; `None` if what it would need has passed.
    pub(super) fn seat(self: &Arc<Self>, position: u64) -> Option<Seat> {
        let mut state = self.state.lock();
        let nothing_passed = state.begins.is_none_or(|begins| begins == state.start);
        if position < state.start && !nothing_passed {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, position);
        self.moved.notify_one();
        Some(Seat {
            window: self.clone(),
            id,
        })
    }

    /// Waits until there are readers, and none of them wants anything before `position`.
    pub(super) async fn read_to(&self, position: u64) {
        loop {
            let moved = self.moved.notified();
            {
                let state = self.state.lock();
                if state.next_reader > 0 && state.readers.values().all(|at| *at >= position) {
                    return;
                }
            }
            moved.await;
        }
    }

    /// Appends, once there is room here and in the node's budget. False if nobody reads any more.
    pub(super) async fn push(&self, bytes: Bytes) -> bool {
        let began = now();
        let size = bytes.len() as u64;
        let mut part = self.budget.try_take(size);
        // Kept over all waiting, so that who wakes up for its own readers does not lose its turn.
        let mut taking = pin!(self.budget.take(size));
        loop {
            let moved = self.moved.notified();
            let (full, left) = {
                let mut state = self.state.lock();
                if !state.make_room() {
                    return false;
                }
                let Some(full) = state.full(part.is_some()) else {
                    state.hold(bytes, part);
                    return true;
                };
                (full, SLOWEST.saturating_sub(state.waited))
            };
            match full {
                Full::Unread => {
                    let left = PATIENCE.saturating_sub(now().duration_since(began));
                    if tokio::time::timeout(left, moved).await.is_err() {
                        return false;
                    }
                }
                Full::Window => {
                    let began = now();
                    let _ = tokio::time::timeout(left, moved).await;
                    self.state.lock().count(now().duration_since(began));
                }
                // Not counted: readers are not left behind for what other windows hold.
                Full::Node => tokio::select! {
                    () = moved => {}
                    taken = &mut taking => part = taken,
                },
            }
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(units(NODE_CAPACITY) as usize)))
    }
}

impl Budget {
    fn try_take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_many_owned(units(bytes)).ok()
    }

    /// First come, first served.
    async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_many_owned(units(bytes)).await.ok()
    }
}

/// No more than there are, so that whatever waits for them gets them in the end.
fn units(bytes: u64) -> u32 {
    // At most 65,536.
    bytes.min(NODE_CAPACITY).div_ceil(UNIT) as u32
}

impl Seat {
    /// Nothing before `position` is wanted any more.
    pub(super) fn move_to(&self, position: u64) {
        let mut state = self.window.state.lock();
        state.moves(self.id, position);
        state.make_room();
        self.window.moved.notify_one();
    }

    /// Bytes from `position` on, at least one and at most up to `end`; they must have been pushed.
    /// `None` to a reader that was left behind.
    pub(super) fn read(&self, position: u64, end: u64) -> Option<Bytes> {
        let mut state = self.window.state.lock();
        state.moves(self.id, position).then_some(())?;
        // The sender may be waiting for the upstream, or be done: others have use for what was read.
        state.make_room();
        let mut offset = state.start;
        let found = state.held.iter().find_map(|Held { bytes, .. }| {
            let here = offset..offset + bytes.len() as u64;
            offset = here.end;
            here.contains(&position).then(|| {
                let from = usize::try_from(position - here.start).ok()?;
                let to = usize::try_from(here.end.min(end) - here.start).ok()?;
                Some(bytes.slice(from..to))
            })?
        });
        self.window.moved.notify_one();
        found
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.window.state.lock();
        state.readers.remove(&self.id);
        state.make_room();
        self.window.moved.notify_one();
    }
}

impl State {
    /// Whether the reader still has its place.
    fn moves(&mut self, id: u64, position: u64) -> bool {
        self.readers.get_mut(&id).map(|at| *at = position).is_some()
    }

    /// Lets go of what everyone has read. False if there was a reader and is none any more.
    fn make_room(&mut self) -> bool {
        let slowest = self.readers.values().min().copied();
        if slowest.is_none() && self.next_reader > 0 {
            return false;
        }
        let wanted_from = slowest.unwrap_or(self.start);
        while let Some(first) = self.held.front()
            && self.start + first.bytes.len() as u64 <= wanted_from
        {
            self.start += first.bytes.len() as u64;
            self.held.pop_front();
        }
        true
    }

    /// Why more bytes have to wait, if they do; `has_part` of the node's budget.
    fn full(&self, has_part: bool) -> Option<Full> {
        let is_full = self.end - self.start >= CAPACITY;
        // What is held back is shown only once more has come: who has read the rest waits for the sender.
        if !is_full && (has_part || self.unread() <= HELD_BACK) {
            return None;
        }
        Some(match self.next_reader {
            0 => Full::Unread,
            _ if is_full => Full::Window,
            _ => Full::Node,
        })
    }

    /// Bytes held that the slowest reader has not read.
    fn unread(&self) -> u64 {
        let slowest = self.readers.values().min().copied().unwrap_or(self.start);
        self.end.saturating_sub(slowest.max(self.start))
    }

    fn hold(&mut self, bytes: Bytes, part: Option<OwnedSemaphorePermit>) {
        self.end += bytes.len() as u64;
        self.held.push_back(Held { bytes, _part: part });
    }

    /// The sender was held up for `time`.
    fn count(&mut self, time: Duration) {
        self.waited += time;
        let turned_over = self.start - self.timed_from >= CAPACITY;
        if !turned_over && self.waited < SLOWEST {
            return;
        }
        if !turned_over {
            self.leave_behind();
        }
        self.waited = Duration::ZERO;
        self.timed_from = self.start;
    }

    /// Takes their places from those who hold up others that have read everything.
    fn leave_behind(&mut self) {
        let first = self.held.front().map_or(0, |first| first.bytes.len() as u64);
        let needed_from = self.start + first;
        if self.readers.values().any(|position| *position >= self.end) {
            self.readers.retain(|_, position| *position >= needed_from);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long was waited")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn open(offset: u64) -> Arc<Window> {
        open_within(&Budget::default(), offset)
    }

    fn open_within(budget: &Budget, offset: u64) -> Arc<Window> {
        let window = Arc::new(Window::within(budget.clone()));
        window.open(offset);
        window
    }

    fn full() -> Bytes {
        Bytes::from(vec![7; usize::try_from(CAPACITY).unwrap()])
    }

    #[tokio::test]
    async fn a_full_window_waits_for_its_slowest_reader() {
        let window = open(0);
        let seat = window.seat(0).unwrap();
        assert!(window.push(full()).await);

        let mut second = Box::pin(window.push(full()));
        assert!(futures_util::poll!(&mut second).is_pending());
        seat.read(CAPACITY, u64::MAX);

        assert!(second.await);
    }

    #[tokio::test]
    async fn a_window_without_readers_refuses_more() {
        let window = open(0);
        drop(window.seat(0));

        assert!(!window.push(Bytes::from_static(b"x")).await);
    }

    #[tokio::test]
    async fn a_reader_that_is_still_in_the_file_keeps_what_follows_it() {
        let window = Arc::new(Window::default());
        let seat = window.seat(3).unwrap();
        window.open(10);
        assert!(window.push(full()).await);

        let mut second = Box::pin(window.push(full()));
        assert!(futures_util::poll!(&mut second).is_pending());

        assert_eq!(seat.read(10, 12).unwrap().len(), 2);
        seat.move_to(10 + CAPACITY);
        assert!(second.await);
        assert!(window.seat(0).is_none(), "what follows the file has passed");
    }

    #[tokio::test]
    async fn who_holds_up_others_for_too_long_is_left_behind_and_they_go_on() {
        let window = open(0);
        let (slow, keen) = (window.seat(0).unwrap(), window.seat(0).unwrap());
        assert!(window.push(full()).await);
        keen.move_to(CAPACITY);
        slow.move_to(1);

        window.state.lock().count(SLOWEST);
        assert!(window.push(full()).await);

        assert!(slow.read(1, 2).is_none());
        assert!(keen.read(CAPACITY, u64::MAX).is_some());
    }

    #[tokio::test]
    async fn who_holds_up_nobody_may_take_its_time() {
        let window = open(0);
        let seat = window.seat(0).unwrap();
        assert!(window.push(full()).await);
        seat.move_to(1);

        window.state.lock().count(SLOWEST);

        assert!(seat.read(1, 2).is_some());
    }

    #[tokio::test]
    async fn who_lets_the_window_turn_over_in_time_is_not_left_behind() {
        let window = open(0);
        let (slow, keen) = (window.seat(0).unwrap(), window.seat(0).unwrap());
        assert!(window.push(full()).await);
        slow.move_to(CAPACITY);
        keen.move_to(CAPACITY);
        assert!(window.push(full()).await);
        keen.move_to(2 * CAPACITY);

        window.state.lock().count(SLOWEST);

        assert!(slow.read(CAPACITY, u64::MAX).is_some());
    }

    /// Bytes of the budget that nobody has.
    fn free(budget: &Budget) -> u64 {
        budget.0.available_permits() as u64 * UNIT
    }

    fn piece() -> Bytes {
        Bytes::from(vec![7; usize::try_from(HELD_BACK).unwrap()])
    }

    /// Windows, each with a reader of nothing, that take what they can get; and all that they hold.
    fn crowd(budget: &Budget, windows: usize) -> (Vec<(Arc<Window>, Seat)>, u64) {
        let crowd: Vec<_> = (0..windows)
            .map(|_| {
                let window = open_within(budget, 0);
                let seat = window.seat(0).unwrap();
                while window.push(piece()).now_or_never().is_some() {}
                (window, seat)
            })
            .collect();
        let held = crowd.iter().map(|(window, _)| window.state.lock().end).sum();
        (crowd, held)
    }

    #[tokio::test]
    async fn what_was_read_or_dropped_is_given_back() {
        let budget = Budget::default();
        let (read, dropped) = (open_within(&budget, 0), open_within(&budget, 0));
        let seats = [&read, &dropped].map(|window| window.seat(0).unwrap());
        assert!(read.push(full()).await);
        assert!(dropped.push(full()).await);
        assert_eq!(free(&budget), NODE_CAPACITY - 2 * CAPACITY);

        seats[0].move_to(CAPACITY);
        assert_eq!(free(&budget), NODE_CAPACITY - CAPACITY, "nothing was pushed after it");
        drop((seats, dropped));

        assert_eq!(free(&budget), NODE_CAPACITY);
    }

    #[tokio::test]
    async fn many_full_windows_hold_no_more_than_the_node_may_and_what_each_needs() {
        let budget = Budget::default();
        let (crowd, held) = crowd(&budget, 100);

        let each = 2 * HELD_BACK;
        assert!(held <= NODE_CAPACITY + 100 * each, "{held} bytes");
        assert!(held >= NODE_CAPACITY, "{held} bytes");
        drop(crowd);
        assert_eq!(free(&budget), NODE_CAPACITY);
    }

    #[tokio::test]
    async fn while_others_have_the_budget_who_reads_what_it_is_shown_goes_on() {
        let budget = Budget::default();
        let _crowd = crowd(&budget, 9);
        let window = open_within(&budget, 0);
        let seat = window.seat(0).unwrap();

        for pushed in 1..1000 {
            assert!(window.push(piece()).now_or_never().unwrap());
            // The last bytes are held back from it.
            seat.move_to((pushed - 1) * HELD_BACK);
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_budget_gets_what_others_give_back_and_nobody_is_left_behind() {
        let budget = Budget::default();
        let (crowd, _) = crowd(&budget, 9);
        let window = open_within(&budget, 0);
        let (slow, _keen) = (window.seat(0).unwrap(), window.seat(2 * HELD_BACK).unwrap());
        while window.push(piece()).now_or_never().is_some() {}
        let mut waiting = Box::pin(window.push(piece()));
        assert!(futures_util::poll!(&mut waiting).is_pending());

        drop(crowd);

        assert!(waiting.await);
        assert_eq!(window.state.lock().waited, Duration::ZERO);
        assert!(slow.read(0, 1).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_the_budget_goes_on_once_its_own_reader_does() {
        let budget = Budget::default();
        let _crowd = crowd(&budget, 9);
        let window = open_within(&budget, 0);
        let seat = window.seat(0).unwrap();
        while window.push(piece()).now_or_never().is_some() {}
        let mut waiting = Box::pin(window.push(piece()));
        assert!(futures_util::poll!(&mut waiting).is_pending());

        seat.move_to(HELD_BACK);

        assert!(waiting.await);
    }
}
