//! Whom we believe to be who they say, when we connect.
//!
//! One configuration serves an upstream, its token service and its redirects alike. There is no way
//! to connect without verifying, and none from https:// to http://.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::units::read_file;

/// What we show to an upstream that wants to know who asks.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate and those that lead to its authority, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    pair: CertifiedKey,
}

impl Identity {
    /// Reads both files. On failure, what is wrong, with its key in the settings.
    pub(super) fn read(cert_file: &Path, key_file: &Path) -> Result<Self, String> {
        let of_cert = |reason: String| format!("cert_file {} {reason}", cert_file.display());
        let of_key = |reason: String| format!("key_file {} {reason}", key_file.display());
        let pem = read_file(cert_file).map_err(|error| of_cert(unreadable(&error)))?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| of_cert(format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(of_cert("holds no certificate; it must have one in PEM form".to_owned()));
        }
        let pem = read_file(key_file).map_err(|error| of_key(unreadable(&error)))?;
        let key = PrivateKeyDer::from_pem_slice(&pem);
        let key = key.map_err(|error| of_key(format!("holds no key in PEM form: {error}")))?;
        let key = any_supported_type(&key).map_err(|error| of_key(format!("cannot be used: {error}")))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Self {
                cert_file: cert_file.to_owned(),
                key_file: key_file.to_owned(),
                pair,
            }),
            Err(error) => Err(of_cert(format!(
                "does not belong to key_file {}: {error}",
                key_file.display()
            ))),
        }
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}; name a file that this user may read")
}

/// A client's TLS: the system's authorities and `more` besides; HTTP/2 before HTTP/1.1. Without an
/// `identity` it shows no certificate to anyone.
pub(super) fn client(more: &[CertificateDer<'static>], identity: Option<&Identity>) -> ClientConfig {
    let mut roots = system_roots().clone();
    roots.add_parsable_certificates(more.iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.pair.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The certificates of a PEM file, each checked to be usable as an authority. On failure, what is
/// wrong with the file, in words that follow its path.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err("holds no certificate; it must have one in PEM form".to_owned());
    }
    Ok(found)
}

/// What the system trusts, read once. A machine without any (an empty container) still starts:
/// there, only a `ca_file` makes https:// possible.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, unusable) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(usable, unusable, "system's certificate authorities read");
        roots
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_without_a_usable_certificate_is_refused_with_the_reason() {
        let mut empty = tempfile::NamedTempFile::new().unwrap();
        let mut broken = tempfile::NamedTempFile::new().unwrap();
        empty.write_all(b"# nothing here\n").unwrap();
        broken
            .write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();

        let missing = authorities(Path::new("/no/such/ca.pem")).unwrap_err();
        let empty = authorities(empty.path()).unwrap_err();
        let broken = authorities(broken.path()).unwrap_err();

        assert!(missing.starts_with("cannot be read"), "{missing}");
        assert!(empty.starts_with("holds no certificate"), "{empty}");
        assert!(broken.contains("cannot be used"), "{broken}");
    }

    #[test]
    fn both_versions_of_http_are_offered_the_newer_first() {
        assert_eq!(client(&[], None).alpn_protocols, [&b"h2"[..], &b"http/1.1"[..]]);
    }
}
