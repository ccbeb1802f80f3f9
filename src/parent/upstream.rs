//! The settings of one `[[upstream]]`: a registry beside the parent, reached by name.

use std::net::SocketAddr;

use serde::Deserialize;

use super::config::Config;
use super::written::Written;
use crate::oci::Registry;
use crate::select::Filter;
use crate::units::Address;

/// A registry that clients may name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Upstream {
    /// What it is called in `ns=`, as the first part of a path, and in metrics. Never the own one.
    pub name: Registry,
    /// What else it is called.
    pub aliases: Vec<String>,
    /// `Host` headers that mean it, whatever the path says.
    pub hosts: Vec<String>,
    /// A port of its own: whoever connects there means it.
    pub listen: Option<SocketAddr>,
    /// The repositories that may be asked for, without their registry.
    pub filter: Filter,
    /// Where it is; `None`: through the parent, which must be a wharf node.
    pub direct: Option<Config>,
}

impl TryFrom<Written> for Upstream {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Some(name) = written.name.clone() else {
            return Err("name is missing; write for example name = \"quay.io\"".to_owned());
        };
        let name: Registry = name
            .parse()
            .ok()
            .filter(|name: &Registry| !name.is_own())
            .ok_or_else(|| format!("name {name:?} is no registry's name; write one like \"quay.io\""))?;
        if written.namespace.is_some() {
            return Err("namespace belongs to [parent]; an upstream's names are its own".to_owned());
        }
        if let Some(alias) = written.aliases.iter().find(|alias| !is_word(alias)) {
            return Err(format!(
                "aliases has {alias:?}, which no client can write; use letters, digits and any of . - _ :"
            ));
        }
        let direct = match written.url {
            Some(_) => Some(Config {
                namespace: name.clone(),
                ..Config::read(written.clone())?
            }),
            None => {
                written.refuse_keys_of_url()?;
                None
            }
        };
        Ok(Self {
            name,
            filter: written.filter()?,
            aliases: written.aliases,
            hosts: written.hosts,
            listen: written.listen.map(Address::socket),
            direct,
        })
    }
}

/// Whether it can be the value of `ns=` or, without a colon, the first part of a path.
fn is_word(alias: &str) -> bool {
    !alias.is_empty() && alias.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Upstream, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn an_upstream_with_a_url_has_all_keys_of_a_parent() {
        let upstream = read(
            r#"
            name = "Quay.io:443"
            aliases = ["q"]
            hosts = ["quay.l5.example"]
            listen = "[::1]:5010"
            url = "https://quay.io"
            username = "l5"
            password_env = "PATH"
            allow = ["prometheus/*"]
            "#,
        )
        .unwrap();

        let direct = upstream.direct.unwrap();
        assert_eq!(upstream.name.to_string(), "quay.io");
        assert_eq!(direct.namespace, upstream.name);
        assert!(direct.login.is_some());
        for filter in [&upstream.filter, &direct.filter] {
            assert!(filter.admits("prometheus/node-exporter"));
            assert!(!filter.admits("other/image"));
        }
    }

    #[test]
    fn an_upstream_without_a_url_is_reached_through_the_parent() {
        let upstream = read("name = \"quay.io\"\ndeny = [\"secret/**\"]").unwrap();

        assert!(upstream.direct.is_none());
        assert!(!upstream.filter.admits("secret/a/b"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_key_and_remedy() {
        for (toml, expected) in [
            ("url = \"https://quay.io\"", "name is missing"),
            ("name = \"\"", "no registry's name"),
            ("name = \"quay.io/x\"", "no registry's name"),
            ("name = \"quay.io\"\naliases = [\"a/b\"]", "aliases"),
            ("name = \"quay.io\"\nusername = \"me\"", "username stands without url"),
            (
                "name = \"quay.io\"\nread_timeout = \"1s\"",
                "read_timeout stands without url",
            ),
            ("name = \"quay.io\"\nnamespace = \"docker.io\"", "belongs to [parent]"),
            (
                "name = \"quay.io\"\nurl = \"https://quay.io\"\npassword = \"x\"",
                "password_file",
            ),
            ("name = \"quay.io\"\nmirror = true", "unknown field `mirror`"),
        ] {
            let error = read(toml).unwrap_err();

            assert!(error.contains(expected), "{toml}: {error}");
        }
    }
}
