//! The files that `wharf client` writes, laid over /etc of the client's machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clients::hosts::Host;
use crate::clients::needs;
use crate::clients::running;
use crate::support::node;

/// A root folder with `etc` in it.
pub struct Settings(PathBuf);

impl Settings {
    /// What `wharf client` with these arguments writes into `root`.
    pub fn written(arguments: &[&str], root: &Path) -> Self {
        let mut command = Command::new(node::binary());
        command.arg("client").args(arguments).arg("--write").arg(root);
        running::output(command);
        Self(root.to_owned())
    }

    /// The file that belongs at this absolute path.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A command on `host` that finds these files at their paths, beside all that /etc has.
    pub fn command(&self, host: &Host, program: &str) -> Command {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        // What a program writes below /etc lands here, and no two programs share it.
        let scratch = self
            .0
            .join(format!("scratch-{}", CALLS.fetch_add(1, Ordering::Relaxed)));
        for part in ["upper", "work"] {
            std::fs::create_dir_all(scratch.join(part)).expect("a writable folder");
        }
        let (lower, scratch) = (self.0.join("etc"), scratch.display());
        let layers = format!(
            "lowerdir={}:/etc,upperdir={scratch}/upper,workdir={scratch}/work",
            lower.display()
        );
        let mut command = host.command("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "mount -t overlay overlay -o \"$0\" /etc && exec \"$@\"",
            &layers,
        ]);
        command.arg(program).env("PATH", needs::path());
        command
    }
}
