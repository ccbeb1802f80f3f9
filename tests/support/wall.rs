//! A node whose clock on the wall a test sets: libfaketime tells the whole program, its libraries included, another time.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

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
    set(node, time);
    for (name, value) in environment(node.folder()) {
        node.environment(name, &value);
    }
}

/// Sets its clock: `@` and a moment, or seconds beside the real one.
pub fn set(node: &Node, time: &str) {
    set_in(node.folder(), time);
}

/// The same of a program that was started with this folder's [`environment`].
pub fn set_in(folder: &Path, time: &str) {
    let clock = folder.join("clock");
    let next = clock.with_extension("next");
    std::fs::write(&next, format!("{time}\n")).unwrap();
    std::fs::rename(next, clock).unwrap();
}

/// What has a program look at the clock in this folder.
pub fn environment(folder: &Path) -> [(&'static str, String); 6] {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime, where Debian keeps it");
    let clock = folder.join("clock").display().to_string();
    [
        ("LD_PRELOAD", (*library).to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ]
}

/// How the clock is to be changed, so that it is that time of the day.
pub fn time(day: i64, hour: i64, minute: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let then = (now / 86_400 + day) * 86_400 + hour * 3600 + minute * 60;
    format!("{:+}", then - now)
}
