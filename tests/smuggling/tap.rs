//! What a node really sends to its parent, byte for byte, read by a parser of others.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The bytes of one connection.
type Bytes = Arc<Mutex<Vec<u8>>>;

/// Lies between a node and its parent. Dropping it cuts it.
pub struct Tap {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Bytes>>>,
    carrying: JoinHandle<()>,
}

/// A request as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    target: String,
    /// In lower case.
    pub fields: Vec<String>,
}

impl Sent {
    /// Without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Tap {
    pub async fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let taken = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&taken);
        let carrying = tokio::spawn(async move {
            // Owned by this task: when it is aborted, every connection goes with it.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let bytes = Bytes::default();
                all.lock().push(Arc::clone(&bytes));
                connections.spawn(carry(near, far, bytes));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            taken,
            carrying,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests, none of which has a body.
    ///
    /// # Errors
    ///
    /// What stands where a request should.
    pub fn sent(&self) -> Result<Vec<Sent>, String> {
        let connections = self.taken.lock().clone();
        let mut sent = Vec::new();
        for bytes in connections {
            let bytes = bytes.lock().clone();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (request, length) = first(rest).ok_or_else(|| String::from_utf8_lossy(rest).into_owned())?;
                sent.push(request);
                rest = &rest[length..];
            }
        }
        Ok(sent)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// The request at the beginning, and its length.
fn first(bytes: &[u8]) -> Option<(Sent, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes).ok()? else {
        return None;
    };
    let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
    if request
        .headers
        .iter()
        .any(|field| is_length(field.name) && field.value != b"0")
    {
        return None;
    }
    let names = request.headers.iter().map(|field| field.name.to_ascii_lowercase());
    let sent = Sent {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        fields: names.collect(),
    };
    Some((sent, length))
}

async fn carry(near: TcpStream, far: SocketAddr, bytes: Bytes) {
    let Ok(far) = TcpStream::connect(far).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let up = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
            bytes.lock().extend_from_slice(&buffer[..count]);
            if to_far.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = to_far.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_far, &mut to_near).await;
        let _ = to_near.shutdown().await;
    };
    tokio::join!(up, down);
}
