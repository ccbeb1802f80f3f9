use std::sync::Arc;

use super::identity::Identity;
use super::{Actions, Rights};

/// Who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Empty: nobody in particular.
    name: Arc<str>,
    rights: Arc<Rights>,
    how: How,
    /// What was asked for when the token was given out; `None`: it is none.
    within: Option<Arc<Within>>,
}

/// How somebody is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// Nobody said who they are.
    Anonymous,
    /// By a password.
    Password,
    /// By a token that was given out for a login.
    Token,
    /// By the certificate of the connection.
    Certificate,
}

#[derive(Debug)]
struct Within {
    /// Few: what a client needs at the moment.
    access: Vec<(Box<str>, Actions)>,
    catalog: bool,
}

impl Within {
    fn on(&self, name: &str) -> Actions {
        let found = self.access.iter().find(|(known, _)| **known == *name);
        found.map_or(Actions::NONE, |(_, actions)| *actions)
    }
}

impl Principal {
    /// Nobody in particular, with the rights of everybody.
    pub(super) fn anonymous(rights: Arc<Rights>) -> Self {
        Self {
            name: "".into(),
            rights,
            how: How::Anonymous,
            within: None,
        }
    }

    pub(super) fn of(identity: &Identity, how: How) -> Self {
        Self {
            name: identity.name.clone(),
            rights: identity.rights.clone(),
            how,
            within: None,
        }
    }

    /// The same, with no more than was asked for.
    pub(super) fn within(self, access: Vec<(Box<str>, Actions)>, catalog: bool) -> Self {
        let within = Some(Arc::new(Within { access, catalog }));
        Self { within, ..self }
    }

    /// What it is called, here and in what it owns; empty for nobody in particular.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is known.
    pub fn how(&self) -> How {
        self.how
    }

    /// Whether it is nobody in particular.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether it came with a token that was given out here.
    pub fn has_token(&self) -> bool {
        self.within.is_some()
    }

    /// What it may do with the repository of this name, as far as its token goes.
    pub(super) fn on(&self, name: &str) -> Actions {
        let granted = self.rights.on(name);
        match &self.within {
            Some(within) => granted & within.on(name),
            None => granted,
        }
    }

    /// What another token could let it do.
    pub(super) fn could(&self, name: &str) -> Actions {
        self.rights.on(name)
    }

    /// What it may do with whatever repository.
    pub fn everywhere(&self) -> Actions {
        self.rights.everywhere()
    }

    /// Whether it has any right at all.
    pub fn may_nothing(&self) -> bool {
        self.rights.is_empty()
    }

    /// Whether it may have a list of repositories: of those that it may look at.
    pub(super) fn may_list(&self) -> bool {
        self.within.as_ref().is_none_or(|within| within.catalog)
    }

    /// Whether it may look at the repository of this name in a list.
    pub(super) fn may_see(&self, name: &str) -> bool {
        self.rights.on(name).has(super::Action::MetadataRead)
    }
}

impl How {
    /// As the audit log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Password => "password",
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}
