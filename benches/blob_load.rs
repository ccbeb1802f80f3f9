//! Pulls one blob over kept-alive connections, each client a thread, and prints what that took.
//!
//! ```text
//! blob_load ADDRESS PATH CLIENTS PULLS_EACH   ->   {"bytes": 268435456, "seconds": 0.131, "first_byte": [0.0004]}
//! ```
//!
//! `first_byte` has the seconds until the first byte of each client's first pull, ascending.
//!
//! It copies the bytes out of the kernel and drops them, as a client must that wants them; what that costs is the
//! caller's to measure. All clients are connected before the first one asks. Any reply that is not a whole 200 ends
//! it with an error: a rate of wrong answers is no rate.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and has no logic that a test would time"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Large, so that the client's system calls do not drown the server's.
const READ_AT_ONCE: usize = 256 * 1024;
const SILENCE: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, clients, pulls] = &arguments[..] else {
        eprintln!("blob_load ADDRESS PATH CLIENTS PULLS_EACH");
        std::process::exit(2);
    };
    let (clients, pulls): (usize, usize) = (number(clients), number(pulls));

    let start = Arc::new(Barrier::new(clients + 1));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (address, path, start) = (address.clone(), path.clone(), start.clone());
            thread::spawn(move || pull_all(&address, &path, pulls, &start))
        })
        .collect();
    start.wait();
    let began = Instant::now();
    let pulled: Vec<Pulled> = threads
        .into_iter()
        .map(|client| client.join().unwrap_or_else(|_| fail("a client panicked")))
        .collect();
    report(&pulled, began.elapsed());
}

fn report(pulled: &[Pulled], took: Duration) {
    let bytes: u64 = pulled.iter().map(|pulled| pulled.bytes).sum();
    let mut first: Vec<Duration> = pulled.iter().filter_map(|pulled| pulled.first_byte).collect();
    first.sort();
    let first: Vec<String> = first
        .iter()
        .map(|after| format!("{:.6}", after.as_secs_f64()))
        .collect();
    println!(
        "{{\"bytes\": {bytes}, \"seconds\": {:.6}, \"first_byte\": [{}]}}",
        took.as_secs_f64(),
        first.join(", ")
    );
}

/// What one client did.
struct Pulled {
    bytes: u64,
    /// Of its first pull; none if that was empty.
    first_byte: Option<Duration>,
}

fn pull_all(address: &str, path: &str, pulls: usize, start: &Barrier) -> Pulled {
    let mut client = Client::connect(address).unwrap_or_else(|error| fail(&format!("connect to {address}: {error}")));
    start.wait();
    let bytes = (0..pulls)
        .map(|_| {
            client
                .pull(path)
                .unwrap_or_else(|error| fail(&format!("pull from {address}: {error}")))
        })
        .sum();
    Pulled {
        bytes,
        first_byte: client.first_byte,
    }
}

/// One connection, its buffer kept from pull to pull.
struct Client {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
    first_byte: Option<Duration>,
}

impl Client {
    fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: address.to_owned(),
            buffer: vec![0; READ_AT_ONCE],
            first_byte: None,
        })
    }

    /// Reads one whole reply and returns the bytes of its body.
    fn pull(&mut self, path: &str) -> io::Result<u64> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\r\n", self.host);
        let asked = Instant::now();
        self.stream.write_all(request.as_bytes())?;

        let (length, mut got) = self.head()?;
        while got < length {
            if got > 0 {
                self.first_byte.get_or_insert_with(|| asked.elapsed());
            }
            got += match self.stream.read(&mut self.buffer)? {
                0 => return Err(io::Error::other(format!("cut after {got} of {length} bytes"))),
                read => read as u64,
            };
        }
        self.first_byte.get_or_insert_with(|| asked.elapsed());
        if got > length {
            return Err(io::Error::other(format!("{got} bytes of {length}")));
        }
        Ok(length)
    }

    /// Reads up to the end of the header; returns the announced length and how much of the body came along.
    fn head(&mut self) -> io::Result<(u64, u64)> {
        let mut filled = 0;
        let end = loop {
            match self.stream.read(&mut self.buffer[filled..])? {
                0 => return Err(io::Error::other("closed before the header ended")),
                read => filled += read,
            }
            if let Some(at) = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200 ") {
            return Err(io::Error::other(format!(
                "answered {}",
                head.lines().next().unwrap_or_default()
            )));
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let length = length.ok_or_else(|| io::Error::other("a reply without a length"))?;
        Ok((length, (filled - end) as u64))
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| fail(&format!("{text} is no number")))
}

fn fail(what: &str) -> ! {
    eprintln!("blob_load: {what}");
    std::process::exit(1)
}
