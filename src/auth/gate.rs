use std::collections::HashMap;

use crate::oci::{Registry, Repository};
use crate::select::Filter;

/// Who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
}

impl Principal {
    /// What it is called, here and in what it owns.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "",
        }
    }
}

/// The right to read one repository.
#[derive(Clone, Debug)]
pub struct Permit {
    principal: Principal,
    repository: Repository,
}

/// Whose business the repository is not. Looks like one that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{repository} is not to be had here")]
pub struct Denied {
    /// The repository asked for.
    pub repository: Repository,
}

/// Decides who may do what.
pub struct Gate {
    /// What each upstream is asked for; nothing else leaves this node.
    filters: HashMap<Registry, Filter>,
}

impl Gate {
    /// `filters`: the allowed and denied repositories of every configured upstream.
    pub fn new(filters: HashMap<Registry, Filter>) -> Self {
        Self { filters }
    }

    /// A permit to read `repository`.
    ///
    /// # Errors
    ///
    /// [`Denied`] if the upstream is not configured or the repository is not among those allowed.
    pub fn admit(&self, principal: Principal, repository: &Repository) -> Result<Permit, Denied> {
        if self.allows(repository) {
            Ok(Permit {
                principal,
                repository: repository.clone(),
            })
        } else {
            Err(Denied {
                repository: repository.clone(),
            })
        }
    }

    /// Whether `repository` may be shown in lists.
    pub fn allows(&self, repository: &Repository) -> bool {
        self.filters
            .get(&repository.registry)
            .is_some_and(|filter| filter.admits(repository.name.as_str()))
    }
}

impl Permit {
    /// Of what.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// To whom.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}
