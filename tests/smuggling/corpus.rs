//! First requests behind which another one hides.
//!
//! Each is a text with places in angle brackets; a character up to U+00FF stands for the byte of its number. What they have
//! for a body begins with a whole request, which nobody may ever answer.

/// D4.
mod chunks;
/// D3.
mod heads;

use std::fmt::Write as _;

use super::early::Early;

/// What everybody has to think of the end of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It is where the specification says it is, and what stands behind it is a request of its own.
    Clear,
    /// Two servers may find it in different places.
    Doubtful,
}

/// One first request.
pub struct Case {
    /// A row of the list of attacks: `D1` to `D4`.
    pub class: &'static str,
    pub end: End,
    text: String,
}

impl Case {
    /// Of fields, and what follows the head.
    fn new(class: &'static str, end: End, fields: &str, body: &str) -> Self {
        Self::whole(
            class,
            end,
            &format!("<method> <target> HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}"),
        )
    }

    fn whole(class: &'static str, end: End, text: &str) -> Self {
        let text = text.to_owned();
        Self { class, end, text }
    }

    /// Whether its body begins with a request.
    pub fn has_bait(&self) -> bool {
        self.text.contains("<bait>") || self.text.contains("<body>")
    }

    /// The bytes, as a request for what `early` answers, with `bait` in its body.
    pub fn bytes(&self, early: Early, target: &str, bait: &str) -> Vec<u8> {
        let body = bait.to_owned() + &"x".repeat(early.filler());
        let size = body.len();
        let places = [
            ("<method>", early.method().to_owned()),
            ("<target>", target.to_owned()),
            ("<size>", size.to_string()),
            ("<more>", (size + 1000).to_string()),
            ("<hex>", format!("{size:x}")),
            ("<HEX>", format!("{size:X}")),
            ("<bait>", bait.to_owned()),
            ("<body>", body),
        ];
        let text = places
            .iter()
            .fold(self.text.clone(), |text, (place, with)| text.replace(place, with));
        text.chars()
            .map(|letter| u8::try_from(letter).expect("a byte"))
            .collect()
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text.strip_prefix("<method> <target> HTTP/1.1\r\nHost: x\r\n");
        let mut text = text.unwrap_or(&self.text).escape_default().to_string();
        if text.len() > 160 {
            let length = text.len();
            text.truncate(160);
            let _ = write!(text, "... ({length})");
        }
        write!(f, "{} {:?} \"{text}\"", self.class, self.end)
    }
}

/// All of them.
pub fn corpus() -> Vec<Case> {
    [unwanted(), tunnels(), heads::all(), chunks::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// In one chunk.
const CHUNKED: &str = "<hex>\r\n<body>\r\n0\r\n\r\n";

/// D1: bodies that nobody asked for, each with an end that nobody doubts.
fn unwanted() -> Vec<Case> {
    let large = "x".repeat(200_000);
    let within = "x".repeat(60_000);
    let with = |field: &str| (format!("{field}\r\nContent-Length: <size>\r\n"), "<body>".to_owned());
    let in_chunks = |field: &str| (format!("{field}\r\nTransfer-Encoding: chunked\r\n"), CHUNKED.to_owned());
    let sized = |size: usize, body: &str| (format!("Content-Length: {size}\r\n"), body.to_owned());
    let chunked = |body: &str| ("Transfer-Encoding: chunked\r\n".to_owned(), body.to_owned());
    let cases = [
        (String::new(), String::new()),
        sized(0, ""),
        ("Content-Length: <size>\r\n".to_owned(), "<body>".to_owned()),
        ("Content-Length: 00000<size>\r\n".to_owned(), "<body>".to_owned()),
        ("content-length:<size>\r\n".to_owned(), "<body>".to_owned()),
        ("CONTENT-LENGTH: \t <size> \t\r\n".to_owned(), "<body>".to_owned()),
        sized(1, "x"),
        sized(2, "\r\n"),
        sized(8, "\r\n\r\n\r\n\r\n"),
        sized(5, "0\r\n\r\n"),
        sized(60_000, &within),
        sized(200_000, &large),
        chunked(CHUNKED),
        chunked("0\r\n\r\n"),
        chunked("1\r\nx\r\n1\r\nx\r\n2\r\n\r\n\r\n0\r\n\r\n"),
        chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        chunked(&format!("{:x}\r\n{within}\r\n0\r\n\r\n", within.len())),
        chunked(&format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())),
        chunked(&("1\r\nx\r\n".repeat(3000) + "0\r\n\r\n")),
        // The next request is taken for the rest of it, and no more comes.
        ("Content-Length: <more>\r\n".to_owned(), "<body>".to_owned()),
        sized(1_000_000_000, "<bait>"),
        (
            "Content-Length: 9223372036854775808\r\n".to_owned(),
            "<bait>".to_owned(),
        ),
        (
            "Content-Length: 18446744073709551615\r\n".to_owned(),
            "<bait>".to_owned(),
        ),
        chunked("100000000<hex>\r\n<bait>"),
        chunked("7FFFFFFFFFFFFFFF\r\n<bait>"),
        chunked("8000000000000000\r\n<bait>"),
        chunked("<hex>\r\n<body>\r\n"),
        chunked("fffff\r\n<bait>"),
        with("Expect: 100-continue"),
        in_chunks("Expect: 100-continue"),
        with("Expect: 200-ok"),
        with("Connection: close"),
        with("Connection: keep-alive"),
        in_chunks("Connection: close"),
        with("If-None-Match: *"),
        in_chunks("If-None-Match: *"),
        with("Range: bytes=0-0"),
        with("Range: bytes=0-0,2-2"),
        in_chunks("Range: bytes=5-"),
        with("Range: bytes=999999999-"),
        in_chunks("Range: bytes=999999999-"),
        with("Content-Range: bytes 0-0/1"),
        with("Content-Type: application/x-www-form-urlencoded"),
        with("Content-Encoding: gzip"),
        with("Authorization: Bearer x"),
        in_chunks("Authorization: Basic eDp5"),
        with("X-HTTP-Method-Override: PUT"),
        with("TE: chunked, trailers"),
        with("Content_Length: 0"),
        with("Transfer_Encoding: chunked"),
        with("X-Content-Length: 0\r\nX-Transfer-Encoding: chunked"),
    ];
    cases
        .iter()
        .map(|(fields, body)| Case::new("D1", End::Clear, fields, body))
        .chain([
            Case::whole(
                "D1",
                End::Clear,
                "\r\n\r\n<method> <target> HTTP/1.1\r\nHost: x\r\nContent-Length: <size>\r\n\r\n<body>",
            ),
            Case::whole(
                "D1",
                End::Clear,
                "<method> <target> HTTP/1.1\r\nHost: x\r\nContent-Length: <size>\r\n\r\n<body>\r\n\r\n",
            ),
            Case::whole(
                "D1",
                End::Clear,
                "<method> <target> HTTP/1.0\r\nContent-Length: <size>\r\n\r\n<body>",
            ),
            Case::whole(
                "D1",
                End::Clear,
                "<method> <target> HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: <size>\r\n\r\n<body>",
            ),
        ])
        .collect()
}

/// D2: other protocols, tunnels, and fields that are to be taken away.
fn tunnels() -> Vec<Case> {
    let h2c = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let fields = [
        "Upgrade: foo\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: foo\r\n".to_owned(),
        format!("Connection: Upgrade, HTTP2-Settings\r\n{h2c}"),
        format!("Connection: HTTP2-Settings\r\n{h2c}"),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 0\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11\r\n".to_owned(),
        "Connection: upgrade, close\r\nUpgrade: foo\r\n".to_owned(),
        "Connection: keep-alive, Upgrade\r\nUpgrade: foo\r\nUpgrade: bar\r\n".to_owned(),
        "Connection: Upgrade\r\n".to_owned(),
        "Upgrade-Insecure-Requests: 1\r\n".to_owned(),
        "Connection: close, Host\r\n".to_owned(),
        "Connection: Host, Authorization, X-Y\r\nX-Y: z\r\n".to_owned(),
        "Connection: Content-Length\r\n".to_owned(),
        "Connection: Transfer-Encoding\r\n".to_owned(),
        "Connection: TE, Trailer\r\nTE: trailers\r\nTrailer: Content-Length\r\n".to_owned(),
        "Connection: keep-alive, close\r\n".to_owned(),
        "Connection: close\r\nConnection: keep-alive\r\n".to_owned(),
        "Connection: keep-alive\r\nConnection: close\r\n".to_owned(),
        "Connection: \r\n".to_owned(),
        "Connection: ,,,\r\n".to_owned(),
        "Connection: xclose\r\n".to_owned(),
        "Connection: \u{ff}close\r\n".to_owned(),
        "Keep-Alive: timeout=100000, max=0\r\n".to_owned(),
        "Proxy-Connection: close\r\n".to_owned(),
        "Proxy-Connection: Upgrade\r\nProxy-Authorization: Basic eDp5\r\n".to_owned(),
    ];
    let mut cases = Vec::new();
    for fields in &fields {
        cases.push(Case::new("D2", End::Clear, fields, ""));
    }
    for fields in &fields[..10] {
        let (sized, chunked) = (
            format!("{fields}Content-Length: <size>\r\n"),
            format!("{fields}Transfer-Encoding: chunked\r\n"),
        );
        cases.push(Case::new("D2", End::Clear, &sized, "<body>"));
        cases.push(Case::new("D2", End::Clear, &chunked, CHUNKED));
    }
    // Nobody is connected to anything.
    for text in [
        "CONNECT parent:443 HTTP/1.1\r\nHost: parent:443\r\n\r\n",
        "CONNECT parent:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT parent:443 HTTP/1.0\r\n\r\n",
        "CONNECT <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT http://x<target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT parent:443 HTTP/1.1\r\nHost: parent:443\r\nContent-Length: <size>\r\n\r\n<body>",
        "CONNECT parent:443 HTTP/1.1\r\nHost: parent:443\r\nTransfer-Encoding: chunked\r\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "CONNECT parent:443 HTTP/1.1\r\nHost: parent:443\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    ] {
        cases.push(Case::whole("D2", End::Clear, text));
    }
    for text in [
        "<method> <target> HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
        "<method> <target> HTTP/1.0\r\nConnection: keep-alive, Upgrade\r\nUpgrade: foo\r\nContent-Length: <size>\r\n\r\n<body>",
        "<method> http://x<target> HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    ] {
        cases.push(Case::whole("D2", End::Clear, text));
    }
    cases.push(Case::whole("D2", End::Doubtful, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    cases
}
