//! Podman, Buildah, Skopeo, CRI-O: each registry renamed to a path prefix on the node.

use crate::cli::client::node::Node;
use crate::cli::client::settings::Settings;
use crate::oci::Registry;

/// What the containers tools need to pull through `node`.
pub(super) fn settings(node: &Node) -> Settings {
    let mut settings = Settings::default();
    let notes = [
        "read at every pull, no restart. The node is the location itself and no mirror of it, so that a failure",
        "never ends at the internet; with [[registry.mirror]] the tools would go on to the registry's own address",
    ];
    settings.file(
        "/etc/containers/registries.conf.d/50-wharf.conf",
        &notes,
        registries(node),
    );
    if let Some(ca) = &node.ca {
        let notes = ["the authority that signed the node's certificate"];
        settings.file(format!("/etc/containers/certs.d/{}/ca.crt", node.address), &notes, ca);
    }
    for (registry, component) in node.names() {
        match component {
            Some(_) => settings.then(format!("podman pull {registry}/NAME:TAG")),
            None => settings.then(format!(
                "{registry} has a port in its name: give its [[upstream]] an alias without one"
            )),
        }
    }
    settings.then(format!("podman pull {}/NAME:TAG", node.address));
    settings
}

fn registries(node: &Node) -> String {
    let mut text = String::new();
    for (registry, component) in node.names() {
        if let Some(component) = component {
            text += &renamed(node, registry, component);
        }
    }
    text + &itself(node)
}

/// Docker Hub's names arrive here with `library/` written out, as the tools do by themselves.
fn renamed(node: &Node, registry: &Registry, component: &str) -> String {
    let (address, insecure) = (&node.address, !node.tls);
    format!(
        "[[registry]]\n\
         prefix = \"{registry}\"\n\
         location = \"{address}/{component}\"\n\
         insecure = {insecure}\n\n"
    )
}

fn itself(node: &Node) -> String {
    let (address, insecure) = (&node.address, !node.tls);
    format!("[[registry]]\nlocation = \"{address}\"\ninsecure = {insecure}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::node::Upstream;

    #[test]
    fn every_registry_is_renamed_to_its_prefix_on_the_node() {
        let upstreams = vec![
            Upstream::named("quay.io".parse().unwrap()),
            Upstream {
                registry: "mcr.example.com:8443".parse().unwrap(),
                aliases: vec!["mcr".to_owned()],
                port: None,
                host: None,
            },
        ];
        let node = Node {
            upstreams,
            ..Node::at("[::1]:5000".parse().unwrap())
        };

        let settings = settings(&node);

        let body = settings.body("/etc/containers/registries.conf.d/50-wharf.conf");
        let read: toml::Table = body.parse().unwrap();
        let registries = read["registry"].as_array().unwrap();
        let pairs: Vec<_> = registries
            .iter()
            .map(|entry| (entry.get("prefix"), entry["location"].as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                (Some(&"docker.io".into()), Some("[::1]:5000/docker.io")),
                (Some(&"quay.io".into()), Some("[::1]:5000/quay.io")),
                (Some(&"mcr.example.com:8443".into()), Some("[::1]:5000/mcr")),
                (None, Some("[::1]:5000")),
            ]
        );
        assert!(registries.iter().all(|entry| entry["insecure"].as_bool() == Some(true)));
        assert!(!body.contains("mirror"), "{body}");
    }
}
