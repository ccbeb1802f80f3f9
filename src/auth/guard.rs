//! Finds out who asks, and gives out what they need not say it every time for.

mod change;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::attempts::Attempts;
use super::bearer::{Claims, Keys, Kind, Opened};
use super::identity::{Identity, Table, certificate_mark};
use super::password::{Password, random};
use super::principal::{How, Principal};
use super::tokens::Tokens;
use super::{Actions, Config, Metrics, Peer};
use crate::store::{self, Store};
use crate::units::{Clock, Moment, Secret};

/// How long a password that was right is remembered by its hash.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Logins and tokens that are remembered.
const MOST: usize = 10_000;
/// Bytes of the longest token that is remembered: clients have one for a repository or two.
const LONGEST_SEEN: usize = 1 << 10;
/// A clock may be set back by so many seconds, and logins go on.
const SKEW: u64 = 60 * 60;
/// How long a login waits for others to be hashed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether one is known by now who comes when too many are looked at.
const CROWDED: Duration = Duration::from_secs(1);
/// bcrypt takes a whole core for each.
const HASHING: usize = 2;

/// What a request says of who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// `Authorization`, as it came.
    pub authorization: Option<&'a str>,
    /// The certificate that the connection was made with.
    pub peer: Option<&'a Peer>,
    /// Where it comes from.
    pub remote: Option<IpAddr>,
}

impl Credentials<'_> {
    /// The name beside the password, whether or not it is theirs.
    pub fn claimed(&self) -> Option<String> {
        match Scheme::read(self.authorization?) {
            Scheme::Basic(name, _) => Some(name),
            _ => None,
        }
    }
}

/// Why nobody knows who asks.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Stranger {
    /// A wrong name, a wrong password, or one that is over: which of these is told to nobody.
    #[error("the credentials are not known here, or are no longer good; log in anew, or ask the operator of this node")]
    Unknown,

    /// A token that is over, was made by another node, or whose password was replaced.
    #[error("the token is not good here, or no longer; ask for another one")]
    Token,

    /// Too many failures from there, for that name or for all.
    #[error("too many failed logins from this address; wait a while")]
    TooMany,
}

/// What is given out for a login.
#[derive(Debug)]
pub struct Issued {
    /// Good for what was asked for and is granted.
    pub access: Secret,
    /// Good for further ones.
    pub refresh: Option<Secret>,
    /// How long the first is good.
    pub ttl: Duration,
    /// When.
    pub at: Moment,
}

/// Who logged in, and by what.
pub struct Login {
    principal: Principal,
    mark: String,
    lasting: Lasting,
}

/// How long what is given out for further logins may be good: bounded by when the password itself was last shown.
#[derive(Clone, Copy)]
enum Lasting {
    /// It was shown just now.
    Anew,
    /// It was shown before; what was given out for it then ends at this moment, and so does what is given out for that.
    Until(Moment),
    /// A certificate is shown each time.
    Never,
}

/// One for a node; cheap to clone.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    table: ArcSwap<Table>,
    /// What the table was made of. Held while it is made anew, and not while the disk is waited for.
    source: Mutex<Source>,
    /// Held while the disk is waited for; taken before `source`.
    writing: Mutex<()>,
    /// What holds is not what is on the disk.
    is_behind: AtomicBool,
    store: Store,
    keys: Arc<Keys>,
    /// Tokens that were looked at, by their last bytes, which nobody can choose.
    seen: RwLock<HashMap<u64, Arc<Seen>, BuildHasherDefault<Itself>>>,
    /// Passwords that were right, by a hash that means nothing outside this process.
    right: Cache<[u8; 32], ()>,
    right_key: hmac::Key,
    hashing: Arc<Semaphore>,
    attempts: Attempts,
    clock: Clock,
    metrics: Metrics,
}

struct Source {
    config: Config,
    tokens: Tokens,
    /// Of the last change.
    number: u64,
}

/// A token that was looked at.
struct Seen {
    text: String,
    /// Whoever it was then.
    table: Arc<Table>,
    principal: Principal,
    /// Until then it need not be looked at again, as long as the table is that.
    until: Moment,
}

/// A number that is its own hash: the end of a MAC, which nobody can choose.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What an `Authorization` is.
enum Scheme<'a> {
    Basic(String, Secret),
    Bearer(&'a str),
    Other,
}

impl Guard {
    /// Of the settings, and of those tokens that the store has. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Store::kept`].
    pub fn new(config: Config, store: &Store, clock: Clock, metrics: Metrics) -> Result<Self, store::Error> {
        let tokens = Tokens::load(store)?;
        let table = Table::new(&config, tokens.all());
        let keys = Keys::load(store.clone())?;
        if config.is_on {
            keys.begin(clock.wall().into());
        }
        Ok(Self {
            shared: Arc::new(Shared {
                table: ArcSwap::from_pointee(table),
                source: Mutex::new(Source {
                    config,
                    tokens,
                    number: 0,
                }),
                writing: Mutex::default(),
                is_behind: AtomicBool::new(false),
                store: store.clone(),
                keys: keys.into(),
                seen: RwLock::default(),
                right: Cache::builder()
                    .max_capacity(MOST as u64)
                    .time_to_live(REMEMBERED)
                    .build(),
                right_key: hmac::Key::new(hmac::HMAC_SHA256, &random()),
                hashing: Arc::new(Semaphore::new(HASHING)),
                attempts: Attempts::default(),
                clock,
                metrics,
            }),
        })
    }

    /// Whether anybody is asked who they are.
    pub fn is_on(&self) -> bool {
        self.shared.table.load().is_on
    }

    /// From now on other settings hold, for every request that is looked at from here on: who there is and what they may at once.
    /// Blocks.
    pub fn reconfigure(&self, config: Config) {
        if config.is_on {
            self.shared.keys.begin(self.shared.clock.wall().into());
        }
        let mut source = self.shared.source.lock();
        source.config = config;
        self.shared.renew(&mut source);
    }

    /// Who asks.
    ///
    /// # Errors
    ///
    /// [`Stranger`]. Takes seconds where many logins failed.
    pub async fn identify(&self, credentials: &Credentials<'_>) -> Result<Principal, Stranger> {
        match self.identify_at_once(credentials) {
            Some(outcome) => outcome,
            None => self.log_in(credentials).await.map(|login| login.principal),
        }
    }

    /// The same where no password has to be looked at; `None` where one has.
    pub fn identify_at_once(&self, credentials: &Credentials<'_>) -> Option<Result<Principal, Stranger>> {
        let table = self.shared.table.load();
        if !table.is_on {
            return Some(Ok(Principal::anonymous(table.anonymous.clone())));
        }
        let Some(authorization) = credentials.authorization else {
            let now = self.shared.clock.wall();
            return Some(Ok(self.shared.unsaid(&table, credentials.peer, now).principal));
        };
        match Scheme::read(authorization) {
            Scheme::Bearer(token) => Some(
                self.shared
                    .bearer(&table, token)
                    .inspect_err(|_| self.shared.metrics.failed("token")),
            ),
            Scheme::Basic(..) => None,
            Scheme::Other => Some(Err(Stranger::Unknown)),
        }
    }

    /// Who asks for a token: by a password, a certificate, or as nobody.
    ///
    /// # Errors
    ///
    /// [`Stranger`].
    pub async fn log_in(&self, credentials: &Credentials<'_>) -> Result<Login, Stranger> {
        match credentials.authorization.map(Scheme::read) {
            Some(Scheme::Basic(name, password)) => self.log_in_as(&name, &password, credentials.remote).await,
            Some(_) => Err(Stranger::Unknown),
            None => {
                let table = self.shared.table.load();
                Ok(self.shared.unsaid(&table, credentials.peer, self.shared.clock.wall()))
            }
        }
    }

    /// The same by a name and a password.
    ///
    /// # Errors
    ///
    /// [`Stranger`].
    pub async fn log_in_as(&self, name: &str, password: &Secret, from: Option<IpAddr>) -> Result<Login, Stranger> {
        let shared = &self.shared;
        if let Some(login) = shared.remembered(name, password) {
            return Ok(login);
        }
        let attempt = match from.map(|from| shared.attempts.begin(from, name, shared.clock.now())) {
            Some(None) => {
                // Where many start at once with one password, the first of them is known before long.
                for _ in 0..PATIENCE.as_secs() / CROWDED.as_secs() {
                    tokio::time::sleep(CROWDED).await;
                    if let Some(login) = shared.remembered(name, password) {
                        return Ok(login);
                    }
                }
                shared.metrics.failed("too-many");
                return Err(Stranger::TooMany);
            }
            Some(Some(attempt)) => Some(attempt),
            None => None,
        };
        if let Some(attempt) = attempt.as_ref().filter(|attempt| !attempt.wait.is_zero()) {
            tokio::time::sleep(attempt.wait).await;
            if let Some(login) = shared.remembered(name, password) {
                return Ok(login);
            }
        }
        let login = shared.compare(name, password).await?;
        if login.is_none() {
            shared.metrics.failed("password");
            if let Some(attempt) = &attempt {
                attempt.failed(shared.clock.now());
            }
        }
        login.ok_or(Stranger::Unknown)
    }

    /// The same by a token that was given out for this.
    ///
    /// # Errors
    ///
    /// [`Stranger::Token`].
    pub fn log_in_again(&self, refresh: &Secret) -> Result<Login, Stranger> {
        let (table, now) = (self.shared.table.load(), self.shared.clock.wall());
        let opened = self.shared.keys.open(refresh.expose());
        let opened = opened.filter(|opened| opened.claims.kind == Kind::Refresh);
        let login = opened.and_then(|opened| {
            let (identity, mark) = self.shared.still_holds(&table, &opened, now)?;
            Some(Login {
                principal: Principal::of(identity.as_ref()?, How::Password),
                mark,
                lasting: Lasting::Until(opened.claims.expires),
            })
        });
        login.ok_or_else(|| {
            self.shared.metrics.failed("token");
            Stranger::Token
        })
    }

    /// Gives out tokens. `access`: repositories in the spelling of this node, and what is wanted of each; of that, what may be done is
    /// granted. `lasting`: whether one for further logins is wanted too, which who showed a password gets.
    pub fn issue(&self, login: &Login, access: Vec<(String, Actions)>, catalog: bool, lasting: bool) -> Issued {
        let table = self.shared.table.load();
        let (now, is_set) = (Moment::from(self.shared.clock.wall()), self.shared.clock.is_set());
        let after = |ttl: Duration| Moment::at(now.seconds() + ttl.as_secs());
        let claims = |kind, expires, access| Claims {
            kind,
            subject: login.principal.name().to_owned(),
            mark: login.mark.clone(),
            expires,
            access,
            catalog,
        };
        let granted = access.into_iter().filter_map(|(name, wanted)| {
            let granted = wanted & login.principal.on(&name);
            (!granted.is_empty()).then(|| (name, granted.bits()))
        });
        let access = claims(Kind::Access, after(table.token_ttl), granted.collect());
        let ends = match login.lasting {
            Lasting::Anew => Some(after(table.refresh_ttl)),
            Lasting::Until(end) => Some(end.min(after(table.refresh_ttl))),
            Lasting::Never => None,
        };
        let refresh = ends
            .filter(|_| lasting)
            .map(|ends| claims(Kind::Refresh, ends, Vec::new()));
        Issued {
            access: self.shared.keys.seal(access, now, is_set),
            refresh: refresh.map(|refresh| self.shared.keys.seal(refresh, now, is_set)),
            ttl: table.token_ttl,
            at: now,
        }
    }
}

impl Shared {
    fn renew(&self, source: &mut Source) {
        source.number += 1;
        self.table
            .store(Arc::new(Table::new(&source.config, source.tokens.all())));
        self.seen.write().clear();
    }

    /// Who asks without saying anything: whose certificate it is, or nobody.
    fn unsaid(&self, table: &Table, peer: Option<&Peer>, now: SystemTime) -> Login {
        match peer.and_then(|peer| table.certified(peer, now)) {
            Some((identity, name)) => Login {
                principal: Principal::of(identity, How::Certificate),
                mark: certificate_mark(name),
                lasting: Lasting::Never,
            },
            None => Login {
                principal: Principal::anonymous(table.anonymous.clone()),
                mark: String::new(),
                lasting: Lasting::Never,
            },
        }
    }

    fn bearer(&self, table: &Arc<Table>, text: &str) -> Result<Principal, Stranger> {
        let wall = self.clock.wall();
        let now = Moment::from(wall);
        let key = text
            .as_bytes()
            .last_chunk()
            .copied()
            .map(u64::from_le_bytes)
            .ok_or(Stranger::Token)?;
        let seen = self.seen.read().get(&key).cloned();
        if let Some(seen) = seen
            && seen.text == text
            && Arc::ptr_eq(&seen.table, table)
            && now < seen.until
        {
            return Ok(seen.principal.clone());
        }
        let opened = self.keys.open(text).filter(|opened| opened.claims.kind == Kind::Access);
        let opened = opened.ok_or(Stranger::Token)?;
        let (identity, _) = self.still_holds(table, &opened, wall).ok_or(Stranger::Token)?;
        let claims = opened.claims;
        let access = claims.access.iter();
        let within = access
            .map(|(name, bits)| (name.as_str().into(), Actions::of_bits(*bits)))
            .collect();
        let principal = match &identity {
            Some(identity) => Principal::of(identity, How::Token),
            None => Principal::anonymous(table.anonymous.clone()),
        };
        let principal = principal.within(within, claims.catalog);
        // What ends by itself in between is looked at anew every moment.
        let until = Moment::at(claims.expires.seconds().min(now.seconds() + 1));
        // Anybody may have as many made as they like, each as long as its scopes.
        if text.len() > LONGEST_SEEN {
            return Ok(principal);
        }
        let mut all = self.seen.write();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(
            key,
            Arc::new(Seen {
                text: text.to_owned(),
                table: table.clone(),
                principal: principal.clone(),
                until,
            }),
        );
        Ok(principal)
    }

    /// Whether what was signed still holds, for whom, and by what they are known; nobody: for nobody in particular.
    fn still_holds(&self, table: &Table, opened: &Opened, now: SystemTime) -> Option<(Option<Arc<Identity>>, String)> {
        let claims = &opened.claims;
        let ttl = match claims.kind {
            Kind::Access => table.token_ttl,
            Kind::Refresh => table.refresh_ttl,
        };
        // What ends later than anything that is given out now was given out by a clock that went back since.
        let latest = Moment::from(now).seconds() + ttl.as_secs() + SKEW;
        if claims.expires.is_past(now) || claims.expires.seconds() > latest {
            return None;
        }
        if claims.subject.is_empty() {
            return Some((None, String::new()));
        }
        let identity = table.find(&claims.subject, now)?;
        let mark = identity.marks(now).find(|mark| opened.is_for(mark))?;
        Some((Some(identity.clone()), mark))
    }

    /// Whose the password is, if it was right lately and is still theirs.
    fn remembered(&self, name: &str, password: &Secret) -> Option<Login> {
        let (table, now) = (self.table.load(), self.clock.wall());
        let identity = table.find(name, now)?;
        let mut marks = identity.valid_passwords(now).map(|candidate| candidate.verifier.mark());
        let right = marks.find(|mark| {
            let tag = self.tag(name, password, mark);
            self.right.contains_key(&tag)
        });
        right.map(|mark| Login {
            principal: Principal::of(identity, How::Password),
            mark,
            lasting: Lasting::Anew,
        })
    }

    /// Whose the password is. Takes as long for who does not exist.
    async fn compare(&self, name: &str, password: &Secret) -> Result<Option<Login>, Stranger> {
        let (table, now) = (self.table.load_full(), self.clock.wall());
        let identity = table.find(name, now).cloned();
        let theirs = identity.iter().flat_map(|identity| identity.valid_passwords(now));
        let (quick, slow): (Vec<Password>, Vec<Password>) =
            theirs.cloned().partition(|candidate| candidate.verifier.is_quick());
        let found = match (matching(&quick, password), slow.is_empty()) {
            (Some(mark), _) => Some(mark),
            (None, false) => {
                let turn = self.turn().await?;
                // Another with the same password may have had one before.
                if let Some(login) = self.remembered(name, password) {
                    return Ok(Some(login));
                }
                Self::hashed(turn, slow, password).await
            }
            (None, true) => {
                // Who does not exist takes as long as who does, and so does who has nothing that takes long.
                let decoy: Vec<Password> = table.decoy.iter().cloned().collect();
                if !decoy.is_empty() {
                    Self::hashed(self.turn().await?, decoy, password).await;
                }
                None
            }
        };
        let Some((mark, identity)) = found.zip(identity) else {
            return Ok(None);
        };
        self.right.insert(self.tag(name, password, &mark), ());
        Ok(Some(Login {
            principal: Principal::of(&identity, How::Password),
            mark,
            lasting: Lasting::Anew,
        }))
    }

    /// A turn at what takes a core for long.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Stranger> {
        // Whoever comes when there are too many of them is not kept waiting for all.
        let turn = tokio::time::timeout(PATIENCE, self.hashing.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            self.metrics.failed("too-many");
            return Err(Stranger::TooMany);
        };
        Ok(turn)
    }

    /// The mark of the one that it is, of those that take long: beside the runtime.
    async fn hashed(turn: OwnedSemaphorePermit, candidates: Vec<Password>, password: &Secret) -> Option<String> {
        let password = password.clone();
        let matching = tokio::task::spawn_blocking(move || {
            // Held for as long as a core is, though whoever asked may have left.
            let _turn = turn;
            matching(&candidates, &password)
        });
        matching.await.ok().flatten()
    }

    fn tag(&self, name: &str, password: &Secret, mark: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.right_key);
        for part in [name, mark, password.expose()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The mark of the one that it is.
fn matching(candidates: &[Password], password: &Secret) -> Option<String> {
    let found = candidates
        .iter()
        .find(|candidate| candidate.verifier.verify(password.expose()));
    found.map(|found| found.verifier.mark())
}

impl Login {
    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl<'a> Scheme<'a> {
    fn read(authorization: &'a str) -> Self {
        let text = authorization.trim_ascii();
        let Some(end) = text.bytes().position(|byte| byte == b' ') else {
            return Self::Other;
        };
        let (scheme, rest) = (&text[..end], text[end..].trim_ascii());
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest);
        }
        let basic = || {
            let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (name, password) = text.split_once(':')?;
            Some(Self::Basic(name.to_owned(), Secret::new(password)))
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return basic().unwrap_or(Self::Other);
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use prometheus::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::units::{Hands, Size};

    const DAY: Duration = Duration::from_secs(86_400);

    fn guard(folder: &TempDir, settings: &str) -> (Guard, Hands) {
        let config = store::Config {
            path: folder.path().join("data"),
            capacity: Size::gib(1),
            ..store::Config::default()
        };
        let store = Store::open(&config, store::Metrics::new(&Registry::new()).unwrap()).unwrap();
        let (clock, hands) = Clock::manual();
        let metrics = Metrics::new(&Registry::new()).unwrap();
        (Guard::new(read(settings), &store, clock, metrics).unwrap(), hands)
    }

    fn read(settings: &str) -> Config {
        let mut table: toml::Table = settings.parse().unwrap();
        let mut list = |key: &str| table.remove(key).unwrap_or(toml::Value::Array(Vec::new()));
        let (identities, permissions) = (list("identity"), list("permission"));
        Config::new(
            None,
            identities.try_into().unwrap(),
            permissions.try_into().unwrap(),
            false,
        )
    }

    fn identity(password: &str, actions: &str) -> String {
        let hash = bcrypt::hash(password, 4).unwrap();
        format!(
            "[[identity]]\nname = \"ada\"\npassword_hashes = [\"{hash}\"]\n\
             [[permission]]\nidentities = [\"ada\"]\nrepositories = [\"*\"]\nactions = [\"{actions}\"]\n"
        )
    }

    async fn log_in(guard: &Guard, password: &str) -> Login {
        guard.log_in_as("ada", &Secret::new(password), None).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_given_out_for_further_logins_ends_a_while_after_the_password_however_often_it_is_renewed() {
        let folder = TempDir::new().unwrap();
        let (guard, hands) = guard(&folder, &identity("secret", "pull"));
        let lasting = |login: &Login| guard.issue(login, Vec::new(), false, true).refresh.unwrap();
        let mut refresh = lasting(&log_in(&guard, "secret").await);

        for _ in 0..29 {
            hands.advance(DAY);
            refresh = lasting(&guard.log_in_again(&refresh).unwrap());
        }
        hands.advance(DAY);

        assert!(matches!(guard.log_in_again(&refresh), Err(Stranger::Token)));
        let again = lasting(&log_in(&guard, "secret").await);
        assert!(guard.log_in_again(&again).is_ok());
    }

    #[tokio::test]
    async fn no_request_is_judged_by_new_identities_and_old_permissions() {
        let folder = TempDir::new().unwrap();
        let (old, new) = (read(&identity("old", "all")), read(&identity("new", "pull")));
        let (guard, _hands) = guard(&folder, &identity("old", "all"));
        let all = log_in(&guard, "old").await.principal.on("a");
        let over = Arc::new(AtomicBool::new(false));
        let (swapped, ended) = (guard.clone(), over.clone());
        let swapping = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                swapped.reconfigure(new.clone());
                swapped.reconfigure(old.clone());
            }
        });

        let mut seen = [0, 0];
        for _ in 0..200 {
            for (index, password) in ["old", "new"].into_iter().enumerate() {
                let login = guard.log_in_as("ada", &Secret::new(password), None).await;
                let Ok(login) = login else { continue };
                seen[index] += 1;
                assert_eq!(login.principal.on("a") == all, password == "old");
            }
        }

        over.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}
