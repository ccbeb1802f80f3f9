//! Debian's registry, as its package has it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::needs;
use crate::support::ports::{Family, free};

/// One of them, with deletes. Dropping it kills it and removes its folder.
pub struct DockerRegistry {
    address: SocketAddr,
    folder: TempDir,
    child: Option<Child>,
}

impl DockerRegistry {
    pub async fn start() -> Self {
        let (folder, address) = (TempDir::new().expect("a temporary folder"), free(Family::V4));
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {:?}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n",
            folder.path().join("data").display().to_string()
        );
        fs::write(folder.path().join("config.yml"), text).expect("a writable folder");
        let mut registry = Self {
            address,
            folder,
            child: None,
        };
        registry.start_again().await;
        registry
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// On the folder and the address that it had.
    pub async fn start_again(&mut self) {
        let mut command = Command::new("docker-registry");
        command
            .env("PATH", needs::path())
            .arg("serve")
            .arg(self.folder.path().join("config.yml"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("it runs"));
        for _ in 0..4000 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("docker-registry does not listen");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}
