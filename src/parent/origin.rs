//! Scheme, host and port: the line across which no credential goes.

use std::fmt;

use url::Url;

/// Where a URL points, without its path. Two are equal only if all three parts are.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Origin {
    scheme: String,
    /// Lower case; IPv6 in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for anything but `http` and `https`, which always have a host and a port.
    pub(super) fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_ascii_lowercase(),
            port: url.port_or_known_default()?,
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether `written`, a `host` or `host:port` of the settings, means this origin. Without a
    /// port the default one of the scheme is meant.
    pub(super) fn is_at(&self, written: &str) -> bool {
        let written = written.to_ascii_lowercase();
        let default = if self.is_https() { 443 } else { 80 };
        written == format!("{}:{}", self.host, self.port) || (self.port == default && written == self.host)
    }
}

/// `host:port`, and `host` alone with the default port: enough to find the machine.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.is_https() { 443 } else { 80 };
        f.write_str(&self.host)?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&Url::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn scheme_host_and_port_each_make_another_origin() {
        let home = origin("https://registry.example/v2/");

        assert_eq!(home, origin("HTTPS://Registry.Example:443/other?q"));
        for other in [
            "http://registry.example/v2/",
            "https://registry.example:8443/",
            "https://cdn.registry.example/",
        ] {
            assert_ne!(home, origin(other));
        }
    }

    #[test]
    fn only_http_has_an_origin() {
        for strange in ["ftp://a/", "file:///etc/passwd", "data:,x", "unix:/run/x"] {
            assert_eq!(Origin::of(&Url::parse(strange).unwrap()), None);
        }
    }

    #[test]
    fn a_listed_host_without_port_means_the_default_port() {
        assert!(origin("https://auth.example/token").is_at("Auth.example"));
        assert!(origin("https://auth.example:5001/token").is_at("auth.example:5001"));
        assert!(!origin("https://auth.example:5001/token").is_at("auth.example"));
        assert!(origin("http://[::1]:5001/token").is_at("[::1]:5001"));
    }

    #[test]
    fn an_origin_is_shown_without_scheme_and_default_port() {
        assert_eq!(origin("https://quay.io/").to_string(), "quay.io");
        assert_eq!(origin("http://[::1]:5000/").to_string(), "[::1]:5000");
    }
}
