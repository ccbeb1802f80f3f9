//! The way up: names, TLS, certificates, proxies, redirects.

use std::time::{Duration, Instant};

use crate::support::authority::{Authority, Demand};
use crate::support::client::{Reply, Request, blob, manifest};
use crate::support::content::random;
use crate::support::distance::Distance;
use crate::support::eventually;
use crate::support::names::Names;
use crate::support::node::{Node, Setup};
use crate::support::proxy::Proxy;
use crate::support::road::Road;
use crate::support::upstream::{Access, Book, Cut, Fault, Upstream, basic};

async fn failures(node: &Node, reason: &str) -> f64 {
    let metrics = node.metrics().await;
    metrics.sum("wharf_parent_failures_total", &[("reason", reason)])
}

#[track_caller]
fn assert_says(reply: &Reply, words: &str) {
    assert!(matches!(reply.status, 502 | 503), "{reply}");
    assert!(reply.text().contains(words), "{words} in {reply}");
}

/// The lines that show a client's certificate of `clients`.
fn certificate(road: &Road, clients: &Authority) -> [String; 2] {
    let (certificate, key) = clients.leaf_files(road.folder.path());
    [
        format!("cert_file = \"{}\"", certificate.display()),
        format!("key_file = \"{}\"", key.display()),
    ]
}

#[tokio::test]
async fn each_fault_of_tls_is_named_counted_and_gets_no_credentials() {
    let (road, stranger) = (Road::tls(), Authority::new());
    let elsewhere = Authority::of(&["elsewhere.example"]);
    let expired = Authority::expired();
    for (serves, trusted, reason, words) in [
        (&expired, &expired, "tls_expired", "has expired"),
        (&elsewhere, &elsewhere, "tls_name", "for another name"),
        (&road.authority, &stranger, "tls_authority", "name that in ca_file"),
    ] {
        let parent = Upstream::tls(serves).await;
        parent.access(Access::Basic {
            user: "l4".to_owned(),
            password: "secret".to_owned(),
        });
        let ca = trusted.ca_file(road.folder.path());
        let password = road.file("password", "secret");
        let node = Setup::below(&parent.url())
            .parent(&format!("ca_file = \"{}\"", ca.display()))
            .parent("username = \"l4\"")
            .parent(&format!("password_file = \"{password}\""))
            .start()
            .await;

        assert_says(&node.get(&manifest("a", "v1")).await, words);

        assert!(failures(&node, reason).await >= 1.0, "{reason}");
        assert_eq!(parent.seen("", "").len(), 0);
    }
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_unless_it_is_an_authoritys() {
    let folder = tempfile::tempdir().unwrap();
    for is_authority in [true, false] {
        let own = Authority::of_itself(is_authority);
        let parent = Upstream::tls(&own).await;
        let image = parent.new_image("a", "v1", &[10]);
        let node = Setup::below(&parent.url())
            .parent(&format!("ca_file = \"{}\"", own.ca_file(folder.path()).display()))
            .start()
            .await;

        let reply = node.get(&manifest("a", "v1")).await;

        if is_authority {
            assert_says(&reply, "basicConstraints=CA:FALSE");
            assert!(failures(&node, "tls_authority").await >= 1.0);
        } else {
            reply.assert_is(&image.manifest.bytes);
        }
    }
}

#[tokio::test]
async fn what_lies_here_is_served_while_the_parents_certificate_is_no_good() {
    let (road, stranger) = (Road::tls(), Authority::new());
    let elsewhere = Authority::of(&["elsewhere.example"]);
    let mut parent = Upstream::tls(&road.authority).await;
    let image = parent.new_image("a", "v1", &[1000]);
    let node = road.below(&parent).tag_ttl("0s").start().await;
    node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    for serves in [&stranger, &elsewhere] {
        parent.present(serves.server(&[b"http/1.1"])).await;
        let asked = parent.asked();

        let tag = node.get(&manifest("a", "v1")).await;

        tag.assert_is(&image.manifest.bytes);
        assert!(tag.has("warning"), "{tag}");
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
        assert_eq!(parent.asked(), asked, "it was sent a request");
    }
}

#[tokio::test]
async fn what_lies_here_is_served_while_the_parents_name_leads_elsewhere() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let names = Names::of(&["localhost 127.0.0.1"]);
        let url = parent.url().replace("127.0.0.1", "localhost");
        let mut node = road.below_url(&url).tag_ttl("0s").placed();
        names.serve(&mut node);
        node.start().await;
        node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

        // Connections are closed, so that the name is needed again: nobody listens where it leads.
        names.become_(&["localhost 127.0.0.9"]);
        let mut parent = parent;
        parent.stop().await;
        parent.start_again().await;
        let stale = node.get(&manifest("a", "v1")).await;
        stale.assert_is(&image.manifest.bytes);
        assert!(stale.has("warning"), "{stale}");

        names.become_(&["localhost 127.0.0.1"]);
        eventually("it is found again", async || {
            node.get(&blob("a", &image.layer(1))).await.body == image.layers[1]
        })
        .await;
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_and_a_port_without_tls_are_told_apart() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chatty = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent_at, chatty_at) = (silent.local_addr().unwrap(), chatty.local_addr().unwrap());
    let greets = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = chatty.accept().await {
            let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, refusal).await;
        }
    });
    for (address, reason, words) in [
        (silent_at, "timeout", "in time"),
        (chatty_at, "tls_none", "does not speak TLS"),
    ] {
        let node = Setup::below(&format!("https://{address}"))
            .parent("connect_timeout = \"500ms\"")
            .start()
            .await;

        assert_says(&node.get(&manifest("a", "v1")).await, words);

        assert!(failures(&node, reason).await >= 1.0, "{reason}");
    }
    greets.abort();
}

#[tokio::test]
async fn a_parent_that_wants_a_certificate_is_shown_ours() {
    let (road, clients) = (Road::tls(), Authority::new());
    let parent = Upstream::serving(road.authority.server_asking(&clients, Demand::Must)).await;
    let image = parent.new_image("a", "v1", &[1000]);
    let [certificate, key] = certificate(&road, &clients);
    let known = road.below(&parent).parent(&certificate).parent(&key).start().await;
    let nobody = road.below(&parent).start().await;

    known.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
    known.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);
    assert!(
        parent
            .seen("", "")
            .iter()
            .all(|seen| seen.header(":certificate").is_some())
    );

    assert_says(
        &nobody.get(&manifest("a", "v1")).await,
        "does not accept our certificate",
    );
    assert!(failures(&nobody, "tls_certificate").await >= 1.0);
}

#[tokio::test]
async fn our_certificate_is_shown_to_no_other_origin() {
    let (road, clients) = (Road::tls(), Authority::new());
    let asking = || road.authority.server_asking(&clients, Demand::May);
    let parent = Upstream::serving(asking()).await;
    let (storage, realm) = (Upstream::serving(asking()).await, Upstream::serving(asking()).await);
    let book = Book::anonymous();
    realm.token_service(&book);
    parent.access(Access::Bearer {
        book,
        realm: format!("{}/token", realm.url()),
    });
    let image = parent.new_image("a", "v1", &[1000]);
    storage.image("b", "v1", &image);
    parent.fault(Fault::any("/blobs/").redirect(&format!("{}{}", storage.url(), blob("b", &image.layer(0)))));
    let [certificate, key] = certificate(&road, &clients);
    let node = road
        .below(&parent)
        .parent(&certificate)
        .parent(&key)
        .parent(&format!("auth_hosts = [\"{}\"]", realm.address()))
        .start()
        .await;

    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    let shown = |upstream: &Upstream| {
        let seen = upstream.seen("", "");
        assert!(!seen.is_empty());
        seen.iter().filter(|seen| seen.header(":certificate").is_some()).count()
    };
    assert_eq!(shown(&parent), parent.seen("", "").len());
    assert_eq!((shown(&storage), shown(&realm)), (0, 0));
}

#[tokio::test]
async fn authorities_and_certificates_that_change_on_disk_are_taken_without_a_restart() {
    let (road, clients) = (Road::tls(), Authority::new());
    let mut parent = Upstream::tls(&road.authority).await;
    let image = parent.new_image("a", "v1", &[1000, 2000]);
    let [certificate, key] = certificate(&road, &Authority::new());
    let node = road.below(&parent).parent(&certificate).parent(&key).start().await;
    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    // The parent has another authority, and wants another certificate of us.
    let renewed = Authority::new();
    parent.present(renewed.server_asking(&clients, Demand::Must)).await;
    assert_says(&node.get(&blob("a", &image.layer(1))).await, "ca_file");
    renewed.ca_file(road.folder.path());
    clients.leaf_files(road.folder.path());

    node.get(&blob("a", &image.layer(1))).await.assert_is(&image.layers[1]);
}

#[tokio::test]
async fn a_name_service_that_is_away_stops_neither_a_start_nor_a_parent_that_was_found() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[1000, 2000]);
        let names = Names::of(&[]);
        let url = parent.url().replace("127.0.0.1", "localhost");
        let mut node = road.below_url(&url).placed();
        names.serve(&mut node);
        node.start().await;

        assert_says(&node.get(&manifest("a", "v1")).await, "name cannot be resolved");
        assert!(failures(&node, "name").await >= 1.0);

        names.become_(&["localhost 127.0.0.1"]);
        node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

        // Connections are closed, so that the name is needed again; the service fails, then hangs.
        let mut parent = parent;
        for (at, lines) in [(1, &[][..]), (0, &["localhost -"][..])] {
            names.become_(lines);
            parent.stop().await;
            parent.start_again().await;
            let target = if at == 1 {
                blob("a", &image.layer(1))
            } else {
                manifest("a", "v1")
            };
            assert_eq!(node.get(&target).await.status, 200, "{lines:?}");
        }
    }
}

#[tokio::test]
async fn a_name_service_that_hangs_costs_three_seconds_and_is_named() {
    let road = Road::plain();
    let parent = road.upstream().await;
    let url = parent.url().replace("127.0.0.1", "localhost");
    let mut node = road.below_url(&url).placed();
    let names = Names::of(&["localhost -"]);
    names.serve(&mut node);
    node.start().await;
    let begun = Instant::now();

    assert_says(&node.get(&manifest("a", "v1")).await, "name cannot be resolved");

    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_public_registry_cannot_send_us_inside_by_address_nor_by_name() {
    for road in Road::both() {
        let (parent, evil) = (road.upstream().await, road.upstream().await);
        let image = parent.new_image("a", "v1", &[1000]);
        evil.image("a", "v1", &image);
        let names = Names::of(&[
            // A public registry, as far as the rule can see.
            "localhost 93.184.216.34 127.0.0.1",
            "inside.test 127.0.0.1",
            "metadata.test 169.254.169.254 127.0.0.1",
            "plant.test 10.1.2.3 127.0.0.1",
            "public.test 93.184.216.35 127.0.0.1",
        ]);
        let url = parent.url().replace("127.0.0.1", "localhost");
        let mut node = road.below_url(&url).placed();
        names.serve(&mut node);
        node.start().await;
        // The registry's own address is known from here on.
        assert_eq!(node.get(&manifest("a", "v1")).await.status, 200);
        let target = blob("a", &image.layer(0));
        let port = evil.address().port();
        let scheme = evil.url().split(':').next().unwrap().to_owned();

        for host in [
            "127.0.0.1",
            "inside.test",
            "metadata.test",
            "plant.test",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0x7f000001",
        ] {
            parent.without_faults();
            parent.fault(Fault::any("/blobs/").redirect(&format!("{scheme}://{host}:{port}{target}")));
            assert_eq!(node.get(&target).await.status, 502, "{host}");
        }
        assert_eq!(evil.connections(), 0);
        assert!(failures(&node, "address").await + failures(&node, "redirect").await >= 7.0);

        // That the way itself is open, and only the rule in between.
        parent.without_faults();
        parent.fault(Fault::any("/blobs/").redirect(&format!("{scheme}://public.test:{port}{target}")));
        let _ = node.get(&target).await;
        assert!(evil.connections() > 0);
    }
}

#[tokio::test]
async fn an_https_registry_cannot_send_us_to_http() {
    let road = Road::tls();
    let (parent, plain) = (road.upstream().await, Upstream::start().await);
    let image = parent.new_image("a", "v1", &[1000]);
    plain.image("a", "v1", &image);
    parent.fault(Fault::any("/blobs/").redirect(&format!("{}{}", plain.url(), blob("a", &image.layer(0)))));
    let node = road.below(&parent).start().await;

    assert_eq!(node.get(&blob("a", &image.layer(0))).await.status, 502);

    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_signed_url_that_runs_out_in_the_middle_is_asked_for_anew() {
    for road in Road::both() {
        for status in [400, 401, 403] {
            let (parent, storage) = (road.upstream().await, road.upstream().await);
            let image = parent.new_image("a", "v1", &[3_000_000]);
            let digest = image.layer(0);
            let signed = |signature: &str| format!("{}{}?signature={signature}", storage.url(), blob("a", &digest));
            storage.image("a", "v1", &image);
            storage.fault(Fault::get(&digest).cut_after(1_000_000, Cut::Fin).times(1));
            storage.fault(Fault::get(&digest).ranged().status(status).times(1));
            parent.fault(Fault::get(&digest).redirect(&signed("one")).times(1));
            parent.fault(Fault::get(&digest).redirect(&signed("two")).times(1));
            parent.fault(Fault::get(&digest).redirect(&signed("three")));
            let node = road.below(&parent).start().await;

            node.get(&blob("a", &digest)).await.assert_is(&image.layers[0]);

            let queries: Vec<_> = storage
                .seen("GET", &digest)
                .into_iter()
                .map(|seen| seen.query)
                .collect();
            assert_eq!(
                queries,
                ["signature=one", "signature=two", "signature=three"],
                "{status}"
            );
            let sent = storage.body_bytes(&digest);
            assert!(sent < 3_000_000 + 200_000, "{sent} bytes for 3000000");
        }
    }
}

#[tokio::test]
async fn a_head_that_the_storage_refuses_becomes_a_get_of_one_byte() {
    for road in Road::both() {
        let (parent, storage) = (road.upstream().await, road.upstream().await);
        let image = parent.new_image("a", "v1", &[5000]);
        storage.image("a", "v1", &image);
        let digest = image.layer(0);
        storage.fault(Fault::head("/blobs/").status(403));
        parent.fault(Fault::any("/blobs/").redirect(&format!("{}{}", storage.url(), blob("a", &digest))));
        let node = road.below(&parent).start().await;

        let reply = node.head(&blob("a", &digest)).await;

        assert_eq!((reply.status, reply.header("content-length")), (200, "5000"), "{reply}");
        let seen = storage.seen("GET", &digest);
        assert_eq!((seen.len(), seen[0].header("range")), (1, Some("bytes=0-0")));
        assert_eq!(storage.body_bytes(&digest), 1);
    }
}

#[tokio::test]
async fn urls_in_a_manifest_are_never_asked() {
    for road in Road::both() {
        let (parent, evil) = (road.upstream().await, road.upstream().await);
        let image = parent.new_image("a", "v1", &[1000]);
        let digest = image.layer(0);
        let url = format!("{}{}", evil.url(), blob("a", &digest));
        let foreign = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{},"urls":["{url}"]}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{digest}","size":1000,"urls":["{url}"]}}]}}"#,
            image.config_digest(),
            image.config.len(),
        );
        parent.without_blob("a", &digest);
        parent.fault(
            Fault::any("/manifests/")
                .status(200)
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .body(foreign.clone())
                .without("Docker-Content-Digest"),
        );
        let digest_of_it = crate::support::content::sha256(foreign.as_bytes());
        evil.image("a", "v1", &image);
        let node = road.below(&parent).start().await;

        assert_eq!(node.get(&manifest("a", &digest_of_it)).await.status, 200);
        node.get(&blob("a", &digest)).await.assert_error(404, "BLOB_UNKNOWN");

        assert_eq!(evil.connections(), 0);
    }
}

#[tokio::test]
async fn a_proxy_leads_to_names_that_only_it_knows() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[100_000]);
        let port = parent.address().port();
        let url = parent.url().replace("127.0.0.1", "localhost");
        for (scheme, asked) in [("http", "localhost"), ("socks5h", "localhost"), ("socks5", "127.0.0.1")] {
            let proxy = Proxy::guarded(parent.address(), "me", "pr0xy-canary").await;
            let password = road.file("proxy", "pr0xy-canary\n");
            let mut node = road
                .below_url(&url)
                .parent(&format!("proxy = \"{scheme}://{}\"", proxy.address))
                .parent("proxy_username = \"me\"")
                .parent(&format!("proxy_password_file = \"{password}\""))
                .log("level = \"trace\"")
                .placed();
            // Of itself the node resolves nothing, but where socks5 leaves that to it.
            let names = Names::of(if scheme == "socks5" {
                &["localhost 127.0.0.1"]
            } else {
                &[]
            });
            names.serve(&mut node);
            node.start().await;

            node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);
            node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

            let through = proxy.asked();
            assert!(!through.is_empty());
            for line in &through {
                assert!(line.contains(&format!("{asked}:{port}")), "{scheme}: {line}");
            }
            assert!(!node.log().contains("pr0xy-canary"));
        }
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_as_what_failed() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let proxy = Proxy::guarded(parent.address(), "me", "right").await;
        let password = road.file("proxy", "wrong\n");
        let node = road
            .below(&parent)
            .parent(&format!("proxy = \"http://{}\"", proxy.address))
            .parent("proxy_username = \"me\"")
            .parent(&format!("proxy_password_file = \"{password}\""))
            .start()
            .await;

        assert_says(&node.get(&manifest("a", "v1")).await, "proxy");

        assert_eq!((proxy.asked().len(), parent.connections()), (0, 0));
    }
}

#[tokio::test]
async fn hosts_of_no_proxy_are_reached_directly() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[10]);
        for direct in ["127.0.0.0/8", "127.0.0.1"] {
            let proxy = Proxy::to(parent.address()).await;
            let node = road
                .below(&parent)
                .parent(&format!("proxy = \"http://{}\"", proxy.address))
                .parent(&format!("no_proxy = [\".plant.example\", \"{direct}\"]"))
                .start()
                .await;

            node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

            assert_eq!(proxy.asked().len(), 0, "{direct}");
        }
    }
}

#[tokio::test]
async fn the_environment_s_proxy_is_used_but_for_this_machine_and_where_the_settings_have_none() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let image = parent.new_image("a", "v1", &[10]);
        let port = parent.address().port();
        let scheme = parent.url().split(':').next().unwrap().to_owned();
        // The leaf is for localhost, which no proxy of the environment is used for; plain http has no such check.
        let named = if scheme == "http" { "registry.test" } else { "127.0.0.1" };
        for (host, line, is_through) in [
            (named, "", scheme == "http"),
            ("127.0.0.1", "", false),
            (named, "proxy = \"none\"", false),
        ] {
            let proxy = Proxy::to(parent.address()).await;
            let mut node = road
                .below_url(&format!("{scheme}://{host}:{port}"))
                .parent(line)
                .placed();
            let names = Names::of(&["registry.test 127.0.0.1"]);
            names.serve(&mut node);
            for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
                node.environment(variable, &proxy.address.to_string());
            }
            node.environment("NO_PROXY", "elsewhere.example");
            node.start().await;

            node.get(&manifest("a", "v1")).await.assert_is(&image.manifest.bytes);

            assert_eq!(!proxy.asked().is_empty(), is_through, "{host} {line}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_written_down_at_trace_level() {
    for road in Road::both() {
        let parent = road.upstream().await;
        let book = Book::of("l4", "canary-5ecre7");
        parent.bearer(&book);
        let image = parent.new_image("a", "v1", &[1000]);
        parent.fault(Fault::get(&image.layer(0)).redirect("/elsewhere?signature=canary-5ecre7"));
        let password = road.file("password", "canary-5ecre7");
        let node = road
            .below(&parent)
            .parent("username = \"l4\"")
            .parent(&format!("password_file = \"{password}\""))
            .log("level = \"trace\"")
            .start()
            .await;

        for target in [manifest("a", "v1"), blob("a", &image.layer(0))] {
            let client = node.client();
            let request = Request::get(&target).header("Authorization", "Bearer canary-5ecre7");
            let reply = client.send(request).await;
            assert!(!reply.text().contains("canary-5ecre7"), "{reply}");
        }

        let log = node.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
        let issued = parent
            .seen("", "/v2/a/")
            .iter()
            .find_map(|seen| seen.header("authorization").map(str::to_owned));
        let token = issued.unwrap().trim_start_matches("Bearer ").to_owned();
        let encoded = basic("l4", "canary-5ecre7").trim_start_matches("Basic ").to_owned();
        for secret in ["canary-5ecre7", &token, &encoded] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None);
        }
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_without_being_looked_at_is_asked_for_once_more() {
    let road = Road::tls();
    let parent = Upstream::h2(&road.authority).await;
    let image = parent.new_image("a", "v1", &[1000]);
    parent.fault(Fault::any("/blobs/").refused_stream().times(1));
    let ca = road.authority.ca_file(road.folder.path());
    let node = Setup::below(&parent.url())
        .parent(&format!("ca_file = \"{}\"", ca.display()))
        .start()
        .await;

    node.get(&blob("a", &image.layer(0))).await.assert_is(&image.layers[0]);

    assert_eq!(parent.count("", "/blobs/"), 2);
}

#[tokio::test]
async fn one_blob_over_http_2_fills_a_long_way() {
    let (size, later) = (64 << 20, Duration::from_millis(50));
    let road = Road::tls();
    let parent = Upstream::h2(&road.authority).await;
    let bytes = random(size);
    let digest = parent.blob("a", &bytes);
    let way = Distance::to(parent.address(), later).await;
    let node = road.below_url(&format!("https://{}", way.address())).start().await;
    let begun = Instant::now();

    node.get(&blob("a", &digest)).await.assert_is(&bytes);

    // The window that HTTP/2 begins with lets 64 KiB pass in each round trip, which makes a minute of it.
    let trips = begun.elapsed().div_duration_f64(later * 2);
    let each = size as f64 / trips;
    println!("{each} bytes in each round trip");
    assert!(each > (2 << 20) as f64, "only {each} bytes in each round trip");
}

#[tokio::test]
async fn the_link_of_a_list_leads_to_no_other_host_nor_path() {
    for road in Road::both() {
        let (parent, evil) = (road.upstream().await, road.upstream().await);
        parent.new_image("a", "v1", &[10]);
        let node = road.below(&parent).tag_ttl("0s").start().await;
        for target in [
            format!("{}/v2/a/tags/list?last=v1", evil.url()),
            format!("//{}/v2/a/tags/list?last=v1", evil.address()),
            "/v2/other/tags/list?last=v1".to_owned(),
            "/token?last=v1".to_owned(),
        ] {
            parent.without_faults();
            parent.fault(Fault::get("/tags/list").header("Link", &format!("<{target}>; rel=\"next\"")));

            let reply = node.get("/v2/a/tags/list").await;

            assert_eq!(
                (reply.status, reply.json()["tags"].to_string()),
                (200, "[\"v1\"]".to_owned()),
                "{target}"
            );
        }
        assert_eq!(evil.connections(), 0);
        for seen in parent.seen("", "") {
            assert!(seen.path == "/v2/" || seen.path == "/v2/a/tags/list", "{seen:?}");
        }
    }
}
