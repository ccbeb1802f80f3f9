//! Where a part of the plant is asked, what is trusted there, and as whom one asks.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::cli::demo::Error;
use crate::cli::demo::trust::{Account, written};
use crate::parent::http::{Call, Client, Reply};

/// One registry, as somebody asks it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) url: String,
    /// Authorities beside those of the system.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) account: Option<Account>,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Far more than what a node tells of itself.
const DOCUMENT_BYTES: usize = 4 << 20;

impl Endpoint {
    /// Without authorities or an account.
    pub(super) fn open(url: String) -> Self {
        Self {
            url,
            ca_file: None,
            account: None,
        }
    }

    /// As it stands in the settings of who has it for a parent.
    pub(super) fn parent_lines(&self) -> String {
        let mut lines = format!("url = \"{}\"\n", self.url);
        if let Some(ca_file) = &self.ca_file {
            lines += &format!("ca_file = {}\n", written(ca_file));
        }
        if let Some(account) = &self.account {
            let password_file = written(&account.password_file);
            lines += &format!("username = \"{}\"\npassword_file = {password_file}\n", account.name);
        }
        lines
    }

    /// The same without logging in.
    pub(super) fn as_nobody(&self) -> Self {
        Self {
            account: None,
            ..self.clone()
        }
    }

    /// Connections for a few requests: as with Docker, none outlives a pull.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`]: the file of authorities cannot be read.
    pub(super) fn client(&self) -> Result<Client, Error> {
        Client::new(self.ca_file.as_deref()).map_err(|source| Error::NoAnswer {
            what: self.url.clone(),
            source,
        })
    }

    /// The answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`].
    pub(super) async fn call(
        &self,
        client: &Client,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Error> {
        let login = self.account.as_ref().map(|account| {
            let pair = format!("{}:{}", account.name, account.password.expose());
            format!("Basic {}", STANDARD.encode(pair))
        });
        let mut headers = headers.to_vec();
        headers.extend(login.as_deref().map(|login| ("authorization", login)));
        let call = Call {
            method,
            url,
            headers: &headers,
            body,
            within: PATIENCE,
        };
        client.call(call).await.map_err(|source| Error::NoAnswer {
            what: format!("{method} {url}"),
            source,
        })
    }

    /// What lies under `url`, which answers with JSON.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::Unexpected`].
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, Error> {
        let bytes = self.bytes(url).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Unexpected {
            what: url.to_owned(),
            reason: error.to_string(),
        })
    }

    /// What lies under `url`.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::Unexpected`].
    pub(super) async fn bytes(&self, url: &str) -> Result<Bytes, Error> {
        let client = self.client()?;
        let reply = self.call(&client, "GET", url, &[], Bytes::new()).await?;
        if reply.status != 200 {
            return Err(Error::Unexpected {
                what: url.to_owned(),
                reason: format!("answered {}", reply.status),
            });
        }
        reply.bytes(DOCUMENT_BYTES).await.map_err(|source| Error::NoAnswer {
            what: url.to_owned(),
            source,
        })
    }
}
