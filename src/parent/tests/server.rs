//! A server that answers what a test tells it, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Stops when dropped.
pub(in crate::parent) struct Server {
    pub(in crate::parent) address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    connections: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(in crate::parent) struct Asked {
    /// `GET /path?query`.
    pub(in crate::parent) line: String,
    /// The header lines, names in lower case.
    headers: Vec<(String, String)>,
}

impl Asked {
    /// The header's value, or nothing.
    pub(in crate::parent) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// What a test has the server answer.
pub(in crate::parent) enum Reply {
    /// Sent as it is; the connection stays open.
    Whole(String),
    /// Sent as it is, and cut.
    Cut(String),
    /// Nothing, for ever.
    Silence,
}

impl Server {
    /// On a free port of 127.0.0.1.
    pub(in crate::parent) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub(in crate::parent) async fn start_at(
        at: &str,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(at, answer, |stream| async { Ok(stream) }).await
    }

    /// With something between the connection and HTTP.
    pub(in crate::parent) async fn start_with<S, F>(
        at: &str,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let answer = Arc::new(answer);
        let accepting = Arc::clone(&log);
        let task = tokio::spawn(async move {
            // Its connections end with the server.
            let mut connected = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (log, answer, wrapped) = (Arc::clone(&accepting), Arc::clone(&answer), wrap(stream));
                connected.spawn(async move {
                    let Ok(stream) = wrapped.await else { return };
                    serve(stream, &log, answer.as_ref()).await;
                });
            }
        });
        Self { address, log, task }
    }

    pub(in crate::parent) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(in crate::parent) fn asked(&self) -> Vec<Asked> {
        self.log.asked.lock().clone()
    }

    /// How many requests began so.
    pub(in crate::parent) fn count(&self, line: &str) -> usize {
        self.asked().iter().filter(|asked| asked.line.starts_with(line)).count()
    }

    pub(in crate::parent) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with its length.
pub(in crate::parent) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    Reply::Whole(text(status, headers, body.len(), body))
}

/// An answer whose body ends before its announced length.
pub(in crate::parent) fn cut(headers: &[(&str, &str)], announced: usize, body: &str) -> Reply {
    Reply::Cut(text(200, headers, announced, body))
}

/// An answer to HEAD, or one without a body: the length is said and nothing follows.
pub(in crate::parent) fn head(status: u16, headers: &[(&str, &str)], length: usize) -> Reply {
    Reply::Whole(text(status, headers, length, ""))
}

fn text(status: u16, headers: &[(&str, &str)], length: usize, body: &str) -> String {
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\n{lines}\r\n{body}")
}

async fn serve<S>(mut stream: S, log: &Log, answer: &(impl Fn(&Asked) -> Reply + ?Sized))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = Vec::new();
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let asked = parse(&String::from_utf8_lossy(&buffer[..end]));
        buffer.drain(..end + 4);
        log.asked.lock().push(asked.clone());
        let sent = match answer(&asked) {
            Reply::Whole(text) => stream.write_all(text.as_bytes()).await.is_ok(),
            Reply::Cut(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Silence => std::future::pending().await,
        };
        if !sent {
            return;
        }
    }
}

fn parse(head: &str) -> Asked {
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    Asked {
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
    }
}
