//! Pushes blobs or images over kept-alive connections, each client a thread, and prints what that took.
//!
//! ```text
//! push_load ADDRESS REPOSITORY CLIENTS EACH blobs BYTES    ->   {"bytes": 268435456, "seconds": 0.5, "pushed": 4}
//! push_load ADDRESS REPOSITORY CLIENTS EACH images LAYERS  ->   {"bytes": 1234567, "seconds": 2.5, "pushed": 400}
//! ```
//!
//! A blob is one POST and one PUT with all of it, as containerd pushes. An image is a HEAD and that for each of its layers, of
//! 4 KiB, and for its config; then its manifest by a tag. Whatever is pushed was never seen before. What is made and hashed on this
//! side is not timed. Any answer but the right one ends it with an error.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and has no logic that a test would time"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use wharf::oci::Digest;

const SILENCE: Duration = Duration::from_secs(60);
const LAYER: usize = 4096;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, repository, clients, each, kind, size] = &arguments[..] else {
        eprintln!("push_load ADDRESS REPOSITORY CLIENTS EACH blobs|images SIZE");
        std::process::exit(2);
    };
    let (clients, each, size): (u64, u64, usize) = (number(clients), number(each), number(size));
    let images = kind == "images";
    let ready = Arc::new(Barrier::new(usize::try_from(clients).unwrap_or(1) + 1));
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let (address, repository, ready) = (address.clone(), repository.clone(), ready.clone());
            thread::spawn(move || {
                let pushes: Vec<Image> = (0..each).map(|_| Image::new(images, size)).collect();
                let mut registry = Connection::open(&address, &repository);
                ready.wait();
                for (number, image) in pushes.iter().enumerate() {
                    registry.push(image, images.then(|| format!("c{client}-{number}")));
                }
                pushes.iter().map(Image::bytes).sum::<usize>()
            })
        })
        .collect();
    ready.wait();
    let began = Instant::now();
    let bytes: usize = threads
        .into_iter()
        .map(|client| client.join().unwrap_or_else(|_| fail("a client failed")))
        .sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{{\"bytes\": {bytes}, \"seconds\": {seconds:.6}, \"pushed\": {}}}",
        clients * each
    );
}

/// Blobs, and perhaps a manifest that names them.
struct Image {
    blobs: Vec<(Digest, Vec<u8>)>,
    manifest: Vec<u8>,
}

impl Image {
    fn new(is_image: bool, size: usize) -> Self {
        let sizes = if is_image { vec![LAYER; size] } else { vec![size] };
        let mut blobs: Vec<(Digest, Vec<u8>)> = sizes.into_iter().map(noise).collect();
        if !is_image {
            return Self {
                blobs,
                manifest: Vec::new(),
            };
        }
        let described = |(digest, bytes): &(Digest, Vec<u8>)| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{}}}"#,
                bytes.len()
            )
        };
        let layers: Vec<String> = blobs.iter().map(described).collect();
        let config = noise(512);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":512}},"layers":[{}]}}"#,
            config.0,
            layers.join(",")
        );
        blobs.push(config);
        Self {
            blobs,
            manifest: manifest.into_bytes(),
        }
    }

    fn bytes(&self) -> usize {
        self.blobs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + self.manifest.len()
    }
}

fn noise(size: usize) -> (Digest, Vec<u8>) {
    let mut state: u64 = rand::random::<u64>() | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    (Digest::of(&bytes), bytes)
}

struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
    repository: String,
}

impl Connection {
    fn open(address: &str, repository: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| fail(&format!("{address}: {error}")));
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(SILENCE)));
        set.unwrap_or_else(|error| fail(&error.to_string()));
        Self {
            stream: BufReader::new(stream),
            address: address.to_owned(),
            repository: repository.to_owned(),
        }
    }

    fn push(&mut self, image: &Image, tag: Option<String>) {
        let repository = self.repository.clone();
        for (digest, bytes) in &image.blobs {
            if tag.is_some() {
                self.ask("HEAD", &format!("/v2/{repository}/blobs/{digest}"), "", &[], 404);
            }
            let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[], 202);
            let location = begun.unwrap_or_else(|| fail("no Location"));
            let path = location.split_once(&self.address).map_or(&*location, |(_, path)| path);
            let mark = if path.contains('?') { '&' } else { '?' };
            let put = format!("{path}{mark}digest={digest}");
            self.ask("PUT", &put, "application/octet-stream", bytes, 201);
        }
        if let Some(tag) = tag {
            let target = format!("/v2/{repository}/manifests/{tag}");
            self.ask("PUT", &target, MANIFEST, &image.manifest, 201);
        }
    }

    /// The `Location` of the answer.
    fn ask(&mut self, method: &str, target: &str, media_type: &str, body: &[u8], wanted: u16) -> Option<String> {
        self.exchange(method, target, media_type, body, wanted)
            .unwrap_or_else(|error| fail(&format!("{method} {target}: {error}")))
    }

    fn exchange(
        &mut self,
        method: &str,
        target: &str,
        media_type: &str,
        body: &[u8],
        wanted: u16,
    ) -> io::Result<Option<String>> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if method != "HEAD" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        if !media_type.is_empty() {
            head += &format!("Content-Type: {media_type}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        let stream = self.stream.get_mut();
        if body.len() < 16 << 10 {
            bytes.extend_from_slice(body);
            stream.write_all(&bytes)?;
        } else {
            stream.write_all(&bytes)?;
            stream.write_all(body)?;
        }
        self.answer(method, wanted)
    }

    fn answer(&mut self, method: &str, wanted: u16) -> io::Result<Option<String>> {
        let (mut line, mut status, mut length, mut location) = (String::new(), 0, 0, None);
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if status == 0 {
                status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(1);
            } else if let Some((name, value)) = text.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap_or(0),
                    "location" => location = Some(value.trim().to_owned()),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        if status != wanted {
            let text = String::from_utf8_lossy(&body);
            return Err(io::Error::other(format!("answered {status}, not {wanted}: {text}")));
        }
        Ok(location)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| fail(&format!("{text:?} is no number")))
}

fn fail(words: &str) -> ! {
    eprintln!("push_load: {words}");
    std::process::exit(1)
}
