//! What a parent answered: the head at once, the body as it comes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header};
use reqwest::Response;
use url::Url;

use super::error::Error;
use super::gate::Pass;
use super::metrics::Series;
use super::pace::{Pace, Wait};
use super::{link, verdict};
use crate::oci::{ContentRange, Digest};
use crate::units::Clock;

/// A 200 or 206 and its body, which has not been read yet. Dropping it hangs up, if more is to come.
#[derive(Debug)]
pub struct Answer {
    /// 200, or 206 if a range was asked for and is what comes.
    pub status: u16,
    /// What the headers say.
    pub head: Head,
    /// `None`: there is nothing to read (HEAD).
    body: Option<Response>,
    layer: String,
    series: Series,
    pace: Pace,
    /// Bytes that were paid for before they were asked for.
    paid: u64,
    /// Whether it is better kept waiting than begun again.
    stays: bool,
    /// Held until the body has been read.
    pass: Option<Pass>,
}

/// What of an answer's headers is believed and used. What is malformed counts as absent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// Bytes of the body that comes; of the whole, if only the head was asked for.
    pub length: Option<u64>,
    /// `Docker-Content-Digest`: announced, not yet checked.
    pub digest: Option<Digest>,
    /// As written, parameters included.
    pub media_type: Option<String>,
    /// For how long caches above have had this answer; zero if nobody says.
    pub age: Duration,
    /// Of a 206; begins where was asked for.
    pub content_range: Option<ContentRange>,
    /// One entry per node above, the farthest first (RFC 9211).
    pub cache_status: Option<String>,
    /// As written, quotes included.
    pub etag: Option<String>,
    /// The query of the next page of a list on the same path; for [`What::TagsPage`] and
    /// [`What::ReferrersPage`].
    ///
    /// [`What::TagsPage`]: super::What::TagsPage
    /// [`What::ReferrersPage`]: super::What::ReferrersPage
    pub link: Option<String>,
    /// Only ever `identity`: any other is refused.
    pub content_encoding: Option<String>,
    /// `Warning`s of the nodes above: that this is stale, and why.
    pub warning: Option<String>,
    /// `OCI-Filters-Applied`.
    pub filters_applied: Option<String>,
}

/// What came of reading on.
enum Read {
    Came(Wait, reqwest::Result<Option<Bytes>>),
    Silence,
    MakesWay,
}

/// What an answer is made of besides the response.
pub(super) struct Frame {
    pub(super) layer: String,
    pub(super) series: Series,
    pub(super) clock: Clock,
    pub(super) read_timeout: Duration,
}

impl Answer {
    /// An answer whose body is `response`, or none.
    pub(super) fn new(status: u16, head: Head, body: Option<Response>, frame: Frame) -> Self {
        Self {
            status,
            head,
            body,
            layer: frame.layer,
            series: frame.series,
            pace: Pace::new(frame.clock, frame.read_timeout),
            paid: 0,
            stays: false,
            pass: None,
        }
    }

    /// The same, holding the right to it.
    pub(super) fn holding(mut self, mut pass: Pass, paid: u64) -> Self {
        pass.answered();
        self.paid = paid;
        self.pass = Some(pass);
        self
    }

    /// It makes way for nobody: begun again, it would bring what it brought before.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// The next bytes; `None` at the end. That all announced bytes came is checked, what they
    /// hash to is not.
    ///
    /// # Errors
    ///
    /// * [`Error::Cut`]: the connection broke, or the upstream was silent for `read_timeout`.
    /// * [`Error::TimedOut`]: it sends so slowly that it would never end.
    /// * [`Error::Closed`]: the window closed. [`Error::MadeWay`]: for a pull that somebody waits for.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(response) = &mut self.body else {
            return Ok(None);
        };
        let reading = async {
            let wish = self.pass.as_ref().map(|pass| pass.line().down.wish(pass.class()));
            let is_paid = self.paid > 0;
            match (&self.pass, &wish) {
                (_, Some(_)) if is_paid => {}
                (Some(pass), Some(wish)) if pass.may_make_way() && !self.stays => {
                    if !wish.granted().await {
                        return Read::MakesWay;
                    }
                }
                (_, Some(wish)) => wish.granted_at_last().await,
                (_, None) => {}
            }
            let wait = self.pace.wait();
            // Not the client's own read timeout: that runs on while nobody reads, and a slow reader is no silent upstream.
            match tokio::time::timeout(self.pace.window(), response.chunk()).await {
                Ok(chunk) => Read::Came(wait, chunk),
                Err(_) => Read::Silence,
            }
        };
        let read = match &self.pass {
            Some(pass) => pass.while_open(reading).await,
            None => Ok(reading.await),
        };
        let (wait, chunk) = match read {
            Ok(Read::Came(wait, chunk)) => (wait, chunk),
            Ok(Read::Silence) => {
                self.body = None;
                return Err(self.silent());
            }
            Ok(Read::MakesWay) => {
                self.body = None;
                return Err(Error::MadeWay {
                    layer: self.layer.clone(),
                });
            }
            Err(closed) => {
                self.body = None;
                return Err(closed);
            }
        };
        let received = match &chunk {
            Ok(Some(bytes)) => bytes.len(),
            _ => 0,
        };
        self.series.received.inc_by(received as u64);
        if let Some(pass) = &self.pass {
            let paid = self.paid.min(received as u64);
            self.paid -= paid;
            pass.line().down.crossed(pass.class(), received as u64, paid);
        }
        match chunk {
            Ok(Some(bytes)) => match self.pace.came(wait, received) {
                Ok(()) => Ok(Some(bytes)),
                Err(after) => {
                    self.body = None;
                    Err(Error::TimedOut {
                        layer: self.layer.clone(),
                        after,
                    })
                }
            },
            Ok(None) => {
                self.body = None;
                Ok(None)
            }
            Err(error) => {
                self.body = None;
                Err(Error::Cut {
                    layer: self.layer.clone(),
                    source: verdict::cause(error),
                })
            }
        }
    }

    /// The whole body, if it has no more than `limit` bytes.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk), and [`Error::TooLarge`] as soon as that is known.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, Error> {
        let announced = if self.body.is_some() { self.head.length } else { None };
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(self.too_large(limit));
        }
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Err(self.too_large(limit));
            }
            if all.is_empty() && Some(chunk.len() as u64) == announced {
                return Ok(chunk);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    fn silent(&self) -> Error {
        let words = format!("no bytes for {} s", self.pace.window().as_secs_f32());
        Error::Cut {
            layer: self.layer.clone(),
            source: Arc::new(io::Error::new(io::ErrorKind::TimedOut, words)),
        }
    }

    fn too_large(&self, limit_bytes: usize) -> Error {
        Error::TooLarge {
            layer: self.layer.clone(),
            limit_bytes,
        }
    }
}

impl Head {
    /// From the headers of the answer to a request for `asked`.
    pub(super) fn parse(headers: &HeaderMap, asked: &Url) -> Self {
        let text = |name: HeaderName| one(headers, &name);
        Self {
            length: text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            digest: text(DOCKER_CONTENT_DIGEST).and_then(|digest| digest.parse().ok()),
            media_type: text(header::CONTENT_TYPE),
            age: age(text(header::AGE)),
            content_range: text(header::CONTENT_RANGE).and_then(|range| ContentRange::parse(&range)),
            cache_status: list(headers, &CACHE_STATUS),
            etag: text(header::ETAG),
            link: list(headers, &header::LINK).and_then(|link| link::next(asked, &link)),
            content_encoding: list(headers, &header::CONTENT_ENCODING),
            warning: list(headers, &header::WARNING),
            filters_applied: list(headers, &FILTERS_APPLIED),
        }
    }
}

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Of headers that may hold a list, so much is carried on.
const MOST_BYTES: usize = 4096;

fn one(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// Several lines of a header mean the same as one with commas (RFC 9110, 5.3).
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let joined = lines.join(", ");
    (!joined.is_empty() && joined.len() <= MOST_BYTES).then_some(joined)
}

/// RFC 9111, 5.1: what is too large for us is as old as can be.
fn age(written: Option<String>) -> Duration {
    let digits = written.filter(|age| age.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.map_or(0, |digits| digits.parse::<u32>().unwrap_or(u32::MAX));
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> Head {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        Head::parse(&headers, &Url::parse("http://r/v2/a/tags/list").unwrap())
    }

    #[test]
    fn what_the_headers_say_is_read() {
        let digest = Digest::of(b"x");
        let read = head(&[
            ("content-length", "42"),
            ("docker-content-digest", &digest.to_string()),
            ("content-type", "application/json; charset=utf-8"),
            ("age", "30"),
            ("cache-status", "l6; hit"),
            ("cache-status", "l5; fwd=miss"),
            ("link", r#"</v2/a/tags/list?last=b>; rel="next""#),
        ]);

        assert_eq!(read.length, Some(42));
        assert_eq!(read.digest, Some(digest));
        assert_eq!(read.media_type.as_deref(), Some("application/json; charset=utf-8"));
        assert_eq!(read.age, Duration::from_secs(30));
        assert_eq!(read.cache_status.as_deref(), Some("l6; hit, l5; fwd=miss"));
        assert_eq!(read.link.as_deref(), Some("last=b"));
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        let read = head(&[
            ("content-length", "-1"),
            ("docker-content-digest", "sha256:short"),
            ("content-range", "bytes 9-1/3"),
            ("age", "-5"),
            ("content-type", " "),
            ("link", "</v2/other?last=b>; rel=next"),
        ]);

        assert_eq!(read, Head::default());
    }

    #[test]
    fn an_age_beyond_counting_is_very_old() {
        let read = head(&[("age", "99999999999999999999")]);

        assert!(read.age > Duration::from_secs(365 * 24 * 3600));
    }
}
