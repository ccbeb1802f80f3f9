//! A proxy on the way out: HTTP (CONNECT and plain requests) and SOCKS5, on one port. It knows names that nobody else
//! does: whatever is asked for, it connects to one address.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::ports::{Family, free, listen_again};
use crate::support::upstream::basic;

/// Dropping it stops it.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    behind: SocketAddr,
    login: Option<(String, String)>,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// Leads everyone to `behind`.
    pub async fn to(behind: SocketAddr) -> Self {
        Self::start(behind, None).await
    }

    /// Leads those to `behind` who show this user and password.
    pub async fn guarded(behind: SocketAddr, user: &str, password: &str) -> Self {
        Self::start(behind, Some((user.to_owned(), password.to_owned()))).await
    }

    async fn start(behind: SocketAddr, login: Option<(String, String)>) -> Self {
        let address = free(Family::V4);
        let listener = listen_again(address).await;
        let shared = Arc::new(Shared {
            behind,
            login,
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                // How a client leaves is its own affair.
                connections.spawn(async move { shared.serve(tcp).await.unwrap_or(()) });
            }
        });
        Self { address, shared, task }
    }

    /// What was let through: `CONNECT host:port`, `GET http://host/...`, `SOCKS host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve(&self, tcp: TcpStream) -> std::io::Result<()> {
        let mut first = [0];
        tcp.peek(&mut first).await?;
        match first {
            [5] => self.socks(tcp).await,
            _ => self.http(tcp).await,
        }
    }

    async fn http(&self, mut tcp: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        if let Some((user, password)) = &self.login {
            let shown = format!("proxy-authorization: {}", basic(user, password));
            if !head.lines().any(|line| line.eq_ignore_ascii_case(&shown)) {
                let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                return tcp.write_all(refusal).await;
            }
        }
        self.asked.lock().push(line.to_owned());
        let mut behind = TcpStream::connect(self.behind).await?;
        if line.starts_with("CONNECT ") {
            tcp.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        } else {
            // In the form for an origin, and for one request.
            let (method, url) = line.split_once(' ').unwrap_or_default();
            let path = url.splitn(4, '/').nth(3).unwrap_or_default();
            let rest = head.split_once("\r\n").unwrap_or_default().1;
            let request = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n{rest}");
            behind.write_all(request.as_bytes()).await?;
        }
        copy_bidirectional(&mut tcp, &mut behind).await.map(|_| ())
    }

    /// RFC 1928, and RFC 1929 for the password.
    async fn socks(&self, mut tcp: TcpStream) -> std::io::Result<()> {
        let _version = tcp.read_u8().await?;
        let mut methods = vec![0; tcp.read_u8().await?.into()];
        tcp.read_exact(&mut methods).await?;
        if let Some((user, password)) = &self.login {
            if !methods.contains(&2) {
                return tcp.write_all(&[5, 0xff]).await;
            }
            tcp.write_all(&[5, 2]).await?;
            let _version = tcp.read_u8().await?;
            let shown = (counted(&mut tcp).await?, counted(&mut tcp).await?);
            let is_right = shown == (user.clone(), password.clone());
            tcp.write_all(&[1, u8::from(!is_right)]).await?;
            if !is_right {
                return Ok(());
            }
        } else {
            tcp.write_all(&[5, 0]).await?;
        }
        let mut request = [0; 4];
        tcp.read_exact(&mut request).await?;
        let host = match request[3] {
            1 => std::net::Ipv4Addr::from(tcp.read_u32().await?).to_string(),
            3 => counted(&mut tcp).await?,
            _ => std::net::Ipv6Addr::from(tcp.read_u128().await?).to_string(),
        };
        let port = tcp.read_u16().await?;
        self.asked.lock().push(format!("SOCKS {host}:{port}"));
        let mut behind = TcpStream::connect(self.behind).await?;
        tcp.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut tcp, &mut behind).await.map(|_| ())
    }
}

async fn counted(tcp: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = vec![0; tcp.read_u8().await?.into()];
    tcp.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
