//! The answers on the registry port: one file per endpoint family, one table from error to reply.
//!
//! Nothing here knows sockets or files: a reply names its body, and the listener sends it.

mod blob;
mod catalog;
mod chain;
mod manifest;
mod metrics;
mod ping;
mod push;
mod receipts;
mod referrers;
mod refusal;
mod reply;
mod request;
mod tags;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures_util::FutureExt;

pub use metrics::Metrics;
pub use refusal::Refusal;
pub use reply::{Body, Content, Kind, Reply, Segment};
pub use request::Request;

use crate::auth::{Gate, Permit, Principal, Shelf};
use crate::fetch::Asker;
use crate::oci::Repository;
use crate::parent::{self, Class, NodeId};
use crate::push::{Incoming, Push};
use crate::router::{self, Names, Route, Routed};
use crate::status::Receipts;
use crate::units::Clock;

/// The registry of one node.
pub struct Serve {
    node: Arc<NodeId>,
    names: Names,
    gate: Gate,
    shelf: Shelf,
    /// `None`: a mirror.
    push: Option<Push>,
    receipts: Receipts,
    metrics: Metrics,
    clock: Clock,
    answer_within: Duration,
}

impl Serve {
    /// Of the node `node`, naming upstreams as `names` says. A header leaves within `answer_within`.
    #[expect(clippy::too_many_arguments, reason = "each is a room of its own")]
    pub fn new(
        node: Arc<NodeId>,
        names: Names,
        gate: Gate,
        shelf: Shelf,
        push: Option<Push>,
        receipts: Receipts,
        metrics: Metrics,
        clock: Clock,
        answer_within: Duration,
    ) -> Self {
        Self {
            node,
            names,
            gate,
            shelf,
            push,
            receipts,
            metrics,
            clock,
            answer_within,
        }
    }

    /// Answers any request; what cannot be answered is refused in the OCI form.
    ///
    /// Returns when the header of the reply is known; its body may still be on its way. Of `body` only what changes something
    /// is read, and perhaps not all of it.
    pub async fn answer(&self, request: &Request<'_>, body: &mut dyn Incoming) -> Reply {
        let mut kind = Kind::Other;
        let mut namespace = None;
        let answer = match router::parse(&self.names, &request.line(self.takes_pushes())) {
            Ok(Routed { route, namespace: used }) => {
                kind = Kind::of(&route);
                namespace = used;
                // What is shared is behind locks that are let go, and is whole between any two statements of theirs.
                let answering = AssertUnwindSafe(self.answer_route(request, route, body)).catch_unwind();
                answering.await.unwrap_or(Err(Refusal::Panicked))
            }
            Err(error) => Err(error.into()),
        };
        let mut reply = answer.unwrap_or_else(|refusal| refusal.into_reply(&self.node));
        reply.kind = kind;
        reply.name_api(namespace.as_deref(), self.push.as_ref().is_some_and(Push::is_open));
        self.metrics.count(&reply);
        reply
    }

    /// Whether anything can be pushed here.
    pub fn takes_pushes(&self) -> bool {
        self.push.is_some()
    }

    /// Answers what needs no waiting: `None` if anything has to be read or asked for.
    ///
    /// Looks at no fields but the host.
    pub fn answer_at_once(&self, request: &Request<'_>) -> Option<Reply> {
        let Routed { route, namespace } = router::parse(&self.names, &request.line(self.takes_pushes())).ok()?;
        let mut reply = match &route {
            Route::Ping => ping::answer(),
            Route::Manifest { repository, reference } => manifest::get_at_once(self, request, repository, reference)?,
            _ => return None,
        };
        reply.kind = Kind::of(&route);
        reply.name_api(namespace.as_deref(), self.push.as_ref().is_some_and(Push::is_open));
        self.metrics.count(&reply);
        Some(reply)
    }

    /// Counts a finished reply, with the bytes of body that left.
    pub fn finished(&self, method: &str, kind: Kind, status: u16, bytes: u64) {
        self.metrics.finished(method, kind, status, bytes);
    }

    /// Boxed is what may take long: a future is moved several times, and the hot one is to be small.
    async fn answer_route(
        &self,
        request: &Request<'_>,
        route: Route,
        body: &mut dyn Incoming,
    ) -> Result<Reply, Refusal> {
        fail_point!("serve.answer");
        match route {
            Route::Root => Ok(ping::redirect()),
            Route::Ping => Ok(ping::answer()),
            Route::Manifest { repository, reference } => manifest::get(self, request, &repository, &reference).await,
            Route::Blob { repository, digest } => Box::pin(blob::get(self, request, &repository, &digest)).await,
            Route::Tags { repository, page } => Box::pin(tags::list(self, request, &repository, &page)).await,
            Route::Referrers {
                repository,
                digest,
                artifact_type,
                page,
            } => {
                Box::pin(referrers::list(
                    self,
                    request,
                    &repository,
                    &digest,
                    artifact_type.as_deref(),
                    &page,
                ))
                .await
            }
            Route::Catalog { page } => catalog::list(self, request, &page),
            Route::Receipts { repository, digest } => {
                Box::pin(receipts::tell(self, request, &repository, &digest)).await
            }
            Route::Push(wanted) => match &self.push {
                Some(push) => Box::pin(push::answer(self, push, request, wanted, body)).await,
                None => Err(Refusal::ReadOnly { allow: "GET, HEAD" }),
            },
            Route::Write { allow, .. } => Err(Refusal::ReadOnly { allow }),
        }
    }

    fn permit(&self, repository: &Repository) -> Result<Permit, Refusal> {
        Ok(self.gate.admit(Principal::Anonymous, repository)?)
    }

    /// For whom the upstream is asked, and until when, counted from now: refuses what has come by here before.
    fn asker(&self, request: &Request<'_>) -> Result<Asker, Refusal> {
        let hops = request.hops();
        if hops.contains(&self.node) || hops.is_too_long() {
            return Err(Refusal::Loop);
        }
        let within = parent::told(request.headers).map_or(self.answer_within, |told| told.min(self.answer_within));
        Ok(Asker::new(hops, Class::Interactive, self.clock.now() + within))
    }
}
