//! A running node, asked at its admin port by commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use url::{Host, Url};

use crate::admin;
use crate::config::{Config, Overrides, environment};
use crate::parent::http::{Call, Client, Error as CallError};
use crate::units::{Secret, read_secret_file, with_causes};

/// Bytes of its answer, beyond what any node says.
const MOST: usize = 256 << 20;

/// Variable of the environment with the token of the admin port; with `_FILE` behind it, with the file that holds it.
const TOKEN: &str = "WHARF_ADMIN_TOKEN";

/// Why a command came to nothing.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Nobody answers at the admin port.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Silence(String);

/// Where the admin port is, and how to get in there.
#[derive(clap::Args)]
pub(super) struct Port {
    /// The node's admin port; a URL, or HOST:PORT [default: http://127.0.0.1:5001, or as --config says]
    #[arg(long, value_name = "URL")]
    pub(super) admin: Option<String>,
    /// PEM file of the authorities that its certificate comes from, besides those of the system
    #[arg(long, value_name = "FILE", env = "WHARF_ADMIN_CA_FILE")]
    admin_ca_file: Option<PathBuf>,
    /// PEM file of the certificate that is shown to it, where it wants one
    #[arg(
        long,
        value_name = "FILE",
        env = "WHARF_ADMIN_CERTIFICATE_FILE",
        requires = "admin_key_file"
    )]
    admin_certificate_file: Option<PathBuf>,
    /// PEM file of the key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "WHARF_ADMIN_KEY_FILE",
        requires = "admin_certificate_file"
    )]
    admin_key_file: Option<PathBuf>,
    /// The node's file of settings: where its admin port is, its token and certificate
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// A port that can be asked.
struct Way {
    client: Client,
    url: Url,
    token: Option<Secret>,
}

impl Port {
    /// Asks a node that has to run, bringing nothing.
    ///
    /// # Errors
    ///
    /// As [`Port::call`].
    pub(super) async fn ask(&self, method: &str, path: &str, within: Duration) -> Result<Value, Failure> {
        self.call(method, path, Bytes::new(), within, "name its admin port with --admin")
            .await
    }

    /// Asks the node, and returns what it says. `remedy`: what to do if nobody answers there.
    ///
    /// # Errors
    ///
    /// Nobody answers, or the node refuses: in its own words. What would be sent in the clear to another machine is not sent.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
        within: Duration,
        remedy: &str,
    ) -> Result<Value, Failure> {
        let Way { client, url, token } = self.way()?;
        let is_unknown = url.scheme() == "https" && self.admin_certificate_file.is_none();
        let url = format!("{}{path}", url.as_str().trim_end_matches('/'));
        let authorization = token.map(|token| format!("Bearer {}", token.expose()));
        let headers: Vec<(&str, &str)> = authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        let call = Call {
            method,
            url: &url,
            headers: &headers,
            body,
            within,
        };
        let reply = match client.call(call).await {
            Err(CallError::Unreachable { host, source }) => {
                let causes = with_causes(&*source);
                return Err(Silence(format!(
                    "no node answers at {host} ({causes}); {}",
                    remedy_for(&causes, is_unknown).unwrap_or(remedy)
                ))
                .into());
            }
            other => other?,
        };
        let status = reply.status;
        let bytes = reply.bytes(MOST).await?;
        if status == 200 {
            return Ok(serde_json::from_slice(&bytes)?);
        }
        if status == 401 {
            return Err(format!(
                "the admin port wants its token: set {TOKEN}, or {TOKEN}_FILE to a file that holds it, or name the node's settings with --config"
            )
            .into());
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let words = String::from_utf8_lossy(&bytes);
        let words = body["error"].as_str().unwrap_or(words.trim());
        Err(if words.is_empty() { "the node refused" } else { words }
            .to_owned()
            .into())
    }

    /// Flags count before the environment, that before the settings.
    fn way(&self) -> Result<Way, Failure> {
        let settings = match &self.config {
            Some(path) => Some(Config::load(Some(path), environment(), &Overrides::default())?.0.admin),
            None => None,
        };
        let settings = settings.as_ref();
        let pair = self
            .admin_certificate_file
            .as_deref()
            .zip(self.admin_key_file.as_deref());
        // Where the settings name a chain that ends with its authority, or one that signed itself, that is whom to believe.
        let shown = settings.and_then(|settings| settings.tls.certificate.as_ref());
        let authority = self
            .admin_ca_file
            .as_deref()
            .or(shown.map(|(chain, _)| chain.as_path()));
        let is_tls = authority.is_some() || pair.is_some();
        let url = self.url(settings, is_tls)?;
        let token = match token()? {
            None => settings.and_then(|settings| settings.token.clone()),
            said => said,
        };
        if token.is_some() && url.scheme() == "http" && !is_here(&url) {
            return Err(format!(
                "the token of the admin port is not sent to {} in the clear: ask https://, for which its settings need cert_file and key_file in [admin], or run this on the node itself",
                url.authority()
            )
            .into());
        }
        Ok(Way {
            client: Client::showing(authority.filter(|_| url.scheme() == "https"), pair)?,
            url,
            token,
        })
    }

    fn url(&self, settings: Option<&admin::Config>, is_tls: bool) -> Result<Url, Failure> {
        let scheme = if is_tls { "https" } else { "http" };
        let said = match (&self.admin, settings) {
            (Some(said), _) if said.contains("://") => said.clone(),
            (Some(said), _) => format!("{scheme}://{said}"),
            (None, Some(settings)) => format!("{scheme}://{}", reachable(settings.address)),
            (None, None) => format!("{scheme}://127.0.0.1:5001"),
        };
        Url::parse(&said).map_err(|error| format!("--admin {said}: {error}; write https://HOST:PORT").into())
    }
}

/// Who listens on all addresses is found on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether what is sent there stays on this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// What helps, where the causes tell. `is_unknown`: no certificate was shown where one could be wanted.
fn remedy_for(causes: &str, is_unknown: bool) -> Option<&'static str> {
    let remedies = [
        (
            "UnknownIssuer",
            "name the authority that signed its certificate with --admin-ca-file",
        ),
        (
            "not valid for name",
            "ask under a name that stands in its certificate: --admin https://NAME:PORT",
        ),
        ("InvalidContentType", "it speaks no TLS: write http://"),
    ];
    let found = remedies.iter().find(|(cause, _)| causes.contains(cause));
    match found {
        Some((_, remedy)) => Some(remedy),
        None if causes.contains("refused") => None,
        // Whether it says so before it hangs up is a matter of luck.
        None if is_unknown => {
            Some("if it wants a certificate, name one with --admin-certificate-file and --admin-key-file")
        }
        None => None,
    }
}

fn token() -> Result<Option<Secret>, Failure> {
    if let Ok(token) = std::env::var(TOKEN) {
        return Ok(Some(Secret::new(token)));
    }
    let Some(path) = std::env::var_os(format!("{TOKEN}_FILE")) else {
        return Ok(None);
    };
    let text = read_secret_file(Path::new(&path)).map_err(|reason| format!("{TOKEN}_FILE: {reason}"))?;
    Ok(Some(Secret::new(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_this_machine_is_told_by_its_address() {
        for (url, here) in [
            ("http://127.0.0.1:5001", true),
            ("http://127.8.9.1", true),
            ("http://[::1]:5001", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://LOCALHOST:5001", true),
            ("http://10.0.0.1:5001", false),
            ("http://0.0.0.0:5001", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
        ] {
            assert_eq!(is_here(&url.parse().unwrap()), here, "{url}");
        }
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
