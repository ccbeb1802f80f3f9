//! One of many: what one client does, by mistake or on purpose, keeps no other from anything.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::client::{Client, Reply, Request, manifest};
use crate::support::content::Image;
use crate::support::node::{Node, Setup};
use crate::support::process;
use crate::support::pushing::Pusher;

const MIB: usize = 1 << 20;

async fn refused(node: &Node, limit: &str) -> u64 {
    node.metrics().await.sum("wharf_refused_total", &[("limit", limit)]) as u64
}

#[tokio::test]
async fn one_who_pushes_takes_its_share_of_uploads_and_others_push_and_pull_meanwhile() {
    let written = "[push]\nuploads = 40\nuploads_each = 5\n[auth]\n[[permission]]\nidentities = [\"anonymous\"]\n\
        repositories = [\"open/*\"]\nactions = [\"push\"]\n";
    let node = Setup::alone().registry().more(written).start().await;
    let (greedy, other) = (
        node.token("greedy", &["*:all"]).await,
        node.token("other", &["*:all"]).await,
    );
    let of = |name: &str| Pusher::of(greedy.client(&node), name);
    let open = async |pushers: Vec<Pusher>, status: u16| {
        let begun = join_all(pushers.iter().map(|pusher| pusher.begin(""))).await;
        let (opened, refused): (Vec<Reply>, Vec<Reply>) = begun.into_iter().partition(|reply| reply.status == 202);
        assert!(refused.iter().all(|reply| reply.status == status), "{refused:?}");
        (opened, refused)
    };
    let app = Pusher::of(other.client(&node), "a");
    let image = Image::of(&[MIB]);
    app.image("v1", &image).await;

    // Wherever they are opened, and however many race for the last place.
    let (opened, turned_away) = open((0..30).map(|count| of(["a", "b", "c"][count % 3])).collect(), 429).await;
    let nobodys = (0..9).map(|_| Pusher::of(node.client(), "open/a")).collect();
    let (anonymous, anonymously_refused) = open(nobodys, 429).await;

    assert_eq!((opened.len(), anonymous.len()), (5, 5));
    for (reply, name) in [
        (&turned_away[0], "greedy has 5"),
        (&anonymously_refused[0], "whoever does not log in has 5"),
    ] {
        reply.assert_error(429, "TOOMANYREQUESTS");
        assert!(
            reply.text().contains(name) && reply.text().contains("push.uploads_each"),
            "{reply}"
        );
        assert!(reply.has("retry-after"), "{reply}");
    }
    assert_eq!(refused(&node, "uploads_each").await, 29);
    assert_eq!(refused(&node, "uploads").await, 0);
    assert_eq!(uploads(&node).await, 10, "what was refused left nothing");
    app.image("v2", &Image::of(&[MIB, 1000])).await;
    app.assert_has("v1", &image).await;
    of("a").assert_has("v1", &image).await;
    // One that ends makes room for another; more may be allowed while the node runs.
    let ended = of("a").send(Request::new("DELETE", opened[0].header("location"))).await;
    assert_eq!(ended.status, 204, "{ended}");
    of("b").open().await;
    assert_eq!(of("b").begin("").await.status, 429);
    let file = node.folder().join("wharf.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, settings.replace("uploads_each = 5", "uploads_each = 7")).unwrap();
    assert_eq!(node.admin_post("/api/reload", b"").await.status, 200);
    of("b").open().await;
    of("b").open().await;
    assert_eq!(of("b").begin("").await.status, 429);
}

async fn uploads(node: &Node) -> u64 {
    node.metrics().await.sum("wharf_uploads", &[]) as u64
}

#[tokio::test]
async fn where_nobody_logs_in_nobody_has_a_share_of_uploads() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nuploads = 5\nuploads_each = 2\n")
        .start()
        .await;
    let app = Pusher::of(node.client(), "a");

    for _ in 0..5 {
        app.open().await;
    }

    let beyond = app.begin("").await;
    beyond.assert_error(429, "TOOMANYREQUESTS");
    assert!(beyond.text().contains("push.uploads allows"), "{beyond}");
}

/// Everybody may pull everything, and nothing else.
const OPEN: &str = "[[permission]]\nidentities = [\"anonymous\"]\nrepositories = [\"*\"]\nactions = [\"pull\"]\n";

#[tokio::test]
async fn who_guesses_behind_an_address_keeps_nobody_else_there_from_logging_in() {
    let node = Setup::alone().registry().more("[auth]\n").start().await;
    let (guessed, honest) = (
        node.token("guessed", &["*:all"]).await,
        node.token("honest", &["*:all"]).await,
    );
    assert_eq!(guessed.client(&node).get("/v2/").await.status, 200);
    let guess = node.client().logged_in("guessed", "guess");
    let guessing = join_all((0..60).map(|_| guess.get("/v2/")));
    let meanwhile = async {
        // Until there are as many as may be looked at, and the next would wait the longest.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        let statuses = [
            honest.client(&node).get("/v2/").await.status,
            guessed.client(&node).get("/v2/").await.status,
        ];
        (statuses, begun.elapsed())
    };

    let (guesses, (statuses, took)) = tokio::join!(guessing, meanwhile);

    let sent_away = guesses.iter().filter(|reply| reply.status == 429).count();
    assert!(sent_away >= 10, "{sent_away} of 60 were sent away");
    assert!(guesses.iter().all(|reply| [401, 429].contains(&reply.status)));
    assert_eq!(statuses, [200, 200], "one who never logged in, and one who is known");
    assert!(took < Duration::from_millis(250), "{took:?}");
}

#[tokio::test]
async fn many_who_start_at_once_with_one_password_behind_one_address_all_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    let hash = bcrypt::hash("correct horse", 10).unwrap().replacen("$2b$", "$2y$", 1);
    fs::write(&path, format!("fleet:{hash}\n")).unwrap();
    let settings = format!(
        "[auth]\nhtpasswd_file = \"{}\"\n[[permission]]\nidentities = [\"*\"]\nrepositories = [\"*\"]\nactions = [\"all\"]\n",
        path.display()
    );
    let node = Setup::alone().registry().more(&settings).start().await;
    let one = node.client().logged_in("fleet", "correct horse");

    let replies = join_all((0..80).map(|_| one.get("/v2/"))).await;

    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// The token for these many repositories with long names, as the service says it.
async fn token_for(client: &Client, first: usize, count: usize) -> Reply {
    let scopes: Vec<String> = (first..first + count)
        .map(|number| format!("scope=repository:{}:pull", long_name(number)))
        .collect();
    client
        .get(&format!("/v2/_wharf/token?service=x&{}", scopes.join("&")))
        .await
}

fn long_name(number: usize) -> String {
    format!("r{number}/{}", "x".repeat(200))
}

#[tokio::test]
async fn a_token_that_no_request_could_bring_is_refused_in_words_and_any_smaller_one_is_good() {
    let node = Setup::alone().registry().more(OPEN).start().await;
    let client = node.client();
    let (mut largest, mut count) = (None, 1);
    let refused = loop {
        let reply = token_for(&client, 0, count).await;
        if reply.status != 200 {
            break reply;
        }
        largest = Some(reply);
        count += 1;
    };

    refused.assert_error(400, "UNSUPPORTED");
    assert!(refused.text().contains("ask for fewer scopes at a time"), "{refused}");
    let token = largest.unwrap().json()["token"].as_str().unwrap().to_owned();
    assert!(
        (7900..=8192).contains(&token.len()),
        "{} bytes for {count}",
        token.len()
    );
    let bearer = node.client().saying(&format!("Bearer {token}"));
    bearer
        .get(&manifest(&long_name(count - 2), "v1"))
        .await
        .assert_error(404, "MANIFEST_UNKNOWN");
    let form: Vec<String> = (0..60)
        .map(|number| format!("scope=repository:{}:pull", long_name(number)))
        .collect();
    let form = Request::new("POST", "/v2/_wharf/token").body(form.join("&").as_bytes());
    node.send(form).await.assert_error(400, "UNSUPPORTED");
}

#[tokio::test]
async fn tokens_that_anybody_has_made_fill_no_memory() {
    let node = Setup::alone().registry().more(OPEN).start().await;
    let client = node.client();
    let use_some = async |first: usize, count: usize| {
        for number in first..first + count {
            let token = token_for(&client, number, 20).await.json()["token"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(token.len() > 5000, "{}", token.len());
            let reply = client
                .clone()
                .saying(&format!("Bearer {token}"))
                .get(&manifest(&long_name(number), "v1"))
                .await;
            assert_eq!(reply.status, 404, "{reply}");
        }
    };
    use_some(0, 200).await;
    let before = process::memory(node.pid());

    use_some(200, 1500).await;

    let grown = process::memory(node.pid()).saturating_sub(before);
    println!("{grown} bytes more after 1500 tokens");
    assert!(grown < 10 * MIB as u64, "{grown} bytes more");
}
