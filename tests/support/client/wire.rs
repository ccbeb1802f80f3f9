//! One connection, read as slowly as the test likes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Compared, Reply, Request};
use crate::support::PATIENCE;

/// How long containerd waits for the head of a reply.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection between two requests.
pub struct Connection {
    stream: Box<dyn Stream>,
    host: String,
    /// Read from the socket and not yet understood.
    raw: Vec<u8>,
}

/// How the end of a body is known.
#[derive(Debug)]
enum Framing {
    Length(u64),
    /// Bytes that are left of the current chunk.
    Chunked(u64),
    Close,
    Ended {
        complete: bool,
    },
}

/// A reply whose head was read and whose body comes.
pub struct Open {
    connection: Connection,
    reply: Reply,
    framing: Framing,
    /// The request said that no other would follow.
    closing: bool,
}

impl Connection {
    pub async fn to(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        let tcp = TcpStream::connect(address).await.expect("somebody listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::from(address.ip());
                Box::new(
                    TlsConnector::from(config)
                        .connect(name, tcp)
                        .await
                        .expect("a handshake"),
                )
            }
        };
        Self {
            stream,
            host: address.to_string(),
            raw: Vec::new(),
        }
    }

    pub async fn open(mut self, request: Request) -> Open {
        let begun = Instant::now();
        let written = request.written(&self.host);
        // A server may answer and close before it has read all.
        let _ = self.stream.write_all(&written).await;
        let _ = self.stream.flush().await;
        loop {
            let (status, headers) = self.head().await;
            if status < 200 {
                continue;
            }
            let framing = framing(&request.method, status, &headers);
            let reply = Reply {
                status,
                headers,
                body: Vec::new(),
                complete: false,
                head_after: begun.elapsed(),
            };
            let closing = request.closes();
            return Open {
                connection: self,
                reply,
                framing,
                closing,
            };
        }
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Whether the other side closes within `limit` without saying anything more.
    pub async fn is_closed_within(&mut self, limit: Duration) -> bool {
        matches!(timeout(limit, self.fill()).await, Ok(0)) && self.raw.is_empty()
    }

    /// What comes next, as it is.
    pub async fn read_some(&mut self) -> Vec<u8> {
        timeout(HEAD_PATIENCE, self.fill()).await.expect("bytes in time");
        std::mem::take(&mut self.raw)
    }

    /// All that comes until the other side closes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while timeout(HEAD_PATIENCE, self.fill()).await.expect("the end in time") > 0 {}
        std::mem::take(&mut self.raw)
    }

    async fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let end = loop {
            if let Some(at) = self.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let count = timeout(HEAD_PATIENCE, self.fill())
                .await
                .expect("the head of a reply in time");
            assert!(
                count > 0,
                "closed before a reply, after {:?}",
                String::from_utf8_lossy(&self.raw)
            );
        };
        let text = String::from_utf8_lossy(&self.raw[..end]).into_owned();
        self.raw.drain(..end);
        let mut lines = text.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        (status, headers.collect())
    }

    /// Reads once; 0 at the end, however it came.
    async fn fill(&mut self) -> usize {
        if self.raw.capacity() - self.raw.len() < 32 << 10 {
            self.raw.reserve(128 << 10);
        }
        self.stream.read_buf(&mut self.raw).await.unwrap_or(0)
    }
}

fn framing(method: &str, status: u16, headers: &[(String, String)]) -> Framing {
    let header = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    if method == "HEAD" || status == 204 || status == 304 {
        return Framing::Ended { complete: true };
    }
    if header("transfer-encoding").is_some() {
        return Framing::Chunked(0);
    }
    match header("content-length") {
        Some((_, length)) => match length.parse().expect("a length") {
            0 => Framing::Ended { complete: true },
            length => Framing::Length(length),
        },
        None => Framing::Close,
    }
}

impl Open {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    /// The reply as far as it was read.
    pub fn so_far(&self) -> &Reply {
        &self.reply
    }

    /// Reads until `count` bytes of the body are here, or the reply ended.
    pub async fn read(&mut self, count: usize) -> &[u8] {
        while self.reply.body.len() < count && !self.ended() {
            self.step().await;
        }
        &self.reply.body
    }

    /// Reads to the end, whole or broken.
    pub async fn rest(mut self) -> (Reply, Connection) {
        while !self.ended() {
            self.step().await;
        }
        self.reply.complete = matches!(self.framing, Framing::Ended { complete: true });
        (self.reply, self.connection)
    }

    /// Reads to the end. After a whole reply nothing more may come; and the close must, if it was asked for.
    pub async fn last(self) -> Reply {
        let closing = self.closing;
        let (reply, mut connection) = self.rest().await;
        let closed = !reply.complete || !closing || connection.is_closed_within(Duration::from_secs(2)).await;
        let surplus = if reply.complete { &connection.raw[..] } else { b"" };
        let surplus = String::from_utf8_lossy(surplus).into_owned();
        assert!(
            closed && surplus.is_empty(),
            "after a whole reply the connection stayed open or {surplus:?} followed: {reply}"
        );
        reply
    }

    /// Reads to the end, comparing instead of keeping. Nothing of the body may have been read before.
    pub async fn compare(mut self, expected: &Bytes) -> Compared {
        let (mut at, mut equal) = (0, true);
        loop {
            let piece = std::mem::take(&mut self.reply.body);
            equal &= expected.get(at..at + piece.len()) == Some(&piece[..]);
            at += piece.len();
            if let Framing::Ended { complete } = self.framing {
                return Compared {
                    bytes: at as u64,
                    equal,
                    complete,
                };
            }
            self.reply.body = piece;
            self.reply.body.clear();
            self.step().await;
        }
    }

    fn ended(&self) -> bool {
        matches!(self.framing, Framing::Ended { .. })
    }

    /// Takes what is here into the body, or reads once.
    async fn step(&mut self) {
        if !self.take() {
            let count = timeout(PATIENCE, self.connection.fill()).await;
            let count = count.unwrap_or_else(|_| panic!("nothing more came: {}", self.reply));
            if count == 0 {
                self.framing = Framing::Ended {
                    complete: matches!(self.framing, Framing::Close),
                };
            }
        }
    }

    /// Whether anything could be understood of what was read.
    fn take(&mut self) -> bool {
        match self.framing {
            Framing::Ended { .. } => false,
            Framing::Close => self.take_bytes(u64::MAX) > 0,
            Framing::Length(left) => {
                let taken = self.take_bytes(left);
                self.framing = match left - taken {
                    0 => Framing::Ended { complete: true },
                    left => Framing::Length(left),
                };
                taken > 0
            }
            Framing::Chunked(0) => self.take_chunk_head(),
            Framing::Chunked(left) => {
                let taken = self.take_bytes(left);
                self.framing = Framing::Chunked(left - taken);
                taken > 0
            }
        }
    }

    fn take_bytes(&mut self, most: u64) -> u64 {
        let raw = &mut self.connection.raw;
        let count = most.min(raw.len() as u64) as usize;
        self.reply.body.extend_from_slice(&raw[..count]);
        raw.drain(..count);
        count as u64
    }

    fn take_chunk_head(&mut self) -> bool {
        let raw = &mut self.connection.raw;
        // The end of the chunk before.
        let start = if raw.starts_with(b"\r\n") { 2 } else { 0 };
        let Some(length) = raw[start..].windows(2).position(|pair| pair == b"\r\n") else {
            return false;
        };
        let line = String::from_utf8_lossy(&raw[start..start + length]).into_owned();
        let size = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).expect("a chunk's size");
        let end = start + length + 2;
        if size > 0 {
            raw.drain(..end);
            self.framing = Framing::Chunked(size);
            return true;
        }
        if raw.len() < end + 2 {
            return false;
        }
        raw.drain(..end + 2);
        self.framing = Framing::Ended { complete: true };
        true
    }
}
