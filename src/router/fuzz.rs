//! What must hold of the parser for any input; for fuzzing, and for the tests beside it.

use crate::oci::Registry;
use crate::router::{Line, Named, Names, Route, parse};

/// Takes `data` as four lines (method, host, path, query) of a request to a node with several
/// registries, and checks that a route, written and read again, is the same route.
///
/// # Panics
///
/// When it is not.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, host, path, query) = (next(), next(), next(), next());
    let line = Line {
        method,
        path,
        query: Some(query),
        host: Some(host),
        bound: None,
        writes: data.len().is_multiple_of(2),
    };

    let names = names();
    let Ok(routed) = parse(&names, &line) else { return };

    if let Some(namespace) = &routed.namespace {
        assert!(names.find(namespace).is_some(), "{namespace:?} is not on the list");
    }
    assert_reads_back(&names, &routed.route);
}

fn assert_reads_back(names: &Names, route: &Route) {
    let Some(uri) = route.uri() else { return };
    let (path, query) = uri
        .split_once('?')
        .map_or((uri.as_str(), None), |(path, query)| (path, Some(query)));
    // What is bound to a port may have a name that elsewhere means another registry.
    let bound = route.repository().map(|repository| &repository.registry);
    let line = Line {
        method: "GET",
        path,
        query,
        host: None,
        bound,
        writes: false,
    };

    let again = parse(names, &line).map(|routed| routed.route);

    assert_eq!(again.as_ref(), Ok(route), "{uri}");
}

/// A parent that is its own registry, Docker Hub under an alias, and one on a port.
pub(super) fn names() -> Names {
    let named = |registry: &str, aliases: &[&str], hosts: &[&str]| Named {
        registry: registry.parse().expect("a registry's name stands here"),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
    };
    let all = [
        named("docker.io", &["hub"], &["hub.plant.example", "[::1]:5001"]),
        named("quay.io", &[], &[]),
        named("mcr.example.com:8443", &["mcr"], &[]),
        Named {
            registry: Registry::own(),
            aliases: vec!["plant".to_owned()],
            hosts: vec!["own.plant.example".to_owned()],
        },
    ];
    Names::new(all, Registry::own()).expect("no word stands twice")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words that mean something somewhere in a line, so that chance finds their neighbourhoods.
    const WORD: &str =
        "docker\\.io|docker\\.io|hub|quay\\.io|plant|library|a|blobs|uploads|tags|list|v2|_x|[a-z%A:_.]{0,4}";
    const QUERY: &str =
        "(ns|n|last|artifactType)=(docker\\.io|Quay\\.io|hub|mcr\\.example\\.com%3A8443|plant|7|[a-z+%/&=]{0,5})";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_route_that_is_written_reads_back(
            method in "GET|HEAD|PUT",
            host in "|hub\\.plant\\.example|own\\.plant\\.example:5000|x",
            start in "/v2|/v2|/v2|/hub/v2|/a",
            name in proptest::collection::vec(WORD, 0..4),
            end in "|/|/tags/list|/tags/list|/manifests/latest|/blobs/sha256:[0-9a-f]{64}|/referrers/sha256:[0-9a-f]{64}",
            query in proptest::collection::vec(QUERY, 0..4),
        ) {
            let name: String = name.iter().map(|word| format!("/{word}")).collect();
            let line = format!("{method}\n{host}\n{start}{name}{end}\n{}", query.join("&"));
            fuzz(line.as_bytes());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(data: Vec<u8>) {
            fuzz(&data);
        }
    }
}
