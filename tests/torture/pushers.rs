use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Client, Method, Response};
use tokio::task::JoinSet;

use super::{Dice, KIB, MIB, progress, sized};
use crate::support::client::{Request, reqwest_trusting};
use crate::support::content::{Image, random, sha256, sha256_of};
use crate::support::node::Setup;
use crate::support::process::peak_memory;
use crate::support::pushing::Pusher;

const PUSHERS: usize = 64;

/// All that pushes, and what became of it.
struct World {
    address: SocketAddr,
    client: Client,
    /// Layers that all images share.
    layers: Vec<Bytes>,
    acknowledged: Mutex<Vec<(String, String, Image)>>,
    /// Uploads that were under way when the node was killed, and those of them that went on where they were told.
    cut: AtomicUsize,
    resumed: AtomicUsize,
    over: AtomicBool,
}

/// The node is gone, or was for a moment.
struct Gone;

impl World {
    async fn send(&self, method: Method, target: &str, body: Bytes, media_type: &str) -> Result<Response, Gone> {
        let url = format!("http://{}{target}", self.address);
        let request = self
            .client
            .request(method, url)
            .body(body)
            .header("Content-Type", media_type);
        request.send().await.map_err(|_| Gone)
    }

    /// Pushes images until it is over; what a kill interrupts is begun again.
    async fn push(&self, pusher: usize, mut dice: Dice) {
        let repository = format!("team{}/app", pusher % 8);
        let mut number = 0;
        while !self.over.load(Ordering::Relaxed) {
            number += 1;
            let mut layers: Vec<Bytes> = (0..3).map(|_| dice.one_of(&self.layers).clone()).collect();
            layers.push(random(1 + dice.size(64 * KIB)));
            let image = Image::with_layers(layers);
            let tag = format!("p{pusher}-{number}");
            while !self.over.load(Ordering::Relaxed) {
                match self.try_image(&repository, &tag, &image).await {
                    Ok(()) => {
                        self.acknowledged.lock().push((repository.clone(), tag, image));
                        break;
                    }
                    Err(Gone) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
    }

    async fn try_image(&self, repository: &str, tag: &str, image: &Image) -> Result<(), Gone> {
        for bytes in image.layers.iter().chain([&image.config]) {
            self.try_blob(repository, bytes).await?;
        }
        let target = format!("/v2/{repository}/manifests/{tag}");
        let manifest = &image.manifest;
        let put = self
            .send(Method::PUT, &target, manifest.bytes.clone(), &manifest.media_type)
            .await?;
        self.expect(put, 201).await
    }

    async fn try_blob(&self, repository: &str, bytes: &Bytes) -> Result<(), Gone> {
        let octets = "application/octet-stream";
        let digest = sha256(bytes);
        let head = self
            .send(
                Method::HEAD,
                &format!("/v2/{repository}/blobs/{digest}"),
                Bytes::new(),
                octets,
            )
            .await?;
        if head.status() == 200 {
            return Ok(());
        }
        let begun = self
            .send(
                Method::POST,
                &format!("/v2/{repository}/blobs/uploads/"),
                Bytes::new(),
                octets,
            )
            .await?;
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        self.expect(begun, 202).await?;
        let (first, second) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
        let patched = self.send(Method::PATCH, &location, first.clone(), octets).await?;
        self.expect(patched, 202).await?;
        let put = format!("{location}?digest={digest}");
        match self.send(Method::PUT, &put, second.clone(), octets).await {
            Ok(answer) => self.expect(answer, 201).await,
            Err(Gone) => self.resume(repository, &location, &digest, bytes, first.len()).await,
        }
    }

    /// Goes on with an upload of which the first `told` bytes were acknowledged, however often it is cut.
    async fn resume(
        &self,
        repository: &str,
        location: &str,
        digest: &str,
        bytes: &Bytes,
        told: usize,
    ) -> Result<(), Gone> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut seen = false;
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(status) = self.send(Method::GET, location, Bytes::new(), "text/plain").await else {
                continue;
            };
            if status.status() == 404 {
                let head = format!("/v2/{repository}/blobs/{digest}");
                match self.send(Method::HEAD, &head, Bytes::new(), "text/plain").await {
                    // The answer was lost, and not the blob.
                    Ok(head) if head.status() == 200 => return Ok(()),
                    Ok(_) => {}
                    Err(Gone) => continue,
                }
                self.cut.fetch_add(usize::from(!seen), Ordering::Relaxed);
                return Err(Gone);
            }
            self.cut.fetch_add(usize::from(!seen), Ordering::Relaxed);
            seen = true;
            let range = status.headers()["range"].to_str().unwrap();
            let last: usize = range.trim_start_matches("0-").parse().unwrap();
            let here = if last == 0 { told } else { last + 1 };
            assert!(here >= told, "{told} bytes were acknowledged, and {here} are here");
            let put = format!("{location}?digest={digest}");
            let rest = bytes.slice(here.min(bytes.len())..);
            let Ok(put) = self.send(Method::PUT, &put, rest, "application/octet-stream").await else {
                continue;
            };
            self.expect(put, 201).await?;
            self.resumed.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Err(Gone)
    }

    async fn expect(&self, answer: Response, status: u16) -> Result<(), Gone> {
        let got = answer.status().as_u16();
        if got == status {
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        // Nothing but a kill keeps anybody from pushing.
        panic!("{got} instead of {status}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_push_shared_layers_while_the_node_is_killed_and_all_that_was_acknowledged_is_whole() {
    let kills = sized(10, 50);
    let mut dice = Dice::new();
    let mut node = Setup::alone().registry().capacity("4GiB").start().await;
    let world = Arc::new(World {
        address: node.address(),
        client: reqwest_trusting(None),
        // Not of one byte: `Range: 0-0` may mean that it is here, and that nothing is.
        layers: (0..20).map(|_| random(1 + dice.size(MIB))).collect(),
        acknowledged: Mutex::default(),
        cut: AtomicUsize::new(0),
        resumed: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut pushers = JoinSet::new();
    for pusher in 0..PUSHERS {
        let (world, own) = (Arc::clone(&world), dice.another());
        pushers.spawn(async move { world.push(pusher, own).await });
    }
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(300 + dice.below(700) as u64)).await;
        node.restart().await;
        let so_far = world.acknowledged.lock().len();
        progress(&format!("kill {kill}: {so_far} images are acknowledged"));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.over.store(true, Ordering::Relaxed);
    while let Some(ended) = pushers.join_next().await {
        ended.expect("nothing was refused");
    }

    node.restart().await;
    let acknowledged = std::mem::take(&mut *world.acknowledged.lock());
    let (cut, resumed) = (world.cut.load(Ordering::Relaxed), world.resumed.load(Ordering::Relaxed));
    progress(&format!(
        "{} images acknowledged, {cut} uploads cut, {resumed} of them went on",
        acknowledged.len()
    ));
    assert!(acknowledged.len() > 50, "only {} images", acknowledged.len());
    assert!(cut > kills, "only {cut} uploads were cut");
    assert!(resumed * 10 >= cut * 9, "{resumed} of {cut} uploads went on");
    let check = async || {
        for (repository, tag, image) in &acknowledged {
            Pusher::of(node.client(), repository).assert_has(tag, image).await;
        }
    };
    check().await;
    node.collect("unused=0s").await;
    check().await;
    let mut known = HashSet::new();
    for repository in acknowledged
        .iter()
        .map(|(repository, ..)| repository)
        .collect::<HashSet<_>>()
    {
        let app = Pusher::of(node.client(), repository);
        for tag in app.tags().await {
            let manifest = app.get(&format!("manifests/{tag}")).await;
            known.insert(manifest.header("docker-content-digest").to_owned());
            let body = manifest.json();
            let layers = body["layers"].as_array().cloned().unwrap_or_default();
            let needed = layers.iter().chain([&body["config"]]);
            known.extend(needed.filter_map(|entry| entry["digest"].as_str().map(str::to_owned)));
        }
    }
    let orphans: Vec<String> = node
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("blobs"))
        .filter_map(|(path, _)| Some(format!("sha256:{}", path.file_name()?.to_str()?)))
        .filter(|digest| !known.contains(digest))
        .collect();
    assert!(orphans.is_empty(), "nobody needs {orphans:?}");
}

#[tokio::test]
async fn a_blob_of_gibibytes_takes_little_memory() {
    let node = Setup::alone().registry().capacity("12GiB").start().await;
    let app = Pusher::of(node.client(), "a");
    let piece = random(4 * MIB);
    let pieces = sized(256, 1280);
    let digest = sha256_of((0..pieces).map(|_| &piece[..]));
    let location = app.open().await;
    let put = Request::new("PUT", &format!("{location}?digest={digest}"))
        .header("Content-Length", &(pieces * piece.len()).to_string())
        .header("Connection", "close");
    let mut connection = node.client().connect().await;

    connection.write(&put.written("node")).await.unwrap();
    for _ in 0..pieces {
        connection.write(&piece).await.unwrap();
    }
    let reply = String::from_utf8_lossy(&connection.read_to_end().await).into_owned();

    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    let size = app
        .head(&format!("blobs/{digest}"))
        .await
        .header("content-length")
        .to_owned();
    assert_eq!(size, (pieces * piece.len()).to_string());
    let peak = peak_memory(node.pid());
    assert!(peak < 64 << 20, "{peak} bytes of memory");
}
