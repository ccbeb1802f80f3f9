use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pingora::listeners::tls::{Acceptor, TlsSettings};
use pingora::protocols::ALPN;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate;

/// Why a certificate and key cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there, not readable, or holds something else.
    #[error("{} holds no usable {what}: {reason}; name a PEM file that this user may read", path.display())]
    Unreadable {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// In words.
        reason: String,
    },

    /// They are not a pair.
    #[error("{} and {} do not belong together: {reason}; name the key that the certificate was issued for", certificate.display(), key.display())]
    Mismatch {
        /// The certificate chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// In words.
        reason: String,
    },
}

impl Error {
    /// Whether the key is to blame, and not the certificate.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Unreadable { what: "key", .. })
    }
}

/// The certificate that the registry port shows.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a PEM chain and its PEM key.
    ///
    /// # Errors
    ///
    /// [`Error`]: the files are not a usable pair.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable("certificate", certificate, &error.to_string()))?;
        if chain.is_empty() {
            return Err(unreadable("certificate", certificate, "it has no CERTIFICATE section"));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, &error.to_string()))?;
        let signing = any_supported_type(&private).map_err(|error| unreadable("key", key, &error.to_string()))?;
        let pair = CertifiedKey::new(chain, signing);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Self { key: Arc::new(pair) })
            }
            Err(error) => Err(Error::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    /// What clients may stumble over, with the remedy. `names`: of hosts that they will ask. `now`: `None` if the
    /// clock is not set.
    pub fn doubts(&self, names: &[&str], now: Option<SystemTime>) -> Vec<String> {
        certificate::doubts(&self.key.cert, names, now)
    }

    /// Makes handshakes: TLS 1.2 and 1.3, HTTP/1.1, and HTTP/2 if that is offered.
    pub(super) fn acceptor(&self, http2: bool) -> Acceptor {
        let mut settings = TlsSettings::with_callbacks(Box::new(NoCallbacks)).expect("no file is read for this");
        settings.set_cert_resolver(Arc::new(self.clone()));
        settings.set_alpn(if http2 { ALPN::H2H1 } else { ALPN::H1 });
        settings.build()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.clone())
    }
}

struct NoCallbacks;

#[async_trait::async_trait]
impl pingora::listeners::TlsAccept for NoCallbacks {}

fn unreadable(what: &'static str, path: &Path, reason: &str) -> Error {
    Error::Unreadable {
        what,
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
