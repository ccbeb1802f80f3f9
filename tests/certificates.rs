//! Who is who over TLS: operators by their certificates, commands at such a port, and clients over HTTP/2.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::future::join_all;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::authority::{Authority, Leaf};
use crate::support::client::{Client, Request, basic, blob, manifest, reqwest_trusting};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup, binary};
use crate::support::pushing::Pusher;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// An authority of the plant, and what it signed: for the node, for two operators, for a client.
struct Plant {
    authority: Authority,
    folder: TempDir,
    ops: Leaf,
    ada: Leaf,
    line: Leaf,
}

impl Plant {
    fn new() -> Self {
        let authority = Authority::new();
        let folder = TempDir::new().unwrap();
        authority.ca_file(folder.path());
        let (ops, ada) = (authority.leaf(&["ops.plant.example"], "x"), authority.leaf(&[], "ada"));
        let line = authority.leaf(&["line-1.plant.example"], "line-1");
        let node = authority.leaf(&["localhost", "127.0.0.1"], "node");
        for (leaf, name) in [(&ops, "ops"), (&ada, "ada"), (&line, "line"), (&node, "node")] {
            leaf.files(folder.path(), name);
        }
        // As a chain that ends with its authority.
        let chain = node.cert_pem.clone() + std::str::from_utf8(authority.ca_pem()).unwrap();
        fs::write(folder.path().join("node.crt"), chain).unwrap();
        let token = folder.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
        Self {
            authority,
            folder,
            ops,
            ada,
            line,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node whose admin port speaks TLS, with further lines; it is asked as the first operator.
    fn node(&self, lines: &[String]) -> Setup {
        let files = [
            ("cert_file", "node.crt"),
            ("key_file", "node.key"),
            ("client_ca_file", "ca.pem"),
        ];
        let files = files.map(|(key, name)| format!("{key} = \"{}\"", self.path(name).display()));
        let setup = Setup::alone()
            .registry()
            .admin_over_tls(self.authority.client_showing(&self.ops));
        files.iter().chain(lines).fold(setup, |setup, line| setup.admin(line))
    }

    fn token_line(&self) -> String {
        format!("token_file = \"{}\"", self.path("token").display())
    }

    fn showing(&self, node: &Node, leaf: &Leaf) -> Client {
        Client::tls(node.admin_address(), self.authority.client_showing(leaf))
    }

    fn showing_none(&self, node: &Node) -> Client {
        Client::tls(node.admin_address(), self.authority.client(&[b"http/1.1"]))
    }
}

const NAMED: &str = "certificates = [\"Ops.plant.example\", \"CN=ada\"]";

/// What comes back from a connection that shows this; nothing, if there is none.
async fn answer(node: &Node, config: Arc<ClientConfig>) -> String {
    let tcp = TcpStream::connect(node.admin_address()).await.unwrap();
    let name = ServerName::from(node.admin_address().ip());
    let Ok(mut stream) = TlsConnector::from(config).connect(name, tcp).await else {
        return String::new();
    };
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_named_certificate_makes_an_operator_and_no_other_of_the_same_authority_does() {
    let plant = Plant::new();
    let node = plant.node(&[NAMED.to_owned(), plant.token_line()]).start().await;
    let metrics = async |client: Client| client.get("/metrics").await.status;

    for leaf in [&plant.ops, &plant.ada] {
        assert_eq!(metrics(plant.showing(&node, leaf)).await, 200);
        let reload = Request::new("POST", "/api/reload").header("Content-Length", "0");
        assert_eq!(plant.showing(&node, leaf).send(reload).await.status, 200);
    }
    for client in [plant.showing(&node, &plant.line), plant.showing_none(&node)] {
        for target in ["/", "/metrics", "/api/tokens", "/api/queue"] {
            assert_eq!(client.get(target).await.status, 401, "{target}");
        }
        for deed in ["/api/reload", "/api/tokens/create", "/api/cache/gc"] {
            let post = Request::new("POST", deed).header("Content-Length", "0");
            assert_eq!(client.send(post).await.status, 401, "{deed}");
        }
        assert_eq!(client.get("/healthz").await.status, 200);
        assert_eq!(metrics(client.saying(&format!("Bearer {TOKEN}"))).await, 200);
    }
    let stranger = Authority::new();
    let forged = stranger.leaf(&["ops.plant.example"], "ada");
    let mut config = (*plant.authority.client(&[b"http/1.1"])).clone();
    config.client_auth_cert_resolver = stranger.client_showing(&forged).client_auth_cert_resolver.clone();
    assert_eq!(answer(&node, config.into()).await, "", "another authority's");

    // Who is one changes while the node runs.
    let file = node.folder().join("wharf.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"CN=ada\"", "\"line-1.plant.example\"")).unwrap();
    assert_eq!(node.admin_post("/api/reload", b"").await.status, 200);
    assert_eq!(metrics(plant.showing(&node, &plant.line)).await, 200);
    assert_eq!(metrics(plant.showing(&node, &plant.ada)).await, 401);
}

#[tokio::test]
async fn where_certificates_alone_say_who_is_an_operator_there_is_no_other_way_in() {
    let plant = Plant::new();
    // Neither the address nor a password is one, and other machines may reach it.
    let node = plant.node(&[NAMED.to_owned()]).admin_on("0.0.0.0").start().await;
    for client in [plant.showing(&node, &plant.line), plant.showing_none(&node)] {
        let reply = client.get("/api/tokens").await;
        assert!(reply.status == 403 && reply.text().contains("certificate"), "{reply}");
        let guess = client.clone().saying("Bearer ");
        assert_eq!(guess.get("/metrics").await.status, 403);
        assert_eq!(client.get("/readyz").await.json(), serde_json::json!({ "ready": true }));
    }
    assert_eq!(node.admin("/metrics").await.status, 200);

    let required = plant.node(&["client_auth = \"required\"".to_owned()]).start().await;
    assert_eq!(answer(&required, plant.authority.client(&[b"http/1.1"])).await, "");
    // Without a list all of the authority's are; that is what the check warns of.
    assert_eq!(plant.showing(&required, &plant.line).get("/metrics").await.status, 200);
    plant.authority.ca_file(plant.folder.path());
    let other = Authority::new();
    fs::write(plant.path("ca.pem"), other.ca_pem()).unwrap();
    let _ = required.admin_post("/api/reload", b"").await;
    eventually("it is told that other authorities take a restart", async || {
        required.log().contains("takes a restart")
    })
    .await;
}

/// What came of a command: whether it went well, and its words.
fn run(args: &[&str], environment: &[(&str, &Path)]) -> (bool, String) {
    let mut command = Command::new(binary());
    command.args(args);
    for name in ["TOKEN", "TOKEN_FILE", "CA_FILE", "CERTIFICATE_FILE", "KEY_FILE"] {
        command.env_remove(format!("WHARF_ADMIN_{name}"));
    }
    command.envs(environment.iter().map(|(name, path)| (name, path)));
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words)
}

#[tokio::test]
async fn commands_reach_an_admin_port_of_a_private_authority_that_wants_a_certificate() {
    let plant = Plant::new();
    let lines = [NAMED.to_owned(), "client_auth = \"required\"".to_owned()];
    let node = plant.node(&lines).start().await;
    let files = ["ca.pem", "ops.crt", "ops.key", "line.crt", "line.key"].map(|name| plant.path(name));
    let [ca, ops_crt, ops_key, line_crt, line_key] = &files;
    let text = |path: &PathBuf| path.display().to_string();
    let (ca_text, crt, key) = (text(ca), text(ops_crt), text(ops_key));
    let url = node.admin_url();
    let address = node.admin_address().to_string();
    let ways_in = [
        "--admin-ca-file",
        &ca_text,
        "--admin-certificate-file",
        &crt,
        "--admin-key-file",
        &key,
    ];
    let environment = [
        ("WHARF_ADMIN_CA_FILE", ca.as_path()),
        ("WHARF_ADMIN_CERTIFICATE_FILE", ops_crt),
        ("WHARF_ADMIN_KEY_FILE", ops_key),
    ];

    for command in [
        &["token", "create", "ci", "*:pull"][..],
        &["token", "list"],
        &["queue", "list"],
        &["cache", "gc", "--dry-run"],
        &["token", "delete", "ci"],
    ] {
        // A port without a scheme is one of TLS where something of TLS is said.
        for admin in [&url, &address] {
            if command[1] == "create" && admin == &address || command[1] == "delete" && admin == &url {
                continue;
            }
            let (passed, words) = run(&[command, &["--admin", admin], &ways_in].concat(), &[]);
            assert!(passed, "{command:?} {admin}: {words}");
        }
    }
    let (passed, words) = run(&["token", "list", "--admin", &url], &environment);
    assert!(passed, "{words}");
    let (line_crt, line_key) = (text(line_crt), text(line_key));
    for (args, remedy) in [
        (&[][..], "--admin-ca-file"),
        (&["--admin-ca-file", &ca_text], "--admin-certificate-file"),
        (
            &[
                "--admin-ca-file",
                &ca_text,
                "--admin-certificate-file",
                &line_crt,
                "--admin-key-file",
                &line_key,
            ],
            "takes the certificate of an operator",
        ),
        (
            &[
                "--admin-ca-file",
                &ca_text,
                "--admin-certificate-file",
                &crt,
                "--admin-key-file",
                &line_key,
            ],
            "does not belong to",
        ),
        (&["--admin-certificate-file", &crt], "--admin-key-file"),
        (&["--admin-ca-file", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
    ] {
        let (passed, words) = run(&[&["token", "list", "--admin", &url], args].concat(), &[]);
        assert!(!passed && words.contains(remedy), "{args:?}: {words}");
    }
    let plain = url.replace("https://", "http://");
    let (passed, words) = run(&["token", "list", "--admin", &plain], &[]);
    assert!(!passed && words.contains("no node answers"), "{words}");
}

#[tokio::test]
async fn commands_take_from_the_settings_of_a_node_where_it_is_and_how_to_get_in() {
    let plant = Plant::new();
    let mut node = plant.node(&[NAMED.to_owned(), plant.token_line()]).start().await;
    let settings = node.folder().join("wharf.toml").display().to_string();
    let with = |command: &[&str]| run(&[command, &["--config", &settings]].concat(), &[]);

    for command in [
        &["token", "create", "ci", "*:pull"][..],
        &["token", "list"],
        &["queue", "list"],
        &["cache", "gc", "--dry-run"],
    ] {
        let (passed, words) = with(command);
        assert!(passed, "{command:?}: {words}");
    }
    // And of one that is stopped the store.
    node.kill();
    let (passed, words) = with(&["token", "list"]);
    assert!(passed && words.contains("ci"), "{words}");
    let (passed, words) = with(&["queue", "list"]);
    assert!(!passed && words.contains("no node answers"), "{words}");
}

#[test]
fn an_admin_token_is_not_sent_in_the_clear_to_another_machine() {
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let environment = [("WHARF_ADMIN_TOKEN_FILE", token.as_path())];

    // Nobody is there: whoever were asked would not answer so soon.
    for admin in ["http://192.0.2.1:5001", "192.0.2.1:5001", "http://l4.invalid:5001"] {
        let (passed, words) = run(&["token", "list", "--admin", admin], &environment);

        assert!(
            !passed && words.contains("in the clear") && words.contains("https://"),
            "{admin}: {words}"
        );
        assert!(!words.contains(TOKEN), "{words}");
    }
}

/// What is said to a request: status, challenge, code of the error.
type Said = (u16, String, String);

fn said(status: u16, challenge: &str, body: &[u8]) -> Said {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["errors"][0]["code"].as_str().unwrap_or_default();
    (status, challenge.to_owned(), code.to_owned())
}

async fn over_http2(client: &reqwest::Client, node: &Node, request: &Request, authorization: &str) -> Said {
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).unwrap();
    let url = format!("https://{}{}", node.address(), request.target);
    let mut asked = client.request(method, url).body(request.body.clone());
    for (name, value) in &request.headers {
        asked = asked.header(name, value);
    }
    if !authorization.is_empty() {
        asked = asked.header("authorization", authorization);
    }
    let reply = asked.send().await.unwrap();
    assert_eq!(reply.version(), reqwest::Version::HTTP_2);
    let status = reply.status().as_u16();
    let challenge = reply.headers().get("www-authenticate").cloned();
    let challenge = challenge.map_or(String::new(), |challenge| challenge.to_str().unwrap().to_owned());
    said(status, &challenge, &reply.bytes().await.unwrap())
}

#[tokio::test]
async fn over_http2_everybody_is_challenged_let_in_and_sent_away_as_over_http1() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let (certificate, key) = authority
        .leaf(&["localhost", "127.0.0.1"], "node")
        .files(folder.path(), "node");
    let node = Setup::alone()
        .registry()
        .listen(&format!("cert_file = \"{}\"", certificate.display()))
        .listen(&format!("key_file = \"{}\"", key.display()))
        .more("[auth]\n")
        .start()
        .await;
    let admin = node.token("admin", &["*:all"]).await;
    let reader = node.token("reader", &["plant/*:pull"]).await;
    let one = Client::tls(node.address(), authority.client(&[b"http/1.1"]));
    let two = reqwest_trusting(Some(&authority));
    let image = Image::of(&[1000]);
    let as_admin = one.clone().logged_in("admin", &admin.passwords[0]);
    for name in ["plant/app", "office/app"] {
        Pusher::of(as_admin.clone(), name).image("v1", &image).await;
    }
    let as_reader = one.clone().logged_in("reader", &reader.passwords[0]);
    let told = as_reader
        .get("/v2/_wharf/token?service=x&scope=repository:plant/app:pull")
        .await
        .json();
    let people = [
        String::new(),
        String::from("a wrong password"),
        basic("reader", &reader.passwords[0]),
        format!("Bearer {}", told["token"].as_str().unwrap()),
        "Bearer wharf1.x.y.z".to_owned(),
        basic("admin", &admin.passwords[0]),
    ];
    let empty = |method: &str, target: &str| Request::new(method, target).header("Content-Length", "0");
    let requests = [
        Request::get("/v2/"),
        Request::get(&manifest("plant/app", "v1")),
        Request::head(&manifest("plant/app", "v1")),
        Request::get(&blob("plant/app", &image.layer(0))),
        Request::get(&manifest("office/app", "v1")),
        Request::get("/v2/office/app/tags/list"),
        Request::get("/v2/_catalog"),
        Request::get("/v2/_wharf/token?service=x&scope=repository:plant/app:pull"),
        empty("POST", "/v2/plant/app/blobs/uploads/"),
        Request::new("PUT", &manifest("plant/app", "v2")).body(b"{}"),
        empty("DELETE", &manifest("plant/app", "none")),
    ];
    // For another name each time, as guesses for one are slowed down.
    let saying = |person: usize, request: usize| match person {
        1 => basic(&format!("reader-{request}"), "wrong"),
        _ => people[person].clone(),
    };
    let mut verdicts = Vec::new();

    for (person, called) in people.iter().enumerate() {
        for (number, request) in requests.iter().enumerate() {
            let authorization = saying(person, number);
            let client = match authorization.as_str() {
                "" => one.clone(),
                authorization => one.clone().saying(authorization),
            };
            let reply = client.send(request.clone()).await;
            let over_one = said(reply.status, reply.header("www-authenticate"), &reply.body);

            let over_two = over_http2(&two, &node, request, &authorization).await;

            assert_eq!(over_two, over_one, "{} {} as {called}", request.method, request.target);
            verdicts.push(over_one.0);
        }
    }

    let of = |person: usize| &verdicts[person * requests.len()..(person + 1) * requests.len()];
    assert!(of(0).iter().all(|status| *status == 401), "{:?}", of(0));
    assert_eq!(of(2), [200, 200, 200, 200, 403, 403, 200, 200, 403, 403, 403]);
    assert_eq!(of(5)[8..], [202, 400, 404]);
    // Over one connection everybody is who they are, however their requests mix.
    let mixed = (0..120).map(|number| {
        let (person, request) = (number % people.len(), (number * 7) % requests.len());
        let expected = verdicts[person * requests.len() + request];
        let (two, node, authorization, request) = (&two, &node, saying(person, request), &requests[request]);
        async move {
            let (status, ..) = over_http2(two, node, request, &authorization).await;
            assert_eq!(status, expected, "{} as {authorization}", request.target);
        }
    });
    join_all(mixed).await;
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_over_http2_too() {
    let plant = Plant::new();
    let files = [
        ("cert_file", "node.crt"),
        ("key_file", "node.key"),
        ("client_ca_file", "ca.pem"),
    ];
    let setup = files.iter().fold(Setup::alone().registry(), |setup, (key, name)| {
        setup.listen(&format!("{key} = \"{}\"", plant.path(name).display()))
    });
    let identity = "[[identity]]\nname = \"line-1\"\ncertificates = [\"line-1.plant.example\"]\n\
        [[permission]]\nidentities = [\"line-1\"]\nrepositories = [\"plant/*\"]\nactions = [\"pull\"]\n";
    let node = setup.more(identity).start().await;
    let admin = node.token("admin", &["*:all"]).await;
    let pusher = Client::tls(node.address(), plant.authority.client(&[b"http/1.1"]));
    let image = Image::of(&[10]);
    for name in ["plant/app", "office/app"] {
        let pusher = pusher.clone().logged_in("admin", &admin.passwords[0]);
        Pusher::of(pusher, name).image("v1", &image).await;
    }
    let showing = |leaf: &Leaf| {
        let mut config = (*plant.authority.client_showing(leaf)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config);
        builder.build().unwrap()
    };
    let asked = async |client: &reqwest::Client, name: &str| {
        over_http2(client, &node, &Request::get(&manifest(name, "v1")), "")
            .await
            .0
    };

    let (known, unknown) = (showing(&plant.line), showing(&plant.ops));

    assert_eq!(asked(&known, "plant/app").await, 200);
    assert_eq!(asked(&known, "office/app").await, 403);
    assert_eq!(asked(&unknown, "plant/app").await, 401);
    let logged = basic("admin", &admin.passwords[0]);
    let request = Request::get(&manifest("office/app", "v1"));
    assert_eq!(over_http2(&known, &node, &request, &logged).await.0, 200);
}
