//! One question and its answer, with everything in between: the refusal that wants a token, the
//! redirect to where the bytes are, the signed URL that has run out.
//!
//! Nothing of a client's request is sent but what stands here. `Authorization` leaves the request at
//! the first step to another scheme, host or port, and does not come back.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Method, Response};
use url::Url;

use super::answer::{Answer, Frame, Head};
use super::ask::Ask;
use super::authority::{Credential, Want};
use super::breaker::Sign;
use super::challenge::{self, Challenge};
use super::error::Error;
use super::gate::Load;
use super::kind::Kind;
use super::outgoing::Outgoing;
use super::shared::Shared;
use super::verdict::Judge;
use super::{redirect, wire, within};
use crate::oci::{Registry, media};

/// A request is refused, given better credentials and sent again no more often than this, and with no
/// more than so many tokens that were fetched meanwhile.
const MOST_REFUSALS: usize = 3;
const MOST_TOKENS: usize = 2;

/// A question in the form in which it is sent.
pub(super) struct Exchange<'a> {
    shared: &'a Shared,
    method: Method,
    url: Url,
    headers: HeaderMap,
    load: Load,
    /// Whose token is wanted, and for what.
    want: Want<'a>,
    body: Outgoing,
}

/// A final answer, good or bad.
pub(super) struct Reply {
    pub(super) response: Response,
    /// Whether redirects led away from the upstream itself.
    pub(super) is_elsewhere: bool,
}

impl Shared {
    /// Asks, and returns the answer if it is 200 or 206. Somebody waits for it for as long as is `left`.
    pub(super) async fn exchange(&self, ask: &Ask<'_>, ns: Option<&Registry>, left: Duration) -> Result<Answer, Error> {
        let mut exchange = Exchange {
            shared: self,
            method: if ask.head { Method::HEAD } else { Method::GET },
            url: ask.url(&self.url, ns, self.memory.last()),
            headers: headers(ask, &self.via(ask.hops)),
            load: ask.load(),
            want: ask.want(),
            body: Outgoing::Nothing,
        };
        if self.memory.last() == Kind::Wharf {
            within::tell(&mut exchange.headers, left);
            within::tell_class(&mut exchange.headers, ask.class);
        } else if let Some(known) = ask.known {
            let value = HeaderValue::from_str(&format!("\"{known}\"")).expect("a digest is ASCII");
            exchange.headers.insert(header::IF_NONE_MATCH, value);
        }
        let mut reply = exchange.run().await.inspect_err(|error| self.limited(error))?;
        // A refusal by the storage behind a redirect: the signature has run out, or was made for
        // GET alone. The registry is asked once more, for what needs no HEAD.
        if reply.is_elsewhere && matches!(reply.response.status().as_u16(), 400 | 401 | 403 | 405) {
            if ask.head {
                exchange.peek();
            }
            reply = exchange.run().await.inspect_err(|error| self.limited(error))?;
        }
        let is_elsewhere = reply.is_elsewhere;
        let response = reply.response;
        if !is_elsewhere && Kind::of(response.headers()) == Kind::Wharf {
            // Every answer of a node says so; that one does not say so means nothing.
            self.memory.learn(Kind::Wharf);
            self.memory.hear(response.headers());
        }
        let status = response.status().as_u16();
        let is_peek = ask.head && exchange.method == Method::GET;
        if let Some(known) = ask.known.filter(|_| status == 304 && !is_elsewhere) {
            self.gate.observe(Sign::Answered);
            let mut head = Head::parse(response.headers(), &exchange.url);
            (head.digest, head.length) = (Some(*known), None);
            return Ok(Answer::new(200, head, None, self.frame()));
        }
        if !matches!(status, 200 | 206) {
            let is_page = is_web_page(&Head::parse(response.headers(), &exchange.url));
            // Its own service took the login, and gave a token for it.
            let is_narrow = challenge::is_insufficient_scope(response.headers());
            let mut error = self.refusal(response, is_elsewhere).await;
            let is_content = ask.is_manifest() || ask.is_blob();
            if matches!(error, Error::Absent { .. }) && is_page && is_content && !is_elsewhere {
                error = self.believed(error).await;
            }
            error = match error {
                // A token that was given for this, and does not do for it: the account may not have it.
                Error::Denied {
                    layer,
                    status: 401,
                    anonymous: false,
                    words,
                } if is_narrow => Error::Denied {
                    layer,
                    status: 403,
                    anonymous: false,
                    words,
                },
                Error::Denied { status: 403, .. } if !is_narrow => self.weighed(error, ask, is_page).await,
                error => error,
            };
            if ask.head && status == 400 && !is_elsewhere {
                error = self.explained(error).await;
            }
            self.gate.observe(self.sign(&error, is_elsewhere));
            return Err(error);
        }
        self.gate.observe(Sign::Answered);
        let mut head = Head::parse(response.headers(), &exchange.url);
        self.check(ask, status, &head, is_peek)?;
        let frame = self.frame();
        if is_peek {
            if let Some(range) = head.content_range.take() {
                head.length = range.total;
            }
            return Ok(Answer::new(200, head, None, frame));
        }
        let body = (!ask.head).then_some(response);
        Ok(Answer::new(status, head, body, frame))
    }

    fn frame(&self) -> Frame {
        Frame {
            layer: self.wire.layer.clone(),
            series: self.series.clone(),
            clock: self.clock.clone(),
            read_timeout: self.read_timeout,
        }
    }

    /// The same with words: a HEAD has no body, and what a gateway in front refuses, it refuses to all.
    async fn explained(&self, error: Error) -> Error {
        match self.front_door().await {
            Ok(response) if response.status() == 400 => self.refusal(response, false).await,
            _ => error,
        }
    }

    /// The same, if a registry said it: a page that says so may come from whatever else answers there, and would take
    /// away all tags that are asked for.
    async fn believed(&self, absent: Error) -> Error {
        let garbled = |reason: &str| Error::Garbled {
            layer: self.wire.layer.clone(),
            reason: reason.to_owned(),
        };
        match self.front_door().await {
            Ok(door) if matches!(door.status().as_u16(), 200 | 401) => {
                let is_page = is_web_page(&Head::parse(door.headers(), &self.url));
                wire::drain(door).await;
                match is_page {
                    false => absent,
                    true => garbled("web pages; is that the address of a registry?"),
                }
            }
            Ok(_) => garbled("a web page that says 404, also for /v2/; is that the address of a registry?"),
            Err(error) => error,
        }
    }

    /// That access is refused, if the registry says it of what was asked for: a page comes from who stands in between, and who
    /// is not let in at all, though he has an account, has a login that is no good any more.
    async fn weighed(&self, denied: Error, ask: &Ask<'_>, is_page: bool) -> Error {
        let layer = self.wire.layer.clone();
        match denied {
            _ if is_page => Error::Failed {
                layer,
                status: 403,
                message: "a web page that refuses access; is there a proxy or a firewall in between?".to_owned(),
                told: false,
                retry_after: None,
            },
            Error::Denied { anonymous, words, .. } => match self.lets_in(ask).await {
                Err(error) => error,
                Ok(is_in) => Error::Denied {
                    layer,
                    status: if is_in { 403 } else { 401 },
                    anonymous,
                    words,
                },
            },
            other => other,
        }
    }

    /// Whether `GET /v2/` is answered to the login that goes with this question.
    async fn lets_in(&self, ask: &Ask<'_>) -> Result<bool, Error> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}v2/", self.url.path()));
        let exchange = Exchange {
            shared: self,
            method: Method::GET,
            url,
            headers: headers(ask, &self.via(ask.hops)),
            load: Load::Question,
            want: Want::pull(ask.repository.name.as_str()),
            body: Outgoing::Nothing,
        };
        let reply = exchange.run().await?;
        let is_in = reply.response.status() == 200;
        wire::drain(reply.response).await;
        Ok(is_in)
    }

    /// `GET /v2/` (end-1): what the upstream is, and what it wants to see; counts as an answer
    /// whatever its status.
    pub(super) async fn greet(&self) -> Result<(Kind, Option<Challenge>), Error> {
        let response = self.front_door().await?;
        let kind = Kind::of(response.headers());
        let challenge = Challenge::choose(response.headers());
        wire::drain(response).await;
        Ok((kind, challenge))
    }

    /// The same, for what it tells of the upstream alone.
    pub(super) async fn knock(&self) -> Sign {
        match self.front_door().await {
            Ok(response) if response.status().is_server_error() || response.status() == 429 => {
                let error = self.refusal(response, false).await;
                self.sign(&error, false)
            }
            Ok(response) => {
                wire::drain(response).await;
                Sign::Answered
            }
            Err(error) => Sign::Away(error),
        }
    }

    async fn front_door(&self) -> Result<Response, Error> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}v2/", self.url.path()));
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, self.via(&super::Hops::default()));
        let response = self.wire.send(&Method::GET, &url, &headers, Load::Question).await?;
        self.memory.learn(Kind::of(response.headers()));
        self.memory.hear(response.headers());
        Ok(response)
    }

    /// Whoever limits, the token service or the storage, does so for all at once.
    pub(super) fn limited(&self, error: &Error) {
        if matches!(error, Error::TooMany { .. }) {
            self.gate.observe(Sign::Limiting(error.clone()));
        }
    }

    /// Whether asking again soon may help: nobody explained the failure, or wished for anything.
    pub(super) fn is_moment(&self, error: &Error) -> bool {
        let is_own = error.layer() == self.wire.layer && error.retry_after().is_none();
        error.is_broken() || (error.is_bad_moment() && is_own)
    }

    /// What a refusal tells of the upstream. What a node explains is the matter of another layer, or of that one
    /// question.
    pub(super) fn sign(&self, error: &Error, is_elsewhere: bool) -> Sign {
        match error {
            error if error.layer() != self.wire.layer => Sign::Answered,
            Error::TooMany { .. } => Sign::Limiting(error.clone()),
            Error::Failed { .. } if is_elsewhere => Sign::Answered,
            Error::Failed {
                status: 503,
                retry_after: Some(_),
                ..
            } => Sign::Limiting(error.clone()),
            Error::Failed { .. } if error.is_bad_moment() => Sign::Failing(error.clone()),
            _ => Sign::Answered,
        }
    }

    pub(super) async fn refusal(&self, response: Response, is_elsewhere: bool) -> Error {
        let judge = Judge {
            layer: &self.wire.layer,
            kind: if is_elsewhere {
                Kind::Foreign
            } else {
                self.memory.last()
            },
            anonymous: self.authority.is_anonymous(),
            now: self.clock.wall(),
        };
        match judge.judge(response).await {
            Error::Denied { layer, status, .. } if is_elsewhere => Error::Failed {
                layer,
                status,
                message: "the storage that it redirects to refuses access".to_owned(),
                told: false,
                retry_after: None,
            },
            error => error,
        }
    }

    /// Refuses what would poison whoever believed it.
    fn check(&self, ask: &Ask<'_>, status: u16, head: &Head, is_peek: bool) -> Result<(), Error> {
        let garbled = |reason: String| {
            Err(Error::Garbled {
                layer: self.wire.layer.clone(),
                reason,
            })
        };
        if let Some(encoding) = &head.content_encoding
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return garbled(format!("encoding {encoding:.20}, though identity was asked for"));
        }
        let is_unnamed = head.digest.is_none() && head.length.is_none();
        if is_web_page(head) && (!ask.is_blob() || is_unnamed) {
            return garbled("a web page; is there a portal in between that wants a login?".to_owned());
        }
        if status == 206 {
            let first = match ask.range {
                Some((first, _)) => Some(first),
                None => is_peek.then_some(0),
            };
            let came = head.content_range.map(|range| range.first);
            if first.is_none() || came != first {
                return garbled("a part that was not asked for".to_owned());
            }
        }
        Ok(())
    }
}

impl<'a> Exchange<'a> {
    /// One that changes something.
    pub(super) fn new(
        shared: &'a Shared,
        method: Method,
        url: Url,
        headers: HeaderMap,
        load: Load,
        want: Want<'a>,
        body: Outgoing,
    ) -> Self {
        Self {
            shared,
            method,
            url,
            headers,
            load,
            want,
            body,
        }
    }
}

impl Exchange<'_> {
    /// From a HEAD to a GET of the first byte, which tells the size as well.
    fn peek(&mut self) {
        self.method = Method::GET;
        self.headers
            .insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
    }

    /// Sends, with better credentials as long as the upstream wants them and there are any.
    pub(super) async fn run(&self) -> Result<Reply, Error> {
        let Shared { wire, authority, .. } = self.shared;
        let began = authority.moment();
        let mut shown = authority.remembered(wire, self.want).await?;
        let mut fetched = 0;
        let mut sent = 0;
        loop {
            let reply = self.follow(shown.as_ref()).await?;
            if reply.is_elsewhere || !wants_more(&reply.response) {
                return Ok(reply);
            }
            fetched += usize::from(shown.as_ref().is_some_and(|shown| shown.is_newer_than(began)));
            let better = match self.challenge(&reply.response).await? {
                Some(challenge) if sent < MOST_REFUSALS && fetched < MOST_TOKENS => {
                    let shown = shown.as_ref();
                    authority.answer(wire, self.want, challenge, shown, began).await?
                }
                _ => None,
            };
            let Some(better) = better else {
                if let Some(shown) = &shown {
                    let is_narrow = challenge::is_insufficient_scope(reply.response.headers());
                    // That it may not push is the matter of the queue, which lets all wait.
                    let is_forbidden = is_narrow && self.want.is_pull() && !authority.is_anonymous();
                    let status = if is_forbidden { 403 } else { 401 };
                    authority.blame(wire, self.want, status, shown);
                }
                return Ok(reply);
            };
            wire::drain(reply.response).await;
            shown = Some(better);
            sent += 1;
        }
    }

    /// The challenge of a refusal; some registries tell it only to `GET /v2/`.
    async fn challenge(&self, response: &Response) -> Result<Option<Challenge>, Error> {
        match Challenge::choose(response.headers()) {
            Some(challenge) => Ok(Some(challenge)),
            None if response.headers().contains_key(header::WWW_AUTHENTICATE) => Ok(None),
            None => self.shared.greet().await.map(|(_, challenge)| challenge),
        }
    }

    /// Sends and follows redirects to the end.
    async fn follow(&self, shown: Option<&Credential>) -> Result<Reply, Error> {
        let wire = &self.shared.wire;
        let mut headers = self.headers.clone();
        // Where an upload goes on may be another's.
        if let Some(shown) = shown.filter(|_| wire.is_home(&self.url)) {
            headers.insert(header::AUTHORIZATION, shown.header.clone());
        }
        let mut url = self.url.clone();
        for _ in 0..=redirect::MOST_HOPS {
            let response = wire
                .send_with(&self.method, &url, &headers, self.load, &self.body)
                .await?;
            let status = response.status().as_u16();
            let next =
                redirect::next(&url, status, response.headers()).map_err(|reason| self.shared.untrusted(reason))?;
            let is_read = matches!(self.method, Method::GET | Method::HEAD);
            let Some(next) = next.filter(|_| is_read || matches!(status, 307 | 308)) else {
                let is_elsewhere = !wire.is_home(&url);
                return Ok(Reply { response, is_elsewhere });
            };
            if !self.shared.egress.admits(&next) {
                return Err(self.shared.untrusted(
                    "it redirects to an address inside the network; if that is right, list the host in redirect_hosts",
                ));
            }
            if !wire.is_home(&next) {
                headers.remove(header::AUTHORIZATION);
                within::keep_to_ourselves(&mut headers);
            }
            wire::drain(response).await;
            url = next;
        }
        Err(self.shared.untrusted("it redirects more than five times"))
    }
}

fn wants_more(response: &Response) -> bool {
    match response.status().as_u16() {
        401 => true,
        403 => challenge::is_insufficient_scope(response.headers()),
        _ => false,
    }
}

fn headers(ask: &Ask<'_>, via: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::VIA, via.clone());
    let accept = if ask.is_manifest() { media::ACCEPT } else { "*/*" };
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Some((first, last)) = ask.range {
        let last = last.map_or_else(String::new, |last| last.to_string());
        let range = HeaderValue::from_str(&format!("bytes={first}-{last}")).expect("digits are ASCII");
        headers.insert(header::RANGE, range);
    }
    headers
}

fn is_web_page(head: &Head) -> bool {
    let media_type = head.media_type.as_deref().unwrap_or_default();
    media::essence(media_type).eq_ignore_ascii_case("text/html")
}
