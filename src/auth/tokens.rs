//! Identities that an operator makes while the node runs: `wharf token`.
//!
//! A token is a name with two passwords, like a token of an Azure Container Registry: one can be replaced while clients still use
//! the other. Only hashes are kept.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::password::{Password, Verifier, generate};
use super::{Permission, judge_name};
use crate::store::{self, Kept, Store};
use crate::units::{Moment, Secret};

/// One, as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) passwords: [Option<Password>; 2],
    #[serde(default)]
    pub(super) permissions: Vec<Permission>,
    pub(super) enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Moment>,
    /// When it was made.
    pub(super) made: Moment,
}

/// One, as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Its user name.
    pub name: String,
    /// What it may do, beside what the settings grant to this name.
    pub permissions: Vec<Permission>,
    /// Whether it may do anything now.
    pub enabled: bool,
    /// From then on it may do nothing.
    pub expires: Option<Moment>,
    /// When it was made.
    pub made: Moment,
    /// Of each of the two, whether there is one, and until when it is good.
    pub passwords: [ToldPassword; 2],
}

/// Of a password, all that is told.
#[derive(Clone, Debug, Serialize)]
pub struct ToldPassword {
    /// Whether there is one.
    pub set: bool,
    /// From then on it is none.
    pub expires: Option<Moment>,
}

/// What is shown this once.
#[derive(Debug)]
pub struct Shown {
    name: String,
    /// Which of the two, counted from 1, and the password.
    passwords: Vec<(usize, Secret)>,
}

impl Shown {
    /// As JSON: the only time that a password leaves.
    pub fn told(&self) -> Value {
        let password = |(which, secret): &(usize, Secret)| (format!("password{which}"), secret.expose().into());
        let passwords: serde_json::Map<_, _> = self.passwords.iter().map(password).collect();
        json!({ "name": self.name, "passwords": passwords })
    }
}

/// What a new token is to be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its user name.
    pub name: String,
    /// What it may do.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// From then on it may do nothing.
    #[serde(default)]
    pub expires: Option<Moment>,
}

/// Why nothing was done. The operator's, but for the store's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A name that nobody can have.
    #[error("the name {0}")]
    Name(String),

    /// Somebody has it.
    #[error("{0} is there already; choose another name, or delete it first: wharf token delete {0}")]
    Taken(String),

    /// Nobody has it.
    #[error("there is no token {0}; wharf token list shows all")]
    Unknown(String),

    /// There are two.
    #[error("a token has passwords 1 and 2, and no {0}")]
    NoSuchPassword(usize),

    /// The disk refused.
    #[error("the tokens could not be written down")]
    Store(#[from] store::Error),
}

/// All of them.
pub struct Tokens {
    store: Store,
    all: Vec<Token>,
}

impl Tokens {
    /// Those that the store has. What cannot be read of them is left out, and said in the log. Blocks.
    ///
    /// # Errors
    ///
    /// [`store::Error::Newer`]: a newer wharf wrote them.
    pub fn load(store: Store) -> Result<Self, store::Error> {
        let lines = store.kept(Kept::Tokens)?;
        let read = |line: &String| {
            serde_json::from_str(line)
                .inspect_err(|error| tracing::error!(%error, "a token cannot be read, and is left out"))
                .ok()
        };
        let all = lines.iter().filter_map(read).collect();
        Ok(Self { store, all })
    }

    pub(super) fn all(&self) -> &[Token] {
        &self.all
    }

    /// Each, in the order of names, and nothing that is secret.
    pub fn list(&self) -> Vec<Told> {
        let mut told: Vec<Told> = self.all.iter().map(Token::told).collect();
        told.sort_by(|one, other| one.name.cmp(&other.name));
        told
    }

    /// Makes one, with both passwords. `now`: when. Blocks.
    ///
    /// # Errors
    ///
    /// [`TokenError::Name`], [`TokenError::Taken`], [`TokenError::Store`].
    pub fn create(&mut self, wanted: Wanted, now: Moment) -> Result<Shown, TokenError> {
        let Wanted {
            name,
            permissions,
            expires,
        } = wanted;
        judge_name(&name).map_err(TokenError::Name)?;
        if self.all.iter().any(|token| token.name == name) {
            return Err(TokenError::Taken(name));
        }
        let secrets = [generate(), generate()];
        let passwords = secrets.each_ref().map(|secret| Some(password(secret, None)));
        let mut all = self.all.clone();
        all.push(Token {
            name: name.clone(),
            passwords,
            permissions,
            enabled: true,
            expires,
            made: now,
        });
        self.keep(all)?;
        let passwords = secrets.into_iter().enumerate();
        Ok(Shown {
            name,
            passwords: passwords.map(|(index, secret)| (index + 1, secret)).collect(),
        })
    }

    /// Replaces one password, 1 or 2; the other one is good as before. Blocks.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::NoSuchPassword`], [`TokenError::Store`].
    pub fn rotate(&mut self, name: &str, which: usize, expires: Option<Moment>) -> Result<Shown, TokenError> {
        if !(1..=2).contains(&which) {
            return Err(TokenError::NoSuchPassword(which));
        }
        let secret = generate();
        self.change(name, |token| {
            token.passwords[which - 1] = Some(password(&secret, expires))
        })?;
        Ok(Shown {
            name: name.to_owned(),
            passwords: vec![(which, secret)],
        })
    }

    /// Lets it in again, or no more. Blocks.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::Store`].
    pub fn enable(&mut self, name: &str, enabled: bool) -> Result<(), TokenError> {
        self.change(name, |token| token.enabled = enabled)
    }

    /// Takes it away for good. Blocks.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::Store`].
    pub fn delete(&mut self, name: &str) -> Result<(), TokenError> {
        let mut all = self.all.clone();
        all.retain(|token| token.name != name);
        if all.len() == self.all.len() {
            return Err(TokenError::Unknown(name.to_owned()));
        }
        self.keep(all)
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Token)) -> Result<(), TokenError> {
        let mut all = self.all.clone();
        let token = all.iter_mut().find(|token| token.name == name);
        change(token.ok_or_else(|| TokenError::Unknown(name.to_owned()))?);
        self.keep(all)
    }

    /// What is not written down does not hold.
    fn keep(&mut self, all: Vec<Token>) -> Result<(), TokenError> {
        let line = |token: &Token| serde_json::to_string(token).expect("texts and numbers are JSON");
        self.store
            .keep(Kept::Tokens, &all.iter().map(line).collect::<Vec<_>>())?;
        self.all = all;
        Ok(())
    }
}

fn password(secret: &Secret, expires: Option<Moment>) -> Password {
    Password {
        verifier: Verifier::of(secret),
        expires,
    }
}

impl Token {
    fn told(&self) -> Told {
        Told {
            name: self.name.clone(),
            permissions: self.permissions.clone(),
            enabled: self.enabled,
            expires: self.expires,
            made: self.made,
            passwords: self.passwords.each_ref().map(|password| ToldPassword {
                set: password.is_some(),
                expires: password.as_ref().and_then(|password| password.expires),
            }),
        }
    }
}
