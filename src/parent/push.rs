//! What is sent up: uploads, manifests, deletes (distribution spec, "Pushing" and "Content Management").

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use http::{HeaderMap, HeaderValue, header};
use reqwest::{Method, Response};
use url::Url;

use super::authority::{Action, Want};
use super::breaker::Sign;
use super::error::Error;
use super::exchange::Exchange;
use super::flow::Flow;
use super::gate::{Class, Load, Patience};
use super::kind::Kind;
use super::outgoing::{Outgoing, Pieces, Progress};
use super::{Hops, Parent, probe, wire};
use crate::oci::media::OCTET_STREAM;
use crate::oci::{Digest, Name, Reference, Repository};

/// Bytes that go at once, at the most.
const SLICE: usize = 16 << 10;

/// How often it is looked whether a body gets on.
const LOOK: Duration = Duration::from_secs(1);

/// How long a registry may take to hash what it was sent before it answers.
const HASHING: Duration = Duration::from_secs(10 * 60);

/// Beside a manifest that is about another: the registry keeps a list of such (distribution spec, end-7).
const SUBJECT: &str = "oci-subject";

/// An upload that a registry has open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// Where it goes on. May be signed.
    location: Url,
    /// Bytes that are there.
    pub size: u64,
}

impl Session {
    /// To be found again after a restart.
    pub fn location(&self) -> &str {
        self.location.as_str()
    }
}

/// How an upload began.
#[derive(Debug)]
pub enum Opened {
    /// The registry has the blob in another repository, and now in this one.
    Mounted,
    /// It is to be sent.
    Session(Session),
}

/// What became of a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    /// Whether the registry will list it as one that is about its subject.
    pub is_listed: bool,
}

/// Begins to read a body from its beginning.
type Open = Arc<dyn Fn() -> Pieces + Send + Sync>;

/// A part of a blob.
#[derive(Clone)]
pub struct Part {
    /// Its first byte.
    pub first: u64,
    /// Bytes.
    pub length: u64,
    /// Reads it.
    pub open: Open,
}

/// One request that changes something.
struct Write<'a> {
    method: Method,
    url: Url,
    repository: &'a Repository,
    action: Action,
    headers: HeaderMap,
    body: Outgoing,
    /// Whether the registry reads all of a blob before it answers.
    is_hashed: bool,
}

impl Parent {
    /// Opens an upload, unless the registry has the blob in the repository `from` and lends it (end-4a, end-11).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a question.
    pub async fn open_upload(
        &self,
        class: Class,
        repository: &Repository,
        mount: Option<(&Digest, &Name)>,
    ) -> Result<Opened, Error> {
        let mut url = self.place_of(repository, "blobs/uploads/").await?;
        if let Some((digest, from)) = mount {
            let mut query = url.query_pairs_mut();
            query.append_pair("mount", &digest.to_string());
            query.append_pair("from", from.as_str());
        }
        let mut write = Write::new(Method::POST, url.clone(), repository);
        if mount.is_some() {
            write.action = Action::Mount;
        }
        let response = self.write(class, write).await?;
        if mount.is_some() && response.status() == 201 {
            wire::drain(response).await;
            return Ok(Opened::Mounted);
        }
        let session = self.session(&url, &response, Some(0));
        wire::drain(response).await;
        session.map(Opened::Session)
    }

    /// How far an upload is (end-13). `location` is what [`Session::location`] said.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`]: it is over. Any other [`Error`] of a question.
    pub async fn find_upload(&self, class: Class, repository: &Repository, location: &str) -> Result<Session, Error> {
        let url = self.location(location)?;
        let response = self
            .write(class, Write::new(Method::GET, url.clone(), repository))
            .await?;
        let session = self.session(&url, &response, None);
        wire::drain(response).await;
        session
    }

    /// Sends more of an upload (end-5). What came before it broke off may be there.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`]: the upload is over. [`Error::RangeUnsatisfiable`]: it does not begin where the upload is. Any
    /// other [`Error`] of a question; [`Error::Cut`], if nothing is taken for a while.
    pub async fn append(
        &self,
        class: Class,
        repository: &Repository,
        session: &Session,
        part: Part,
    ) -> Result<Session, Error> {
        let mut write = Write::new(Method::PATCH, session.location.clone(), repository);
        let (first, length) = (part.first, part.length);
        // Of a stream from the beginning some registries want no place.
        if first > 0 || self.is_wharf() {
            let range = format!("{first}-{}", (first + length).saturating_sub(1));
            let range = HeaderValue::from_str(&range).expect("digits are ASCII");
            write.headers.insert(header::CONTENT_RANGE, range);
        }
        write.carry(part);
        let response = self.write(class, write).await?;
        let session = self.session(&session.location, &response, Some(first + length));
        wire::drain(response).await;
        session
    }

    /// Ends an upload; with the rest of it, if there is any (end-6).
    ///
    /// # Errors
    ///
    /// As [`Parent::append`]; [`Error::Failed`], if the registry finds other bytes than the digest says.
    pub async fn finish(
        &self,
        class: Class,
        repository: &Repository,
        session: &Session,
        digest: &Digest,
        rest: Option<Bytes>,
    ) -> Result<(), Error> {
        let mut url = session.location.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut write = Write::new(Method::PUT, url, repository);
        let is_whole = rest.is_none();
        write.bring(rest.unwrap_or_default(), OCTET_STREAM);
        write.is_hashed = is_whole;
        let response = self.write(class, write).await?;
        wire::drain(response).await;
        Ok(())
    }

    /// Sends a manifest (end-7).
    ///
    /// # Errors
    ///
    /// [`Error::Absent`]: it needs what is not there, or there is no such repository. [`Error::Failed`]: it is refused.
    /// Any other [`Error`] of a question.
    pub async fn put_manifest(
        &self,
        class: Class,
        repository: &Repository,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Put, Error> {
        let url = self.place_of(repository, &format!("manifests/{reference}")).await?;
        let mut write = Write::new(Method::PUT, url, repository);
        write.bring(bytes, media_type);
        let response = self.write(class, write).await?;
        let is_listed = response.headers().contains_key(SUBJECT);
        wire::drain(response).await;
        Ok(Put { is_listed })
    }

    /// Deletes a tag or a manifest (end-9).
    ///
    /// # Errors
    ///
    /// [`Error::Absent`]: there is none. [`Error::Failed`] with 400 or 405: the registry deletes nothing. Any other
    /// [`Error`] of a question.
    pub async fn delete(&self, class: Class, repository: &Repository, reference: &Reference) -> Result<(), Error> {
        let url = self.place_of(repository, &format!("manifests/{reference}")).await?;
        let mut write = Write::new(Method::DELETE, url, repository);
        write.action = Action::Delete;
        let response = self.write(class, write).await?;
        wire::drain(response).await;
        Ok(())
    }

    /// Where it is, without what a URL may hold of secrets: whom debts are owed to.
    pub fn address(&self) -> String {
        let mut url = self.shared.url.clone();
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.to_string()
    }

    /// A URL of a repository, as the registry knows it.
    async fn place_of(&self, repository: &Repository, tail: &str) -> Result<Url, Error> {
        if !self.admits(&repository.name) {
            return Err(Error::Absent {
                layer: self.shared.wire.layer.clone(),
            });
        }
        let ns = self.ns(&repository.registry).await?;
        let mut url = self.shared.url.clone();
        url.set_path(&format!("{}v2/{}/{tail}", url.path(), repository.name));
        if let Some(registry) = ns {
            url.query_pairs_mut().append_pair("ns", registry.as_str());
        }
        Ok(url)
    }

    /// What was written down of a session, if it still leads where we go.
    fn location(&self, written: &str) -> Result<Url, Error> {
        let url = Url::parse(written).ok();
        let is_ours = |url: &Url| self.shared.wire.is_home(url) || self.shared.egress.admits(url);
        url.filter(is_ours).ok_or_else(|| Error::Absent {
            layer: self.shared.wire.layer.clone(),
        })
    }

    /// Where an upload goes on, and how far it is; `size` if the registry need not say it.
    fn session(&self, base: &Url, response: &Response, size: Option<u64>) -> Result<Session, Error> {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let garbled = |reason: &str| Error::Garbled {
            layer: self.shared.wire.layer.clone(),
            reason: reason.to_owned(),
        };
        let said_by = response.url();
        let location = match text(header::LOCATION) {
            Some(written) => said_by.join(written).ok(),
            // Of a status it may be left out.
            None if size.is_none() => Some(base.clone()),
            None => None,
        };
        let mut location = location.ok_or_else(|| garbled("an upload that is nowhere"))?;
        if !location.username().is_empty() || location.password().is_some() {
            return Err(garbled("an upload at a URL that names a user"));
        }
        if said_by.scheme() == "https" && location.scheme() == "http" {
            // A proxy in front speaks TLS, and what is behind it does not know. Nothing is sent in the clear for that.
            let is_same = location.host() == said_by.host() && location.port().is_none();
            if !is_same || location.set_scheme("https").is_err() || location.set_port(said_by.port()).is_err() {
                return Err(self.shared.untrusted("it has uploads sent from https:// to http://"));
            }
        }
        if !self.shared.wire.is_home(&location) && !self.shared.egress.admits(&location) {
            return Err(self.shared.untrusted(
                "it has uploads sent to an address inside the network; if that is right, list the host in redirect_hosts",
            ));
        }
        let said = text(header::RANGE).map(|range| range.trim_start_matches("bytes="));
        let last = said.and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        let there = match (last, size) {
            // It says the same of one byte and of none.
            (Some(0), expected) => expected.filter(|size| *size <= 1).unwrap_or(0),
            (Some(last), _) => last.saturating_add(1),
            (None, expected) => expected.unwrap_or(0),
        };
        Ok(Session { location, size: there })
    }

    /// Sends, and returns the answer if it is a good one.
    async fn write(&self, class: Class, write: Write<'_>) -> Result<Response, Error> {
        probe::watch(&self.shared);
        let outcome = self.write_in_time(class, write).await;
        probe::watch(&self.shared);
        outcome
    }

    async fn write_in_time(&self, class: Class, write: Write<'_>) -> Result<Response, Error> {
        let shared = &*self.shared;
        let Write {
            method,
            url,
            repository,
            action,
            mut headers,
            body,
            is_hashed,
        } = write;
        let (load, progress) = match &body {
            Outgoing::Opened(_, progress) => (Load::Upload, Some(Arc::clone(progress))),
            _ => (Load::Question, None),
        };
        let is_upload = method == Method::POST;
        // Nobody waits for it.
        let patience = Patience {
            span: shared.connect_timeout * 3,
            is_spare: false,
        };
        let pass = shared.gate.pass(class, load, None, patience).await?;
        let body = match body {
            Outgoing::Opened(open, progress) => {
                Outgoing::Opened(tolled(open, &shared.gate.line.up, class, &progress), progress)
            }
            Outgoing::Bytes(bytes) => {
                shared.gate.line.up.crossed(class, bytes.len() as u64, 0);
                Outgoing::Bytes(bytes)
            }
            other => other,
        };
        headers.insert(header::VIA, shared.via(&Hops::default()));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let want = Want {
            repository: repository.name.as_str(),
            action,
        };
        let exchange = Exchange::new(shared, method, url, headers, load, want, body);
        // What was read of a body may still be on its way.
        let last = if is_hashed { HASHING } else { shared.read_timeout * 2 };
        let sending = self.with_progress(exchange.run(), progress.as_deref(), last);
        let sent = pass.while_open(Box::pin(sending)).await??;
        drop(pass);
        let reply = sent.inspect_err(|error| shared.limited(error))?;
        shared.hours.used();
        let response = reply.response;
        if !reply.is_elsewhere && Kind::of(response.headers()) == Kind::Wharf {
            shared.memory.learn(Kind::Wharf);
            shared.memory.hear(response.headers());
        }
        let status = response.status().as_u16();
        let is_foreign = shared.memory.last() == Kind::Foreign && !reply.is_elsewhere;
        if is_foreign && action == Action::Push {
            let is_declined = matches!(status, 405 | 501);
            // Of one manifest that is said too; where no upload can be begun nothing is taken.
            if !is_declined || is_upload {
                shared.memory.declines(is_declined);
            }
        }
        if response.status().is_success() {
            shared.gate.observe(Sign::Answered);
            return Ok(response);
        }
        let error = shared.refusal(response, reply.is_elsewhere).await;
        // That it cannot take this one thing tells nothing of the pulls.
        shared.gate.observe(match shared.sign(&error, reply.is_elsewhere) {
            Sign::Failing(_) => Sign::Answered,
            sign => sign,
        });
        tracing::debug!(upstream = self.name(), status, %error, "a push was refused");
        Err(error)
    }

    /// Waits for the answer for as long as the body gets on, and then for as long as `last`.
    async fn with_progress<T>(
        &self,
        sending: impl Future<Output = T>,
        progress: Option<&Progress>,
        last: Duration,
    ) -> Result<T, Error> {
        let shared = &*self.shared;
        let mut sending = std::pin::pin!(sending);
        let (mut before, mut since) = (0, shared.clock.now());
        loop {
            if let Ok(outcome) = tokio::time::timeout(LOOK, &mut sending).await {
                return Ok(outcome);
            }
            let (bytes, is_read) = progress.map_or((0, true), |progress| (progress.bytes(), progress.is_read()));
            let now = shared.clock.now();
            let waits = progress.is_some_and(Progress::is_waiting);
            if bytes != before || waits {
                (before, since) = (bytes, now);
            }
            let limit = if is_read { last } else { shared.read_timeout };
            if now.saturating_duration_since(since) > limit {
                shared.wire.note_late();
                return Err(shared.timed_out(limit));
            }
        }
    }
}

/// The same, read no faster than the line may take it.
fn tolled(open: Open, up: &Arc<Flow>, class: Class, progress: &Arc<Progress>) -> Open {
    let (up, progress) = (Arc::clone(up), Arc::clone(progress));
    Arc::new(move || {
        let (up, progress) = (Arc::clone(&up), Arc::clone(&progress));
        let slices = open().flat_map(|piece| iter(sliced(piece)));
        let paid = slices.then(move |piece| {
            let (up, progress) = (Arc::clone(&up), Arc::clone(&progress));
            async move {
                if let Ok(piece) = &piece {
                    progress.waits(true);
                    up.wish(class).granted_at_last().await;
                    progress.waits(false);
                    up.crossed(class, piece.len() as u64, 0);
                }
                piece
            }
        });
        Box::pin(paid)
    })
}

/// In pieces that a slow line takes in a moment.
fn sliced(piece: std::io::Result<Bytes>) -> impl Iterator<Item = std::io::Result<Bytes>> {
    let (mut left, mut error) = match piece {
        Ok(piece) => (piece, None),
        Err(error) => (Bytes::new(), Some(error)),
    };
    std::iter::from_fn(move || match left.len() {
        0 => error.take().map(Err),
        length => Some(Ok(left.split_to(length.min(SLICE)))),
    })
}

impl<'a> Write<'a> {
    fn new(method: Method, url: Url, repository: &'a Repository) -> Self {
        let mut headers = HeaderMap::new();
        if method == Method::POST {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Self {
            method,
            url,
            repository,
            action: Action::Push,
            headers,
            body: Outgoing::Nothing,
            is_hashed: false,
        }
    }

    /// Has it carry a document.
    fn bring(&mut self, bytes: Bytes, media_type: &str) {
        self.announce(bytes.len() as u64, media_type);
        self.body = Outgoing::Bytes(bytes);
    }

    /// Has it carry a part of a blob.
    fn carry(&mut self, part: Part) {
        self.announce(part.length, OCTET_STREAM);
        self.body = Outgoing::Opened(part.open, Arc::default());
    }

    fn announce(&mut self, length: u64, media_type: &str) {
        let media_type = HeaderValue::from_str(media_type);
        let media_type = media_type.unwrap_or_else(|_| HeaderValue::from_static(OCTET_STREAM));
        self.headers.insert(header::CONTENT_TYPE, media_type);
        self.headers.insert(header::CONTENT_LENGTH, length.into());
    }
}
