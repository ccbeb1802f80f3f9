//! The body of a request, as it comes.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::time::timeout;

use super::Config;
use super::refused::{Limit, Refused};
use crate::push::{Broken, Incoming};

/// Bytes, and how long, that are still read of a body whose answer is out, so that the client gets to see the answer.
const FAREWELL_BYTES: usize = 64 << 20;
const FAREWELL: Duration = Duration::from_secs(5);

/// What a client sends behind its request, read piece by piece.
pub(super) struct Coming<'a> {
    session: &'a mut ServerSession,
    refused: &'a Refused,
    length: Option<u64>,
    /// The client waits to be told that its body is wanted.
    is_expecting: bool,
    window: Duration,
    /// Bytes that have to come in a window.
    least: u64,
    /// Of the current window.
    began: Instant,
    came: u64,
    /// Nobody knows where it ends: pingora takes a body that it could not read for one that was read to its end.
    is_broken: bool,
}

/// The body of what only reads.
pub(super) struct Nothing;

impl<'a> Coming<'a> {
    pub(super) fn new(session: &'a mut ServerSession, config: &Config, refused: &'a Refused) -> Self {
        let headers = &session.req_header().headers;
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let is_expecting = text(EXPECT).is_some_and(|wish| wish.eq_ignore_ascii_case("100-continue"));
        let is_first = session.as_http1().is_some();
        let window = config.write_timeout;
        let least = u128::from(config.min_rate.bytes()) * window.as_millis() / 1000;
        Self {
            length,
            is_expecting: is_expecting && is_first,
            session,
            refused,
            window,
            least: u64::try_from(least).unwrap_or(u64::MAX),
            began: now(),
            came: 0,
            is_broken: false,
        }
    }

    /// Whether it broke off in the middle, so that what follows may be more of it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    async fn go_on(&mut self) -> Result<(), Broken> {
        if std::mem::take(&mut self.is_expecting) {
            let header = ResponseHeader::build(100, None).map_err(broken)?;
            let written = self.session.write_response_header(Box::new(header));
            timeout(self.window, written)
                .await
                .map_err(|_| slow())?
                .map_err(broken)?;
        }
        Ok(())
    }

    fn judge(&mut self, bytes: u64) -> Result<(), Broken> {
        self.came += bytes;
        let now = now();
        if now.duration_since(self.began) < self.window {
            return Ok(());
        }
        if self.came < self.least {
            self.refused.count(Limit::MinRate);
            return Err(slow());
        }
        (self.began, self.came) = (now, 0);
        Ok(())
    }
}

#[async_trait]
impl Incoming for Coming<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        self.go_on().await?;
        match timeout(self.window, self.session.read_request_body()).await {
            Ok(Ok(Some(piece))) => {
                self.judge(piece.len() as u64)?;
                Ok(Some(piece))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => {
                self.is_broken = true;
                Err(broken(error))
            }
            Err(_) => {
                self.refused.count(Limit::MinRate);
                Err(slow())
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

#[async_trait]
impl Incoming for Nothing {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(None)
    }

    fn length(&self) -> Option<u64> {
        Some(0)
    }
}

/// Reads what is left of a body whose answer is out: a connection that is closed over unread bytes takes the answer with it.
pub(super) async fn see_off(session: &mut ServerSession) {
    let reading = async {
        let mut left = FAREWELL_BYTES;
        while let Ok(Some(piece)) = session.read_request_body().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(FAREWELL, reading).await;
}

fn broken(error: Box<pingora::Error>) -> Broken {
    Broken(error.to_string())
}

fn slow() -> Broken {
    Broken("it came too slowly".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the outermost function reads the clock")]
fn now() -> Instant {
    Instant::now()
}
