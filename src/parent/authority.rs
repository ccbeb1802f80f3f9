//! With what we prove who asks: nothing, a password, or a token that a password (or nothing) bought.
//!
//! A password is shown only after its host asked for one, and only to the upstream itself or to a
//! token service that [`realm`] accepts.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use moka::sync::Cache;
use url::Url;

use super::challenge::{Bearer, Challenge};
use super::config::Config;
use super::error::Error;
use super::login::{Known, Source};
use super::realm;
use super::refused::{self, Refused};
use super::token::{Grant, Purpose, Serial, Token, Tokens};
use super::token_service::TokenService;
use super::wire::Wire;
use crate::units::Clock;

/// For so many repositories it is remembered which token they want.
const MOST_REPOSITORIES: u64 = 4096;

/// One upstream's login and what was bought with it.
#[derive(Debug)]
pub(super) struct Authority {
    upstream: Url,
    source: Source,
    auth_hosts: Vec<String>,
    /// Whether the upstream asked for the password itself; then it is shown from the start.
    wants_basic: AtomicBool,
    /// Which token a repository wants, so that it need not ask again.
    wants: Cache<String, Purpose>,
    tokens: Tokens,
    service: TokenService,
    refused: Refused,
    clock: Clock,
}

/// What is to be done in a repository: each has tokens of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Pull,
    Push,
    /// Into it, from another: what may not be read there is no reason not to push.
    Mount,
    Delete,
    /// Of the registry as a whole: to see what repositories there are.
    List,
}

/// What is asked for, as far as tokens know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    pub(super) repository: &'a str,
    pub(super) action: Action,
}

impl<'a> Want<'a> {
    pub(super) fn pull(repository: &'a str) -> Self {
        let action = Action::Pull;
        Self { repository, action }
    }

    /// For the list of repositories.
    pub(super) fn catalog() -> Self {
        Self {
            repository: "",
            action: Action::List,
        }
    }

    pub(super) fn is_pull(self) -> bool {
        self.action == Action::Pull
    }

    /// What it is remembered by. No repository's name has a space.
    fn key(self) -> Cow<'a, str> {
        match self.action {
            Action::Pull => Cow::Borrowed(self.repository),
            Action::Push => Cow::Owned(format!("{} push", self.repository)),
            Action::Mount => Cow::Owned(format!("{} mount", self.repository)),
            Action::Delete => Cow::Owned(format!("{} delete", self.repository)),
            Action::List => Cow::Borrowed(" list"),
        }
    }

    /// What is to be asked for, if the upstream does not say it.
    fn scope(self) -> String {
        let actions = match self.action {
            Action::List => return "registry:catalog:*".to_owned(),
            Action::Pull => "pull",
            Action::Push | Action::Mount => "pull,push",
            Action::Delete => "delete",
        };
        format!("repository:{}:{actions}", self.repository)
    }
}

/// What is shown to the upstream.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    pub(super) header: HeaderValue,
    shown: Shown,
}

#[derive(Clone, Debug)]
enum Shown {
    Password(Known),
    Token(Purpose, Token),
}

impl Credential {
    /// Whether it is a token that was fetched after `moment`.
    pub(super) fn is_newer_than(&self, moment: Serial) -> bool {
        matches!(&self.shown, Shown::Token(_, token) if token.is_newer_than(moment))
    }
}

impl Authority {
    pub(super) fn new(config: &Config, clock: Clock) -> Self {
        Self {
            upstream: config.url.clone(),
            source: Source::new(config),
            auth_hosts: config.auth_hosts.clone(),
            wants_basic: AtomicBool::new(false),
            wants: Cache::new(MOST_REPOSITORIES),
            tokens: Tokens::new(clock.clone()),
            service: TokenService::new(&config.url, &config.auth_hosts, clock.clone()),
            refused: Refused::new(clock.clone()),
            clock,
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.source.is_nobody()
    }

    /// The moment at which a request begins, for [`answer`](Self::answer).
    pub(super) fn moment(&self) -> Serial {
        self.tokens.moment()
    }

    /// What this repository wanted last time, renewed if need be; `None` if it has not asked yet.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] without any request, if it was refused lately.
    pub(super) async fn remembered(&self, wire: &Wire, want: Want<'_>) -> Result<Option<Credential>, Error> {
        let key = want.key();
        if let Some(status) = self.refused.holds(&key) {
            return Err(Error::Denied {
                layer: wire.layer.clone(),
                status,
                anonymous: self.is_anonymous(),
                words: None,
            });
        }
        if let Some(purpose) = self.wants.get(&*key) {
            let credential = self.buy(wire, purpose, None).await;
            if credential.is_err() {
                // The token service may have moved: the next request asks the upstream again.
                self.wants.invalidate(&*key);
            }
            return credential.map(Some);
        }
        if self.wants_basic.load(Ordering::Relaxed) {
            return self.password(wire, None).await;
        }
        Ok(None)
    }

    /// What was refused lately is asked for again: an operator says that it is mended.
    pub(super) fn forget_refusals(&self) {
        self.refused.forget();
    }

    /// `shown` was refused for good, 403 if it is good and does not do for this: who asks for this repository within the
    /// next seconds is refused without a request. A password that the upstream itself refuses is bad for all repositories.
    pub(super) fn blame(&self, wire: &Wire, want: Want<'_>, status: u16, shown: &Credential) {
        let repository = &*want.key();
        match &shown.shown {
            Shown::Password(_) if status == 401 && want.action == Action::Pull => self.blame_login(wire),
            // Who may pull is not kept from it because it may not push.
            Shown::Password(_) if status == 401 => self.refused.remember(Some(repository), status, refused::LOGIN),
            Shown::Password(_) => {}
            Shown::Token(..) if self.is_anonymous() || status == 403 => {
                self.refused.remember(Some(repository), status, refused::ANONYMOUS);
            }
            Shown::Token(..) => {
                let wait_s = refused::LOGIN.as_secs();
                tracing::warn!(
                    upstream = wire.layer,
                    repository,
                    status,
                    wait_s,
                    "our token is refused"
                );
                wire.note_credentials();
                self.refused.remember(Some(repository), status, refused::LOGIN);
            }
        }
    }

    fn blame_login(&self, wire: &Wire) {
        let wait_s = refused::LOGIN.as_secs();
        tracing::warn!(upstream = wire.layer, wait_s, "our user or password is refused");
        wire.note_credentials();
        self.refused.remember(None, 401, refused::LOGIN);
    }

    /// What to show after the upstream refused `shown` with `challenge`; `None`: there is nothing
    /// better, the refusal is final. `began` is the moment at which the request began: a token
    /// that was fetched since and is refused is not fetched again.
    pub(super) async fn answer(
        &self,
        wire: &Wire,
        want: Want<'_>,
        challenge: Challenge,
        shown: Option<&Credential>,
        began: Serial,
    ) -> Result<Option<Credential>, Error> {
        let bearer = match (challenge, shown.map(|shown| &shown.shown)) {
            (Challenge::Bearer(bearer), _) => bearer,
            // A helper may know a newer one by now.
            (Challenge::Basic, Some(Shown::Password(known))) => return self.password(wire, Some(known)).await,
            (Challenge::Basic, _) => {
                self.wants_basic.store(true, Ordering::Relaxed);
                return self.password(wire, None).await;
            }
        };
        let purpose = self.purpose(wire, want, bearer)?;
        let refused = match shown.map(|shown| &shown.shown) {
            Some(Shown::Token(same, token)) if *same == purpose && token.is_newer_than(began) => {
                return Ok(None);
            }
            Some(Shown::Token(same, token)) if *same == purpose => Some(token),
            _ => None,
        };
        self.wants.insert(want.key().into_owned(), purpose.clone());
        self.buy(wire, purpose, refused).await.map(Some)
    }

    fn purpose(&self, wire: &Wire, want: Want<'_>, bearer: Bearer) -> Result<Purpose, Error> {
        let realm =
            realm::accept(&self.upstream, &bearer.realm, &self.auth_hosts).map_err(|reason| wire.untrusted(reason))?;
        Ok(Purpose {
            realm,
            service: bearer.service,
            scope: bearer.scope.unwrap_or_else(|| want.scope()),
        })
    }

    async fn buy(&self, wire: &Wire, purpose: Purpose, refused: Option<&Token>) -> Result<Credential, Error> {
        let fetch = self.fetch(wire, &purpose);
        let token = self.tokens.get(purpose.clone(), refused, fetch).await?;
        Ok(Credential {
            header: token.header(),
            shown: Shown::Token(purpose, token),
        })
    }

    /// A token from the service; with a second login, if a helper knows one and the first is refused.
    async fn fetch(&self, wire: &Wire, purpose: &Purpose) -> Result<Grant, Error> {
        let mut known = self.known(wire, None).await?;
        loop {
            let error = match self.service.buy(wire, purpose, known.as_ref()).await {
                Err(error @ Error::Denied { status: 400 | 401, .. }) if known.is_some() => error,
                done => return done,
            };
            let other = self.known(wire, known.as_ref()).await?;
            if other.is_none() {
                self.blame_login(wire);
                return Err(error);
            }
            known = other;
        }
    }

    async fn password(&self, wire: &Wire, refused: Option<&Known>) -> Result<Option<Credential>, Error> {
        let known = self.known(wire, refused).await?;
        Ok(known.and_then(|known| {
            Some(Credential {
                header: known.basic()?,
                shown: Shown::Password(known),
            })
        }))
    }

    async fn known(&self, wire: &Wire, refused: Option<&Known>) -> Result<Option<Known>, Error> {
        let known = self.source.known(&wire.layer, refused, &self.clock).await;
        if known.is_err() {
            wire.note_credentials();
        }
        known
    }
}
