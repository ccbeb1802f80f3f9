//! Uploads, manifests and deletes (distribution spec, "Push" and "Content Management").

use http::header::{HeaderName, LOCATION, RANGE};

use super::manifest::DIGEST;
use super::{Refusal, Reply, Request, Serve};
use crate::auth::{Action, Permit};
use crate::oci::{Algorithm, Code, Digest, Reference, Repository, Tag};
use crate::push::{Error, Incoming, Progress, Push};
use crate::router::Deed;

const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// One change at a time.
struct Pushing<'a> {
    serve: &'a Serve,
    push: &'a Push,
    request: &'a Request<'a>,
    permit: Permit,
    body: &'a mut dyn Incoming,
}

/// Does what is asked for.
pub(super) async fn answer(
    serve: &Serve,
    push: &Push,
    request: &Request<'_>,
    permit: Permit,
    deed: Deed,
    body: &mut dyn Incoming,
) -> Result<Reply, Refusal> {
    let repository = permit.repository().clone();
    let mut pushing = Pushing {
        serve,
        push,
        request,
        permit,
        body,
    };
    let (what, absent) = what(&deed);
    pushing.answer(deed).await.map_err(|failure| match failure {
        Failure::Push(error) => Refusal::Push {
            error,
            repository,
            what,
            absent,
        },
        Failure::Refused(refusal) => refusal,
    })
}

/// What it takes. To end an upload of one's own is no delete.
pub(super) fn needs(deed: &Deed) -> Action {
    match deed {
        Deed::Begin(_)
        | Deed::Blob(_)
        | Deed::Mount(..)
        | Deed::Ask(_)
        | Deed::Append(_)
        | Deed::Finish(..)
        | Deed::Cancel(_)
        | Deed::Manifest(..) => Action::ContentWrite,
        Deed::DropManifest(_) | Deed::DropBlob(_) => Action::ContentDelete,
    }
}

/// Why not, before it has a name.
enum Failure {
    Push(Error),
    Refused(Refusal),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Push(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a deed is about, for an error, and the code that says that there is no such thing.
fn what(deed: &Deed) -> (String, Code) {
    match deed {
        Deed::Begin(_) => ("an upload".to_owned(), Code::BlobUploadUnknown),
        Deed::Ask(id) | Deed::Append(id) | Deed::Cancel(id) => (format!("upload {id}"), Code::BlobUploadUnknown),
        Deed::Blob(digest) | Deed::Mount(digest, _) | Deed::DropBlob(digest) | Deed::Finish(_, digest) => {
            (format!("blob {digest}"), Code::BlobUnknown)
        }
        Deed::Manifest(reference, _) | Deed::DropManifest(reference) => {
            (format!("manifest {reference}"), Code::ManifestUnknown)
        }
    }
}

impl Pushing<'_> {
    async fn answer(&mut self, deed: Deed) -> Result<Reply, Failure> {
        let (push, request) = (self.push, self.request);
        Ok(match deed {
            Deed::Begin(algorithm) => self.begin(algorithm).await?,
            Deed::Blob(digest) => {
                push.whole(&self.permit, &digest, self.body).await?;
                self.created(&digest)
            }
            Deed::Mount(digest, from) => self.mount(&digest, from.as_ref()).await?,
            Deed::Ask(id) => self.tell(204, push.progress(&self.permit, id)?, request.path),
            Deed::Append(id) => {
                let range = request.text("content-range");
                let progress = push.append(&self.permit, id, range, self.body).await?;
                self.tell(202, progress, request.path)
            }
            Deed::Finish(id, digest) => {
                let range = request.text("content-range");
                push.finish(&self.permit, id, range, &digest, self.body).await?;
                self.created(&digest)
            }
            Deed::Cancel(id) => {
                push.cancel(&self.permit, id).await?;
                Reply::new(204)
            }
            Deed::Manifest(reference, tags) => self.manifest(&reference, tags).await?,
            Deed::DropManifest(reference) => {
                let asker = self.serve.asker(request)?;
                push.drop_manifest(&self.permit, &reference, &asker).await?;
                Reply::new(202)
            }
            Deed::DropBlob(digest) => {
                let asker = self.serve.asker(request)?;
                push.drop_blob(&self.permit, &digest, &asker).await?;
                Reply::new(202)
            }
        })
    }

    async fn begin(&mut self, algorithm: Algorithm) -> Result<Reply, Failure> {
        let id = self.push.begin(&self.permit, algorithm).await?;
        let path = self.request.path.trim_end_matches('/');
        Ok(self.tell(202, Progress { id, size: 0 }, &format!("{path}/{id}")))
    }

    /// Where the blob cannot be mounted it is to be uploaded.
    async fn mount(&mut self, digest: &Digest, from: Option<&Repository>) -> Result<Reply, Failure> {
        let (gate, principal) = (&self.serve.gate, self.permit.principal());
        let asker = self.serve.asker(self.request)?;
        let may = |source: &Repository| {
            from.is_none_or(|from| from == source) && gate.allows(principal, source, Action::ContentRead)
        };
        if self.push.mount(&self.permit, digest, may, &asker).await? {
            return Ok(self.created(digest));
        }
        self.begin(digest.algorithm()).await
    }

    async fn manifest(&mut self, reference: &Reference, tags: Vec<Tag>) -> Result<Reply, Failure> {
        let (push, request) = (self.push, self.request);
        let asker = self.serve.asker(request)?;
        let media_type = request.text("content-type");
        let accepted = push
            .manifest(&self.permit, reference, tags.clone(), media_type, self.body, &asker)
            .await?;
        let digest = accepted.digest.to_string();
        let location = format!("{}/manifests/{digest}", self.base("/manifests/"));
        let mut reply = Reply::new(201)
            .with_text(LOCATION, &location)
            .with_text(DIGEST, &digest);
        if let Some(subject) = accepted.subject {
            reply = reply.with_text(SUBJECT, &subject.to_string());
        }
        // Only of those that were asked for beside the path (end-7b).
        let asked = accepted.tags.iter().filter(|tag| tags.contains(tag));
        Ok(asked.fold(reply, |reply, tag| reply.with_text(TAG, tag.as_str())))
    }

    fn created(&self, digest: &Digest) -> Reply {
        let location = format!("{}/blobs/{digest}", self.base("/blobs/"));
        Reply::new(201)
            .with_text(LOCATION, &location)
            .with_text(DIGEST, &digest.to_string())
    }

    /// The path of the repository, as the client named it: relative, so that no proxy has to know of it.
    fn base(&self, end: &str) -> &str {
        let path = self.request.path;
        path.rfind(end).map_or(path, |at| &path[..at])
    }

    fn tell(&self, status: u16, progress: Progress, location: &str) -> Reply {
        let Progress { id, size } = progress;
        Reply::new(status)
            .with_text(LOCATION, location)
            .with_text(RANGE, &range(size))
            .with_text(UPLOAD, &id.to_string())
    }
}

/// The bytes that are here, as `Range` tells them; of none as of one, as Docker's registry does.
pub(super) fn range(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}
