//! `wharf demo`: it proves its story, or says what stands in the way; and it leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{PATIENCE, node};

#[test]
fn the_demo_proves_that_a_warm_pull_needs_nobody_above_and_ends() {
    let folder = TempDir::new().unwrap();

    let _alone = alone();
    let output = demo(folder.path()).output().unwrap();

    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for proved in [
        "proved: the cloud sent the layer once (1 GET in its log)",
        "proved: no request went above Level 3 (counted: Level 4 0, Level 5 0, in the cloud's log 0)",
        "proved: nobody listens at the cloud's address",
        "proved: the answer says which layer had to do without its parent",
    ] {
        assert!(said.contains(proved), "no {proved}: {said}");
    }
    assert_eq!(
        said.matches("proved: sha256sum finds the digests that were pushed (3 of 3)")
            .count(),
        5,
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "colours in a file: {said}");
    assert_eq!(processes_of(folder.path()), [0; 0]);
}

#[test]
fn the_demo_over_tls_proves_what_the_plant_refuses_too() {
    let folder = TempDir::new().unwrap();
    let kept = folder.path().join("kept");

    let _alone = alone();
    let output = demo(folder.path()).arg("--tls").output().unwrap();

    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for proved in [
        "https://127.0.0.1:",
        "proved: no request went above Level 3 (counted: Level 4 0, Level 5 0, in the cloud's log 0)",
        "proved: who does not log in is given no image (401 from 4 of 4)",
        "proved: who does not trust the plant's authority asks nothing (4 of 4 certificates are not believed)",
        "(office/payroll: 200 from the cloud, 404 at Level 3)",
        "proved: an account that may pull does not push (403 to l4-site at Level 5)",
    ] {
        assert!(said.contains(proved), "no {proved}: {said}");
    }
    assert!(!said.contains("http://127.0.0.1"), "in the open: {said}");
    // What it was started with is settings like any other.
    for layer in ["cloud", "l5-enterprise", "l4-site", "l3-operations"] {
        let settings = std::fs::read_to_string(kept.join(layer).join("wharf.toml")).unwrap();
        assert!(
            settings.contains("cert_file") && settings.contains("[[permission]]"),
            "{settings}"
        );
        assert!(!settings.contains("wharf_"), "a password: {settings}");
    }
    let settings = std::fs::read_to_string(kept.join("l3-operations/wharf.toml")).unwrap();
    assert!(settings.contains("username = \"l3-operations\""), "{settings}");
    assert_eq!(processes_of(folder.path()), [0; 0]);
}

#[test]
fn without_its_witness_the_demo_says_how_to_get_one() {
    let folder = TempDir::new().unwrap();

    let output = demo(folder.path()).env("PATH", "/nowhere").output().unwrap();

    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("sha256sum is not in PATH") && said.contains("scripts/setup demo"),
        "{said}"
    );
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("kept");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("mine"), "mine").unwrap();

    let output = demo(folder.path()).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is not empty"), "{}", said(&output));
    assert_eq!(own.read_dir().unwrap().count(), 1);
}

#[test]
fn a_demo_without_once_stays_up_to_be_tried_until_it_is_interrupted() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(node::binary());
    command.args(["demo", "--keep"]).arg(folder.path().join("kept"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let _alone = alone();
    let mut demo = Ended(command.spawn().unwrap());

    // The story waits until a tag is old; the lines end when it fails.
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut said: Vec<String> = Vec::new();
    for line in lines.map_while(Result::ok) {
        said.push(line);
        if said.last().is_some_and(|line| line.contains("Ctrl-C ends it")) {
            break;
        }
    }
    let said = said.join("\n");

    for command in [
        "docker pull 127.0.0.1:",
        "podman pull",
        "skopeo inspect",
        "wharf client docker --config",
    ] {
        assert!(said.contains(command), "no {command}: {said}");
    }
    let lowest = said
        .split("docker pull ")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap();
    assert!(TcpStream::connect(lowest).is_ok(), "nobody listens at {lowest}");
    assert_eq!(processes_of(folder.path()).len(), 5);
    kill(Pid::from_raw(demo.0.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    until("all have ended", || processes_of(folder.path()).is_empty());
}

#[test]
fn an_interrupted_demo_ends_all_that_it_started() {
    ends_all_after(Signal::SIGINT, Some(130));
}

#[test]
fn a_demo_that_is_killed_takes_all_that_it_started_with_it() {
    ends_all_after(Signal::SIGKILL, None);
}

/// Sends `signal` as soon as the whole plant runs.
fn ends_all_after(signal: Signal, code: Option<i32>) {
    let folder = TempDir::new().unwrap();
    let _alone = alone();
    let mut demo = Ended(demo(folder.path()).spawn().unwrap());
    // The cloud, three nodes, and the demo itself.
    until("the plant runs", || processes_of(folder.path()).len() == 5);

    kill(Pid::from_raw(demo.0.id().cast_signed()), signal).unwrap();

    assert_eq!(demo.0.wait().unwrap().code(), code);
    until("all have ended", || processes_of(folder.path()).is_empty());
}

/// One plant at a time: each takes the ports that it finds free, and binds them a moment later.
fn alone() -> MutexGuard<'static, ()> {
    static PLANT: Mutex<()> = Mutex::new(());
    PLANT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(node::binary());
    command.args(["demo", "--once", "--keep"]).arg(folder.join("kept"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Those whose command line names `folder`, as that of every part of the plant does.
fn processes_of(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().expect("UTF-8");
    let names_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    let entries = std::fs::read_dir("/proc").expect("procfs").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(names_it)
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
