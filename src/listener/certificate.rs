//! What clients will think of a certificate.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

use crate::auth::Peer;

/// An operator needs so long to have a certificate renewed.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Reason and remedy of everything that a client may stumble over. `names`: under which it will be asked, with or
/// without a port. `now`: `None` if nobody knows.
pub(super) fn doubts(chain: &[CertificateDer<'_>], names: &[&str], now: Option<SystemTime>) -> Vec<String> {
    let parsed: Result<Vec<X509Certificate<'_>>, _> = chain
        .iter()
        .map(|der| parse_x509_certificate(der).map(|(_, certificate)| certificate))
        .collect();
    let Ok(parsed) = parsed else {
        return vec!["holds what is no X.509 certificate; clients will refuse it".to_owned()];
    };
    let Some(leaf) = parsed.first() else { return Vec::new() };
    let time = now.and_then(|now| out_of_time(leaf, now));
    time.into_iter()
        .chain(out_of_order(&parsed))
        .chain(misnamed(leaf, names))
        .collect()
}

/// Whether clients that ask for `name` take it.
pub(super) fn is_for(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let parsed = chain.first().and_then(|der| parse_x509_certificate(der).ok());
    parsed.is_some_and(|(_, leaf)| known(&leaf).iter().any(|known| covers(known, without_port(name))))
}

/// When it ends, in seconds since 1970.
pub(super) fn ends(chain: &[CertificateDer<'_>]) -> Option<u64> {
    let (_, leaf) = parse_x509_certificate(chain.first()?).ok()?;
    u64::try_from(leaf.validity().not_after.timestamp()).ok()
}

/// Whoever holds it. Nobody if it cannot be read.
pub(super) fn peer(der: &[u8]) -> Peer {
    let Ok((_, leaf)) = parse_x509_certificate(der) else {
        return Peer::default();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    };
    let alternatives: Vec<String> = known(&leaf).iter().filter_map(name).collect();
    let subject = leaf.subject().iter_attributes().map(|attribute| {
        let oid = attribute.attr_type();
        let kind = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
        // What is no text equals nothing that can be written down.
        (kind, attribute.as_str().unwrap_or("\u{0}"))
    });
    Peer::new(alternatives, subject)
}

fn known<'a>(leaf: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    alternative.map_or(&[][..], |extension| &extension.value.general_names)
}

fn out_of_time(leaf: &X509Certificate<'_>, now: SystemTime) -> Option<String> {
    let (begins, ends) = (leaf.validity().not_before, leaf.validity().not_after);
    if at(begins) > now {
        return Some(format!(
            "is valid from {} on only, and clients refuse it until then; check the clock, or have it issued anew",
            shown(begins)
        ));
    }
    let left = at(ends).duration_since(now).unwrap_or_default();
    if left.is_zero() {
        return Some(format!(
            "expired on {}, and clients refuse it; have it renewed",
            shown(ends)
        ));
    }
    let days = left.as_secs() / 86_400;
    (left < SOON).then(|| format!("expires on {}, in {days} days; have it renewed", shown(ends)))
}

/// Each is signed by the next one: what clients are sent has to be in this order.
fn out_of_order(chain: &[X509Certificate<'_>]) -> Option<String> {
    let breaks = |pair: &[X509Certificate<'_>]| pair[0].issuer().as_raw() != pair[1].subject().as_raw();
    let index = chain.windows(2).position(breaks)?;
    Some(format!(
        "certificate {} was not issued by certificate {} below it: some clients refuse the chain; write the server's own first, then each issuer",
        index + 1,
        index + 2
    ))
}

fn misnamed(leaf: &X509Certificate<'_>, names: &[&str]) -> Option<String> {
    let known = known(leaf);
    if known.is_empty() {
        return Some(
            "names no host, and clients refuse it; have it issued with a subjectAltName for every name that clients use"
                .to_owned(),
        );
    }
    let missing = names
        .iter()
        .map(|name| without_port(name))
        .find(|name| !known.iter().any(|known| covers(known, name)))?;
    Some(format!(
        "is not for {missing}, which stands in hosts or login_server; have it issued with that name too"
    ))
}

fn covers(known: &GeneralName<'_>, name: &str) -> bool {
    match known {
        GeneralName::DNSName(pattern) => {
            let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
            // A wildcard stands for one label.
            let below = pattern.strip_prefix("*.").zip(name.split_once('.'));
            pattern == name || below.is_some_and(|(pattern, (_, name))| pattern == name)
        }
        GeneralName::IPAddress(bytes) => match name.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(address)) => *bytes == address.octets(),
            Ok(IpAddr::V6(address)) => *bytes == address.octets(),
            Err(_) => false,
        },
        _ => false,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

fn at(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

fn shown(time: ASN1Time) -> String {
    let date = time.to_datetime().date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}
