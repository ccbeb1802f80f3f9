//! The proxies on the way out, from the settings or, where those say nothing, from the environment.
//!
//! What the settings name is used for every host but those in `no_proxy`. What the environment names
//! is never used for this machine itself, which no proxy elsewhere could reach.

use url::Url;

use super::config::Login;
use crate::units::Secret;

/// What `proxy` may say to have none, whatever the environment says.
const NONE: &str = "none";

const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// This machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.0/8", "::1"];

/// By which way connections leave.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// To `http://`.
    http: Option<Proxy>,
    /// To `https://`.
    https: Option<Proxy>,
    /// Hosts, suffixes of hosts and networks that are reached directly.
    direct: Vec<String>,
    /// As written in the settings; `None`: the environment's.
    written: Option<String>,
}

/// One proxy. Its URL has neither user nor password.
#[derive(Clone, Debug)]
struct Proxy {
    url: Url,
    login: Option<Login>,
}

impl Proxies {
    /// From the settings: one proxy for all, or `none`.
    pub(super) fn set(written: &str, login: Option<Login>, direct: Vec<String>) -> Result<Self, String> {
        if written == NONE {
            if login.is_some() || !direct.is_empty() {
                return Err("proxy is \"none\", so that its user and no_proxy mean nothing; leave them off".to_owned());
            }
            return Ok(Self {
                written: Some(NONE.to_owned()),
                ..Self::default()
            });
        }
        let mut proxy = Proxy::parse(written).map_err(|reason| format!("proxy {reason}"))?;
        if proxy.login.is_some() {
            return Err("proxy names a user; write proxy_username and proxy_password_file instead".to_owned());
        }
        proxy.login = login;
        if let Some(entry) = direct.iter().find(|entry| !is_host_or_network(entry)) {
            return Err(format!(
                "no_proxy has {entry:?}; write a host, a suffix like \".plant.example\" or a network like \"10.0.0.0/8\""
            ));
        }
        Ok(Self {
            written: Some(proxy.url.as_str().trim_end_matches('/').to_owned()),
            http: Some(proxy.clone()),
            https: Some(proxy),
            direct,
        })
    }

    /// From `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` in either case, as other clients of
    /// registries read them.
    pub(super) fn environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.filter(|value| !value.trim().is_empty())
        };
        let proxy = |name: &str| {
            let (name, written) = match (either(name), either("ALL_PROXY")) {
                (Some(written), _) => (name, written),
                (None, Some(written)) => ("ALL_PROXY", written),
                (None, None) => return Ok(None),
            };
            let schemed = match written.contains("://") {
                true => written.trim().to_owned(),
                false => format!("http://{}", written.trim()),
            };
            let parsed = Proxy::parse(&schemed);
            parsed.map(Some).map_err(|reason| {
                format!("the environment's {name} {reason}; mend it, or write proxy = \"none\" to pass over it")
            })
        };
        let listed = either("NO_PROXY").unwrap_or_default();
        let listed = listed.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            direct: LOCAL.into_iter().chain(listed).map(str::to_owned).collect(),
            written: None,
        })
    }

    /// As the HTTP client wants them.
    pub(super) fn made(&self) -> impl Iterator<Item = reqwest::Proxy> {
        let direct = reqwest::NoProxy::from_string(&self.direct.join(","));
        let http = self
            .http
            .as_ref()
            .map(|proxy| (reqwest::Proxy::http(proxy.url.as_str()), proxy));
        let https = self
            .https
            .as_ref()
            .map(|proxy| (reqwest::Proxy::https(proxy.url.as_str()), proxy));
        [http, https].into_iter().flatten().map(move |(made, proxy)| {
            let made = made
                .expect("the URL was parsed, with a scheme that is known")
                .no_proxy(direct.clone());
            match &proxy.login {
                Some(login) => made.basic_auth(&login.username, login.password.expose()),
                None => made,
            }
        })
    }

    /// The hosts of the proxies themselves.
    pub(super) fn hosts(&self) -> impl Iterator<Item = String> {
        let all = [&self.http, &self.https].into_iter().flatten();
        all.filter_map(|proxy| proxy.url.host_str().map(str::to_owned))
    }

    /// Whether a proxy ends our TLS to itself, and could ask for our certificate.
    pub(super) fn is_https(&self) -> bool {
        [&self.http, &self.https]
            .into_iter()
            .flatten()
            .any(|proxy| proxy.url.scheme() == "https")
    }

    /// What the settings say, if they say anything.
    pub fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }

    /// The user that the settings' proxy is told.
    pub fn username(&self) -> Option<&str> {
        self.written()?;
        Some(self.https.as_ref()?.login.as_ref()?.username.as_str())
    }

    /// Hosts that are reached directly.
    pub fn direct(&self) -> &[String] {
        &self.direct
    }

    /// The environment's proxies, without their passwords: for whoever wonders which way connections go.
    pub fn of_environment(&self) -> Vec<String> {
        let all = match self.written {
            Some(_) => [None, None],
            None => [self.http.as_ref(), self.https.as_ref()],
        };
        all.into_iter().flatten().map(|proxy| proxy.url.to_string()).collect()
    }
}

impl Proxy {
    fn parse(written: &str) -> Result<Self, &'static str> {
        let parsed = Url::parse(written).ok();
        let is_proxy = |url: &Url| SCHEMES.contains(&url.scheme()) && url.host().is_some() && url.query().is_none();
        let Some(mut url) = parsed.filter(is_proxy) else {
            return Err(
                "is not one; write http://HOST:PORT, https://, socks5:// or, for names resolved there, socks5h://",
            );
        };
        let decoded = |text: &str| percent_decoded(text);
        let login = (!url.username().is_empty()).then(|| Login {
            username: decoded(url.username()),
            password: Secret::from(decoded(url.password().unwrap_or_default())),
        });
        // Neither fails for a URL that has a host.
        let _ = (url.set_username(""), url.set_password(None));
        Ok(Self { url, login })
    }
}

fn is_host_or_network(entry: &str) -> bool {
    !entry.is_empty() && entry.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:/*".contains(c)) && {
        match entry.split_once('/') {
            Some((address, bits)) => address.parse::<std::net::IpAddr>().is_ok_and(|address| {
                let most = if address.is_ipv4() { 32 } else { 128 };
                bits.parse::<u8>().is_ok_and(|bits| bits <= most)
            }),
            // A port would never match.
            None => entry.parse::<std::net::IpAddr>().is_ok() || !entry.contains(':'),
        }
    }
}

/// `%40` to `@`: what a user or a password may not hold in a URL.
fn percent_decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::environment(|name| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_no_proxy_is_refused_with_the_remedy() {
        for (written, expected) in [
            ("proxy.example:3128", "write http://HOST:PORT"),
            ("ftp://proxy.example", "write http://HOST:PORT"),
            ("", "write http://HOST:PORT"),
            ("http://me:canary@proxy.example", "proxy_password_file"),
        ] {
            let error = Proxies::set(written, None, Vec::new()).unwrap_err();

            assert!(
                error.contains(expected) && !error.contains("canary"),
                "{written}: {error}"
            );
        }
        for entry in ["", "http://a", "a:80", "10.0.0.0/33", "a/b"] {
            let error = Proxies::set("http://p:1", None, vec![entry.to_owned()]).unwrap_err();
            assert!(error.contains("no_proxy has"), "{entry}: {error}");
        }
        for entry in ["a", ".plant.example", "10.0.0.0/8", "fd00::/8", "::1", "*"] {
            assert!(
                Proxies::set("http://p:1", None, vec![entry.to_owned()]).is_ok(),
                "{entry}"
            );
        }
    }

    #[test]
    fn the_environment_names_a_proxy_as_other_programs_read_it() {
        let read = environment(&[
            ("https_proxy", "http://me:p%40ss@proxy.example:3128"),
            ("NO_PROXY", "a.example, 10.0.0.0/8"),
        ])
        .unwrap();

        assert_eq!(read.of_environment(), ["http://proxy.example:3128/"]);
        assert_eq!(
            read.https.as_ref().unwrap().login.as_ref().unwrap().password.expose(),
            "p@ss"
        );
        assert!(read.http.is_none() && !format!("{read:?}").contains("p@ss"));
        assert_eq!(read.direct()[3..], ["a.example", "10.0.0.0/8"]);
        assert_eq!(environment(&[("ALL_PROXY", "p:1")]).unwrap().of_environment().len(), 2);
        assert!(
            environment(&[("HTTP_PROXY", "ftp://p")])
                .unwrap_err()
                .contains("HTTP_PROXY")
        );
        assert!(environment(&[]).unwrap().of_environment().is_empty());
    }
}
