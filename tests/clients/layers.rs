//! Five nodes, each on a machine that reaches the one above and the one below and nobody else: what is told, what is brought, and all
//! that leaves each of them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::clients::hosts::{Host, Hosts};
use crate::clients::image::Layout;
use crate::clients::needs;
use crate::clients::plant::push;
use crate::clients::running::{self, Running};
use crate::support::node;
use crate::support::wall::{environment, set_in, time};

const PORT: u16 = 5000;
const ADMIN: u16 = 5001;
const ROW: [&str; 6] = ["l5", "l4", "l3", "l2", "l1", "l0"];

/// The one that keeps to a window, in the middle.
const WITH_WINDOW: &str = "l3";

/// A node on its machine, which selects everything or nothing.
fn start(host: &Host, above: Option<&Host>, selects: bool, folder: &Path) -> Running {
    let own = folder.join(host.name);
    std::fs::create_dir(&own).expect("a writable folder");
    let (mode, parent) = match above {
        Some(above) => (
            "mirror",
            format!("[parent]\nurl = \"http://{}:{PORT}\"\n", above.address),
        ),
        None => ("registry", "[push]\nanonymous = true\n".to_owned()),
    };
    let rules = if selects {
        "[[sync]]\nrepositories = [\"**\"]\n"
    } else {
        ""
    };
    let schedule = match host.name == WITH_WINDOW {
        true => "[schedule]\ncron = \"0 22 * * *\"\nwindow = \"PT4H\"\n",
        false => "",
    };
    let text = format!(
        "mode = \"{mode}\"\n[node]\nname = \"{}\"\n[listen]\naddress = \"0.0.0.0:{PORT}\"\n\
         [admin]\naddress = \"127.0.0.1:{ADMIN}\"\n\
         [storage]\npath = {:?}\ncapacity = \"1GiB\"\n{parent}{rules}{schedule}",
        host.name,
        own.join("data"),
    );
    let config = own.join("wharf.toml");
    std::fs::write(&config, text).expect("a writable folder");
    let mut command = host.command(node::binary().to_str().expect("UTF-8"));
    command.arg("serve").arg("--config").arg(&config).current_dir(&own);
    if host.name == WITH_WINDOW {
        set_in(&own, &time(0, 22, 30));
        command.envs(environment(&own));
    }
    let running = Running::start(host.name, command, own.join("log"));
    running.until("it is well", || admin(host, "/healthz").is_some())
}

/// All IPv4 and IPv6 packets of a machine but those to itself, one a line.
fn captured(host: &Host, folder: &Path) -> Running {
    let mut command = host.command("tcpdump");
    command.args(["-i", "any", "-nn", "-l", "-q", "--immediate-mode", "not host 127.0.0.1"]);
    Running::start("tcpdump", command, folder.join(format!("{}.packets", host.name)))
}

fn packets(host: &Host, folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(format!("{}.packets", host.name))).expect("a capture");
    text.lines()
        .filter(|line| line.contains(" IP "))
        .map(str::to_owned)
        .collect()
}

/// Those that crossed the line upwards.
fn upwards(host: &Host, folder: &Path) -> Vec<String> {
    let all = packets(host, folder).into_iter();
    all.filter(|line| line.contains(" upper ")).collect()
}

/// What the admin port says, if it says 200.
fn admin(host: &Host, path: &str) -> Option<String> {
    let mut curl = host.command("curl");
    curl.args(["--silent", "--fail", &format!("http://127.0.0.1:{ADMIN}{path}")]);
    let output = curl.output().expect("curl");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long it takes until the tag is whole there.
fn comes(host: &Host, name: &str, within: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let told = admin(host, &format!("/api/complete?name={name}"));
        let told: Value = told
            .and_then(|told| serde_json::from_str(&told).ok())
            .unwrap_or_default();
        if told["complete"] == true {
            return began.elapsed();
        }
        let log = admin(host, "/api/sync").unwrap_or_default();
        assert!(
            began.elapsed() < within,
            "{name} is not at {} after {within:?}: {log}",
            host.name
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listens(host: &Host) {
    let began = Instant::now();
    while !admin(host, "/api/sync").is_some_and(|told| told.contains("\"live\"") && told.contains("\"Succeeded\"")) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{} listens to nobody",
            host.name
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn in_a_chain_of_five_a_push_reaches_the_bottom_and_each_speaks_to_its_parent_alone_and_to_nobody_outside_its_window() {
    if !needs::met("five layers", &["tcpdump", "faketime"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let hosts = Hosts::in_a_row(&ROW);
    let of = |name: &str| hosts.of(name);
    let images: Vec<Layout> = ["one", "two", "three"]
        .into_iter()
        .map(|name| Layout::two_platforms(&folder.path().join(name), 200_000))
        .collect();
    let captures: Vec<Running> = ROW.iter().map(|name| captured(of(name), folder.path())).collect();
    let mut nodes = vec![start(of("l5"), None, false, folder.path())];
    for (at, name) in ROW.iter().enumerate().skip(1).take(4) {
        nodes.push(start(of(name), Some(of(ROW[at - 1])), *name == "l1", folder.path()));
    }
    listens(of("l1"));

    push(of("l5"), &images[0], PORT, "plant/app:v1");
    let took = comes(of("l1"), "plant/app:v1", Duration::from_secs(2));
    println!("whole at the bottom of five {took:?} after the push");

    // The window in the middle closes, for whatever nobody waits for, also if it is a node below that does not.
    set_in(&folder.path().join(WITH_WINDOW), &time(1, 2, 0));
    std::thread::sleep(Duration::from_secs(10));
    let before = upwards(of(WITH_WINDOW), folder.path()).len();
    push(of("l5"), &images[1], PORT, "plant/app:v2");
    std::thread::sleep(Duration::from_secs(8));
    let after = upwards(of(WITH_WINDOW), folder.path()).split_off(before);
    let sent: Vec<&String> = after.iter().filter(|line| line.contains(" Out ")).collect();
    assert!(
        sent.iter().all(|line| line.ends_with("tcp 0")),
        "payload outside the window: {sent:?}"
    );
    // The parent may answer what was hung up on, once, and is told that nobody is there.
    assert!(sent.len() <= 2, "it speaks to its parent outside the window: {sent:?}");
    assert!(admin(of("l1"), "/api/complete?name=plant/app:v2").is_none());
    // A client at the bottom is served all the same.
    let mut pull = of("l1").command("skopeo");
    pull.args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://127.0.0.1:{PORT}/plant/app:v2"),
    ]);
    running::output(pull);
    set_in(&folder.path().join(WITH_WINDOW), &time(1, 22, 0));
    comes(of("l1"), "plant/app:v2", Duration::from_secs(90));

    // A new node comes up from its parent alone.
    nodes.push(start(of("l0"), Some(of("l1")), true, folder.path()));
    comes(of("l0"), "plant/app:v1", Duration::from_secs(20));
    comes(of("l0"), "plant/app:v2", Duration::from_secs(20));

    drop(nodes);
    drop(captures);
    for (at, name) in ROW.iter().enumerate() {
        let seen = packets(of(name), folder.path());
        assert!(at == 0 || seen.len() > 20, "{name}: {} packets", seen.len());
        // Upwards to the parent's port; downwards with the one below, which came from there.
        let parent = at
            .checked_sub(1)
            .map(|above| format!("{}.{PORT}", of(ROW[above]).address));
        let own = format!("{}.{PORT}", of(name).address);
        for line in seen {
            let is_up = line.contains(" upper ") && parent.as_ref().is_some_and(|parent| line.contains(&**parent));
            let is_down = line.contains(" lower ") && line.contains(&*own);
            assert!(is_up || is_down, "{name} spoke to somebody else: {line}");
        }
    }
}
