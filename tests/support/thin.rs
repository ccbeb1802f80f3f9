//! A thin line: all connections to a server share so many bytes per second, each way, and it says what crossed when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Read at a time; small, so that connections share fairly.
const READ: usize = 4 << 10;

/// How late a sleeper may wake.
const GRAIN: Duration = Duration::from_millis(10);

/// What lies in the kernel on either side of the line, for each connection, as far as the kernel obeys.
const BUFFER: u32 = 64 << 10;

/// Leads to a server. Dropping it ends all connections.
pub struct Thin {
    address: SocketAddr,
    down: Arc<Way>,
    up: Arc<Way>,
    open: Arc<AtomicUsize>,
    _connections: JoinSet<()>,
}

/// What crossed at once.
struct Piece {
    at: Instant,
    bytes: usize,
    /// The request line before it, on this connection.
    of: Arc<str>,
}

/// What a connection was last asked for.
type Asked = Arc<Mutex<Arc<str>>>;

/// One way of the line.
struct Way {
    rate: AtomicU64,
    /// When the next piece may cross.
    next: Mutex<Instant>,
    crossed: Mutex<Vec<Piece>>,
}

impl Thin {
    /// So many bytes per second each way.
    pub async fn to(server: SocketAddr, rate: u64) -> Self {
        let listener = listening().expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (down, up) = (Way::of(rate), Way::of(rate));
        let open = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        let (to_node, to_server, count) = (Arc::clone(&down), Arc::clone(&up), Arc::clone(&open));
        connections.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = dial(server).await else { continue };
                let (to_node, to_server, count) = (Arc::clone(&to_node), Arc::clone(&to_server), Arc::clone(&count));
                all.spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    let asked = Asked::new(Mutex::new("".into()));
                    // Either side's end is the connection's.
                    tokio::select! {
                        () = to_server.carry(from_near, to_far, &asked, true) => {}
                        () = to_node.carry(from_far, to_near, &asked, false) => {}
                    }
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            down,
            up,
            open,
            _connections: connections,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Bytes that came between two moments as the answer to such a request.
    pub fn came_for(&self, path_part: &str, from: Instant, until: Instant) -> u64 {
        self.down.between(from, until, path_part)
    }

    /// Bytes that came from the server between two moments.
    pub fn came(&self, from: Instant, until: Instant) -> u64 {
        self.down.between(from, until, "")
    }

    /// Bytes that went to it.
    pub fn went(&self, from: Instant, until: Instant) -> u64 {
        self.up.between(from, until, "")
    }

    /// Bytes that crossed either way, so far.
    pub fn crossed(&self) -> u64 {
        let (began, now) = (Instant::now() - Duration::from_secs(3600), Instant::now());
        self.came(began, now) + self.went(began, now)
    }
}

/// What is accepted has buffers as small.
fn listening() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.bind("127.0.0.1:0".parse().expect("an address"))?;
    socket.listen(1024)
}

/// A connection whose kernel keeps little of what has crossed.
async fn dial(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.connect(server).await
}

impl Way {
    fn of(rate: u64) -> Arc<Self> {
        Arc::new(Self {
            rate: AtomicU64::new(rate),
            next: Mutex::new(Instant::now()),
            crossed: Mutex::default(),
        })
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked, is_asking: bool) {
        let mut piece = vec![0; READ];
        loop {
            let Ok(count @ 1..) = from.read(&mut piece).await else {
                return;
            };
            let turn = {
                let span = Duration::from_secs_f64(count as f64 / self.rate.load(Ordering::Relaxed) as f64);
                let mut next = self.next.lock();
                // Whoever wakes late makes up for it.
                *next = (*next).max(Instant::now() - GRAIN) + span;
                *next
            };
            if turn > Instant::now() {
                tokio::time::sleep_until(turn).await;
            }
            if is_asking && let Some(line) = piece[..count].split(|byte| *byte == b'\r').next() {
                *asked.lock() = String::from_utf8_lossy(line).into();
            }
            let of = Arc::clone(&asked.lock());
            self.crossed.lock().push(Piece {
                at: Instant::now(),
                bytes: count,
                of,
            });
            if to.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    }

    fn between(&self, from: Instant, until: Instant, path_part: &str) -> u64 {
        let crossed = self.crossed.lock();
        let pieces = crossed.iter();
        let pieces = pieces.filter(|piece| (from..until).contains(&piece.at) && piece.of.contains(path_part));
        pieces.map(|piece| piece.bytes as u64).sum()
    }
}
