//! What may stand under `[parent]` and `[[upstream]]`, before it is checked.
//!
//! One struct for both, so that an unknown key is refused in either and a key of the other is
//! refused with the right words.

use std::env;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::bandwidth::Bandwidth;
use super::config::Login;
use super::connection_string::{self, ConnectionString};
use super::proxy::Proxies;
use super::tls::Identity;
use crate::select::{Filter, Globs};
use crate::units::{Address, Secret, Span, read_secret_file};

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    pub(super) url: Option<String>,
    username: Option<String>,
    password: Option<Refused>,
    pub(super) password_file: Option<PathBuf>,
    password_env: Option<String>,
    credential_helper: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    proxy: Option<String>,
    proxy_username: Option<String>,
    proxy_password_file: Option<PathBuf>,
    no_proxy: Vec<String>,
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
    pub(super) sync_requests_per_minute: u32,
    pub(super) bandwidth: Bandwidth,

    // Of [[upstream]] alone.
    pub(super) name: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) listen: Option<Address>,
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
            credential_helper: None,
            cert_file: None,
            key_file: None,
            proxy: None,
            proxy_username: None,
            proxy_password_file: None,
            no_proxy: Vec::new(),
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
            sync_requests_per_minute: 3000,
            bandwidth: Bandwidth::default(),
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
            ("credential_helper", self.credential_helper.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("proxy", self.proxy.is_some()),
            ("proxy_username", self.proxy_username.is_some()),
            ("proxy_password_file", self.proxy_password_file.is_some()),
            ("no_proxy", !self.no_proxy.is_empty()),
            ("ca_file", self.ca_file.is_some()),
            ("namespace", self.namespace.is_some()),
            ("auth_hosts", !self.auth_hosts.is_empty()),
            ("redirect_hosts", !self.redirect_hosts.is_empty()),
            ("connect_timeout", self.connect_timeout != defaults.connect_timeout),
            ("read_timeout", self.read_timeout != defaults.read_timeout),
            ("transfers", self.transfers != defaults.transfers),
            ("requests", self.requests != defaults.requests),
            (
                "sync_requests_per_minute",
                self.sync_requests_per_minute != defaults.sync_requests_per_minute,
            ),
            ("bandwidth", self.bandwidth != defaults.bandwidth),
        ];
        match stray.iter().find(|(_, written)| *written) {
            Some((key, _)) => Err(format!(
                "{key} stands without url; without one the upstream is reached through the parent, whose settings hold: add url or leave off {key}"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn filter(&self) -> Result<Filter, String> {
        let globs = |key: &str, patterns: &[String]| Globs::new(patterns).map_err(|error| format!("{key} {error}"));
        Ok(Filter {
            allow: globs("allow", &self.allow)?,
            deny: globs("deny", &self.deny)?,
        })
    }

    /// What follows `docker-credential-` in the name of a program.
    pub(super) fn credential_helper(&self) -> Result<Option<String>, String> {
        let Some(name) = &self.credential_helper else {
            return Ok(None);
        };
        let stray = [
            ("username", self.username.is_some()),
            ("password_file", self.password_file.is_some()),
            ("password_env", self.password_env.is_some()),
        ];
        if let Some((key, _)) = stray.iter().find(|(_, written)| *written) {
            return Err(format!("credential_helper and {key} are both given; leave one off"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!(
                "credential_helper is {name:?}; write what follows docker-credential- in the program's name, like \"ecr-login\""
            ));
        }
        Ok(Some(name.clone()))
    }

    pub(super) fn identity(&self) -> Result<Option<Identity>, String> {
        match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Identity::read(certificate, key).map(Some),
            (None, None) => Ok(None),
            (Some(_), None) => Err("cert_file stands without key_file; add that".to_owned()),
            (None, Some(_)) => Err("key_file stands without cert_file; add that".to_owned()),
        }
    }

    pub(super) fn proxies(&self) -> Result<Proxies, String> {
        let Some(proxy) = &self.proxy else {
            let stray = [
                ("proxy_username", self.proxy_username.is_some()),
                ("proxy_password_file", self.proxy_password_file.is_some()),
                ("no_proxy", !self.no_proxy.is_empty()),
            ];
            if let Some((key, _)) = stray.iter().find(|(_, written)| *written) {
                return Err(format!("{key} stands without proxy; add that or leave off {key}"));
            }
            return Proxies::environment(|name| env::var(name).ok());
        };
        let login = match (&self.proxy_username, &self.proxy_password_file) {
            (Some(username), Some(path)) => Some(Login {
                username: username.clone(),
                password: secret("proxy_password_file", path)?,
            }),
            (None, None) => None,
            (Some(_), None) => return Err("proxy_username stands without proxy_password_file; add that".to_owned()),
            (None, Some(_)) => return Err("proxy_password_file stands without proxy_username; add that".to_owned()),
        };
        Proxies::set(proxy, login, self.no_proxy.clone())
    }

    pub(super) fn login(&self) -> Result<Option<Login>, String> {
        if self.password.is_some() {
            return Err("password stands in the file, where everyone reads it; put it into a file of its own and name that in password_file, or name a variable in password_env".to_owned());
        }
        let password = match (&self.password_file, &self.password_env) {
            (Some(_), Some(_)) => {
                return Err("password_file and password_env are both given; leave one off".to_owned());
            }
            (Some(path), None) => secret("password_file", path)?.expose().to_owned(),
            (None, Some(variable)) => of_variable(variable)?,
            (None, None) if self.username.is_some() => {
                return Err("username stands without a password; add password_file or password_env".to_owned());
            }
            (None, None) => return Ok(None),
        };
        let Some(username) = self.username.clone().filter(|name| !name.is_empty()) else {
            return Err("username is missing beside a password; add it".to_owned());
        };
        if username.contains(':') {
            return Err("username has a colon, which Basic authentication cannot carry; have the registry give you a user without one".to_owned());
        }
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err("username stands beside an empty password; write the password into its file, or leave off username to ask anonymously".to_owned());
        }
        Ok(Some(Login {
            username,
            password: Secret::from(password.to_owned()),
        }))
    }
}

/// The password in a variable: all of it, or its part of a connection string.
fn of_variable(variable: &str) -> Result<String, String> {
    let text = env::var(variable)
        .map_err(|_| format!("password_env names {variable}, which is not set, or not text; set it for this process, or use password_file"))?;
    if variable != connection_string::VARIABLE {
        return Ok(text);
    }
    let read =
        ConnectionString::read(&text).map_err(|error| format!("password_env names {variable}, which {error}"))?;
    Ok(read
        .password
        .map(|password| password.expose().to_owned())
        .unwrap_or_default())
}

/// A secret from its file, without the end of its line.
pub(super) fn secret(key: &str, path: &Path) -> Result<Secret, String> {
    let text = read_secret_file(path).map_err(|reason| format!("{key} {reason}"))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.contains(['\r', '\n']) {
        return Err(format!(
            "{key} {} has more than one line; write the password alone into it",
            path.display()
        ));
    }
    Ok(Secret::from(line.to_owned()))
}
