//! What parents, nodes and clients speak where a test does not say it: plain HTTP, or TLS if `WHARF_TEST_TLS` is set.
//!
//! One authority signs for all of them. A node is told of it as a machine is: by the system's authorities.

use std::sync::{Arc, LazyLock};

use rustls::ClientConfig;

use crate::support::authority::Authority;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// Who signs for whoever speaks TLS.
pub fn signer() -> &'static Authority {
    &AUTHORITY
}

/// Who signs for everyone, if all speak TLS.
pub fn authority() -> Option<&'static Authority> {
    static ALL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("WHARF_TEST_TLS").is_some());
    ALL.then(signer)
}

/// `http` or `https`.
pub fn scheme() -> &'static str {
    if authority().is_some() { "https" } else { "http" }
}

/// What a client of whoever speaks TLS needs.
pub fn client() -> Arc<ClientConfig> {
    signer().client(&[b"http/1.1"])
}
