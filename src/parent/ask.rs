//! What may be asked of a parent, and the URL that asks it.

use std::time::Duration;

use url::Url;

use super::authority::Want;
use super::gate::{Class, Load};
use super::kind::Kind;
use super::place::Place;
use super::via::Hops;
use crate::oci::{Digest, Reference, Registry, Repository};

/// One question to a parent or upstream.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What it is asked for.
    pub class: Class,
    /// Whether the headers alone are wanted.
    pub head: bool,
    /// Of which repository.
    pub repository: &'a Repository,
    /// What of it.
    pub what: What<'a>,
    /// Of the head of a tag's manifest: what the tag named when it was last seen. A registry may say that it still does.
    pub known: Option<&'a Digest>,
    /// First and last byte wanted, both inclusive; without the last: to the end.
    pub range: Option<(u64, Option<u64>)>,
    /// Who carried the request to us.
    pub hops: &'a Hops,
    /// The time until the header of the final answer is here: name, connection, tokens and
    /// redirects included, the body not.
    pub budget: Duration,
    /// Of that, the time for which somebody waits. A parent that is a node is told so, less a little for the way.
    pub patience: Duration,
    /// Whether something older is served if there is no answer: then it is asked once, and a parent that is away
    /// not at all.
    pub is_spare: bool,
    /// Where the place of a transfer is kept beyond the answer; `None`: it is held as long as the answer.
    pub place: Option<&'a Place>,
    /// Bytes of its answer that are paid for ([`Parent::buy`]).
    ///
    /// [`Parent::buy`]: super::Parent::buy
    pub paid: u64,
}

/// The parts of a repository that can be asked for.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// end-3.
    Manifest(&'a Reference),
    /// end-2.
    Blob(&'a Digest),
    /// end-8: at most `n`, those after `last`.
    Tags {
        /// How many at most.
        n: usize,
        /// Exclusive; `None`: from the first.
        last: Option<&'a str>,
    },
    /// end-8, a further page: the query that an earlier answer's `head.link` named.
    TagsPage(&'a str),
    /// end-12: what refers to a manifest.
    Referrers(&'a Digest),
    /// end-12, a further page, as above.
    ReferrersPage(&'a Digest, &'a str),
    /// Of a node: how far up a push has got.
    Receipts(&'a Digest),
    /// What repositories there are, at most so many (of a question for them the registry alone counts).
    Catalog(usize),
    /// A further page, as above.
    CatalogPage(&'a str),
    /// Of a node: what has changed there.
    Feed(Since<'a>),
}

/// How far a feed has been followed.
#[derive(Clone, Copy, Debug)]
pub struct Since<'a> {
    /// The version of the feed that is understood.
    pub version: u32,
    /// Which run of the node; empty: none yet.
    pub epoch: &'a str,
    /// The last that is known of that run.
    pub last: u64,
    /// How long there may be nothing to tell.
    pub wait: Duration,
}

impl<'a> Ask<'a> {
    /// A question to whose answer somebody waits as long as there is time for it.
    pub fn new(class: Class, repository: &'a Repository, what: What<'a>, hops: &'a Hops, budget: Duration) -> Self {
        Self {
            class,
            head: false,
            repository,
            what,
            known: None,
            range: None,
            hops,
            budget,
            patience: budget,
            is_spare: false,
            place: None,
            paid: 0,
        }
    }

    /// Whether it is for what is pulled, not for what there is.
    pub fn asks_for_content(&self) -> bool {
        matches!(self.what, What::Manifest(_) | What::Blob(_))
    }

    /// Whether it is for the beginning of a transfer that comes in parts.
    pub fn is_first_part(&self) -> bool {
        self.place.is_some() && self.range.is_some_and(|(first, _)| first == 0)
    }

    /// The URL below `base` (which ends with `/`) that asks for this of a registry of that kind, with `ns` if it is to be named.
    pub(super) fn url(&self, base: &Url, ns: Option<&Registry>, kind: Kind) -> Url {
        let name = self.repository.name.as_str();
        let tail = match self.what {
            What::Manifest(reference) => format!("manifests/{reference}"),
            What::Blob(digest) => format!("blobs/{digest}"),
            What::Tags { .. } | What::TagsPage(_) => "tags/list".to_owned(),
            What::Referrers(digest) | What::ReferrersPage(digest, _) => format!("referrers/{digest}"),
            What::Receipts(_) => "receipts".to_owned(),
            What::Catalog(_) | What::CatalogPage(_) => "_catalog".to_owned(),
            What::Feed(_) => "feed".to_owned(),
        };
        let mut url = base.clone();
        let within = match self.what {
            What::Receipts(_) | What::Feed(_) => "_wharf/",
            What::Catalog(_) | What::CatalogPage(_) => "",
            _ => &format!("{name}/"),
        };
        url.set_path(&format!("{}v2/{within}{tail}", base.path()));
        match self.what {
            What::Tags { n, last } => {
                let mut query = url.query_pairs_mut();
                query.append_pair("n", &n.to_string());
                if let Some(last) = last {
                    query.append_pair("last", last);
                }
            }
            What::Catalog(n) => {
                let mut query = url.query_pairs_mut();
                query.append_pair("n", &n.to_string());
                // What lies there is not all that can be had through it.
                if kind == Kind::Wharf {
                    query.append_pair("above", "true");
                }
            }
            What::TagsPage(query) | What::ReferrersPage(_, query) | What::CatalogPage(query) => {
                let query = without_ns(query);
                url.set_query(Some(&query).filter(|query| !query.is_empty()).map(String::as_str));
            }
            What::Receipts(digest) => {
                let mut query = url.query_pairs_mut();
                query.append_pair("repository", name);
                query.append_pair("digest", &digest.to_string());
            }
            What::Feed(since) => {
                let mut query = url.query_pairs_mut();
                query.append_pair("version", &since.version.to_string());
                query.append_pair("epoch", since.epoch);
                query.append_pair("since", &since.last.to_string());
                query.append_pair("wait", &since.wait.as_secs().to_string());
            }
            What::Manifest(_) | What::Blob(_) | What::Referrers(_) => {}
        }
        // The feed is of all registries.
        if let Some(registry) = ns.filter(|_| !matches!(self.what, What::Feed(_))) {
            url.query_pairs_mut().append_pair("ns", &registry.to_string());
        }
        url
    }

    /// Whether it is for the registry as a whole.
    pub(super) fn is_for_all(&self) -> bool {
        matches!(self.what, What::Catalog(_) | What::CatalogPage(_) | What::Feed(_))
    }

    /// What a token has to be for.
    pub(super) fn want(&self) -> Want<'a> {
        match self.is_for_all() {
            true => Want::catalog(),
            false => Want::pull(self.repository.name.as_str()),
        }
    }

    pub(super) fn is_manifest(&self) -> bool {
        matches!(self.what, What::Manifest(_))
    }

    pub(super) fn is_blob(&self) -> bool {
        matches!(self.what, What::Blob(_))
    }

    /// What the answer costs.
    pub(super) fn load(&self) -> Load {
        match (self.what, self.range) {
            (What::Blob(_), _) if self.head => Load::Question,
            (What::Blob(_), Some((_, Some(_)))) if self.place.is_none() => Load::Part,
            (What::Blob(_), _) => Load::Transfer,
            _ => Load::Question,
        }
    }
}

/// The query of another page, the rest as the upstream wrote it: `ns` is ours to say.
fn without_ns(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| *pair != "ns" && !pair.starts_with("ns="))
        .collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, what: What<'_>, ns: Option<&str>) -> String {
        let repository = Repository::new(Registry::own(), "a/b".parse().unwrap());
        let ask = Ask {
            class: Class::Interactive,
            head: false,
            repository: &repository,
            what,
            known: None,
            range: None,
            hops: &Hops::default(),
            budget: Duration::from_secs(1),
            patience: Duration::from_secs(1),
            is_spare: false,
            place: None,
            paid: 0,
        };
        let ns = ns.map(|ns| ns.parse().unwrap());
        ask.url(&Url::parse(base).unwrap(), ns.as_ref(), Kind::Foreign)
            .to_string()
    }

    #[test]
    fn each_part_has_its_end_point() {
        let tag: Reference = "v1.0".parse().unwrap();
        let digest = Digest::of(b"");
        let base = "https://r.example/";

        assert_eq!(
            url(base, What::Manifest(&tag), None),
            "https://r.example/v2/a/b/manifests/v1.0"
        );
        assert_eq!(
            url(base, What::Blob(&digest), None),
            format!("https://r.example/v2/a/b/blobs/{digest}")
        );
        assert_eq!(
            url(base, What::Referrers(&digest), None),
            format!("https://r.example/v2/a/b/referrers/{digest}")
        );
        assert_eq!(
            url(
                base,
                What::Tags {
                    n: 100,
                    last: Some("v1")
                },
                None
            ),
            "https://r.example/v2/a/b/tags/list?n=100&last=v1"
        );
    }

    #[test]
    fn the_catalog_is_of_no_repository() {
        let base = "https://r.example/x/";

        assert_eq!(
            url(base, What::Catalog(100), None),
            "https://r.example/x/v2/_catalog?n=100"
        );
        assert_eq!(
            url(base, What::CatalogPage("n=5&last=b"), None),
            "https://r.example/x/v2/_catalog?n=5&last=b"
        );
    }

    #[test]
    fn a_registry_may_lie_below_a_path() {
        let tag: Reference = "v1".parse().unwrap();

        assert_eq!(
            url("http://[::1]:5000/api/docker/", What::Manifest(&tag), Some("quay.io")),
            "http://[::1]:5000/api/docker/v2/a/b/manifests/v1?ns=quay.io"
        );
    }

    #[test]
    fn a_further_page_is_asked_for_as_the_upstream_named_it_but_for_ns() {
        let base = "https://r.example/";

        assert_eq!(
            url(base, What::TagsPage("n=5&ns=evil&token=a%2Bb"), Some("quay.io")),
            "https://r.example/v2/a/b/tags/list?n=5&token=a%2Bb&ns=quay.io"
        );
        assert_eq!(
            url(base, What::TagsPage("ns=evil"), None),
            "https://r.example/v2/a/b/tags/list"
        );
    }
}
