//! Identities that an operator makes while the node runs: `wharf token`.
//!
//! A token is a name with two passwords, like a token of an Azure Container Registry: one can be replaced while clients still use
//! the other. Only hashes are kept. What this version cannot read of what is kept lets nobody in, and stays as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::password::{Password, Verifier, generate};
use super::{Permission, judge_name};
use crate::store::{self, Kept, Store};
use crate::units::{Moment, Secret};

/// One, as it is kept. What it does not know it does not read: it may be a restriction.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
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

    /// Somebody in the settings has it, who counts.
    #[error(
        "{0} stands in the settings already, as an [[identity]] or in htpasswd_file, and a token of that name would let nobody in; choose another name, or grant {0} more by [[permission]]"
    )]
    InSettings(String),

    /// It would be good for nothing.
    #[error("{0} is past, so the token would let nobody in; write a day to come, or 30d")]
    Past(Moment),

    /// Nobody has it.
    #[error("there is no token {0}; wharf token list shows all")]
    Unknown(String),

    /// There are two.
    #[error("a token has passwords 1 and 2, and no {0}")]
    NoSuchPassword(usize),

    /// The disk refused. Nothing was changed.
    #[error("the tokens could not be written down, so nothing was changed")]
    Store(#[from] store::Error),

    /// The disk refused what takes a right away. It is taken away all the same.
    #[error(
        "done, and it holds until the node is started anew: it is not on the disk, which is tried again until it is"
    )]
    Behind(#[source] store::Error),

    /// The disk refused what replaces a password.
    #[error(
        "the old password is good no more, which holds until the node is started anew: it is not on the disk, which is tried again until it is; nor is a new one, so there is none: once the disk takes it, rotate again"
    )]
    Halfway(#[source] store::Error),
}

impl TokenError {
    /// Why the disk refused, if it did.
    pub fn of_disk(&self) -> Option<&store::Error> {
        match self {
            Self::Store(error) | Self::Behind(error) | Self::Halfway(error) => Some(error),
            _ => None,
        }
    }
}

/// All of them: a value, which somebody keeps.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    all: Vec<Token>,
    /// Lines that this version cannot read.
    strange: Vec<String>,
}

impl Tokens {
    /// Those that the store has. What cannot be read of them is left alone, and said in the log. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Store::kept`].
    pub fn load(store: &Store) -> Result<Self, store::Error> {
        Ok(Self::read(store.kept(Kept::Tokens)?))
    }

    /// Keeps them: when this returns, they survive a power cut. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Store::keep`].
    pub fn keep(&self, store: &Store) -> Result<(), store::Error> {
        store.keep(Kept::Tokens, &self.lines())
    }

    fn read(lines: Vec<String>) -> Self {
        let mut tokens = Self::default();
        for line in lines {
            match serde_json::from_str(&line) {
                Ok(token) => tokens.all.push(token),
                Err(error) => {
                    // The error's own words may quote a hash.
                    let (name, column) = (name_of(&line).unwrap_or_default(), error.column());
                    tracing::error!(
                        name,
                        column,
                        "a token cannot be read by this version: it lets nobody in, and is kept as it is"
                    );
                    tokens.strange.push(line);
                }
            }
        }
        tokens
    }

    fn lines(&self) -> Vec<String> {
        let line = |token: &Token| serde_json::to_string(token).expect("texts and numbers are JSON");
        self.all.iter().map(line).chain(self.strange.iter().cloned()).collect()
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

    /// Makes one, with both passwords. `now`: when.
    ///
    /// # Errors
    ///
    /// [`TokenError::Name`], [`TokenError::Taken`].
    pub fn create(&mut self, wanted: Wanted, now: Moment) -> Result<Shown, TokenError> {
        let Wanted {
            name,
            permissions,
            expires,
        } = wanted;
        judge_name(&name).map_err(TokenError::Name)?;
        if let Some(past) = expires.filter(|expires| *expires <= now) {
            return Err(TokenError::Past(past));
        }
        let is_strange = |line: &String| name_of(line).is_some_and(|other| other == name);
        if self.all.iter().any(|token| token.name == name) || self.strange.iter().any(is_strange) {
            return Err(TokenError::Taken(name));
        }
        let secrets = [generate(), generate()];
        let passwords = secrets.each_ref().map(|secret| Some(password(secret, None)));
        self.all.push(Token {
            name: name.clone(),
            passwords,
            permissions,
            enabled: true,
            expires,
            made: now,
        });
        let passwords = secrets.into_iter().enumerate();
        Ok(Shown {
            name,
            passwords: passwords.map(|(index, secret)| (index + 1, secret)).collect(),
        })
    }

    /// Takes away one password, 1 or 2; the other one is good as before.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::NoSuchPassword`].
    pub fn revoke(&mut self, name: &str, which: usize) -> Result<(), TokenError> {
        *self.password(name, which)? = None;
        Ok(())
    }

    /// Replaces one password, 1 or 2; the other one is good as before.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::NoSuchPassword`].
    pub fn rotate(&mut self, name: &str, which: usize, expires: Option<Moment>) -> Result<Shown, TokenError> {
        let secret = generate();
        *self.password(name, which)? = Some(password(&secret, expires));
        Ok(Shown {
            name: name.to_owned(),
            passwords: vec![(which, secret)],
        })
    }

    /// Lets it in again.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`].
    pub fn enable(&mut self, name: &str) -> Result<(), TokenError> {
        self.find(name)?.enabled = true;
        Ok(())
    }

    /// Lets it in no more.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`].
    pub fn disable(&mut self, name: &str) -> Result<(), TokenError> {
        self.find(name)?.enabled = false;
        Ok(())
    }

    /// Takes it away for good, also where this version cannot read it.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`].
    pub fn delete(&mut self, name: &str) -> Result<(), TokenError> {
        let before = self.all.len() + self.strange.len();
        self.all.retain(|token| token.name != name);
        self.strange
            .retain(|line| name_of(line).is_none_or(|other| other != name));
        match self.all.len() + self.strange.len() == before {
            true => Err(TokenError::Unknown(name.to_owned())),
            false => Ok(()),
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Token, TokenError> {
        let token = self.all.iter_mut().find(|token| token.name == name);
        token.ok_or_else(|| TokenError::Unknown(name.to_owned()))
    }

    fn password(&mut self, name: &str, which: usize) -> Result<&mut Option<Password>, TokenError> {
        let token = self.find(name)?;
        let index = which.checked_sub(1).filter(|index| *index < token.passwords.len());
        let index = index.ok_or(TokenError::NoSuchPassword(which))?;
        Ok(&mut token.passwords[index])
    }
}

/// Whose a line is that this version cannot read.
fn name_of(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["name"].as_str().map(str::to_owned)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            permissions: Vec::new(),
            expires: None,
        }
    }

    #[test]
    fn a_line_that_this_version_cannot_read_lets_nobody_in_and_stays_as_it_is() {
        let mut made = Tokens::default();
        made.create(wanted("known"), Moment::at(1)).unwrap();
        let known = made.lines()[0].clone();
        // A field more may be a restriction.
        let strange = [
            known
                .replace("known", "newer")
                .replacen('{', "{\"only_from\":\"192.0.2.0/24\",", 1),
            r#"{"name":"other","form":3}"#.to_owned(),
            "no JSON at all".to_owned(),
        ];
        let lines: Vec<String> = [known.clone()].into_iter().chain(strange.clone()).collect();

        let mut tokens = Tokens::read(lines.clone());

        assert_eq!(tokens.all.len(), 1);
        assert_eq!(tokens.lines(), lines);
        assert!(matches!(
            tokens.create(wanted("newer"), Moment::at(1)),
            Err(TokenError::Taken(_))
        ));
        assert!(matches!(tokens.disable("newer"), Err(TokenError::Unknown(_))));
        tokens.disable("known").unwrap();
        assert_eq!(tokens.lines()[1..], strange);
        tokens.delete("newer").unwrap();
        assert_eq!(tokens.lines()[1..], strange[1..]);
    }
}
