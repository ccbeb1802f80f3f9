//! `wharf client`: the settings that point a container client at this node.
//!
//! Every client asks the node for everything and has no second address: what the node cannot answer fails here,
//! and does not leave the layer by another way (Docker alone cannot be kept from it by settings).

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::report;
use crate::cli::client::address::Address;
use crate::cli::client::containerd::Naming;
use crate::cli::client::node::{Node, Upstream};
use crate::cli::client::settings::Settings;
use crate::config::{self, Config, Overrides, environment};
use crate::oci::Registry;
use crate::parent;

mod address;
mod containerd;
mod docker;
mod iotedge;
mod node;
mod podman;
mod settings;

/// Print the settings that point a client at this node.
///
/// Every file is shown with its path and goes onto the machine of the client, not onto the node's.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    client: Client,
}

const EXAMPLES: &str = "\
Examples:
  wharf client docker --config /etc/wharf/wharf.toml
  wharf client containerd --address l3.plant.example:5000 --ca plant-ca.pem --upstream quay.io
  wharf client podman --address 10.0.0.4:5000 --write /     creates the files; replaces none";

#[derive(Debug, Subcommand)]
enum Client {
    /// Docker Engine, Moby: daemon.json with registry-mirrors
    Docker(Whereabouts),
    /// containerd, Kubernetes: config_path and a hosts.toml per registry
    Containerd {
        #[command(flatten)]
        node: Whereabouts,

        /// How a request says which registry it means
        #[arg(long, value_enum, default_value_t)]
        naming: Naming,
    },
    /// Podman, Buildah, Skopeo, CRI-O: a registries.conf.d drop-in
    Podman(Whereabouts),
    /// Azure IoT Edge devices of the layer below: config.toml and deployment manifest
    Iotedge {
        #[command(flatten)]
        node: Whereabouts,

        #[command(flatten)]
        more: iotedge::Args,
    },
}

/// Where the node is and what it knows. What is not given comes from the settings file.
#[derive(Debug, clap::Args)]
struct Whereabouts {
    /// The node's settings file: its port, its certificate and the registries that it knows
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where clients reach the node [default: listen.address of the settings, 127.0.0.1:5000]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,

    /// Clients speak HTTPS to the node [default: whether listen.cert_file is set]
    #[arg(long)]
    tls: bool,

    /// The authority that signed the node's certificate, in PEM; implies --tls. Left out: the client's system trusts it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// What the node means by a name without a registry; "" is the parent's own [default: parent.namespace, docker.io]
    #[arg(long, value_name = "REGISTRY")]
    namespace: Option<String>,

    /// A registry that the node knows by name; any number [default: every upstream of the settings]
    #[arg(long = "upstream", value_name = "REGISTRY")]
    upstreams: Vec<String>,

    /// Write the files below DIR instead of printing them, as if DIR were /; a file that exists is never replaced
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Why there are no settings to show. The operator's.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The node's settings cannot be used.
    #[error("the node's settings")]
    Config(#[source] config::Error),

    /// An address that cannot be dialled as it stands.
    #[error("{text:?}")]
    Address { text: String, source: address::Malformed },

    /// The node listens everywhere, so its settings do not say where clients find it.
    #[error("the node listens on every address ({address}): say by --address HOST:PORT which one clients use")]
    Wildcard { address: Address },

    /// A name that no registry can have.
    #[error("{text:?}")]
    Registry {
        text: String,
        source: crate::oci::RegistryError,
    },

    /// The authority's file holds something else.
    #[error("{} holds no certificate in PEM: give the authority's certificate by --ca", path.display())]
    NoCertificate { path: PathBuf },

    /// IoT Edge takes host names and IPv4 addresses below 64 characters.
    #[error(
        "{host} cannot be IoT Edge's parent_hostname: give a host name or IPv4 address below 64 characters by --address"
    )]
    NoParentHostname { host: String },

    /// A file that would be lost.
    #[error("{} exists: merge what `wharf client` prints without --write, or move it away", path.display())]
    Exists { path: PathBuf },

    /// A file cannot be read or written.
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Args {
    /// Prints or writes the settings; 2 when the question was wrong, 1 when the disk refused.
    pub(super) fn run(self) -> ExitCode {
        let settings = settings(&self.client);
        let Err(error) = settings.and_then(|settings| show(&settings, self.client.whereabouts())) else {
            return ExitCode::SUCCESS;
        };
        let code = if matches!(error, Error::Io { .. }) { 1 } else { 2 };
        report::fail(&error, code)
    }
}

fn settings(client: &Client) -> Result<Settings, Error> {
    let node = client.whereabouts().node()?;
    match client {
        Client::Docker(_) => docker::settings(&node),
        Client::Containerd { naming, .. } => Ok(containerd::settings(&node, *naming)),
        Client::Podman(_) => Ok(podman::settings(&node)),
        Client::Iotedge { more, .. } => iotedge::settings(&node, more),
    }
}

fn show(settings: &Settings, whereabouts: &Whereabouts) -> Result<(), Error> {
    let Some(root) = &whereabouts.write else {
        // A reader that has seen enough, like `head`, is no failure.
        let _ = write!(io::stdout(), "{settings}");
        return Ok(());
    };
    for path in settings.write(root)? {
        say!("wrote {}", path.display());
    }
    Ok(())
}

impl Client {
    fn whereabouts(&self) -> &Whereabouts {
        match self {
            Self::Docker(node) | Self::Podman(node) => node,
            Self::Containerd { node, .. } | Self::Iotedge { node, .. } => node,
        }
    }
}

impl Whereabouts {
    /// The node of the settings, in which what the flags say comes first.
    fn node(&self) -> Result<Node, Error> {
        let read = Config::load(self.config.as_deref(), environment(), &Overrides::default());
        let (config, _) = read.map_err(Error::Config)?;
        let ca = self.ca.as_ref().map(authority).transpose()?;
        let named = self.upstreams.iter().map(|text| Ok(Upstream::named(registry(text)?)));
        let mut node = Node {
            address: self.address(&config.listen.address.to_string())?,
            tls: self.tls || ca.is_some() || config.listen.tls.is_on(),
            ca,
            namespace: config.parent.map_or_else(Registry::own, |parent| parent.namespace),
            upstreams: config.upstreams.into_iter().map(Upstream::from).collect(),
        };
        if let Some(text) = &self.namespace {
            node.namespace = if text.is_empty() {
                Registry::own()
            } else {
                registry(text)?
            };
        }
        if !self.upstreams.is_empty() {
            node.upstreams = named.collect::<Result<_, _>>()?;
        }
        node.upstreams.retain(|upstream| upstream.registry != node.namespace);
        Ok(node)
    }

    fn address(&self, listen: &str) -> Result<Address, Error> {
        let text = self.address.as_deref().unwrap_or(listen);
        let address: Address = text.parse().map_err(|source| Error::Address {
            text: text.to_owned(),
            source,
        })?;
        if address.is_wildcard() {
            return Err(Error::Wildcard { address });
        }
        Ok(address)
    }
}

impl From<parent::Upstream> for Upstream {
    fn from(upstream: parent::Upstream) -> Self {
        Self {
            registry: upstream.name,
            aliases: upstream.aliases,
            port: upstream.listen.map(|address| address.port()),
            host: upstream.hosts.into_iter().next(),
        }
    }
}

fn registry(text: &str) -> Result<Registry, Error> {
    text.parse().map_err(|source| Error::Registry {
        text: text.to_owned(),
        source,
    })
}

fn authority(path: &PathBuf) -> Result<String, Error> {
    let read = fs::read_to_string(path);
    let text = read.map_err(|source| Error::Io {
        action: "reading",
        path: path.clone(),
        source,
    })?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Error::NoCertificate { path: path.clone() });
    }
    Ok(text)
}
