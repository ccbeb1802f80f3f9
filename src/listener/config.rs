use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::units::{Address, Size, Span};

/// Where the registry listens, and what it puts up with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Address and port.
    pub address: SocketAddr,
    /// Certificates; plain HTTP without.
    pub tls: TlsFiles,
    /// Proxies in front of this node, whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Host and port under which clients know this node; without it, whatever they ask for.
    pub login_server: Option<String>,
    /// A request's header is here by then.
    pub header_timeout: Duration,
    /// A TLS handshake is done by then.
    pub handshake_timeout: Duration,
    /// A connection without a request is closed after.
    pub idle_timeout: Duration,
    /// A client that takes nothing for so long is cut off.
    pub write_timeout: Duration,
    /// A second: so is one that takes less, on average over `write_timeout`.
    pub min_rate: Size,
    /// Bytes that the first line and the fields of a request may have together.
    pub head_size: Size,
    /// Fields that a request may have.
    pub head_fields: usize,
    /// Connections at a time; 0 derives them from the limit of open files.
    pub connections: usize,
    /// Those of them that one address may have, or one /64 of IPv6; 0: as many as there may be at all.
    pub connections_per_address: usize,
    /// Whether HTTP/2 is offered where there is TLS.
    pub http2: bool,
    /// Requests at a time over one connection of HTTP/2.
    pub http2_streams: u32,
}

/// Which certificates are shown and asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// Certificate chain and key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A folder of further pairs: `<name>.crt` and `<name>.key`.
    pub certs_dir: Option<PathBuf>,
    /// PEM: authorities that certificates of clients come from.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client has to show one.
    pub client_auth: ClientAuth,
}

impl TlsFiles {
    /// Of what stands in the settings.
    ///
    /// # Errors
    ///
    /// A text: what stands there without what it needs.
    pub fn new(
        cert_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        certs_dir: Option<PathBuf>,
        client_ca_file: Option<PathBuf>,
        client_auth: ClientAuth,
    ) -> Result<Self, String> {
        let certificate = match (cert_file, key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err("cert_file stands without key_file; write both, or neither for plain HTTP".to_owned());
            }
            (None, Some(_)) => {
                return Err("key_file stands without cert_file; write both, or neither for plain HTTP".to_owned());
            }
        };
        if client_ca_file.is_some() && certificate.is_none() && certs_dir.is_none() {
            return Err("client_ca_file stands without cert_file, and certificates are shown over TLS alone; write cert_file and key_file".to_owned());
        }
        if client_auth == ClientAuth::Required && client_ca_file.is_none() {
            return Err(
                "client_auth is required, and nothing says whose certificates are good; write client_ca_file"
                    .to_owned(),
            );
        }
        Ok(Self {
            certificate,
            certs_dir,
            client_ca_file,
            client_auth,
        })
    }

    /// Whether there is TLS at all.
    pub fn is_on(&self) -> bool {
        self.certificate.is_some() || self.certs_dir.is_some()
    }

    /// All files, those in the folder too, as it is now.
    pub fn paths(&self) -> Vec<PathBuf> {
        let pair = self
            .certificate
            .iter()
            .flat_map(|(certificate, key)| [certificate, key]);
        let mut paths: Vec<PathBuf> = pair.chain(&self.client_ca_file).cloned().collect();
        if let Some(folder) = &self.certs_dir {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        paths
    }
}

/// Whether a client has to show a certificate, where those of clients are looked at.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// It may log in by a password instead.
    #[default]
    Optional,
    /// There is no connection without.
    Required,
}

/// Written `10.1.0.0/16` or `10.1.2.3`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let alone = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse().ok().or_else(alone);
        network.map(Self).ok_or_else(|| {
            format!("{text:?} is no address; write that of a proxy like 10.1.2.3, or a network like 10.1.0.0/16")
        })
    }
}

impl ClientAuth {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// What may stand in the file, before it is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    address: Address,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    certs_dir: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_auth: ClientAuth,
    trusted_proxies: Vec<Network>,
    login_server: Option<String>,
    header_timeout: Span,
    handshake_timeout: Span,
    idle_timeout: Span,
    write_timeout: Span,
    min_rate: Size,
    head_size: Size,
    head_fields: usize,
    connections: usize,
    connections_per_address: usize,
    http2: bool,
    http2_streams: u32,
}

/// More of a head than this is not read by pingora, bytes and fields.
const MOST_HEAD: (u64, usize) = (1 << 20, 256);

impl Default for Written {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5000)).into(),
            cert_file: None,
            key_file: None,
            certs_dir: None,
            client_ca_file: None,
            client_auth: ClientAuth::default(),
            trusted_proxies: Vec::new(),
            login_server: None,
            header_timeout: Span::seconds(10),
            handshake_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(75),
            write_timeout: Span::seconds(30),
            min_rate: Size::kib(1),
            head_size: Size::kib(16),
            head_fields: 64,
            connections: 0,
            connections_per_address: 2048,
            http2: true,
            http2_streams: 64,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Written::default().try_into().expect("the defaults are allowed")
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let tls = TlsFiles::new(
            written.cert_file,
            written.key_file,
            written.certs_dir,
            written.client_ca_file,
            written.client_auth,
        )?;
        if let Some(server) = &written.login_server
            && !is_host(server)
        {
            return Err(format!(
                "login_server is {server:?}; write a host, with its port unless that is 80 or 443, like l4.plant.example:5000"
            ));
        }
        let timeouts = [
            ("header_timeout", written.header_timeout),
            ("handshake_timeout", written.handshake_timeout),
            ("idle_timeout", written.idle_timeout),
            ("write_timeout", written.write_timeout),
        ];
        if let Some((key, span)) = timeouts
            .iter()
            .find(|(_, span)| span.duration() < Duration::from_secs(1))
        {
            return Err(format!("{key} is {span}, too short for any client; write 1s or more"));
        }
        let (most_bytes, most_fields) = MOST_HEAD;
        if !(1024..=most_bytes).contains(&written.head_size.bytes()) {
            return Err("head_size is not between 1KiB and 1MiB; clients send up to some 8KiB; write 16KiB".to_owned());
        }
        if !(16..=most_fields).contains(&written.head_fields) {
            return Err("head_fields is not between 16 and 256; clients send up to some 20; write 64".to_owned());
        }
        if written.http2_streams == 0 {
            return Err(
                "http2_streams is 0, so nothing could be asked; write 64, or http2 = false for HTTP/1.1".to_owned(),
            );
        }
        Ok(Self {
            address: written.address.socket(),
            tls,
            trusted_proxies: written.trusted_proxies.into_iter().map(|network| network.0).collect(),
            login_server: written.login_server,
            header_timeout: written.header_timeout.duration(),
            handshake_timeout: written.handshake_timeout.duration(),
            idle_timeout: written.idle_timeout.duration(),
            write_timeout: written.write_timeout.duration(),
            min_rate: written.min_rate,
            head_size: written.head_size,
            head_fields: written.head_fields,
            connections: written.connections,
            connections_per_address: written.connections_per_address,
            http2: written.http2,
            http2_streams: written.http2_streams,
        })
    }
}

/// A host and perhaps a port, as clients write them.
fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}
