//! The parent over HTTP/2. Here hyper writes, so nothing but the status and the headers can be a lie.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::ledger::Seen;

pub async fn converse(shared: Arc<Shared>, tls: TlsStream<TcpStream>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, &request) }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // How the client leaves is its own affair.
    let _ = server.serve_connection(TokioIo::new(tls), service).await;
}

fn answer<B>(shared: &Shared, request: &Request<B>) -> Result<Response<Full<Bytes>>, h2::Error> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    headers.push((":version".to_owned(), format!("{:?}", request.version())));
    let seen = Seen::new(request.method().as_str(), target, headers);
    shared.ledger.record(&seen);
    let (reply, fault) = shared.plan(&seen);
    if fault.refused_stream {
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    seen.answered(reply.status);
    seen.end();
    let mut response = Response::builder()
        .status(reply.status)
        .header("content-length", reply.body.len());
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let body = if seen.method == "HEAD" {
        Bytes::new()
    } else {
        reply.body
    };
    seen.add_bytes(body.len());
    Ok(response
        .body(Full::new(body))
        .expect("names and values of headers that we wrote"))
}
