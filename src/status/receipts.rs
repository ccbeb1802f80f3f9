//! How far up a push has got: this node's word, and behind it that of every layer above.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::oci::{Digest, Name, Reference, Registry, Repository};
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
    /// Whether it is there; `null` if nobody can tell now.
    pub has: Option<bool>,
    /// Since when, if it was pushed there: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Whether it is still to go on from there: `pending`, `parked`, or `held` for another parent.
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
        receipt.layers.push(Layer::Own(own));
        let Some(parent) = parent else { return receipt };
        match self.above(parent, repository, digest, hops).await {
            Ok(Some(Answer { layers, unknown })) => {
                receipt.layers.extend(layers.into_iter().map(Layer::Above));
                receipt.unknown = unknown;
            }
            // It keeps no receipts: it is asked whether it has it.
            Ok(None) => {
                let has = self.is_above(parent, repository, digest, hops).await;
                receipt.unknown = has.as_ref().err().map(ToString::to_string);
                receipt.layers.push(Layer::Own(delivered(parent, debt, has.ok())));
            }
            Err(error) => {
                receipt.layers.push(Layer::Own(delivered(parent, debt, None)));
                receipt.unknown = Some(error.to_string());
            }
        }
        receipt
    }

    fn own(&self, repository: &Repository, digest: &Digest, debt: Option<&Debt>) -> Own {
        Own {
            node: self.node.clone(),
            has: Some(self.store.linked(repository, digest).is_some()),
            at: debt
                .map(|debt| debt.at)
                .or_else(|| self.store.pushed_at(repository, digest)),
            owed: debt.and_then(|debt| match debt.state {
                State::Owed if !self.is_to_parent(debt) => Some("held"),
                State::Owed => Some("pending"),
                State::Parked { .. } => Some("parked"),
                State::Paid { .. } | State::Undone { .. } | State::Dropped => None,
            }),
        }
    }

    fn is_to_parent(&self, debt: &Debt) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.address() == debt.to)
    }

    /// Whether a registry that keeps no receipts has it.
    async fn is_above(
        &self,
        parent: &Parent,
        repository: &Repository,
        digest: &Digest,
        hops: &Hops,
    ) -> Result<bool, Error> {
        let reference = Reference::Digest(*digest);
        let ask = Ask {
            head: true,
            is_spare: true,
            ..Ask::new(Class::Interactive, repository, What::Manifest(&reference), hops, ANSWER)
        };
        match parent.ask(ask).await {
            Ok(_) => Ok(true),
            Err(Error::Absent { .. }) => Ok(false),
            Err(error) => Err(error),
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
        if let Some(away) = parent.is_shut(Class::Interactive) {
            return Err(away);
        }
        if !parent.is_wharf() {
            return Ok(None);
        }
        let ask = Ask::new(Class::Interactive, repository, What::Receipts(digest), hops, ANSWER);
        let bytes = match parent.ask(ask).await {
            Ok(answer) => answer.bytes(MOST).await?,
            Err(Error::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = serde_json::from_slice(&bytes).map_err(|error| Error::Garbled {
            layer: parent.name().to_owned(),
            reason: format!("no receipt: {error}"),
        });
        read.map(Some)
    }
}

/// A registry above, and when this node delivered it there.
fn delivered(parent: &Parent, debt: Option<&Debt>, has: Option<bool>) -> Own {
    // What an earlier parent was given says nothing of this one.
    let debt = debt.filter(|debt| debt.to == parent.address());
    let at = debt.and_then(|debt| match debt.state {
        State::Paid { at } => Some(at),
        _ => None,
    });
    Own {
        node: parent.name().to_owned(),
        has,
        at,
        owed: None,
    }
}
