//! The answers that a node has before it looks at a body, and where it gives them.

use bytes::Bytes;

use super::tap::Tap;
use crate::support::authority::Authority;
use crate::support::client::{Client, Request, blob, manifest};
use crate::support::content::{Image, random};
use crate::support::node::{Node, Setup};
use crate::support::upstream::Upstream;

/// Everybody may pull and push some repositories; what a manifest may have is little.
const SECTIONS: &str = r#"
[limits]
manifest = "64KiB"
[auth]
[[permission]]
identities = ["anonymous"]
repositories = ["open/**", "smuggled/**"]
actions = ["push"]
"#;

/// One kind of answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Early {
    /// A manifest from memory.
    Hit,
    /// The same without its body.
    HitHead,
    /// A blob from the disk, past the session of pingora.
    HitBlob,
    /// A blob from the parent.
    Miss,
    /// 401.
    Stranger,
    /// 404.
    Absent,
    /// 405.
    NotAllowed,
    /// 413.
    TooLarge,
    /// 400, of a manifest that is none, and was read to its end.
    Nonsense,
}

impl Early {
    pub const ALL: [Self; 9] = [
        Self::Hit,
        Self::HitHead,
        Self::HitBlob,
        Self::Miss,
        Self::Stranger,
        Self::Absent,
        Self::NotAllowed,
        Self::TooLarge,
        Self::Nonsense,
    ];

    /// Which of the six it is, or the one that is not early.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Hit | Self::HitHead | Self::HitBlob => "hit",
            Self::Miss => "miss",
            Self::Stranger => "401",
            Self::Absent => "404",
            Self::NotAllowed => "405",
            Self::TooLarge => "413",
            Self::Nonsense => "read",
        }
    }

    pub fn method(self) -> &'static str {
        match self {
            Self::Hit | Self::HitBlob | Self::Miss | Self::Stranger | Self::Absent => "GET",
            Self::HitHead => "HEAD",
            Self::NotAllowed | Self::TooLarge | Self::Nonsense => "PUT",
        }
    }

    /// Bytes that a body needs beside others to be answered so.
    pub fn filler(self) -> usize {
        if self == Self::TooLarge { 70_000 } else { 10 }
    }

    fn status(self) -> u16 {
        match self {
            Self::Hit | Self::HitHead | Self::HitBlob | Self::Miss => 200,
            Self::Stranger => 401,
            Self::Absent => 404,
            Self::NotAllowed => 405,
            Self::TooLarge => 413,
            Self::Nonsense => 400,
        }
    }
}

/// A node that has each of the answers, and its parent.
pub struct Stage {
    pub parent: Upstream,
    pub tap: Tap,
    pub node: Node,
    image: Image,
}

impl Stage {
    /// Behind TLS, if there is an authority for it.
    pub async fn new(authority: Option<&Authority>) -> Self {
        let (parent, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let image = parent.new_image("open/a", "v1", &[100_000]);
        parent.new_image("locked/a", "v1", &[10]);
        let tap = Tap::to(parent.address()).await;
        let mut setup = Setup::below(&tap.url()).registry().tag_ttl("1h").more(SECTIONS);
        for line in [
            "idle_timeout = \"2s\"",
            "header_timeout = \"2s\"",
            "write_timeout = \"2s\"",
        ] {
            setup = setup.listen(line);
        }
        if let Some(authority) = authority {
            let (certificate, key) = authority.leaf_files(folder.path());
            setup = setup
                .listen(&format!("cert_file = {certificate:?}"))
                .listen(&format!("key_file = {key:?}"));
        }
        let node = setup.start().await;
        Self {
            parent,
            tap,
            node,
            image,
        }
    }

    /// A place that is answered so; for a miss, one that nobody asked for before.
    pub fn target(&self, early: Early) -> String {
        match early {
            Early::Hit | Early::HitHead => manifest("open/a", "v1"),
            Early::HitBlob => blob("open/a", &self.image.layer(0)),
            Early::Miss => {
                let bytes: Bytes = random(500);
                blob("open/a", &self.parent.blob("open/a", &bytes))
            }
            Early::Stranger => manifest("locked/a", "v1"),
            Early::Absent => manifest("open/none", "v1"),
            Early::NotAllowed => "/v2/open/a/tags/list".to_owned(),
            Early::TooLarge => manifest("open/a", "large"),
            Early::Nonsense => manifest("open/a", "nonsense"),
        }
    }

    /// Has the node give each of the answers to a request that nobody doubts.
    pub async fn rehearse(&self, client: &Client) {
        for early in Early::ALL.into_iter().chain(Early::ALL) {
            let (target, asked) = (self.target(early), self.parent.asked());
            let mut request = Request::new(early.method(), &target);
            if early.method() == "PUT" {
                request = request.body(&random(early.filler()));
            }
            let reply = client.send(request).await;
            assert_eq!(reply.status, early.status(), "{early:?}: {reply}");
            if early == Early::Miss {
                assert!(self.parent.asked() > asked, "{target} was here");
            }
        }
        let asked = self.parent.asked();
        for early in [Early::Hit, Early::HitHead, Early::HitBlob] {
            client.send(Request::new(early.method(), &self.target(early))).await;
        }
        assert_eq!(self.parent.asked(), asked, "a hit was none");
    }
}
