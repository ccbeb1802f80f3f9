//! The day of this version, which the clock of a machine that runs it cannot be before.
//!
//! `SOURCE_DATE_EPOCH`, else the date of the commit, else that of the sources' list: the same sources make the same
//! program. Whole days, so that a commit does not compile everything anew.

use std::process::Command;
use std::time::UNIX_EPOCH;

const DAY: u64 = 86_400;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    // Written at each commit. What is not there would be looked for at each build.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || git(&["log", "-1", "--format=%ct"]);
    let said = given
        .or_else(committed)
        .and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let seconds = said.or_else(listed).unwrap_or_default();
    println!("cargo::rustc-env=WHARF_BUILT={}", seconds - seconds % DAY);
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

fn listed() -> Option<u64> {
    let modified = std::fs::metadata("Cargo.lock").ok()?.modified().ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
