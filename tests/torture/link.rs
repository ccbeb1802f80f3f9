//! The way to the parent: what crosses it is counted, at a pace, and it can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::support::ports::{Family, free, listen_again};

/// Bytes that are under way on a connection: a cut loses them.
const PIECE: usize = 4 << 10;

/// Dropping it cuts it.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    carrying: Option<JoinHandle<()>>,
}

struct Shared {
    far: SocketAddr,
    /// Bytes in a second on the way up, over all connections.
    pace: u64,
    /// When the next byte may go up.
    turn: Mutex<Instant>,
    up: AtomicU64,
    down: AtomicU64,
    is_silent: watch::Sender<bool>,
    /// How often all that was under way was lost.
    losses: watch::Sender<u64>,
}

/// Who uses the link, and what becomes of it when they die.
pub struct Users(Arc<Shared>);

impl Users {
    /// All connections are reset, as when a machine loses its power: what a process leaves behind in its sockets
    /// when it is killed would still arrive, after the process that follows it has asked what is there.
    pub fn die(&self) {
        self.0.losses.send_modify(|losses| *losses += 1);
    }
}

impl Link {
    pub async fn to(far: SocketAddr, pace: u64) -> Self {
        let mut link = Self {
            address: free(Family::V4),
            shared: Arc::new(Shared {
                far,
                pace,
                turn: Mutex::new(Instant::now()),
                up: AtomicU64::new(0),
                down: AtomicU64::new(0),
                is_silent: watch::Sender::new(false),
                losses: watch::Sender::new(0),
            }),
            carrying: None,
        };
        link.mend().await;
        link
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn users(&self) -> Users {
        Users(Arc::clone(&self.shared))
    }

    /// Bytes that were sent to the parent, heads and bodies.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Bytes that came from it.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Resets all connections; new ones are refused.
    pub async fn cut(&mut self) {
        if let Some(carrying) = self.carrying.take() {
            carrying.abort();
            // Ends with "cancelled", which is what was asked for.
            let _ = carrying.await;
        }
    }

    /// Nothing moves, and nobody is told.
    pub fn silence(&self) {
        self.shared.is_silent.send_replace(true);
    }

    /// New connections are taken again. What was there before is reset.
    pub async fn mend(&mut self) {
        self.cut().await;
        self.shared.is_silent.send_replace(false);
        let listener = listen_again(self.address).await;
        let shared = Arc::clone(&self.shared);
        self.carrying = Some(tokio::spawn(async move {
            // Owned by this task: when it is aborted, every connection goes with it.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { shared.connect(near).await });
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(carrying) = &self.carrying {
            carrying.abort();
        }
    }
}

impl Shared {
    async fn connect(&self, near: TcpStream) {
        let mut losses = self.losses.subscribe();
        tokio::select! {
            () = self.carry(near) => {}
            _ = losses.changed() => {}
        }
    }

    async fn carry(&self, near: TcpStream) {
        let socket = TcpSocket::new_v4().expect("a socket");
        // What waits here was not sent: little does.
        let _ = socket.set_send_buffer_size(PIECE as u32);
        let Ok(far) = socket.connect(self.far).await else {
            return;
        };
        for end in [&near, &far] {
            // A cut is no orderly end.
            let _ = (end.set_nodelay(true), end.set_zero_linger());
        }
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        tokio::join!(self.carry_up(from_near, to_far), self.carry_down(from_far, to_near));
    }

    async fn carry_up(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut piece = vec![0; PIECE];
        loop {
            self.is_heard().await;
            let Ok(count @ 1..) = from.read(&mut piece).await else {
                break;
            };
            self.up.fetch_add(count as u64, Ordering::Relaxed);
            self.wait_for(count).await;
            self.is_heard().await;
            if to.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    async fn carry_down(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            self.is_heard().await;
            self.down.fetch_add(count as u64, Ordering::Relaxed);
            if to.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    async fn is_heard(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.is_silent.subscribe().wait_for(|is_silent| !is_silent).await;
    }

    async fn wait_for(&self, count: usize) {
        let until = {
            let mut turn = self.turn.lock().await;
            let now = Instant::now();
            // Timers are coarse: what one overslept others need not wait for.
            *turn =
                (*turn).max(now - Duration::from_millis(5)) + Duration::from_secs_f64(count as f64 / self.pace as f64);
            *turn
        };
        tokio::time::sleep_until(until).await;
    }
}
