//! What a request is about, and what a token must allow for it.

use super::ledger::Seen;
use super::registry::split;

/// The thing that a request names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum What {
    /// A blob by its path, or the one that the request makes of an upload.
    Blob(String),
    /// A blob that is to be taken over from another repository.
    Mount(String),
    /// A manifest by tag or digest.
    Manifest(String),
    /// An upload that goes on; the empty one is to be begun.
    Upload(String),
    /// The list of tags, or that of what refers to a digest.
    List(String),
}

/// What a token must allow in one repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need {
    pub repository: String,
    pub actions: &'static [&'static str],
}

/// The repository and the thing; `None` outside of repositories.
pub fn of(seen: &Seen) -> Option<(String, What)> {
    let path = seen.path.strip_prefix("/v2/")?;
    if let Some((name, id)) = upload(path) {
        let digest = seen.asked("digest").filter(|_| seen.method != "PATCH").map(What::Blob);
        let mount = seen.asked("mount").filter(|_| seen.method == "POST").map(What::Mount);
        return Some((name.to_owned(), digest.or(mount).unwrap_or(What::Upload(id.to_owned()))));
    }
    let (name, kind, reference) = split(path)?;
    let what = match kind {
        "manifests" => What::Manifest,
        "blobs" => What::Blob,
        _ => What::List,
    };
    Some((name.to_owned(), what(reference.to_owned())))
}

/// The repository and the name of the upload that a path under `/v2/` is about.
pub fn upload(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once("/blobs/uploads/")
}

/// As distribution demands it: who mounts must be allowed to pull from the other repository.
pub fn needs(seen: &Seen) -> Vec<Need> {
    let Some((repository, what)) = of(seen) else {
        return Vec::new();
    };
    let actions: &[&str] = match seen.method.as_str() {
        "DELETE" => &["delete"],
        "POST" | "PUT" | "PATCH" => &["pull", "push"],
        _ => &["pull"],
    };
    let from = seen.asked("from").filter(|_| matches!(what, What::Mount(_)));
    let from = from.map(|repository| Need {
        repository,
        actions: &["pull"],
    });
    [Need { repository, actions }].into_iter().chain(from).collect()
}

/// As `needs`, at a registry that takes no pushes: it asks for nothing but pulls.
pub fn needs_of_a_pull(seen: &Seen) -> Vec<Need> {
    let named = seen.path.strip_prefix("/v2/").and_then(split);
    let need = named.map(|(repository, _, _)| Need {
        repository: repository.to_owned(),
        actions: &["pull"],
    });
    need.into_iter().collect()
}
