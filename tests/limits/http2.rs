//! HTTP/2, frame by frame (RFC 9113), for what no client library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::authority::Authority;
use crate::support::node::Node;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub struct Connection {
    stream: TlsStream<TcpStream>,
}

impl Connection {
    pub async fn to(node: &Node, authority: &Authority) -> Self {
        Self::accepted(node, authority).await.expect("it is accepted")
    }

    /// `None` if the node takes no more of ours.
    pub async fn accepted(node: &Node, authority: &Authority) -> Option<Self> {
        let connector = TlsConnector::from(authority.client(&[b"h2"]));
        let stream = TcpStream::connect(node.address()).await.ok()?;
        let stream = connector.connect(node.address().ip().into(), stream).await.ok()?;
        let mut connection = Self { stream };
        connection.bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        connection.bytes(&frame(SETTINGS, 0, 0, &[])).await;
        Some(connection)
    }

    /// False once the other side has closed.
    pub async fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    pub async fn headers(&mut self, stream: u32, path: &str) -> bool {
        self.bytes(&request(stream, path)).await
    }

    /// The next frame that is meant; others are passed over.
    pub async fn frame_with(&mut self, is_meant: impl Fn(&Frame) -> bool) -> Frame {
        let reading = async {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.expect("the connection goes on");
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                self.stream
                    .read_exact(&mut payload)
                    .await
                    .expect("the connection goes on");
                let frame = Frame {
                    kind: head[3],
                    stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                    payload,
                };
                if is_meant(&frame) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading)
            .await
            .expect("a frame comes")
    }

    /// Reads what is there, and makes nothing of it.
    pub async fn pass_over(&mut self) {
        let mut buffer = [0; 16 << 10];
        let reading = async { while let Ok(1..) = self.stream.read(&mut buffer).await {} };
        let _ = tokio::time::timeout(Duration::from_millis(1), reading).await;
    }
}

pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A GET that ends with its head.
pub fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(path))
}

/// A head that has more to come, of a request with a body.
pub fn open_request(stream: u32, path: &str, ends: bool) -> Vec<u8> {
    frame(HEADERS, if ends { END_HEADERS } else { 0 }, stream, &fields(path))
}

/// RFC 7541, by the static table and without Huffman.
fn fields(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 1, b'x']);
    block
}
