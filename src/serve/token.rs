//! Tokens for logins: Docker's token service (distribution, "Token Authentication" and "OAuth2 Token Authentication").

use std::collections::HashMap;

use serde_json::json;
use url::form_urlencoded;

use super::{Heard, Refusal, Reply, Request, Serve};
use crate::auth::{Actions, Credentials, Denied, LONGEST_TOKEN, Login, Scope, Stranger};
use crate::oci::{Code, error_body};
use crate::push::Incoming;
use crate::units::Secret;

/// Bytes of a form; a client's has some hundred.
const MOST: usize = 64 << 10;
/// Scopes in one request; a client asks for two.
const SCOPES: usize = 100;

/// What is asked for, wherever it stands.
#[derive(Default)]
struct Wish {
    grant: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    refresh: Option<Secret>,
    scopes: Vec<String>,
    lasting: bool,
}

/// `GET` and `POST /v2/_wharf/token`.
pub(super) async fn answer(
    serve: &Serve,
    request: &Request<'_>,
    body: &mut dyn Incoming,
    heard: &mut Heard,
) -> Result<Reply, Refusal> {
    let mut wish = Wish::default();
    wish.read_query(request.query.unwrap_or_default());
    if request.method == "POST" {
        let form = match read(body).await {
            Ok(form) => form,
            Err(words) => return Ok(bad(words)),
        };
        wish.read_form(&form);
    }
    heard.claimed = wish.username.clone();
    let login = match log_in(serve, request, &wish).await {
        Ok(login) => login,
        Err(Failure::Malformed(words)) => return Ok(bad(words)),
        Err(Failure::Stranger(stranger)) => return Err(refuse(stranger.into())),
    };
    let principal = login.principal();
    if principal.is_anonymous() && principal.may_nothing() {
        return Err(refuse(Denied::LogIn { scope: None }));
    }
    let (mut access, mut catalog) = (HashMap::new(), false);
    for scope in wish.scopes.iter().flat_map(|text| Scope::read(text)).take(SCOPES) {
        match scope {
            Scope::Catalog => catalog = true,
            Scope::Repository { name, actions } => {
                if let Some(name) = serve.names.respell(&name) {
                    let wanted: &mut Actions = access.entry(name).or_default();
                    *wanted |= actions;
                }
            }
        }
    }
    let issued = serve
        .gate
        .guard()
        .issue(&login, access.into_iter().collect(), catalog, wish.lasting);
    let token = issued.access.expose();
    if token.len() > LONGEST_TOKEN {
        return Ok(bad(
            "a token for all of these scopes has more than 8 KiB, which no request could bring; ask for fewer scopes at a time",
        ));
    }
    let mut told = json!({
        "token": token,
        "access_token": token,
        "expires_in": issued.ttl.as_secs(),
        "issued_at": issued.at.to_string(),
    });
    if let Some(refresh) = &issued.refresh {
        told["refresh_token"] = refresh.expose().into();
    }
    let mut reply = Reply::new(200).json(serde_json::to_vec(&told).expect("texts are JSON"));
    reply
        .headers
        .push((http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store")));
    reply.who = Some(principal.clone());
    Ok(reply)
}

enum Failure {
    Stranger(Stranger),
    Malformed(&'static str),
}

impl From<Stranger> for Failure {
    fn from(stranger: Stranger) -> Self {
        Self::Stranger(stranger)
    }
}

/// By what the form says, else as any other request does.
async fn log_in(serve: &Serve, request: &Request<'_>, wish: &Wish) -> Result<Login, Failure> {
    let guard = serve.gate.guard();
    let login = match wish.grant.as_deref() {
        Some("refresh_token") => match &wish.refresh {
            Some(refresh) => guard.log_in_again(refresh)?,
            None => return Err(Failure::Malformed("the form has no refresh_token")),
        },
        Some("password") if request.authorization.is_none() => match (&wish.username, &wish.password) {
            (Some(username), Some(password)) => guard.log_in_as(username, password, request.remote).await?,
            _ => return Err(Failure::Malformed("the form lacks username or password")),
        },
        Some("password") | None => guard.log_in(&request.credentials()).await?,
        Some(_) => {
            return Err(Failure::Malformed(
                "grant_type is not known here; send password or refresh_token",
            ));
        }
    };
    Ok(login)
}

/// Who asks for a token is to show a password, and no token.
fn refuse(denied: Denied) -> Refusal {
    Refusal::Denied(
        denied,
        Some((
            http::header::WWW_AUTHENTICATE,
            "Basic realm=\"wharf\",charset=\"UTF-8\"".to_owned(),
        )),
    )
}

fn bad(words: &str) -> Reply {
    Reply::new(400).json(error_body(Code::Unsupported, words, None))
}

impl Wish {
    /// Nothing that is secret is taken from here: it would stand in the logs of whoever is in between.
    fn read_query(&mut self, query: &str) {
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            self.take(&key, value.into_owned());
        }
    }

    fn read_form(&mut self, form: &[u8]) {
        for (key, value) in form_urlencoded::parse(form) {
            let value = value.into_owned();
            match key.as_ref() {
                "grant_type" => self.grant = Some(value),
                "username" => self.username = Some(value),
                "password" => self.password = Some(Secret::new(value)),
                "refresh_token" => self.refresh = Some(Secret::new(value)),
                _ => self.take(&key, value),
            }
        }
    }

    fn take(&mut self, key: &str, value: String) {
        match key {
            "scope" if self.scopes.len() < SCOPES => self.scopes.push(value),
            "offline_token" => self.lasting |= value == "true",
            "access_type" => self.lasting |= value == "offline",
            _ => {}
        }
    }
}

async fn read(body: &mut dyn Incoming) -> Result<Vec<u8>, &'static str> {
    let mut form = Vec::new();
    loop {
        match body.next().await {
            Ok(None) => return Ok(form),
            Ok(Some(piece)) if form.len() + piece.len() <= MOST => form.extend_from_slice(&piece),
            Ok(Some(_)) => return Err("the form has more than 64 KiB"),
            Err(_) => return Err("the form broke off"),
        }
    }
}

impl<'a> Request<'a> {
    /// What it says of who asks.
    pub(super) fn credentials(&self) -> Credentials<'a> {
        Credentials {
            authorization: self.authorization,
            peer: self.peer,
            remote: self.remote,
        }
    }
}
