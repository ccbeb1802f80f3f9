//! Buying one token: by GET as registries have it, by POST as OAuth2 has it.
//!
//! A service is asked by GET (token specification, "Requesting a Token"). One that does not know GET
//! is asked by POST with the password, and one that once gave a refresh token with that instead of
//! the password ("OAuth2 Token Authentication"). A purchase is at most three requests.

use std::collections::{HashMap, HashSet};

use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use reqwest::{Method, Response};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::config::Login;
use super::error::Error;
use super::gate::Load;
use super::kind::Kind;
use super::login::Known;
use super::origin::Origin;
use super::token::{Grant, Purpose};
use super::verdict::Judge;
use super::wire::{self, Wire};
use super::{realm, redirect};
use crate::units::{Clock, Secret};

/// The answer of a token service is no longer than this.
const MOST_BYTES: usize = 64 * 1024;

/// Of so many services something is remembered; with more, all is forgotten.
const MOST_SERVICES: usize = 64;

/// Who we are to an OAuth2 service.
const CLIENT_ID: &str = "wharf";

/// The token services of one upstream, and what is known of them.
#[derive(Debug)]
pub(super) struct TokenService {
    upstream: Url,
    auth_hosts: Vec<String>,
    memory: Mutex<Memory>,
    clock: Clock,
}

/// One lock, never held across an await.
#[derive(Debug, Default)]
struct Memory {
    /// By realm and service: a refresh token, and whom it stands for.
    refresh: HashMap<(Url, Option<String>), (Option<Known>, Secret)>,
    /// Realms that answered a GET with 404 or 405.
    without_get: HashSet<Url>,
}

impl Memory {
    fn learn_without_get(&mut self, realm: &Url) {
        if self.without_get.len() >= MOST_SERVICES {
            self.without_get.clear();
        }
        self.without_get.insert(realm.clone());
    }
}

/// What a service said to one request.
enum Said {
    Yes(Grant),
    No { status: u16, error: Error },
}

impl TokenService {
    pub(super) fn new(upstream: &Url, auth_hosts: &[String], clock: Clock) -> Self {
        Self {
            upstream: upstream.clone(),
            auth_hosts: auth_hosts.to_vec(),
            memory: Mutex::default(),
            clock,
        }
    }

    /// A token for `purpose`, as `known` or anonymously.
    pub(super) async fn buy(&self, wire: &Wire, purpose: &Purpose, known: Option<&Known>) -> Result<Grant, Error> {
        if let Some(refresh) = self.refresh_token(purpose, known) {
            let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
            let said = self.post(wire, purpose, &form, known).await;
            if !matches!(said, Ok(Said::Yes(_))) {
                // Refused, or perhaps used up by an answer that was lost: seen again it may cost all of its family.
                self.forget(purpose, &refresh);
            }
            match said? {
                Said::Yes(grant) => return Ok(self.kept(purpose, known, grant)),
                Said::No { error, .. } => {
                    if matches!(known, Some(Known::Identity(_))) {
                        return Err(error);
                    }
                }
            }
        }
        let without_get = self.memory.lock().without_get.contains(&purpose.realm);
        let by_get = match without_get {
            true => None,
            false => match self.get(wire, purpose, known).await? {
                Said::Yes(grant) => return Ok(self.kept(purpose, known, grant)),
                Said::No {
                    status: 404 | 405 | 501,
                    error,
                } => Some(error),
                Said::No { error, .. } => return Err(error),
            },
        };
        match (known, by_get) {
            (Some(Known::Password(login)), by_get) => self.buy_by_post(wire, purpose, known, login, by_get).await,
            (_, Some(error)) => Err(error),
            (_, None) => self.last_get(wire, purpose, known).await,
        }
    }

    /// Not what another request was given meanwhile in exchange for the same.
    fn forget(&self, purpose: &Purpose, used: &Secret) {
        let mut memory = self.memory.lock();
        let kept = memory.refresh.get(&key(purpose));
        if kept.is_some_and(|(_, kept)| kept.expose() == used.expose()) {
            memory.refresh.remove(&key(purpose));
        }
    }

    /// With the password. `by_get` is what a GET met a moment ago; none: the service was known not to
    /// take any.
    async fn buy_by_post(
        &self,
        wire: &Wire,
        purpose: &Purpose,
        known: Option<&Known>,
        login: &Login,
        by_get: Option<Error>,
    ) -> Result<Grant, Error> {
        let form = [
            ("grant_type", "password"),
            ("username", login.username.as_str()),
            ("password", login.password.expose()),
        ];
        match (self.post(wire, purpose, &form, known).await?, by_get) {
            (Said::Yes(grant), _) => {
                self.memory.lock().learn_without_get(&purpose.realm);
                Ok(self.kept(purpose, known, grant))
            }
            (
                Said::No {
                    error: error @ Error::Denied { .. },
                    ..
                },
                _,
            ) => Err(error),
            (Said::No { .. }, Some(by_get)) => Err(by_get),
            // It has learnt GET since, and refuses passwords by POST, as Azure's does with 400.
            (Said::No { .. }, None) => {
                self.memory.lock().without_get.remove(&purpose.realm);
                self.last_get(wire, purpose, known).await
            }
        }
    }

    async fn last_get(&self, wire: &Wire, purpose: &Purpose, known: Option<&Known>) -> Result<Grant, Error> {
        match self.get(wire, purpose, known).await? {
            Said::Yes(grant) => Ok(self.kept(purpose, known, grant)),
            Said::No { error, .. } => Err(error),
        }
    }

    fn refresh_token(&self, purpose: &Purpose, known: Option<&Known>) -> Option<Secret> {
        if let Some(Known::Identity(token)) = known {
            return Some(token.clone());
        }
        let memory = self.memory.lock();
        let (whose, token) = memory.refresh.get(&key(purpose))?;
        (whose.as_ref() == known).then(|| token.clone())
    }

    /// Remembers the refresh token that came with a grant.
    fn kept(&self, purpose: &Purpose, known: Option<&Known>, mut grant: Grant) -> Grant {
        if let Some(refresh) = grant.refresh.take() {
            let mut memory = self.memory.lock();
            if memory.refresh.len() >= MOST_SERVICES {
                memory.refresh.clear();
            }
            memory.refresh.insert(key(purpose), (known.cloned(), refresh));
        }
        grant
    }

    async fn get(&self, wire: &Wire, purpose: &Purpose, known: Option<&Known>) -> Result<Said, Error> {
        let mut headers = accepting_json();
        if let Some(basic) = known.and_then(Known::basic) {
            headers.insert(header::AUTHORIZATION, basic);
        }
        let mut url = purpose.url();
        for _ in 0..=redirect::MOST_HOPS {
            let response = wire.send(&Method::GET, &url, &headers, Load::Question).await?;
            let Some(next) = self.next(wire, &url, &response)? else {
                return self.said(wire, response, known).await;
            };
            if Origin::of(&next) != Origin::of(&url) {
                headers.remove(header::AUTHORIZATION);
            }
            wire::drain(response).await;
            url = next;
        }
        Err(wire.untrusted("its token service redirects more than five times"))
    }

    async fn post(
        &self,
        wire: &Wire,
        purpose: &Purpose,
        form: &[(&str, &str)],
        known: Option<&Known>,
    ) -> Result<Said, Error> {
        let body = written(form, purpose);
        let mut headers = accepting_json();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        let mut url = purpose.realm.clone();
        for _ in 0..=redirect::MOST_HOPS {
            let response = wire.post(&url, &headers, &body).await?;
            let Some(next) = self.next(wire, &url, &response)? else {
                return self.said(wire, response, known).await;
            };
            // Here the credentials are in the body.
            if Origin::of(&next) != Origin::of(&url) {
                return Err(wire.untrusted("its token service redirects a POST to another host"));
            }
            wire::drain(response).await;
            url = next;
        }
        Err(wire.untrusted("its token service redirects more than five times"))
    }

    /// Where the service redirects to, if that is still one that may be asked.
    fn next(&self, wire: &Wire, url: &Url, response: &Response) -> Result<Option<Url>, Error> {
        let status = response.status().as_u16();
        let next = redirect::next(url, status, response.headers()).map_err(|reason| wire.untrusted(reason))?;
        let Some(next) = next else { return Ok(None) };
        let accepted = realm::accept(&self.upstream, next.as_str(), &self.auth_hosts);
        accepted.map(Some).map_err(|reason| wire.untrusted(reason))
    }

    async fn said(&self, wire: &Wire, mut response: Response, known: Option<&Known>) -> Result<Said, Error> {
        let status = response.status().as_u16();
        if status != 200 {
            let error = self.refusal(wire, response, known).await;
            return Ok(Said::No { status, error });
        }
        let body = wire::head_of(&mut response, MOST_BYTES).await;
        let grant = body.and_then(|(body, _)| Grant::parse(&body));
        grant.map(Said::Yes).ok_or_else(|| Error::Garbled {
            layer: wire.layer.clone(),
            reason: "no token where one was asked for".to_owned(),
        })
    }

    async fn refusal(&self, wire: &Wire, mut response: Response, known: Option<&Known>) -> Error {
        let layer = wire.layer.clone();
        if response.status() == 400 && known.is_some() {
            let body = wire::head_of(&mut response, MOST_BYTES).await;
            let said: Option<OAuthError> = body.and_then(|(body, _)| serde_json::from_slice(&body).ok());
            if said.is_some_and(|said| said.error == "invalid_grant") {
                return Error::Denied {
                    layer,
                    status: 400,
                    anonymous: false,
                    words: None,
                };
            }
            return Error::Failed {
                layer,
                status: 400,
                message: "its token service does not take what was sent".to_owned(),
                told: false,
                retry_after: None,
            };
        }
        let judge = Judge {
            layer: &wire.layer,
            kind: Kind::Foreign,
            anonymous: known.is_none(),
            now: self.clock.wall(),
        };
        match judge.judge(response).await {
            // It refuses the login, not what the token was to be for.
            Error::Denied {
                layer,
                anonymous: false,
                words,
                ..
            } => Error::Denied {
                layer,
                status: 401,
                anonymous: false,
                words,
            },
            // That there is no such token service does not mean that there is no such content.
            Error::Absent { layer } => Error::Failed {
                layer,
                status: 404,
                message: "its token service is not where it says".to_owned(),
                told: false,
                retry_after: None,
            },
            error => error,
        }
    }
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct OAuthError {
    error: String,
}

fn key(purpose: &Purpose) -> (Url, Option<String>) {
    (purpose.realm.clone(), purpose.service.clone())
}

fn written(form: &[(&str, &str)], purpose: &Purpose) -> String {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form).append_pair("client_id", CLIENT_ID);
    if let Some(service) = &purpose.service {
        body.append_pair("service", service);
    }
    body.append_pair("scope", &purpose.scope).finish()
}

fn accepting_json() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_that_is_refused_late_takes_no_newer_one_with_it() {
        let realm = Url::parse("https://auth.example/token").expect("a URL");
        let service = TokenService::new(&realm, &[], Clock::system());
        let purpose = Purpose {
            realm,
            service: None,
            scope: String::new(),
        };
        let newer = (None, Secret::new("newer"));
        service.memory.lock().refresh.insert(key(&purpose), newer);

        service.forget(&purpose, &Secret::new("older"));
        assert_eq!(service.memory.lock().refresh.len(), 1);

        service.forget(&purpose, &Secret::new("newer"));
        assert!(service.memory.lock().refresh.is_empty());
    }
}
