//! What names lead where, and what is refused.

use super::*;
use crate::oci::Reference;
use crate::router::fuzz;

const GET: Line<'static> = Line {
    writes: false,
    method: "GET",
    path: "",
    query: None,
    host: None,
    bound: None,
};
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn route(line: Line<'_>) -> Result<Routed, Error> {
    parse(&fuzz::names(), &line)
}

/// Where a GET of a path and a query leads.
fn read(path: &str, query: &str) -> Routed {
    let query = Some(query);
    route(Line { path, query, ..GET }).unwrap()
}

/// The repository, for people, that a path and a query lead to.
fn repository(path: &str, query: &str) -> String {
    read(path, query).route.repository().unwrap().to_string()
}

fn error(path: &str) -> Error {
    route(Line { path, ..GET }).unwrap_err()
}

#[test]
fn every_name_of_one_image_leads_to_one_repository() {
    for (path, query) in [
        ("/v2/docker.io/alpine/tags/list", ""),
        ("/v2/docker.io/library/alpine/tags/list", ""),
        ("/v2/index.docker.io/alpine/tags/list", ""),
        ("/v2/hub/alpine/tags/list", ""),
        ("/docker.io/v2/alpine/tags/list", ""),
        ("/docker.io/v2/library/alpine/tags/list", "ns=docker.io"),
        ("/v2/alpine/tags/list", "ns=docker.io"),
        ("/v2/library/alpine/tags/list", "ns=Registry-1.Docker.IO:443"),
        ("/v2/library/alpine/tags/list", "ns=hub"),
        ("/v2/docker.io/library/alpine/tags/list", "ns=docker.io"),
        ("/v2/docker.io/docker.io/alpine/tags/list", "ns=docker.io"),
    ] {
        assert_eq!(repository(path, query), "docker.io/library/alpine", "{path}?{query}");
    }
}

#[test]
fn a_name_without_a_registry_belongs_to_the_parent() {
    assert_eq!(repository("/v2/library/alpine/tags/list", ""), "library/alpine");
    assert_eq!(repository("/v2/plant/x/tags/list", ""), "x");
    // One component names no registry: nothing is left to name the repository.
    assert_eq!(repository("/v2/docker.io/tags/list", ""), "docker.io");
}

#[test]
fn ns_wins_over_a_prefix_for_another_registry() {
    assert_eq!(
        repository("/v2/docker.io/x/tags/list", "ns=quay.io"),
        "quay.io/docker.io/x"
    );
    assert_eq!(repository("/docker.io/v2/x/tags/list", "ns=quay.io"), "quay.io/x");
}

#[test]
fn ns_with_a_port_arrives_encoded() {
    assert_eq!(
        repository("/v2/x/tags/list", "ns=mcr.example.com%3A8443"),
        "mcr.example.com:8443/x"
    );
}

#[test]
fn an_unknown_ns_is_nobodys_and_never_the_parents() {
    for namespace in ["evil.example", "docker.io:5000", "169.254.169.254", "a/b", "%0d%0a"] {
        let query = format!("ns={namespace}");
        let answer = route(Line {
            path: "/v2/x/tags/list",
            query: Some(&query),
            ..GET
        });
        assert!(matches!(answer, Err(Error::NamespaceUnknown { .. })), "{namespace}");
    }
}

#[test]
fn an_unknown_word_before_v2_is_no_path() {
    assert_eq!(error("/evil.example/v2/x/tags/list"), Error::NotFound);
    assert_eq!(error("/v1/v2/x/tags/list"), Error::NotFound);
    assert_eq!(error("//v2/"), Error::NotFound);
}

#[test]
fn the_ns_that_was_used_is_handed_back_as_it_was_written() {
    let namespace = |path: &str, query: &str| read(path, query).namespace;

    assert_eq!(
        namespace("/v2/x/tags/list", "ns=Docker.io").as_deref(),
        Some("Docker.io")
    );
    assert_eq!(namespace("/v2/docker.io/x/tags/list", ""), None);
    assert_eq!(namespace("/v2/", "ns=docker.io"), None);
}

#[test]
fn a_bound_port_wins_over_host_and_prefix_and_takes_no_other_ns() {
    let quay: Registry = "quay.io".parse().unwrap();
    let hub_host = Some("hub.plant.example:5000");
    let at = |path, query, bound| {
        let routed = route(Line {
            path,
            query,
            host: hub_host,
            bound,
            ..GET
        })?;
        Ok(routed.route.repository().unwrap().to_string())
    };
    let tags = "/v2/x/tags/list";

    assert_eq!(at(tags, None, None), Ok("docker.io/library/x".to_owned()));
    assert_eq!(at(tags, None, Some(&quay)), Ok("quay.io/x".to_owned()));
    assert_eq!(at(tags, Some("ns=quay.io"), Some(&quay)), Ok("quay.io/x".to_owned()));
    assert_eq!(
        at("/v2/quay.io/x/tags/list", None, Some(&quay)),
        Ok("quay.io/x".to_owned())
    );
    assert_eq!(
        at("/v2/hub/x/tags/list", None, Some(&quay)),
        Ok("quay.io/hub/x".to_owned())
    );
    for bound in [None, Some(&quay)] {
        let other = if bound.is_some() { "ns=docker.io" } else { "ns=quay.io" };
        assert!(
            matches!(at(tags, Some(other), bound), Err(Error::NamespaceUnknown { .. })),
            "{other}"
        );
    }
}

#[test]
fn every_endpoint_of_reading_has_its_route() {
    let read = |path: &str, query: &str| read(path, query).route;
    let x = Repository::new(Registry::own(), "x".parse().unwrap());
    let digest: crate::oci::Digest = DIGEST.parse().unwrap();

    assert_eq!(read("/v2", ""), Route::Root);
    assert_eq!(read("/v2/", ""), Route::Ping);
    assert_eq!(
        read("/v2/x/manifests/v1", ""),
        Route::Manifest {
            repository: x.clone(),
            reference: Reference::Tag("v1".parse().unwrap())
        }
    );
    assert_eq!(
        read(&format!("/v2/x/manifests/{DIGEST}"), ""),
        Route::Manifest {
            repository: x.clone(),
            reference: Reference::Digest(digest)
        }
    );
    assert_eq!(
        read(&format!("/v2/x/blobs/{DIGEST}"), ""),
        Route::Blob {
            repository: x.clone(),
            digest
        }
    );
    assert_eq!(
        read("/v2/x/tags/list", "n=5&last=v1"),
        Route::Tags {
            repository: x.clone(),
            page: Page {
                n: Some(5),
                last: Some("v1".to_owned())
            }
        }
    );
    assert_eq!(
        read(
            &format!("/v2/x/referrers/{DIGEST}"),
            "artifactType=application%2Fvnd.x%2Bjson"
        ),
        Route::Referrers {
            repository: x,
            digest,
            artifact_type: Some("application/vnd.x+json".to_owned()),
            page: Page::default()
        }
    );
    assert_eq!(
        read("/v2/_catalog", "n=7"),
        Route::Catalog {
            page: Page { n: Some(7), last: None },
            above: false,
        }
    );
}

#[test]
fn head_is_routed_as_get() {
    for path in ["/v2/", "/v2/x/manifests/v1", "/v2/x/tags/list", "/v2/_catalog"] {
        assert_eq!(
            route(Line {
                method: "HEAD",
                path,
                ..GET
            }),
            route(Line { path, ..GET }),
            "{path}"
        );
    }
}

#[test]
fn whatever_would_change_something_is_a_write() {
    let x = Repository::new(Registry::own(), "x".parse().unwrap());
    let blob = format!("/v2/x/blobs/{DIGEST}");
    for (method, path, repository, allow) in [
        ("PUT", "/v2/x/manifests/v1", Some(&x), "GET, HEAD"),
        ("DELETE", "/v2/x/manifests/v1", Some(&x), "GET, HEAD"),
        ("DELETE", &blob, Some(&x), "GET, HEAD"),
        ("POST", "/v2/x/blobs/uploads/", Some(&x), ""),
        ("PATCH", "/v2/x/blobs/uploads/id", Some(&x), ""),
        ("GET", "/v2/x/blobs/uploads/id", Some(&x), ""),
        ("DELETE", "/v2/x/tags/list", Some(&x), "GET, HEAD"),
        ("POST", "/v2/", None, "GET, HEAD"),
    ] {
        let expected = Route::Write {
            repository: repository.cloned(),
            allow,
        };
        assert_eq!(
            route(Line { method, path, ..GET }).unwrap().route,
            expected,
            "{method} {path}"
        );
    }
}

#[test]
fn other_methods_are_not_for_any_path() {
    for method in ["OPTIONS", "TRACE", "get", "", "CONNECT"] {
        let at = |path| route(Line { method, path, ..GET });

        assert_eq!(at("/v2/"), Err(Error::MethodNotAllowed { allow: "GET, HEAD" }));
        assert_eq!(
            at("/v2/x/manifests/v1"),
            Err(Error::MethodNotAllowed { allow: "GET, HEAD" })
        );
        assert_eq!(at("/v2/x/blobs/uploads/"), Err(Error::MethodNotAllowed { allow: "" }));
        assert_eq!(at("/nowhere"), Err(Error::NotFound));
    }
}

#[test]
fn a_percent_sign_in_a_path_is_not_decoded_but_refused() {
    assert_eq!(
        error("/v2/library%2Fsmall/manifests/v1"),
        Error::NameInvalid(NameError::Malformed)
    );
    assert_eq!(
        error("/v2/a/%2e%2e/b/manifests/v1"),
        Error::NameInvalid(NameError::Malformed)
    );
    assert_eq!(error("/v2/a/manifests/v%31"), Error::TagInvalid);
    assert_eq!(error("/v2/a/blobs/sha256%3A00"), Error::DigestInvalid);
    assert_eq!(error("/v2%2Fa/manifests/v1"), Error::NotFound);
}

#[test]
fn names_that_are_none_are_refused_before_anything_is_asked() {
    for path in [
        "/v2//manifests/v1",
        "/v2/A/manifests/v1",
        "/v2/../manifests/v1",
        "/v2/a/../b/manifests/v1",
        "/v2/a//b/manifests/v1",
        "/v2/docker.io//manifests/v1",
        "/v2/a:5000/b/manifests/v1",
    ] {
        assert_eq!(error(path), Error::NameInvalid(NameError::Malformed), "{path}");
    }
    let long = format!("/v2/{}/manifests/v1", "a".repeat(256));
    assert_eq!(error(&long), Error::NameInvalid(NameError::TooLong));
}

#[test]
fn the_prefix_is_no_part_of_a_names_length() {
    let longest = "a".repeat(255);

    assert_eq!(
        repository(&format!("/v2/quay.io/{longest}/tags/list"), ""),
        format!("quay.io/{longest}")
    );
}

#[test]
fn a_digest_that_is_none_is_told_from_one_that_cannot_be_verified() {
    for kind in ["blobs", "manifests", "referrers"] {
        assert_eq!(
            error(&format!("/v2/x/{kind}/sha256:short")),
            Error::DigestInvalid,
            "{kind}"
        );
        assert_eq!(
            error(&format!("/v2/x/{kind}/blake3:00ff")),
            Error::DigestUnsupported,
            "{kind}"
        );
    }
    assert_eq!(error("/v2/x/manifests/.hidden"), Error::TagInvalid);
}

#[test]
fn a_page_that_is_none_is_refused_wherever_there_are_pages() {
    for path in ["/v2/x/tags/list", "/v2/_catalog", &format!("/v2/x/referrers/{DIGEST}")] {
        let answer = route(Line {
            path,
            query: Some("n=-1"),
            ..GET
        });
        assert_eq!(answer, Err(Error::PageInvalid), "{path}");
    }
}

#[test]
fn extensions_and_the_catalog_are_no_repositories() {
    assert_eq!(error("/v2/_wharf/manifests/v1"), Error::NotFound);
    assert_eq!(error("/v2/_catalog/tags/list"), Error::NotFound);
}
