//! A node that owes pushes to its parent: how it stands, and what an operator does about it.

use std::process::Command;

use serde_json::Value;

use crate::support::client::{Reply, Request};
use crate::support::content::{Image, digest_like, random};
use crate::support::eventually;
use crate::support::node::{Node, Setup, binary};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Arrival, Upstream, What};

/// What a command ended with, and what it said on both its outputs.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub words: String,
}

/// A registry that takes pushes.
pub async fn parent() -> Upstream {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    parent
}

/// A registry below it that believes no tag for longer than it must.
pub fn below(parent: &Upstream) -> Setup {
    Setup::below(&parent.url()).registry().tag_ttl("0s")
}

impl Node {
    /// Who pushes to one of its repositories, and pulls from it.
    pub fn to(&self, repository: &str) -> Pusher {
        Pusher::of(self.client(), repository)
    }

    /// What it says of all that waits.
    pub async fn queue(&self) -> Value {
        let listing = self.admin("/api/queue").await;
        assert_eq!(listing.status, 200, "{listing}");
        listing.json()
    }

    /// What waits, the oldest first.
    pub async fn owed(&self) -> Vec<Value> {
        self.queue().await["items"].as_array().cloned().unwrap_or_default()
    }

    /// The states of what waits in a repository.
    pub async fn states(&self, repository: &str) -> Vec<String> {
        let owed = self.owed().await.into_iter();
        let of = owed.filter(|item| item["repository"] == repository);
        of.filter_map(|item| item["state"].as_str().map(str::to_owned))
            .collect()
    }

    /// Waits until nothing is owed.
    pub async fn drained(&self) {
        eventually("nothing waits for the parent", async || self.owed().await.is_empty()).await;
    }

    /// Waits until nothing is owed and nothing is kept for it.
    pub async fn released(&self) {
        eventually("nothing waits for the parent, or is kept for it", async || {
            let queue = self.queue().await;
            queue["items"] == Value::Array(Vec::new()) && queue["bytes"] == 0
        })
        .await;
    }

    /// Waits until what is owed in a repository is in these states.
    pub async fn stands(&self, repository: &str, states: &[&str]) {
        let what = format!("{repository} is {states:?}");
        eventually(&what, async || self.states(repository).await == states).await;
    }

    /// `POST /api/queue/<what>`.
    pub async fn settle(&self, what: &str) -> Reply {
        let post = Request::new("POST", &format!("/api/queue/{what}")).header("Content-Length", "0");
        let reply = self.admin_send(post).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply
    }

    /// `wharf queue <arguments>` of this node.
    pub fn wharf_queue(&self, arguments: &[&str]) -> Said {
        let admin = self.admin_url();
        let (verb, rest) = arguments.split_first().expect("a verb");
        let mut command = Command::new(binary());
        let output = command.args(["queue", verb, "--admin", &admin]).args(rest).output();
        let output = output.expect("it runs");
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            words: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Pulls so much through that all that may be evicted is.
    pub async fn crowd_out(&self, parent: &Upstream, times: usize, bytes: usize) {
        for _ in 0..times {
            let bytes = random(bytes);
            let digest = parent.blob("crowd", &bytes);
            self.to("crowd").get(&format!("blobs/{digest}")).await.assert_is(&bytes);
        }
    }

    /// What it counts, over all labels.
    pub async fn counts(&self, name: &str) -> f64 {
        self.metrics().await.sum(name, &[])
    }
}

impl Upstream {
    /// Waits until a manifest is being put under a name.
    pub async fn is_put(&self, name: &str) {
        let is_it = |arrival: &Arrival| arrival.method == "PUT" && arrival.what == What::Manifest(name.to_owned());
        eventually("it is on its way", async || self.arrivals().iter().any(is_it)).await;
    }

    /// Whether all of an image came, and the tag.
    pub fn has_image(&self, repository: &str, tag: &str, image: &Image) -> bool {
        let digest = &image.manifest.digest;
        let has = |digest: &str| (repository.to_owned(), digest.to_owned());
        let blobs = image.layers.iter().chain([&image.config]);
        let mut blobs = blobs.map(|bytes| digest_like(digest, bytes));
        let all = self.blobs();
        self.tag_of(repository, tag).as_ref() == Some(digest)
            && self.manifests().contains(&has(digest))
            && blobs.all(|blob| all.contains(&has(&blob)))
    }
}
