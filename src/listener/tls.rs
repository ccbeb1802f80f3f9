//! What the registry port shows in a handshake, and what it asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pingora::listeners::tls::{Acceptor, TlsSettings};
use pingora::protocols::ALPN;
use pingora::protocols::tls::TlsRef;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, crypto};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate;
use super::config::{ClientAuth, TlsFiles};
use crate::units::Live;

/// Why a certificate and key cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there, not readable, or holds something else.
    #[error("{} holds no usable {what}: {reason}; name a PEM file that this user may read", path.display())]
    Unreadable {
        /// Certificate, key or authority.
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

    /// The folder is not there or has no pair in it.
    #[error("{} {reason}; put pairs like tls.crt and tls.key there", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}

impl Error {
    /// The key of the settings that is to blame.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } | Self::Unreadable { what: "key", .. } => "key_file",
            Self::Unreadable { what: "authority", .. } => "client_ca_file",
            Self::Folder { .. } => "certs_dir",
            Self::Unreadable { .. } => "cert_file",
        }
    }
}

/// The certificates that the registry port shows, and the authorities that those of clients come from.
#[derive(Clone)]
pub struct Tls {
    shown: Shown,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// The authorities of clients, as the file has them.
    authorities: Vec<CertificateDer<'static>>,
    http2: bool,
}

/// By the name that a client asks for; the first where none fits.
#[derive(Clone, Debug)]
struct Shown(Live<Vec<Pair>>);

#[derive(Debug)]
struct Pair {
    certificate: PathBuf,
    key: Arc<CertifiedKey>,
}

/// What handshakes are made with from this moment on. Cheap to clone.
#[derive(Clone)]
pub struct Handshakes(Arc<ArcSwap<Acceptor>>);

impl Tls {
    /// Reads what the settings name; `None`: plain HTTP. `http2`: whether that is offered.
    ///
    /// # Errors
    ///
    /// [`Error`]: the files are not usable.
    pub fn read(files: &TlsFiles, http2: bool) -> Result<Option<Self>, Error> {
        let mut pairs = Vec::new();
        if let Some((certificate, key)) = &files.certificate {
            pairs.push(Pair::read(certificate, key)?);
        }
        if let Some(folder) = &files.certs_dir {
            pairs.extend(in_folder(folder)?);
        }
        if pairs.is_empty() {
            return Ok(None);
        }
        let clients = files.client_ca_file.as_deref();
        let authorities = clients
            .map(|path| chain("authority", path))
            .transpose()?
            .unwrap_or_default();
        Ok(Some(Self {
            authorities,
            shown: Shown(Live::new(pairs)),
            clients: clients.map(|path| verifier(path, files.client_auth)).transpose()?,
            http2,
        }))
    }

    /// What clients may stumble over, with the file and the remedy. `names`: of hosts that they will ask. `now`: `None` if the
    /// clock is not set.
    pub fn doubts(&self, names: &[&str], now: Option<SystemTime>) -> Vec<(PathBuf, String)> {
        let shown = self.shown.0.get();
        // A name is well served by any of them.
        let missing = |name: &&&str| !shown.iter().any(|pair| certificate::is_for(&pair.key.cert, name));
        let unnamed: Vec<&str> = names.iter().filter(missing).copied().collect();
        let mut doubts = Vec::new();
        for (index, pair) in shown.iter().enumerate() {
            let names = if index == 0 { &unnamed[..] } else { &[] };
            let words = certificate::doubts(&pair.key.cert, names, now).into_iter();
            doubts.extend(words.map(|words| (pair.certificate.clone(), words)));
        }
        doubts
    }

    /// When the first of them ends, in seconds since 1970.
    pub fn ends(&self) -> Option<u64> {
        self.shown
            .0
            .get()
            .iter()
            .filter_map(|pair| certificate::ends(&pair.key.cert))
            .min()
    }

    /// Begins to make handshakes.
    pub fn handshakes(&self) -> Handshakes {
        Handshakes(Arc::new(ArcSwap::from_pointee(self.acceptor())))
    }

    /// Shows what `other` shows from here on. Whose certificates are taken stays as it is: whether that is what `other` takes.
    pub fn show(&self, other: Self) -> bool {
        let Self { shown, authorities, .. } = other;
        self.shown.0.take(shown.0);
        self.authorities == authorities
    }

    /// Makes handshakes.
    fn acceptor(&self) -> Acceptor {
        self.settings().build()
    }

    /// TLS 1.2 and 1.3, HTTP/1.1, and HTTP/2 if that is offered.
    pub fn settings(&self) -> TlsSettings {
        let mut settings = TlsSettings::with_callbacks(Box::new(Greeted)).expect("no file is read for this");
        settings.set_cert_resolver(Arc::new(self.shown.clone()));
        if let Some(clients) = &self.clients {
            settings.set_client_cert_verifier(clients.clone());
        }
        settings.set_alpn(if self.http2 { ALPN::H2H1 } else { ALPN::H1 });
        settings
    }
}

impl Handshakes {
    /// Connections from here on see `tls`; those that are open stay as they are.
    pub fn replace(&self, tls: &Tls) {
        self.0.store(Arc::new(tls.acceptor()));
    }

    pub(super) fn acceptor(&self) -> Arc<Acceptor> {
        self.0.load_full()
    }
}

impl Pair {
    /// Reads a PEM chain and its PEM key.
    fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = chain("certificate", certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, &error.to_string()))?;
        let signing = any_supported_type(&private).map_err(|error| unreadable("key", key, &error.to_string()))?;
        let pair = CertifiedKey::new(chain, signing);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Self {
                certificate: certificate.to_owned(),
                key: Arc::new(pair),
            }),
            Err(error) => Err(Error::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

/// All of a PEM file.
fn chain(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(what, path, &error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable(what, path, "it has no CERTIFICATE section"));
    }
    Ok(chain)
}

/// Every certificate in a folder that has a key of the same name beside it, in the order of names.
fn in_folder(folder: &Path) -> Result<Vec<Pair>, Error> {
    let amiss = |reason: String| Error::Folder {
        path: folder.to_owned(),
        reason,
    };
    let entries = fs::read_dir(folder).map_err(|error| amiss(format!("cannot be read: {error}")))?;
    let mut certificates: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let ends = path.extension().and_then(|end| end.to_str());
            ends.is_some_and(|end| ["crt", "cert", "pem"].contains(&end)) && path.with_extension("key").is_file()
        })
        .collect();
    certificates.sort();
    if certificates.is_empty() {
        return Err(amiss("has no certificate with its key".to_owned()));
    }
    let pairs = certificates
        .iter()
        .map(|path| Pair::read(path, &path.with_extension("key")));
    pairs.collect()
}

/// Takes certificates that these authorities signed.
fn verifier(path: &Path, demand: ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain("authority", path)? {
        roots
            .add(certificate)
            .map_err(|error| unreadable("authority", path, &error.to_string()))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = match demand {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| unreadable("authority", path, &error.to_string()))
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.get();
        let fits = |name: &str| shown.iter().find(|pair| certificate::is_for(&pair.key.cert, name));
        let pair = hello.server_name().and_then(fits).or(shown.first())?;
        Some(pair.key.clone())
    }
}

/// Notes who greeted, where a certificate says so.
struct Greeted;

#[async_trait::async_trait]
impl pingora::listeners::TlsAccept for Greeted {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
        Some(Arc::new(certificate::peer(tls.peer_certificate_der()?)))
    }
}

fn unreadable(what: &'static str, path: &Path, reason: &str) -> Error {
    Error::Unreadable {
        what,
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
