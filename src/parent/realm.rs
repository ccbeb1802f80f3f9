//! Which token service may see our credentials.
//!
//! The realm is chosen by whoever answers 401. It is believed only at the upstream's own scheme,
//! host and port, at the partner that Docker Hub is known to have, or at a host of the settings:
//! else a registry, or a man in the middle, could have credentials sent anywhere (CVE-2026-33540).

use url::Url;

use super::origin::Origin;

/// Pairs of an upstream and its token service that need no settings.
const KNOWN_PAIRS: [(&str, &str); 1] = [("registry-1.docker.io", "auth.docker.io")];

/// The realm as a URL that may be asked, or the reason why not.
pub(super) fn accept(upstream: &Url, written: &str, auth_hosts: &[String]) -> Result<Url, &'static str> {
    // A relative realm is one at the registry itself.
    let Ok(realm) = upstream.join(written) else {
        return Err("its token service is no URL");
    };
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err("the URL of its token service names a user");
    }
    let (Some(home), Some(there)) = (Origin::of(upstream), Origin::of(&realm)) else {
        return Err("its token service is neither https:// nor http://");
    };
    if home == there {
        return Ok(realm);
    }
    if home.is_https() && !there.is_https() {
        return Err("its token service is http:// though the registry is https://");
    }
    let is_known = KNOWN_PAIRS
        .iter()
        .any(|(registry, service)| home.is_at(registry) && there.is_at(service));
    if is_known || auth_hosts.iter().any(|listed| there.is_at(listed)) {
        return Ok(realm);
    }
    Err("its token service is at another host; if that is right, list the host in auth_hosts")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(upstream: &str, realm: &str, listed: &[&str]) -> Result<String, &'static str> {
        let listed: Vec<String> = listed.iter().map(|&host| host.to_owned()).collect();
        accept(&Url::parse(upstream).unwrap(), realm, &listed).map(|url| url.to_string())
    }

    #[test]
    fn a_realm_at_the_upstream_itself_is_accepted_also_when_relative() {
        let home = "https://r.example:5000/";

        assert!(verdict(home, "https://r.example:5000/token", &[]).is_ok());
        assert_eq!(
            verdict(home, "/acr/token?x=1", &[]).unwrap(),
            "https://r.example:5000/acr/token?x=1"
        );
    }

    #[test]
    fn docker_hub_and_its_token_service_belong_together_and_only_they() {
        assert!(verdict("https://registry-1.docker.io/", "https://auth.docker.io/token", &[]).is_ok());
        assert!(verdict("https://evil.example/", "https://auth.docker.io/token", &[]).is_err());
        assert!(verdict("https://registry-1.docker.io/", "https://auth.docker.io:8443/t", &[]).is_err());
    }

    #[test]
    fn a_realm_elsewhere_is_refused_however_close_it_looks() {
        for realm in [
            "https://evil.example/token",
            "https://auth.r.example/token",
            "https://r.example:5001/token",
            "http://r.example/token",
            "https://127.0.0.1/token",
            "https://169.254.169.254/latest",
            "https://user:pass@r.example/token",
            "//evil.example/token",
            "ftp://r.example/token",
            "https://",
        ] {
            assert!(verdict("https://r.example/", realm, &[]).is_err(), "{realm}");
        }
    }

    #[test]
    fn a_listed_host_is_accepted_but_never_over_plain_http_below_https() {
        let listed = ["auth.example"];

        assert!(verdict("https://r.example/", "https://auth.example/t", &listed).is_ok());
        assert!(verdict("https://r.example/", "http://auth.example/t", &listed).is_err());
        assert!(verdict("http://r.example/", "http://auth.example/t", &listed).is_ok());
    }
}
