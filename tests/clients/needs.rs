//! What a test of a real client cannot do without.

use crate::support::needs;

pub use needs::path;

/// What every one of them is played with.
const ALWAYS: [&str; 7] = ["docker-registry", "ip", "nsenter", "unshare", "curl", "skopeo", "gzip"];

/// Whether the test can be played: as root, with all `programs` beside those that every client needs.
pub fn met(test: &str, programs: &[&str]) -> bool {
    needs::met(test, "network namespaces", &[&ALWAYS, programs].concat())
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
