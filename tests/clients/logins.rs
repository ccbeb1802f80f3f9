//! Real clients log in over TLS by each kind of identity, directly and behind nginx set up as the API proxy of IoT Edge sets it up,
//! push, and pull back to the byte; who may not is refused.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::clients::engines::{Containerd, Docker, command, text};
use crate::clients::image::{self, Layout};
use crate::clients::running::{self, Running};
use crate::support::authority::Authority;
use crate::support::needs;
use crate::support::node::{Node, Setup};
use crate::support::ports::{Family, free};
use crate::support::proxy::Proxy;

/// A user, as a client is told of one.
struct User {
    name: &'static str,
    password: String,
}

/// Where a registry is found, and who may do what there.
struct Place {
    what: &'static str,
    address: SocketAddr,
    /// By a token and by htpasswd: both may do everything below `plant/`.
    users: Vec<User>,
    /// May pull below `plant/`, and push nothing.
    reader: User,
    _node: Node,
    _proxy: Option<Running>,
}

struct Stage {
    folder: TempDir,
    authority: Authority,
    image: Layout,
    places: Vec<Place>,
}

impl Stage {
    async fn with(test: &str, programs: &[&str]) -> Option<Self> {
        if !needs::met(
            test,
            "engines",
            &[&["skopeo", "gzip", "sha256sum", "nginx"], programs].concat(),
        ) {
            return None;
        }
        let folder = TempDir::new().expect("a temporary folder");
        let authority = Authority::new();
        authority.ca_file(folder.path());
        authority.leaf_files(folder.path());
        let client = authority.leaf(&["line-1.plant.example"], "line-1");
        // Docker's and Podman's folders of certificates: an authority, and what is shown.
        let certs = folder.path().join("certs");
        fs::create_dir(&certs).unwrap();
        fs::write(certs.join("ca.crt"), authority.ca_pem()).unwrap();
        let with_client = folder.path().join("certs-client");
        fs::create_dir(&with_client).unwrap();
        fs::write(with_client.join("ca.crt"), authority.ca_pem()).unwrap();
        fs::write(with_client.join("client.cert"), &client.cert_pem).unwrap();
        fs::write(with_client.join("client.key"), &client.key_pem).unwrap();
        let image = Layout::two_platforms(&folder.path().join("image"), 300_000);
        let mut stage = Self {
            folder,
            authority,
            image,
            places: Vec::new(),
        };
        let direct = stage.node(Some((&stage.at("leaf.pem"), &stage.at("leaf.key")))).await;
        let behind = stage.node(None).await;
        let proxy = free(Family::V4);
        let nginx = stage.nginx(proxy, behind.address());
        let address = direct.address();
        stage.place("directly", address, direct, None).await;
        stage.place("behind nginx", proxy, behind, Some(nginx)).await;
        Some(stage)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node that shows this certificate, with its key, or speaks no TLS.
    async fn node(&self, shown: Option<(&Path, &Path)>) -> Node {
        let hash = bcrypt::hash("ada's own", 4).unwrap();
        let htpasswd = self.at("htpasswd");
        fs::write(&htpasswd, format!("ada:{hash}\n")).unwrap();
        let settings = format!(
            "[auth]\nhtpasswd_file = {htpasswd:?}\n\
             [[identity]]\nname = \"line-1\"\ncertificates = [\"line-1.plant.example\"]\n\
             [[permission]]\nidentities = [\"ada\", \"line-1\"]\nrepositories = [\"plant/*\"]\nactions = [\"push\"]\n\
             [[permission]]\nidentities = [\"anonymous\"]\nrepositories = [\"plant/public/*\"]\nactions = [\"pull\"]\n"
        );
        let setup = Setup::alone().registry().more(&settings);
        let setup = match shown {
            Some((certificate, key)) => setup
                .listen(&format!("cert_file = {certificate:?}"))
                .listen(&format!("key_file = {key:?}"))
                .listen(&format!("client_ca_file = {:?}", self.at("ca.pem"))),
            None => setup.listen("trusted_proxies = [\"127.0.0.1\"]"),
        };
        setup.start().await
    }

    async fn place(&mut self, what: &'static str, address: SocketAddr, node: Node, proxy: Option<Running>) {
        let token = node.token("ci", &["plant/*:push"]).await;
        let reader = node.token("reader", &["plant/*:pull"]).await;
        let [password, _] = token.passwords;
        let users = vec![
            User { name: "ci", password },
            User {
                name: "ada",
                password: "ada's own".to_owned(),
            },
        ];
        let [_, password] = reader.passwords;
        self.places.push(Place {
            what,
            address,
            users,
            reader: User {
                name: "reader",
                password,
            },
            _node: node,
            _proxy: proxy,
        });
    }

    /// As the template of the API proxy module has it, with the semicolon that it lacks.
    fn nginx(&self, listen: SocketAddr, to: SocketAddr) -> Running {
        let folder = self.folder.path().display();
        let route = |path: &str| {
            format!(
                "location {path} {{ proxy_http_version 1.1; proxy_set_header X-Forwarded-Host $http_host; \
                 proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header Connection \"\"; \
                 proxy_buffers 32 160k; proxy_buffer_size 160k; proxy_busy_buffers_size 320k; \
                 proxy_read_timeout 3600; proxy_pass http://{to}; }}\n"
            )
        };
        let written = format!(
            "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_max_body_size 1000G; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
             server {{ listen {listen} ssl; ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key;\n\
             ssl_verify_client optional_no_ca;\n{}{} }} }}\n",
            route("/v2"),
            route("/acr")
        );
        let config = self.at("nginx.conf");
        fs::write(&config, written).unwrap();
        let nginx = command("nginx", &["-c", text(&config), "-p", text(self.folder.path())]);
        let nginx = Running::start("nginx", nginx, self.at("nginx.log")).ended_gently();
        nginx.until("it listens", || std::net::TcpStream::connect(listen).is_ok())
    }
}

impl Place {
    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_logs_in_by_token_by_htpasswd_by_certificate_and_as_nobody() {
    let Some(stage) = Stage::with("skopeo login", &[]).await else {
        return;
    };
    let certs = stage.at("certs");
    let skopeo = |arguments: &[&str]| command("skopeo", arguments);
    let from = stage.image.reference();

    for (number, place) in stage.places.iter().enumerate() {
        for user in &place.users {
            let credentials = format!("{}:{}", user.name, user.password);
            let to = format!("docker://{}", place.reference(&format!("plant/{}:1", user.name)));
            let all = ["copy", "--all", "--preserve-digests"];
            let push = [
                "--dest-cert-dir",
                text(&certs),
                "--dest-creds",
                &credentials,
                &from,
                &to,
            ];
            running::output(skopeo(&[&all[..], &push].concat()));
            let into = stage.at(&format!("skopeo-{number}-{}", user.name));
            let layout = format!("oci:{}:image", into.display());
            let pull = [
                "--src-cert-dir",
                text(&certs),
                "--src-creds",
                &credentials,
                &to,
                &layout,
            ];
            running::output(skopeo(&[&all[..], &pull].concat()));
            image::assert_holds(&into, &stage.image.all);
            // Elsewhere they may do nothing; nobody may do anything here; and a reader pushes nothing.
            let elsewhere = format!("docker://{}", place.reference("office/app:1"));
            let push = [
                "--dest-cert-dir",
                text(&certs),
                "--dest-creds",
                &credentials,
                &from,
                &elsewhere,
            ];
            running::refusal(skopeo(&[&all[..], &push].concat()));
            running::refusal(skopeo(&["inspect", "--cert-dir", text(&certs), &to]));
            let reader = format!("reader:{}", place.reader.password);
            running::output(skopeo(&[
                "inspect",
                "--cert-dir",
                text(&certs),
                "--creds",
                &reader,
                &to,
            ]));
            let push = ["--dest-cert-dir", text(&certs), "--dest-creds", &reader, &from, &to];
            running::refusal(skopeo(&[&all[..], &push].concat()));
        }
        // What is for everybody, nobody has to log in for.
        let [user, _] = &place.users[..] else {
            panic!("two users")
        };
        let credentials = format!("{}:{}", user.name, user.password);
        let public = format!("docker://{}", place.reference("plant/public/app:1"));
        let push = [
            "copy",
            "--all",
            "--dest-cert-dir",
            text(&certs),
            "--dest-creds",
            &credentials,
            &from,
            &public,
        ];
        running::output(skopeo(&push));
        running::output(skopeo(&["inspect", "--cert-dir", text(&certs), &public]));
    }
    // By the certificate alone; behind nginx it does not arrive.
    let (direct, shows) = (&stage.places[0], stage.at("certs-client"));
    let to = format!("docker://{}", direct.reference("plant/line-1:1"));
    running::output(skopeo(&["copy", "--all", "--dest-cert-dir", text(&shows), &from, &to]));
    running::output(skopeo(&["inspect", "--cert-dir", text(&shows), &to]));
    running::refusal(skopeo(&["inspect", "--cert-dir", text(&certs), &to]));
    drop(stage.authority);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crane_logs_in_by_token_and_by_htpasswd() {
    let Some(stage) = Stage::with("crane login", &["crane"]).await else {
        return;
    };
    for (number, place) in stage.places.iter().enumerate() {
        for user in &place.users {
            let home = stage.at(&format!("crane-{number}-{}", user.name));
            fs::create_dir(&home).unwrap();
            let crane = |arguments: &[&str]| {
                let mut crane = command("crane", arguments);
                crane
                    .env("DOCKER_CONFIG", &home)
                    .env("SSL_CERT_FILE", stage.at("ca.pem"));
                crane
            };
            let registry = place.address.to_string();
            let login = |password: &str| {
                running::output(crane(&["auth", "login", &registry, "-u", user.name, "-p", password]));
            };
            // It looks at nothing: whether a login is good is seen when it is used.
            login("wrong");
            running::refusal(crane(&["catalog", &registry]));
            login(&user.password);
            let reference = place.reference(&format!("plant/crane-{}:1", user.name));
            running::output(crane(&["push", "--index", text(stage.image.folder()), &reference]));
            let into = home.join("pulled");
            running::output(crane(&["pull", "--format", "oci", &reference, text(&into)]));
            image::assert_holds(&into, &stage.image.all);
            let listed = running::output(crane(&["catalog", &registry]));
            assert!(listed.contains("plant/crane-"), "{}: {listed}", place.what);
            running::refusal(crane(&["delete", &reference]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras_logs_in_by_token_and_by_htpasswd() {
    let Some(stage) = Stage::with("oras login", &["oras"]).await else {
        return;
    };
    let ca = stage.at("ca.pem");
    for (number, place) in stage.places.iter().enumerate() {
        for user in &place.users {
            let config = stage.at(&format!("oras-{number}-{}.json", user.name));
            let oras = |arguments: &[&str]| command("oras", arguments);
            let registry = place.address.to_string();
            let login = |password: &str| {
                let mut login = oras(&["login", "--ca-file", text(&ca), "--registry-config", text(&config)]);
                login.args(["-u", user.name, "-p", password, &registry]);
                login
            };
            running::refusal(login("wrong"));
            running::output(login(&user.password));
            let reference = place.reference(&format!("plant/oras-{}:1", user.name));
            let from = format!("{}:image", stage.image.folder().display());
            let mut push = oras(&["copy", "--from-oci-layout", &from, "--to-ca-file", text(&ca)]);
            push.args(["--to-registry-config", text(&config), &reference]);
            running::output(push);
            let into = stage.at(&format!("oras-{number}-{}", user.name));
            let to = format!("{}:copy", into.display());
            let mut pull = oras(&[
                "copy",
                "--from-ca-file",
                text(&ca),
                "--from-registry-config",
                text(&config),
            ]);
            pull.args([&reference, "--to-oci-layout", &to]);
            running::output(pull);
            image::assert_holds(&into, &stage.image.all);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_logs_in_by_token_and_by_htpasswd_and_out_again() {
    let Some(stage) = Stage::with("docker login", &["dockerd", "docker"]).await else {
        return;
    };
    let path = |name: &str| stage.at(name).display().to_string();
    let engine = Docker::start(stage.folder.path());
    let docker = |arguments: &[&str]| {
        let mut docker = engine.client(arguments);
        docker.env("DOCKER_CONFIG", stage.at("docker"));
        docker
    };
    let archive = format!("docker-archive:{}:app:1", path("app.tar"));
    running::output(command("skopeo", &["copy", &stage.image.reference(), &archive]));
    running::output(docker(&["load", "--input", &path("app.tar")]));
    let id = |name: &str| running::output(docker(&["image", "inspect", "--format", "{{.Id}}", name]));
    let pushed = id("app:1");

    for place in &stage.places {
        let registry = place.address.to_string();
        for user in place.users.iter().chain([&place.reader]) {
            running::refusal(docker(&["login", "-u", user.name, "-p", "wrong", &registry]));
            running::output(docker(&["login", "-u", user.name, "-p", &user.password, &registry]));
            let reference = place.reference(&format!("plant/docker-{}:1", user.name));
            running::output(docker(&["tag", "app:1", &reference]));
            if user.name == "reader" {
                running::refusal(docker(&["push", &reference]));
                let other = place.reference("plant/docker-ci:1");
                running::output(docker(&["pull", &other]));
                assert_eq!(id(&other), pushed);
            } else {
                running::output(docker(&["push", &reference]));
                // A mount from where one may read.
                let second = place.reference(&format!("plant/docker-{}-2:1", user.name));
                running::output(docker(&["tag", "app:1", &second]));
                let said = running::output(docker(&["push", &second]));
                assert!(said.contains("Mounted from"), "{}: {said}", place.what);
                running::output(docker(&["image", "rm", "--force", &reference, &second]));
                running::output(docker(&["pull", &reference]));
                assert_eq!(id(&reference), pushed);
            }
            running::output(docker(&["logout", &registry]));
            running::refusal(docker(&["pull", &place.reference("plant/docker-ci-2:1")]));
        }
    }
}

/// On loopback Docker looks at no certificate, so it is led there by a name that a proxy alone knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_trusts_the_authority_that_it_is_given_alone_and_logs_in_by_the_certificate_that_it_shows() {
    let Some(stage) = Stage::with("docker by a name", &["dockerd", "docker", "unshare"]).await else {
        return;
    };
    const NAME: &str = "l4.plant.example";
    let leaf = stage.authority.leaf(&[NAME], NAME);
    let (certificate, key) = leaf.files(stage.folder.path(), "named");
    let node = stage.node(Some((&certificate, &key))).await;
    let token = node.token("ci", &["plant/*:push"]).await;
    let proxy = Proxy::to(node.address()).await;
    let own = stage.at("etc-docker");
    let certs = own.join("certs.d").join(NAME);
    fs::create_dir_all(&certs).unwrap();
    let engine = Docker::start_with(stage.folder.path(), &own, &format!("http://{}", proxy.address));
    let docker = |arguments: &[&str]| {
        let mut docker = engine.client(arguments);
        docker.env("DOCKER_CONFIG", stage.at("docker"));
        docker
    };
    let archive = format!("docker-archive:{}:app:1", stage.at("app.tar").display());
    running::output(command("skopeo", &["copy", &stage.image.reference(), &archive]));
    running::output(docker(&["load", "--input", text(&stage.at("app.tar"))]));
    let image = |name: &str| format!("{NAME}/plant/{name}:1");
    let push = |name: &str| {
        running::output(docker(&["tag", "app:1", &image(name)]));
        docker(&["push", &image(name)])
    };

    // It does not know who signed that.
    let said = running::refusal(push("unknown"));
    assert!(said.contains("certificate signed by unknown authority"), "{said}");
    fs::copy(stage.at("certs/ca.crt"), certs.join("ca.crt")).unwrap();
    running::refusal(push("nobody"));
    running::output(docker(&["login", "-u", "ci", "-p", &token.passwords[0], NAME]));
    running::output(push("by-token"));
    running::output(docker(&["logout", NAME]));
    running::refusal(docker(&["pull", &image("by-token")]));
    for file in ["client.cert", "client.key"] {
        fs::copy(stage.at("certs-client").join(file), certs.join(file)).unwrap();
    }
    running::output(push("by-certificate"));
    running::output(docker(&["image", "rm", "--force", &image("by-certificate")]));
    running::output(docker(&["pull", &image("by-certificate")]));

    assert!(
        proxy.asked().iter().any(|asked| asked.contains(NAME)),
        "{:?}",
        proxy.asked()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_logs_in_by_token_by_htpasswd_and_by_certificate() {
    let Some(stage) = Stage::with("ctr login", &["containerd", "ctr"]).await else {
        return;
    };
    let containerd = Containerd::start(stage.folder.path());
    let ctr = |arguments: &[&str]| containerd.client(arguments);
    // One folder of hosts shows a certificate, the other does not.
    let hosts = |name: &str, shows: bool| {
        let folder = stage.at(name);
        for place in &stage.places {
            let host = folder.join(place.address.to_string());
            fs::create_dir_all(&host).unwrap();
            let client = match shows {
                true => format!(
                    "client = [[{:?}, {:?}]]\n",
                    stage.at("certs-client/client.cert"),
                    stage.at("certs-client/client.key")
                ),
                false => String::new(),
            };
            let server = format!(
                "server = \"https://{0}\"\n[host.\"https://{0}\"]\nca = {1:?}\n{client}",
                place.address,
                stage.at("ca.pem")
            );
            fs::write(host.join("hosts.toml"), server).unwrap();
        }
        folder
    };
    let (plain, showing) = (hosts("hosts", false), hosts("hosts-client", true));
    fs::set_permissions(stage.at("certs-client/client.key"), PermissionsExt::from_mode(0o600)).unwrap();
    let there_and_back = |reference: &str, more: &[&str]| {
        containerd.import(&stage.image, stage.folder.path(), reference);
        running::output(ctr(&[&["images", "push"], more, &[reference]].concat()));
        running::output(ctr(&["images", "rm", "--sync", reference]));
        let pull = ["images", "pull", "--all-platforms", "--snapshotter", "native"];
        running::output(ctr(&[&pull[..], more, &[reference]].concat()));
    };

    for place in &stage.places {
        for user in &place.users {
            let credentials = format!("{}:{}", user.name, user.password);
            let reference = place.reference(&format!("plant/ctr-{}:1", user.name));
            there_and_back(&reference, &["--hosts-dir", text(&plain), "--user", &credentials]);
            let wrong = format!("{}:wrong", user.name);
            let pull = [
                "images",
                "pull",
                "--snapshotter",
                "native",
                "--hosts-dir",
                text(&plain),
                "--user",
                &wrong,
            ];
            running::refusal(ctr(&[&pull[..], &[&reference]].concat()));
        }
    }
    let reference = stage.places[0].reference("plant/ctr-line-1:1");
    there_and_back(&reference, &["--hosts-dir", text(&showing)]);
    let pull = [
        "images",
        "pull",
        "--snapshotter",
        "native",
        "--hosts-dir",
        text(&plain),
        &reference,
    ];
    running::refusal(ctr(&pull));
}
