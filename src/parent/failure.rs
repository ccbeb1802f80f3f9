//! Why there was no answer: a word for the metric, and words for people.

use std::error::Error as StdError;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error as Tls};

use super::egress::NameError;

/// What stood between us and an answer. A closed set, so that nobody above can invent series.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// The name service.
    Name,
    /// The name, or the URL of a redirect, leads inside the network.
    Address,
    /// The connection was refused, or there is no way.
    Connect,
    /// Too slow: the connection, its TLS or the answer.
    Timeout,
    /// A certificate that is not valid now.
    Expired,
    /// A certificate for another name.
    WrongName,
    /// A certificate of an authority that is not trusted.
    Authority,
    /// A certificate of an authority itself.
    OfAuthority,
    /// Our own certificate is wanted, or is not accepted.
    Certificate,
    /// Something else than TLS is spoken there.
    NotTls,
    /// Anything else about TLS.
    Tls,
    /// The proxy on the way.
    Proxy,
    /// The connection ended before the answer.
    Broken,
    /// Our login was refused, or could not be had.
    Credentials,
    /// It sent us where we do not go.
    Redirect,
}

impl Failure {
    /// The label in `wharf_parent_failures_total`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Expired => "tls_expired",
            Self::WrongName => "tls_name",
            Self::Authority | Self::OfAuthority => "tls_authority",
            Self::Certificate => "tls_certificate",
            Self::NotTls => "tls_none",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Broken => "broken",
            Self::Credentials => "credentials",
            Self::Redirect => "redirect",
        }
    }

    /// What kept a request from being answered.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some(name) = find::<NameError>(error) {
            return match name {
                NameError::Inside => Self::Address,
                NameError::Away(_) | NameError::Nowhere => Self::Name,
            };
        }
        if let Some(tls) = find::<Tls>(error) {
            return Self::of_tls(tls);
        }
        if error.is_timeout() {
            return Self::Timeout;
        }
        if speaks_of_proxy(error) {
            return Self::Proxy;
        }
        match error.is_connect() {
            true => Self::Connect,
            false => Self::Broken,
        }
    }

    fn of_tls(error: &Tls) -> Self {
        use CertificateError as Bad;
        match error {
            Tls::InvalidCertificate(
                Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
            ) => Self::Expired,
            Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Self::WrongName,
            // A new authority under the old name makes signatures that the old one's key does not fit.
            Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => Self::Authority,
            // What its library adds has no name here; its words are all there is.
            Tls::InvalidCertificate(Bad::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                Self::OfAuthority
            }
            Tls::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            ) => Self::Certificate,
            Tls::InvalidMessage(_) => Self::NotTls,
            _ => Self::Tls,
        }
    }

    /// Whether other files of certificates may help.
    pub(super) fn is_of_tls(self) -> bool {
        matches!(
            self,
            Self::Expired | Self::WrongName | Self::Authority | Self::OfAuthority | Self::Certificate | Self::Tls
        )
    }
}

/// Completes the sentence "l5 cannot be reached: ".
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its name cannot be resolved",
            Self::Address => "its name leads to an address inside the network",
            Self::Connect => "no connection to its address",
            Self::Timeout => "no connection, or no answer, in time",
            Self::Expired => {
                "its certificate has expired or is not valid yet; look at its certificate and at our clock"
            }
            Self::WrongName => "its certificate is for another name",
            Self::Authority => "its certificate is of an authority that is not trusted; name that in ca_file",
            Self::OfAuthority => {
                "its certificate is that of an authority (CA:TRUE), which none of a server may be; give it one with \
                 basicConstraints=CA:FALSE, and name that, or who signed it, in ca_file"
            }
            Self::Certificate => "it does not accept our certificate; look at cert_file and key_file",
            Self::NotTls => "it does not speak TLS on this port; look at the URL",
            Self::Tls => "TLS failed",
            Self::Proxy => "the proxy does not connect; look at proxy and its password",
            Self::Broken => "the connection broke before the answer",
            Self::Credentials => "our credentials were refused",
            Self::Redirect => "it sends us where we do not go",
        })
    }
}

/// The first error of this type below `error`; what an I/O error wraps included, which its `source` leaves out.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&cause| cause.source()).find_map(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause
            .downcast_ref::<T>()
            .or_else(|| find::<T>(inner? as &(dyn StdError + 'static)))
    })
}

/// The connector's errors about proxies have no public type; their words are all there is.
fn speaks_of_proxy(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(StdError::source(error), |&cause| cause.source());
    causes.map(ToString::to_string).any(|words| {
        let words = words.to_ascii_lowercase();
        words.contains("tunnel") || words.contains("socks") || words.contains("proxy")
    })
}
