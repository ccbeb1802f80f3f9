//! What a request would change, at a node that takes writes.

use crate::oci::{Algorithm, Digest, Name, Reference, Repository, SessionId, Tag};
use crate::router::Error;
use crate::router::path::End;
use crate::router::query::Query;

/// What is to become of a repository's content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Push {
    /// Where.
    pub repository: Repository,
    /// What.
    pub deed: Deed,
}

/// One change, or a step towards one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deed {
    /// An upload begins (end-4a, end-4c).
    Begin(Algorithm),
    /// A blob in one request (end-4b).
    Blob(Digest),
    /// A blob of another repository is to be had here too (end-11); of any, where none is named.
    Mount(Digest, Option<Repository>),
    /// How far is it (end-13)?
    Ask(SessionId),
    /// More of it (end-5).
    Append(SessionId),
    /// The last of it, if anything is left, and what it all is (end-6).
    Finish(SessionId, Digest),
    /// Nothing of it (end-14).
    Cancel(SessionId),
    /// A manifest, with further tags for it (end-7a, end-7b).
    Manifest(Reference, Vec<Tag>),
    /// A manifest or a tag goes (end-9).
    DropManifest(Reference),
    /// A blob goes (end-10).
    DropBlob(Digest),
}

/// Tags that one request may give: more than any client sends (distribution spec: ten should work).
const TAGS: usize = 100;

/// What `method` means at this place; `None` if it only reads.
pub(super) fn parse(
    method: &str,
    repository: &Repository,
    end: End<'_>,
    query: Query<'_>,
) -> Result<Option<Deed>, Error> {
    let deed = match (method, end) {
        ("POST", End::Uploads("")) => begin(repository, query)?,
        ("GET" | "HEAD", End::Uploads(session)) => Deed::Ask(id(session)?),
        ("PATCH", End::Uploads(session)) => Deed::Append(id(session)?),
        ("PUT", End::Uploads(session)) => Deed::Finish(id(session)?, digest(query)?.ok_or(Error::DigestInvalid)?),
        ("DELETE", End::Uploads(session)) => Deed::Cancel(id(session)?),
        ("GET" | "HEAD", _) => return Ok(None),
        ("PUT", End::Manifest(reference)) => Deed::Manifest(reference.parse()?, tags(query)?),
        ("DELETE", End::Manifest(reference)) => Deed::DropManifest(reference.parse()?),
        ("DELETE", End::Blob(digest)) => Deed::DropBlob(digest.parse()?),
        _ => return Err(Error::MethodNotAllowed { allow: allow(end) }),
    };
    Ok(Some(deed))
}

/// All methods of a path, at a node that takes writes.
pub(super) fn allow(end: End<'_>) -> &'static str {
    match end {
        End::Uploads("") => "POST",
        End::Uploads(_) => "GET, HEAD, PATCH, PUT, DELETE",
        End::Manifest(_) => "GET, HEAD, PUT, DELETE",
        End::Blob(_) => "GET, HEAD, DELETE",
        End::Tags | End::Referrers(_) => "GET, HEAD",
    }
}

fn begin(repository: &Repository, query: Query<'_>) -> Result<Deed, Error> {
    if let Some(digest) = query.value("mount") {
        let from = query.value("from").map(|name| name.parse::<Name>()).transpose()?;
        let from = from.map(|name| Repository::new(repository.registry.clone(), name));
        return Ok(Deed::Mount(digest.parse()?, from));
    }
    if let Some(digest) = digest(query)? {
        return Ok(Deed::Blob(digest));
    }
    let algorithm = query.value("digest-algorithm").map(|name| name.parse()).transpose()?;
    Ok(Deed::Begin(algorithm.unwrap_or(Algorithm::Sha256)))
}

fn digest(query: Query<'_>) -> Result<Option<Digest>, Error> {
    Ok(query.value("digest").map(|digest| digest.parse()).transpose()?)
}

fn id(session: &str) -> Result<SessionId, Error> {
    session.parse().map_err(|_| Error::UploadUnknown)
}

fn tags(query: Query<'_>) -> Result<Vec<Tag>, Error> {
    let mut tags = Vec::new();
    for tag in query.values("tag") {
        let tag = tag.parse().map_err(|_| Error::TagInvalid)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > TAGS {
        return Err(Error::TooManyTags { most: TAGS });
    }
    Ok(tags)
}
