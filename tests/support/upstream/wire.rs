//! HTTP/1.1 written by hand, so that it can be written wrong.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::fault::{Cut, Fault, Length};
use super::framing::Framing;
use super::intake::Intake;
use super::ledger::{EndOnDrop, Seen};
use super::registry::Reply;

const PIECE: u64 = 64 << 10;

/// How long a connection stays whose request was not read to its end, as at Go's servers.
const HASTE: Duration = Duration::from_millis(500);

/// A connection with or without TLS.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What becomes of the connection after an answer.
#[derive(Debug, Eq, PartialEq)]
enum After {
    Keep,
    Close,
    Reset,
}

impl From<Cut> for After {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Fin => Self::Close,
            Cut::Rst => Self::Reset,
        }
    }
}

/// Answers one request after the other until one side has had enough.
pub async fn converse(shared: Arc<Shared>, mut wire: Wire) {
    let mut read = Vec::new();
    while let Some(seen) = request(&mut wire, &mut read).await {
        let ended = EndOnDrop(&seen);
        shared.ledger.record(&seen);
        let after = exchange(&shared, &mut wire, &mut read, &seen).await;
        drop(ended);
        let wants_close = seen
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match after.unwrap_or(After::Close) {
            After::Keep if !wants_close => {}
            After::Keep | After::Close => break,
            After::Reset => {
                let _ = wire.tcp().set_zero_linger();
                return;
            }
        }
    }
    let _ = wire.shutdown().await;
}

/// From the body of a request to its answer.
async fn exchange(shared: &Arc<Shared>, wire: &mut Wire, read: &mut Vec<u8>, seen: &Seen) -> io::Result<After> {
    let mut intake = Intake::of(shared, seen);
    if intake.is_hasty() {
        let reply = intake.carried_out();
        answer(wire, seen, reply, &intake.fault).await?;
        wire.shutdown().await?;
        // A reset that overtakes the answer would take it away.
        tokio::time::sleep(HASTE).await;
        return Ok(After::Close);
    }
    if let Err(after) = receive(wire, read, seen, &mut intake).await {
        return Ok(after);
    }
    let reply = intake.carried_out();
    match intake.fault.unanswered {
        Some(cut) => Ok(cut.into()),
        None => answer(wire, seen, reply, &intake.fault).await,
    }
}

/// Reads the body of `seen` to its end; else what becomes of the connection, by the client's will or the script's.
async fn receive(wire: &mut Wire, read: &mut Vec<u8>, seen: &Seen, intake: &mut Intake) -> Result<(), After> {
    // The body for a token service was read with the head.
    let mut framing = if seen.is_content() {
        Framing::of(seen)
    } else {
        Framing::Ended
    };
    loop {
        while let Some(piece) = framing.next(read) {
            intake.take(&piece).await?;
        }
        if framing.has_ended() {
            return Ok(());
        }
        intake.may_read().await;
        read.reserve(PIECE as usize);
        let count = wire.read_more(read).await;
        count.ok().filter(|count| *count > 0).ok_or(After::Close)?;
    }
}

/// Reads the next request, with its body unless that is content; `None` when there is none.
async fn request(wire: &mut Wire, read: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        wire.read_more(read).await.ok().filter(|count| *count > 0)?;
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    read.drain(..end);
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen::new(method, target, headers);
    if wire.has_certificate() {
        seen.headers.push((":certificate".to_owned(), "shown".to_owned()));
    }
    if seen.is_content() {
        return Some(seen);
    }
    let body = seen
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    while read.len() < body {
        wire.read_more(read).await.ok().filter(|count| *count > 0)?;
    }
    seen.body = String::from_utf8_lossy(&read[..body]).into_owned();
    read.drain(..body);
    Some(seen)
}

async fn answer(wire: &mut Wire, seen: &Seen, reply: Reply, fault: &Fault) -> io::Result<After> {
    if fault.silent {
        return wire.wait_until_gone().await;
    }
    tokio::time::sleep(fault.delay).await;
    if let Some(gate) = &fault.hold_head {
        gate.passed().await;
    }
    seen.answered(reply.status);
    wire.write_all(head(&reply, fault).as_bytes()).await?;
    if seen.method == "HEAD" || reply.status == 304 {
        return Ok(After::Keep);
    }
    let after = body(wire, seen, &reply.body, fault).await?;
    let framed = matches!(fault.length, Length::True | Length::Chunked);
    Ok(if framed || after != After::Keep {
        after
    } else {
        After::Close
    })
}

fn head(reply: &Reply, fault: &Fault) -> String {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
    match fault.length {
        Length::True => head += &format!("Content-Length: {}\r\n", reply.body.len()),
        Length::Says(length) => head += &format!("Content-Length: {length}\r\n"),
        Length::Chunked => head += "Transfer-Encoding: chunked\r\n",
        Length::Unsaid => head += "Connection: close\r\n",
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

async fn body(wire: &mut Wire, seen: &Seen, body: &Bytes, fault: &Fault) -> io::Result<After> {
    let chunked = fault.length == Length::Chunked;
    let length = body.len() as u64;
    let begun = Instant::now();
    let mut sent = 0;
    loop {
        if let Some((at, gate)) = &fault.hold
            && *at == sent
        {
            gate.passed().await;
        }
        if fault.stall_after == Some(sent) {
            return wire.wait_until_gone().await;
        }
        if let Some((at, how)) = fault.cut
            && at == sent
        {
            tokio::time::sleep(fault.linger).await;
            return Ok(how.into());
        }
        if sent == length {
            break;
        }
        let end = boundary(sent, length, fault);
        wire.write_piece(seen, &body[sent as usize..end as usize], chunked)
            .await?;
        sent = end;
        if let Some(pace) = fault.pace {
            let due = Duration::from_secs_f64(sent as f64 / pace as f64);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }
    if fault.endless {
        loop {
            wire.write_piece(seen, &[0; PIECE as usize], chunked).await?;
        }
    }
    if chunked {
        wire.write_all(b"0\r\n\r\n").await?;
    }
    Ok(After::Keep)
}

/// Where the piece that begins at `sent` ends: nothing that the script does falls inside a piece.
fn boundary(sent: u64, length: u64, fault: &Fault) -> u64 {
    let piece = fault.pace.map_or(PIECE, |pace| (pace / 100).clamp(1, PIECE));
    let hold = fault.hold.as_ref().map(|(at, _)| *at);
    let stops = [hold, fault.stall_after, fault.cut.map(|(at, _)| at)];
    let next = stops
        .into_iter()
        .flatten()
        .filter(|stop| *stop > sent)
        .min()
        .unwrap_or(length);
    next.min(sent + piece).min(length)
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether the other side showed a certificate.
    fn has_certificate(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.peer_certificates().is_some(),
        }
    }

    async fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read_buf(into).await,
            Self::Tls(tls) => tls.read_buf(into).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes).await,
            Self::Tls(tls) => tls.write(bytes).await,
        }
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = &bytes[count..];
        }
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush().await,
        }
    }

    /// Writes a part of a body, counting what the kernel took even if the rest is refused.
    async fn write_piece(&mut self, seen: &Seen, piece: &[u8], chunked: bool) -> io::Result<()> {
        if chunked {
            self.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        let mut rest = piece;
        while !rest.is_empty() {
            let count = self.write(rest).await?;
            seen.add_bytes(count);
            rest = &rest[count..];
        }
        self.write_all(if chunked { b"\r\n" } else { b"" }).await
    }

    async fn wait_until_gone(&mut self) -> io::Result<After> {
        let mut ignored = Vec::new();
        while self.read_more(&mut ignored).await? > 0 {}
        Ok(After::Close)
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(tls) => tls.shutdown().await,
        }
    }
}
