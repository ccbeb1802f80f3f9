//! What may stand under `[parent]` and `[[upstream]]`, before it is checked.
//!
//! One struct for both, so that an unknown key is refused in either and a key of the other is
//! refused with the right words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{env, fs};

use serde::Deserialize;

use super::config::Login;
use crate::select::Filter;
use crate::units::{Secret, Span};

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    pub(super) url: Option<String>,
    username: Option<String>,
    password: Option<Refused>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) namespace: Option<String>,
    allow: Vec<String>,
    deny: Vec<String>,
    pub(super) auth_hosts: Vec<String>,
    pub(super) redirect_hosts: Vec<String>,
    pub(super) connect_timeout: Span,
    pub(super) read_timeout: Span,
    pub(super) transfers: u32,
    pub(super) requests: u32,

    // Of [[upstream]] alone.
    pub(super) name: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) listen: Option<SocketAddr>,
}

/// A value that was written and is not looked at.
#[derive(Clone, Copy)]
struct Refused;

impl<'de> Deserialize<'de> for Refused {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Default for Written {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            namespace: None,
            allow: Vec::new(),
            deny: Vec::new(),
            auth_hosts: Vec::new(),
            redirect_hosts: Vec::new(),
            connect_timeout: Span::seconds(5),
            read_timeout: Span::seconds(30),
            transfers: 16,
            requests: 64,
            name: None,
            aliases: Vec::new(),
            hosts: Vec::new(),
            listen: None,
        }
    }
}

impl Written {
    /// Nothing but a URL.
    pub(super) fn at(url: &str) -> Self {
        Self {
            url: Some(url.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn refuse_keys_of_upstream(&self) -> Result<(), String> {
        let stray = [
            ("name", self.name.is_some()),
            ("aliases", !self.aliases.is_empty()),
            ("hosts", !self.hosts.is_empty()),
            ("listen", self.listen.is_some()),
        ];
        match stray.iter().find(|(_, written)| *written) {
            Some((key, _)) => Err(format!(
                "{key} belongs to an [[upstream]], not to [parent]; move it there or leave it off"
            )),
            None => Ok(()),
        }
    }

    /// What only makes sense for a registry that is reached by a URL, and stands here without one.
    pub(super) fn refuse_keys_of_url(&self) -> Result<(), String> {
        let defaults = Self::default();
        let stray = [
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("password_file", self.password_file.is_some()),
            ("password_env", self.password_env.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("namespace", self.namespace.is_some()),
            ("auth_hosts", !self.auth_hosts.is_empty()),
            ("redirect_hosts", !self.redirect_hosts.is_empty()),
            ("connect_timeout", self.connect_timeout != defaults.connect_timeout),
            ("read_timeout", self.read_timeout != defaults.read_timeout),
            ("transfers", self.transfers != defaults.transfers),
            ("requests", self.requests != defaults.requests),
        ];
        match stray.iter().find(|(_, written)| *written) {
            Some((key, _)) => Err(format!(
                "{key} stands without url; without one the upstream is reached through the parent, whose settings hold: add url or leave off {key}"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn filter(&self) -> Result<Filter, String> {
        Filter::new(&self.allow, &self.deny).map_err(|error| format!("allow or deny: {error}"))
    }

    pub(super) fn login(&self) -> Result<Option<Login>, String> {
        if self.password.is_some() {
            return Err("password stands in the file, where everyone reads it; put it into a file of its own and name that in password_file, or name a variable in password_env".to_owned());
        }
        let password = match (&self.password_file, &self.password_env) {
            (Some(_), Some(_)) => {
                return Err("password_file and password_env are both given; leave one off".to_owned());
            }
            (Some(path), None) => fs::read_to_string(path)
                .map_err(|error| format!("password_file {} cannot be read: {error}", path.display()))?,
            (None, Some(variable)) => env::var(variable)
                .map_err(|_| format!("password_env names {variable}, which is not set, or not text"))?,
            (None, None) if self.username.is_some() => {
                return Err("username stands without a password; add password_file or password_env".to_owned());
            }
            (None, None) => return Ok(None),
        };
        let Some(username) = self.username.clone().filter(|name| !name.is_empty()) else {
            return Err("a password stands without username; add that".to_owned());
        };
        if username.contains(':') {
            return Err("username has a colon, which Basic authentication cannot carry".to_owned());
        }
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err("the password is empty; leave off username to ask anonymously".to_owned());
        }
        Ok(Some(Login {
            username,
            password: Secret::from(password.to_owned()),
        }))
    }
}
