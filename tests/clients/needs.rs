//! What a test cannot do without.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Whether the test can be played: as root, with all `programs`. If not, that is said even when the output of tests
/// is captured; under `CI=true` the test fails.
pub fn met(test: &str, programs: &[&str]) -> bool {
    let always = ["docker-registry", "ip", "nsenter", "unshare", "curl", "skopeo", "gzip"];
    let mut missing: Vec<_> = always
        .iter()
        .chain(programs)
        .filter(|program| !installed(program))
        .copied()
        .collect();
    if !is_root() {
        missing.push("root (for network namespaces)");
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

#[test]
fn a_missing_client_is_named_out_loud_and_fails_the_test_in_ci() {
    let played = |ci: &str| {
        let mut own = std::process::Command::new(std::env::current_exe().expect("this program"));
        // Output is captured, as it is by default; no folder has any client.
        own.args([
            "--exact",
            "clients::podman::podman_pulls_two_registries_and_again_with_the_upper_two_layers_stopped",
        ])
        .env("PATH", "/nowhere")
        .env("CI", ci)
        .env_remove("RUST_TEST_NOCAPTURE");
        let output = own.output().expect("this program runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            said.contains("LEFT OUT: podman pull: missing") && said.contains(", podman"),
            "{said}"
        );
        output.status.success()
    };

    assert!(played(""));
    assert!(!played("true"));
}
