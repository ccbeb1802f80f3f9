//! HTTPS and HTTP/2, downwards by certificate and key, upwards by a private authority.

use reqwest::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::authority::Authority;
use crate::support::client::{Client, blob, manifest, reqwest_trusting};
use crate::support::content::{Image, OCI_MANIFEST, random, sha256};
use crate::support::node::{Node, Setup};
use crate::support::upstream::{Access, Fault, Upstream, basic};

/// A node that speaks TLS with a certificate of `authority`.
async fn behind_tls(parent: &Upstream, authority: &Authority) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, key) = authority.leaf_files(folder.path());
    // The harness looks at the admin port alone, which stays plain.
    let node = Setup::below(&parent.url())
        .listen(&format!("cert_file = \"{}\"", certificate.display()))
        .listen(&format!("key_file = \"{}\"", key.display()))
        .start()
        .await;
    (node, folder)
}

/// A node whose parent's authority is known from a file.
async fn trusting(parent: &Upstream, authority: &Authority) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = authority.ca_file(folder.path());
    let node = Setup::below(&parent.url())
        .parent(&format!("ca_file = \"{}\"", file.display()))
        .start()
        .await;
    (node, folder)
}

#[tokio::test]
async fn the_registry_port_speaks_https_with_the_given_certificate() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let image = parent.new_image("a", "v1", &[3_000_000]);
    let (node, _folder) = behind_tls(&parent, &authority).await;

    let client = Client::tls(node.address(), authority.client(&[b"http/1.1"]));

    client.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    for _ in ["cold", "warm"] {
        let reply = client.get(&blob("a", &image.layer(0))).await;
        reply.assert_is(&image.layers[0]);
    }
    client
        .range(&blob("a", &image.layer(0)), "1000-1999")
        .await
        .assert_part(&image.layers[0], 1000, 1999);
}

#[tokio::test]
async fn the_registry_port_speaks_http_2_to_who_offers_it() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let image = parent.new_image("a", "v1", &[3_000_000]);
    let (node, _folder) = behind_tls(&parent, &authority).await;
    let client = reqwest_trusting(Some(&authority));
    let url = |target: String| format!("https://{}{target}", node.address());

    for _ in ["cold", "warm"] {
        for (target, bytes) in [
            (manifest("a", "v1"), &image.manifest.bytes),
            (blob("a", &image.layer(0)), &image.layers[0]),
        ] {
            let reply = client.get(url(target)).send().await.unwrap();
            assert_eq!((reply.version(), reply.status().as_u16()), (Version::HTTP_2, 200));
            assert_eq!(reply.headers()["content-length"], bytes.len().to_string());
            assert!(reply.bytes().await.unwrap() == bytes);
        }
    }
    let part = client
        .get(url(blob("a", &image.layer(0))))
        .header("Range", "bytes=1000-1999")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert!(part.bytes().await.unwrap() == image.layers[0][1000..2000]);
    assert_eq!(parent.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn many_streams_of_one_http_2_connection_are_served_at_once() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let image = parent.new_image("a", "v1", &[1_000_000; 4]);
    let (node, _folder) = behind_tls(&parent, &authority).await;
    let client = reqwest_trusting(Some(&authority));

    let mut pulls = tokio::task::JoinSet::new();
    for at in 0..16 {
        let url = format!("https://{}{}", node.address(), blob("a", &image.layer(at % 4)));
        let (client, layer) = (client.clone(), image.layers[at % 4].clone());
        pulls.spawn(async move { client.get(url).send().await.unwrap().bytes().await.unwrap() == layer });
    }

    assert_eq!(pulls.join_all().await, [true; 16]);
    assert_eq!(parent.count("GET", "/blobs/"), 4);
}

#[tokio::test]
async fn a_client_that_leaves_before_it_speaks_http_2_is_no_error_of_ours() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let image = parent.new_image("a", "v1", &[10]);
    let (node, _folder) = behind_tls(&parent, &authority).await;
    for _ in 0..8 {
        let tcp = tokio::net::TcpStream::connect(node.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(authority.client(&[b"h2"]));
        let name = node.address().ip().into();
        drop(connector.connect(name, tcp).await.unwrap());
    }

    let client = Client::tls(node.address(), authority.client(&[b"http/1.1"]));
    client.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

    assert!(!node.log().contains("ERROR"), "{}", node.log());
}

#[tokio::test]
async fn wrong_bytes_break_an_http_2_stream() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let digest = parent.blob("a", &random(1_000_000));
    parent.fault(Fault::get(&digest).flip_at(999_999));
    let (node, _folder) = behind_tls(&parent, &authority).await;

    let url = format!("https://{}{}", node.address(), blob("a", &digest));
    let whole = match reqwest_trusting(Some(&authority)).get(url).send().await {
        Ok(reply) if reply.status() == 200 => reply.bytes().await.is_ok(),
        _ => false,
    };

    assert!(!whole, "a complete reply with wrong bytes");
    assert!(!node.has_stored(&digest));
}

// Docker, Podman and crane try HTTPS first on a registry that they were told is insecure.
#[tokio::test]
async fn https_to_a_plain_port_is_answered_at_once_by_what_shows_that_it_is_http() {
    let node = Setup::alone().start().await;
    let begun = std::time::Instant::now();

    let mut stream = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    // A record of TLS 1.0 with a greeting of 512 bytes, of which a part has come.
    stream
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();

    assert!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(node.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_harms_nobody() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    parent.new_image("a", "v1", &[10]);
    let (node, _folder) = behind_tls(&parent, &authority).await;

    let mut plain = node.client().connect().await;
    let _ = plain.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    drop(plain);

    let client = Client::tls(node.address(), authority.client(&[b"http/1.1"]));
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_parent_of_a_private_authority_is_trusted_by_its_file() {
    let authority = Authority::new();
    let parent = Upstream::tls(&authority).await;
    let image = parent.new_image("a", "v1", &[100_000]);
    let (node, _folder) = trusting(&parent, &authority).await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
}

#[tokio::test]
async fn a_parent_may_speak_http_2() {
    let authority = Authority::new();
    let parent = Upstream::h2(&authority).await;
    let image = parent.new_image("a", "v1", &[5_000_000]);
    let (node, _folder) = trusting(&parent, &authority).await;

    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    let seen = parent.seen("GET", "/blobs/");
    assert_eq!((seen.len(), seen[0].header(":version")), (1, Some("HTTP/2.0")));
}

#[tokio::test]
async fn a_parent_of_an_unknown_authority_is_refused_before_anything_is_said_to_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let parent = Upstream::tls(&authority).await;
    parent.new_image("a", "v1", &[10]);
    let (trusts_other, _folder) = trusting(&parent, &other).await;
    let trusts_nobody = Node::below(&parent).await;

    for node in [trusts_other, trusts_nobody] {
        let reply = node.get(&manifest("a", "v1")).await;
        assert!(matches!(reply.status, 502 | 503), "{reply}");
        reply.assert_error(reply.status, "UNAVAILABLE");
    }
    assert_eq!(parent.seen("", "").len(), 0);
}

#[tokio::test]
async fn a_parent_that_should_speak_tls_and_does_not_gets_no_credentials() {
    let parent = Upstream::start().await;
    parent.new_image("a", "v1", &[10]);
    parent.access(Access::Basic {
        user: "l4".to_owned(),
        password: "canary".to_owned(),
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "canary").expect("a writable folder");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own file");
    let node = Setup::below(&parent.url().replace("http:", "https:"))
        .parent("username = \"l4\"")
        .parent(&format!("password_file = \"{}\"", password.display()))
        .start()
        .await;

    let reply = node.get(&manifest("a", "v1")).await;

    assert!(matches!(reply.status, 502 | 503), "{reply}");
    assert!(
        parent
            .seen("", "")
            .iter()
            .all(|seen| seen.header("authorization") != Some(&basic("l4", "canary")))
    );
}

#[tokio::test]
async fn three_layers_over_tls_pull_like_three_without() {
    let authority = Authority::new();
    let cloud = Upstream::tls(&authority).await;
    let image = cloud.new_image("a", "v1", &[1_000_000]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, key) = authority.leaf_files(folder.path());
    let ca = authority.ca_file(folder.path());
    let below = async |url: &str, name: &str| {
        Setup::below(url)
            .named(name)
            .parent(&format!("ca_file = \"{}\"", ca.display()))
            .listen(&format!("cert_file = \"{}\"", certificate.display()))
            .listen(&format!("key_file = \"{}\"", key.display()))
            .start()
            .await
    };
    let l5 = below(&cloud.url(), "l5").await;
    let l4 = below(&format!("https://{}", l5.address()), "l4").await;

    let client = Client::tls(l4.address(), authority.client(&[b"http/1.1"]));

    client.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    client
        .get(&blob("a", &image.layer(0)))
        .await
        .assert_is(&image.layers[0]);
    assert_eq!(cloud.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn pushes_over_http_2_are_as_good() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.leaf_files(folder.path());
    let node = Setup::alone()
        .registry()
        .listen(&format!("cert_file = {certificate:?}"))
        .listen(&format!("key_file = {key:?}"))
        .start()
        .await;
    let client = reqwest_trusting(Some(&authority));
    let base = format!("https://{}", node.address());
    let image = Image::of(&[3 << 20, 0, 1]);
    let push = async |bytes: &bytes::Bytes| {
        let begun = client.post(format!("{base}/v2/a/blobs/uploads/")).send().await.unwrap();
        assert_eq!((begun.status().as_u16(), begun.version()), (202, Version::HTTP_2));
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let patch = client.patch(format!("{base}{location}")).body(first.to_vec());
        assert_eq!(patch.send().await.unwrap().status(), 202);
        let put = client
            .put(format!("{base}{location}?digest={}", sha256(bytes)))
            .body(rest.to_vec());
        assert_eq!(put.send().await.unwrap().status(), 201);
    };

    let blobs: Vec<_> = image.layers.iter().chain([&image.config]).collect();
    futures_util::future::join_all(blobs.iter().map(|bytes| push(bytes))).await;
    let put = client
        .put(format!("{base}/v2/a/manifests/v1"))
        .header("Content-Type", OCI_MANIFEST)
        .body(image.manifest.bytes.clone());
    assert_eq!(put.send().await.unwrap().status(), 201);

    for bytes in blobs {
        let got = client
            .get(format!("{base}/v2/a/blobs/{}", sha256(bytes)))
            .send()
            .await
            .unwrap();
        assert_eq!(got.bytes().await.unwrap(), *bytes);
    }
}
