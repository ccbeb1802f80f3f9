//! The path, taken apart; nothing of it is looked up yet.

/// A path of the registry API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Path<'a> {
    /// What stands before `/v2`: containerd asks for `/<host>/v2/...` of a mirror with a path.
    pub(super) before: Option<&'a str>,
    pub(super) shape: Shape<'a>,
}

/// What lies below `/v2`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape<'a> {
    /// `/v2`
    Root,
    /// `/v2/`
    Ping,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/_wharf/receipts`
    Receipts,
    /// `/v2/_wharf/feed`
    Feed,
    /// `/v2/_wharf/report`
    Report,
    /// `/v2/_wharf/token`, `/token`, `/acr/oauth2/token`
    Token,
    /// `/v2/<name>/...`
    Of(&'a str, End<'a>),
}

/// What follows the name of a repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End<'a> {
    /// `manifests/<reference>`
    Manifest(&'a str),
    /// `blobs/<digest>`
    Blob(&'a str),
    /// `tags/list`
    Tags,
    /// `referrers/<digest>`
    Referrers(&'a str),
    /// `blobs/uploads`, `blobs/uploads/`, `blobs/uploads/<session>`
    Uploads(&'a str),
}

impl<'a> Path<'a> {
    /// Takes a raw path apart; `None` if it is none of the registry API.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        // Where clients of distribution and of Azure's registries look for it.
        if ["token", "acr/oauth2/token"].contains(&path) {
            return Some(Self {
                before: None,
                shape: Shape::Token,
            });
        }
        if let Some(below) = below_v2(path) {
            return Some(Self {
                before: None,
                shape: Shape::parse(below)?,
            });
        }
        let (before, path) = path.split_once('/')?;
        Some(Self {
            before: Some(before),
            shape: Shape::parse(below_v2(path)?)?,
        })
    }
}

/// What stands behind `v2`: nothing, or a slash and more.
fn below_v2(path: &str) -> Option<&str> {
    path.strip_prefix("v2")
        .filter(|below| below.is_empty() || below.starts_with('/'))
}

impl<'a> Shape<'a> {
    fn parse(below: &'a str) -> Option<Self> {
        match below {
            "" => Some(Self::Root),
            "/" => Some(Self::Ping),
            "/_catalog" => Some(Self::Catalog),
            "/_wharf/receipts" => Some(Self::Receipts),
            "/_wharf/feed" => Some(Self::Feed),
            "/_wharf/report" => Some(Self::Report),
            "/_wharf/token" => Some(Self::Token),
            // No name begins so: extensions of the API live there.
            _ if below.starts_with("/_") => None,
            _ => Self::of(below.strip_prefix('/')?),
        }
    }

    /// Reads from the right: a name may have components like `blobs` or `tags` itself.
    fn of(path: &'a str) -> Option<Self> {
        let (path, last) = path.rsplit_once('/')?;
        let (name, kind) = path.rsplit_once('/')?;
        if let ("uploads", Some(name)) = (kind, name.strip_suffix("/blobs")) {
            return Some(Self::Of(name, End::Uploads(last)));
        }
        let end = match (kind, last) {
            ("tags", "list") => End::Tags,
            ("blobs", "uploads") => End::Uploads(""),
            (_, "") => return None,
            ("manifests", reference) => End::Manifest(reference),
            ("blobs", digest) => End::Blob(digest),
            ("referrers", digest) => End::Referrers(digest),
            _ => return None,
        };
        Some(Self::Of(name, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str) -> Option<Shape<'_>> {
        Path::parse(path).map(|path| path.shape)
    }

    #[test]
    fn a_name_may_have_components_that_are_also_ends() {
        assert_eq!(
            shape("/v2/a/blobs/manifests/x"),
            Some(Shape::Of("a/blobs", End::Manifest("x")))
        );
        assert_eq!(
            shape("/v2/a/tags/list/tags/list"),
            Some(Shape::Of("a/tags/list", End::Tags))
        );
        assert_eq!(
            shape("/v2/a/manifests/list/blobs/d"),
            Some(Shape::Of("a/manifests/list", End::Blob("d")))
        );
        assert_eq!(shape("/v2/v2/referrers/d"), Some(Shape::Of("v2", End::Referrers("d"))));
    }

    #[test]
    fn uploads_are_known_by_all_their_paths() {
        for (path, session) in [
            ("/v2/a/b/blobs/uploads", ""),
            ("/v2/a/b/blobs/uploads/", ""),
            ("/v2/a/b/blobs/uploads/session", "session"),
        ] {
            assert_eq!(shape(path), Some(Shape::Of("a/b", End::Uploads(session))), "{path}");
        }
        assert_eq!(shape("/v2/a/uploads/x"), None);
    }

    #[test]
    fn what_stands_before_v2_is_one_word() {
        let path = Path::parse("/quay.io/v2/a/tags/list").unwrap();
        assert_eq!(
            path,
            Path {
                before: Some("quay.io"),
                shape: Shape::Of("a", End::Tags)
            }
        );

        assert_eq!(shape("/x/v2/"), Some(Shape::Ping));
        assert_eq!(shape("/x/v2"), Some(Shape::Root));
        assert_eq!(shape("/x/y/v2/"), None);
    }

    #[test]
    fn every_other_path_is_none_of_the_api() {
        for path in [
            "",
            "/",
            "v2",
            "v2/",
            "/v1/",
            "/v22/a/tags/list",
            "/v2//",
            "/v2/a",
            "/v2/tags/list",
            "/v2/a/tags",
            "/v2/a/tags/list/",
            "/v2/a/manifests/",
            "/v2/a/blobs/",
            "/v2/a/referrers/",
            "/v2/_catalog/",
            "/v2/_wharf/token/",
            "/token/",
            "/acr/oauth2/exchange",
            "/v2/_wharf/manifests/x",
            "/v2/_oci/ext/discover",
            "/v2/a/signatures/x",
            "*",
        ] {
            assert_eq!(
                Path::parse(path).filter(|path| path.shape != Shape::Root),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn the_token_service_is_at_three_paths() {
        for path in ["/v2/_wharf/token", "/token", "/acr/oauth2/token"] {
            assert_eq!(shape(path), Some(Shape::Token), "{path}");
        }
    }
}
