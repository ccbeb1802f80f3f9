//! D3: heads that say in doubtful words, or twice, or not at all, where a request ends.

use super::{CHUNKED, Case, End};

pub(super) fn all() -> Vec<Case> {
    [heads(), lengths(), codings()].into_iter().flatten().collect()
}

/// Heads that end, or go on, in odd ways.
fn heads() -> Vec<Case> {
    let fields = [
        "X: y\r\n Content-Length: <size>\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        " X: y\r\n",
        "X\r\n",
        ": y\r\n",
        " : y\r\n",
        ":\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        "X\0: y\r\n",
        "X\u{b}: y\r\n",
        "X\u{ff}: y\r\n",
        "X(): y\r\n",
        "X: y\0\r\n",
        "X: \u{1}y\r\n",
        "X: \u{7f}\r\n",
        "X: y\rContent-Length: <size>\r\n",
        "X: y\r\rTransfer-Encoding: chunked\r\n",
        "X: y\r\r\n",
        "\r\r\n",
        "Host: x\r\n",
        "Host: y\r\n",
        "Host : x\r\n",
    ];
    let lines = [
        "<method> <target> HTTP/1.1\r\n\r\n",
        "<method> <target> HTTP/1.1\r\nContent-Length: <size>\r\n\r\n<body>",
        "<method>  <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method>\t<target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method>\u{b}<target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method> <target>  HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/1.1 \r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/1.1\rHost: x\r\n\r\n",
        "<method> <target> HTTP/1.1x\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/1.2\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/01.1\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/1,1\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/2.0\r\nHost: x\r\n\r\n",
        "<method> <target> HTTP/+1.1\r\nHost: x\r\n\r\n",
        "<method> <target> http/1.1\r\nHost: x\r\n\r\n",
        "<method> <target> HTTPS/1.1\r\nHost: x\r\n\r\n",
        "<method> <target>\r\n\r\n",
        "<method> <target>\r\nHost: x\r\n\r\n",
        "<method>\r\nHost: x\r\n\r\n",
        " <method> <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "\0<method> <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method>\0 <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method> <target>\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method>\r <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        "X: y\r\n<method> <target> HTTP/1.1\r\nHost: x\r\n\r\n",
        // What stands between the spaces is made a target by some, whose lengths are to be as good as others'.
        "<method> <target> x HTTP/1.1\r\nHost: x\r\n\r\n",
        "<method> <target> x HTTP/1.1\r\nHost: x\r\nContent-Length: <size>\r\nTransfer-Encoding: chunked\r\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "<method> <target> x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "<method> <target> x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "<method> <target> x HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
        "<method> <target> x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "<method> <target>\" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "<method> <target>\u{7f} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "<method> <target> HTTP/1.1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
        "<method> <target> HTTP/1.0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ];
    let clear = [
        "<method> <target> HTTP/1.1\r\nHost: u@x\r\n\r\n",
        "<method> <target> HTTP/1.1\nHost: x\n\n",
        "<method> <target> HTTP/1.1\nHost: x\nContent-Length: <size>\n\n<body>",
        "<method> <target> HTTP/1.1\r\nHost: x\nContent-Length: <size>\r\n\n<body>",
        "<method> <target> HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "<method> <target> HTTP/1.1\r\nHost: x\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n<hex>\r\n<body>\r\n0\r\n\r\n",
        "<method> <target> HTTP/1.1\r\nHost: x\r\nX: y\nContent-Length: <size>\r\n\r\n<body>",
    ];
    let mut cases: Vec<Case> = fields
        .iter()
        .map(|fields| Case::new("D3", End::Doubtful, fields, ""))
        .collect();
    cases.extend(lines.iter().map(|text| Case::whole("D3", End::Doubtful, text)));
    // RFC 9112, section 2.2: a lone line feed may be taken for the end of a line, and is here.
    cases.extend(clear.iter().map(|text| Case::whole("D3", End::Clear, text)));
    cases
}

/// Lengths that are none, too many, or beside chunks.
fn lengths() -> Vec<Case> {
    let values = [
        "+<size>",
        "-<size>",
        "-1",
        "-0",
        "+0",
        "0x0",
        "0x<hex>",
        "<hex>h",
        "<size>.0",
        "0.0",
        "<size>e0",
        "<size> <size>",
        "0 0",
        "<size>;",
        "<size>,",
        ",<size>",
        "<size>, <size>",
        "0, 0",
        "0, <size>",
        "<size>, 0",
        "<size>,<size>,<size>",
        "0b0",
        "0_0",
        "\"<size>\"",
        "'0'",
        "(0)",
        "",
        " ",
        "zero",
        "\u{b2}",
        "<size>\0",
        "\0<size>",
        "\u{b}<size>",
        "<size>\u{c}",
        "\u{a0}<size>",
        "<size>\u{85}",
        "18446744073709551616",
        "18446744073709551616<size>",
        "99999999999999999999999999999999999999",
        "<size>\r\n 0",
        "\r\n <size>",
    ];
    let fields = [
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: <size>\r\nContent-Length: <size>\r\n",
        "Content-Length: 0\r\nContent-Length: <size>\r\n",
        "Content-Length: <size>\r\nContent-Length: 0\r\n",
        "Content-Length: <size>\r\ncontent-length: 00<size>\r\n",
        "Content-Length : <size>\r\n",
        "Content-Length\t: <size>\r\n",
        "Content-Length\u{b}: <size>\r\n",
        " Content-Length: <size>\r\n",
        "Content-Length <size>\r\n",
        "Content-Length\r\n: <size>\r\n",
        "Content-Length:: <size>\r\n",
        "Content-Length\0: <size>\r\n",
    ];
    let values = values.iter().map(|value| format!("Content-Length: {value}\r\n"));
    values
        .chain(fields.map(str::to_owned))
        .map(|fields| Case::new("D3", End::Doubtful, &fields, "<body>"))
        .collect()
}

/// Codings that are not exactly `chunked`, or stand beside a length, or in a request of HTTP/1.0.
fn codings() -> Vec<Case> {
    let values = [
        "chunked, identity",
        "identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "chunked; foo",
        "\"chunked\"",
        "'chunked'",
        "xchunked",
        "x-chunked",
        "chunkedx",
        "chunke",
        "chunked chunked",
        "chunked\0",
        "\0chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "\u{a0}chunked",
        "\u{ff}chunked",
        "chun\rked",
        "\rchunked",
        "\r\n chunked",
        "\n chunked",
        "chunked\r\n identity",
        "",
        "none",
        "cow, chunked",
        "chunked\u{85}",
        "\u{1f}chunked",
    ];
    let values = values.iter().map(|value| format!("Transfer-Encoding: {value}\r\n"));
    let fields = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: <size>\r\n",
        "content-length: <size>\r\ntransfer-encoding: CHUNKED\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: <size>\r\n",
        "Transfer-Encoding: x\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: \r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding\u{b}: chunked\r\n",
        "Transfer-Encoding\0: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Enc\u{f6}ding: chunked\r\nContent-Length: 5\r\n",
    ];
    let doubtful = values.chain(fields.map(str::to_owned));
    let mut cases: Vec<Case> = doubtful
        .map(|fields| Case::new("D3", End::Doubtful, &fields, CHUNKED))
        .collect();
    for head in [
        "HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n",
    ] {
        cases.push(Case::whole(
            "D3",
            End::Doubtful,
            &format!("<method> <target> {head}\r\n{CHUNKED}"),
        ));
    }
    for field in [
        "transfer-encoding:chunked",
        "Transfer-Encoding: \t chunked \t ",
        "TRANSFER-ENCODING: Chunked",
    ] {
        cases.push(Case::new("D3", End::Clear, &format!("{field}\r\n"), CHUNKED));
    }
    cases
}
