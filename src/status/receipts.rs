//! How far up a push has got: this node's word, and behind it that of every layer above.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::oci::{Digest, Name, Registry, Repository};
use crate::parent::{Ask, Class, Error, Hops, NodeId, Parent, What};
use crate::store::{Debt, State, Store};

/// How long the layers above may take to say it.
const ANSWER: Duration = Duration::from_secs(5);

/// Bytes of their answer.
const MOST: usize = 256 * 1024;

/// Tells how far a push has got. Cheap to clone.
#[derive(Clone)]
pub struct Receipts {
    node: String,
    store: Store,
    /// The registry above, and whose names it is pushed to by.
    parent: Option<Parent>,
    registry: Registry,
}

/// How far up a manifest is.
#[derive(Debug, Serialize)]
pub struct Receipt {
    /// Where it was asked for.
    pub repository: String,
    /// Of the manifest.
    pub digest: String,
    /// From this node upwards.
    pub layers: Vec<Layer>,
    /// Why the list does not go on to the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// What one layer says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Layer {
    /// This node, or a registry that is none.
    Own(Own),
    /// One above, in its own words.
    Above(Box<RawValue>),
}

/// What this node knows of one layer.
#[derive(Debug, Serialize)]
pub struct Own {
    /// The node's name, or the registry's.
    pub node: String,
    /// Whether it is there.
    pub has: bool,
    /// Since when, if it was pushed there: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Whether it is still to go on from there, `pending` or `parked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owed: Option<&'static str>,
}

#[derive(Deserialize)]
struct Answer {
    layers: Vec<Box<RawValue>>,
    unknown: Option<String>,
}

impl Receipts {
    /// Of the node `node`, whose pushes of names of `registry` go to `parent`.
    pub fn new(node: &NodeId, store: Store, parent: Option<Parent>, registry: Registry) -> Self {
        Self {
            node: node.name.clone(),
            store,
            parent,
            registry,
        }
    }

    /// The repository that a bare name is pushed to.
    pub fn named(&self, name: Name) -> Repository {
        Repository::new(self.registry.clone(), name)
    }

    /// How far up `digest` of `repository` has got. The layers above are asked.
    pub async fn of(&self, repository: &Repository, digest: &Digest, hops: &Hops) -> Receipt {
        let debts = self.store.debts(repository);
        let debt = debts.iter().rev().find(|debt| debt.pushed() == Some(digest));
        let own = self.own(repository, digest, debt);
        let mut receipt = Receipt {
            repository: repository.to_string(),
            digest: digest.to_string(),
            layers: Vec::new(),
            unknown: None,
        };
        let parent = self.parent.as_ref().filter(|_| repository.registry == self.registry);
        let is_here = own.has;
        receipt.layers.push(Layer::Own(own));
        let Some(parent) = parent else { return receipt };
        match self.above(parent, repository, digest, hops).await {
            Ok(Some(Answer { layers, unknown })) => {
                receipt.layers.extend(layers.into_iter().map(Layer::Above));
                receipt.unknown = unknown;
            }
            // It keeps no receipts: what we know of it is all.
            Ok(None) => receipt.layers.push(Layer::Own(below(parent, debt, is_here))),
            Err(error) => {
                receipt.layers.push(Layer::Own(below(parent, debt, is_here)));
                receipt.unknown = Some(error.to_string());
            }
        }
        receipt
    }

    fn own(&self, repository: &Repository, digest: &Digest, debt: Option<&Debt>) -> Own {
        Own {
            node: self.node.clone(),
            has: self.store.linked(repository, digest).is_some(),
            at: debt
                .map(|debt| debt.at)
                .or_else(|| self.store.pushed_at(repository, digest)),
            owed: debt.and_then(|debt| match debt.state {
                State::Owed => Some("pending"),
                State::Parked { .. } => Some("parked"),
                State::Paid { .. } | State::Dropped => None,
            }),
        }
    }

    /// What the registry above says; `None` if it says nothing of such things.
    async fn above(
        &self,
        parent: &Parent,
        repository: &Repository,
        digest: &Digest,
        hops: &Hops,
    ) -> Result<Option<Answer>, Error> {
        if let Some(away) = parent.away() {
            return Err(away);
        }
        if !parent.is_wharf() {
            return Ok(None);
        }
        let ask = Ask {
            class: Class::Interactive,
            head: false,
            repository,
            what: What::Receipts(digest),
            range: None,
            hops,
            budget: ANSWER,
            patience: ANSWER,
            is_spare: false,
            place: None,
        };
        let mut answer = match parent.ask(ask).await {
            Ok(answer) => answer,
            Err(Error::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MOST {
                let layer = parent.name().to_owned();
                return Err(Error::TooLarge {
                    layer,
                    limit_bytes: MOST,
                });
            }
        }
        let read = serde_json::from_slice(&bytes).map_err(|error| Error::Garbled {
            layer: parent.name().to_owned(),
            reason: format!("no receipt: {error}"),
        });
        read.map(Some)
    }
}

/// What this node knows of the registry above.
fn below(parent: &Parent, debt: Option<&Debt>, is_here: bool) -> Own {
    let at = debt.and_then(|debt| match debt.state {
        State::Paid { at } => Some(at),
        _ => None,
    });
    Own {
        node: parent.name().to_owned(),
        // What was not pushed here came from there.
        has: at.is_some() || debt.is_none() && is_here,
        at,
        owed: None,
    }
}
