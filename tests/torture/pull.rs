//! A client that is cheap, may be refused or cut off, and judges what it got. A thousand of it run at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::Object;
use crate::support::client::Request;

/// Nothing may take longer without a byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one client asks for, and how it behaves.
#[derive(Clone)]
pub struct Pull {
    address: SocketAddr,
    target: String,
    bytes: Bytes,
    range: Option<(usize, usize)>,
    pace: Option<usize>,
    leave_after: Option<usize>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All of what was asked for, to the byte.
    Whole,
    /// Complete as its head announced it, and not what was asked for.
    Wrong,
    /// Broken off.
    Broken,
    /// An error was answered.
    Refused(u16),
    /// There was no answer at all.
    Unanswered,
    /// The client had enough.
    Left,
    /// Nothing came any more, and nothing was closed.
    Stuck,
}

/// The head of a reply.
pub struct Head {
    pub status: u16,
    pub length: usize,
    text: String,
}

impl Pull {
    pub fn of(address: SocketAddr, object: &Object) -> Self {
        Self {
            address,
            target: object.target.clone(),
            bytes: object.bytes.clone(),
            range: None,
            pace: None,
            leave_after: None,
        }
    }

    /// Bytes `first..=last` alone.
    pub fn part(mut self, first: usize, last: usize) -> Self {
        self.range = Some((first, last));
        self
    }

    /// Reads so many bytes a second, and its kernel holds little for it.
    pub fn pace(mut self, bytes_per_second: usize) -> Self {
        self.pace = Some(bytes_per_second);
        self
    }

    /// Closes after so many bytes of the body: with what is still coming that is a reset.
    pub fn leave_after(mut self, bytes: usize) -> Self {
        self.leave_after = Some(bytes);
        self
    }

    /// Whether what it gets may be wrong if it came from bytes still in flight: it does not reach the end.
    pub fn is_excepted(&self) -> bool {
        self.range.is_some_and(|(_, last)| last + 1 < self.bytes.len())
    }

    pub async fn run(&self) -> Outcome {
        let request = Request::get(&self.target).header("Connection", "close");
        let request = match self.range {
            Some((first, last)) => request.range(&format!("{first}-{last}")),
            None => request,
        };
        match self.exchange(&request).await {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Outcome::Stuck,
            Err(_) => Outcome::Unanswered,
        }
    }

    async fn exchange(&self, request: &Request) -> io::Result<Outcome> {
        let mut stream = connect(self.address, self.pace.is_some()).await?;
        let mut buffer = vec![0; 64 << 10];
        let (head, mut here) = ask(&mut stream, request, &mut buffer).await?;
        let expected = match (head.status, self.range) {
            (200, _) => self.bytes.clone(),
            (206, Some((first, last))) if head.says_part(first, last, self.bytes.len()) => {
                self.bytes.slice(first..=last)
            }
            (206, _) => return Ok(Outcome::Wrong),
            (status, _) => return Ok(Outcome::Refused(status)),
        };
        let mut equal = head.length == expected.len();
        let mut at = 0;
        loop {
            equal &= expected.get(at..at + here) == Some(&buffer[..here]);
            at += here;
            if at >= head.length {
                return Ok(if equal { Outcome::Whole } else { Outcome::Wrong });
            }
            if self.leave_after.is_some_and(|most| at >= most) {
                return Ok(Outcome::Left);
            }
            // Its kernel may hold less than a step of its pace: what counts is what came.
            let most = self
                .pace
                .map_or(buffer.len(), |pace| (pace / 20).clamp(1, buffer.len()));
            if let Some(pace) = self.pace {
                sleep(Duration::from_secs_f64(here as f64 / pace as f64)).await;
            }
            here = match read(&mut stream, &mut buffer[..most]).await {
                Ok(0) => return Ok(Outcome::Broken),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_) => return Ok(Outcome::Broken),
            };
        }
    }
}

impl std::fmt::Display for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {:?} of {} of {}", self.range, self.bytes.len(), self.target)
    }
}

/// A small document as it came whole: its status, its body, and whether the reply was marked as stale. `None` if it
/// broke off, or never came.
pub async fn document(address: SocketAddr, target: &str) -> Option<(u16, Vec<u8>)> {
    let request = Request::get(target).header("Connection", "close");
    let mut buffer = vec![0; 64 << 10];
    let mut stream = connect(address, false).await.ok()?;
    let (head, mut here) = ask(&mut stream, &request, &mut buffer).await.ok()?;
    let mut body = buffer[..here].to_vec();
    while body.len() < head.length {
        here = read(&mut stream, &mut buffer).await.ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&buffer[..here]);
    }
    Some((head.status, body))
}

pub async fn connect(address: SocketAddr, narrow: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if narrow {
        socket.set_recv_buffer_size(16 << 10)?;
    }
    within(socket.connect(address)).await
}

/// The head of the answer, and how many bytes of the body came with it: they stand at the beginning of `buffer`.
async fn ask(stream: &mut TcpStream, request: &Request, buffer: &mut [u8]) -> io::Result<(Head, usize)> {
    stream.write_all(&request.written("node")).await?;
    let mut filled = 0;
    loop {
        let count = read(stream, &mut buffer[filled..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let end = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|at| at + 4) else { continue };
        let head = Head::parse(&buffer[..end]);
        buffer.copy_within(end..filled, 0);
        return Ok((head, filled - end));
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    within(stream.read(buffer)).await
}

async fn within<T>(wanted: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, wanted)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Head {
    fn parse(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = Self {
            status: status.expect("a status"),
            length: 0,
            text,
        };
        let length = head.field("content-length").map(|length| length.parse().ok());
        head.length = length.flatten().expect("a reply that says its length");
        head
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.text.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn says_part(&self, first: usize, last: usize, total: usize) -> bool {
        self.field("content-range") == Some(&format!("bytes {first}-{last}/{total}"))
    }
}
