use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::Peer;
use crate::listener::{ClientAuth, TlsFiles};
use crate::units::{Address, Secret, read_secret_file};

/// Where operators look, and who is one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Address and port.
    pub address: SocketAddr,
    /// Holds the word that an operator has to know.
    pub token_file: Option<PathBuf>,
    /// That word; `None`: whoever reaches the port is one.
    pub token: Option<Secret>,
    /// Certificates; plain HTTP without.
    pub tls: TlsFiles,
    /// Names in certificates of operators, as they are written; empty: in whichever of those that `tls` takes.
    pub certificates: Vec<String>,
}

/// What may stand in the file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    address: Address,
    token_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_auth: ClientAuth,
    certificates: Vec<String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5001)).into(),
            token_file: None,
            cert_file: None,
            key_file: None,
            client_ca_file: None,
            client_auth: ClientAuth::default(),
            certificates: Vec::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Written::default().try_into().expect("the defaults are allowed")
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let token = written.token_file.as_deref().map(read_token).transpose()?;
        let tls = TlsFiles::new(
            written.cert_file,
            written.key_file,
            None,
            written.client_ca_file,
            written.client_auth,
        )?;
        if tls.client_ca_file.is_none() && !written.certificates.is_empty() {
            return Err("certificates stands without client_ca_file, which says whose are good; write both".to_owned());
        }
        if written.certificates.iter().any(|name| name.trim().is_empty()) {
            return Err(
                "certificates holds an empty name; write an alternative name of the certificate, or its whole subject"
                    .to_owned(),
            );
        }
        Ok(Self {
            address: written.address.socket(),
            token_file: written.token_file,
            token,
            tls,
            certificates: written.certificates,
        })
    }
}

impl Config {
    /// Whether somebody has to say that they are an operator.
    pub fn asks(&self) -> bool {
        self.token.is_some() || self.tls.client_auth == ClientAuth::Required || !self.certificates.is_empty()
    }

    /// Whether a certificate makes an operator of who showed it.
    pub(super) fn is_operators(&self, peer: &Peer) -> bool {
        self.certificates.is_empty() || self.certificates.iter().any(|name| peer.is_called(name))
    }

    /// Whether `other` differs in nothing but what files say, and in who is an operator.
    pub fn is_like(&self, other: &Self) -> bool {
        let without = |config: &Self| Self {
            token: None,
            certificates: Vec::new(),
            ..config.clone()
        };
        without(self) == without(other)
    }

    /// The same with the content that its files have now. Blocks.
    ///
    /// # Errors
    ///
    /// A text: which file, and what is wrong with it.
    pub fn read_anew(&self) -> Result<Self, String> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self { token, ..self.clone() })
    }

    /// Files whose content is part of it.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = self.tls.paths();
        paths.extend(self.token_file.clone());
        paths
    }
}

fn read_token(path: &Path) -> Result<Secret, String> {
    let text = read_secret_file(path).map_err(|reason| format!("token_file {reason}"))?;
    let token = text.trim();
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "token_file {} holds no token; write 16 letters and digits or more on one line, as openssl rand -hex 32 prints them",
            path.display()
        ));
    }
    Ok(Secret::new(token))
}
