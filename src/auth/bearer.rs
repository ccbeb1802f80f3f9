//! What is given out for a login: short, signed, and good at this node alone.
//!
//! ```text
//! wharf1.<key>.<claims: JSON in base64url>.<HMAC-SHA256 of all before the last dot, in base64url>
//! ```
//!
//! Not a JWT, as nobody else reads it: the bearer has no say in the algorithm or the key. The claims name who logged in, with
//! which password, and what was asked for; what they may do is looked up anew at every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::password::{hex, random};
use crate::store::{self, Kept, Store};
use crate::units::{Moment, Secret, with_causes};

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
    all: RwLock<Vec<Arc<Key>>>,
    /// Held while the disk is waited for, by whoever changes `all`; taken before it.
    writing: Mutex<()>,
    /// A new one is on its way.
    is_making: AtomicBool,
    /// The newest is not on the disk.
    is_behind: AtomicBool,
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
        let read: Vec<Key> = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok().and_then(Key::read))
            .collect();
        if read.len() < lines.len() {
            let lost = lines.len() - read.len();
            tracing::warn!(
                lost,
                "keys for logins cannot be read by this version: what they signed is void"
            );
        }
        let mut all: Vec<Arc<Key>> = read.into_iter().map(Arc::new).collect();
        all.sort_by_key(|key| std::cmp::Reverse(key.made));
        Ok(Self {
            store,
            all: RwLock::new(all),
            writing: Mutex::default(),
            is_making: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
        })
    }

    /// Has there be one, before anybody logs in. Blocks.
    pub(super) fn begin(&self, now: Moment) {
        if self.all.read().is_empty() {
            self.make(now, |all| all.is_empty());
        }
    }

    /// Signs. Where the key has become too old, another one is made meanwhile, and this one signs until that is there.
    pub(super) fn seal(self: &Arc<Self>, mut claims: Claims, now: Moment, is_set: bool) -> Secret {
        // A clock that is not set, or goes back, makes no new keys: with them all logins would end.
        let is_old = move |all: &[Arc<Key>]| {
            all.first()
                .is_none_or(|key| key.made.seconds() + KEY_AGE <= now.seconds())
        };
        if is_set && is_old(&self.all.read()) && !self.is_making.swap(true, Ordering::Relaxed) {
            let this = self.clone();
            // It waits for the disk.
            tokio::task::spawn_blocking(move || {
                this.make(now, is_old);
                this.is_making.store(false, Ordering::Relaxed);
            });
        }
        let key = self.newest(now);
        claims.mark = key.blind(&claims.mark);
        let json = serde_json::to_vec(&claims).expect("texts and numbers are JSON");
        let mut text = format!("{PREFIX}{}.{}", key.id, URL_SAFE_NO_PAD.encode(json));
        let mac = hmac::sign(&key.signing, text.as_bytes());
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(mac));
        Secret::new(text)
    }

    fn newest(&self, now: Moment) -> Arc<Key> {
        loop {
            if let Some(key) = self.all.read().first() {
                return key.clone();
            }
            // Whoever asks people who they are has begun; this is for who forgot.
            self.begin(now);
        }
    }

    /// Makes one, if that is due still, and has it sign once it is on the disk; if the disk takes nothing, it is good until the node
    /// ends, and the disk is tried again.
    fn make(&self, now: Moment, is_due: impl Fn(&[Arc<Key>]) -> bool) {
        let _turn = self.writing.lock();
        let mut all = self.all.read().clone();
        if !is_due(&all) {
            return;
        }
        all.insert(0, Key::new(now).into());
        all.truncate(KEPT);
        if let Err(error) = self.keep(&all) {
            let error = with_causes(&error);
            tracing::warn!(
                error,
                "a new key for logins could not be kept: until it is, clients log in anew after a restart"
            );
        }
        *self.all.write() = all;
    }

    /// Writes down what the disk did not take at first. Blocks.
    pub(super) fn write_down(&self) {
        if self.is_behind.load(Ordering::Relaxed) {
            let _turn = self.writing.lock();
            let all = self.all.read().clone();
            if self.keep(&all).is_ok() {
                tracing::info!("the key for logins is on the disk");
            }
        }
    }

    /// Whoever calls holds `writing`.
    fn keep(&self, all: &[Arc<Key>]) -> Result<(), store::Error> {
        let lines: Vec<String> = all.iter().map(|key| key.line()).collect();
        let kept = self.store.keep(Kept::Keys, &lines);
        self.is_behind.store(kept.is_err(), Ordering::Relaxed);
        kept
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
