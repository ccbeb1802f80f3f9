//! Machines in a row: network namespaces, each linked with the one above and the one below, and with nothing else.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clients::needs;

/// The machines, from the top down. Dropping them takes them down.
pub struct Hosts(Vec<Host>);

/// One machine.
#[derive(Clone)]
pub struct Host {
    /// What it is called in a test.
    pub name: &'static str,
    /// Its namespace: no other test and no other run has it.
    namespace: String,
    /// Where the machine below finds it; the lowest has nobody below.
    pub address: String,
}

impl Hosts {
    /// Machines of these names, from the top down.
    pub fn in_a_row(names: &[&'static str]) -> Self {
        static ROWS: AtomicU32 = AtomicU32::new(0);
        let row = ROWS.fetch_add(1, Ordering::Relaxed);
        let mut hosts = Self(Vec::new());
        for (level, &name) in names.iter().enumerate() {
            let namespace = format!("wharf-{}-{row}-{name}", std::process::id());
            ip(&["netns", "add", &namespace]);
            // From here on dropping takes it down.
            hosts.0.push(Host {
                name,
                namespace,
                address: format!("10.77.{level}.1"),
            });
            hosts.0[level].configure();
            if level > 0 {
                hosts.link(level);
            }
        }
        hosts
    }

    pub fn of(&self, name: &str) -> &Host {
        self.0
            .iter()
            .find(|host| host.name == name)
            .expect("a host of this name")
    }

    /// A network of two addresses between this machine and the one above.
    fn link(&self, level: usize) {
        let (above, below) = (&self.0[level - 1], &self.0[level]);
        let link = ["link", "add", "lower", "netns", &above.namespace, "type", "veth"];
        ip(&[&link[..], &["peer", "name", "upper", "netns", &below.namespace]].concat());
        above.ip(&["addr", "add", &format!("{}/30", above.address), "dev", "lower"]);
        below.ip(&["addr", "add", &format!("10.77.{}.2/30", level - 1), "dev", "upper"]);
        above.ip(&["link", "set", "lower", "up"]);
        below.ip(&["link", "set", "upper", "up"]);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.0 {
            // What still runs there keeps its network until it ends; nobody else sees it.
            let _ = Command::new("ip")
                .env("PATH", needs::path())
                .args(["netns", "del", &host.namespace])
                .status();
        }
    }
}

impl Host {
    /// A command that will run on this machine.
    pub fn command(&self, program: &str) -> Command {
        // Not `ip netns exec`: it hides /sys/fs/cgroup, without which dockerd does not start.
        let mut command = Command::new("nsenter");
        command.env("PATH", needs::path());
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg("--")
            .arg(program);
        command
    }

    /// Whether somebody accepts connections at this address, seen from here.
    pub fn reaches(&self, address: &str, port: u16) -> bool {
        let mut curl = self.command("curl");
        let url = format!("http://{address}:{port}/v2/");
        let output = curl
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "3",
                "--output",
                "/dev/null",
                &url,
            ])
            .output();
        output.expect("curl").status.success()
    }

    /// Loopback, and no way from one network to the other.
    fn configure(&self) {
        self.ip(&["link", "set", "lo", "up"]);
        let mut shell = self.command("sh");
        let closed = shell.args(["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]).status();
        assert!(closed.expect("sh").success(), "{} forwards packets", self.name);
    }

    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.namespace], arguments].concat());
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .env("PATH", needs::path())
        .args(arguments)
        .output()
        .expect("ip");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
