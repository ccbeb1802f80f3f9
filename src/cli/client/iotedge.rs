//! Azure IoT Edge below this node: the device's config.toml and the keys of its deployment manifest.
//!
//! `$upstream` becomes `parent_hostname`; its port must be written, and must not begin with 0.

use serde_json::{Value, json};

use crate::cli::client::node::Node;
use crate::cli::client::settings::Settings;
use crate::cli::client::{Error, docker};
use crate::oci::Registry;

/// What only IoT Edge wants to know.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// User name for pulls, where the node asks for one; the password is left for you to fill in
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// Tag of the images azureiotedge-agent and azureiotedge-hub
    #[arg(long, value_name = "TAG", default_value = "1.5")]
    version: String,
}

/// Where Microsoft publishes the runtime.
const MICROSOFT: &str = "mcr.microsoft.com";

/// IoT Edge refuses longer host names, as they go into a certificate's common name.
const HOST_BYTES: usize = 63;

/// What a device of the layer below needs to pull its runtime and modules through `node`.
///
/// # Errors
///
/// [`Error::NoParentHostname`]: the node's host cannot be a `parent_hostname`.
pub(super) fn settings(node: &Node, args: &Args) -> Result<Settings, Error> {
    let host = node.address.host();
    if node.address.is_ipv6() || host.len() > HOST_BYTES {
        return Err(Error::NoParentHostname { host: host.to_owned() });
    }
    let mut settings = Settings::default();
    let notes = [
        "add these keys to the file on the device, the first two above any [section]; then: iotedge config apply",
        "with an API proxy in between, give its address by --address and set its DOCKER_REQUEST_ROUTE_ADDRESS to this node",
    ];
    settings.file("/etc/aziot/config.toml", &notes, device(node, args));
    let notes = ["merge into the device's manifest; then: az iot edge set-modules --content deployment.json ..."];
    let manifest = serde_json::to_string_pretty(&deployment(node, args)).expect("JSON has a text");
    settings.file("/deployment.json", &notes, manifest + "\n");
    docker::trust(&mut settings, node);
    if !node.tls {
        settings.then("The node speaks plain HTTP, which IoT Edge expects of no parent: give it a certificate ([listen] cert_file).");
    }
    if !node.namespace.is_own() && !microsoft_is_known(node) {
        settings.then(format!(
            "The node does not know {MICROSOFT}, where the runtime's images are: add it as [[upstream]]."
        ));
    }
    settings.then(format!(
        "A module's image, in the manifest: {}",
        image(node, "NAME:TAG", &Registry::own())
    ));
    Ok(settings)
}

fn device(node: &Node, args: &Args) -> String {
    let host = node.address.host();
    let agent = toml_text(&runtime(node, "azureiotedge-agent", args));
    let mut text = format!(
        "parent_hostname = \"{host}\"\n\
         trust_bundle_cert = \"file:///var/aziot/certs/root.ca.cert.pem\"\n\
         \n\
         [agent]\n\
         name = \"edgeAgent\"\n\
         type = \"docker\"\n\
         imagePullPolicy = \"on-create\"\n\
         \n\
         [agent.config]\n\
         image = {agent}\n"
    );
    if let Some(username) = &args.username {
        text += &format!(
            "\n[agent.config.auth]\n\
             serveraddress = \"{}\"\n\
             username = {}\n\
             password = \"<password>\"\n",
            server(node),
            toml_text(username)
        );
    }
    text + "\n\
         [moby_runtime]\n\
         uri = \"unix:///var/run/docker.sock\"\n\
         \n\
         [image_garbage_collection]\n\
         enabled = true\n\
         cleanup_recurrence = \"1d\"\n\
         image_age_cleanup_threshold = \"7d\"\n\
         cleanup_time = \"00:00\"\n"
}

fn deployment(node: &Node, args: &Args) -> Value {
    let mut settings = json!({ "minDockerVersion": "v1.25", "loggingOptions": "" });
    if let Some(username) = &args.username {
        let credentials = json!({ "address": server(node), "username": username, "password": "<password>" });
        settings["registryCredentials"] = json!({ "wharf": credentials });
    }
    json!({ "modulesContent": {
        "$edgeAgent": { "properties.desired": {
            "schemaVersion": "1.1",
            "runtime": { "type": "docker", "settings": settings },
            "systemModules": {
                "edgeAgent": {
                    "type": "docker",
                    "settings": { "image": runtime(node, "azureiotedge-agent", args), "createOptions": "{}" },
                },
                "edgeHub": {
                    "type": "docker",
                    "status": "running",
                    "restartPolicy": "always",
                    "settings": { "image": runtime(node, "azureiotedge-hub", args), "createOptions": "{}" },
                },
            },
            "modules": {},
        } },
        "$edgeHub": { "properties.desired": {
            "schemaVersion": "1.1",
            "routes": {},
            "storeAndForwardConfiguration": { "timeToLiveSecs": 7200 },
        } },
    } })
}

fn server(node: &Node) -> String {
    format!("$upstream:{}", node.address.port())
}

/// An image of the runtime: under Microsoft's name where the node knows it, else as the parent's own.
fn runtime(node: &Node, name: &str, args: &Args) -> String {
    image(node, &format!("{name}:{}", args.version), &microsoft())
}

fn microsoft_is_known(node: &Node) -> bool {
    node.knows(&microsoft())
}

fn microsoft() -> Registry {
    MICROSOFT.parse().expect("a host name")
}

fn image(node: &Node, name: &str, registry: &Registry) -> String {
    let prefixed = *registry != node.namespace && node.knows(registry);
    let prefix = if prefixed {
        format!("{registry}/")
    } else {
        String::new()
    };
    format!("{}/{prefix}{name}", server(node))
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::node::Upstream;

    fn args() -> Args {
        Args {
            username: None,
            version: "1.5".to_owned(),
        }
    }

    fn node() -> Node {
        let namespace = Registry::own();
        Node {
            tls: true,
            ca: Some("PEM".to_owned()),
            namespace,
            ..Node::at("10.0.0.4:8000".parse().unwrap())
        }
    }

    fn manifest(settings: &Settings) -> Value {
        serde_json::from_str(settings.body("/deployment.json")).unwrap()
    }

    #[test]
    fn the_runtime_is_pulled_under_microsofts_name_where_the_node_knows_it() {
        let microsoft = Upstream::named(MICROSOFT.parse().unwrap());
        let node = Node {
            upstreams: vec![microsoft],
            ..node()
        };

        let settings = settings(&node, &args()).unwrap();

        let image = "$upstream:8000/mcr.microsoft.com/azureiotedge-agent:1.5";
        let device: toml::Table = settings.body("/etc/aziot/config.toml").parse().unwrap();
        assert_eq!(device["agent"]["config"]["image"].as_str(), Some(image));
        let desired = &manifest(&settings)["modulesContent"]["$edgeAgent"]["properties.desired"];
        assert_eq!(desired["systemModules"]["edgeAgent"]["settings"]["image"], image);
    }

    #[test]
    fn credentials_appear_only_when_a_user_is_named_and_never_as_a_password() {
        let without = settings(&node(), &args()).unwrap().to_string();
        let named = Args {
            username: Some("plant\"user".to_owned()),
            ..args()
        };
        let with = settings(&node(), &named).unwrap();

        assert!(
            !without.contains("serveraddress") && !without.contains("registryCredentials"),
            "{without}"
        );
        let device: toml::Table = with.body("/etc/aziot/config.toml").parse().unwrap();
        assert_eq!(
            device["agent"]["config"]["auth"]["username"].as_str(),
            Some("plant\"user")
        );
        let desired = &manifest(&with)["modulesContent"]["$edgeAgent"]["properties.desired"];
        assert_eq!(
            desired["runtime"]["settings"]["registryCredentials"]["wharf"],
            json!({ "address": "$upstream:8000", "username": "plant\"user", "password": "<password>" })
        );
    }

    #[test]
    fn the_engine_trusts_the_node_by_its_authority_or_as_insecure() {
        let secure = settings(&node(), &args()).unwrap();
        assert_eq!(secure.body("/etc/docker/certs.d/10.0.0.4:8000/ca.crt"), "PEM");
        assert!(!secure.paths().contains(&"/etc/docker/daemon.json"));

        let plain = settings(
            &Node {
                tls: false,
                ca: None,
                ..node()
            },
            &args(),
        )
        .unwrap();
        let daemon: Value = serde_json::from_str(plain.body("/etc/docker/daemon.json")).unwrap();
        assert_eq!(daemon, json!({ "insecure-registries": ["10.0.0.4:8000"] }));
    }

    #[test]
    fn a_host_that_iot_edge_would_refuse_is_refused_here() {
        for address in ["[fd00::3]:5000", &format!("{}.example:5000", "a".repeat(60))] {
            let node = Node {
                address: address.parse().unwrap(),
                ..node()
            };

            let error = settings(&node, &args()).unwrap_err();

            assert!(matches!(error, Error::NoParentHostname { .. }), "{error}");
        }
    }
}
