//! Whom we ask as: nobody, a user of the settings, or whom a helper names.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use parking_lot::Mutex;
use url::Url;

use super::config::{Config, DOCKER_HUB, Login};
use super::error::Error;
use super::helper::Helper;
use super::origin::Origin;
use super::written;
use crate::units::{Clock, Secret};

/// Helpers know Docker Hub by the address of its first API.
const DOCKER_HUB_TO_HELPERS: &str = "https://index.docker.io/v1/";

/// What can be shown, or exchanged for a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// A user and the password.
    Password(Login),
    /// A refresh token; only a token service takes it.
    Identity(Secret),
}

impl Known {
    /// As Basic shows it; `None` for what cannot be shown so.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password(login) = self else { return None };
        let pair = format!("{}:{}", login.username, login.password.expose());
        let mut header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).expect("base64 is ASCII");
        header.set_sensitive(true);
        Some(header)
    }
}

/// Where it comes from.
#[derive(Debug)]
pub(super) enum Source {
    Nobody,
    Settings(Settings),
    Helper(Helper),
}

impl Source {
    pub(super) fn new(config: &Config) -> Self {
        match (&config.login, &config.credential_helper) {
            (_, Some(name)) => Self::Helper(Helper::new(name, server(&config.url))),
            (Some(login), None) => Self::Settings(Settings {
                login: Mutex::new(login.clone()),
                file: config.password_file.clone(),
            }),
            (None, None) => Self::Nobody,
        }
    }

    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Whom to ask as, other than `refused`; `None`: nobody, or nobody else.
    pub(super) async fn known(
        &self,
        layer: &str,
        refused: Option<&Known>,
        clock: &Clock,
    ) -> Result<Option<Known>, Error> {
        match self {
            Self::Nobody => Ok(None),
            Self::Settings(settings) => Ok(settings.known(refused).await),
            Self::Helper(helper) => match helper.ask(refused, clock.now()).await {
                Ok(known) => Ok(Some(known).filter(|known| refused != Some(known))),
                Err(reason) => {
                    let program = helper.program();
                    tracing::warn!(upstream = layer, program, reason, "credential helper failed");
                    Err(Error::Helper {
                        layer: layer.to_owned(),
                        program,
                    })
                }
            },
        }
    }
}

/// A user of the settings, whose password may be changed while this runs.
#[derive(Debug)]
pub(super) struct Settings {
    login: Mutex<Login>,
    file: Option<PathBuf>,
}

impl Settings {
    /// Whom to ask as; after a refusal as the file has it by now, if that is another password.
    async fn known(&self, refused: Option<&Known>) -> Option<Known> {
        let current = self.login.lock().clone();
        if refused != Some(&Known::Password(current.clone())) {
            return Some(Known::Password(current));
        }
        let path = self.file.clone()?;
        let read = tokio::task::spawn_blocking(move || written::secret("password_file", &path)).await;
        let password = read.ok()?.ok().filter(|password| *password != current.password)?;
        tracing::info!(username = current.username, "changed password taken from its file");
        let login = Login { password, ..current };
        *self.login.lock() = login.clone();
        Some(Known::Password(login))
    }
}

fn server(url: &Url) -> String {
    match url.host_str() {
        Some(DOCKER_HUB) => DOCKER_HUB_TO_HELPERS.to_owned(),
        _ => Origin::of(url).map_or_else(String::new, |origin| origin.to_string()),
    }
}
