//! Those who may ask, and the table in which they are found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::config::{Config, Whose};
use super::password::{Password, hex};
use super::tokens::Token;
use super::{Peer, Permission, Rights};
use crate::units::Moment;

/// Somebody with a name.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    passwords: Vec<Password>,
    /// Names in certificates that are theirs.
    certificates: Vec<String>,
    is_enabled: bool,
    expires: Option<Moment>,
    pub(super) rights: Arc<Rights>,
}

/// Everybody, at one moment: never changed, only replaced.
#[derive(Debug)]
pub(super) struct Table {
    /// Whether anybody is asked who they are.
    pub(super) is_on: bool,
    named: HashMap<Arc<str>, Arc<Identity>>,
    certified: HashMap<String, Arc<Identity>>,
    pub(super) anonymous: Arc<Rights>,
    pub(super) token_ttl: Duration,
    pub(super) refresh_ttl: Duration,
    /// A hash that nobody's password has, for who does not exist; `None` if nobody's takes long.
    pub(super) decoy: Option<Password>,
}

impl Identity {
    /// Whether they may do anything at all at this time.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        self.is_enabled && self.expires.is_none_or(|expires| !expires.is_past(now))
    }

    /// Those that are good at this time.
    pub(super) fn valid_passwords(&self, now: SystemTime) -> impl Iterator<Item = &Password> {
        self.passwords.iter().filter(move |password| password.is_valid(now))
    }

    /// By what they are known at this time: a mark for each password and certificate.
    pub(super) fn marks(&self, now: SystemTime) -> impl Iterator<Item = String> {
        let of_passwords = self.valid_passwords(now).map(|password| password.verifier.mark());
        of_passwords.chain(self.certificates.iter().map(|name| certificate_mark(name)))
    }
}

/// By what tokens remember which certificate they were given for.
pub(super) fn certificate_mark(name: &str) -> String {
    hex(&Sha256::digest(format!("certificate {name}").as_bytes())[..8])
}

impl Table {
    /// Those of the settings, and those whom an operator made while the node ran. Of one name, the settings count.
    pub(super) fn new(config: &Config, tokens: &[Token]) -> Self {
        let mut all: Vec<Identity> = Vec::new();
        for written in &config.identities {
            all.push(Identity {
                name: written.name.as_str().into(),
                passwords: written.passwords.clone(),
                certificates: written.certificates.clone(),
                is_enabled: written.enabled,
                expires: written.expires,
                rights: config.rights_of(&written.name, &[]),
            });
        }
        for (name, password) in &config.htpasswd.all {
            if all.iter().all(|identity| *identity.name != **name) {
                all.push(Identity {
                    name: name.as_str().into(),
                    passwords: vec![password.clone()],
                    certificates: Vec::new(),
                    is_enabled: true,
                    expires: None,
                    rights: config.rights_of(name, &[]),
                });
            }
        }
        for token in tokens {
            if all.iter().any(|identity| *identity.name == *token.name) {
                tracing::warn!(
                    token = token.name,
                    "a token has the name of an identity in the settings, and is not looked at"
                );
                continue;
            }
            all.push(Identity {
                name: token.name.as_str().into(),
                passwords: token.passwords.iter().flatten().cloned().collect(),
                certificates: Vec::new(),
                is_enabled: token.enabled,
                expires: token.expires,
                rights: config.rights_of(&token.name, &token.permissions),
            });
        }
        Self::of(config, all)
    }

    fn of(config: &Config, all: Vec<Identity>) -> Self {
        let all: Vec<Arc<Identity>> = all.into_iter().map(Arc::new).collect();
        let cost = |password: &&Password| password.verifier.cost();
        // Who does not exist takes as long as who takes longest.
        let slow = |identity: &Arc<Identity>| {
            let slow = |password: &&Password| !password.verifier.is_quick();
            identity.passwords.iter().filter(slow).max_by_key(cost).cloned()
        };
        let certified = all.iter().flat_map(|identity| {
            let names = identity.certificates.iter();
            names.map(|name| (name.clone(), identity.clone()))
        });
        Self {
            is_on: config.is_on,
            decoy: all
                .iter()
                .filter_map(slow)
                .max_by_key(|password| password.verifier.cost()),
            certified: certified.collect(),
            anonymous: config.rights_of_anonymous(),
            token_ttl: config.token_ttl,
            refresh_ttl: config.refresh_ttl,
            named: all
                .into_iter()
                .map(|identity| (identity.name.clone(), identity))
                .collect(),
        }
    }

    /// Who is called so, and may do anything.
    pub(super) fn find(&self, name: &str, now: SystemTime) -> Option<&Arc<Identity>> {
        self.named.get(name).filter(|identity| identity.is_valid(now))
    }

    /// Whose certificate this is, and the name in it that says so.
    pub(super) fn certified<'a>(&self, peer: &'a Peer, now: SystemTime) -> Option<(&Arc<Identity>, &'a str)> {
        peer.names().iter().find_map(|name| {
            let identity = self.certified.get(name)?;
            identity.is_valid(now).then_some((identity, name.as_str()))
        })
    }
}

impl Config {
    /// What the settings grant to `name`, and `more`.
    fn rights_of(&self, name: &str, more: &[Permission]) -> Arc<Rights> {
        let mut rights = Rights::default();
        let granted = self.permissions.iter().filter(|grant| {
            let is_theirs =
                |whose: &Whose| matches!(whose, Whose::Everybody) || *whose == Whose::Named(name.to_owned());
            grant.identities.iter().any(is_theirs)
        });
        granted
            .map(|grant| &grant.permission)
            .chain(more)
            .for_each(|permission| rights.grant(permission));
        rights.into()
    }

    fn rights_of_anonymous(&self) -> Arc<Rights> {
        let mut rights = if self.is_on && !self.is_open {
            Rights::default()
        } else {
            Rights::all()
        };
        let granted = self
            .permissions
            .iter()
            .filter(|grant| grant.identities.contains(&Whose::Anonymous));
        granted.for_each(|grant| rights.grant(&grant.permission));
        rights.into()
    }
}
