//! The floors of the house, read from the sources: what the compiler does not keep, this does.

use std::path::Path;

use crate::support::sources;

/// From the ground up. A room may use rooms on floors below its own, and nothing else.
const FLOORS: [&[&str]; 16] = [
    &["units"],
    &["oci"],
    &["calendar", "select"],
    &["router", "store", "parent"],
    &["fetch", "queue"],
    &["auth"],
    &["push", "sync", "events", "bundle"],
    &["status"],
    &["serve"],
    &["listener"],
    &["admin"],
    &["config"],
    &["app"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// Libraries that stay in their rooms.
const KEPT: [(&str, &[&str]); 3] = [
    ("pingora", &["listener", "admin", "app", "main"]),
    ("rusqlite", &["store"]),
    ("reqwest", &["parent"]),
];

#[test]
fn no_import_goes_up_or_sideways() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));

    let broken: Vec<String> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();

    assert!(sources.len() > 50, "only {} files were read", sources.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_line_of_the_program_switches_off_that_certificates_are_verified() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    // Of reqwest, of rustls for a client, of OpenSSL by its name.
    let ways = ["danger_accept", ".dangerous()", "ServerCertVerifier", "verify_none"];

    let found: Vec<String> = sources
        .iter()
        .filter(|(_, text)| ways.iter().any(|way| text.contains(way)))
        .map(|(path, _)| path.display().to_string())
        .collect();

    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_leaves_for_a_client_passes_the_shelf() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));

    let around: Vec<String> = sources
        .iter()
        .filter(|(path, _)| ["serve", "listener"].contains(&room(path).as_str()))
        .flat_map(|(path, text)| uses(path, text).into_iter().map(|used| (path.clone(), used)))
        .filter(|(_, used)| used.room == "store")
        .map(|(path, _)| path.display().to_string())
        .collect();

    assert!(around.is_empty(), "the store is reached past the shelf in {around:?}");
}

#[test]
fn a_fixture_that_breaks_the_rule_is_found_in_each_of_its_forms() {
    let forms = [
        ("oci/digest.rs", "use crate::store::Store;", "up"),
        (
            "oci/digest.rs",
            "use crate::{units::Size, store::{self, Store}};",
            "up, in a group",
        ),
        ("store/mod.rs", "use crate::router::Route;", "sideways"),
        (
            "fetch/lead.rs",
            "fn f() -> crate::serve::Reply { todo!() }",
            "up, inline",
        ),
        (
            "units/size.rs",
            "use super::super::oci::Digest;",
            "up, by super out of the room",
        ),
        (
            "units/size.rs",
            "mod tests { use super::super::super::oci::Digest; }",
            "up, from the tests within a file",
        ),
        (
            "units/mod.rs",
            "use super::oci::Digest;",
            "up, by super from the room's door",
        ),
        (
            "units.rs",
            "use super::{oci::Digest};",
            "up, by super from a room of one file",
        ),
        (
            "auth/mod.rs",
            "pub use crate::store::Store;",
            "a re-export of another room",
        ),
        (
            "auth/mod.rs",
            "pub(crate) use crate::{store as disk};",
            "a re-export under another name",
        ),
        (
            "serve/mod.rs",
            "use wharf::listener::Door;",
            "up, by the crate's own name",
        ),
        (
            "serve/mod.rs",
            "extern crate self as house; ",
            "the crate under another name",
        ),
        ("serve/mod.rs", "use crate::*;", "everything at once"),
        (
            "serve/mod.rs",
            "use pingora::server::Server;",
            "a library outside its room",
        ),
        ("attic/mod.rs", "", "a room that no floor knows"),
    ];

    for (path, text, form) in forms {
        assert!(
            !violations(Path::new(path), text).is_empty(),
            "not found: {form}: {text}"
        );
    }
}

#[test]
fn what_keeps_the_rule_is_left_alone() {
    let fine = [
        (
            "fetch/lead.rs",
            "use crate::store::Staged; use super::Error; use crate::fetch::Asker;",
        ),
        (
            "fetch/mod.rs",
            "// crate::serve says otherwise\nconst TEXT: &str = \"crate::serve::X\";",
        ),
        (
            "store/blob.rs",
            "pub use super::layout::Layout; pub(super) fn f() { self::g(); }",
        ),
        ("cli/demo/mod.rs", "use super::super::config; use super::report;"),
    ];

    for (path, text) in fine {
        assert_eq!(violations(Path::new(path), text), Vec::<String>::new(), "{text}");
    }
}

/// A use of a room's name.
struct Use {
    room: String,
    exported: bool,
}

fn violations(path: &Path, text: &str) -> Vec<String> {
    let here = room(path);
    let Some(floor) = floor(&here) else {
        return vec![format!("{}: no floor knows the room {here}", path.display())];
    };
    let mut found = Vec::new();
    for Use { room: used, exported } in uses(path, text) {
        let below = self::floor(&used).is_some_and(|used| used < floor);
        if used != here && !below {
            found.push(format!("{}: {here} uses {used}, which is not below it", path.display()));
        }
        if exported && used != here && !["lib", "main"].contains(&here.as_str()) {
            found.push(format!(
                "{}: {here} hands on {used}, which others are to ask themselves",
                path.display()
            ));
        }
    }
    let code = code(text);
    if code.contains("extern crate self") {
        found.push(format!("{}: gives the crate another name", path.display()));
    }
    for (library, rooms) in KEPT {
        let used = code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"));
        if used && !rooms.contains(&here.as_str()) {
            found.push(format!("{}: {library} belongs to {rooms:?}", path.display()));
        }
    }
    found
}

/// Every room that the file names, in imports or inline.
fn uses(path: &Path, text: &str) -> Vec<Use> {
    let code = code(text);
    let (code, tests) = code.split_once("mod tests {").unwrap_or((&code, ""));
    let mut found = uses_at(depth(path), code);
    found.extend(uses_at(depth(path) + 1, tests));
    found
}

fn uses_at(depth: usize, code: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for root in roots(depth) {
        for (at, _) in code.match_indices(&root) {
            let whole_word =
                !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
            if whole_word {
                let exported = is_exported(&code[..at]);
                let rest = &code[at + root.len()..];
                found.extend(first_names(rest).into_iter().map(|room| Use { room, exported }));
            }
        }
    }
    found
}

/// The ways in which a file so deep in the tree can name the crate's top.
fn roots(depth: usize) -> Vec<String> {
    vec!["crate::".to_owned(), "wharf::".to_owned(), "super::".repeat(depth)]
}

/// How many `super` lead from the file's module to the crate's top: `oci/mod.rs` and `units.rs` 1, `oci/digest.rs` 2.
fn depth(path: &Path) -> usize {
    let parts = path.components().count();
    let is_door = path.file_name().is_some_and(|name| name == "mod.rs");
    if is_door { parts - 1 } else { parts }
}

fn is_exported(before: &str) -> bool {
    let statement = before.rsplit([';', '}']).next().unwrap_or_default().trim_start();
    statement.starts_with("pub") && statement.contains("use")
}

/// The first name of a path, or of each path of a group: `{a::B, c::{D}}` has `a` and `c`.
fn first_names(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return name(rest).into_iter().collect();
    };
    let mut names = Vec::new();
    let mut open = 1;
    let mut begins = true;
    for (at, letter) in group.char_indices() {
        if begins && !letter.is_whitespace() {
            names.extend(name(&group[at..]));
            begins = false;
        }
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 1 => begins = true,
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    names
}

/// A path's first name. A glob is a name that no floor knows; what begins with a capital lies at the top and is nobody's room.
fn name(text: &str) -> Option<String> {
    if text.starts_with('*') {
        return Some("everything".to_owned());
    }
    let name: String = text
        .chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The text without comments and without what stands in strings.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if letter == '"' {
            rest = after_string(&rest[1..]);
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    code
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The folder or file right under `src`.
fn room(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}
