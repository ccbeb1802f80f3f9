//! A private certificate authority, the leaf that it signed, and files of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Demand {
    Must,
    May,
}

/// An authority that nobody trusts who was not told to.
pub struct Authority {
    ca_pem: String,
    cert_pem: String,
    key_pem: String,
    /// Signs further ones; `None` for a leaf that signed itself.
    issuer: Option<CertifiedIssuer<'static, KeyPair>>,
}

/// A certificate and its key.
pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::of(&["localhost", "127.0.0.1", "127.0.0.2", "::1"])
    }

    /// With a leaf for a server of these names and addresses.
    pub fn of(names: &[&str]) -> Self {
        Self::made(names, |_| {})
    }

    /// With a leaf whose time is over.
    pub fn expired() -> Self {
        Self::made(&["localhost", "127.0.0.1"], |leaf| {
            leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// A leaf that signed itself, which is in its own `ca_file`: an authority's certificate, or a server's.
    pub fn of_itself(is_authority: bool) -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("valid names");
        params.is_ca = match is_authority {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        Self {
            ca_pem: own.pem(),
            cert_pem: own.pem(),
            key_pem: key.serialize_pem(),
            issuer: None,
        }
    }

    fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "plant test authority");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("valid names");
        change(&mut leaf);
        let leaf = leaf.signed_by(&key, &ca).expect("a leaf");
        Self {
            ca_pem: ca.pem(),
            cert_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
            issuer: Some(ca),
        }
    }

    /// Another certificate, with these alternative names and this common name.
    pub fn leaf(&self, names: &[&str], common: &str) -> Leaf {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("valid names");
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, common);
        let key = KeyPair::generate().expect("a key");
        let issuer = self.issuer.as_ref().expect("an authority");
        let leaf = leaf.signed_by(&key, issuer).expect("a leaf");
        Leaf {
            cert_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A client that trusts this authority alone and shows this certificate.
    pub fn client_showing(&self, leaf: &Leaf) -> Arc<ClientConfig> {
        install_provider();
        let chain = vec![CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).expect("a key");
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = builder.with_client_auth_cert(chain, key).expect("they fit");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Writes the authority's own certificate into `folder`.
    pub fn ca_file(&self, folder: &Path) -> PathBuf {
        written(folder, "ca.pem", &self.ca_pem)
    }

    /// Writes the certificate and the key of the leaf into `folder`.
    pub fn leaf_files(&self, folder: &Path) -> (PathBuf, PathBuf) {
        (
            written(folder, "leaf.pem", &self.cert_pem),
            written(folder, "leaf.key", &self.key_pem),
        )
    }

    /// What a server with the leaf presents, offering `protocols` by ALPN.
    pub fn server(&self, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        install_provider();
        self.serving(protocols, ServerConfig::builder().with_no_client_auth())
    }

    /// The same over HTTP/1.1, asking for a certificate of `clients`; `Demand::Must`: there is no answer without one.
    pub fn server_asking(&self, clients: &Self, demand: Demand) -> Arc<ServerConfig> {
        install_provider();
        let builder = WebPkiClientVerifier::builder(Arc::new(clients.roots()));
        let verifier = match demand {
            Demand::Must => builder,
            Demand::May => builder.allow_unauthenticated(),
        };
        let verifier = verifier.build().expect("one authority");
        self.serving(
            &[b"http/1.1"],
            ServerConfig::builder().with_client_cert_verifier(verifier),
        )
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("our CA"))
            .expect("a CA");
        roots
    }

    fn serving(
        &self,
        protocols: &[&[u8]],
        builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    ) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("our certificate")];
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("our key");
        let mut config = builder.with_single_cert(chain, key).expect("they fit");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A client that trusts this authority alone.
    pub fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        install_provider();
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    pub fn ca_pem(&self) -> &[u8] {
        self.ca_pem.as_bytes()
    }
}

impl Leaf {
    /// Writes both into `folder`, as `<name>.crt` and `<name>.key`.
    pub fn files(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        (
            written(folder, &format!("{name}.crt"), &self.cert_pem),
            written(folder, &format!("{name}.key"), &self.key_pem),
        )
    }
}

/// Names the cryptography that rustls is to use; any number of calls.
pub fn install_provider() {
    // An error says that another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn written(folder: &Path, name: &str, pem: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, pem).expect("a writable folder");
    path
}
