//! Real clients pull over a chain of three nodes, each in a network namespace that reaches only its parent.
//!
//! ```text
//! docker-registry  <-  l5  <-  l4  <-  l3  <-  the client, told where to pull by the files of `wharf client`
//! ```
//!
//! A client that is not installed is left out with a loud line; where `CI=true` that is a failure.

// The stage: namespaces, processes, daemons, the plant, images, and `wharf client`.
mod engines;
mod hosts;
mod image;
mod needs;
mod plant;
mod running;
mod settings;

// One file per client.
mod containerd;
mod crane;
mod docker;
mod iotedge;
mod oras;
mod podman;
// All of them, logging in.
mod logins;
// All of them, pushing.
mod pushing;
mod skopeo;
// Nodes alone, and all that leaves their machines.
mod layers;
