//! The room against real sockets.

mod fault;
mod login;
mod naming;
mod redirect;
pub(super) mod server;
mod transport;

use std::time::Duration;

use super::*;
use crate::oci::{Digest, Repository};

/// What every blob in these tests is.
const CONTENT: &str = "the content of a blob";

fn node() -> NodeId {
    NodeId {
        name: "l4".to_owned(),
        id: "0001".to_owned(),
    }
}

fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new())
}

/// No window closes, and nothing bounds the line.
fn given() -> Given {
    Given {
        hours: Hours::always(Clock::system()),
        bandwidth: Live::new(Bandwidth::default()),
        notes: Notes::forgotten(),
    }
}

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap()
}

/// The parent at `url`, asked anonymously, through which other registries may be asked.
fn parent(url: &str) -> Parent {
    parent_of(Config::at(url).unwrap())
}

fn parent_of(config: Config) -> Parent {
    let registry = config.namespace.clone();
    Parent::new(config, registry, &node(), true, given(), Clock::system(), &metrics())
}

/// A question about a blob, to be changed as a test wants.
struct Question {
    repository: Repository,
    digest: Digest,
    hops: Hops,
    head: bool,
    range: Option<(u64, Option<u64>)>,
    budget: Duration,
}

fn blob() -> Question {
    blob_of("", "a/b")
}

fn blob_of(registry: &str, name: &str) -> Question {
    let registry = match registry {
        "" => Registry::own(),
        named => named.parse().unwrap(),
    };
    Question {
        repository: Repository::new(registry, name.parse().unwrap()),
        digest: Digest::of(CONTENT.as_bytes()),
        hops: Hops::default(),
        head: false,
        range: None,
        budget: Duration::from_secs(10),
    }
}

impl Question {
    async fn ask(&self, parent: &Parent) -> Result<Answer, Error> {
        let ask = Ask {
            class: Class::Interactive,
            head: self.head,
            repository: &self.repository,
            what: What::Blob(&self.digest),
            known: None,
            range: self.range,
            hops: &self.hops,
            budget: self.budget,
            patience: self.budget,
            is_spare: false,
            place: None,
            paid: 0,
        };
        parent.ask(ask).await
    }

    async fn content(&self, parent: &Parent) -> Result<String, Error> {
        let bytes = self.ask(parent).await?.bytes(1 << 20).await?;
        Ok(String::from_utf8(bytes.into()).unwrap())
    }
}
