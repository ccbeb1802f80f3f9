//! The commands of the program under test, beside what runs in this process.

use std::process::{Command, Output};

use super::node::{Node, binary};

/// `wharf <arguments>` about a node that runs. The test goes on meanwhile: its parent may be asked.
pub async fn wharf(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--admin", &node.admin_url()]);
    let running = tokio::task::spawn_blocking(move || command.output().expect("the program under test"));
    running.await.expect("it runs")
}

/// All that it said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
