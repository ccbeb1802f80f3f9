//! What a test cannot do without.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Whether the test can be played: as root, who is needed `for_what`, with all `programs`. If not, that is said even when
/// the output of tests is captured; under `CI=true` the test fails.
pub fn met(test: &str, for_what: &str, programs: &[&str]) -> bool {
    let mut missing: Vec<_> = programs
        .iter()
        .filter(|program| !installed(program))
        .map(|program| (*program).to_owned())
        .collect();
    if !is_root() {
        missing.push(format!("root (for {for_what})"));
    }
    if missing.is_empty() {
        return true;
    }
    let text = format!(
        "LEFT OUT: {test}: missing {} (scripts/setup test installs it)",
        missing.join(", ")
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    // `eprintln!` would be captured and shown to nobody, as the test passes.
    let _ = writeln!(std::io::stderr(), "\n  {text}\n");
    false
}

/// `PATH` with the folders where Debian keeps what only root starts.
pub fn path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::join_paths(std::env::split_paths(&own).chain(more)).expect("paths without a colon")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn installed(program: &str) -> bool {
    std::env::split_paths(&path()).any(|folder| folder.join(program).is_file())
}
