//! The daemons of Docker and of containerd, each with a folder, a socket and nothing of the machine's.

use std::path::Path;
use std::process::Command;

use crate::clients::image::Layout;
use crate::clients::running::{self, Running};
use crate::support::needs::path;

/// A program with these arguments, found where Debian keeps what only root starts, too.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path()).args(arguments);
    command
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A daemon of Docker's.
pub struct Docker {
    socket: String,
    _daemon: Running,
}

impl Docker {
    /// Keeps all that is its own in `folder`.
    pub fn start(folder: &Path) -> Self {
        let daemon = command("dockerd", &[]);
        Self::started(folder, daemon)
    }

    /// The same, with `own` in the place of `/etc/docker`, and by this proxy to all that it pulls.
    pub fn start_with(folder: &Path, own: &Path, proxy: &str) -> Self {
        let script = "mkdir -p /etc/docker && mount --bind \"$0\" /etc/docker && exec dockerd \"$@\"";
        let mut daemon = command("unshare", &["--mount", "sh", "-c", script, text(own)]);
        daemon.env("HTTPS_PROXY", proxy).env("NO_PROXY", "");
        Self::started(folder, daemon)
    }

    fn started(folder: &Path, mut daemon: Command) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let socket = format!("unix://{}", at("sock"));
        daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        daemon.args(["--storage-driver=vfs", "--data-root", &at("data")]);
        daemon.args(["--exec-root", &at("exec"), "--pidfile", &at("pid"), "--host", &socket]);
        let daemon = Running::start("dockerd", daemon, folder.join("log")).ended_gently();
        let daemon = daemon.until("it answers", || {
            let info = command("docker", &["--host", &socket, "info"]).output();
            info.is_ok_and(|info| info.status.success())
        });
        Self {
            socket,
            _daemon: daemon,
        }
    }

    /// A command for it.
    pub fn client(&self, arguments: &[&str]) -> Command {
        command("docker", &[&["--host", &self.socket], arguments].concat())
    }
}

/// A daemon of containerd's.
pub struct Containerd {
    socket: String,
    _daemon: Running,
}

impl Containerd {
    /// Keeps all that is its own in `folder`.
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("sock").display().to_string();
        let config = folder.join("config.toml");
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            folder.join("root"),
            folder.join("state"),
        );
        std::fs::write(&config, settings).unwrap();
        let daemon = command("containerd", &["--config", text(&config)]);
        let daemon = Running::start("containerd", daemon, folder.join("log")).ended_gently();
        let daemon = daemon.until("it answers", || {
            let version = command("ctr", &["--address", &socket, "version"]).output();
            version.is_ok_and(|version| version.status.success())
        });
        Self {
            socket,
            _daemon: daemon,
        }
    }

    /// A command for it.
    pub fn client(&self, arguments: &[&str]) -> Command {
        command("ctr", &[&["--address", &self.socket], arguments].concat())
    }

    /// Takes the image in under this name, from an archive that is made in `folder`.
    pub fn import(&self, image: &Layout, folder: &Path, reference: &str) {
        let archive = folder.join("archive.tar");
        if !archive.exists() {
            let mut tar = command("tar", &["-cf", text(&archive), "."]);
            tar.current_dir(image.folder());
            running::output(tar);
        }
        let all = ["images", "import", "--all-platforms", "--no-unpack", "--index-name"];
        running::output(self.client(&[&all[..], &[reference, text(&archive)]].concat()));
    }
}
