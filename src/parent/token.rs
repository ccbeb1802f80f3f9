//! Tokens: fetched once however many need one, kept as long as they hold.
//!
//! Lifetimes run from receipt, on a clock that nobody sets: what a token says of its own time is
//! not looked at, for the clocks of a plant are not to be relied on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use moka::future::Cache;
use serde::Deserialize;
use url::Url;

use super::error::Error;
use crate::units::{Clock, Secret};

/// A token that does not say how long it holds, holds so long (token specification).
const LIFETIME_BY_DEFAULT: Duration = Duration::from_secs(60);

/// None is kept longer, whatever it says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// So many are kept; those that are not used leave first.
const MOST_TOKENS: u64 = 4096;

/// What a token was fetched for, from a service that was found trustworthy.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Purpose {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    /// Separated by blanks.
    pub(super) scope: String,
}

impl Purpose {
    /// The URL that gives such a token out.
    pub(super) fn url(&self) -> Url {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scope.split_ascii_whitespace() {
                query.append_pair("scope", scope);
            }
        }
        url
    }
}

/// A token in use. Two are equal only if they are the same one.
#[derive(Clone, Debug)]
pub(super) struct Token(Arc<Issued>);

#[derive(Debug)]
struct Issued {
    /// `Bearer ...`, marked sensitive, so that it is not printed.
    header: HeaderValue,
    /// A little before it expires.
    until: Instant,
    serial: Serial,
}

/// The order in which tokens were issued.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Serial(u64);

impl Token {
    pub(super) fn header(&self) -> HeaderValue {
        self.0.header.clone()
    }

    /// Whether it was fetched after `moment`.
    pub(super) fn is_newer_than(&self, moment: Serial) -> bool {
        self.0.serial > moment
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The tokens of one upstream and its one login.
#[derive(Debug)]
pub(super) struct Tokens {
    kept: Cache<Purpose, Result<Token, Error>>,
    issued: AtomicU64,
    clock: Clock,
}

impl Tokens {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            kept: Cache::new(MOST_TOKENS),
            issued: AtomicU64::new(0),
            clock,
        }
    }

    /// The moment, in the order of tokens.
    pub(super) fn moment(&self) -> Serial {
        Serial(self.issued.load(Ordering::SeqCst))
    }

    /// A token that holds and is not `refused`: from memory, or by `fetch`, of which only one
    /// runs at a time for a purpose. Those who wait for it share its failure; the next caller
    /// fetches anew.
    pub(super) async fn get(
        &self,
        purpose: Purpose,
        refused: Option<&Token>,
        fetch: impl Future<Output = Result<Grant, Error>>,
    ) -> Result<Token, Error> {
        let is_used_up = |kept: &Result<Token, Error>| match kept {
            Ok(token) => token.0.until <= self.clock.now() || refused.is_some_and(|other| other.is(token)),
            Err(_) => true,
        };
        let issue = async { fetch.await.map(|grant| self.issue(grant)) };
        self.kept
            .entry(purpose)
            .or_insert_with_if(issue, is_used_up)
            .await
            .into_value()
    }

    fn issue(&self, grant: Grant) -> Token {
        // Renewed a little ahead, so that none expires on its way.
        let ahead = (grant.lifetime / 10).min(Duration::from_secs(30));
        Token(Arc::new(Issued {
            header: grant.header,
            until: self.clock.now() + (grant.lifetime - ahead),
            serial: Serial(self.issued.fetch_add(1, Ordering::SeqCst) + 1),
        }))
    }
}

/// What a token service gave out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Grant {
    header: HeaderValue,
    lifetime: Duration,
    /// To be used instead of the password, if the service gave one.
    pub(super) refresh: Option<Secret>,
}

impl Grant {
    /// From the body of its answer; `None` if there is no token in it.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let token = text(answer.token).or_else(|| text(answer.access_token))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        let seconds = answer.expires_in.as_ref().and_then(seconds);
        let lifetime = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(LIFETIME_BY_DEFAULT);
        Some(Self {
            header,
            lifetime: lifetime.min(LONGEST_LIFETIME),
            refresh: text(answer.refresh_token).map(Secret::from),
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    // Whatever they are: an odd value must not cost the token.
    token: Option<serde_json::Value>,
    access_token: Option<serde_json::Value>,
    refresh_token: Option<serde_json::Value>,
    expires_in: Option<serde_json::Value>,
}

fn text(value: Option<serde_json::Value>) -> Option<String> {
    match value {
        Some(serde_json::Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// As a number, or as some write it, in quotes.
fn seconds(value: &serde_json::Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn purpose(scope: &str) -> Purpose {
        Purpose {
            realm: Url::parse("https://auth.example/token?x=1").unwrap(),
            service: Some("a service".to_owned()),
            scope: scope.to_owned(),
        }
    }

    fn grant(lifetime_s: u64) -> Grant {
        Grant::parse(format!(r#"{{"token":"t","expires_in":{lifetime_s}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn each_scope_is_asked_for_by_itself() {
        assert_eq!(
            purpose("repository:a:pull repository:b:pull").url().as_str(),
            "https://auth.example/token?x=1&service=a+service&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
        );
    }

    #[test]
    fn either_name_of_the_token_is_understood_and_the_lifetime_has_a_default() {
        let lifetime_s = |body: &str| Grant::parse(body.as_bytes()).map(|grant| grant.lifetime.as_secs());

        assert_eq!(lifetime_s(r#"{"token":"t"}"#), Some(60));
        assert_eq!(
            lifetime_s(r#"{"token":"","access_token":"t","expires_in":300}"#),
            Some(300)
        );
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":"soon"}"#), Some(60));
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":"300"}"#), Some(300));
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":0}"#), Some(0));
        assert_eq!(
            lifetime_s(r#"{"token":"t","expires_in":"NaN","refresh_token":5}"#),
            Some(60)
        );
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":-4}"#), Some(60));
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":1e300}"#), Some(60));
        assert_eq!(lifetime_s(r#"{"token":"t","expires_in":1e9}"#), Some(86400));
        assert_eq!(lifetime_s(r#"{"token":"a\nb"}"#), None);
        assert_eq!(lifetime_s(r#"{"errors":[]}"#), None);
        assert_eq!(lifetime_s("<html>"), None);
    }

    #[test]
    fn a_token_is_not_printed() {
        let grant = Grant::parse(br#"{"token":"canary"}"#).unwrap();

        assert!(!format!("{grant:?}").contains("canary"));
    }

    #[tokio::test]
    async fn twenty_who_need_a_token_cause_one_fetch() {
        let tokens = Tokens::new(Clock::system());
        let fetches = AtomicUsize::new(0);
        let fetch = || async {
            fetches.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(grant(60))
        };

        let all = (0..20).map(|_| tokens.get(purpose("s"), None, fetch()));
        let all = futures_util::future::join_all(all).await;

        assert!(all.iter().all(Result::is_ok));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_wait_and_forgotten_by_the_next() {
        let tokens = Tokens::new(Clock::system());
        let fetches = AtomicUsize::new(0);
        let fail = || async {
            fetches.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Err(Error::Absent { layer: String::new() })
        };

        let all = (0..20).map(|_| tokens.get(purpose("s"), None, fail()));
        let all = futures_util::future::join_all(all).await;
        let next = tokens.get(purpose("s"), None, async { Ok(grant(60)) }).await;

        assert!(all.iter().all(Result::is_err));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert!(next.is_ok());
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once_for_all_who_met_the_refusal() {
        let tokens = Tokens::new(Clock::system());
        let old = tokens.get(purpose("s"), None, async { Ok(grant(60)) }).await.unwrap();
        let moment = tokens.moment();

        let new = tokens
            .get(purpose("s"), Some(&old), async { Ok(grant(60)) })
            .await
            .unwrap();
        let late = tokens
            .get(purpose("s"), Some(&old), async { panic!("fetched again") })
            .await
            .unwrap();

        assert!(!new.is(&old) && late.is(&new));
        assert!(new.is_newer_than(moment) && !old.is_newer_than(moment));
    }

    #[tokio::test]
    async fn a_token_is_renewed_a_tenth_before_its_end() {
        let (clock, hand) = Clock::manual();
        let tokens = Tokens::new(clock);
        let first = tokens.get(purpose("s"), None, async { Ok(grant(60)) }).await.unwrap();

        hand.advance(Duration::from_secs(53));
        let kept = tokens.get(purpose("s"), None, async { Ok(grant(60)) }).await.unwrap();
        hand.advance(Duration::from_secs(1));
        let renewed = tokens.get(purpose("s"), None, async { Ok(grant(60)) }).await.unwrap();

        assert!(kept.is(&first));
        assert!(!renewed.is(&first));
    }

    #[tokio::test]
    async fn a_fetch_that_is_given_up_is_taken_over() {
        let tokens = Tokens::new(Clock::system());
        let never = tokens.get(purpose("s"), None, std::future::pending());
        let second = tokens.get(purpose("s"), None, async { Ok(grant(60)) });

        // The leader's budget ends while another waits.
        let leader = tokio::time::timeout(Duration::from_millis(10), never);
        let (leader, second) = tokio::join!(leader, second);

        assert!(leader.is_err());
        assert!(second.is_ok());
    }
}
