//! The registries above, seen together: their names, and whether one of them is this node.

use std::collections::HashMap;
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use url::{Host, Url};

use super::Findings;
use crate::config::Config;
use crate::oci::Registry;
use crate::parent;

pub(super) fn check(config: &Config, findings: &mut Findings) {
    names(config, findings);
    let listening = config.addresses();
    let own = own_addresses();
    let above = above(config);
    for (key, asked) in &above {
        loops(key, &asked.url, &listening, &own, findings);
        open_password(key, asked, findings);
        helper(key, asked, findings);
    }
    for (index, (key, asked)) in above.iter().enumerate() {
        twice(key, asked, &above[..index], findings);
    }
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if upstream.direct.is_some() {
            continue;
        }
        let Some(parent) = &config.parent else {
            findings.wrong(
                format!("upstream[{index}]"),
                "has no url, so it is asked of the parent, and there is none; add its url, or a [parent]",
            );
            continue;
        };
        if parent.is_docker_hub() {
            findings.doubt(
                format!("upstream[{index}]"),
                "has no url, so it is asked of the parent, and the parent is Docker Hub, which knows no other registry; add its url",
            );
        }
    }
}

/// Whom the node asks itself, by section.
fn above(config: &Config) -> Vec<(String, &parent::Config)> {
    let beside = config.upstreams.iter().enumerate();
    let beside = beside.filter_map(|(index, upstream)| Some((format!("upstream[{index}]"), upstream.direct.as_ref()?)));
    let parent = config.parent.iter().map(|parent| ("parent".to_owned(), parent));
    parent.chain(beside).collect()
}

/// Every name, alias and host means one registry.
fn names(config: &Config, findings: &mut Findings) {
    let mut words: HashMap<String, String> = HashMap::new();
    let mut hosts: HashMap<String, String> = HashMap::new();
    let mut enter = |taken: &mut HashMap<String, String>, word: String, key: String, section: &str| match taken
        .get(&word)
    {
        Some(other) if other == section => {}
        Some(other) => findings.wrong(
            key,
            format!(
                "{word:?} is taken already, by {other}; every name, alias and host means one registry: write another"
            ),
        ),
        None => drop(taken.insert(word, section.to_owned())),
    };
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let section = format!("upstream[{index}]");
        enter(
            &mut words,
            upstream.name.to_string(),
            format!("{section}.name"),
            &section,
        );
        for (at, alias) in upstream.aliases.iter().enumerate() {
            let canonical = alias
                .parse::<Registry>()
                .map_or_else(|_| alias.clone(), |name| name.to_string());
            enter(&mut words, canonical, format!("{section}.aliases[{at}]"), &section);
        }
        for (at, host) in upstream.hosts.iter().enumerate() {
            enter(
                &mut hosts,
                host.to_ascii_lowercase(),
                format!("{section}.hosts[{at}]"),
                &section,
            );
        }
    }
}

/// A registry that is this node itself.
fn loops(section: &str, url: &Url, listening: &[(String, SocketAddr)], own: &[IpAddr], findings: &mut Findings) {
    let Some(port) = url.port_or_known_default() else {
        return;
    };
    let meant: Vec<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => vec![address.into()],
        Some(Host::Ipv6(address)) => vec![address.into()],
        Some(Host::Domain("localhost")) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => return,
    };
    let is_here = |address: &SocketAddr| meant.iter().any(|ip| reaches(*ip, address.ip(), own));
    let at_port = listening.iter().filter(|(_, address)| address.port() == port);
    if let Some((key, address)) = at_port.into_iter().find(|(_, address)| is_here(address)) {
        findings.wrong(
            format!("{section}.url"),
            format!("is this node itself, which listens on {address} ({key}); write the registry one layer up"),
        );
    }
}

/// Whether who connects to `asked` is answered by a listener on `bound`.
fn reaches(asked: IpAddr, bound: IpAddr, own: &[IpAddr]) -> bool {
    // Connecting to the unspecified address reaches the machine itself.
    let asked_here = asked.is_loopback() || asked.is_unspecified() || own.contains(&asked);
    let is_family = bound.is_ipv6() || asked.is_ipv4();
    asked == bound
        || (bound.is_unspecified() && is_family && asked_here)
        || (asked.is_unspecified() && bound.is_loopback())
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.collect()
}

/// A password that everybody on the way can read.
fn open_password(section: &str, asked: &parent::Config, findings: &mut Findings) {
    if asked.login.is_some() && asked.url.scheme() == "http" {
        findings.doubt(
            format!("{section}.username"),
            "its password travels in the clear, as url is http://; write https://, with ca_file if an authority of your own signed",
        );
    }
    if asked.ca_file.is_some() && asked.url.scheme() == "http" {
        findings.doubt(
            format!("{section}.ca_file"),
            "is never looked at, as url is http://; write https://, or leave it off",
        );
    }
}

/// A program that is not there. The node's own account may have another `PATH`.
fn helper(section: &str, asked: &parent::Config, findings: &mut Findings) {
    let Some(name) = &asked.credential_helper else { return };
    let program = format!("docker-credential-{name}");
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(&program).is_file()) {
        return;
    }
    let remedy = match name.strip_prefix("docker-credential-") {
        Some(rest) => format!("write {rest:?}, which is what follows docker-credential- in its name"),
        None => "install it, or add its folder to PATH".to_owned(),
    };
    findings.doubt(
        format!("{section}.credential_helper"),
        format!("no program {program} is in PATH ({}); {remedy}", path.display()),
    );
}

/// One registry under two names, or asked by two people.
fn twice(section: &str, asked: &parent::Config, before: &[(String, &parent::Config)], findings: &mut Findings) {
    let same_host = before.iter().find(|(_, other)| other.host() == asked.host());
    let Some((other, known)) = same_host else { return };
    if known.login.is_some() != asked.login.is_some() {
        let (with, without) = if asked.login.is_some() {
            (section, other.as_str())
        } else {
            (other.as_str(), section)
        };
        findings.doubt(
            format!("{section}.url"),
            format!(
                "{} is asked with a password by {with} and anonymously by {without}, which sees public content alone and has a rate limit of its own; give both the username if that is not meant",
                asked.host()
            ),
        );
    } else if known.url == asked.url {
        findings.doubt(
            format!("{section}.url"),
            format!("is that of {other} too: what is pulled under both names is fetched and checked twice; use aliases for one name more"),
        );
    }
}
