//! Whether a parent still lets its child have a repository, and for how long its word counts when it is away:
//! `freshness.access_ttl`.

use std::time::Duration;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Access, Fault, Upstream};

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The word is asked for anew after a second.
const SOON: Duration = Duration::from_millis(1300);

fn heeding(parent: &str, ttl: &str) -> Setup {
    let setup = Setup::below(parent).tag_ttl("1s");
    setup
        .freshness(&format!("access_ttl = \"{ttl}\""))
        .freshness("absent_ttl = \"1s\"")
}

fn routes(repository: &str, image: &Image) -> [String; 4] {
    [
        manifest(repository, "v1"),
        manifest(repository, &image.manifest.digest),
        blob(repository, &image.layer(0)),
        format!("/v2/{repository}/tags/list"),
    ]
}

async fn assert_all_are_served(node: &Node, repository: &str, image: &Image) {
    for target in routes(repository, image) {
        for reply in [node.get(&target).await, node.head(&target).await] {
            assert_eq!(reply.status, 200, "{target}: {reply}");
        }
    }
    let part = node.range(&blob(repository, &image.layer(0)), "1-3").await;
    assert_eq!(part.status, 206, "{part}");
}

async fn assert_none_is_served(node: &Node, repository: &str, image: &Image, statuses: &[u16]) {
    for target in routes(repository, image) {
        for reply in [node.get(&target).await, node.head(&target).await] {
            assert!(statuses.contains(&reply.status), "{target}: {reply}");
        }
    }
    let part = node.range(&blob(repository, &image.layer(0)), "1-3").await;
    assert!(statuses.contains(&part.status), "{part}");
}

#[tokio::test]
async fn without_the_setting_what_lies_here_is_served_by_digest_whatever_the_parent_says() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    let node = Setup::below(&parent.url()).tag_ttl("1s").start().await;
    assert_all_are_served(&node, "a", &image).await;
    parent.fault(Fault::any("/v2/a/").status(403));
    pass(SOON).await;

    for target in &routes("a", &image)[1..3] {
        assert_eq!(node.get(target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn a_repository_that_the_parent_forbids_is_not_served_nor_with_the_parent_away_nor_after_a_restart() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    let other = parent.new_image("b", "v1", &[100]);
    let mut node = heeding(&parent.url(), "1h").start().await;
    assert_all_are_served(&node, "a", &image).await;
    assert_all_are_served(&node, "b", &other).await;
    parent.fault(Fault::any("/v2/a/").status(403));
    pass(SOON).await;

    assert_none_is_served(&node, "a", &image, &[404]).await;
    assert_all_are_served(&node, "b", &other).await;
    parent.stop().await;
    pass(SOON).await;
    assert_none_is_served(&node, "a", &image, &[404]).await;
    assert_all_are_served(&node, "b", &other).await;
    // What the other repository was allowed is written down within seconds, that this one is not at once.
    pass(Duration::from_secs(11)).await;
    node.restart().await;
    assert_none_is_served(&node, "a", &image, &[404]).await;
    assert_all_are_served(&node, "b", &other).await;

    parent.without_faults();
    parent.start_again().await;
    eventually("the parent is asked again", async || {
        node.get(&manifest("a", "v1")).await.status == 200
    })
    .await;
    assert_all_are_served(&node, "a", &image).await;
}

#[tokio::test]
async fn with_the_parent_away_its_word_counts_so_long_and_no_longer_and_says_why() {
    let mut parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    let node = heeding(&parent.url(), "4s").start().await;
    assert_all_are_served(&node, "a", &image).await;
    parent.stop().await;
    pass(SOON).await;

    assert_all_are_served(&node, "a", &image).await;
    pass(Duration::from_secs(4)).await;
    assert_none_is_served(&node, "a", &image, &[503]).await;
    let reply = node.get(&manifest("a", &image.manifest.digest)).await;
    let words = "has not said for 4s that this node may have it, and that is how long its word counts";
    assert!(reply.text().contains(words), "{reply}");

    parent.start_again().await;
    eventually("the parent is asked again", async || {
        node.get(&manifest("a", "v1")).await.status == 200
    })
    .await;
    assert_all_are_served(&node, "a", &image).await;
}

#[tokio::test]
async fn the_parent_is_asked_for_its_word_once_in_the_time_of_a_tag_and_not_for_its_content() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[10, 20, 30]);
    let node = heeding(&parent.url(), "1h").start().await;
    let targets = (0..3).map(|layer| blob("a", &image.layer(layer)));
    let targets: Vec<String> = targets.chain([manifest("a", &image.manifest.digest)]).collect();
    for target in &targets {
        assert_eq!(node.get(target).await.status, 200);
    }
    pass(SOON).await;
    parent.forget();

    for _ in 0..3 {
        for target in &targets {
            assert_eq!(node.get(target).await.status, 200);
        }
    }

    assert_eq!(parent.count("HEAD", "/v2/a/"), 1);
    assert_eq!(parent.count("GET", "/v2/a/"), 0);
}

#[tokio::test]
async fn a_login_that_the_parent_does_not_know_takes_nothing_away_before_the_old_word_is_over() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    let allowed = |password: &str| Access::Basic {
        user: "below".to_owned(),
        password: password.to_owned(),
    };
    parent.access(allowed("right"));
    let node = heeding(&parent.url(), "5s").asking_as("below", "right").start().await;
    assert_all_are_served(&node, "a", &image).await;
    parent.access(allowed("another"));
    pass(SOON).await;

    assert_all_are_served(&node, "a", &image).await;
    pass(Duration::from_secs(5)).await;
    assert_none_is_served(&node, "a", &image, &[503]).await;
}

#[tokio::test]
async fn content_that_the_parent_has_no_more_is_gone_here_too_and_stays_away_with_it() {
    let mut parent = Upstream::start().await;
    let (image, other) = (parent.new_image("a", "v1", &[100]), parent.new_image("a", "v2", &[200]));
    let digest = &image.manifest.digest;
    let node = heeding(&parent.url(), "1h").start().await;
    for reference in ["v1", "v2", digest] {
        assert_eq!(node.get(&manifest("a", reference)).await.status, 200);
    }
    parent.without_tag("a", "v1");
    parent.without_manifest("a", digest);
    pass(SOON).await;

    assert_eq!(node.get(&manifest("a", digest)).await.status, 404);
    assert_eq!(node.get(&manifest("a", "v2")).await.status, 200);
    parent.stop().await;
    pass(SOON).await;
    let reply = node.get(&manifest("a", digest)).await;
    assert_ne!(reply.status, 200, "{reply}");
    assert_eq!(node.get(&manifest("a", &other.manifest.digest)).await.status, 200);
}

#[tokio::test]
async fn what_was_pushed_here_is_served_whatever_the_parent_says_and_lent_to_nobody_else() {
    let mut parent = Upstream::start().await;
    let pulled = parent.new_image("a", "v1", &[100]);
    let node = heeding(&parent.url(), "3s").registry().start().await;
    assert_eq!(node.get(&blob("a", &pulled.layer(0))).await.status, 200);
    parent.stop().await;
    let pushed = Image::of(&[300]);
    Pusher::of(node.client(), "a").image("own", &pushed).await;
    pass(Duration::from_secs(4)).await;

    for target in [
        manifest("a", "own"),
        manifest("a", &pushed.manifest.digest),
        blob("a", &pushed.layer(0)),
    ] {
        assert_eq!(node.get(&target).await.status, 200, "{target}");
    }
    let mount = |image: &Image| {
        let digest = image.layer(0);
        let request = Request::new("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"));
        node.send(request.header("Content-Length", "0"))
    };
    assert_eq!(mount(&pushed).await.status, 201);
    assert_eq!(mount(&pulled).await.status, 202);
}

#[tokio::test]
async fn a_layer_sees_what_its_account_at_the_parent_lists_and_what_is_taken_off_the_list_no_more() {
    let cloud = Upstream::start().await;
    let app = cloud.new_image("plant/app", "v1", &[100]);
    let line = cloud.new_image("plant/line", "v1", &[100]);
    let secret = cloud.new_image("office/secret", "v1", &[100]);
    let hash = bcrypt::hash("narrow", 4).expect("a short password");
    let identity = format!("[[identity]]\nname = \"line\"\npassword_hashes = [\"{hash}\"]\n");
    let grant = |repositories: &str| {
        format!("[[permission]]\nidentities = [\"line\"]\nrepositories = {repositories}\nactions = [\"pull\"]\n")
    };
    let wide = grant(r#"["plant/*"]"#);
    let setup = Setup::below(&cloud.url()).with_account("office", "all");
    let top = setup.more(&identity).more(&wide).start().await;
    let below = heeding(&top.url(), "1h").asking_as("line", "narrow").start().await;
    // It lies above already.
    assert_eq!(top.get(&manifest("office/secret", "v1")).await.status, 200);

    assert_all_are_served(&below, "plant/app", &app).await;
    assert_all_are_served(&below, "plant/line", &line).await;
    assert_none_is_served(&below, "office/secret", &secret, &[404]).await;
    let catalog = below.get("/v2/_catalog").await.text();
    assert!(
        catalog.contains("plant/app") && !catalog.contains("office"),
        "{catalog}"
    );

    let file = top.folder().join("wharf.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, settings.replace(&wide, &grant(r#"["plant/app"]"#))).unwrap();
    assert_eq!(top.admin_post("/api/reload", b"").await.status, 200);
    pass(SOON).await;

    assert_all_are_served(&below, "plant/app", &app).await;
    assert_none_is_served(&below, "plant/line", &line, &[404]).await;
    // It lies here no more as its own, so that it is not served without its parent either.
    drop(top);
    pass(SOON).await;
    assert_all_are_served(&below, "plant/app", &app).await;
    assert_none_is_served(&below, "plant/line", &line, &[404, 503]).await;
}
