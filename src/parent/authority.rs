//! With what we prove who asks: nothing, a password, or a token that a password (or nothing) bought.
//!
//! A password is shown only after its host asked for one, and only to the upstream itself or to a
//! token service that [`realm`] accepts.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use moka::sync::Cache;
use reqwest::Method;
use url::Url;

use super::challenge::{Bearer, Challenge};
use super::config::{Config, Login};
use super::error::Error;
use super::kind::Kind;
use super::origin::Origin;
use super::token::{Grant, Purpose, Serial, Token, Tokens};
use super::verdict::Judge;
use super::wire::{self, Wire};
use super::{realm, redirect};
use crate::units::Clock;

/// The answer of a token service is no longer than this.
const MOST_BYTES: usize = 64 * 1024;

/// For so many repositories it is remembered which token they want.
const MOST_REPOSITORIES: u64 = 4096;

/// One upstream's login and what was bought with it.
#[derive(Debug)]
pub(super) struct Authority {
    upstream: Url,
    login: Option<Login>,
    auth_hosts: Vec<String>,
    /// Whether the upstream asked for the password itself; then it is shown from the start.
    wants_basic: AtomicBool,
    /// Which token a repository wants, so that it need not ask again.
    wants: Cache<String, Purpose>,
    tokens: Tokens,
    clock: Clock,
}

/// What is shown to the upstream.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    pub(super) header: HeaderValue,
    /// `None`: the password itself.
    bought: Option<(Purpose, Token)>,
}

impl Authority {
    pub(super) fn new(config: &Config, clock: Clock) -> Self {
        Self {
            upstream: config.url.clone(),
            login: config.login.clone(),
            auth_hosts: config.auth_hosts.clone(),
            wants_basic: AtomicBool::new(false),
            wants: Cache::new(MOST_REPOSITORIES),
            tokens: Tokens::new(clock.clone()),
            clock,
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.login.is_none()
    }

    /// The moment at which a request begins, for [`answer`](Self::answer).
    pub(super) fn moment(&self) -> Serial {
        self.tokens.moment()
    }

    /// What this repository wanted last time, renewed if need be; `None` if it has not asked yet.
    pub(super) async fn remembered(&self, wire: &Wire, repository: &str) -> Result<Option<Credential>, Error> {
        if let Some(purpose) = self.wants.get(repository) {
            let credential = self.buy(wire, purpose, None).await;
            if credential.is_err() {
                // The token service may have moved: the next request asks the upstream again.
                self.wants.invalidate(repository);
            }
            return credential.map(Some);
        }
        if self.wants_basic.load(Ordering::Relaxed) {
            return Ok(self.password());
        }
        Ok(None)
    }

    /// What to show after the upstream refused `shown` with `challenge`; `None`: there is nothing
    /// better, the refusal is final. `began` is the moment at which the request began: a token
    /// that was fetched since and is refused is not fetched again.
    pub(super) async fn answer(
        &self,
        wire: &Wire,
        repository: &str,
        challenge: Challenge,
        shown: Option<&Credential>,
        began: Serial,
    ) -> Result<Option<Credential>, Error> {
        let bearer = match challenge {
            Challenge::Bearer(bearer) => bearer,
            Challenge::Basic if shown.is_some_and(|shown| shown.bought.is_none()) => {
                return Ok(None);
            }
            Challenge::Basic => {
                self.wants_basic.store(true, Ordering::Relaxed);
                return Ok(self.password());
            }
        };
        let purpose = self.purpose(wire, repository, bearer)?;
        let refused = match shown.and_then(|shown| shown.bought.as_ref()) {
            Some((same, token)) if *same == purpose && token.is_newer_than(began) => {
                return Ok(None);
            }
            Some((same, token)) if *same == purpose => Some(token),
            _ => None,
        };
        self.wants.insert(repository.to_owned(), purpose.clone());
        self.buy(wire, purpose, refused).await.map(Some)
    }

    fn purpose(&self, wire: &Wire, repository: &str, bearer: Bearer) -> Result<Purpose, Error> {
        let realm =
            realm::accept(&self.upstream, &bearer.realm, &self.auth_hosts).map_err(|reason| untrusted(wire, reason))?;
        Ok(Purpose {
            realm,
            service: bearer.service,
            scope: bearer.scope.unwrap_or_else(|| format!("repository:{repository}:pull")),
        })
    }

    async fn buy(&self, wire: &Wire, purpose: Purpose, refused: Option<&Token>) -> Result<Credential, Error> {
        let fetch = self.fetch(wire, purpose.url());
        let token = self.tokens.get(purpose.clone(), refused, fetch).await?;
        Ok(Credential {
            header: token.header(),
            bought: Some((purpose, token)),
        })
    }

    /// One token from the service (token specification, "Requesting a Token").
    async fn fetch(&self, wire: &Wire, url: Url) -> Result<Grant, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(password) = self.password() {
            headers.insert(header::AUTHORIZATION, password.header);
        }
        let mut url = url;
        for _ in 0..=redirect::MOST_HOPS {
            let mut response = wire.send(&Method::GET, &url, &headers).await?;
            let status = response.status().as_u16();
            let next = redirect::next(&url, status, response.headers()).map_err(|reason| untrusted(wire, reason))?;
            let Some(next) = next else {
                if status != 200 {
                    return Err(self.refusal(wire, response).await);
                }
                let body = wire::head_of(&mut response, MOST_BYTES).await;
                let grant = body.and_then(|(body, _)| Grant::parse(&body));
                return grant.ok_or_else(|| Error::Garbled {
                    layer: wire.layer.clone(),
                    reason: "no token where one was asked for".to_owned(),
                });
            };
            let next = realm::accept(&self.upstream, next.as_str(), &self.auth_hosts)
                .map_err(|reason| untrusted(wire, reason))?;
            if Origin::of(&next) != Origin::of(&url) {
                headers.remove(header::AUTHORIZATION);
            }
            wire::drain(response).await;
            url = next;
        }
        Err(untrusted(wire, "its token service redirects more than five times"))
    }

    async fn refusal(&self, wire: &Wire, response: reqwest::Response) -> Error {
        let judge = Judge {
            layer: &wire.layer,
            kind: Kind::Foreign,
            anonymous: self.is_anonymous(),
            now: self.clock.wall(),
        };
        match judge.judge(response).await {
            // That there is no such token service does not mean that there is no such content.
            Error::Absent { layer } => Error::Failed {
                layer,
                status: 404,
                message: "its token service is not where it says".to_owned(),
                retry_after: None,
            },
            error => error,
        }
    }

    fn password(&self) -> Option<Credential> {
        let login = self.login.as_ref()?;
        let pair = format!("{}:{}", login.username, login.password.expose());
        let mut header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).expect("base64 is ASCII");
        header.set_sensitive(true);
        Some(Credential { header, bought: None })
    }
}

fn untrusted(wire: &Wire, reason: &'static str) -> Error {
    tracing::warn!(upstream = wire.layer, reason, "upstream not followed");
    Error::Untrusted {
        layer: wire.layer.clone(),
        reason,
    }
}
