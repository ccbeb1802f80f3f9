//! The road from a node to its parent: plain, or by TLS with an authority of its own. What holds of credentials holds on
//! both.

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::node::Setup;
use crate::support::ports::Family;
use crate::support::upstream::Upstream;

pub struct Road {
    pub authority: Authority,
    pub folder: TempDir,
    is_tls: bool,
}

impl Road {
    pub fn plain() -> Self {
        Self {
            authority: Authority::new(),
            folder: TempDir::new().expect("a temporary folder"),
            is_tls: false,
        }
    }

    pub fn tls() -> Self {
        Self {
            is_tls: true,
            ..Self::plain()
        }
    }

    /// Each in turn; a claim that fails says on which.
    pub fn both() -> [Self; 2] {
        [Self::plain(), Self::tls()]
    }

    pub async fn upstream(&self) -> Upstream {
        self.upstream_on(Family::V4).await
    }

    pub async fn upstream_on(&self, family: Family) -> Upstream {
        Upstream::over(family, self.is_tls.then_some(&self.authority)).await
    }

    /// A mirror of `parent` that trusts the road's authority.
    pub fn below(&self, parent: &Upstream) -> Setup {
        self.below_url(&parent.url())
    }

    pub fn below_url(&self, url: &str) -> Setup {
        self.trusting(Setup::below(url))
    }

    fn trusting(&self, setup: Setup) -> Setup {
        if !self.is_tls {
            return setup;
        }
        let file = self.authority.ca_file(self.folder.path());
        setup.parent(&format!("ca_file = \"{}\"", file.display()))
    }

    /// Writes a file that only this test has, and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a writable folder");
        // As secrets must be kept.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("our own file");
        path.display().to_string()
    }
}
