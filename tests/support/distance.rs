//! A long way: what is sent over it arrives later, however much it is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Leads to a server, `later` in each direction. Dropping it ends all connections.
pub struct Distance {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Distance {
    pub async fn to(server: SocketAddr, later: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(server).await else {
                    continue;
                };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                ways.spawn(carry(from_near, to_far, later));
                ways.spawn(carry(from_far, to_near, later));
            }
        });
        Self {
            address,
            _connections: connections,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What is under way is held here, so that the sender's kernel is no bound.
async fn carry(mut from: impl AsyncRead + Unpin + Send, mut to: impl AsyncWrite + Unpin + Send, later: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let arrive = async {
        while let Some((at, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let leave = async move {
        loop {
            let mut bytes = Vec::with_capacity(64 << 10);
            match from.read_buf(&mut bytes).await {
                Ok(count) if count > 0 => drop(sender.send((Instant::now() + later, bytes))),
                _ => return,
            }
        }
    };
    tokio::join!(leave, arrive);
}
