//! Where bytes pass when no file can take them: a few megabytes of memory that move along.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that a window holds before the sender has to wait for the slowest reader.
const CAPACITY: u64 = 8 << 20;

/// Bytes between the slowest reader and the sender.
pub(super) struct Window {
    state: Mutex<State>,
    /// A reader went on or left.
    moved: Notify,
}

struct State {
    /// Offset of the first byte held.
    start: u64,
    held: VecDeque<Bytes>,
    end: u64,
    /// How far each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

/// How long a window waits for its first reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the slowest reader may take for what the window holds.
const SLOWEST: Duration = Duration::from_secs(60);

/// A reader's place. The window does not move past it.
pub(super) struct Seat {
    window: Arc<Window>,
    id: u64,
}

impl Window {
    /// Begins at offset `start`.
    pub(super) fn new(start: u64) -> Self {
        let state = State {
            start,
            held: VecDeque::new(),
            end: start,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Self {
            state: Mutex::new(state),
            moved: Notify::new(),
        }
    }

    /// A place for a reader that wants to begin at `position`; `None` if that is gone already.
    pub(super) fn seat(self: &Arc<Self>, position: u64) -> Option<Seat> {
        let mut state = self.state.lock();
        if position < state.start {
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
            {
                let mut state = self.state.lock();
                let slowest = state.readers.values().min().copied();
                if slowest.is_none() && state.next_reader > 0 {
                    return false;
                }
                let kept_from = slowest.unwrap_or(state.start);
                state.drop_before(kept_from);
                if state.end - state.start < CAPACITY {
                    state.end += bytes.len() as u64;
                    state.held.push_back(bytes);
                    return true;
                }
            }
            // Before the first reader has come the wait is short; afterwards each leaves or goes on.
            let first = self.state.lock().next_reader == 0;
            let patience = if first { PATIENCE } else { SLOWEST };
            if tokio::time::timeout(patience, moved).await.is_err() {
                return false;
            }
        }
    }
}

impl Seat {
    /// Nothing before `position` is wanted any more.
    pub(super) fn move_to(&self, position: u64) {
        self.window.state.lock().readers.insert(self.id, position);
        self.window.moved.notify_one();
    }

    /// Bytes from `position` on, at least one and at most up to `end`; they must have been pushed.
    pub(super) fn read(&self, position: u64, end: u64) -> Option<Bytes> {
        let mut state = self.window.state.lock();
        state.readers.insert(self.id, position);
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
    fn drop_before(&mut self, position: u64) {
        while let Some(first) = self.held.front()
            && self.start + first.len() as u64 <= position
        {
            self.start += first.len() as u64;
            self.held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_window_waits_for_its_slowest_reader() {
        let window = Arc::new(Window::new(0));
        let seat = window.seat(0).unwrap();
        let piece = Bytes::from(vec![7; usize::try_from(CAPACITY).unwrap()]);
        assert!(window.push(piece.clone()).await);

        let mut second = Box::pin(window.push(piece));
        assert!(futures_util::poll!(&mut second).is_pending());
        seat.read(CAPACITY, u64::MAX);

        assert!(second.await);
    }

    #[tokio::test]
    async fn a_window_without_readers_refuses_more() {
        let window = Arc::new(Window::new(0));
        drop(window.seat(0));

        assert!(!window.push(Bytes::from_static(b"x")).await);
    }
}
