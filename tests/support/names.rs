//! The name service of a node, as a test wants it; see `src/parent/script.rs`.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::node::Node;

pub struct Names {
    folder: TempDir,
}

impl Names {
    /// Knows `lines`: a name, the address that it has and, if another is to be connected to, that.
    pub fn of(lines: &[&str]) -> Self {
        let names = Self {
            folder: TempDir::new().expect("a temporary folder"),
        };
        names.become_(lines);
        names
    }

    /// From now on knows these.
    pub fn become_(&self, lines: &[&str]) {
        std::fs::write(self.file(), lines.join("\n")).expect("a writable folder");
    }

    /// Has the node, which is not started yet, ask here.
    pub fn serve(&self, node: &mut Node) {
        let script = format!("parent.resolve=return({})", self.file().display());
        node.environment("FAILPOINTS", &script);
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("names")
    }
}
