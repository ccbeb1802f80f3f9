use async_trait::async_trait;
use bytes::Bytes;

/// The body of a request while it comes.
#[async_trait]
pub trait Incoming: Send {
    /// The next piece; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Broken`]: there will be no more, though there should.
    async fn next(&mut self) -> Result<Option<Bytes>, Broken>;

    /// Bytes of all of it, if that was announced.
    fn length(&self) -> Option<u64>;
}

/// The client broke off, or was too slow. In words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the body broke off: {0}")]
pub struct Broken(pub String);
