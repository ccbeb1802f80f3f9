//! Requests that hide behind others, hundreds of them behind each early answer; and clients that dawdle.
//!
//! Whether there is a second request is for hyper to say, which is fed the same bytes; how many answers there are, for
//! httparse. What a node asks its parent for is read on the wire between them.

/// First requests behind which another one hides.
mod corpus;
/// Five hundred that never come to an end.
mod dawdlers;
/// The answers that a node has before it looks at a body.
mod early;
/// What a node sends to its parent.
mod tap;
/// How many requests there were, and how many answers.
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::corpus::{Case, End, corpus};
use self::early::{Early, Stage};
use self::verdict::{Answer, answers, asked};
use crate::support::authority::Authority;
use crate::support::client::Client;

/// Connections at a time. Most of them wait until the other side has waited for long enough.
const TOGETHER: usize = 400;

/// Nothing here may take longer: a body that does not come is waited for for five seconds, and then for an end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fields that a node sends upwards; a length is always none.
const FIELDS: [&str; 6] = [
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "via",
    "content-length",
];

/// Where a node offers an upload, to learn whether pushes are taken.
const OFFERED: &str = "/v2/open/a/blobs/uploads/";

/// When the second request is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// In the same breath.
    AtOnce,
    /// Like the body of the first, which comes after the answer, or when none comes for a while.
    Within,
    /// After the first answer, or when none comes for a while.
    After,
}

/// What came of one exchange.
struct Outcome {
    bytes: Vec<u8>,
    is_closed: bool,
}

/// One exchange of the many.
#[derive(Clone)]
struct Attempt {
    case: Arc<Case>,
    early: Early,
    manner: Manner,
    /// No other has it.
    number: usize,
}

/// What came of many.
#[derive(Default)]
struct Tally {
    /// By class and answer: those with one answer, and those with two.
    counted: BTreeMap<(&'static str, &'static str), [usize; 2]>,
    /// Status of the first answer.
    statuses: BTreeMap<(&'static str, u16), usize>,
    wrong: Vec<String>,
    /// Repositories of second requests that were answered, rightly.
    second: Vec<String>,
}

impl Attempt {
    fn repository(&self, role: &str) -> String {
        format!("smuggled/{role}{}", self.number)
    }

    fn hidden(&self, role: &str, field: &str) -> String {
        let target = format!("/v2/{}/manifests/v1", self.repository(role));
        format!("GET {target} HTTP/1.1\r\nHost: x\r\n{field}\r\n")
    }

    /// The first request and the second.
    fn requests(&self, stage: &Stage) -> (Vec<u8>, Vec<u8>) {
        let target = stage.target(self.early);
        let first = self.case.bytes(self.early, &target, &self.hidden("bait", ""));
        (first, self.hidden("second", "Connection: close\r\n").into_bytes())
    }

    /// After how many bytes there is a pause.
    fn pause(&self, first: &[u8]) -> Option<usize> {
        let bait = self.hidden("bait", "");
        match self.manner {
            Manner::AtOnce => None,
            Manner::Within => first.windows(bait.len()).position(|bytes| bytes == bait.as_bytes()),
            Manner::After => Some(first.len()),
        }
    }

    /// How many answers there were.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    async fn judge(&self, first: &[u8], second: &[u8], outcome: &Outcome) -> Result<Vec<Answer>, String> {
        let is_head = first.trim_ascii_start().starts_with(b"HEAD ");
        let given = match answers(&outcome.bytes, is_head) {
            // Who could not read a request does not know that it was a HEAD.
            Err(_) if is_head => answers(&outcome.bytes, false).ok().filter(|given| is_last_word(given)),
            given => Some(given?),
        };
        let given = given.ok_or_else(|| format!("no answer: {:?}", outcome.bytes.escape_ascii().to_string()))?;
        if !outcome.is_closed {
            return Err("the connection is left open".to_owned());
        }
        let status = given.first().ok_or("there is no answer")?.status;
        let hyper = asked(&[first, second].concat()).await;
        let target = format!("/v2/{}/manifests/v1", self.repository("second"));
        let is_separate = matches!(&hyper[..], [first, second] if first.whole && second.target == target);
        if given.len() > 1 && !(is_separate && self.case.end == End::Clear && given.len() == 2) {
            return Err(format!("{} answers, and hyper saw {hyper:?}", given.len()));
        }
        if let Some(answer) = given.get(1) {
            let is_its_own = String::from_utf8_lossy(&answer.body).contains(&self.repository("second"));
            if answer.status != 404 || !is_its_own {
                return Err(format!("the second answer is another's: {answer:?}"));
            }
        }
        // What is wrong with a body may be found out when the answer has left.
        let is_refusal = status >= 400 || self.case.class == "D4";
        if status >= 500 || (self.case.end == End::Doubtful && !is_refusal) {
            return Err(format!("answered {status}"));
        }
        Ok(given)
    }
}

/// One refusal, with which the connection ends.
fn is_last_word(given: &[Answer]) -> bool {
    matches!(given, [answer] if answer.closes && [400, 431].contains(&answer.status))
}

/// Writes all of it, with a pause at one place until there is an answer or none comes for a while, and reads to the end, which
/// must come.
async fn exchange(stream: impl AsyncRead + AsyncWrite, all: &[u8], pause: Option<usize>) -> Outcome {
    let (mut read, mut write) = tokio::io::split(stream);
    let (mut bytes, answered) = (Vec::new(), Notify::new());
    let reading = async {
        loop {
            match timeout(Duration::from_millis(30), read.read_buf(&mut bytes)).await {
                Ok(Ok(1..)) => {}
                // Closed, or reset: it may have been closed over bytes that nobody read.
                Ok(_) => break,
                Err(_) if !bytes.is_empty() => answered.notify_one(),
                Err(_) => {}
            }
        }
    };
    let writing = async {
        let (before, behind) = all.split_at(pause.unwrap_or(0));
        if pause.is_some() {
            // The other side may answer and close before it has all.
            let _ = write.write_all(before).await;
            let _ = write.flush().await;
            let _ = timeout(Duration::from_millis(500), answered.notified()).await;
        }
        let _ = write.write_all(behind).await;
        let _ = write.flush().await;
    };
    let both = timeout(PATIENCE, async { tokio::join!(reading, writing) });
    let is_closed = both.await.is_ok();
    Outcome { bytes, is_closed }
}

/// Tries each case with each of the answers, in each manner that makes a difference.
async fn try_all(stage: &Arc<Stage>, connector: Option<TlsConnector>, early: &[Early], manners: &[Manner]) -> Tally {
    let (mut running, room) = (JoinSet::new(), Arc::new(Semaphore::new(TOGETHER)));
    let mut number = 0;
    for case in corpus().into_iter().map(Arc::new) {
        for (early, manner) in early
            .iter()
            .flat_map(|early| manners.iter().map(move |manner| (*early, *manner)))
        {
            if manner == Manner::Within && !case.has_bait() {
                continue;
            }
            number += 1;
            let case = Arc::clone(&case);
            let attempt = Attempt {
                case,
                early,
                manner,
                number,
            };
            let (stage, connector, room) = (Arc::clone(stage), connector.clone(), Arc::clone(&room));
            running.spawn(async move {
                let _permit = room.acquire().await.unwrap();
                let (first, second) = attempt.requests(&stage);
                let (all, pause) = ([&first[..], &second].concat(), attempt.pause(&first));
                let address = stage.node.address();
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let outcome = match connector {
                    None => exchange(stream, &all, pause).await,
                    Some(connector) => {
                        let stream = connector.connect(address.ip().into(), stream).await.unwrap();
                        exchange(stream, &all, pause).await
                    }
                };
                let verdict = attempt.judge(&first, &second, &outcome).await;
                (attempt, verdict)
            });
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = running.join_next().await {
        let (attempt, verdict) = done.unwrap();
        tally.count(&attempt, verdict);
    }
    tally
}

impl Tally {
    fn count(&mut self, attempt: &Attempt, verdict: Result<Vec<Answer>, String>) {
        let Attempt {
            case, early, manner, ..
        } = attempt;
        match verdict {
            Err(words) => self.wrong.push(format!("{case}, {early:?}, {manner:?}: {words}")),
            Ok(given) => {
                let at = (case.class, early.kind());
                self.counted.entry(at).or_default()[given.len() - 1] += 1;
                *self.statuses.entry((case.class, given[0].status)).or_default() += 1;
                if given.len() == 2 {
                    self.second.push(attempt.repository("second"));
                }
            }
        }
    }

    /// Nothing was answered wrongly, and the parent was asked for nothing that hides.
    fn assert_in_step(&mut self, stage: &Stage) {
        println!("{self}");
        self.wrong.sort();
        let (count, wrong) = (self.wrong.len(), self.wrong.join("\n"));
        assert!(self.wrong.is_empty(), "{count} are wrong:\n{wrong}");
        let log = stage.node.log();
        assert!(!log.contains("smuggled/bait") && !log.contains("panicked"), "{log}");
        self.assert_sent(stage);
    }

    /// What the parent was sent are requests of ours, as many as it saw.
    fn assert_sent(&self, stage: &Stage) {
        let sent = stage.tap.sent().expect("requests, and nothing between them");
        for request in &sent {
            let path = request.path();
            let rest = path.strip_prefix("/v2/").unwrap_or_default();
            let repository = rest.strip_suffix("/manifests/v1").unwrap_or(rest);
            let is_second = self.second.iter().any(|second| second == repository);
            let is_ours = rest.is_empty() || rest.starts_with("open/") || is_second;
            let is_plain = request.fields.iter().all(|field| FIELDS.contains(&&**field));
            let is_harmless = ["GET", "HEAD"].contains(&&*request.method) || path.starts_with(OFFERED);
            assert!(is_ours && is_plain && is_harmless, "the parent was sent {request:?}");
        }
        let mut seen: Vec<String> = stage
            .parent
            .seen("", "")
            .iter()
            .map(|seen| format!("{} {}", seen.method, seen.path))
            .collect();
        let mut sent: Vec<String> = sent
            .iter()
            .map(|sent| format!("{} {}", sent.method, sent.path()))
            .collect();
        seen.sort();
        sent.sort();
        assert!(
            seen == sent,
            "the parent saw {} requests, and {} were sent",
            seen.len(),
            sent.len()
        );
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "class answer  one  two")?;
        for ((class, kind), [one, two]) in &self.counted {
            writeln!(f, "{class:5} {kind:6} {one:4} {two:4}")?;
        }
        let all: usize = self.counted.values().flatten().sum();
        writeln!(
            f,
            "{all} in step, {} wrong; first answers: {:?}",
            self.wrong.len(),
            self.statuses
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_taken_from_within_another_however_that_one_is_answered() {
    let stage = Arc::new(Stage::new(None).await);
    stage.rehearse(&stage.node.client()).await;

    let mut tally = try_all(&stage, None, &Early::ALL, &[Manner::AtOnce, Manner::After]).await;

    tally.assert_in_step(&stage);
    // A node that closed after every answer would be in step as well.
    assert!(
        tally.second.len() > 200,
        "{} second requests were answered",
        tally.second.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_after_the_answer_is_taken_for_no_request() {
    let stage = Arc::new(Stage::new(None).await);
    let early = Early::ALL
        .into_iter()
        .filter(|early| !matches!(early, Early::HitHead | Early::HitBlob));

    let mut tally = try_all(&stage, None, &early.collect::<Vec<_>>(), &[Manner::Within]).await;

    tally.assert_in_step(&stage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_taken_from_within_another_over_tls() {
    let authority = Authority::new();
    let stage = Arc::new(Stage::new(Some(&authority)).await);
    let config = authority.client(&[b"http/1.1"]);
    stage
        .rehearse(&Client::tls(stage.node.address(), Arc::clone(&config)))
        .await;

    let connector = Some(TlsConnector::from(config));
    let mut tally = try_all(&stage, connector, &[Early::Hit, Early::TooLarge], &[Manner::After]).await;

    tally.assert_in_step(&stage);
    assert!(
        tally.second.len() > 20,
        "{} second requests were answered",
        tally.second.len()
    );
}

#[test]
fn there_are_enough_cases_of_each_class_and_none_twice() {
    let cases = corpus();
    let mut named: Vec<String> = cases
        .iter()
        .map(|case| {
            case.bytes(Early::Hit, "/", "GET /bait2 HTTP/1.1\r\nHost: x\r\n\r\n")
                .escape_ascii()
                .to_string()
        })
        .collect();
    let of = |class: &str| cases.iter().filter(|case| case.class == class).count();
    let counts = ["D1", "D2", "D3", "D4"].map(of);
    println!("{} cases: {counts:?}", cases.len());

    assert!(counts.iter().all(|count| *count >= 30), "{counts:?}");
    named.sort();
    let twice: Vec<_> = named.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test]
async fn what_is_said_to_be_clear_is_so_to_hyper_and_nobody_sees_the_bait() {
    for case in corpus().iter().filter(|case| case.end == End::Clear) {
        for early in [Early::Hit, Early::TooLarge] {
            let first = case.bytes(early, "/first", "GET /bait HTTP/1.1\r\nHost: x\r\n\r\n");
            let second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n";

            let seen = asked(&[&first[..], second].concat()).await;

            let targets: Vec<&str> = seen.iter().map(|asked| &*asked.target).collect();
            assert!(matches!(targets[..], [] | [_] | [_, "/second"]), "{case}: {seen:?}");
            assert!(!targets.contains(&"/bait"), "{case}: {seen:?}");
        }
    }
}
