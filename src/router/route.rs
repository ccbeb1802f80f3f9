//! The route: what a request asks for.

use url::form_urlencoded::Serializer;

use crate::oci::{Digest, Reference, Repository};
use crate::router::{Page, Push};

/// What a request asks for. GET and HEAD ask for the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// `/v2`, which is to be asked for with a slash behind it.
    Root,
    /// `/v2/`: is this a registry (end-1)?
    Ping,
    /// A manifest or an index (end-3).
    Manifest {
        /// Where.
        repository: Repository,
        /// Which.
        reference: Reference,
    },
    /// A blob (end-2).
    Blob {
        /// Where.
        repository: Repository,
        /// Which.
        digest: Digest,
    },
    /// A token for a login. No part of the distribution spec: Docker's token service.
    Token,
    /// The tags of a repository (end-8a, end-8b).
    Tags {
        /// Where.
        repository: Repository,
        /// Which part of the list.
        page: Page,
    },
    /// What refers to a manifest (end-12a, end-12b).
    Referrers {
        /// Where.
        repository: Repository,
        /// The manifest that is referred to.
        digest: Digest,
        /// Only artifacts of this type.
        artifact_type: Option<String>,
        /// Which part of the list.
        page: Page,
    },
    /// The repositories that are known here. No part of the distribution spec: Docker's.
    Catalog {
        /// Which part of the list.
        page: Page,
        /// Whether what the registry above has counts too: for a node below.
        above: bool,
    },
    /// How far up a push has got. No part of the distribution spec: ours.
    Receipts {
        /// Where.
        repository: Repository,
        /// The manifest.
        digest: Digest,
    },
    /// How a node below stands. No part of the distribution spec: ours.
    Report,
    /// What has changed here, as soon as something has. No part of the distribution spec: ours.
    Feed {
        /// The newest form of it that is understood.
        version: u32,
        /// The run of this node that is known; empty: none.
        epoch: String,
        /// The last that is known of it.
        since: u64,
        /// How long there may be nothing to tell, in seconds.
        wait_s: u64,
    },
    /// A change of the registry, or a step towards one; of a node that takes writes.
    Push(Push),
    /// Anything that would change the registry, uploads with all their requests among it; of a node that takes none.
    Write {
        /// Where; none where the path names no repository.
        repository: Option<Repository>,
        /// The methods that the same path takes for reading, as in an Allow header.
        allow: &'static str,
    },
}

impl Route {
    /// The repository that the request is about.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository, .. }
            | Self::Receipts { repository, .. }
            | Self::Referrers { repository, .. } => Some(repository),
            Self::Push(push) => Some(&push.repository),
            Self::Write { repository, .. } => repository.as_ref(),
            Self::Root | Self::Ping | Self::Token | Self::Catalog { .. } | Self::Feed { .. } | Self::Report => None,
        }
    }

    /// The path and the query, in the form in which they name the same on every node: the registry
    /// stands in `ns`, unless it is the parent's own. `None` for what changes something.
    pub fn uri(&self) -> Option<String> {
        Some(match self {
            Self::Root => "/v2".to_owned(),
            Self::Ping => "/v2/".to_owned(),
            Self::Token => "/v2/_wharf/token".to_owned(),
            Self::Manifest { repository, reference } => in_repository(repository, "manifests", reference).finish(),
            Self::Blob { repository, digest } => in_repository(repository, "blobs", digest).finish(),
            Self::Tags { repository, page } => in_repository(repository, "tags", "list").page(page).finish(),
            Self::Referrers {
                repository,
                digest,
                artifact_type,
                page,
            } => {
                let uri = in_repository(repository, "referrers", digest);
                uri.value("artifactType", artifact_type.as_deref()).page(page).finish()
            }
            Self::Receipts { repository, digest } => {
                let Repository { registry, name } = repository;
                let uri = Uri::new("/v2/_wharf/receipts".to_owned());
                let uri = uri.value("ns", (!registry.is_own()).then(|| registry.as_str()));
                let uri = uri.value("repository", Some(name.as_str()));
                uri.value("digest", Some(&digest.to_string())).finish()
            }
            Self::Catalog { page, above } => {
                let uri = Uri::new("/v2/_catalog".to_owned()).page(page);
                uri.value("above", above.then_some("true")).finish()
            }
            Self::Feed {
                version,
                epoch,
                since,
                wait_s,
            } => {
                let uri = Uri::new("/v2/_wharf/feed".to_owned());
                let uri = uri
                    .value("version", Some(&version.to_string()))
                    .value("epoch", Some(epoch));
                let uri = uri.value("since", Some(&since.to_string()));
                uri.value("wait", Some(&wait_s.to_string())).finish()
            }
            Self::Push(_) | Self::Write { .. } | Self::Report => return None,
        })
    }
}

fn in_repository(repository: &Repository, kind: &str, last: impl std::fmt::Display) -> Uri {
    let Repository { registry, name } = repository;
    let uri = Uri::new(format!("/v2/{name}/{kind}/{last}"));
    uri.value("ns", (!registry.is_own()).then(|| registry.as_str()))
}

/// A path, and a query that grows behind it.
struct Uri {
    path: String,
    query: Serializer<'static, String>,
}

impl Uri {
    fn new(path: String) -> Self {
        Self {
            path,
            query: Serializer::new(String::new()),
        }
    }

    fn value(mut self, key: &str, value: Option<&str>) -> Self {
        self.query.extend_pairs(value.map(|value| (key, value)));
        self
    }

    fn page(self, page: &Page) -> Self {
        let n = page.n.map(|n| n.to_string());
        self.value("n", n.as_deref()).value("last", page.last.as_deref())
    }

    fn finish(mut self) -> String {
        match self.query.finish() {
            query if query.is_empty() => self.path,
            query => format!("{}?{query}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    #[test]
    fn a_route_is_written_with_its_registry_in_ns_and_its_values_encoded() {
        let at = |registry, page| {
            let repository = Repository::new(registry, "a".parse().unwrap());
            Route::Tags { repository, page }.uri()
        };
        let page = Page {
            n: Some(5),
            last: Some("v1&x=\u{e9}".to_owned()),
        };

        assert_eq!(at(Registry::own(), Page::default()).as_deref(), Some("/v2/a/tags/list"));
        assert_eq!(
            at("mcr.example.com:8443".parse().unwrap(), page).as_deref(),
            Some("/v2/a/tags/list?ns=mcr.example.com%3A8443&n=5&last=v1%26x%3D%C3%A9")
        );
    }

    #[test]
    fn a_write_has_no_address() {
        assert_eq!(
            Route::Write {
                repository: None,
                allow: ""
            }
            .uri(),
            None
        );
    }
}
