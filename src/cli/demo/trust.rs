//! What `--tls` adds to the plant: an authority of its own, and an account for each who asks another.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::auth::generate_password;
use crate::cli::demo::Error;
use crate::cli::demo::endpoint::Endpoint;
use crate::units::Secret;

/// An authority that nobody knows but the plant.
pub(super) struct Trust {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Somebody who logs in.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: &'static str,
    pub(super) password: Secret,
    /// The same, for settings.
    pub(super) password_file: PathBuf,
}

/// How a part of the plant is asked, and what its settings say of that.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    /// Lines of `[listen]`.
    pub(super) listen: String,
    /// Of accounts.
    pub(super) sections: String,
    /// As we ask it.
    pub(super) ours: Endpoint,
    /// As the layer below asks it.
    pub(super) below: Endpoint,
}

/// What the layers may have of each other.
const PLANT: &str = "plant/*";

/// What a certificate is good for: this machine.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

impl Trust {
    /// An authority whose certificate lies in `folder` as `ca.crt`, for those who take a folder of them too.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`], [`Error::Io`].
    pub(super) fn new(folder: PathBuf) -> Result<Self, Error> {
        let mut params = named("wharf demo")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write(&folder.join("ca.crt"), &certificate.pem())?;
        let issuer = Issuer::new(params, key);
        Ok(Self { folder, issuer })
    }

    /// The folder in which its certificate lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A part of the plant that listens on `address` by TLS, its files in `folder`. We may do everything there; `below`,
    /// whose name and actions these are, what is of the plant.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`], [`Error::Io`].
    pub(super) fn guard(
        &self,
        name: &str,
        address: SocketAddr,
        folder: &Path,
        below: Option<(&'static str, &str)>,
    ) -> Result<Doors, Error> {
        let (cert_file, key_file) = self.certify(name, folder)?;
        let us = account("demo", folder)?;
        let mut sections = us.section("*", "\"all\"");
        let mut theirs = None;
        if let Some((name, actions)) = below {
            let account = account(name, folder)?;
            sections += &account.section(PLANT, actions);
            theirs = Some(account);
        }
        let endpoint = |account| Endpoint {
            url: format!("https://{address}"),
            ca_file: Some(self.folder.join("ca.crt")),
            account,
        };
        Ok(Doors {
            listen: format!(
                "cert_file = {}\nkey_file = {}\n",
                written(&cert_file),
                written(&key_file)
            ),
            sections,
            ours: endpoint(Some(us)),
            below: endpoint(theirs),
        })
    }

    fn certify(&self, name: &str, into: &Path) -> Result<(PathBuf, PathBuf), Error> {
        let params = named(name)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let (cert_file, key_file) = (into.join("tls.crt"), into.join("tls.key"));
        write(&cert_file, &certificate.pem())?;
        write(&key_file, &key.serialize_pem())?;
        Ok((cert_file, key_file))
    }
}

/// An account with a password by chance, which lies in a file of its own in `folder`.
fn account(name: &'static str, folder: &Path) -> Result<Account, Error> {
    let password = generate_password();
    let password_file = folder.join(format!("password-of-{name}"));
    write(&password_file, password.expose())?;
    Ok(Account {
        name,
        password,
        password_file,
    })
}

impl Doors {
    /// Open to everybody, without TLS.
    pub(super) fn open(address: SocketAddr) -> Self {
        let endpoint = Endpoint::open(format!("http://{address}"));
        Self {
            listen: String::new(),
            sections: String::new(),
            ours: endpoint.clone(),
            below: endpoint,
        }
    }
}

impl Account {
    /// The sections of who knows this account, and lets it do this.
    fn section(&self, repositories: &str, actions: &str) -> String {
        let (name, password_file) = (self.name, written(&self.password_file));
        format!(
            "\n[[identity]]\nname = \"{name}\"\npassword_file = {password_file}\n\n\
             [[permission]]\nidentities = [\"{name}\"]\nrepositories = [\"{repositories}\"]\nactions = [{actions}]\n"
        )
    }
}

/// A path as it stands in settings.
pub(super) fn written(path: &Path) -> String {
    toml::Value::from(path.display().to_string()).to_string()
}

fn named(name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// For our eyes alone.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::Io {
            action: "writing",
            path: path.to_owned(),
            source,
        })
}
