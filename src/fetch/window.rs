//! Where bytes pass when no file takes them: a few megabytes of memory that move along.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that a window holds before the sender has to wait for the slowest reader.
const CAPACITY: u64 = 8 << 20;

/// How long a window waits for its first reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the sender may be held up for what the window holds, while there are readers that wait for more.
const SLOWEST: Duration = Duration::from_secs(60);

/// The readers of a flight, and the bytes between the slowest of them and the sender once no file takes them.
#[derive(Default)]
pub(super) struct Window {
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
    held: VecDeque<Bytes>,
    end: u64,
    /// How long the sender was held up since the window was at `timed_from`.
    waited: Duration,
    timed_from: u64,
    /// How far each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

/// A reader's place. The window does not move past it, unless it stays behind for too long.
pub(super) struct Seat {
    window: Arc<Window>,
    id: u64,
}

impl Window {
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

    /// Appends, once there is room. False if nobody reads any more.
    pub(super) async fn push(&self, bytes: Bytes) -> bool {
        loop {
            let moved = self.moved.notified();
            let (unread, left) = {
                let mut state = self.state.lock();
                if !state.make_room() {
                    return false;
                }
                if state.end - state.start < CAPACITY {
                    state.end += bytes.len() as u64;
                    state.held.push_back(bytes);
                    return true;
                }
                (state.next_reader == 0, SLOWEST.saturating_sub(state.waited))
            };
            let began = now();
            let moved = tokio::time::timeout(if unread { PATIENCE } else { left }, moved).await;
            if unread && moved.is_err() {
                return false;
            }
            self.state.lock().count(now().duration_since(began));
        }
    }
}

impl Seat {
    /// Nothing before `position` is wanted any more.
    pub(super) fn move_to(&self, position: u64) {
        self.window.state.lock().moves(self.id, position);
        self.window.moved.notify_one();
    }

    /// Bytes from `position` on, at least one and at most up to `end`; they must have been pushed.
    /// `None` to a reader that was left behind.
    pub(super) fn read(&self, position: u64, end: u64) -> Option<Bytes> {
        let mut state = self.window.state.lock();
        state.moves(self.id, position).then_some(())?;
        let mut offset = state.start;
        let found = state.held.iter().find_map(|bytes| {
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
        self.window.state.lock().readers.remove(&self.id);
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
            && self.start + first.len() as u64 <= wanted_from
        {
            self.start += first.len() as u64;
            self.held.pop_front();
        }
        true
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
        let first = self.held.front().map_or(0, |first| first.len() as u64);
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
    use super::*;

    fn open(offset: u64) -> Arc<Window> {
        let window = Arc::new(Window::default());
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
}
