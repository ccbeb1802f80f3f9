//! What is given out for a login: short, signed, and good at this node alone.
//!
//! ```text
//! wharf1.<key>.<claims: JSON in base64url>.<HMAC-SHA256 of all before the last dot, in base64url>
//! ```
//!
//! Not a JWT, as nobody else reads it: the bearer has no say in the algorithm or the key. The claims name who logged in, with
//! which password, and what was asked for; what they may do is looked up anew at every request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::password::{hex, random};
use crate::store::{self, Kept, Store};
use crate::units::{Moment, Secret};

const PREFIX: &str = "wharf1.";
/// Bytes of the longest one that is looked at, by the fence for a head.
pub(super) const MOST: usize = 8 << 10;
/// A key signs for so long.
const KEY_AGE: u64 = 7 * 86_400;
/// As many are looked at: what they signed has ended by then, by its own end.
const KEPT: usize = 8;

/// What a token says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Claims {
    #[serde(rename = "k")]
    pub(super) kind: Kind,
    /// Who logged in; empty for nobody in particular.
    #[serde(rename = "s")]
    pub(super) subject: String,
    /// By which password or certificate: once that is none of theirs, this is void. Blinded, so that it tells nothing of it.
    #[serde(rename = "v")]
    pub(super) mark: String,
    #[serde(rename = "e")]
    pub(super) expires: Moment,
    /// Repositories and what was asked for.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) access: Vec<(String, u8)>,
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) catalog: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Kind {
    #[serde(rename = "a")]
    Access,
    #[serde(rename = "r")]
    Refresh,
}

/// What signs; the newest first.
pub(super) struct Keys {
    store: Store,
    all: RwLock<Vec<Key>>,
}

struct Key {
    id: String,
    made: Moment,
    secret: Secret,
    signing: hmac::Key,
}

/// One, as it is kept.
#[derive(Deserialize, Serialize)]
struct Line {
    id: String,
    made: Moment,
    secret: String,
}

impl Keys {
    /// Those of the store. Blocks.
    pub(super) fn load(store: Store) -> Result<Self, store::Error> {
        let lines = store.kept(Kept::Keys)?;
        let read = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok().and_then(Key::read));
        let mut all: Vec<Key> = read.collect();
        all.sort_by_key(|key| std::cmp::Reverse(key.made));
        Ok(Self {
            store,
            all: RwLock::new(all),
        })
    }

    /// Signs. With a key that has become too old, or none, one is made first, which blocks for the disk; if that takes nothing, the
    /// new key is good until the node ends.
    pub(super) fn seal(&self, mut claims: Claims, now: Moment, is_set: bool) -> Secret {
        // A clock that is not set, or goes back, makes no new keys: with them all logins would end.
        let is_old = |key: &Key| key.made.seconds() + KEY_AGE <= now.seconds();
        let is_due = |all: &[Key]| all.first().is_none_or(|key| is_set && is_old(key));
        if is_due(&self.all.read()) {
            let mut all = self.all.write();
            if is_due(&all) {
                all.insert(0, Key::new(now));
                all.truncate(KEPT);
                let lines: Vec<String> = all.iter().map(Key::line).collect();
                if let Err(error) = self.store.keep(Kept::Keys, &lines) {
                    tracing::warn!(%error, "a new key for logins could not be kept: after a restart clients log in anew");
                }
            }
        }
        let all = self.all.read();
        let key = &all[0];
        claims.mark = key.blind(&claims.mark);
        let json = serde_json::to_vec(&claims).expect("texts and numbers are JSON");
        let mut text = format!("{PREFIX}{}.{}", key.id, URL_SAFE_NO_PAD.encode(json));
        let mac = hmac::sign(&key.signing, text.as_bytes());
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(mac));
        Secret::new(text)
    }

    /// What it says, if one of the keys signed it. Whether it still holds is another question.
    pub(super) fn open(&self, text: &str) -> Option<Opened> {
        if text.len() > MOST {
            return None;
        }
        let (signed, mac) = text.rsplit_once('.')?;
        let (id, claims) = signed.strip_prefix(PREFIX)?.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let all = self.all.read();
        let key = all.iter().find(|key| key.id == id)?;
        hmac::verify(&key.signing, signed.as_bytes(), &mac).ok()?;
        Some(Opened {
            claims: serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?,
            signing: key.signing.clone(),
        })
    }
}

/// A token that one of the keys signed.
pub(super) struct Opened {
    pub(super) claims: Claims,
    signing: hmac::Key,
}

impl Opened {
    /// Whether it was given out for what has this mark.
    pub(super) fn is_for(&self, mark: &str) -> bool {
        blind(&self.signing, mark) == self.claims.mark
    }
}

fn blind(key: &hmac::Key, mark: &str) -> String {
    match mark {
        "" => String::new(),
        _ => hex(&hmac::sign(key, format!("mark {mark}").as_bytes()).as_ref()[..8]),
    }
}

impl Key {
    fn blind(&self, mark: &str) -> String {
        blind(&self.signing, mark)
    }

    fn new(made: Moment) -> Self {
        let (id, secret) = (hex(&random()[..4]), hex(&random()));
        Self::of(id, made, secret)
    }

    fn of(id: String, made: Moment, secret: String) -> Self {
        Self {
            id,
            made,
            signing: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            secret: Secret::new(secret),
        }
    }

    fn read(line: Line) -> Option<Self> {
        // A short one would be guessed.
        (line.secret.len() == 64).then(|| Self::of(line.id, line.made, line.secret))
    }

    fn line(&self) -> String {
        let line = Line {
            id: self.id.clone(),
            made: self.made,
            secret: self.secret.expose().to_owned(),
        };
        serde_json::to_string(&line).expect("texts and numbers are JSON")
    }
}
