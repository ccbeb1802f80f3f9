//! Random requests of several people, one after the other, and what the model says of each.
//!
//! The model is small: who may do what, which blobs, manifests and tags a repository has. It knows nothing of how.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::client::{Connection, Reply, Request, basic, blob, manifest};
use crate::support::content::{Image, random, sha256};
use crate::support::logins::Token;
use crate::support::node::{Node, Setup};
use crate::torture::{Dice, sized};

const NAMES: [&str; 4] = ["p", "q", "p/deep", "open"];
const TAGS: [&str; 2] = ["v1", "v2"];
const PEOPLE: usize = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Rights {
    read: bool,
    list: bool,
    write: bool,
    overwrite: bool,
    delete: bool,
}

const NONE: Rights = Rights {
    read: false,
    list: false,
    write: false,
    overwrite: false,
    delete: false,
};

/// What an operator can grant: patterns with actions, and what each means for the repositories under a name.
const GRANTS: [&[(&str, &str)]; 7] = [
    &[],
    &[("p/*", "pull")],
    &[("p/*", "push"), ("q/*", "pull")],
    &[("q/*", "content/read,content/write")],
    &[("p/deep/*", "all"), ("q/*", "metadata/read")],
    &[("*", "pull"), ("p/*", "delete")],
    &[("*", "all")],
];

/// What the settings grant in turn: to who does not log in, and to whoever does.
const SETTINGS: [[&[(&str, &str)]; 2]; 4] = [
    [&[("open/*", "pull")], &[]],
    [&[], &[]],
    [&[("p/*", "metadata/read")], &[("open/*", "push"), ("q/*", "pull")]],
    [&[("p/deep/*", "push")], &[("p/*", "delete")]],
];

/// What clients ask a token for: actions as Docker writes them.
const ASKED: [&str; 5] = ["", "pull", "push,pull", "delete", "*"];

/// The same as rights.
fn asked(actions: &str) -> Rights {
    let any = |word| actions.split(',').any(|action| action == word || action == "*");
    Rights {
        read: any("pull"),
        list: any("pull"),
        write: any("push"),
        overwrite: any("push"),
        delete: any("delete"),
    }
}

impl Rights {
    fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            list: self.list && other.list,
            write: self.write && other.write,
            overwrite: self.overwrite && other.overwrite,
            delete: self.delete && other.delete,
        }
    }
}

/// The model's own reading of grants that add up.
fn rights(grants: &[&[(&str, &str)]], repository: &str) -> Rights {
    let mut words = BTreeSet::new();
    for (pattern, actions) in grants.iter().copied().flatten() {
        let matches = *pattern == "*" || repository.starts_with(pattern.trim_end_matches('*'));
        if matches {
            words.extend(actions.split(','));
        }
    }
    let any = |of: &[&str]| of.iter().any(|word| words.contains(word));
    Rights {
        read: any(&["pull", "push", "all", "content/read"]),
        list: any(&["pull", "push", "all", "metadata/read"]),
        write: any(&["push", "all", "content/write"]),
        overwrite: any(&["push", "all"]),
        delete: any(&["delete", "all"]),
    }
}

/// Somebody as the model knows them.
struct Person {
    token: Token,
    /// Index into [`GRANTS`].
    grant: usize,
    enabled: bool,
    /// A token of the service.
    bearer: Option<Bearer>,
}

/// What a login brought.
struct Bearer {
    token: String,
    /// What was asked for and could be granted then, in each of the repositories.
    granted: Vec<Rights>,
    /// Whether the password that it was given for still is one.
    good: bool,
}

/// One repository.
#[derive(Default)]
struct Content {
    blobs: BTreeSet<usize>,
    manifests: BTreeSet<usize>,
    tags: BTreeMap<&'static str, usize>,
}

/// Everything, and the node that is to be like it.
struct World {
    node: Node,
    connection: Option<Connection>,
    people: Vec<Person>,
    /// The settings without what they grant.
    settings: String,
    /// Index into [`SETTINGS`].
    set: usize,
    repositories: Vec<(String, Content)>,
    /// Manifest `n` needs blobs `n` and `n + 1`.
    images: Vec<Image>,
    blobs: Vec<bytes::Bytes>,
    differences: Vec<String>,
    requests: usize,
}

/// As whom something is asked.
#[derive(Clone, Copy, Debug)]
enum As {
    Nobody,
    Password(usize),
    OldPassword(usize),
    Bearer(usize),
}

impl World {
    async fn new() -> Self {
        // Whoever fails often has to wait, so each request comes from elsewhere.
        let behind = Setup::alone().registry().listen("trusted_proxies = [\"127.0.0.0/8\"]");
        let node = behind.more("[auth]\n").start().await;
        let settings = std::fs::read_to_string(node.folder().join("wharf.toml")).unwrap();
        let blobs: Vec<bytes::Bytes> = (0..5).map(|_| random(50)).collect();
        let images = blobs.windows(2).map(|pair| {
            let mut image = Image::with_layers(vec![pair[1].clone()]);
            // The config of each is the blob before.
            let body = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": image.manifest.media_type,
                "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&pair[0]), "size": pair[0].len() },
                "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(&pair[1]), "size": pair[1].len() }],
            });
            image.manifest = crate::support::content::Manifest::new(&image.manifest.media_type.clone(), &body);
            image
        });
        let images = images.collect();
        let mut people = Vec::new();
        for index in 0..PEOPLE {
            let grant = index % GRANTS.len();
            people.push(Person {
                token: made(&node, &format!("person-{index}"), grant).await,
                grant,
                enabled: true,
                bearer: None,
            });
        }
        let mut world = Self {
            node,
            connection: None,
            people,
            settings,
            set: 0,
            repositories: Vec::new(),
            images,
            blobs,
            differences: Vec::new(),
            requests: 0,
        };
        world.set(0).await;
        world
    }

    /// Other settings are read, while connections stay.
    async fn set(&mut self, set: usize) {
        let mut text = self.settings.clone();
        for (who, grants) in ["anonymous", "*"].iter().zip(SETTINGS[set]) {
            for (pattern, actions) in grants {
                text += &format!(
                    "[[permission]]\nidentities = [\"{who}\"]\nrepositories = [\"{pattern}\"]\nactions = [\"{actions}\"]\n"
                );
            }
        }
        std::fs::write(self.node.folder().join("wharf.toml"), text).unwrap();
        let reply = self.node.admin_post("/api/reload", b"").await;
        assert_eq!(reply.status, 200, "{reply}");
        self.set = set;
    }

    /// What somebody who logged in may do in a repository now.
    fn now(&self, index: usize, repository: usize) -> Rights {
        let grants = [GRANTS[self.people[index].grant], SETTINGS[self.set][1]];
        rights(&grants, &self.repositories[repository].0)
    }

    /// Other repositories, empty ones.
    fn anew(&mut self, number: usize) {
        let named = NAMES
            .iter()
            .map(|name| (format!("{name}/s{number}"), Content::default()));
        self.repositories = named.collect();
    }

    fn authorization(&self, who: As) -> Option<String> {
        let basic = |index: usize, which: usize| {
            let token = &self.people[index].token;
            basic(&token.name, &token.passwords[which])
        };
        match who {
            As::Nobody => None,
            As::Password(index) => Some(basic(index, 0)),
            As::OldPassword(index) => Some(basic(index, 1)),
            As::Bearer(index) => self.people[index]
                .bearer
                .as_ref()
                .map(|bearer| format!("Bearer {}", bearer.token)),
        }
    }

    /// What is answered before anything is looked at; `None`: it may go on.
    fn refused(&self, who: As, repository: usize, wants: impl Fn(Rights) -> bool) -> Option<u16> {
        match who {
            As::Nobody => {
                let open = rights(&[SETTINGS[self.set][0]], &self.repositories[repository].0);
                (!wants(open)).then_some(401)
            }
            // The second password is never one: it is replaced as soon as it is made.
            As::OldPassword(_) => Some(401),
            As::Password(index) => match (self.people[index].enabled, wants(self.now(index, repository))) {
                (false, _) => Some(401),
                (true, false) => Some(403),
                (true, true) => None,
            },
            As::Bearer(index) => {
                let person = &self.people[index];
                let Some(bearer) = &person.bearer else {
                    return self.refused(As::Nobody, repository, wants);
                };
                let (now, granted) = (self.now(index, repository), bearer.granted[repository]);
                match (person.enabled && bearer.good, wants(now), wants(granted)) {
                    (false, ..) => Some(401),
                    (true, false, _) => Some(403),
                    (true, true, false) => Some(401),
                    (true, true, true) => None,
                }
            }
        }
    }

    /// What of the rights counts once it may go on.
    fn effective(&self, who: As, repository: usize) -> Rights {
        match who {
            As::Nobody => rights(&[SETTINGS[self.set][0]], &self.repositories[repository].0),
            As::OldPassword(_) => NONE,
            As::Password(index) => self.now(index, repository),
            As::Bearer(index) => match &self.people[index].bearer {
                Some(bearer) => self.now(index, repository).and(bearer.granted[repository]),
                None => self.effective(As::Nobody, repository),
            },
        }
    }

    async fn send(&mut self, who: As, request: Request) -> Reply {
        let request = match self.authorization(who) {
            Some(authorization) => request.header("Authorization", &authorization),
            None => request,
        };
        self.requests += 1;
        let from = self.requests.to_be_bytes();
        let request = request.header("X-Forwarded-For", &format!("10.{}.{}.{}", from[5], from[6], from[7]));
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.node.client().connect().await,
        };
        let (reply, connection) = connection.open(request).await.rest().await;
        self.connection = (!reply.header("connection").eq_ignore_ascii_case("close")).then_some(connection);
        reply
    }

    fn judge(&mut self, what: &str, who: As, reply: &Reply, expected: &[u16]) {
        if !expected.contains(&reply.status) {
            let Reply { status, .. } = reply;
            self.differences.push(format!(
                "{what} as {who:?}: {status}, not {expected:?}: {}",
                reply.text()
            ));
        }
    }

    /// One request, and what it changes.
    async fn step(&mut self, dice: &mut Dice) {
        let who = match (dice.below(10), dice.below(PEOPLE)) {
            (0, _) => As::Nobody,
            (1, index) => As::OldPassword(index),
            (2..6, index) => As::Bearer(index),
            (_, index) => As::Password(index),
        };
        let at = dice.below(self.repositories.len());
        let (name, blob_at, image_at) = (
            self.repositories[at].0.clone(),
            dice.below(self.blobs.len()),
            dice.below(self.images.len()),
        );
        let tag = TAGS[dice.below(TAGS.len())];
        let digest = sha256(&self.blobs[blob_at]);
        let image = self.images[image_at].clone();
        let manifest_digest = image.manifest.digest.clone();
        match dice.below(20) {
            0..4 => {
                let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
                let request = Request::new("POST", &target).body(&self.blobs[blob_at].clone());
                let refused = self.refused(who, at, |rights| rights.write);
                let reply = self.send(who, request).await;
                self.judge(&format!("push blob to {name}"), who, &reply, &[refused.unwrap_or(201)]);
                if refused.is_none() {
                    self.repositories[at].1.blobs.insert(blob_at);
                }
            }
            4..8 => self.push_manifest(who, at, tag, image_at).await,
            8 | 9 => {
                let refused = self.refused(who, at, |rights| rights.read);
                let known = self.repositories[at].1.tags.get(tag).copied();
                let reply = self.send(who, Request::get(&manifest(&name, tag))).await;
                let expected = refused.unwrap_or(if known.is_some() { 200 } else { 404 });
                self.judge(&format!("get {name}:{tag}"), who, &reply, &[expected]);
                if reply.status == 200 && known.is_some_and(|known| reply.body != self.images[known].manifest.bytes) {
                    self.differences.push(format!("{name}:{tag} has other bytes"));
                }
            }
            10 => {
                let refused = self.refused(who, at, |rights| rights.read);
                let known = self.repositories[at].1.manifests.contains(&image_at);
                let reply = self.send(who, Request::get(&manifest(&name, &manifest_digest))).await;
                let expected = refused.unwrap_or(if known { 200 } else { 404 });
                self.judge(&format!("get {name}@{manifest_digest}"), who, &reply, &[expected]);
            }
            11 | 12 => {
                let refused = self.refused(who, at, |rights| rights.read);
                let known = self.repositories[at].1.blobs.contains(&blob_at);
                let request = match dice.below(2) {
                    0 => Request::head(&blob(&name, &digest)),
                    _ => Request::get(&blob(&name, &digest)),
                };
                let reply = self.send(who, request).await;
                let expected = refused.unwrap_or(if known { 200 } else { 404 });
                self.judge(&format!("blob {blob_at} of {name}"), who, &reply, &[expected]);
            }
            13 => self.mount(who, at, dice.below(self.repositories.len()), blob_at).await,
            14 => {
                let refused = self.refused(who, at, |rights| rights.delete);
                let known = self.repositories[at].1.tags.contains_key(tag);
                let reply = self.send(who, Request::new("DELETE", &manifest(&name, tag))).await;
                let expected = refused.unwrap_or(if known { 202 } else { 404 });
                self.judge(&format!("delete {name}:{tag}"), who, &reply, &[expected]);
                if refused.is_none() {
                    self.repositories[at].1.tags.remove(tag);
                }
            }
            15 => {
                let refused = self.refused(who, at, |rights| rights.delete);
                let known = self.repositories[at].1.manifests.contains(&image_at);
                let reply = self
                    .send(who, Request::new("DELETE", &manifest(&name, &manifest_digest)))
                    .await;
                let expected = refused.unwrap_or(if known { 202 } else { 404 });
                self.judge(&format!("delete {name}@{manifest_digest}"), who, &reply, &[expected]);
                if refused.is_none() {
                    let content = &mut self.repositories[at].1;
                    content.manifests.remove(&image_at);
                    content.tags.retain(|_, named| *named != image_at);
                }
            }
            16 => {
                let refused = self.refused(who, at, |rights| rights.delete);
                let known = self.repositories[at].1.blobs.contains(&blob_at);
                let reply = self.send(who, Request::new("DELETE", &blob(&name, &digest))).await;
                let expected = refused.unwrap_or(if known { 202 } else { 404 });
                self.judge(&format!("delete blob {blob_at} of {name}"), who, &reply, &[expected]);
                if refused.is_none() {
                    self.repositories[at].1.blobs.remove(&blob_at);
                }
            }
            17 => {
                let refused = self.refused(who, at, |rights| rights.list);
                let reply = self.send(who, Request::get(&format!("/v2/{name}/tags/list"))).await;
                let tags: Vec<&str> = self.repositories[at].1.tags.keys().copied().collect();
                let expected: &[u16] = match (refused, tags.is_empty()) {
                    (Some(401), _) => &[401],
                    (Some(_), _) => &[403],
                    (None, true) => &[200, 404],
                    (None, false) => &[200],
                };
                if reply.status == 200 && reply.json()["tags"] != serde_json::json!(tags) {
                    self.differences
                        .push(format!("tags of {name} as {who:?}: {}, not {tags:?}", reply.text()));
                }
                self.judge(&format!("tags of {name}"), who, &reply, expected);
            }
            18 => self.bearer(dice.below(PEOPLE), dice).await,
            _ => self.operate(dice).await,
        }
    }

    async fn push_manifest(&mut self, who: As, at: usize, tag: &'static str, image_at: usize) {
        let (name, image) = (self.repositories[at].0.clone(), self.images[image_at].clone());
        let refused = self.refused(who, at, |rights| rights.write);
        let may_move = self.effective(who, at).overwrite;
        let content = &self.repositories[at].1;
        let has_all = content.blobs.contains(&image_at) && content.blobs.contains(&(image_at + 1));
        let is_taken = content.tags.get(tag).is_some_and(|named| *named != image_at);
        let expected = match (refused, has_all, is_taken && !may_move) {
            (Some(status), ..) => status,
            (None, false, _) => 400,
            (None, true, true) => 403,
            (None, true, false) => 201,
        };
        let request = Request::new("PUT", &manifest(&name, tag))
            .header("Content-Type", &image.manifest.media_type)
            .body(&image.manifest.bytes);
        let reply = self.send(who, request).await;
        self.judge(
            &format!("push manifest {image_at} to {name}:{tag}"),
            who,
            &reply,
            &[expected],
        );
        if expected == 201 {
            let content = &mut self.repositories[at].1;
            content.manifests.insert(image_at);
            content.tags.insert(tag, image_at);
        }
    }

    async fn mount(&mut self, who: As, at: usize, from: usize, blob_at: usize) {
        let (name, source) = (self.repositories[at].0.clone(), self.repositories[from].0.clone());
        let digest = sha256(&self.blobs[blob_at]);
        let refused = self.refused(who, at, |rights| rights.write);
        let is_there = self.repositories[from].1.blobs.contains(&blob_at) && self.effective(who, from).read;
        let expected = refused.unwrap_or(if is_there { 201 } else { 202 });
        let target = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={source}");
        let reply = self
            .send(who, Request::new("POST", &target).header("Content-Length", "0"))
            .await;
        self.judge(
            &format!("mount {blob_at} from {source} to {name}"),
            who,
            &reply,
            &[expected],
        );
        match expected {
            201 => drop(self.repositories[at].1.blobs.insert(blob_at)),
            202 if reply.status == 202 => {
                let location = reply.header("location").to_owned();
                let reply = self.send(who, Request::new("DELETE", &location)).await;
                self.judge("cancel", who, &reply, &[204]);
            }
            _ => {}
        }
    }

    /// Somebody gets a token for this and that.
    async fn bearer(&mut self, index: usize, dice: &mut Dice) {
        let wanted: Vec<&str> = self.repositories.iter().map(|_| *dice.one_of(&ASKED)).collect();
        let scopes = self.repositories.iter().zip(&wanted);
        let scopes: Vec<String> = scopes
            .filter(|(_, actions)| !actions.is_empty())
            .map(|((name, _), actions)| format!("&scope=repository:{name}:{actions}"))
            .collect();
        let target = format!("/v2/_wharf/token?service=x{}", scopes.concat());
        let reply = self.send(As::Password(index), Request::get(&target)).await;
        let expected = if self.people[index].enabled { 200 } else { 401 };
        if reply.status == 200 {
            let granted = wanted.iter().enumerate();
            let granted = granted.map(|(at, actions)| self.now(index, at).and(asked(actions)));
            self.people[index].bearer = Some(Bearer {
                token: reply.json()["token"].as_str().unwrap().to_owned(),
                granted: granted.collect(),
                good: true,
            });
        }
        self.judge("ask for a token", As::Password(index), &reply, &[expected]);
    }

    /// What an operator does.
    async fn operate(&mut self, dice: &mut Dice) {
        let index = dice.below(PEOPLE);
        let name = self.people[index].token.name.clone();
        match dice.below(12) {
            0 => {
                self.people[index].enabled = !self.people[index].enabled;
                let deed = if self.people[index].enabled {
                    "enable"
                } else {
                    "disable"
                };
                self.node.token_deed(deed, &name).await;
            }
            1 => {
                let password = self.node.rotate(&name, 1).await;
                self.people[index].token.passwords[0] = password;
                if let Some(bearer) = &mut self.people[index].bearer {
                    bearer.good = false;
                }
            }
            2 => {
                self.node.token_deed("delete", &name).await;
                let grant = dice.below(GRANTS.len());
                let token = made(&self.node, &name, grant).await;
                let bearer = self.people[index].bearer.take();
                let bearer = bearer.map(|bearer| Bearer { good: false, ..bearer });
                self.people[index] = Person {
                    token,
                    grant,
                    enabled: true,
                    bearer,
                };
            }
            3..6 => self.set(dice.below(SETTINGS.len())).await,
            _ => {}
        }
    }
}

/// A token whose second password is good no more.
async fn made(node: &Node, name: &str, grant: usize) -> Token {
    let permissions: Vec<String> = GRANTS[grant]
        .iter()
        .map(|(pattern, actions)| format!("{pattern}:{actions}"))
        .collect();
    let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
    let token = node.token(name, &permissions).await;
    node.rotate(name, 2).await;
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_of_several_people_are_answered_as_the_model_says() {
    let (sequences, steps) = (sized(250, 10_000), 12);
    let mut world = World::new().await;
    let mut dice = Dice::new();

    for number in 0..sequences {
        world.anew(number);
        // Tokens of the service are for the repositories of their time.
        for person in &mut world.people {
            person.bearer = None;
        }
        for _ in 0..steps {
            world.step(&mut dice).await;
        }
        assert!(
            world.differences.is_empty(),
            "in sequence {number}:\n{}",
            world.differences.join("\n")
        );
    }

    println!("{sequences} sequences, {} requests, 0 differences", world.requests);
}
