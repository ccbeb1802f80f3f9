//! The stage of the black-box tests.

#![allow(dead_code, reason = "a part of the stage that waits for its test is no fault")]

/// A private certificate authority and what it signs.
pub mod authority;
/// Three nodes, each knowing only its parent.
pub mod chain;
/// A client that sees what really came over the wire.
pub mod client;
/// Commands about a node.
pub mod command;
/// Bytes, digests, images.
pub mod content;
/// A long way.
pub mod distance;
/// Debian's registry.
pub mod docker_registry;
/// Who may log in at a node.
pub mod logins;
/// Numbers that a node shows.
pub mod metrics;
/// The name service, as a test wants it.
pub mod names;
/// What a test cannot do without.
pub mod needs;
/// The program under test, running.
pub mod node;
/// What a node owes its parent.
pub mod owing;
/// Ports that nobody else will take.
pub mod ports;
/// What the kernel knows of a running process.
pub mod process;
/// A proxy on the way out.
pub mod proxy;
/// What clients push.
pub mod pushing;
/// From a node to its parent: plain, or by TLS.
pub mod road;
/// A node, its parent, and a blob that the parent alone has.
pub mod stage;
/// A line of few bytes per second.
pub mod thin;
/// Plain HTTP or TLS, for all.
pub mod transport;
/// A registry that can be told to lie.
pub mod upstream;
/// The clock of a node.
pub mod wall;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long any one condition may take before the test is called failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds` returns true, and fails the test naming `what` when it does not within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every source, by its path under `folder`.
pub fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("the sources are here").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push((path.strip_prefix(folder).expect("it lies below").to_owned(), text));
            }
        }
    }
    found
}
