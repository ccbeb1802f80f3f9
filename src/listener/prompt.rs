use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of TLS that keeps nothing back: what was written has left.
///
/// rustls holds up to 64 KiB that the socket did not take, until it is flushed, and pingora flushes a body whose
/// length is known at its end only. A client would wait for them as long as the parent pauses. A write that is given up
/// half done must be the last one, as it is here: a client that is too slow is cut off.
#[derive(Debug)]
pub(super) struct Prompt<T> {
    stream: T,
    /// Bytes that the stream took of the write that is under way, which is done once they are flushed.
    taken: Option<usize>,
}

impl<T> Prompt<T> {
    pub(super) fn new(stream: T) -> Self {
        Self { stream, taken: None }
    }
}

impl<T: AsyncWrite + Unpin> Prompt<T> {
    fn write_out(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let taken = match self.taken {
            Some(taken) => taken,
            None => ready!(write(Pin::new(&mut self.stream), context))?,
        };
        self.taken = Some(taken);
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.taken = None;
        Poll::Ready(flushed.map(|()| taken))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prompt<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write_out(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_out(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prompt<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[async_trait]
impl<T: Shutdown + Send> Shutdown for Prompt<T> {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

#[async_trait]
impl<T: Peek + Send> Peek for Prompt<T> {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buffer).await
    }
}

impl<T: UniqueID> UniqueID for Prompt<T> {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl<T: Ssl> Ssl for Prompt<T> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl<T: GetTimingDigest> GetTimingDigest for Prompt<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl<T: GetProxyDigest> GetProxyDigest for Prompt<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl<T: GetSocketDigest> GetSocketDigest for Prompt<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_written_has_left_though_nobody_flushed_it() {
        let (ours, mut theirs) = duplex(100);
        let mut stream = Prompt::new(BufWriter::with_capacity(1000, ours));
        let reading = tokio::spawn(async move {
            let mut came = [0; 500];
            theirs.read_exact(&mut came).await.map(|_| (came, theirs))
        });

        stream.write_all(&[7; 500]).await.unwrap();

        let (came, _open) = reading.await.unwrap().unwrap();
        assert_eq!(came, [7; 500]);
    }

    #[tokio::test]
    async fn a_write_that_waits_for_the_reader_is_not_done_and_not_taken_twice() {
        let (ours, mut theirs) = duplex(100);
        let mut stream = Prompt::new(BufWriter::with_capacity(1000, ours));
        let mut writing = Box::pin(stream.write(&[7; 150]));

        assert!(futures_util::poll!(&mut writing).is_pending());
        let mut came = [0; 150];
        theirs.read_exact(&mut came[..100]).await.unwrap();
        assert_eq!(writing.await.unwrap(), 150);
        theirs.read_exact(&mut came[100..]).await.unwrap();

        drop(stream);
        assert_eq!(theirs.read(&mut [0; 10]).await.unwrap(), 0, "it came twice");
        assert_eq!(came, [7; 150]);
    }
}
