//! The answers on the registry port: one file per endpoint family, one table from error to reply.
//!
//! Nothing here knows sockets or files: a reply names its body, and the listener sends it.

mod audit;
mod blob;
mod catalog;
mod chain;
mod challenge;
mod feed;
mod manifest;
mod metrics;
mod ping;
mod push;
mod receipts;
mod referrers;
mod refusal;
mod reply;
mod report;
mod request;
mod tags;
mod token;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures_util::FutureExt;

use self::audit::Noted;
pub use metrics::Metrics;
pub use refusal::Refusal;
pub use reply::{Body, Content, Kind, Reply, Segment};
pub use request::Request;

use crate::auth::{Action, Gate, Principal, Shelf};
use crate::events::Audit;
use crate::fetch::Asker;
use crate::oci::Repository;
use crate::parent::{self, Hops, NodeId};
use crate::push::{Incoming, Push};
use crate::router::{self, Names, Route, Routed};
use crate::status::{Children, Receipts};
use crate::sync::{Feed, Question};
use crate::units::Clock;

/// The registry of one node.
pub struct Serve {
    /// What it is called.
    pub node: Arc<NodeId>,
    /// What upstreams are called.
    pub names: Names,
    /// Who may do what.
    pub gate: Gate,
    /// All content.
    pub shelf: Shelf,
    /// `None`: a mirror.
    pub push: Option<Push>,
    /// How far up pushes have got.
    pub receipts: Receipts,
    /// What has changed here, for nodes below.
    pub feed: Feed,
    /// How these stand.
    pub children: Children,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// A header leaves within that.
    pub answer_within: Duration,
    /// Host and port under which clients know this node, where that is not what they ask for.
    pub login_server: Option<String>,
    /// Who did what.
    pub audit: Audit,
}

/// What a request was found to say of who asks, whatever it is answered.
#[derive(Default)]
struct Heard {
    who: Option<Principal>,
    /// A name that a form says, whether or not it is theirs.
    claimed: Option<String>,
}

impl Serve {
    /// Answers any request; what cannot be answered is refused in the OCI form.
    ///
    /// Returns when the header of the reply is known; its body may still be on its way. Of `body` only what changes something
    /// is read, and perhaps not all of it.
    pub async fn answer(&self, request: &Request<'_>, body: &mut dyn Incoming) -> Reply {
        let mut kind = Kind::Other;
        let (mut namespace, mut heard, mut noted) = (None, Heard::default(), None);
        let answer = match router::parse(&self.names, &request.line(self.takes_pushes())) {
            Ok(Routed { route, namespace: used }) => {
                kind = Kind::of(&route);
                namespace = used;
                noted = self.audit.is_on().then(|| Noted::of(request, &route)).flatten();
                // What is shared is behind locks that are let go, and is whole between any two statements of theirs.
                let answering = AssertUnwindSafe(self.answer_route(request, route, body, &mut heard)).catch_unwind();
                answering.await.unwrap_or(Err(Refusal::Panicked))
            }
            Err(error) => Err(error.into()),
        };
        let mut reply = answer.unwrap_or_else(|refusal| refusal.into_reply(&self.node));
        reply.kind = kind;
        reply.who = reply.who.or(heard.who);
        if let Some(noted) = noted {
            noted.record(&self.audit, request, &reply, heard.claimed);
        }
        reply.name_api(namespace.as_deref(), self.push.as_ref().is_some_and(Push::is_open));
        self.metrics.count(&reply);
        reply
    }

    /// Whether a request may bring something that is read: whatever is pushed, the form of a login, and the report of a node below.
    pub fn reads_body(&self, method: &str, path: &str) -> bool {
        let is_login = || method == "POST" && path.ends_with("/token") && self.gate.guard().is_on();
        let is_report = || method == "POST" && path.ends_with("/_wharf/report");
        matches!(method, "POST" | "PUT" | "PATCH") && (self.takes_pushes() || is_login() || is_report())
    }

    /// Whether anything can be pushed here.
    fn takes_pushes(&self) -> bool {
        self.push.is_some()
    }

    /// Answers what needs no waiting: `None` if anything has to be read or asked for.
    ///
    /// Looks at no fields but the host and what says who asks.
    pub fn answer_at_once(&self, request: &Request<'_>) -> Option<Reply> {
        let Routed { route, namespace } = router::parse(&self.names, &request.line(self.takes_pushes())).ok()?;
        if !matches!(route, Route::Ping | Route::Manifest { .. }) {
            return None;
        }
        let principal = self.gate.identify_at_once(&request.credentials())?;
        let mut reply = match &route {
            Route::Manifest { repository, reference } => {
                let permit = self
                    .gate
                    .admit(principal.clone(), repository, Action::ContentRead)
                    .ok()?;
                manifest::get_at_once(self, request, &permit, reference)?
            }
            _ => {
                self.gate.admit_to_node(&principal, self.takes_pushes()).ok()?;
                ping::answer()
            }
        };
        reply.who = Some(principal);
        if self.audit.is_on()
            && let Some(noted) = Noted::of(request, &route)
        {
            noted.record(&self.audit, request, &reply, None);
        }
        reply.kind = Kind::of(&route);
        reply.name_api(namespace.as_deref(), self.push.as_ref().is_some_and(Push::is_open));
        self.metrics.count(&reply);
        Some(reply)
    }

    /// Counts a finished reply, with the bytes of body that left.
    pub fn finished(&self, method: &str, kind: Kind, status: u16, bytes: u64) {
        self.metrics.finished(method, kind, status, bytes);
    }

    /// The one place where a request is let in: who asks is found out here, and each route says what it takes. What answers it
    /// wants a permit, which nothing else gives.
    ///
    /// Boxed is what may take long: a future is moved several times, and the hot one is to be small.
    async fn answer_route(
        &self,
        request: &Request<'_>,
        route: Route,
        body: &mut dyn Incoming,
        heard: &mut Heard,
    ) -> Result<Reply, Refusal> {
        fail_point!("serve.answer");
        // What is answered to everybody alike.
        match &route {
            Route::Root => return Ok(ping::redirect()),
            Route::Write { allow, .. } => return Err(Refusal::ReadOnly { allow }),
            Route::Token if self.gate.guard().is_on() => {
                return Box::pin(token::answer(self, request, body, heard)).await;
            }
            Route::Token => return Err(router::Error::NotFound.into()),
            _ => {}
        }
        let identified = self.gate.identify(&request.credentials()).await;
        let principal = identified.map_err(|denied| self.refuse(request, denied))?;
        heard.who = Some(principal.clone());
        let admit = |repository: &Repository, action| {
            let permit = self.gate.admit(principal.clone(), repository, action);
            permit.map_err(|denied| self.refuse(request, denied))
        };
        match route {
            Route::Root | Route::Token | Route::Write { .. } => Err(router::Error::NotFound.into()),
            Route::Ping => {
                let admitted = self.gate.admit_to_node(&principal, self.takes_pushes());
                admitted.map_err(|denied| self.refuse(request, denied))?;
                Ok(ping::answer())
            }
            Route::Manifest { repository, reference } => {
                let permit = admit(&repository, Action::ContentRead)?;
                manifest::get(self, request, &permit, &reference).await
            }
            Route::Blob { repository, digest } => {
                let permit = admit(&repository, Action::ContentRead)?;
                Box::pin(blob::get(self, request, &permit, &digest)).await
            }
            Route::Tags { repository, page } => {
                let permit = admit(&repository, Action::MetadataRead)?;
                Box::pin(tags::list(self, request, &permit, &page)).await
            }
            Route::Referrers {
                repository,
                digest,
                artifact_type,
                page,
            } => {
                let permit = admit(&repository, Action::ContentRead)?;
                let artifact_type = artifact_type.as_deref();
                Box::pin(referrers::list(self, request, &permit, &digest, artifact_type, &page)).await
            }
            Route::Catalog { page, above } => {
                let admitted = self.gate.admit_to_list(&principal);
                admitted.map_err(|denied| self.refuse(request, denied))?;
                Box::pin(catalog::list(self, request, &principal, &page, above)).await
            }
            Route::Report => {
                let admitted = self.gate.admit_to_list(&principal);
                admitted.map_err(|denied| self.refuse(request, denied))?;
                Box::pin(report::take(self, request, &principal, body)).await
            }
            Route::Feed {
                version,
                epoch,
                since,
                wait_s,
            } => {
                let admitted = self.gate.admit_to_list(&principal);
                admitted.map_err(|denied| self.refuse(request, denied))?;
                let question = Question {
                    version,
                    epoch,
                    since,
                    wait: Duration::from_secs(wait_s),
                };
                Box::pin(feed::tell(self, request, &principal, &question)).await
            }
            Route::Receipts { repository, digest } => {
                let permit = admit(&repository, Action::ContentRead)?;
                Box::pin(receipts::tell(self, request, &permit, &digest)).await
            }
            Route::Push(router::Push { repository, deed }) => {
                let permit = admit(&repository, push::needs(&deed))?;
                match &self.push {
                    Some(push) => Box::pin(push::answer(self, push, request, permit, deed, body)).await,
                    None => Err(Refusal::ReadOnly { allow: "GET, HEAD" }),
                }
            }
        }
    }

    /// The nodes that a request has passed; refuses what has come by here before.
    fn hops(&self, request: &Request<'_>) -> Result<Hops, Refusal> {
        let hops = request.hops();
        match hops.contains(&self.node) || hops.is_too_long() {
            true => Err(Refusal::Loop),
            false => Ok(hops),
        }
    }

    /// For whom the upstream is asked, and until when, counted from now: refuses what has come by here before.
    fn asker(&self, request: &Request<'_>) -> Result<Asker, Refusal> {
        let hops = self.hops(request)?;
        let within = parent::told(request.headers).map_or(self.answer_within, |told| told.min(self.answer_within));
        let class = parent::class_told(request.headers);
        Ok(Asker::new(hops, class, self.clock.now() + within))
    }
}
