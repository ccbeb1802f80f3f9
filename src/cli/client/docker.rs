//! Docker Engine and Moby: Docker Hub through `registry-mirrors`, other registries by the node's name.

use serde_json::{Map, json};

use crate::cli::client::Error;
use crate::cli::client::address::Address;
use crate::cli::client::node::{Mirror, Node};
use crate::cli::client::settings::Settings;
use crate::oci::Registry;

/// What an engine needs to pull through `node`.
pub(super) fn settings(node: &Node) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    let mirror = node.mirror_of(&Registry::docker_io())?;
    let mirrored = match &mirror {
        Mirror::At(address) | Mirror::Unknown(address) => Some(address),
        Mirror::ByNameOnly => None,
    };
    daemon(&mut settings, node, mirrored);
    authorities(&mut settings, node, mirrored);
    then(&mut settings, node, &mirror);
    Ok(settings)
}

/// What lets an engine trust the node at `addresses`, without making it a mirror.
pub(super) fn trust(settings: &mut Settings, node: &Node) {
    if !node.tls {
        daemon(settings, node, None);
    }
    authorities(settings, node, None);
}

fn daemon(settings: &mut Settings, node: &Node, mirror: Option<&Address>) {
    let mut keys = Map::new();
    if let Some(mirror) = mirror {
        keys.insert("registry-mirrors".to_owned(), json!([node.url_of(mirror)]));
    }
    if !node.tls {
        keys.insert("insecure-registries".to_owned(), json!(addresses(node, mirror)));
    }
    if keys.is_empty() {
        return;
    }
    let body = serde_json::to_string_pretty(&keys).expect("maps of text have a JSON form");
    let notes = ["add these keys to the file where it exists; then: systemctl restart docker"];
    settings.file("/etc/docker/daemon.json", &notes, body + "\n");
}

/// Docker trusts an authority per `host:port`.
fn authorities(settings: &mut Settings, node: &Node, mirror: Option<&Address>) {
    let Some(ca) = &node.ca else { return };
    for address in addresses(node, mirror) {
        let notes = ["the authority that signed the node's certificate; read at once, no restart"];
        settings.file(format!("/etc/docker/certs.d/{address}/ca.crt"), &notes, ca);
    }
}

fn addresses(node: &Node, mirror: Option<&Address>) -> Vec<String> {
    let mut addresses = vec![node.address.to_string()];
    addresses.extend(mirror.filter(|mirror| **mirror != node.address).map(Address::to_string));
    addresses
}

fn then(settings: &mut Settings, node: &Node, mirror: &Mirror) {
    match mirror {
        Mirror::At(_) => {
            settings.then("docker pull alpine                  Docker Hub, through the mirror");
        }
        Mirror::Unknown(_) => {
            settings.then("The node knows no docker.io: it asks its parent for library/alpine and the like.");
        }
        Mirror::ByNameOnly => {
            settings.then(
                "No registry-mirrors: the node knows docker.io by name only. A mirror's URL has no path, so give",
            );
            settings.then(
                "[[upstream]] docker.io a port (listen = \"0.0.0.0:5010\") or a host name (hosts = [..]) of its own.",
            );
        }
    }
    let address = &node.address;
    for (registry, component) in node.names() {
        match component {
            Some(component) => settings.then(format!("docker pull {address}/{component}/NAME:TAG")),
            None => settings.then(format!(
                "{registry} has a port in its name: give its [[upstream]] an alias without one"
            )),
        }
    }
    if node.namespace.is_own() {
        settings.then(format!("docker pull {address}/NAME:TAG"));
    }
    if mirror != &Mirror::ByNameOnly {
        settings.then("When a mirror fails, Docker goes to Docker Hub and shows only that error; a firewall must forbid that way.");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cli::client::node::Upstream;

    fn node() -> Node {
        Node::at("10.0.0.4:5000".parse().unwrap())
    }

    fn daemon_json(settings: &Settings) -> Value {
        serde_json::from_str(settings.body("/etc/docker/daemon.json")).unwrap()
    }

    fn upstream(name: &str, port: Option<u16>) -> Upstream {
        Upstream {
            registry: name.parse().unwrap(),
            aliases: Vec::new(),
            port,
            host: None,
        }
    }

    #[test]
    fn a_plain_mirror_of_docker_hub_is_a_mirror_and_insecure() {
        let settings = settings(&node()).unwrap();

        assert_eq!(settings.paths(), ["/etc/docker/daemon.json"]);
        assert_eq!(
            daemon_json(&settings),
            json!({ "registry-mirrors": ["http://10.0.0.4:5000"], "insecure-registries": ["10.0.0.4:5000"] })
        );
    }

    #[test]
    fn with_tls_nothing_is_insecure_and_the_authority_lies_where_docker_looks() {
        let node = Node {
            tls: true,
            ca: Some("PEM".to_owned()),
            ..node()
        };

        let settings = settings(&node).unwrap();

        assert_eq!(
            settings.paths(),
            ["/etc/docker/daemon.json", "/etc/docker/certs.d/10.0.0.4:5000/ca.crt"]
        );
        assert_eq!(
            daemon_json(&settings),
            json!({ "registry-mirrors": ["https://10.0.0.4:5000"] })
        );
        assert_eq!(settings.body("/etc/docker/certs.d/10.0.0.4:5000/ca.crt"), "PEM");
    }

    #[test]
    fn a_mirror_has_the_port_that_means_docker_hub() {
        let upstreams = vec![upstream("docker.io", Some(5010))];
        let node = Node {
            namespace: Registry::own(),
            upstreams,
            ..node()
        };

        let daemon = daemon_json(&settings(&node).unwrap());

        assert_eq!(daemon["registry-mirrors"], json!(["http://10.0.0.4:5010"]));
        assert_eq!(daemon["insecure-registries"], json!(["10.0.0.4:5000", "10.0.0.4:5010"]));
    }

    #[test]
    fn docker_hub_known_by_name_only_is_no_mirror() {
        let upstreams = vec![upstream("docker.io", None)];
        let node = Node {
            namespace: Registry::own(),
            upstreams,
            ..node()
        };

        let settings = settings(&node).unwrap();

        assert_eq!(daemon_json(&settings).get("registry-mirrors"), None);
        assert!(settings.to_string().contains("listen ="), "{settings}");
        assert!(
            settings
                .to_string()
                .contains("docker pull 10.0.0.4:5000/docker.io/NAME:TAG"),
            "{settings}"
        );
    }
}
