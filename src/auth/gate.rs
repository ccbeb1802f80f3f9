use std::borrow::Cow;
use std::collections::HashMap;

use super::{Action, Actions, Credentials, Guard, Principal, Stranger};
use crate::oci::{Registry, Repository};
use crate::select::Filter;

/// The right to do some things with one repository, of one who asked.
#[derive(Clone, Debug)]
pub struct Permit {
    principal: Principal,
    repository: Repository,
    actions: Actions,
}

/// Why somebody does not get what they asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Nobody knows who asks. Says nothing of what there is.
    #[error(transparent)]
    Stranger(#[from] Stranger),

    /// Who does not say who they are may not do that. Says nothing of what there is.
    #[error("log in first: this is not for everybody")]
    LogIn {
        /// What to ask a token for, as a token service takes it; `None`: for nothing in particular.
        scope: Option<String>,
    },

    /// The token was asked for something else; another one would do.
    #[error("the token was not asked for with this scope; ask for another one")]
    Scope {
        /// What to ask for.
        scope: String,
    },

    /// They may not do it, whether there is such a repository or not.
    #[error("{who} may not do this: it takes {} on {repository}; ask the operator of this node for it", action.as_str())]
    Forbidden {
        /// Who.
        who: String,
        /// What it takes.
        action: Action,
        /// As clients here name it.
        repository: String,
    },

    /// They may look at no repository at all.
    #[error("{who} may list no repository: it takes metadata/read on some; ask the operator of this node for it")]
    NoList {
        /// Who.
        who: String,
    },

    /// The upstream is not configured, or the repository is not among those allowed. Looks like one that does not exist.
    #[error("{repository} is not to be had here")]
    Elsewhere {
        /// The repository asked for.
        repository: Repository,
    },
}

/// Decides who may do what.
pub struct Gate {
    guard: Guard,
    /// What each upstream is asked for; nothing else leaves this node.
    filters: HashMap<Registry, Filter>,
    /// Whose names clients write without a registry.
    unprefixed: Registry,
}

impl Gate {
    /// `filters`: the allowed and denied repositories of every configured upstream; `unprefixed`: the one that is meant where none is
    /// named.
    pub fn new(guard: Guard, filters: HashMap<Registry, Filter>, unprefixed: Registry) -> Self {
        Self {
            guard,
            filters,
            unprefixed,
        }
    }

    /// Who finds out who asks.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Who asks.
    ///
    /// # Errors
    ///
    /// [`Denied::Stranger`].
    pub async fn identify(&self, credentials: &Credentials<'_>) -> Result<Principal, Denied> {
        Ok(self.guard.identify(credentials).await?)
    }

    /// The same where no password has to be looked at.
    pub fn identify_at_once(&self, credentials: &Credentials<'_>) -> Option<Principal> {
        self.guard.identify_at_once(credentials)?.ok()
    }

    /// A permit to do `action`, and whatever else this one may, with `repository`.
    ///
    /// # Errors
    ///
    /// [`Denied`]; whether the repository exists makes no difference to who may not know.
    pub fn admit(&self, principal: Principal, repository: &Repository, action: Action) -> Result<Permit, Denied> {
        let name = self.spelled(repository);
        let actions = principal.on(&name);
        if !actions.has(action) {
            return Err(self.refuse(&principal, &name, action));
        }
        if !self.is_served(repository) {
            return Err(Denied::Elsewhere {
                repository: repository.clone(),
            });
        }
        Ok(Permit {
            principal,
            repository: repository.clone(),
            actions,
        })
    }

    /// Whether `principal` may do `action` with `repository`.
    pub fn allows(&self, principal: &Principal, repository: &Repository, action: Action) -> bool {
        principal.on(&self.spelled(repository)).has(action) && self.is_served(repository)
    }

    /// Admits somebody to the node itself: whether they are known, not what they may do.
    ///
    /// # Errors
    ///
    /// [`Denied::LogIn`], where there is anything that a login is needed for. `takes_pushes`: whether the node does.
    pub fn admit_to_node(&self, principal: &Principal, takes_pushes: bool) -> Result<(), Denied> {
        // Docker and its like look here for whether they have to log in, and would not be asked later.
        let is_all_open = principal.everywhere().has(Action::ContentRead)
            && principal.everywhere().has(Action::MetadataRead)
            && !takes_pushes;
        if !self.guard.is_on() || !principal.is_anonymous() || principal.has_token() || is_all_open {
            return Ok(());
        }
        Err(Denied::LogIn { scope: None })
    }

    /// Admits somebody to the list of repositories.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn admit_to_list(&self, principal: &Principal) -> Result<(), Denied> {
        let scope = || "registry:catalog:*".to_owned();
        if principal.may_nothing() {
            return Err(match principal.is_anonymous() {
                true => Denied::LogIn { scope: Some(scope()) },
                false => Denied::NoList {
                    who: principal.name().to_owned(),
                },
            });
        }
        match principal.may_list() {
            true => Ok(()),
            false => Err(Denied::Scope { scope: scope() }),
        }
    }

    /// Whether `repository` may be shown to `principal` in lists.
    pub fn shows(&self, principal: &Principal, repository: &Repository) -> bool {
        self.is_served(repository) && principal.may_see(&self.spelled(repository))
    }

    /// Whether the repository is one of those that this node serves at all.
    fn is_served(&self, repository: &Repository) -> bool {
        self.filters
            .get(&repository.registry)
            .is_some_and(|filter| filter.admits(repository.name.as_str()))
    }

    /// As permissions name it: as clients do, without the registry where that is meant anyway.
    fn spelled<'a>(&self, repository: &'a Repository) -> Cow<'a, str> {
        if repository.registry == self.unprefixed {
            Cow::Borrowed(repository.name.as_str())
        } else {
            Cow::Owned(format!("{}/{}", repository.registry, repository.name))
        }
    }

    fn refuse(&self, principal: &Principal, name: &str, action: Action) -> Denied {
        let scope = || format!("repository:{name}:{}", super::scope::word(action));
        if principal.has_token() && principal.could(name).has(action) {
            return Denied::Scope { scope: scope() };
        }
        if principal.is_anonymous() {
            return Denied::LogIn { scope: Some(scope()) };
        }
        Denied::Forbidden {
            who: principal.name().to_owned(),
            action,
            repository: name.to_owned(),
        }
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

    /// Whether it is for `action` too.
    pub fn allows(&self, action: Action) -> bool {
        self.actions.has(action)
    }
}
