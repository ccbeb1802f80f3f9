//! A small HTTP client for what is no registry's pull: commands that call a running node, the demo,
//! notifications. Redirects are answers here, and nothing is retried.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use reqwest::{Method, Response};
use url::Url;

use super::error::Cause;
use super::{client, tls};

/// Answers that may lie unread at once over HTTP/2 without keeping others from theirs.
const UNREAD: usize = 4;

/// Connections that are kept for the next call. Clones share them.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// One request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// `GET`, `PUT`, ...
    pub method: &'a str,
    /// `http://` or `https://`; user and password in it are refused.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// Sent with its length, if it is not empty or the method has one (POST, PUT, PATCH).
    pub body: Bytes,
    /// The time until the headers of the answer are here.
    pub within: Duration,
}

/// An answer, whatever its status, whose body is still to be read.
#[derive(Debug)]
pub struct Reply {
    /// As answered.
    pub status: u16,
    /// As answered; names in lower case.
    pub headers: HeaderMap,
    response: Response,
    host: String,
}

/// Why there is no answer. `host` is `host:port` of the URL.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's fault: not a URL, method or header that can be sent.
    #[error("{what} cannot be sent")]
    Malformed {
        /// Which of them; without its value.
        what: &'static str,
    },

    /// The operator's: the file of authorities.
    #[error("ca_file {path} {reason}")]
    Authorities {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The operator's: the certificate that is to be shown, or its key.
    #[error("the certificate cannot be shown: {reason}")]
    Certificate {
        /// Which file, and what is wrong with it.
        reason: String,
    },

    /// No connection, or it broke.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Who was called.
        host: String,
        /// The way there.
        source: Cause,
    },

    /// It is there, and does not answer.
    #[error("{host} did not answer within {after:?}")]
    TimedOut {
        /// Who was called.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },

    /// The body has more bytes than the caller wants.
    #[error("{host} sent more than {limit_bytes} bytes")]
    TooLarge {
        /// Who was called.
        host: String,
        /// What the caller wants at most.
        limit_bytes: usize,
    },
}

impl Client {
    /// A client that trusts the system's authorities and those in `ca_file`.
    ///
    /// # Errors
    ///
    /// [`Error::Authorities`], if there is a file and it cannot be used.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, Error> {
        Self::showing(ca_file, None)
    }

    /// The same, which shows a certificate with its key (PEM) to who asks for one.
    ///
    /// # Errors
    ///
    /// [`Error::Authorities`], [`Error::Certificate`]: a file cannot be used.
    pub fn showing(ca_file: Option<&Path>, certificate: Option<(&Path, &Path)>) -> Result<Self, Error> {
        let authorities = match ca_file {
            Some(path) => tls::authorities(path).map_err(|reason| Error::Authorities {
                path: path.display().to_string(),
                reason,
            })?,
            None => Vec::new(),
        };
        let identity = certificate.map(|(certificate, key)| tls::Identity::read(certificate, key));
        let identity = identity.transpose().map_err(|reason| Error::Certificate { reason })?;
        let client = client::builder(tls::client(&authorities, identity.as_ref()), UNREAD)
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(60))
            .build()
            .expect("the TLS configuration is given whole, and nothing else can fail");
        Ok(Self(client))
    }

    /// Calls, and returns as soon as the headers are here.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but [`Error::TooLarge`], [`Error::Authorities`] and [`Error::Certificate`].
    pub async fn call(&self, call: Call<'_>) -> Result<Reply, Error> {
        let url = Url::parse(call.url).ok().filter(is_callable);
        let url = url.ok_or(Error::Malformed { what: "the URL" })?;
        let host = url.authority().to_owned();
        let method = Method::from_bytes(call.method.as_bytes());
        let method = method.map_err(|_| Error::Malformed { what: "the method" })?;
        let mut request = self.0.request(method.clone(), url).headers(headers(call.headers)?);
        if !call.body.is_empty() {
            request = request.body(call.body);
        } else if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            request = request.header(header::CONTENT_LENGTH, 0);
        }
        match tokio::time::timeout(call.within, request.send()).await {
            Ok(Ok(mut response)) => Ok(Reply {
                status: response.status().as_u16(),
                headers: std::mem::take(response.headers_mut()),
                response,
                host,
            }),
            Ok(Err(error)) => Err(unreachable(&host, error)),
            Err(_) => Err(Error::TimedOut {
                host,
                after: call.within,
            }),
        }
    }

    /// Gets a URL.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call).
    pub async fn get(&self, url: &str, within: Duration) -> Result<Reply, Error> {
        self.call(Call {
            method: "GET",
            url,
            headers: &[],
            body: Bytes::new(),
            within,
        })
        .await
    }
}

impl Reply {
    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], if the connection broke or was silent for a minute.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| unreachable(&self.host, error))
    }

    /// The whole body, if it has no more than `limit` bytes.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk), and [`Error::TooLarge`].
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Err(Error::TooLarge {
                    host: self.host,
                    limit_bytes: limit,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

fn is_callable(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
}

fn headers(written: &[(&str, &str)]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| Error::Malformed {
            what: "a header's name",
        })?;
        let value = HeaderValue::from_str(value);
        let value = value.map_err(|_| Error::Malformed {
            what: "a header's value",
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn unreachable(host: &str, error: reqwest::Error) -> Error {
    Error::Unreachable {
        host: host.to_owned(),
        source: Arc::new(error.without_url()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::server::{Server, cut, reply};
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_call_brings_status_headers_and_body_whatever_the_status() {
        let server = Server::start(|_| reply(404, &[("X-Kind", "absent")], "nothing here")).await;
        let client = Client::new(None).unwrap();

        let reply = client.get(&server.url(), SOON).await.unwrap();

        assert_eq!((reply.status, reply.header("x-kind")), (404, Some("absent")));
        assert_eq!(&reply.bytes(100).await.unwrap()[..], b"nothing here");
    }

    #[tokio::test]
    async fn a_body_is_sent_with_its_length_even_when_it_is_empty() {
        let server = Server::start(|_| reply(202, &[("Location", "/elsewhere")], "")).await;
        let client = Client::new(None).unwrap();

        let call = Call {
            method: "POST",
            url: &server.url(),
            headers: &[("Content-Type", "application/octet-stream")],
            body: Bytes::new(),
            within: SOON,
        };
        let reply = client.call(call).await.unwrap();

        assert_eq!(reply.header("location"), Some("/elsewhere"));
        let asked = &server.asked()[0];
        assert_eq!(asked.line, "POST /");
        assert_eq!(asked.header("content-length"), "0");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let server = Server::start(|_| reply(307, &[("Location", "/elsewhere")], "")).await;

        let reply = Client::new(None).unwrap().get(&server.url(), SOON).await.unwrap();

        assert_eq!(reply.status, 307);
        assert_eq!(server.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_body_too_long_or_too_short_is_an_error() {
        let long = Server::start(|_| reply(200, &[], "0123456789")).await;
        let short = Server::start(|_| cut(&[], 10, "0")).await;
        let client = Client::new(None).unwrap();

        let long = client.get(&long.url(), SOON).await.unwrap().bytes(9).await.unwrap_err();
        let short = client
            .get(&short.url(), SOON)
            .await
            .unwrap()
            .bytes(99)
            .await
            .unwrap_err();

        assert!(matches!(long, Error::TooLarge { limit_bytes: 9, .. }), "{long}");
        assert!(matches!(short, Error::Unreachable { .. }), "{short}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused_without_being_repeated() {
        let client = Client::new(None).unwrap();

        for url in ["127.0.0.1:5001", "ftp://a/", "http://me:canary@127.0.0.1/"] {
            let error = client.get(url, SOON).await.unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }
}
