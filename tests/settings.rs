//! `wharf check`: what is in force, where a setting is wrong, and how to put it right.

mod doubts;
mod mistakes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::node;

const CANARY: &str = "canary-5ecre7";

#[test]
fn every_file_in_config_passes_the_check_and_what_is_printed_passes_it_again() {
    let folder = TempDir::new().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files: Vec<PathBuf> = config.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<&PathBuf> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    assert!(files.len() >= 5, "{files:?}");

    for file in files {
        let name = file.file_name().unwrap().to_string_lossy();
        let text = std::fs::read_to_string(file).unwrap();
        let printed = accepted(&written(folder.path(), &name, &with_files(&text, folder.path())));

        assert!(!printed.contains(CANARY), "a password: {printed}");
        let again = accepted(&written(folder.path(), "again.toml", &printed));
        assert_eq!(again, printed, "{name}");
    }
}

#[test]
fn the_example_says_what_holds_without_any_file() {
    let folder = TempDir::new().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");

    assert_eq!(accepted(&example), accepted(&written(folder.path(), "empty.toml", "")));
}

#[test]
fn the_environment_wins_over_the_file() {
    let folder = TempDir::new().unwrap();
    let file = written(folder.path(), "a.toml", "[storage]\ncapacity = \"1GiB\"\n");

    let output = check(&file).env("WHARF__STORAGE__CAPACITY", "7GiB").output().unwrap();

    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("capacity = \"7GiB\""), "{}", said(&output));
}

/// The same settings with files that are there in place of those on a plant's machine.
fn with_files(text: &str, folder: &Path) -> String {
    let authority = Authority::new();
    let (certificate, key) = authority.leaf_files(folder);
    let password = written(folder, "password", CANARY);
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let files = [
        ("cert_file", certificate),
        ("key_file", key),
        ("ca_file", authority.ca_file(folder)),
        ("password_file", password),
        ("requests", folder.join("requests.log")),
        ("log", folder.join("audit.log")),
    ];
    let line = |line: &str| {
        let file = files.iter().find(|(key, _)| line.starts_with(&format!("{key} = \"/")));
        file.map_or_else(|| line.to_owned(), |(key, path)| format!("{key} = {path:?}"))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn check(file: &Path) -> Command {
    wharf(Path::new("."), &["check", "--config", &file.to_string_lossy()])
}

/// The check of `wharf.toml` in `folder`, by that name.
fn check_in(folder: &Path) -> Command {
    wharf(folder, &["check", "--config", "wharf.toml"])
}

/// The program in `folder`, with no settings in its environment.
fn wharf(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(node::binary());
    command.args(arguments).current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF__")) {
        command.env_remove(name);
    }
    command
}

/// What is told, but for what is said of the machine's own disk, which differs from one to the next.
fn without_place(told: &str) -> String {
    let mut is_place = false;
    let mut kept = String::new();
    for line in told.split_inclusive('\n') {
        if line.starts_with("wharf.toml") {
            is_place = line.contains("warning: storage.path: ");
        }
        if !is_place {
            kept += line;
        }
    }
    kept
}

/// What is printed of a file that must be right.
fn accepted(file: &Path) -> String {
    let output = check(file).output().unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
