//! Azure IoT Edge, whose runtime cannot be installed here: what is printed is compared with what is documented.

use tempfile::TempDir;
use toml::{Table, Value};

use crate::clients::settings::Settings;

/// A nested device's /etc/aziot/config.toml, as Azure's documents on connected registries below a parent give it
/// ("Tutorial: Create a hierarchy of IoT Edge devices", "Quickstart: Deploy a connected registry to a nested IoT Edge
/// device").
const DOCUMENTED: &str = r#"
parent_hostname = "10.0.0.4"
trust_bundle_cert = "file:///var/aziot/certs/root.ca.cert.pem"
[agent]
name = "edgeAgent"
type = "docker"
imagePullPolicy = "on-create"
[agent.config]
image = "$upstream:8000/azureiotedge-agent:1.5"
[agent.config.auth]
serveraddress = "$upstream:8000"
username = "plant-token"
password = "<password>"
[moby_runtime]
uri = "unix:///var/run/docker.sock"
[image_garbage_collection]
enabled = true
cleanup_recurrence = "1d"
image_age_cleanup_threshold = "7d"
cleanup_time = "00:00"
"#;

/// What the same documents put into the deployment manifest of the lower layer, as JSON pointers below
/// `/modulesContent/$edgeAgent/properties.desired`.
const DOCUMENTED_MANIFEST: [(&str, &str); 5] = [
    ("/runtime/settings/registryCredentials/wharf/address", "$upstream:8000"),
    ("/runtime/settings/registryCredentials/wharf/username", "plant-token"),
    ("/runtime/settings/registryCredentials/wharf/password", "<password>"),
    (
        "/systemModules/edgeAgent/settings/image",
        "$upstream:8000/azureiotedge-agent:1.5",
    ),
    (
        "/systemModules/edgeHub/settings/image",
        "$upstream:8000/azureiotedge-hub:1.5",
    ),
];

const ARGUMENTS: [&str; 8] = [
    "iotedge",
    "--address",
    "10.0.0.4:8000",
    "--namespace",
    "",
    "--tls",
    "--username",
    "plant-token",
];

#[test]
fn the_device_is_told_what_azure_documents_key_by_key() {
    let root = TempDir::new().unwrap();

    let text =
        std::fs::read_to_string(Settings::written(&ARGUMENTS, root.path()).file("/etc/aziot/config.toml")).unwrap();

    let written: Table = text.parse().unwrap();
    let documented: Table = DOCUMENTED.parse().unwrap();
    assert_eq!(flat(&written), flat(&documented));
    // IoT Edge wants these above any section, where TOML puts them only if they are written there.
    let first_section = text.find("\n[").unwrap();
    for key in ["parent_hostname", "trust_bundle_cert"] {
        assert!(text.find(key).unwrap() < first_section, "{text}");
    }
}

#[test]
fn the_manifest_has_what_azure_documents_for_a_lower_layer() {
    let root = TempDir::new().unwrap();

    let text = std::fs::read_to_string(Settings::written(&ARGUMENTS, root.path()).file("/deployment.json")).unwrap();

    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let desired = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"];
    for (pointer, value) in DOCUMENTED_MANIFEST {
        assert_eq!(
            desired.pointer(pointer).and_then(|value| value.as_str()),
            Some(value),
            "{pointer}: {text}"
        );
    }
}

/// Every key with its path and its value.
fn flat(table: &Table) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = table.iter().flat_map(|(key, value)| flat_value(key, value)).collect();
    pairs.sort();
    pairs
}

fn flat_value(path: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| flat_value(&format!("{path}.{key}"), value))
            .collect(),
        other => vec![(path.to_owned(), other.to_string())],
    }
}
