//! containerd (ctr, nerdctl, Kubernetes): one folder per registry, and one for all others.
//!
//! In every file `server` is the node too: without it containerd would end at the registry's own address.
//! The `[host]` table repeats it, because containerd 1.6 ignores a file without one.

use clap::ValueEnum;

use crate::cli::client::node::Node;
use crate::cli::client::settings::Settings;

/// How a request says which registry it means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Naming {
    /// By the query `?ns=`, which containerd adds by itself
    #[default]
    Ns,
    /// By a path prefix, /v2/docker.io/library/alpine, with override_path: for a proxy in between that drops the query
    Prefix,
    /// By a path prefix without override_path, /docker.io/v2/library/alpine
    Path,
}

const FOLDER: &str = "/etc/containerd/certs.d";
const AUTHORITY: &str = "/etc/containerd/certs.d/wharf-ca.crt";

/// What containerd needs to pull through `node`.
pub(super) fn settings(node: &Node, naming: Naming) -> Settings {
    let mut settings = Settings::default();
    let notes = [
        "add this to the file where it exists; then: systemctl restart containerd. The files below need no restart.",
        "containerd 2 reads it as it stands; its own form is version = 3 and [plugins.\"io.containerd.cri.v1.images\".registry]",
    ];
    settings.file("/etc/containerd/config.toml", &notes, configuration());
    for (registry, component) in node.names() {
        hosts(
            &mut settings,
            node,
            registry.as_str(),
            &Endpoint::named(node, naming, component),
        );
    }
    hosts(&mut settings, node, &node.address.to_string(), &Endpoint::root(node));
    let notes = "every other registry: the node says that it does not know it, and nothing else is asked";
    let endpoint = Endpoint::root(node);
    settings.file(
        format!("{FOLDER}/_default/hosts.toml"),
        &[notes],
        endpoint.written(node, None),
    );
    if let Some(ca) = &node.ca {
        settings.file(AUTHORITY, &["the authority that signed the node's certificate"], ca);
    }
    then(&mut settings, node);
    settings
}

/// What the URL of `server` and `[host]` says.
struct Endpoint {
    url: String,
    override_path: bool,
}

impl Endpoint {
    /// The node itself; which registry is meant says `ns`.
    fn root(node: &Node) -> Self {
        Self {
            url: node.url(),
            override_path: false,
        }
    }

    /// One registry, whose `component` stands for it in a path. Without one, only `ns` can name it.
    fn named(node: &Node, naming: Naming, component: Option<&str>) -> Self {
        let url = node.url();
        match (naming, component) {
            (Naming::Prefix, Some(component)) => Self {
                url: format!("{url}/v2/{component}"),
                override_path: true,
            },
            (Naming::Path, Some(component)) => Self {
                url: format!("{url}/{component}"),
                override_path: false,
            },
            (Naming::Ns, _) | (_, None) => Self::root(node),
        }
    }

    fn written(&self, node: &Node, other: Option<&Endpoint>) -> String {
        let mut text = self.live(node);
        if let Some(other) = other {
            text += "\n# The same by a path prefix, for a proxy in between that drops the query:\n";
            for line in other.live(node).lines() {
                text += format!("# {line}").trim_end();
                text += "\n";
            }
        }
        text
    }

    fn live(&self, node: &Node) -> String {
        let Self { url, override_path } = self;
        let mut own = String::new();
        if *override_path {
            own += "override_path = true\n";
        }
        if node.ca.is_some() {
            own += &format!("ca = \"{AUTHORITY}\"\n");
        }
        let indented: String = own.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "server = \"{url}\"\n\
             {own}\
             \n\
             [host.\"{url}\"]\n  \
               capabilities = [\"pull\", \"resolve\"]\n\
             {indented}"
        )
    }
}

/// containerd 1.5 and later read version 2; containerd 2 migrates it by itself.
fn configuration() -> String {
    format!("version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{FOLDER}\"\n")
}

fn hosts(settings: &mut Settings, node: &Node, registry: &str, endpoint: &Endpoint) {
    let path = format!("{FOLDER}/{registry}/hosts.toml");
    let component = node
        .names()
        .into_iter()
        .find(|(known, _)| known.as_str() == registry)
        .and_then(|(_, name)| name);
    let other = component.map(|name| Endpoint::named(node, Naming::Prefix, Some(name)));
    let other = other.filter(|other| other.url != endpoint.url);
    settings.file(path, &[], endpoint.written(node, other.as_ref()));
}

fn then(settings: &mut Settings, node: &Node) {
    for (registry, _) in node.names() {
        let name = if registry.is_docker_io() {
            "library/NAME:TAG"
        } else {
            "NAME:TAG"
        };
        settings.then(format!("ctr images pull --hosts-dir {FOLDER} {registry}/{name}"));
    }
    settings.then(format!(
        "ctr images pull --hosts-dir {FOLDER} {}/NAME:TAG",
        node.address
    ));
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;
    use crate::cli::client::node::Upstream;

    fn node() -> Node {
        let quay = Upstream::named("quay.io".parse().unwrap());
        Node {
            upstreams: vec![quay],
            ..Node::at("10.0.0.4:5000".parse().unwrap())
        }
    }

    fn hosts_of(settings: &Settings, registry: &str) -> Table {
        settings
            .body(&format!("{FOLDER}/{registry}/hosts.toml"))
            .parse()
            .unwrap()
    }

    #[test]
    fn every_file_names_the_node_alone() {
        for naming in [Naming::Ns, Naming::Prefix, Naming::Path] {
            let settings = settings(&node(), naming);

            for registry in ["docker.io", "quay.io", "10.0.0.4:5000", "_default"] {
                let table = hosts_of(&settings, registry);
                let hosts = table["host"].as_table().unwrap();
                let urls: Vec<_> = hosts
                    .keys()
                    .map(String::as_str)
                    .chain(table["server"].as_str())
                    .collect();
                assert_eq!(urls.len(), 2);
                assert!(
                    urls.iter().all(|url| url.starts_with("http://10.0.0.4:5000")),
                    "{naming:?} {registry} {urls:?}"
                );
            }
        }
    }

    #[test]
    fn the_naming_decides_the_url() {
        let url = |naming, registry| {
            hosts_of(&settings(&node(), naming), registry)["server"]
                .as_str()
                .unwrap()
                .to_owned()
        };

        assert_eq!(url(Naming::Ns, "quay.io"), "http://10.0.0.4:5000");
        assert_eq!(url(Naming::Prefix, "quay.io"), "http://10.0.0.4:5000/v2/quay.io");
        assert_eq!(url(Naming::Path, "quay.io"), "http://10.0.0.4:5000/quay.io");
        assert_eq!(url(Naming::Prefix, "_default"), "http://10.0.0.4:5000");
    }

    #[test]
    fn only_the_prefix_form_overrides_the_path_and_then_for_server_and_host() {
        let prefix = hosts_of(&settings(&node(), Naming::Prefix), "quay.io");
        assert_eq!(prefix["override_path"].as_bool(), Some(true));
        assert_eq!(
            prefix["host"]["http://10.0.0.4:5000/v2/quay.io"]["override_path"].as_bool(),
            Some(true)
        );

        let ns = hosts_of(&settings(&node(), Naming::Ns), "quay.io");
        assert!(!ns.contains_key("override_path"));
    }

    #[test]
    fn the_ns_form_shows_the_prefix_form_as_a_comment_that_is_valid_itself() {
        let settings = settings(&node(), Naming::Ns);
        let body = settings.body("/etc/containerd/certs.d/quay.io/hosts.toml");

        let (_, comment) = body.split_once("drops the query:\n").unwrap();
        let uncommented: String = comment
            .lines()
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let table: Table = uncommented.replace('#', "").parse().unwrap();

        assert_eq!(table["server"].as_str(), Some("http://10.0.0.4:5000/v2/quay.io"));
    }

    #[test]
    fn with_an_authority_server_and_host_both_trust_it() {
        let node = Node {
            tls: true,
            ca: Some("PEM".to_owned()),
            ..node()
        };

        let table = hosts_of(&settings(&node, Naming::Ns), "docker.io");

        assert_eq!(table["ca"].as_str(), Some(AUTHORITY));
        assert_eq!(table["host"]["https://10.0.0.4:5000"]["ca"].as_str(), Some(AUTHORITY));
    }
}
