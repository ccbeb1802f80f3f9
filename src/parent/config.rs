//! The settings of `[parent]`, which are also those of an upstream with a URL of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use url::Url;

use super::bandwidth::Bandwidth;
use super::origin::Origin;
use super::proxy::Proxies;
use super::tls::{self, Identity};
use super::written::Written;
use crate::oci::Registry;
use crate::select::Filter;
use crate::units::Secret;

/// The registry's API is at this host; `docker.io` itself is a web site.
pub(super) const DOCKER_HUB: &str = "registry-1.docker.io";

/// More at a time would be no bound.
const MOST_AT_A_TIME: usize = 10_000;

/// Nobody counts questions any more beyond that.
const MOST_A_MINUTE: usize = 1_000_000;

/// How a registry is reached and what it may be asked for. Files and variables that it names have
/// been read.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Scheme, host, port and, rarely, a path before `/v2/`. No user, query or fragment; ends
    /// with `/`.
    pub url: Url,
    /// Whom to ask as; `None`: anonymously.
    pub login: Option<Login>,
    /// Where its password was read, and is read again once it is refused.
    pub password_file: Option<PathBuf>,
    /// `docker-credential-<this>` is asked for the login; only where `login` is none.
    pub credential_helper: Option<String>,
    /// The certificate that is shown to the registry itself, and to nobody else.
    pub identity: Option<Identity>,
    /// The way out.
    pub proxies: Proxies,
    /// Where [`authorities`](Self::authorities) came from.
    pub ca_file: Option<PathBuf>,
    /// Trusted besides the system's.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What the parent means by an unprefixed name; its own by default.
    pub namespace: Registry,
    /// The repositories that it may be asked for, without their registry.
    pub filter: Filter,
    /// Token services (`host` or `host:port`) that may see the login besides the registry itself.
    pub auth_hosts: Vec<String>,
    /// Hosts inside the network that answers may redirect to.
    pub redirect_hosts: Vec<String>,
    /// How long a connection may take, with its name and its TLS.
    pub connect_timeout: Duration,
    /// How long the parent may be silent in the middle of an answer, or send next to nothing.
    pub read_timeout: Duration,
    /// Bodies of blobs that come at a time. At least 1.
    pub transfers: usize,
    /// Questions at a time whose answer has no header yet. At least 1.
    pub requests: usize,
    /// Questions in a minute that synchronisation asks of a registry that is no node. At least 1.
    pub sync_requests_per_minute: usize,
    /// How much of the line is taken.
    pub bandwidth: Bandwidth,
}

/// A user and the password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    /// Holds no colon: Basic could not carry it.
    pub username: String,
    /// Read from its file or variable.
    pub password: Secret,
}

impl Config {
    /// Docker Hub, asked anonymously: the parent of a mirror that was given none.
    pub fn docker_hub() -> Self {
        Self::at(&format!("https://{DOCKER_HUB}/")).expect("this URL obeys the rules")
    }

    /// A registry at `url`, everything else by default.
    ///
    /// # Errors
    ///
    /// What is wrong with `url`, with the remedy.
    pub fn at(url: &str) -> Result<Self, String> {
        Self::read(Written::at(url))
    }

    /// Whether it is Docker Hub's own API.
    pub fn is_docker_hub(&self) -> bool {
        self.url.host_str() == Some(DOCKER_HUB)
    }

    /// How the registry is called where nobody gave it a name: `host` or `host:port`.
    pub fn host(&self) -> String {
        Origin::of(&self.url).map_or_else(String::new, |origin| origin.to_string())
    }

    /// How it is called in the name of an image: with its port, and without where that is the usual one.
    pub fn hosts(&self) -> Vec<String> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default();
        let with_port = port.map(|port| format!("{host}:{port}"));
        let usual = self.url.port().is_none().then(|| host.to_owned());
        with_port.into_iter().chain(usual).collect()
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        written.refuse_keys_of_upstream()?;
        Self::read(written)
    }
}

impl Config {
    /// Reads what `[parent]` and `[[upstream]]` have in common.
    pub(super) fn read(written: Written) -> Result<Self, String> {
        let Some(url) = &written.url else {
            return Err("url is missing; write for example url = \"https://l5.plant.example:5000\"".to_owned());
        };
        let url = registry_url(url)?;
        let ca_file = written.ca_file.clone();
        let authorities = match &ca_file {
            Some(path) => authorities(path)?,
            None => Vec::new(),
        };
        let identity = written.identity()?;
        if identity.is_some() && url.scheme() == "http" {
            return Err("cert_file means nothing to an http:// url; write https:// or leave it off".to_owned());
        }
        let proxies = written.proxies()?;
        if identity.is_some() && proxies.is_https() {
            return Err(
                "cert_file would be shown to an https:// proxy as well; write the proxy as http:// or socks5://"
                    .to_owned(),
            );
        }
        Ok(Self {
            credential_helper: written.credential_helper()?,
            login: written.login()?,
            password_file: written.password_file.clone(),
            identity,
            proxies,
            ca_file,
            authorities,
            namespace: namespace(written.namespace.as_deref(), &url)?,
            filter: written.filter()?,
            auth_hosts: hosts("auth_hosts", written.auth_hosts)?,
            redirect_hosts: hosts("redirect_hosts", written.redirect_hosts)?,
            connect_timeout: positive("connect_timeout", written.connect_timeout.duration())?,
            read_timeout: positive("read_timeout", written.read_timeout.duration())?,
            transfers: at_least_one("transfers", written.transfers, MOST_AT_A_TIME)?,
            requests: at_least_one("requests", written.requests, MOST_AT_A_TIME)?,
            sync_requests_per_minute: at_least_one(
                "sync_requests_per_minute",
                written.sync_requests_per_minute,
                MOST_A_MINUTE,
            )?,
            bandwidth: written.bandwidth.clone(),
            url,
        })
    }
}

impl Config {
    /// Reads the files of TLS again.
    pub(super) fn read_again(&mut self) -> Result<(), String> {
        if let Some(path) = &self.ca_file {
            self.authorities = authorities(path)?;
        }
        if let Some(identity) = &self.identity {
            self.identity = Some(Identity::read(&identity.cert_file, &identity.key_file)?);
        }
        Ok(())
    }
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    tls::authorities(path).map_err(|reason| {
        format!(
            "ca_file {} {reason}; name a PEM file of certificate authorities",
            path.display()
        )
    })
}

fn registry_url(written: &str) -> Result<Url, String> {
    // A URL may hold a password where none belongs, so that no message quotes it.
    let schemed = written.starts_with("https://") || written.starts_with("http://");
    let parsed = Url::parse(written).ok().filter(|_| schemed);
    let Some(mut url) = parsed else {
        return Err("url is not a URL; write https://HOST[:PORT], or http:// without encryption".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url names a user; write username and password_file instead".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("url ends in a query or fragment; leave off what follows ? or #".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path == "/v2" || path.ends_with("/v2") {
        return Err("url ends in /v2; leave that off, it is added".to_owned());
    }
    url.set_path(&format!("{path}/"));
    if matches!(url.host_str(), Some("docker.io" | "index.docker.io")) {
        url.set_host(Some(DOCKER_HUB)).expect("the name of Docker Hub is one");
    }
    Ok(url)
}

/// Docker Hub is `docker.io` to everyone; any other registry's own names are its own.
fn namespace(written: Option<&str>, url: &Url) -> Result<Registry, String> {
    let name = match written {
        Some(name) => name,
        None if url.host_str() == Some(DOCKER_HUB) => "docker.io",
        None => return Ok(Registry::own()),
    };
    name.parse()
        .map_err(|_| format!("namespace {name:?} is no registry's name; write one like \"docker.io\""))
}

fn hosts(key: &str, written: Vec<String>) -> Result<Vec<String>, String> {
    for host in &written {
        let is_host = Url::parse(&format!("https://{host}/"))
            .is_ok_and(|url| url.path() == "/" && url.username().is_empty() && !host.is_empty());
        if !is_host || host.contains(['/', '@']) {
            return Err(format!(
                "{key} has {host:?}; write HOST or HOST:PORT, without scheme and path"
            ));
        }
    }
    Ok(written)
}

fn at_least_one(key: &str, count: u32, most: usize) -> Result<usize, String> {
    match usize::try_from(count) {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("{key} is {count}; write a number from 1 to {most}")),
    }
}

fn positive(key: &str, span: Duration) -> Result<Duration, String> {
    if span.is_zero() {
        return Err(format!(
            "{key} is 0, so nothing would ever be reached; write for example \"5s\""
        ));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(toml: &str) -> Result<Config, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    fn url(written: &str) -> Result<String, String> {
        Config::at(written).map(|config| config.url.to_string())
    }

    #[test]
    fn a_url_is_brought_into_one_form() {
        assert_eq!(url("https://L5.Example:443").unwrap(), "https://l5.example/");
        assert_eq!(url("http://[::1]:5000/").unwrap(), "http://[::1]:5000/");
        assert_eq!(
            url("https://art.example/api/docker/hub/").unwrap(),
            "https://art.example/api/docker/hub/"
        );
        assert_eq!(url("https://docker.io").unwrap(), "https://registry-1.docker.io/");
    }

    #[test]
    fn what_is_no_registry_url_is_refused_with_the_remedy() {
        for (written, remedy) in [
            ("l5.example:5000", "write https://"),
            ("ftp://l5.example", "write https://"),
            ("https://", "write https://"),
            ("https://me:canary@l5.example", "username and password_file"),
            ("https://l5.example/v2/", "leave that off"),
            ("https://l5.example/?token=canary", "leave off"),
        ] {
            let error = url(written).unwrap_err();

            assert!(error.contains(remedy), "{written}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn docker_hub_is_docker_io_and_any_other_its_own_unless_it_is_said() {
        let namespace = |toml: &str| read(toml).unwrap().namespace.to_string();

        assert_eq!(Config::docker_hub().namespace.to_string(), "docker.io");
        assert_eq!(namespace(r#"url = "https://l5.example""#), "");
        assert_eq!(
            namespace("url = \"https://l5.example\"\nnamespace = \"index.docker.io\""),
            "docker.io"
        );
    }

    #[test]
    fn a_password_comes_from_its_file_without_the_line_s_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"canary \r\n").unwrap();

        let config = read(&format!(
            "url = \"https://l5.example\"\nusername = \"l4\"\npassword_file = {:?}",
            file.path()
        ))
        .unwrap();

        assert_eq!(config.login.as_ref().unwrap().password.expose(), "canary ");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_key_and_remedy() {
        for (keys, expected) in [
            ("password = \"canary\"", "password_file"),
            ("password = 5", "password_file"),
            ("username = \"l4\"", "add password_file or password_env"),
            ("password_env = \"PATH\"", "username is missing"),
            ("username = \"a:b\"\npassword_env = \"PATH\"", "colon"),
            ("username = \"l4\"\npassword_env = \"WHARF_NO_SUCH\"", "not set"),
            (
                "username = \"l4\"\npassword_file = \"/no/such\"",
                "/no/such cannot be read",
            ),
            (
                "username = \"l4\"\npassword_file = \"a\"\npassword_env = \"b\"",
                "leave one off",
            ),
            ("ca_file = \"/no/such\"", "ca_file /no/such cannot be read"),
            ("cert_file = \"/no/such\"", "cert_file stands without key_file"),
            ("key_file = \"/no/such\"", "key_file stands without cert_file"),
            (
                "cert_file = \"/no/such\"\nkey_file = \"/no/such\"",
                "cert_file /no/such cannot be read",
            ),
            ("credential_helper = \"../x\"", "ecr-login"),
            (
                "credential_helper = \"x\"\nusername = \"l4\"",
                "credential_helper and username are both given",
            ),
            ("proxy = \"p:1\"", "write http://HOST:PORT"),
            ("proxy = \"none\"\nno_proxy = [\"a\"]", "leave them off"),
            ("no_proxy = [\"a\"]", "no_proxy stands without proxy"),
            (
                "proxy = \"http://p:1\"\nproxy_username = \"me\"",
                "proxy_username stands without proxy_password_file",
            ),
            ("namespace = \"a/b\"", "namespace"),
            ("auth_hosts = [\"https://a\"]", "auth_hosts"),
            ("redirect_hosts = [\"a/b\"]", "redirect_hosts"),
            ("connect_timeout = \"0s\"", "connect_timeout is 0"),
            ("transfers = 0", "transfers is 0"),
            ("requests = 10001", "requests is 10001"),
            ("allow = [\"[\"]", "allow"),
            ("name = \"quay.io\"", "belongs to an [[upstream]]"),
            ("listen = \"127.0.0.1:1\"", "belongs to an [[upstream]]"),
            ("urls = \"x\"", "unknown field `urls`"),
        ] {
            let error = read(&format!("url = \"https://l5.example\"\n{keys}")).unwrap_err();

            assert!(error.contains(expected), "{keys}: {error}");
            assert!(!error.contains("canary\n"), "{error}");
        }
        assert!(read("").unwrap_err().contains("url is missing"));
    }
}
