//! From the line of a request to its route.

use crate::oci::{DigestError, Name, NameError, ReferenceError, Registry, Repository};
use crate::router::path::{End, Path, Shape};
use crate::router::query::Query;
use crate::router::{Names, Page, Push, Route, push};

/// What of a request decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it came, not decoded.
    pub path: &'a str,
    /// What stands behind the question mark, as it came.
    pub query: Option<&'a str>,
    /// The Host header, or what HTTP/2 has for it.
    pub host: Option<&'a str>,
    /// The registry that the port is bound to.
    pub bound: Option<&'a Registry>,
    /// Whether the node takes writes.
    pub writes: bool,
}

/// A route, and how it was named.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Routed {
    /// What the request asks for.
    pub route: Route,
    /// The `ns` that settled the registry, to be said back as `OCI-Namespace` (distribution spec,
    /// "Registry Proxying").
    pub namespace: Option<String>,
}

/// Finds the route of a request.
///
/// # Errors
///
/// Each [`Error`] says which part of the line is wrong.
pub fn parse(names: &Names, line: &Line<'_>) -> Result<Routed, Error> {
    let path = Path::parse(line.path).ok_or(Error::NotFound)?;
    // What stands before /v2 is no part of a name, only a word of the list.
    let before = path
        .before
        .map(|word| names.find(word).ok_or(Error::NotFound))
        .transpose()?;
    let allow = allow(path.shape, line.writes);
    let verb = Verb::of(line.method).ok_or(Error::MethodNotAllowed { allow })?;
    let query = Query(line.query.unwrap_or_default());

    let mut namespace = None;
    let route = match path.shape {
        Shape::Root => Route::Root,
        Shape::Ping => Route::Ping,
        Shape::Token if matches!(line.method, "GET" | "POST") => {
            return Ok(Routed {
                route: Route::Token,
                namespace,
            });
        }
        Shape::Token => return Err(Error::MethodNotAllowed { allow }),
        Shape::Report if line.method == "POST" => {
            return Ok(Routed {
                route: Route::Report,
                namespace,
            });
        }
        Shape::Report => return Err(Error::MethodNotAllowed { allow }),
        Shape::Catalog => Route::Catalog {
            page: Page::read(query)?,
            above: query.value("above").is_some_and(|above| above == "true"),
        },
        Shape::Feed => {
            // What is missing or malformed is nothing: the answer says what is.
            let number = |key: &str| query.value(key).and_then(|value| value.parse::<u64>().ok());
            Route::Feed {
                version: number("version")
                    .and_then(|version| version.try_into().ok())
                    .unwrap_or(0),
                epoch: query.value("epoch").unwrap_or_default().into_owned(),
                since: number("since").unwrap_or(0),
                wait_s: number("wait").unwrap_or(0),
            }
        }
        Shape::Receipts => {
            namespace = query.value("ns").map(String::from);
            let name = query.value("repository").unwrap_or_default();
            let registry = settle(names, line, namespace.as_deref(), before, &name)?;
            let name: Name = without_prefix(names, registry, &name).parse()?;
            Route::Receipts {
                repository: Repository::new(registry.clone(), name),
                digest: query.value("digest").unwrap_or_default().parse()?,
            }
        }
        Shape::Of(name, end) => {
            namespace = query.value("ns").map(String::from);
            let registry = settle(names, line, namespace.as_deref(), before, name)?;
            let name: Name = without_prefix(names, registry, name).parse()?;
            let repository = Repository::new(registry.clone(), name);
            let deed = line.writes.then(|| push::parse(line.method, &repository, end, query));
            if let Some(deed) = deed.transpose()?.flatten() {
                let route = Route::Push(Push { repository, deed });
                return Ok(Routed { route, namespace });
            }
            within(repository, end, query)?
        }
    };
    let route = match verb {
        Verb::Read => route,
        Verb::Write if line.writes => return Err(Error::MethodNotAllowed { allow }),
        Verb::Write => Route::Write {
            repository: route.repository().cloned(),
            allow,
        },
    };
    Ok(Routed { route, namespace })
}

/// What is wrong with the line of a request. The caller's, each of them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing lives under this path.
    #[error("no such path; the registry's API is under /v2/")]
    NotFound,

    /// What stands where the name of a repository belongs is none.
    #[error(transparent)]
    NameInvalid(#[from] NameError),

    /// `ns` names a registry that is not on the list, or another one than the port or host is for.
    #[error("this node serves no registry {namespace:?} here; the operator can add an upstream of that name")]
    NamespaceUnknown {
        /// The value of `ns`.
        namespace: String,
    },

    /// What stands where a digest belongs is none.
    #[error("{}", DigestError::Malformed)]
    DigestInvalid,

    /// A digest that cannot be verified here.
    #[error("{}", DigestError::UnsupportedAlgorithm)]
    DigestUnsupported,

    /// What stands where a tag belongs is none.
    #[error("{}", crate::oci::TagError)]
    TagInvalid,

    /// `n` is no number.
    #[error("n is no number; write how many entries to list")]
    PageInvalid,

    /// The path is known, the method is not.
    #[error("this method is not for this path")]
    MethodNotAllowed {
        /// The methods that the path takes, as in an Allow header.
        allow: &'static str,
    },

    /// What stands where the name of an upload belongs is none.
    #[error("no such upload; it is over, was cancelled, or took too long")]
    UploadUnknown,

    /// So many at once nobody needs.
    #[error("more than {most} tags in one request; send several")]
    TooManyTags {
        /// As many as are taken.
        most: usize,
    },
}

impl From<DigestError> for Error {
    fn from(error: DigestError) -> Self {
        match error {
            DigestError::Malformed => Self::DigestInvalid,
            DigestError::UnsupportedAlgorithm => Self::DigestUnsupported,
        }
    }
}

impl From<ReferenceError> for Error {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(_) => Self::TagInvalid,
            ReferenceError::Digest(error) => error.into(),
        }
    }
}

/// Settles which registry is meant: the binding of port or host, else `ns`, else what stands
/// before `/v2` or the name, else the parent.
fn settle<'a>(
    names: &'a Names,
    line: &Line<'a>,
    namespace: Option<&str>,
    before: Option<&'a Registry>,
    name: &str,
) -> Result<&'a Registry, Error> {
    let bound = line.bound.or_else(|| names.bound_to(line.host?));
    let Some(namespace) = namespace else {
        let prefix = || before.or_else(|| names.find(name.split_once('/')?.0));
        return Ok(bound.or_else(prefix).unwrap_or(names.unprefixed()));
    };
    match names.find(namespace) {
        Some(named) if bound.is_none_or(|bound| bound == named) => Ok(named),
        _ => Err(Error::NamespaceUnknown {
            namespace: namespace.to_owned(),
        }),
    }
}

/// Cuts what names the registry once more: containerd gives both prefix and `ns`. It may stand
/// there repeatedly, so that no name begins with a word for its own registry.
fn without_prefix<'a>(names: &Names, registry: &Registry, mut name: &'a str) -> &'a str {
    while let Some((first, rest)) = name.split_once('/')
        && names.find(first) == Some(registry)
    {
        name = rest;
    }
    name
}

/// An upload is its writer's alone: even a GET of it belongs to the writing (end-13).
const UPLOAD_ALLOW: &str = "";

/// The route of reading what follows the name of a repository.
fn within(repository: Repository, end: End<'_>, query: Query<'_>) -> Result<Route, Error> {
    Ok(match end {
        End::Manifest(reference) => Route::Manifest {
            repository,
            reference: reference.parse()?,
        },
        End::Blob(digest) => Route::Blob {
            repository,
            digest: digest.parse()?,
        },
        End::Tags => Route::Tags {
            repository,
            page: Page::read(query)?,
        },
        End::Referrers(digest) => Route::Referrers {
            repository,
            digest: digest.parse()?,
            artifact_type: query.value("artifactType").map(String::from),
            page: Page::read(query)?,
        },
        End::Uploads(_) => Route::Write {
            repository: Some(repository),
            allow: UPLOAD_ALLOW,
        },
    })
}

/// The methods that a path takes.
fn allow(shape: Shape<'_>, writes: bool) -> &'static str {
    match shape {
        Shape::Of(_, end) if writes => push::allow(end),
        Shape::Of(_, End::Uploads(_)) => UPLOAD_ALLOW,
        Shape::Token => "GET, POST",
        Shape::Report => "POST",
        _ => "GET, HEAD",
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verb {
    Read,
    Write,
}

impl Verb {
    fn of(method: &str) -> Option<Self> {
        match method {
            "GET" | "HEAD" => Some(Self::Read),
            "POST" | "PUT" | "PATCH" | "DELETE" => Some(Self::Write),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
