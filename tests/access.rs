//! Who may do what, route by route, against what is written down here of rights: nothing of it is taken from the program.

// Long random runs against the same model.
mod sequences;

use crate::support::client::{Client, Request, blob, manifest};
use crate::support::content::{Image, sha256};
use crate::support::logins::Token;
use crate::support::node::{Node, Setup};
use crate::support::pushing::Pusher;
use crate::support::upstream::{Fault, Gate, Upstream};

/// What there is to be allowed.
const READ: &str = "read";
const WRITE: &str = "write";
const OVERWRITE: &str = "overwrite";
const DELETE: &str = "delete";
const LIST: &str = "list";

/// Somebody, and what they may do below `plant/`.
struct Who {
    name: &'static str,
    /// As an operator grants it; `None`: there is no token.
    granted: Option<&'static [&'static str]>,
    may: &'static [&'static str],
    /// Whether the node knows them.
    is_known: bool,
}

const ALL: [Who; 10] = [
    Who {
        name: "reader",
        granted: Some(&["plant/*:pull"]),
        may: &[READ, LIST],
        is_known: true,
    },
    Who {
        name: "writer",
        granted: Some(&["plant/*:push", "office/*:metadata/read"]),
        may: &[READ, LIST, WRITE, OVERWRITE],
        is_known: true,
    },
    Who {
        name: "creator",
        granted: Some(&["plant/*:content/read,content/write"]),
        may: &[READ, WRITE],
        is_known: true,
    },
    Who {
        name: "deleter",
        granted: Some(&["plant/*:content/delete", "*:pull"]),
        may: &[READ, LIST, DELETE],
        is_known: true,
    },
    Who {
        name: "lister",
        granted: Some(&["plant/*:metadata/read"]),
        may: &[LIST],
        is_known: true,
    },
    Who {
        name: "everything",
        granted: Some(&["*:all"]),
        may: &[READ, LIST, WRITE, OVERWRITE, DELETE],
        is_known: true,
    },
    Who {
        name: "elsewhere",
        granted: Some(&["office/*:all", "plants/*:all", "plant:all"]),
        may: &[],
        is_known: true,
    },
    Who {
        name: "nothing",
        granted: Some(&[]),
        may: &[],
        is_known: true,
    },
    Who {
        name: "disabled",
        granted: Some(&["*:all"]),
        may: &[],
        is_known: false,
    },
    Who {
        name: "anonymous",
        granted: None,
        may: &[],
        is_known: false,
    },
];

/// Where the content of a repository is before it is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// At the parent alone.
    Cold,
    /// Here: this repository's.
    Warm,
    /// Here: another repository brought it, and the parent has it in this one too.
    WarmElsewhere,
    /// Pushed here, and the parent does not have it yet.
    Pending,
}

const STATES: [State; 4] = [State::Cold, State::Warm, State::WarmElsewhere, State::Pending];

/// One request, what it takes, and what it is answered if that is granted.
struct Route {
    what: &'static str,
    request: Request,
    takes: &'static str,
    granted: u16,
}

fn routes(repository: &str, image: &Image, other: &Image, readable: bool) -> Vec<Route> {
    let (digest, layer) = (&image.manifest.digest, image.layer(0));
    let route = |what, request: Request, takes, granted| Route {
        what,
        request,
        takes,
        granted,
    };
    let put = |tag: &str, image: &Image| {
        Request::new("PUT", &manifest(repository, tag))
            .header("Content-Type", &image.manifest.media_type)
            .body(&image.manifest.bytes)
    };
    let post = |query: &str| {
        Request::new("POST", &format!("/v2/{repository}/blobs/uploads/{query}")).header("Content-Length", "0")
    };
    let delete = |target: String| Request::new("DELETE", &target);
    let get = |target: String| Request::get(&target);
    let head = |target: String| Request::head(&target);
    let small = b"in one request";
    let whole = Request::new(
        "POST",
        &format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(small)),
    );
    vec![
        route("manifest by tag", get(manifest(repository, "v1")), READ, 200),
        route("manifest by tag, head", head(manifest(repository, "v1")), READ, 200),
        route("manifest by digest", get(manifest(repository, digest)), READ, 200),
        route(
            "manifest by digest, head",
            head(manifest(repository, digest)),
            READ,
            200,
        ),
        route("blob, head", head(blob(repository, &layer)), READ, 200),
        route("blob, a part", get(blob(repository, &layer)).range("10-19"), READ, 206),
        route("blob", get(blob(repository, &layer)), READ, 200),
        route(
            "referrers",
            get(format!("/v2/{repository}/referrers/{digest}")),
            READ,
            200,
        ),
        route(
            "receipt",
            get(format!("/v2/_wharf/receipts?repository={repository}&digest={digest}")),
            READ,
            200,
        ),
        route("tags", get(format!("/v2/{repository}/tags/list")), LIST, 200),
        route("an upload begins", post(""), WRITE, 202),
        route("a blob in one request", whole.body(small), WRITE, 201),
        // What may not be read where it is has to be brought.
        route(
            "mount from elsewhere",
            post(&format!("?mount={}&from=vault/app", other.layer(0))),
            WRITE,
            if readable { 201 } else { 202 },
        ),
        route("a new tag", put("new", image), WRITE, 201),
        route("the same tag again", put("v1", image), WRITE, 201),
        route("a tag moved", put("v1", other), OVERWRITE, 201),
        route("a tag deleted", delete(manifest(repository, "v1")), DELETE, 202),
        route("a manifest deleted", delete(manifest(repository, digest)), DELETE, 202),
        route("a blob deleted", delete(blob(repository, &layer)), DELETE, 202),
    ]
}

/// What the model says: whatever there is, and wherever it lies.
fn expected(who: &Who, route: &Route) -> u16 {
    if !who.is_known {
        return 401;
    }
    // To move a tag takes both; who may not even write is refused for that.
    let may = who.may.contains(&route.takes) && (route.takes != OVERWRITE || who.may.contains(&WRITE));
    if may { route.granted } else { 403 }
}

/// The ways to say who one is.
#[derive(Clone, Copy, Debug)]
enum How {
    Password,
    Token,
}

async fn client(node: &Node, who: &Who, token: Option<&Token>, how: How, repository: &str) -> Option<Client> {
    let Some(token) = token else {
        return Some(node.client());
    };
    match how {
        How::Password => Some(token.client(node)),
        // The service gives nothing to who is not known.
        How::Token if !who.is_known => None,
        How::Token => {
            let scopes = [
                format!("repository:{repository}:*"),
                "repository:vault/app:pull".to_owned(),
                "registry:catalog:*".to_owned(),
            ];
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            Some(node.bearer(token, &scopes).await)
        }
    }
}

/// A registry below a parent to which nothing gets through, and everybody's tokens.
async fn plant(parent: &Upstream) -> (Node, Vec<Option<Token>>, Token) {
    let node = Setup::below(&parent.url())
        .registry()
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .more("[[permission]]\nidentities = [\"anonymous\"]\nrepositories = [\"public/*\"]\nactions = [\"pull\"]\n")
        .start()
        .await;
    let admin = node.token("admin", &["*:all"]).await;
    let mut tokens = Vec::new();
    for who in &ALL {
        tokens.push(match who.granted {
            Some(granted) => Some(node.token(who.name, granted).await),
            None => None,
        });
    }
    node.token_deed("disable", "disabled").await;
    (node, tokens, admin)
}

#[tokio::test]
async fn everybody_gets_what_they_may_and_nothing_else_on_every_route_wherever_the_content_lies() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    parent.fault(Fault::post("/blobs/uploads/").hold_head(&Gate::closed()));
    let (node, tokens, admin) = plant(&parent).await;
    let pulls = admin.client(&node);
    let vault = Image::of(&[100]);
    Pusher::of(pulls.clone(), "vault/app").image("v1", &vault).await;
    let (mut wrong, mut asked) = (Vec::new(), 0);

    for (index, who) in ALL.iter().enumerate() {
        for state in STATES {
            for how in [How::Password, How::Token] {
                let repository = format!("plant/{}-{how:?}-{state:?}", who.name).to_lowercase();
                let Some(client) = client(&node, who, tokens[index].as_ref(), how, &repository).await else {
                    continue;
                };
                let image = Image::of(&[2000, 10]);
                let other = vault.clone();
                match state {
                    State::Cold => parent.image(&repository, "v1", &image),
                    State::Warm | State::WarmElsewhere => {
                        parent.image(&repository, "v1", &image);
                        let elsewhere = format!("store/{}", repository.replace('/', "-"));
                        parent.image(&elsewhere, "v1", &image);
                        let name = if state == State::Warm { &repository } else { &elsewhere };
                        pulls.get(&manifest(name, "v1")).await.assert_is(&image.manifest.bytes);
                        pulls
                            .get(&blob(name, &image.layer(0)))
                            .await
                            .assert_is(&image.layers[0]);
                    }
                    State::Pending => Pusher::of(pulls.clone(), &repository).image("v1", &image).await,
                }
                // So that a tag can be moved to it.
                Pusher::of(pulls.clone(), &repository).blobs_of(&other).await;
                let readable = ["deleter", "everything"].contains(&who.name);
                for route in routes(&repository, &image, &other, readable) {
                    // Whoever fails often has to wait, so each comes from elsewhere.
                    let from = format!("10.0.{}.{}", asked / 250, asked % 250 + 1);
                    let request = route.request.clone().header("X-Forwarded-For", &from);
                    let status = client.send(request).await.status;
                    let expected = expected(who, &route);
                    asked += 1;
                    if status != expected {
                        let Route { what, .. } = route;
                        wrong.push(format!(
                            "{} by {how:?}, {state:?}, {what}: {status}, not {expected}",
                            who.name
                        ));
                    }
                }
            }
        }
    }

    println!("{asked} requests");
    assert!(asked > 1000);
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn lists_of_repositories_name_what_each_may_list_and_nothing_else() {
    let parent = Upstream::start().await;
    let (node, tokens, admin) = plant(&parent).await;
    for name in ["plant/a", "plant/b", "office/a", "public/a", "vault/a"] {
        Pusher::of(admin.client(&node), name)
            .image("v1", &Image::of(&[10]))
            .await;
    }
    let plant = ["plant/a", "plant/b"];
    let expected = |name: &str| -> Option<Vec<&str>> {
        Some(match name {
            "reader" | "lister" => plant.to_vec(),
            "writer" => ["office/a"].into_iter().chain(plant).collect(),
            "deleter" | "everything" => vec!["office/a", "plant/a", "plant/b", "public/a", "vault/a"],
            "elsewhere" => vec!["office/a"],
            // May read, and not list.
            "creator" => Vec::new(),
            "anonymous" => vec!["public/a"],
            _ => return None,
        })
    };

    for (who, token) in ALL.iter().zip(&tokens) {
        for how in [How::Password, How::Token] {
            let Some(client) = client(&node, who, token.as_ref(), how, "x").await else {
                continue;
            };
            let reply = client.get("/v2/_catalog").await;
            match expected(who.name) {
                Some(names) => {
                    assert_eq!(
                        reply.json()["repositories"],
                        serde_json::json!(names),
                        "{} by {how:?}",
                        who.name
                    );
                }
                None => assert_eq!(
                    reply.status,
                    if who.is_known { 403 } else { 401 },
                    "{} by {how:?}",
                    who.name
                ),
            }
        }
    }
    // A token that was not asked for the catalog has none.
    let narrow = node
        .bearer(tokens[0].as_ref().unwrap(), &["repository:plant/a:pull"])
        .await;
    let reply = narrow.get("/v2/_catalog").await;
    reply.assert_error(401, "UNAUTHORIZED");
    assert!(
        reply
            .header("www-authenticate")
            .contains("scope=\"registry:catalog:*\",error=\"insufficient_scope\""),
        "{reply}"
    );
}

#[tokio::test]
async fn a_mirror_takes_no_write_from_anybody_whatever_they_are_called_or_may() {
    let parent = Upstream::start().await;
    let image = parent.new_image("plant/app", "v1", &[10]);
    let node = Setup::below(&parent.url()).more("[auth]\n").start().await;
    let mut clients = vec![node.client(), node.client().logged_in("scanner-x", "wrong")];
    for name in ["admin", "scanner-x", "wharf", "system.robot"] {
        let token = node.token(name, &["*:all"]).await;
        clients.push(token.client(&node));
        clients.push(node.bearer(&token, &["repository:plant/app:*"]).await);
    }

    for client in &clients {
        for request in [
            Request::new("POST", "/v2/plant/app/blobs/uploads/").header("Content-Length", "0"),
            Request::new("PUT", "/v2/plant/app/manifests/v2").body(&image.manifest.bytes),
            Request::new(
                "PATCH",
                "/v2/plant/app/blobs/uploads/00000000-0000-4000-8000-000000000000",
            )
            .body(b"x"),
            Request::new("DELETE", "/v2/plant/app/manifests/v1"),
            Request::new("DELETE", &blob("plant/app", &image.layer(0))),
        ] {
            client.send(request).await.assert_error(405, "UNSUPPORTED");
        }
    }
    assert_eq!(clients[2].get("/v2/plant/app/manifests/v1").await.status, 200);
    assert_eq!(clients[0].get("/v2/plant/app/manifests/v1").await.status, 401);
}

#[tokio::test]
async fn a_tag_is_moved_only_by_who_may_also_when_two_race_and_when_the_parent_alone_has_it() {
    let parent = Upstream::start().await;
    parent.takes_pushes();
    let above = parent.new_image("plant/above", "v1", &[10]);
    let (node, _, admin) = plant(&parent).await;
    let creator = node
        .token("creator-2", &["plant/*:content/read,content/write,metadata/read"])
        .await;
    let app = Pusher::of(creator.client(&node), "plant/app");
    let images = [Image::of(&[10]), Image::of(&[10])];
    for image in &images {
        app.blobs_of(image).await;
    }

    let race = tokio::join!(
        app.put_manifest("v1", &images[0].manifest),
        app.put_manifest("v1", &images[1].manifest)
    );

    let mut statuses = [race.0.status, race.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403]);
    let refused = if race.0.status == 403 { race.0 } else { race.1 };
    refused.assert_error(403, "DENIED");
    assert!(refused.text().contains("content/overwrite"), "{refused}");
    let (first, second) = match app.get("manifests/v1").await.body == images[0].manifest.bytes {
        true => (&images[0], &images[1]),
        false => (&images[1], &images[0]),
    };
    assert_eq!(
        app.put_manifest("v1", &first.manifest).await.status,
        201,
        "the same again"
    );
    assert_eq!(app.put_manifest("v1", &second.manifest).await.status, 403);
    assert_eq!(
        app.put_manifest(&second.manifest.digest, &second.manifest).await.status,
        201
    );
    // What never was here is at the parent.
    let over = Pusher::of(creator.client(&node), "plant/above");
    over.blobs_of(&images[0]).await;
    assert_eq!(over.put_manifest("v1", &images[0].manifest).await.status, 403);
    over.get("manifests/v1").await.assert_is(&above.manifest.bytes);
    assert_eq!(over.put_manifest("v2", &images[0].manifest).await.status, 201);
    let may = Pusher::of(admin.client(&node), "plant/above");
    assert_eq!(may.put_manifest("v1", &images[0].manifest).await.status, 201);
}

#[tokio::test]
async fn who_may_not_move_a_tag_does_not_move_the_parents_either_by_pushing_while_it_is_away() {
    let mut parent = Upstream::start().await;
    parent.takes_pushes();
    let above = parent.new_image("plant/app", "v1", &[10]);
    let (node, _, admin) = plant(&parent).await;
    let creator = node.token("creator-2", &["plant/*:content/read,content/write"]).await;
    let app = Pusher::of(creator.client(&node), "plant/app");
    parent.stop().await;
    let ours = Image::of(&[10]);
    app.image("v1", &ours).await;
    app.image("v2", &ours).await;

    parent.start_again().await;
    node.drained().await;

    assert!(parent.has_image("plant/app", "v1", &above), "the parent's stays");
    assert!(parent.has_image("plant/app", "v2", &ours));
    // Who may move tags does.
    let moves = Pusher::of(admin.client(&node), "plant/app");
    moves.manifest("v1", &ours.manifest).await;
    node.drained().await;
    assert!(parent.has_image("plant/app", "v1", &ours));
}

#[tokio::test]
async fn an_immutable_tag_is_moved_and_deleted_by_nobody() {
    let node = Setup::alone()
        .registry()
        .more("[push]\nimmutable_tags = [\"v[0-9]*\", \"plant/**:release\"]\n")
        .start()
        .await;
    let images = [Image::of(&[10]), Image::of(&[10])];
    for name in ["plant/app", "office"] {
        let to = Pusher::of(node.client(), name);
        for image in &images {
            to.blobs_of(image).await;
        }
        for tag in ["v1", "release", "latest"] {
            to.manifest(tag, &images[0].manifest).await;
            let is_fixed = tag == "v1" || (tag, name) == ("release", "plant/app");
            let moved = to.put_manifest(tag, &images[1].manifest).await;
            assert_eq!(moved.status, if is_fixed { 403 } else { 201 }, "{name}:{tag}: {moved}");
            if is_fixed {
                moved.assert_error(403, "DENIED");
                assert!(moved.text().contains("push.immutable_tags"), "{moved}");
                assert_eq!(to.put_manifest(tag, &images[0].manifest).await.status, 201);
                to.delete(&format!("manifests/{tag}")).await.assert_error(403, "DENIED");
            }
        }
        let digest = &images[0].manifest.digest;
        // By the path of blobs, and what it needs.
        for needed in [digest, &images[0].layer(0), &images[0].config_digest()] {
            to.delete(&format!("blobs/{needed}")).await.assert_error(403, "DENIED");
        }
        to.assert_has("v1", &images[0]).await;
        assert_eq!(to.delete(&format!("blobs/{}", images[1].layer(0))).await.status, 202);
        to.delete(&format!("manifests/{digest}"))
            .await
            .assert_error(403, "DENIED");
        assert_eq!(to.delete("manifests/latest").await.status, 202);
    }
}

#[tokio::test]
async fn what_is_deleted_in_one_repository_is_not_to_be_had_there_because_another_has_it() {
    let node = Setup::alone().registry().more("[auth]\n").start().await;
    let admin = node.token("admin", &["*:all"]).await;
    let reader = node.token("reader", &["a/*:pull"]).await;
    let image = Image::of(&[1000]);
    for name in ["a/app", "b/app"] {
        Pusher::of(admin.client(&node), name).image("v1", &image).await;
    }
    let layer = image.layer(0);
    let (a, b) = (
        Pusher::of(admin.client(&node), "a/app"),
        Pusher::of(admin.client(&node), "b/app"),
    );
    assert_eq!(a.delete("manifests/v1").await.status, 202);
    assert_eq!(
        a.delete(&format!("manifests/{}", image.manifest.digest)).await.status,
        202
    );
    assert_eq!(a.delete(&format!("blobs/{layer}")).await.status, 202);

    assert_eq!(b.get(&format!("blobs/{layer}")).await.status, 200);
    let reads = reader.client(&node);
    for target in [
        blob("a/app", &layer),
        manifest("a/app", "v1"),
        manifest("a/app", &image.manifest.digest),
    ] {
        assert_eq!(reads.get(&target).await.status, 404, "{target}");
        assert_eq!(reads.head(&target).await.status, 404, "{target}");
    }
    assert_eq!(reads.get(&blob("b/app", &layer)).await.status, 403);
}
