use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::password::{Password, Verifier};
use super::rights::{Pattern, Permission};
use super::{ANONYMOUS, Actions, judge_name};
use crate::units::{Moment, Secret, Span, read_file, read_secret_file};

/// Who may do what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Whether anybody is asked who they are. Without it, everybody may do everything that the mode allows.
    pub is_on: bool,
    /// Whether those who do not say who they are may do everything all the same.
    pub is_open: bool,
    /// Names and bcrypt hashes.
    pub htpasswd_file: Option<PathBuf>,
    pub(super) htpasswd: Users,
    /// How long an access token is good.
    pub token_ttl: Duration,
    /// How long a refresh token is.
    pub refresh_ttl: Duration,
    /// Those who are written down one by one.
    pub identities: Vec<Written>,
    /// What is granted to whom.
    pub permissions: Vec<Grant>,
}

/// Those of an htpasswd file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Users {
    pub(super) all: Vec<(String, Password)>,
    /// In words, what is wrong with lines that are not looked at.
    refused: Vec<String>,
}

/// The newest keys are kept, each of which signs for a week: the oldest is good for so long after its last signature.
const LONGEST_REFRESH: Duration = Duration::from_secs(49 * 24 * 60 * 60);

/// Somebody who is written down in the settings.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "WrittenIdentity")]
pub struct Written {
    /// As they log in.
    pub name: String,
    /// Holds their password, or two.
    pub password_file: Option<PathBuf>,
    pub(super) passwords: Vec<Password>,
    /// Those of them that stand in the settings themselves.
    hashed: Vec<Password>,
    /// Names in certificates that are theirs: alternative names, or whole subjects.
    pub certificates: Vec<String>,
    /// Whether they may do anything now.
    pub enabled: bool,
    /// From then on they may do nothing.
    pub expires: Option<Moment>,
}

/// Rights of some identities.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "WrittenGrant")]
pub struct Grant {
    /// Whose.
    pub identities: Vec<Whose>,
    /// Which.
    pub permission: Permission,
}

/// Who is granted something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whose {
    /// Who is called so.
    Named(String),
    /// Everybody who says who they are.
    Everybody,
    /// Everybody who does not.
    Anonymous,
}

/// What may stand under `[auth]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "WrittenSection")]
pub struct Section {
    htpasswd_file: Option<PathBuf>,
    htpasswd: Users,
    token_ttl: Duration,
    refresh_ttl: Duration,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenSection {
    htpasswd_file: Option<PathBuf>,
    token_ttl: Span,
    refresh_ttl: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIdentity {
    name: String,
    password: Option<toml::Value>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    password_hashes: Vec<String>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
    expires: Option<Moment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGrant {
    identities: Vec<String>,
    repositories: Vec<Pattern>,
    actions: Actions,
}

fn yes() -> bool {
    true
}

impl Default for WrittenSection {
    fn default() -> Self {
        Self {
            htpasswd_file: None,
            token_ttl: Span::seconds(5 * 60),
            refresh_ttl: Span::seconds(30 * 86_400),
        }
    }
}

impl Config {
    /// Of the sections `[auth]`, `[[identity]]` and `[[permission]]`; `is_open`: whether everybody may push anyway.
    pub fn new(section: Option<Section>, identities: Vec<Written>, permissions: Vec<Grant>, is_open: bool) -> Self {
        let is_on = section.is_some() || !identities.is_empty() || !permissions.is_empty();
        let section =
            section.unwrap_or_else(|| WrittenSection::default().try_into().expect("the defaults are allowed"));
        Self {
            is_on,
            is_open,
            htpasswd_file: section.htpasswd_file,
            htpasswd: section.htpasswd,
            token_ttl: section.token_ttl,
            refresh_ttl: section.refresh_ttl,
            identities,
            permissions,
        }
    }

    /// Nobody is asked anything.
    pub fn open() -> Self {
        Self::new(None, Vec::new(), Vec::new(), true)
    }

    /// Files whose content is part of it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let of_identities = self
            .identities
            .iter()
            .filter_map(|identity| identity.password_file.as_deref());
        self.htpasswd_file.as_deref().into_iter().chain(of_identities)
    }

    /// The same with the content that its files have now. Blocks.
    ///
    /// # Errors
    ///
    /// A text: which file, and what is wrong with it.
    pub fn read_anew(&self) -> Result<Self, String> {
        let mut anew = self.clone();
        if let Some(path) = &anew.htpasswd_file {
            anew.htpasswd = read_htpasswd(path)?;
        }
        for identity in &mut anew.identities {
            if let Some(path) = &identity.password_file {
                identity.passwords = read_passwords(path)?;
                identity.passwords.extend(identity.hashed.iter().cloned());
            }
        }
        Ok(anew)
    }

    /// The htpasswd file that has nobody in it in `anew`, and had somebody here.
    pub fn emptied<'a>(&self, anew: &'a Self) -> Option<&'a Path> {
        let is_emptied = !self.htpasswd.all.is_empty() && anew.htpasswd.all.is_empty();
        anew.htpasswd_file.as_deref().filter(|_| is_emptied)
    }

    /// In words, what is wrong with lines of files that are not looked at.
    pub fn refused(&self) -> &[String] {
        &self.htpasswd.refused
    }

    /// Whether the settings know somebody of this name, from their own lines or from htpasswd.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.identities.iter().any(|identity| identity.name == name)
            || self.htpasswd.all.iter().any(|(known, _)| known == name)
    }

    /// What two claim to be theirs: key and words.
    pub fn conflicts(&self) -> Vec<(String, String)> {
        let mut conflicts = Vec::new();
        for (index, identity) in self.identities.iter().enumerate() {
            let earlier = || self.identities[..index].iter();
            if let Some(other) = earlier().position(|other| other.name == identity.name) {
                conflicts.push((
                    format!("identity[{index}].name"),
                    format!(
                        "{} is the name of identity[{other}] too; write another one, or leave one of the two out",
                        identity.name
                    ),
                ));
            }
            for name in &identity.certificates {
                if let Some(other) = earlier().find(|other| other.certificates.contains(name)) {
                    // Without the word for its kind.
                    let name = name.split_once(' ').map_or(name.as_str(), |(_, name)| name);
                    conflicts.push((
                        format!("identity[{index}].certificates"),
                        format!("{name:?} is said to be {} already, and a certificate is one identity's; leave it out there or here", other.name),
                    ));
                }
            }
        }
        conflicts
    }

    /// What is written and means nothing, or something else than it looks like: key and words.
    pub fn doubts(&self) -> Vec<(String, String)> {
        let mut doubts = Vec::new();
        for words in &self.htpasswd.refused {
            // They begin with its key.
            let words = words.strip_prefix("htpasswd_file ").unwrap_or(words);
            doubts.push(("auth.htpasswd_file".to_owned(), words.to_owned()));
        }
        for (name, _) in &self.htpasswd.all {
            if self.identities.iter().any(|identity| identity.name == *name) {
                doubts.push((
                    "auth.htpasswd_file".to_owned(),
                    format!("has {name}, as [[identity]] does, which counts; leave the line out, or give one of them another name"),
                ));
            }
        }
        let is_known = |name: &String| self.is_written(name);
        for (index, grant) in self.permissions.iter().enumerate() {
            let key = format!("permission[{index}].identities");
            let stranger = grant.identities.iter().find_map(|whose| match whose {
                Whose::Named(name) if !is_known(name) => Some(name),
                _ => None,
            });
            if let Some(name) = stranger {
                doubts.push((
                    key,
                    format!("{name} stands in no [[identity]] and not in htpasswd_file; it means a token of that name, if there is one: wharf token create {name}"),
                ));
            }
        }
        let granted = |name: &str| {
            let theirs = |whose: &Whose| matches!(whose, Whose::Everybody) || *whose == Whose::Named(name.to_owned());
            self.permissions.iter().any(|grant| grant.identities.iter().any(theirs))
        };
        for (index, identity) in self.identities.iter().enumerate() {
            if !granted(&identity.name) {
                doubts.push((
                    format!("identity[{index}].name"),
                    format!("{} may do nothing; write a [[permission]] for it", identity.name),
                ));
            }
        }
        doubts
    }
}

impl TryFrom<WrittenSection> for Section {
    type Error = String;

    fn try_from(written: WrittenSection) -> Result<Self, String> {
        let WrittenSection {
            htpasswd_file,
            token_ttl,
            refresh_ttl,
        } = written;
        // Docker takes a token for good for a minute, whatever it says.
        if token_ttl.duration() < Duration::from_secs(60) {
            return Err(format!(
                "token_ttl is {token_ttl}, and clients take a token for good for a minute at least; write 5m"
            ));
        }
        if refresh_ttl.duration() < token_ttl.duration() {
            return Err(format!(
                "refresh_ttl is {refresh_ttl}, less than token_ttl; write for example 30d"
            ));
        }
        if refresh_ttl.duration() > LONGEST_REFRESH {
            return Err(format!(
                "refresh_ttl is {refresh_ttl}, and the keys that logins are signed with are kept for 49d; write less, or use tokens (wharf token create)"
            ));
        }
        let htpasswd = htpasswd_file.as_deref().map(read_htpasswd).transpose()?;
        Ok(Self {
            htpasswd_file,
            htpasswd: htpasswd.unwrap_or_default(),
            token_ttl: token_ttl.duration(),
            refresh_ttl: refresh_ttl.duration(),
        })
    }
}

impl TryFrom<WrittenIdentity> for Written {
    type Error = String;

    fn try_from(written: WrittenIdentity) -> Result<Self, String> {
        let WrittenIdentity {
            name,
            password,
            password_file,
            password_hashes,
            certificates,
            enabled,
            expires,
        } = written;
        judge_name(&name).map_err(|words| format!("name {words}"))?;
        if password.is_some() {
            return Err("password is refused, as files of settings are copied and shown; write password_file, or password_hashes (htpasswd -nbB)".to_owned());
        }
        let passwords = match &password_file {
            Some(path) => read_passwords(path)?,
            None => Vec::new(),
        };
        let mut hashed = Vec::new();
        for hash in &password_hashes {
            let Some(verifier) = Verifier::bcrypt(hash) else {
                return Err("password_hashes holds what is no bcrypt hash; write what stands behind the colon that htpasswd -nbB prints".to_owned());
            };
            if let Some(words) = verifier.excess() {
                return Err(format!("password_hashes holds {words}"));
            }
            hashed.push(Password {
                verifier,
                expires: None,
            });
        }
        if certificates.iter().any(String::is_empty) {
            return Err(
                "certificates holds an empty name; write an alternative name of the certificate, or its whole subject"
                    .to_owned(),
            );
        }
        if passwords.is_empty() && hashed.is_empty() && certificates.is_empty() {
            return Err(format!(
                "name is {name}, and nothing says how they are known; write password_file, password_hashes or certificates"
            ));
        }
        Ok(Self {
            name,
            password_file,
            passwords: passwords.into_iter().chain(hashed.clone()).collect(),
            hashed,
            certificates: certificates.iter().map(|name| super::peer::normal(name)).collect(),
            enabled,
            expires,
        })
    }
}

impl TryFrom<WrittenGrant> for Grant {
    type Error = String;

    fn try_from(written: WrittenGrant) -> Result<Self, String> {
        let WrittenGrant {
            identities,
            repositories,
            actions,
        } = written;
        for (key, is_empty) in [
            ("identities", identities.is_empty()),
            ("repositories", repositories.is_empty()),
            ("actions", actions.is_empty()),
        ] {
            if is_empty {
                return Err(format!(
                    "{key} is empty, so this grants nothing; leave the section out, or say what is meant"
                ));
            }
        }
        let identities: Result<Vec<Whose>, String> = identities.into_iter().map(Whose::read).collect();
        Ok(Self {
            identities: identities?,
            permission: Permission { repositories, actions },
        })
    }
}

impl Whose {
    fn read(name: String) -> Result<Self, String> {
        match name.as_str() {
            "*" => Ok(Self::Everybody),
            ANONYMOUS => Ok(Self::Anonymous),
            _ => {
                judge_name(&name).map_err(|words| {
                    format!("identities {words}; \"*\" is everybody who logged in, \"anonymous\" who did not")
                })?;
                Ok(Self::Named(name))
            }
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Everybody => "*",
            Self::Anonymous => ANONYMOUS,
        }
    }
}

/// One password a line, two at the most: while one replaces the other, both are good.
fn read_passwords(path: &Path) -> Result<Vec<Password>, String> {
    let text = read_secret_file(path).map_err(|reason| format!("password_file {reason}"))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if !(1..=2).contains(&lines.len()) {
        return Err(format!(
            "password_file {} has {} lines; write one password, or two while the second replaces the first",
            path.display(),
            lines.len()
        ));
    }
    let mut read = Vec::new();
    for line in lines {
        let verifier = Verifier::bcrypt(line).unwrap_or_else(|| Verifier::of(&Secret::new(line)));
        if let Some(words) = verifier.excess() {
            return Err(format!("password_file {} holds {words}", path.display()));
        }
        read.push(Password {
            verifier,
            expires: None,
        });
    }
    Ok(read)
}

/// Lines `name:hash`, as `htpasswd -B` writes them; blank ones and those that begin with `#` are none. One whose hash takes too long is
/// not looked at, and said; any other that is wrong is an error.
fn read_htpasswd(path: &Path) -> Result<Users, String> {
    let at = |number: usize, words: &str| format!("htpasswd_file {} {words} in line {number}", path.display());
    let bytes = read_file(path).map_err(|error| {
        format!(
            "htpasswd_file {} cannot be read: {error}; name a file that this user may read",
            path.display()
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| format!("htpasswd_file {} is not UTF-8", path.display()))?;
    let mut users = Users::default();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, hash)) = line.split_once(':') else {
            return Err(at(number, "has no colon"));
        };
        judge_name(name).map_err(|words| at(number, &format!("has a name that {words},")))?;
        let Some(verifier) = Verifier::bcrypt(hash) else {
            return Err(at(number, "has a hash that is not bcrypt (write it with htpasswd -B)"));
        };
        if users.all.iter().any(|(other, _)| other == name) {
            return Err(at(number, &format!("has {name} a second time,")));
        }
        if let Some(words) = verifier.excess() {
            users.refused.push(at(number, &format!("has for {name} {words},")));
            continue;
        }
        users.all.push((
            name.to_owned(),
            Password {
                verifier,
                expires: None,
            },
        ));
    }
    Ok(users)
}
