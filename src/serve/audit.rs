//! Which requests are put on record: what changes something, what is pulled, who logs in, and whatever was denied.

use super::{Reply, Request};
use crate::events::{Audit, Deed};
use crate::router::{Deed as Push, Route};

/// What of a request is put on record once it is answered.
pub(super) struct Noted {
    action: &'static str,
    repository: String,
    reference: String,
    /// Only if it was denied: there are too many of them.
    is_minor: bool,
}

impl Noted {
    /// `None`: nothing, whatever becomes of it.
    pub(super) fn of(request: &Request<'_>, route: &Route) -> Option<Self> {
        let repository = route.repository().map(ToString::to_string).unwrap_or_default();
        let noted = |action, reference: String, is_minor| {
            Some(Self {
                action,
                repository,
                reference,
                is_minor,
            })
        };
        match route {
            Route::Root => None,
            Route::Ping => noted("login", String::new(), true),
            Route::Token => noted("login", String::new(), false),
            Route::Manifest { reference, .. } => noted("pull", reference.to_string(), request.is_head()),
            Route::Blob { digest, .. } => noted("pull", digest.to_string(), true),
            Route::Referrers { digest, .. } => noted("pull", digest.to_string(), true),
            // A node asks for it all the time.
            Route::Feed { .. } | Route::Report => None,
            Route::Receipts { digest, .. } => noted("receipt", digest.to_string(), true),
            Route::Tags { .. } | Route::Catalog { .. } => noted("list", String::new(), true),
            Route::Push(push) => match &push.deed {
                Push::Manifest(reference, _) => noted("push", reference.to_string(), false),
                Push::DropManifest(reference) => noted("delete", reference.to_string(), false),
                Push::DropBlob(digest) => noted("delete", digest.to_string(), false),
                Push::Blob(digest) | Push::Finish(_, digest) => noted("upload", digest.to_string(), false),
                Push::Mount(digest, _) => noted("mount", digest.to_string(), false),
                Push::Begin(_) => noted("upload", String::new(), true),
                Push::Ask(id) | Push::Append(id) | Push::Cancel(id) => noted("upload", id.to_string(), true),
            },
            Route::Write { .. } => noted("write", String::new(), false),
        }
    }

    /// `claimed`: as whom somebody wanted to log in, where that stands in a form.
    pub(super) fn record(self, audit: &Audit, request: &Request<'_>, reply: &Reply, claimed: Option<String>) {
        if self.is_minor && !matches!(reply.status, 401 | 403 | 429) {
            return;
        }
        // Clients ask without saying anything first, to hear where to log in.
        if self.is_minor && reply.status == 401 && request.authorization.is_none() {
            return;
        }
        let is_stranger = reply.who.is_none() && matches!(reply.status, 401 | 429);
        let claimed = claimed.or_else(|| request.credentials().claimed());
        audit.record(&Deed {
            claimed: claimed.as_deref().filter(|_| is_stranger).unwrap_or_default(),
            who: reply.who.as_ref().map_or("", |who| who.name()),
            how: reply.who.as_ref().map_or("", |who| who.how().as_str()),
            remote: request.remote,
            action: self.action,
            repository: &self.repository,
            reference: &self.reference,
            status: reply.status,
        });
    }
}
