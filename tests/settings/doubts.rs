//! What a node works with, and was perhaps not meant: told by the check and at the start, and refused by neither.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::{check_in, without_place, written};
use crate::support::authority::Authority;
use crate::support::node::Setup;

/// What is told of a file that passes.
fn told(folder: &Path, text: &str) -> String {
    written(folder, "wharf.toml", text);
    let output = check_in(folder).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}: {told}");
    assert!(!output.stdout.is_empty(), "{text}");
    without_place(&told)
}

#[test]
fn what_is_doubtful_is_told_with_its_place_and_the_settings_pass() {
    let folder = TempDir::new().unwrap();
    Authority::new().ca_file(folder.path());
    let token = written(folder.path(), "admin-token", "0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(token, PermissionsExt::from_mode(0o600)).unwrap();
    let hash = |cost: u32| {
        bcrypt::hash("secret", 4)
            .unwrap()
            .replacen("$04$", &format!("${cost}$"), 1)
    };
    let users = format!("ada:{}\nbob:{}\n", bcrypt::hash("secret", 4).unwrap(), hash(16));
    written(folder.path(), "htpasswd", &users);
    written(folder.path(), "ada", users.lines().next().unwrap());
    let cases = [
        (
            "[auth]\nhtpasswd_file = \"htpasswd\"\n",
            "wharf.toml:2:17: warning: auth.htpasswd_file: htpasswd has for bob a hash with a cost of 16, which takes a core for",
        ),
        (
            "[auth]\nhtpasswd_file = \"ada\"\n[[identity]]\nname = \"ada\"\ncertificates = [\"CN=ada\"]\n[[permission]]\nidentities = [\"ada\"]\nrepositories = [\"*\"]\nactions = [\"pull\"]\n",
            "wharf.toml:2:17: warning: auth.htpasswd_file: has ada, as [[identity]] does, which counts",
        ),
        (
            "[admin]\naddress = \"0.0.0.0:5001\"\ntoken_file = \"admin-token\"\n",
            "wharf.toml:2:11: warning: admin.address: can be reached from other machines without TLS",
        ),
        (
            "[parent]\nurl = \"https://l5.plant.example\"\nnamespace = \"docker.io\"\n[[permission]]\nidentities = [\"anonymous\"]\nrepositories = [\"docker.io/library/*\"]\nactions = [\"pull\"]\n",
            "wharf.toml:6:16: warning: permission[0].repositories: docker.io/library/* names nothing: docker.io is meant anyway here, and is not written; write library/*",
        ),
        (
            "[[upstream]]\nname = \"quay.io\"\nurl = \"https://quay.io\"\naliases = [\"quay\"]\n[[permission]]\nidentities = [\"anonymous\"]\nrepositories = [\"quay/*\"]\nactions = [\"pull\"]\n",
            "wharf.toml:7:16: warning: permission[0].repositories: quay/* names nothing: that registry is called quay.io here; write quay.io/*",
        ),
        (
            "[[permission]]\nidentities = [\"line-1\"]\nrepositories = [\"*\"]\nactions = [\"pull\"]\n",
            "wharf.toml:2:14: warning: permission[0].identities: line-1 stands in no [[identity]] and not in htpasswd_file",
        ),
        (
            "[[identity]]\nname = \"line-1\"\ncertificates = [\"line-1.plant.example\"]\n",
            "wharf.toml:2:8: warning: identity[0].name: line-1 may do nothing",
        ),
        (
            "[listen]\naddress = \"0.0.0.0:5000\"\n[auth]\n",
            "wharf.toml:1:2: warning: listen.cert_file: is not written: passwords cross the network in the clear",
        ),
        (
            "[storage]\ncapacity = \"8000000TiB\"\n",
            "wharf.toml:2:12: warning: storage.capacity: is 8000000TiB, more than the file system can hold",
        ),
        (
            "[parent]\nurl = \"http://l5.example\"\nusername = \"l4\"\npassword_env = \"PATH\"\n",
            "wharf.toml:3:12: warning: parent.username: its password travels in the clear",
        ),
        (
            "[parent]\nurl = \"http://l5.example\"\nca_file = \"ca.pem\"\n",
            "wharf.toml:3:11: warning: parent.ca_file: is never looked at",
        ),
        (
            "[parent]\nurl = \"https://a.example\"\n[[upstream]]\nname = \"b.example\"\nurl = \"https://a.example\"\nusername = \"l4\"\npassword_env = \"PATH\"\n",
            "wharf.toml:5:7: warning: upstream[0].url: a.example is asked with a password by upstream[0] and anonymously by parent",
        ),
        (
            "[parent]\nurl = \"https://a.example\"\n[[upstream]]\nname = \"b.example\"\nurl = \"https://a.example\"\n",
            "wharf.toml:5:7: warning: upstream[0].url: is that of parent too",
        ),
        (
            "[[upstream]]\nname = \"quay.io\"\n",
            "wharf.toml:1:1: warning: upstream[0]: has no url, so it is asked of the parent, and the parent is Docker Hub",
        ),
        (
            "[parent]\nurl = \"https://a.example\"\ncredential_helper = \"docker-credential-nowhere\"\n",
            "wharf.toml:3:21: warning: parent.credential_helper: no program docker-credential-docker-credential-nowhere is in PATH",
        ),
        (
            "[freshness]\nstale_after = \"9s\"\nanswer_within = \"8s\"\n",
            "wharf.toml:2:15: warning: freshness.stale_after: is longer than answer_within",
        ),
    ];

    for (text, expected) in cases {
        let told = told(folder.path(), text);

        assert!(told.starts_with(expected), "{text}: {told}");
        assert_eq!(told.matches("warning").count(), 1, "{told}");
    }
    assert_eq!(told(folder.path(), "[admin]\naddress = \"[::1]:5001\"\n"), "");
}

#[test]
fn a_variable_with_an_underscore_too_few_is_told_and_one_of_a_service_of_that_name_is_not() {
    let folder = TempDir::new().unwrap();
    written(folder.path(), "wharf.toml", "[storage]\npath = \"data\"\n");
    let told = |name: &str| {
        let output = check_in(folder.path()).env(name, "1GiB").output().unwrap();
        assert!(output.status.success());
        without_place(&String::from_utf8(output.stderr).unwrap())
    };

    assert_eq!(
        told("WHARF_STORAGE_CAPACITY"),
        "wharf.toml: warning: WHARF_STORAGE_CAPACITY: is not looked at; write WHARF__STORAGE__CAPACITY\n"
    );
    assert!(told("WHARF_STORAGE__CAPACITY").contains("WHARF__STORAGE__CAPACITY"));
    for other in [
        "WHARF_SERVICE_HOST",
        "WHARF_PARENT_SERVICE_PORT",
        "WHARF_PORT",
        "WHARF_BINARY",
        "WHARF_ADMIN_TOKEN_FILE",
        "WHARF_ADMIN_CA_FILE",
    ] {
        assert_eq!(told(other), "", "{other}");
    }
}

#[test]
fn a_certificate_that_clients_will_refuse_is_told() {
    let folder = TempDir::new().unwrap();
    let listen = "[listen]\ncert_file = \"leaf.pem\"\nkey_file = \"leaf.key\"\n";
    let with_host = format!(
        "{listen}[parent]\nurl = \"https://l5.example\"\n[[upstream]]\nname = \"quay.io\"\nhosts = [\"quay.example:5000\"]\n"
    );
    let issued = |names: &[&str], from: i32, to: i32, is_reversed: bool| {
        let issuer = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (signer, stranger) = (issuer("signer"), issuer("stranger"));
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &signer).unwrap();
        let next = if is_reversed { stranger.pem() } else { signer.pem() };
        written(folder.path(), "leaf.pem", &(leaf.pem() + &next));
        written(folder.path(), "leaf.key", &key.serialize_pem());
    };
    let told = |text: &str| told(folder.path(), text);

    issued(&["*.example"], 2000, 3000, false);
    assert_eq!(told(&with_host), "");
    issued(&["l4.example"], 2000, 3000, false);
    assert!(told(&with_host).contains("listen.cert_file: is not for quay.example, which stands in hosts"));
    issued(&[], 2000, 3000, false);
    assert!(told(listen).contains("listen.cert_file: names no host"));
    issued(&["l4.example"], 2000, 2001, false);
    assert!(told(listen).contains("wharf.toml:2:13: warning: listen.cert_file: expired on 2001-01-01"));
    let admin = "[admin]\ncert_file = \"leaf.pem\"\nkey_file = \"leaf.key\"\n";
    assert!(told(admin).contains("wharf.toml:2:13: warning: admin.cert_file: expired on 2001-01-01"));
    issued(&[], 2000, 3000, false);
    assert!(told(admin).contains("admin.cert_file: names no host"));
    issued(&["l4.example"], 2000, 3000, false);
    assert_eq!(told(admin), "");
    Authority::new().ca_file(folder.path());
    let clients = format!("{admin}client_ca_file = \"ca.pem\"\n");
    assert!(told(&clients).contains("wharf.toml:4:18: warning: admin.client_ca_file: makes an operator of whoever"));
    assert_eq!(told(&format!("{clients}certificates = [\"ops.example\"]\n")), "");
    issued(&["l4.example"], 2999, 3000, false);
    assert!(told(listen).contains("listen.cert_file: is valid from 2999-01-01 on only"));
    issued(&["l4.example"], 2000, 3000, true);
    assert!(told(listen).contains("listen.cert_file: certificate 1 was not issued by certificate 2"));
}

#[test]
fn a_key_of_another_certificate_is_wrong() {
    let folder = TempDir::new().unwrap();
    let (certificate, _) = Authority::new().leaf_files(folder.path());
    std::fs::rename(certificate, folder.path().join("first.pem")).unwrap();
    Authority::new().leaf_files(folder.path());
    let text = "[listen]\ncert_file = \"first.pem\"\nkey_file = \"leaf.key\"\n";
    written(folder.path(), "wharf.toml", text);

    let output = check_in(folder.path()).output().unwrap();

    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("wharf.toml:3:12: listen.key_file: first.pem and leaf.key do not belong together"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_store_of_a_newer_wharf_is_told_by_the_check_and_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut index = [0; 100];
    index[..16].copy_from_slice(b"SQLite format 3\0");
    index[63] = 99;
    std::fs::write(data.join("index.db"), index).unwrap();
    written(folder.path(), "wharf.toml", "[storage]\npath = \"data\"\n");

    let output = check_in(folder.path()).output().unwrap();

    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("wharf.toml:2:8: storage.path: data/index.db has format 99"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read(data.join("index.db")).unwrap(), index);
    assert_eq!(data.read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_doubtful_is_in_the_log_of_a_node_that_starts() {
    let node = Setup::alone().freshness("stale_after = \"25s\"").start().await;

    assert!(node.log().contains("doubtful setting"), "{}", node.log());
    assert!(node.log().contains("freshness.stale_after"), "{}", node.log());
}
