//! The parent over HTTP/2. Here hyper writes, so of an answer nothing but the status and the headers can be a lie. Where a
//! connection is to end in the middle of a request, or in place of an answer, the stream does.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::intake::Intake;
use super::ledger::{EndOnDrop, Seen};

pub async fn converse(shared: Arc<Shared>, tls: TlsStream<TcpStream>) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // How the client leaves is its own affair.
    let _ = server.serve_connection(TokioIo::new(tls), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, h2::Error> {
    let (head, body) = request.into_parts();
    let seen = seen(&head);
    let _ended = EndOnDrop(&seen);
    shared.ledger.record(&seen);
    let mut intake = Intake::of(&shared, &seen);
    if intake.fault.refused_stream {
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    if !intake.is_hasty() {
        receive(body, &mut intake).await?;
    }
    let reply = intake.carried_out();
    if intake.fault.unanswered.is_some() {
        return Err(h2::Reason::INTERNAL_ERROR.into());
    }
    seen.answered(reply.status);
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

fn seen(head: &http::request::Parts) -> Seen {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.push((":version".to_owned(), format!("{:?}", head.version)));
    Seen::new(head.method.as_str(), target, headers)
}

async fn receive(mut body: Incoming, intake: &mut Intake) -> Result<(), h2::Error> {
    loop {
        intake.may_read().await;
        match body.frame().await {
            None => return Ok(()),
            Some(Err(_)) => return Err(h2::Reason::CANCEL.into()),
            Some(Ok(frame)) => {
                let piece = frame.into_data().unwrap_or_default();
                intake.take(&piece).await.map_err(|_| h2::Reason::INTERNAL_ERROR)?;
            }
        }
    }
}
