//! What changes while the node runs: certificates, passwords, settings; all of a change, or nothing of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::authority::{Authority, Leaf};
use crate::support::client::{Client, basic, blob, manifest};
use crate::support::content::{Image, Manifest, OCI_MANIFEST};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::Upstream;

/// Puts a file in the place of another, in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("tmp");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

fn replace_leaf(folder: &Path, name: &str, leaf: &Leaf) {
    replace(&folder.join(format!("{name}.key")), &leaf.key_pem);
    replace(&folder.join(format!("{name}.crt")), &leaf.cert_pem);
}

/// The certificate that is shown to who asks for `name`, in PEM without its lines.
async fn shown(node: &Node, config: &Arc<ClientConfig>, name: &str) -> Option<Vec<u8>> {
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(config.clone()).connect(name, tcp).await.ok()?;
    let (_, session) = stream.get_ref();
    session.peer_certificates().map(|chain| chain[0].to_vec())
}

fn der(leaf: &Leaf) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes())
        .unwrap()
        .to_vec()
}

async fn reloads(node: &Node, outcome: &str) -> u64 {
    node.metrics().await.sum("wharf_reloads_total", &[("outcome", outcome)]) as u64
}

#[tokio::test]
async fn each_name_is_shown_its_certificate_and_a_new_one_once_it_is_there() {
    let (parent, authority) = (Upstream::start().await, Authority::new());
    let image = parent.new_image("a", "v1", &[10]);
    let folder = TempDir::new().unwrap();
    let default = authority.leaf(&["localhost", "127.0.0.1"], "default");
    let (l4, any) = (
        authority.leaf(&["l4.example"], "l4"),
        authority.leaf(&["*.l3.example"], "l3"),
    );
    let (certificate, key) = default.files(folder.path(), "default");
    let certs = folder.path().join("certs");
    fs::create_dir(&certs).unwrap();
    l4.files(&certs, "l4");
    any.files(&certs, "l3");
    fs::write(certs.join("notes.txt"), "of somebody else").unwrap();
    let node = Setup::below(&parent.url())
        .listen(&format!("cert_file = \"{}\"", certificate.display()))
        .listen(&format!("key_file = \"{}\"", key.display()))
        .listen(&format!("certs_dir = \"{}\"", certs.display()))
        .start()
        .await;
    let config = authority.client(&[b"http/1.1"]);

    for (name, leaf) in [("localhost", &default), ("l4.example", &l4), ("a.l3.example", &any)] {
        assert_eq!(shown(&node, &config, name).await, Some(der(leaf)), "{name}");
    }
    let kept = Client::tls(node.address(), config.clone()).connect().await;
    let renewed = authority.leaf(&["localhost", "127.0.0.1"], "default");
    replace_leaf(folder.path(), "default", &renewed);
    let added = authority.leaf(&["new.example"], "new");
    added.files(&certs, "new");

    eventually("the new certificate is shown", async || {
        shown(&node, &config, "localhost").await == Some(der(&renewed))
            && shown(&node, &config, "new.example").await == Some(der(&added))
    })
    .await;
    // A connection that was open stays as it is.
    let open = kept
        .open(crate::support::client::Request::get(&manifest("a", "v1")))
        .await;
    open.rest().await.0.assert_is(&image.manifest.bytes);
    assert!(node.metrics().await.sum("wharf_certificate_expiry_seconds", &[]) > 1_700_000_000.0);

    // A pair that does not fit is refused, and said once; the old one goes on.
    let (done, refused) = (reloads(&node, "done").await, reloads(&node, "refused").await);
    replace(&key, &l4.key_pem);
    eventually("the bad pair is refused", async || {
        reloads(&node, "refused").await > refused
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(shown(&node, &config, "localhost").await, Some(der(&renewed)));
    assert_eq!(
        reloads(&node, "refused").await,
        refused + 1,
        "the same is not said again and again"
    );
    replace(&key, &renewed.key_pem);
    eventually("the good pair is taken", async || reloads(&node, "done").await > done).await;
}

/// A line of an htpasswd file.
fn user(name: &str, password: &str) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
}

/// A registry whose users are those of this file.
fn with_users(path: &Path) -> Setup {
    let settings = format!(
        "[auth]\nhtpasswd_file = \"{}\"\n[[permission]]\nidentities = [\"*\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n",
        path.display()
    );
    Setup::alone().registry().more(&settings)
}

async fn logs_in(node: &Node, name: &str, password: &str) -> bool {
    node.client().logged_in(name, password).get("/v2/").await.status == 200
}

#[tokio::test]
async fn a_file_that_somebody_is_writing_is_read_once_it_stands_still() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("htpasswd");
    let (ada, bob, carol) = (user("ada", "a"), user("bob", "b"), user("carol", "c"));
    fs::write(&path, format!("{ada}{bob}")).unwrap();
    let node = with_users(&path).start().await;
    assert!(logs_in(&node, "bob", "b").await);
    let done = reloads(&node, "done").await;

    // Longer than it takes until files are looked at anew, and another half each time.
    for number in 0..80 {
        fs::write(&path, format!("# {number}\n{ada}")).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(logs_in(&node, "bob", "b").await, "after {number}");
    }
    assert_eq!(reloads(&node, "done").await, done);
    fs::write(&path, format!("{ada}{bob}{carol}")).unwrap();

    eventually("it is read", async || logs_in(&node, "carol", "c").await).await;
    assert!(logs_in(&node, "bob", "b").await);
}

#[tokio::test]
async fn a_file_of_users_that_was_emptied_takes_nobody_away_unless_somebody_asks_for_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("htpasswd");
    fs::write(&path, user("ada", "a")).unwrap();
    let node = with_users(&path).start().await;
    let refused = reloads(&node, "refused").await;

    fs::write(&path, "# nobody\n").unwrap();
    eventually("it is refused", async || reloads(&node, "refused").await > refused).await;
    tokio::time::sleep(Duration::from_secs(6)).await;

    assert!(logs_in(&node, "ada", "a").await);
    assert_eq!(reloads(&node, "refused").await, refused + 1, "it is said once");
    assert!(node.log().contains("has nobody in it any more"), "{}", node.log());
    assert_eq!(node.admin_post("/api/reload", b"").await.status, 200);
    assert!(!logs_in(&node, "ada", "a").await);
}

#[tokio::test]
async fn a_file_that_changed_after_it_was_read_at_the_start_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("htpasswd");
    fs::write(&path, user("ada", "a")).unwrap();
    let mut node = with_users(&path).placed();
    node.environment("FAILPOINTS", "app.build=sleep(1500)");
    node.spawn();
    eventually("the settings are read", async || node.log().contains("wharf starts")).await;

    fs::write(&path, user("bob", "b")).unwrap();

    eventually("it is up", async || node.is_ready().await).await;
    eventually("bob is known", async || logs_in(&node, "bob", "b").await).await;
    assert!(!logs_in(&node, "ada", "a").await);
}

#[tokio::test]
async fn no_reload_opens_a_node_to_everybody() {
    for (more, listens_on) in [
        ("", "127.0.0.1"),
        ("", "0.0.0.0"),
        ("[push]\nanonymous = true\n", "0.0.0.0"),
    ] {
        let hash = bcrypt::hash("a", 4).unwrap();
        let identity = format!("[[identity]]\nname = \"ada\"\npassword_hashes = [\"{hash}\"]\n");
        for setup in [Setup::alone(), Setup::alone().registry()] {
            let node = setup.listen_on(listens_on).more(&identity).start().await;
            let file = node.folder().join("wharf.toml");
            let written = fs::read_to_string(&file).unwrap();
            let open = written.replace(&identity, more);
            assert_eq!(node.get("/v2/a/tags/list").await.status, 401);

            fs::write(&file, &open).unwrap();
            let reply = node.admin_post("/api/reload", b"").await;

            assert_eq!(reply.status, 409, "{reply}");
            assert_eq!(node.get("/v2/a/tags/list").await.status, 401, "{more}");
            // Said in words, it lets nobody in.
            fs::write(&file, format!("{}[auth]\n", open.replace(more, ""))).unwrap();
            assert_eq!(node.admin_post("/api/reload", b"").await.status, 200);
            assert_eq!(node.get("/v2/a/tags/list").await.status, 401);
            assert!(!logs_in(&node, "ada", "a").await);
        }
    }
}

#[tokio::test]
async fn what_is_wrong_or_takes_a_restart_changes_nothing_at_all() {
    let mut node = Setup::alone().registry().more("[auth]\n").start().await;
    let token = node.token("ci", &["plant/*:push"]).await;
    let file = node.folder().join("wharf.toml");
    let written = fs::read_to_string(&file).unwrap();
    let pusher = Pusher::of(token.client(&node), "office/app");
    let reload = async || node.admin_post("/api/reload", b"").await;
    assert_eq!(pusher.begin("").await.status, 403);
    let grant = "[[permission]]\nidentities = [\"ci\"]\nrepositories = [\"office/*\"]\nactions = [\"push\"]\n";

    for (wrong, words) in [
        (format!("{written}{grant}[nonsense]\n"), "nonsense"),
        (format!("{written}{grant}[limits]\nmanifest = \"lots\"\n"), "lots"),
        (written.replace("2GiB", "3GiB") + grant, "[storage]"),
        (written.replace("under-test", "other") + grant, "[node]"),
        (format!("{written}{grant}[push]\nuploads = 3\n"), "push.uploads"),
    ] {
        fs::write(&file, &wrong).unwrap();
        let reply = reload().await;
        assert_eq!(reply.status, 409, "{reply}");
        assert!(reply.text().contains(words), "{reply}");
        assert_eq!(pusher.begin("").await.status, 403, "{words}");
    }
    fs::write(&file, format!("{written}{grant}")).unwrap();
    assert_eq!(reload().await.status, 200);
    assert_eq!(pusher.begin("").await.status, 202);

    // And away again, by the signal that log rotation sends too.
    fs::write(&file, &written).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the right is gone", async || pusher.begin("").await.status == 403).await;
    fs::write(
        &file,
        format!("{written}[limits]\nmanifest = \"64KiB\"\n[push]\nimmutable_tags = [\"v*\"]\n"),
    )
    .unwrap();
    assert_eq!(reload().await.status, 200);
    let ci = Pusher::of(token.client(&node), "plant/app");
    let body = serde_json::json!({ "annotations": { "k": "x".repeat(70_000) } });
    let large = Manifest::new(OCI_MANIFEST, &body);
    assert_eq!(ci.put_manifest("v1", &large).await.status, 413);
    let (small, other) = (Image::of(&[1]), Image::of(&[1]));
    ci.image("v1", &small).await;
    ci.blobs_of(&other).await;
    assert_eq!(ci.put_manifest("v1", &other.manifest).await.status, 403);
    assert!(node.stop().await.success());
}

#[tokio::test]
async fn pulls_go_on_without_a_failure_while_certificates_passwords_and_settings_rotate() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let leaf = || authority.leaf(&["localhost", "127.0.0.1"], "node");
    leaf().files(folder.path(), "leaf");
    let password = folder.path().join("line-1");
    replace(&password, "password-0");
    let identity = format!(
        "[[identity]]\nname = \"line-1\"\npassword_file = \"{}\"\n[[permission]]\nidentities = [\"*\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n",
        password.display()
    );
    let node = Setup::alone()
        .registry()
        .listen(&format!("cert_file = \"{}\"", folder.path().join("leaf.crt").display()))
        .listen(&format!("key_file = \"{}\"", folder.path().join("leaf.key").display()))
        .more(&identity)
        .start()
        .await;
    let token = node.token("line-2", &[]).await;
    let tls = authority.client(&[b"http/1.1"]);
    let client = |name: &str, password: &str| Client::tls(node.address(), tls.clone()).saying(&basic(name, password));
    let image = Image::of(&[100_000]);
    Pusher::of(client("line-2", &token.passwords[0]), "plant/app")
        .image("v1", &image)
        .await;
    // What each of the two logs in with just now. Whoever pulls holds it, so that nothing is taken away under a pull.
    let current = tokio::sync::RwLock::new(["password-0".to_owned(), token.passwords[0].clone()]);
    let (pulls, failed, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));

    let pulling = async |which: usize| {
        let name = ["line-1", "line-2"][which];
        while !over.load(Ordering::Relaxed) {
            let held = current.read().await;
            let client = client(name, &held[which]);
            let got = client.get(&manifest("plant/app", "v1")).await;
            let layer = client.get(&blob("plant/app", &image.layer(0))).await;
            let is_whole = got.status == 200 && layer.status == 200 && layer.body == image.layers[0];
            if !is_whole {
                failed.fetch_add(1, Ordering::Relaxed);
                println!("{name}: {got} {}", layer.status);
            }
            drop(held);
            pulls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rotating = async || {
        let mut round = 0;
        while pulls.load(Ordering::Relaxed) < 200 || round < 4 {
            round += 1;
            // The file has both for a while, the clients the new one then, and at last the old one goes.
            let (old, new) = (current.read().await[0].clone(), format!("password-{round}"));
            replace(&password, &format!("{old}\n{new}\n"));
            replace_leaf(folder.path(), "leaf", &leaf());
            if round % 2 == 0 {
                node.signal(Signal::SIGHUP);
            }
            eventually("the new password is good", async || {
                client("line-1", &new).get("/v2/").await.status == 200
            })
            .await;
            current.write().await[0] = new.clone();
            let which = 1 + round % 2;
            let other = node.rotate("line-2", which).await;
            current.write().await[1] = other;
            node.rotate("line-2", 3 - which).await;
            replace(&password, &new);
            assert_eq!(node.admin_post("/api/reload", b"").await.status, 200);
            assert_eq!(client("line-1", &old).get("/v2/").await.status, 401);
        }
        over.store(true, Ordering::Relaxed);
        round
    };
    let (rounds, ..) = tokio::join!(rotating(), pulling(0), pulling(1), pulling(0), pulling(1));

    let pulls = pulls.load(Ordering::Relaxed);
    println!("{pulls} pulls, {rounds} rotations of certificate, password and token");
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {pulls}");
    assert!(pulls >= 200);
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_if_a_name_in_it_is_written_down_and_by_no_other() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let (certificate, key) = authority
        .leaf(&["localhost", "127.0.0.1"], "node")
        .files(folder.path(), "node");
    let ca = authority.ca_file(folder.path());
    let identities = "[[identity]]\nname = \"line-1\"\ncertificates = [\"Line-1.plant.example\"]\n\
        [[identity]]\nname = \"line-2\"\ncertificates = [\"CN=line-2\"]\n\
        [[permission]]\nidentities = [\"line-1\", \"line-2\"]\nrepositories = [\"plant/*\"]\nactions = [\"pull\"]\n";
    let node = Setup::alone()
        .registry()
        .listen(&format!("cert_file = \"{}\"", certificate.display()))
        .listen(&format!("key_file = \"{}\"", key.display()))
        .listen(&format!("client_ca_file = \"{}\"", ca.display()))
        .more(identities)
        .start()
        .await;
    let admin = node.token("admin", &["*:all"]).await;
    let plain = Client::tls(node.address(), authority.client(&[b"http/1.1"]));
    let image = Image::of(&[100]);
    let pusher = plain.clone().logged_in("admin", &admin.passwords[0]);
    Pusher::of(pusher.clone(), "plant/app").image("v1", &image).await;
    Pusher::of(pusher, "office/app").image("v1", &image).await;
    let with = |leaf: &Leaf| Client::tls(node.address(), authority.client_showing(leaf));
    let asked = async |client: &Client, name: &str| client.get(&manifest(name, "v1")).await.status;

    for (leaf, status) in [
        (authority.leaf(&["line-1.plant.example"], "x"), 200),
        (authority.leaf(&["other.example", "line-1.plant.example"], "x"), 200),
        (authority.leaf(&[], "line-2"), 200),
        // The common name is no alternative name, and the other way round.
        (authority.leaf(&[], "line-1.plant.example"), 401),
        (authority.leaf(&["line-2"], "x"), 401),
        (authority.leaf(&["line-3.plant.example"], "line-3"), 401),
        (authority.leaf(&["evil.line-1.plant.example"], "x"), 401),
    ] {
        let client = with(&leaf);
        assert_eq!(asked(&client, "plant/app").await, status);
        assert_eq!(
            asked(&client, "office/app").await,
            if status == 200 { 403 } else { 401 }
        );
        assert_eq!(client.get("/v2/").await.status, status);
        // A password says more than the certificate.
        let logged = client.logged_in("admin", &admin.passwords[0]);
        assert_eq!(asked(&logged, "office/app").await, 200);
    }
    // It gets tokens too, which are its own.
    let client = with(&authority.leaf(&["line-1.plant.example"], "x"));
    let told = node
        .ask_for_token(&client, "offline_token=true&scope=repository:plant/app:pull")
        .await
        .json();
    // None of them outlives the connections that show the certificate for long.
    assert!(told["refresh_token"].is_null(), "{told}");
    let bearer = plain
        .clone()
        .saying(&format!("Bearer {}", told["token"].as_str().unwrap()));
    assert_eq!(asked(&bearer, "plant/app").await, 200);
    // Nobody is let in who shows what another authority signed.
    let foreign = stranger.leaf(&["line-1.plant.example"], "x");
    let config = authority.client_showing(&foreign);
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let name = ServerName::from(node.address().ip());
    if let Ok(mut stream) = TlsConnector::from(config).connect(name, tcp).await {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(
        plain.get("/v2/").await.status,
        401,
        "who shows none may log in otherwise"
    );
    eventually("it is in the log who it was", async || {
        node.log().contains("who: line-1")
    })
    .await;
}

#[tokio::test]
async fn a_signal_to_read_anew_that_comes_while_the_node_starts_is_kept_for_then() {
    let mut node = Setup::alone().registry().placed();
    // The store takes a while to be opened, and nothing listens to signals before that.
    node.environment("FAILPOINTS", "store.journal.made=sleep(3000)");
    node.spawn();
    eventually("it starts", async || node.log().contains("wharf starts")).await;

    node.signal(Signal::SIGHUP);

    eventually("it runs", async || node.is_ready().await).await;
    eventually("it read the settings anew", async || reloads(&node, "done").await == 1).await;
}
