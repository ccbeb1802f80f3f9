//! How bodies leave.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fail::fail_point;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::broken::Broken;
use super::kernel;
use super::pace::Pace;
use crate::fetch::{Piece, Readable};
use crate::serve::{Content, Segment};

/// Bytes given to sendfile at a time.
const STEP: usize = 1 << 20;
/// Bytes read at a time where sendfile is not possible.
const READ: usize = 256 << 10;
/// Bytes in a frame of HTTP/2, unless the client wants more.
const FRAME: usize = 16 << 10;
/// After so many bytes others on this thread get their turn.
const TURN: usize = 4 << 20;

/// Counts the bytes of a body as they leave.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) bytes: u64,
    /// When the first one left.
    pub(super) first: Option<Instant>,
}

impl Meter {
    pub(super) fn add(&mut self, bytes: u64) {
        if self.first.is_none() {
            self.first = Some(now());
        }
        self.bytes += bytes;
    }
}

/// A plain socket, written to past pingora.
pub(super) struct Socket {
    descriptor: AsyncFd<OwnedFd>,
    since_turn: usize,
}

impl Socket {
    /// Of a session whose stream is a bare TCP socket; `None` for TLS and HTTP/2.
    pub(super) fn of(session: &ServerSession) -> Option<Self> {
        let stream = session
            .as_http1()?
            .stream()
            .as_any()
            .downcast_ref::<pingora::protocols::l4::stream::Stream>()?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(stream);
        let descriptor = kernel::duplicate(raw).ok()?;
        let descriptor = kernel::watch_writable(descriptor).ok()?;
        Some(Self {
            descriptor,
            since_turn: 0,
        })
    }

    /// Holds packets back until they are full, for content that is all here.
    pub(super) fn cork(&self) {
        kernel::cork(self.descriptor.as_fd(), true);
    }

    /// Lets everything go.
    pub(super) fn uncork(&self) {
        kernel::cork(self.descriptor.as_fd(), false);
        kernel::no_delay(self.descriptor.as_fd());
    }

    /// Sends the whole body; `meter` counts on the way.
    pub(super) async fn body(
        &mut self,
        content: &mut Content,
        pace: &mut Pace,
        meter: &mut Meter,
    ) -> Result<(), Broken> {
        for segment in std::mem::take(&mut content.segments) {
            match segment {
                Segment::Bytes(bytes) => self.bytes(&bytes, pace, meter).await?,
                Segment::Part(mut range) => {
                    while let Some(piece) = next(content, &range).await? {
                        range.start += piece.len();
                        match piece {
                            Piece::Bytes(bytes) => self.bytes(&bytes, pace, meter).await?,
                            Piece::File(file, part) => {
                                let sent = self.file(file.clone(), part, pace, meter).await;
                                sent.inspect_err(|broken| doubt(&file, broken))?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn bytes(&mut self, bytes: &[u8], pace: &mut Pace, meter: &mut Meter) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sending = self.when_writable(pace, meter.bytes, |socket| kernel::send_bytes(socket, rest));
            // Nothing but the socket takes part in this.
            let took = sending.await?.map_err(|_| Broken::Client)?;
            meter.add(took as u64);
            rest = &rest[took..];
        }
        Ok(())
    }

    async fn file(
        &mut self,
        file: Arc<dyn Readable>,
        mut part: Range<u64>,
        pace: &mut Pace,
        meter: &mut Meter,
    ) -> Result<(), Broken> {
        while !part.is_empty() {
            let step = usize::try_from(part.end - part.start).unwrap_or(STEP).min(STEP);
            let last = part.start + step as u64 - 1;
            if !kernel::is_cached(file.as_fd(), last) {
                warm(file.clone(), part.start, step).await?;
            }
            let start = part.start;
            let sending = self.when_writable(pace, meter.bytes, |socket| {
                fail_point!("listener.sendfile", |_| Err(io::Error::from_raw_os_error(libc::EIO)));
                kernel::sendfile(socket, file.as_fd(), start, step)
            });
            let took = sending.await?.map_err(told_apart)?;
            if took == 0 {
                return Err(Broken::Disk(io::ErrorKind::UnexpectedEof.into()));
            }
            meter.add(took as u64);
            part.start += took as u64;
            self.take_turns(took).await;
        }
        Ok(())
    }

    async fn when_writable(
        &self,
        pace: &mut Pace,
        given: u64,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Broken> {
        // Most writes find room; registering for readiness first would cost a round.
        match write(self.descriptor.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return Ok(other),
        }
        let writing = self
            .descriptor
            .async_io(Interest::WRITABLE, |descriptor| write(descriptor.as_fd()));
        pace.wait(given, writing).await
    }

    async fn take_turns(&mut self, bytes: usize) {
        self.since_turn += bytes;
        if self.since_turn >= TURN {
            self.since_turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// The next piece of a part. Content that ends before its announced end must not look complete.
async fn next(content: &mut Content, range: &Range<u64>) -> Result<Option<Piece>, Broken> {
    let piece = content.source.piece(range.clone()).await?;
    if piece.is_none() && !range.is_empty() && range.end != u64::MAX {
        return Err(Broken::Short);
    }
    Ok(piece)
}

/// Sends a body through the session: TLS, HTTP/2, or a length that is not known.
pub(super) async fn through_session(
    session: &mut ServerSession,
    content: &mut Content,
    pace: &mut Pace,
    meter: &mut Meter,
) -> Result<(), Broken> {
    for segment in std::mem::take(&mut content.segments) {
        match segment {
            Segment::Bytes(bytes) => write(session, bytes, pace, meter).await?,
            Segment::Part(mut range) => {
                while let Some(piece) = next(content, &range).await? {
                    range.start += piece.len();
                    match piece {
                        Piece::Bytes(bytes) => write(session, bytes, pace, meter).await?,
                        Piece::File(file, mut part) => {
                            while !part.is_empty() {
                                let bytes = read(&file, part.clone()).await;
                                let bytes = bytes.inspect_err(|broken| doubt(&file, broken))?;
                                part.start += bytes.len() as u64;
                                write(session, bytes, pace, meter).await?;
                            }
                        }
                    }
                }
            }
        }
    }
    end(session, pace, meter.bytes).await
}

/// A header, through the session.
pub(super) async fn header(
    session: &mut ServerSession,
    header: Box<ResponseHeader>,
    pace: &mut Pace,
) -> Result<(), Broken> {
    let writing = session.write_response_header(header);
    pace.wait(0, writing).await?.map_err(|_| Broken::Client)
}

/// A whole body, through the session.
pub(super) async fn whole(
    session: &mut ServerSession,
    mut bytes: Bytes,
    pace: &mut Pace,
    meter: &mut Meter,
) -> Result<(), Broken> {
    if session.is_http2() && bytes.len() > FRAME {
        let all_but_the_last = bytes.split_to(bytes.len() - FRAME);
        write(session, all_but_the_last, pace, meter).await?;
    }
    let length = bytes.len() as u64;
    let writing = session.write_response_body(bytes, true);
    pace.wait(meter.bytes, writing).await?.map_err(|_| Broken::Client)?;
    meter.add(length);
    Ok(())
}

/// The end of a body, through the session; `given` bytes went before.
pub(super) async fn end(session: &mut ServerSession, pace: &mut Pace, given: u64) -> Result<(), Broken> {
    let ending = session.write_response_body(Bytes::new(), true);
    pace.wait(given, ending).await?.map_err(|_| Broken::Client)
}

async fn write(
    session: &mut ServerSession,
    mut bytes: Bytes,
    pace: &mut Pace,
    meter: &mut Meter,
) -> Result<(), Broken> {
    // HTTP/2 does not say how much of one writing was taken.
    let most = if session.is_http2() { FRAME } else { READ };
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(most));
        let length = piece.len() as u64;
        let writing = session.write_response_body(piece, false);
        pace.wait(meter.bytes, writing).await?.map_err(|_| Broken::Client)?;
        meter.add(length);
    }
    Ok(())
}

async fn read(file: &Arc<dyn Readable>, part: Range<u64>) -> Result<Bytes, Broken> {
    let most = usize::try_from(part.end - part.start).unwrap_or(READ).min(READ);
    let mut buffer = vec![0; most];
    let read = match kernel::read_now(file.as_fd(), &mut buffer, part.start) {
        Ok(read) => read,
        Err(_) => {
            let file = file.clone();
            let waited = tokio::task::spawn_blocking(move || {
                let offset = i64::try_from(part.start).map_err(io::Error::other)?;
                let read = nix::sys::uio::pread(file.as_fd(), &mut buffer, offset)?;
                Ok::<_, io::Error>((buffer, read))
            });
            let (filled, read) = waited.await.map_err(io::Error::other)??;
            buffer = filled;
            read
        }
    };
    if read == 0 {
        return Err(Broken::Disk(io::ErrorKind::UnexpectedEof.into()));
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

/// Brings file bytes into the page cache on a thread that may wait.
async fn warm(file: Arc<dyn Readable>, start: u64, bytes: usize) -> io::Result<()> {
    let warmed = tokio::task::spawn_blocking(move || {
        kernel::read_ahead(file.as_fd(), start, bytes);
        let last = i64::try_from(start + bytes as u64 - 1).map_err(io::Error::other)?;
        nix::sys::uio::pread(file.as_fd(), &mut [0], last)?;
        Ok(())
    });
    warmed.await.map_err(io::Error::other)?
}

/// What the disk could not read is not trusted as it was.
fn doubt(file: &Arc<dyn Readable>, broken: &Broken) {
    if let Broken::Disk(_) = broken {
        file.doubt();
    }
}

/// Whether the socket or the file was meant; one call reads from the one and writes to the other.
fn told_apart(error: io::Error) -> Broken {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, NotConnected, TimedOut,
    };
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkDown
        | NetworkUnreachable | NotConnected | TimedOut => Broken::Client,
        _ => Broken::Disk(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "measures what is logged")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_connection_that_died_is_not_taken_for_a_bad_disk() {
        let broken = |errno: Errno| told_apart(errno.into());

        for errno in [
            Errno::EPIPE,
            Errno::ECONNRESET,
            Errno::ETIMEDOUT,
            Errno::ENOTCONN,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::ENETDOWN,
            Errno::ECONNABORTED,
        ] {
            assert!(matches!(broken(errno), Broken::Client), "{errno}");
        }
        for errno in [Errno::EIO, Errno::ENOMEM, Errno::EBADF, Errno::EINVAL] {
            assert!(matches!(broken(errno), Broken::Disk(_)), "{errno}");
        }
    }
}
