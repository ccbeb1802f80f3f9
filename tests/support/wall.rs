//! A node whose clock on the wall a test sets: libfaketime tells the whole program, its libraries included, another time.

use std::path::{Path, PathBuf};

use super::needs;
use super::node::Node;

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// Whether this machine can run `test`, which wants such a node.
pub fn can_be_set(test: &str) -> bool {
    needs::met(test, "nothing", &["faketime"])
}

/// Gives the node another wall clock; the monotonic one is left to it.
pub fn told_the_time(node: &mut Node, time: &str) {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    node.environment("LD_PRELOAD", library.expect("libfaketime, where Debian keeps it"));
    node.environment("FAKETIME_TIMESTAMP_FILE", &clock_of(node).to_string_lossy());
    node.environment("FAKETIME_NO_CACHE", "1");
    node.environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    node.environment("NO_FAKE_STAT", "1");
    node.environment("TZ", "UTC");
    set(node, time);
}

/// Sets its clock: `@` and a moment, or seconds beside the real one.
pub fn set(node: &Node, time: &str) {
    let next = clock_of(node).with_extension("next");
    std::fs::write(&next, format!("{time}\n")).unwrap();
    std::fs::rename(next, clock_of(node)).unwrap();
}

fn clock_of(node: &Node) -> PathBuf {
    node.folder().join("clock")
}
