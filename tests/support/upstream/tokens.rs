//! Who may pull from the parent and push to it: everybody, or who brings a token or a password.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::json;

use super::ledger::Seen;
use super::registry::Reply;
use super::target::Need;

/// What a registry demands before it answers under `/v2/`.
#[derive(Clone, Default)]
pub enum Access {
    #[default]
    Open,
    Basic {
        user: String,
        password: String,
    },
    Bearer {
        book: Arc<Book>,
        realm: String,
    },
}

/// The tokens of one token service. A service gives them out, a registry looks them up.
#[derive(Default)]
pub struct Book {
    /// Who may have a token; anybody when absent.
    pub user: Option<(String, String)>,
    /// What the answer says and the registry keeps to; absent: not said, 60 s.
    pub expires_in: Option<u64>,
    /// What it knows of OAuth2.
    pub oauth: OAuth,
    issued: Mutex<HashMap<String, Token>>,
    /// How many were given out: no two are the same.
    given: AtomicUsize,
    refresh_tokens: Mutex<Vec<String>>,
    withheld: Mutex<Vec<String>>,
}

/// How a service differs from one that knows GET alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OAuth {
    /// The status with which it refuses GET.
    pub refuses_get: Option<u16>,
    /// Whether it takes a password by POST.
    pub password: bool,
    /// Whether it gives refresh tokens out and takes them by POST.
    pub refresh: bool,
}

struct Token {
    scopes: Vec<String>,
    until: Instant,
    /// Whether somebody used it.
    was_shown: bool,
}

impl Book {
    pub fn anonymous() -> Arc<Self> {
        Arc::default()
    }

    pub fn of(user: &str, password: &str) -> Arc<Self> {
        Arc::new(Self {
            user: Some((user.to_owned(), password.to_owned())),
            ..Self::default()
        })
    }

    pub fn expiring_after(seconds: u64) -> Arc<Self> {
        Arc::new(Self {
            expires_in: Some(seconds),
            ..Self::default()
        })
    }

    pub fn with(user: &str, password: &str, oauth: OAuth) -> Arc<Self> {
        Arc::new(Self {
            user: Some((user.to_owned(), password.to_owned())),
            oauth,
            ..Self::default()
        })
    }

    /// A refresh token that it takes from now on.
    pub fn refresh_token(&self) -> String {
        let mut given = self.refresh_tokens.lock();
        let token = format!("refresh-{}-of-{self:p}", given.len());
        given.push(token.clone());
        token
    }

    /// No refresh token is good any more.
    pub fn revoke_refresh_tokens(&self) {
        self.refresh_tokens.lock().clear();
    }

    /// No token that was given out is good any more.
    pub fn revoke(&self) {
        self.issued.lock().clear();
    }

    /// The same of those that somebody used already: one that is refused when it is first shown is another matter.
    pub fn revoke_shown(&self) {
        self.issued.lock().retain(|_, token| !token.was_shown);
    }

    /// From now on no token grants `action` (`pull`, `push`, `delete`), though it is given out to who asks for it.
    pub fn withhold(&self, action: &str) {
        self.withheld.lock().push(action.to_owned());
    }

    /// Tokens grant what is asked for again.
    pub fn withhold_nothing(&self) {
        self.withheld.lock().clear();
    }

    /// What the token service answers.
    pub fn answer(&self, seen: &Seen) -> Reply {
        if let Some(refusal) = self.refusal(seen) {
            return refusal;
        }
        let asked = if seen.method == "POST" { &seen.body } else { &seen.query };
        let scopes = url::form_urlencoded::parse(asked.as_bytes())
            .filter(|(key, _)| key == "scope")
            .map(|(_, scope)| self.granted(&scope))
            .collect();
        let mut issued = self.issued.lock();
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        let name = format!("token-{number}-of-{self:p}");
        let until = Instant::now() + Duration::from_secs(self.expires_in.unwrap_or(60));
        let was_shown = false;
        issued.insert(
            name.clone(),
            Token {
                scopes,
                until,
                was_shown,
            },
        );
        let mut answer = json!({ "token": name });
        if self.oauth.refresh {
            answer["refresh_token"] = self.refresh_token().into();
        }
        if let Some(seconds) = self.expires_in {
            answer["expires_in"] = seconds.into();
        }
        Reply::json(200, &answer)
    }

    /// `scope` without what is withheld.
    fn granted(&self, scope: &str) -> String {
        let withheld = self.withheld.lock();
        let parts = scope.split(' ').filter_map(|part| {
            let (what, actions) = part.rsplit_once(':')?;
            let left = actions
                .split(',')
                .filter(|action| !withheld.iter().any(|held| held == action));
            Some(format!("{what}:{}", left.collect::<Vec<_>>().join(",")))
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    fn refusal(&self, seen: &Seen) -> Option<Reply> {
        if seen.method == "POST" {
            return self.refusal_of_form(&seen.body);
        }
        if let Some(status) = self.oauth.refuses_get {
            return Some(Reply::error(status, "UNSUPPORTED", "no GET here"));
        }
        let (user, password) = self.user.as_ref()?;
        (seen.header("authorization") != Some(&basic(user, password)))
            .then(|| Reply::error(401, "UNAUTHORIZED", "wrong user or password"))
    }

    fn refusal_of_form(&self, form: &str) -> Option<Reply> {
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(form.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let is_good = match value("grant_type").as_deref() {
            Some("password") if self.oauth.password => {
                let shown = value("username").zip(value("password"));
                self.user.is_none() || shown == self.user
            }
            Some("refresh_token") => {
                value("refresh_token").is_some_and(|token| self.refresh_tokens.lock().contains(&token))
            }
            _ => return Some(Reply::json(400, &json!({ "error": "unsupported_grant_type" }))),
        };
        (!is_good).then(|| Reply::json(400, &json!({ "error": "invalid_grant" })))
    }

    fn admits(&self, authorization: &str, needs: &[Need]) -> bool {
        let mut issued = self.issued.lock();
        let name = authorization.strip_prefix("Bearer ");
        let Some(token) = name.and_then(|name| issued.get_mut(name)) else {
            return false;
        };
        token.was_shown = true;
        let is_met = |need: &Need| need.actions.iter().all(|action| token.grants(need, action));
        token.until > Instant::now() && needs.iter().all(is_met)
    }

    /// Whether it is a token that lasts, whatever it grants.
    fn knows(&self, authorization: &str) -> bool {
        self.admits(authorization, &[])
    }
}

impl Token {
    fn grants(&self, need: &Need, action: &str) -> bool {
        let repository = format!("repository:{}:", need.repository);
        let mut parts = self.scopes.iter().flat_map(|scope| scope.split(' '));
        parts.any(|part| {
            part.strip_prefix(&repository)
                .is_some_and(|actions| actions.split(',').any(|granted| granted == action))
        })
    }
}

impl Access {
    /// What is answered instead of content, or nothing when `seen` may have what it `needs`.
    pub fn refusal(&self, seen: &Seen, needs: &[Need]) -> Option<Reply> {
        let brought = seen.header("authorization").unwrap_or("");
        let challenge = match self {
            Self::Open => return None,
            Self::Basic { user, password } if brought == basic(user, password) => return None,
            Self::Basic { .. } => r#"Basic realm="the parent""#.to_owned(),
            Self::Bearer { book, .. } if book.admits(brought, needs) => return None,
            Self::Bearer { book, realm } => {
                let needs = needs
                    .iter()
                    .map(|need| format!("repository:{}:{}", need.repository, need.actions.join(",")));
                let scope = needs.collect::<Vec<_>>().join(" ");
                let scope = Some(scope).filter(|scope| !scope.is_empty());
                let scope = scope.map(|scope| format!(r#",scope="{scope}""#)).unwrap_or_default();
                let error = match seen.is_write() && book.knows(brought) {
                    true => r#",error="insufficient_scope""#,
                    false => "",
                };
                format!(r#"Bearer realm="{realm}",service="the parent, and more"{scope}{error}"#)
            }
        };
        Some(Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", &challenge))
    }
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
