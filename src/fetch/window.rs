//! Where bytes pass when no file takes them: a few megabytes of memory that move along.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that a window holds before the sender has to wait for the slowest reader.
const CAPACITY: u64 = 8 << 20;

/// How long a window waits for its first reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the slowest reader may keep all others waiting.
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

    /// Appends, once there is room. False if nobody reads any more.
    pub(super) async fn push(&self, bytes: Bytes) -> bool {
        loop {
            let moved = self.moved.notified();
            let unread = {
                let mut state = self.state.lock();
                if !state.make_room() {
                    return false;
                }
                if state.end - state.start < CAPACITY {
                    state.end += bytes.len() as u64;
                    state.held.push_back(bytes);
                    return true;
                }
                state.next_reader == 0
            };
            let patience = if unread { PATIENCE } else { SLOWEST };
            if tokio::time::timeout(patience, moved).await.is_err() {
                if unread {
                    return false;
                }
                self.state.lock().leave_behind();
            }
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

    /// Takes their places from those who hold up all others.
    fn leave_behind(&mut self) {
        let (from, capacity) = (self.end, CAPACITY);
        self.readers.retain(|_, position| *position + capacity > from);
    }
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
    async fn a_reader_that_stands_still_is_left_behind_and_the_others_go_on() {
        let window = open(0);
        let (stuck, keen) = (window.seat(0).unwrap(), window.seat(0).unwrap());
        assert!(window.push(full()).await);
        keen.move_to(CAPACITY);

        window.state.lock().leave_behind();
        assert!(window.push(full()).await);

        assert!(stuck.read(0, 1).is_none());
        assert!(keen.read(CAPACITY, u64::MAX).is_some());
    }
}
