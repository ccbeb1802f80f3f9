//! How a connection comes about: TLS, versions of HTTP, families of addresses.

use std::io::{self, Write};
use std::sync::Arc;

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::server::{Server, reply};
use super::*;

/// A server's TLS with a certificate of its own making, and that certificate in a file.
fn identity(versions: &[&[u8]]) -> (TlsAcceptor, tempfile::NamedTempFile) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(cert.pem().as_bytes()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

async fn tls_server(at: &str, acceptor: TlsAcceptor) -> Server {
    let wrap = move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await }
    };
    Server::start_with(at, |_| reply(200, &[], CONTENT), wrap).await
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_its_file_and_only_so() {
    let (acceptor, ca) = identity(&[b"http/1.1"]);
    let up = tls_server("127.0.0.1:0", acceptor).await;
    let url = format!("https://{}", up.address);

    let trusting = parent_of(config(&format!("url = \"{url}\"\nca_file = {:?}", ca.path())));
    let stranger = parent(&url);

    assert_eq!(blob().content(&trusting).await.unwrap(), CONTENT);
    let error = blob().ask(&stranger).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(up.asked().len(), 1);
}

#[tokio::test]
async fn https_never_falls_back_to_http() {
    let plain = Server::start(|_| reply(200, &[], CONTENT)).await;

    let impatient = parent_of(config(&format!(
        "url = \"https://{}\"\nconnect_timeout = \"300ms\"",
        plain.address
    )));
    let error = blob().ask(&impatient).await.unwrap_err();

    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(plain.asked().is_empty());
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let (acceptor, ca) = identity(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
            assert_eq!(request.version(), hyper::Version::HTTP_2);
            Ok::<_, io::Error>(hyper::Response::new(Full::new(bytes::Bytes::from_static(
                CONTENT.as_bytes(),
            ))))
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    });

    let parent = parent_of(config(&format!("url = \"{url}\"\nca_file = {:?}", ca.path())));
    let question = blob();
    let all = (0..5).map(|_| question.content(&parent));
    let all = futures_util::future::join_all(all).await;

    assert!(
        all.iter()
            .all(|content| content.as_ref().is_ok_and(|text| text == CONTENT))
    );
    server.abort();
}

#[tokio::test]
async fn an_address_of_version_six_is_as_good() {
    let (acceptor, ca) = identity(&[b"http/1.1"]);
    let plain = Server::start_at("[::1]:0", |_| reply(200, &[], CONTENT)).await;
    let secure = tls_server("[::1]:0", acceptor).await;

    let over_tls = parent_of(config(&format!(
        "url = \"https://{}\"\nca_file = {:?}",
        secure.address,
        ca.path()
    )));

    assert_eq!(blob().content(&parent(&plain.url())).await.unwrap(), CONTENT);
    assert_eq!(blob().content(&over_tls).await.unwrap(), CONTENT);
    assert_eq!(parent(&plain.url()).name(), plain.address.to_string());
}

#[tokio::test]
async fn an_address_that_swallows_connections_costs_a_fraction_of_a_second() {
    let up = Server::start(|_| reply(200, &[], CONTENT)).await;
    let port = up.address.port();
    // Whose queue is full ignores further connections: a black hole on loopback.
    let hole = TcpSocket::new_v6().unwrap();
    hole.bind(format!("[::1]:{port}").parse().unwrap()).unwrap();
    let hole = hole.listen(0).unwrap();
    let full = hole.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(full)).await {
        waiting.push(stream);
    }

    let parent = parent(&format!("http://wharf.invalid:{port}"));
    let addresses = vec![full, up.address];
    parent.shared.egress.remember("wharf.invalid", addresses);
    let mut question = blob();
    question.budget = Duration::from_secs(3);

    assert_eq!(question.content(&parent).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn the_bytes_and_the_statuses_are_counted() {
    let up = Server::start(|asked| match asked.header("range") {
        "" => reply(200, &[("RateLimit-Remaining", "76;w=21600")], CONTENT),
        _ => reply(404, &[], ""),
    })
    .await;
    let registry = prometheus::Registry::new();
    let config = Config::at(&up.url()).unwrap();
    let quay: Registry = "quay.io".parse().unwrap();
    let parent = Parent::new(
        config,
        quay,
        &node(),
        false,
        given(),
        Clock::system(),
        &Metrics::new(&registry),
    );
    let mut absent = blob();
    absent.range = Some((0, None));

    blob().content(&parent).await.unwrap();
    absent.ask(&parent).await.unwrap_err();

    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    for line in [
        r#"wharf_parent_requests_total{status="200",upstream="quay.io"} 1"#,
        r#"wharf_parent_requests_total{status="404",upstream="quay.io"} 1"#,
        &format!(
            r#"wharf_parent_bytes_total{{direction="down",upstream="quay.io"}} {}"#,
            CONTENT.len()
        ),
        r#"wharf_parent_requests{class="interactive",upstream="quay.io"} 0"#,
        r#"wharf_parent_up{upstream="quay.io"} 1"#,
        r#"wharf_parent_ratelimit_remaining{upstream="quay.io"} 76"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
