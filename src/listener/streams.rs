use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;

use super::connections::Open;
use super::door::Door;
use super::refused::Limit;

/// One connection of HTTP/2: the door, with as many requests in work as there may be streams.
///
/// A stream that its client resets makes room for another at once; what was begun for it goes on for a while. So
/// that is counted here; and each request in work but the first counts like a connection of its own, which it is in
/// what it takes.
pub(super) struct Streams {
    door: Arc<Door>,
    at_work: AtomicUsize,
    open: Open,
}

/// One request in work.
struct Work<'a>(&'a AtomicUsize);

impl Streams {
    pub(super) fn new(door: Arc<Door>, open: Open) -> Self {
        Self {
            door,
            at_work: AtomicUsize::new(0),
            open,
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl HttpServerApp for Streams {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let before = self.at_work.fetch_add(1, Ordering::AcqRel);
        let _work = Work(&self.at_work);
        let place = (before > 0).then(|| self.open.another());
        if before >= self.door.config.http2_streams as usize || matches!(place, Some(None)) {
            self.door.refused.count(Limit::Streams);
            self.door.turn_away(&mut session).await;
            return None;
        }
        self.door.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.door.server_options()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.door.h2_options()
    }
}
