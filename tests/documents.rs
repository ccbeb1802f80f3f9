//! What the documents about tests name is there: a claim that lost its test is found here and not by a reader.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::sources;

/// What is promised, and which test holds it.
const TESTING: &str = "docs/testing.md";
/// Requirements, and where each stands.
const PARITY: &str = "docs/parity.md";

#[test]
fn every_test_that_the_document_names_is_in_the_sources() {
    let known = tests_in(Path::new(env!("CARGO_MANIFEST_DIR")));

    assert!(
        known.len() > 400,
        "only {} tests were found in the sources",
        known.len()
    );
    for (document, least) in [(TESTING, 200), (PARITY, 100)] {
        let named = names(&text_of(document));
        let lost: Vec<&String> = named.iter().filter(|name| !is_known(&known, name)).collect();

        assert!(
            named.len() > least,
            "only {} names were found in {document}",
            named.len()
        );
        assert!(lost.is_empty(), "{document} names what is not there: {lost:#?}");
    }
}

#[test]
fn every_requirement_has_one_row_and_none_of_parity_is_left_out() {
    let text = text_of(PARITY);
    let rows: Vec<(u32, &str, &str)> = text.lines().filter_map(requirement).collect();

    let numbers: Vec<u32> = rows.iter().map(|(number, ..)| *number).collect();
    let strays: Vec<_> = rows.iter().filter(|(_, kind, state)| !may_be(kind, state)).collect();

    assert_eq!(numbers, (1..=87).collect::<Vec<u32>>());
    assert!(strays.is_empty(), "no requirement may stand like that: {strays:?}");
}

#[test]
fn every_sabotage_finds_what_it_is_to_break() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sabotage");

    let looked = Command::new(script).arg("--places").output().expect("it runs");

    let words = String::from_utf8_lossy(&looked.stderr);
    assert!(looked.status.success(), "{words}");
}

#[test]
fn every_file_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = text_of(TESTING) + &text_of(PARITY);
    let files: Vec<&str> = quoted(&text).filter(|word| is_path(word)).collect();

    let lost: Vec<&&str> = files.iter().filter(|path| !root.join(path).exists()).collect();

    assert!(files.len() > 5, "only {} files were found in them", files.len());
    assert!(lost.is_empty(), "they name files that are not there: {lost:?}");
}

#[test]
fn a_name_that_no_test_has_is_found() {
    let known: BTreeSet<String> = ["range::a_part_comes".to_owned()].into();
    let text = "| a | `range::a_part_comes`, `range::a_part_goes` |\n`range::` `std` `x y::z`";

    let named = names(text);
    let lost: Vec<_> = named.iter().filter(|name| !is_known(&known, name)).collect();

    assert_eq!(lost, ["range::a_part_goes"]);
    assert!(is_known(&known, "range::"));
    assert!(!is_known(&known, "rang::"));
}

#[test]
fn a_requirement_of_parity_that_is_left_out_is_found() {
    let row = requirement("| 7 | P | a | left out: b | - |");

    assert_eq!(row, Some((7, "P", "left out: b")));
    assert_eq!(requirement("| P | 7 | a | b | - |"), None);
    assert!(may_be("S", "left out: b") && !may_be("P", "left out: b"));
    assert!(may_be("P", "in part: b") && !may_be("P", "soon"));
}

#[test]
fn a_test_has_the_name_that_cargo_prints() {
    let text = "#[test]\nfn a() {}\n#[tokio::test(flavor = \"x\")]\n#[ignore]\nasync fn b() {}\nfn c() {}\nmod tests {\n#[test]\n    fn d() {}";
    let of = |path: &str| tests_of(Path::new(path), text);

    assert_eq!(
        of("tests/clients/docker.rs")[..2],
        ["clients::docker::a", "clients::docker::b"]
    );
    assert_eq!(of("src/oci/mod.rs")[2], "oci::tests::d");
    assert_eq!(of("src/router/parse/tests.rs")[0], "router::parse::tests::a");
    assert_eq!(of("src/config.rs").len(), 3);
}

fn text_of(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    std::fs::read_to_string(path).expect("the document")
}

/// Of a row of requirements: its number, whether it is of parity (P) or goes beyond it (S), and where it stands.
fn requirement(line: &str) -> Option<(u32, &str, &str)> {
    let mut cells = line.split('|').skip(1).map(str::trim);
    let number = cells.next()?.parse().ok()?;
    Some((number, cells.next()?, cells.nth(1)?))
}

/// Whether a requirement of this kind may stand like that.
fn may_be(kind: &str, state: &str) -> bool {
    match state.split(':').next() {
        Some("holds" | "in part" | "not yet") => ["P", "S"].contains(&kind),
        Some("left out") => kind == "S",
        _ => false,
    }
}

/// Whether a test is called `name`, or, if that ends in `::`, lies in that module.
fn is_known(known: &BTreeSet<String>, name: &str) -> bool {
    known.iter().any(|test| covers(name, test))
}

fn covers(name: &str, test: &str) -> bool {
    name == test || (name.ends_with("::") && test.starts_with(name))
}

/// Every test that the text names.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |word: &&str| {
        word.contains("::")
            && word.starts_with(char::is_alphabetic)
            && word
                .chars()
                .all(|letter| letter.is_alphanumeric() || "_:".contains(letter))
    };
    quoted(text).filter(is_name).map(str::to_owned).collect()
}

/// What stands between backticks, within a line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_path(word: &str) -> bool {
    let folders = ["tests/", "src/", "docs/", "scripts/", "benches/", "config/", ".ci/"];
    folders.iter().any(|folder| word.starts_with(folder)) && !word.contains(' ')
}

/// Every test under `root`, by the name that `cargo test` prints.
fn tests_in(root: &Path) -> BTreeSet<String> {
    let of = |folder: &str| {
        let sources = sources(&root.join(folder));
        let tests = sources
            .iter()
            .flat_map(|(path, text)| tests_of(&Path::new(folder).join(path), text));
        tests.collect::<Vec<_>>()
    };
    of("src").into_iter().chain(of("tests")).collect()
}

fn tests_of(path: &Path, text: &str) -> Vec<String> {
    let mut module = module(path);
    let mut marked = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("mod tests {") {
            module += "tests::";
        }
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(function) = function.filter(|_| marked) {
            let end = function.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
            found.push(format!("{module}{}", &function[..end.unwrap_or(function.len())]));
            marked = false;
        }
    }
    found
}

/// `tests/clients/docker.rs` is `clients::docker::`, `src/oci/mod.rs` is `oci::`.
fn module(path: &Path) -> String {
    let below = path.with_extension("");
    let parts = below
        .components()
        .skip(1)
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").map(|part| part + "::").collect()
}
