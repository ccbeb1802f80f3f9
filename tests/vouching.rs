//! Whether a parent still lets its child have a repository, and for how long its word counts when it is away:
//! `freshness.access_ttl`.

use std::time::Duration;

use crate::support::client::{Request, blob, manifest};
use crate::support::content::Image;
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::owing;
use crate::support::pushing::Pusher;
use crate::support::upstream::{Access, Book, Fault, Upstream};

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
    let catalog = node.get("/v2/_catalog").await;
    assert_eq!(catalog.json()["repositories"], serde_json::json!(["b"]), "{catalog}");
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
    let node = heeding(&parent.url(), "1h").tag_ttl("4s").start().await;
    let targets = (0..3).map(|layer| blob("a", &image.layer(layer)));
    let targets: Vec<String> = targets.chain([manifest("a", &image.manifest.digest)]).collect();
    for target in &targets {
        assert_eq!(node.get(target).await.status, 200);
    }
    pass(Duration::from_millis(4300)).await;
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
async fn that_one_thing_is_gone_above_or_was_asked_for_as_something_else_takes_nothing_away() {
    let mut parent = Upstream::start().await;
    let (image, gone) = (parent.new_image("a", "v1", &[100]), parent.new_image("a", "v2", &[200]));
    let node = heeding(&parent.url(), "1h").start().await;
    for target in routes("a", &image).iter().chain(&routes("a", &gone)[1..]) {
        assert_eq!(node.get(target).await.status, 200, "{target}");
    }
    let gone = manifest("a", &gone.manifest.digest);
    assert_eq!(node.get(&gone).await.status, 200);
    parent.without_tag("a", "v2");
    parent.fault(Fault::any(&gone).status(404));

    for _ in 0..2 {
        pass(SOON).await;
        // As a blob the one is nowhere, and as a manifest the other.
        let _ = node.get(&blob("a", &image.manifest.digest)).await;
        let _ = node.get(&manifest("a", &image.layer(0))).await;
        assert_eq!(node.get(&gone).await.status, 200);
        assert_eq!(node.get(&blob("a", &image.layer(0))).await.status, 200);
    }
    parent.stop().await;
    pass(SOON).await;
    assert_all_are_served(&node, "a", &image).await;
    assert_eq!(node.get(&gone).await.status, 200);
}

#[tokio::test]
async fn a_no_that_is_remembered_is_on_the_disk_and_takes_no_tag_away_from_the_layer_below() {
    let mut cloud = Upstream::start().await;
    let image = cloud.new_image("a", "v1", &[100]);
    let mut top = heeding(&cloud.url(), "1h").named("l5").start().await;
    let below = Setup::below(&top.url()).named("l4").tag_ttl("1s").start().await;
    for target in routes("a", &image) {
        assert_eq!(below.get(&target).await.status, 200, "{target}");
    }
    cloud.fault(Fault::any("/v2/a/").status(403));
    pass(SOON).await;
    let refused = top.get(&manifest("a", "v1")).await;
    assert_eq!(
        (refused.status, refused.header("wharf-denied")),
        (404, "403"),
        "{refused}"
    );

    top.kill();
    cloud.stop().await;
    top.start().await;

    assert_none_is_served(&top, "a", &image, &[404]).await;
    pass(SOON).await;
    for target in routes("a", &image) {
        assert_eq!(below.get(&target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn a_403_counts_if_a_registry_says_it_to_an_account_that_it_lets_in() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    parent.access(Access::Basic {
        user: "below".to_owned(),
        password: "right".to_owned(),
    });
    let node = heeding(&parent.url(), "1h").asking_as("below", "right").start().await;
    assert_all_are_served(&node, "a", &image).await;

    let page = Fault::any("/v2/a/").status(403).header("Content-Type", "text/html");
    for fault in [page, Fault::any("/v2/").status(403)] {
        parent.fault(fault);
        pass(SOON).await;
        assert_all_are_served(&node, "a", &image).await;
        parent.without_faults();
    }
    parent.fault(Fault::any("/v2/a/").status(403));
    pass(SOON).await;
    assert_none_is_served(&node, "a", &image, &[404]).await;
}

#[tokio::test]
async fn a_token_that_the_service_gives_and_that_does_not_do_is_a_no_and_no_trouble() {
    let parent = Upstream::start().await;
    parent.bearer(&Book::of("below", "right"));
    let image = parent.new_image("a", "v1", &[100]);
    let node = heeding(&parent.url(), "1h").asking_as("below", "right").start().await;
    assert_all_are_served(&node, "a", &image).await;
    let challenge = format!(
        r#"Bearer realm="{}/token",service="s",scope="repository:a:pull",error="insufficient_scope""#,
        parent.url()
    );
    parent.fault(Fault::any("/v2/a/").status(401).header("WWW-Authenticate", &challenge));
    pass(SOON).await;

    assert_none_is_served(&node, "a", &image, &[404]).await;
    let ready = node.admin("/readyz").await;
    assert_eq!(ready.json()["reasons"], serde_json::json!([]), "{ready}");
}

#[tokio::test]
async fn who_may_list_and_not_read_any_more_is_not_vouched_for_by_lists_nor_is_a_stranger_to_all() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    let node = heeding(&parent.url(), "1h").start().await;
    assert_all_are_served(&node, "a", &image).await;

    // Everybody has to log in there from now on, and this node has no account.
    parent.access(Access::Basic {
        user: "below".to_owned(),
        password: "right".to_owned(),
    });
    pass(SOON).await;
    assert_all_are_served(&node, "a", &image).await;
    parent.access(Access::Open);

    parent.fault(Fault::any("/manifests/").status(403));
    parent.fault(Fault::any("/blobs/").status(403));
    for _ in 0..2 {
        pass(SOON).await;
        for target in &routes("a", &image)[..3] {
            assert_eq!(node.get(target).await.status, 404, "{target}");
        }
        assert_eq!(node.get("/v2/a/tags/list").await.status, 200);
    }
    let mut parent = parent;
    parent.stop().await;
    assert_none_is_served(&node, "a", &image, &[404]).await;
}

#[tokio::test]
async fn a_parent_that_knows_no_head_is_asked_for_its_word_by_a_get() {
    let parent = Upstream::start().await;
    let image = parent.new_image("a", "v1", &[100]);
    parent.fault(Fault::head("").status(405));
    let node = heeding(&parent.url(), "3s").start().await;
    let targets = [manifest("a", &image.manifest.digest), blob("a", &image.layer(0))];
    for _ in 0..4 {
        for target in &targets {
            assert_eq!(node.get(target).await.status, 200, "{target}");
        }
        pass(SOON).await;
    }
}

#[tokio::test]
async fn what_was_delivered_is_served_when_the_parent_leaves_right_after() {
    let mut parent = owing::parent().await;
    let node = heeding(&parent.url(), "1h").registry().start().await;
    let image = Image::of(&[300]);
    Pusher::of(node.client(), "a").image("v1", &image).await;
    node.drained().await;
    parent.stop().await;
    pass(SOON).await;

    for target in &routes("a", &image)[..3] {
        assert_eq!(node.get(target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn what_the_parent_took_back_is_neither_mounted_nor_named_by_what_is_pushed() {
    let parent = owing::parent().await;
    let image = parent.new_image("a", "v1", &[100]);
    let node = heeding(&parent.url(), "1h").registry().start().await;
    assert_all_are_served(&node, "a", &image).await;
    let forbidden = [Fault::get("/v2/a/").status(403), Fault::head("/v2/a/").status(403)];
    forbidden.into_iter().for_each(|fault| parent.fault(fault));
    pass(SOON).await;

    let mount = Request::new("POST", &format!("/v2/b/blobs/uploads/?mount={}&from=a", image.layer(0)));
    let mounted = node.send(mount.header("Content-Length", "0")).await;
    assert_eq!(mounted.status, 202, "{mounted}");
    let pushed = Pusher::of(node.client(), "a")
        .put_manifest("mine", &image.manifest)
        .await;
    pushed.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    for target in &routes("a", &image)[..3] {
        assert_eq!(node.get(target).await.status, 404, "{target}");
    }
    // What was pushed here, which is nothing.
    let tags = node.get("/v2/a/tags/list").await;
    assert_eq!(tags.json()["tags"], serde_json::json!([]), "{tags}");
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
