//! D4: chunks that are none.

use super::{Case, End};

pub(super) fn all() -> Vec<Case> {
    [chunks(), trailers()].into_iter().flatten().collect()
}

/// Sizes and extensions of chunks, and what stands between them.
fn chunks() -> Vec<Case> {
    let long = "y".repeat(9000);
    let sizes = [
        "+<hex>",
        "-<hex>",
        "0x<hex>",
        "0X<hex>",
        "x<hex>",
        "\\x<hex>",
        " <hex>",
        "\t<hex>",
        "\u{b}<hex>",
        "\0<hex>",
        "<hex>\0",
        "<hex>h",
        "<hex>.0",
        "<hex> <hex>",
        "<hex>,",
        "g",
        "_<hex>",
        "<hex>_0",
        "",
        " ",
        "\t",
        ";",
        ";x=y",
        " ;x",
        "\"<hex>\"",
        "\u{b2}",
        "<hex>\u{a0}",
        "<hex>\u{b}",
        "<hex>\r",
        "<hex>\rx",
        "\r\n<hex>",
        "\n<hex>",
        "10000000000000000",
        "1000000000000000<hex>",
        "FFFFFFFFFFFFFFFF",
        "FFFFFFFFFFFFFFFF1",
        "FFFFFFFFFFFFFFFE",
        "00000000000000000000000000<hex>",
        "<hex>;\n",
        "<hex>;x\n0",
        "<hex>;x=\"\ny\"",
        "<hex>;x\ry",
        "<hex>\n",
    ];
    let mut cases: Vec<Case> = sizes
        .iter()
        .map(|size| format!("{size}\r\n<body>\r\n0\r\n\r\n"))
        .chain([
            "<hex>\n<body>\n0\n\n".to_owned(),
            "<hex>\n<body>\r\n0\r\n\r\n".to_owned(),
            "<hex>\r<body>\r\n0\r\n\r\n".to_owned(),
            "<hex><body>\r\n0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>\n0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>\r0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>xx0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>x\r\n0\r\n\r\n".to_owned(),
            "<hex>\r\n<body>\n\r0\r\n\r\n".to_owned(),
            "1\r\n<body>\r\n0\r\n\r\n".to_owned(),
            "1\r\nx\r\n\r\n\r\n".to_owned(),
            "\r\n\r\n".to_owned(),
            "\r\n".to_owned(),
            "<hex>;\u{1}\n<body>\r\n0\r\n\r\n".to_owned(),
            format!("{}<hex>\r\n<body>\r\n0\r\n\r\n", "0".repeat(9000)),
        ])
        .map(|body| Case::new("D4", End::Doubtful, "Transfer-Encoding: chunked\r\n", &body))
        .collect();
    for size in [1, 8] {
        let body = format!("<hex>;{}\r\n<body>\r\n0\r\n\r\n", long.repeat(size));
        cases.push(Case::new("D4", End::Clear, "Transfer-Encoding: chunked\r\n", &body));
    }
    for body in [
        "<HEX>\r\n<body>\r\n0\r\n\r\n",
        "0000<hex>\r\n<body>\r\n0000\r\n\r\n",
        "<hex>;x\r\n<body>\r\n0\r\n\r\n",
        "<hex>;x=y;z=\"a b\"\r\n<body>\r\n0;x=y\r\n\r\n",
        "<hex> ;x\r\n<body>\r\n0\r\n\r\n",
        "<hex>;0\r\n<body>\r\n0\r\n\r\n",
        "<hex>;\u{ff}\u{fe}\r\n<body>\r\n0\r\n\r\n",
        "<hex> \r\n<body>\r\n0 \r\n\r\n",
        "<hex>;\0\r\n<body>\r\n0\r\n\r\n",
    ] {
        cases.push(Case::new("D4", End::Clear, "Transfer-Encoding: chunked\r\n", body));
    }
    cases
}

/// What ends the last chunk, and trailers.
fn trailers() -> Vec<Case> {
    let long = format!("X: {}\r\n", "y".repeat(70_000));
    let many = "X: y\r\n".repeat(20_000);
    let doubtful = [
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "0x0\r\n\r\n",
        "0.0\r\n\r\n",
        "0,\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\r\n\r\n",
        "0\r\n\r\r\n",
        "0;\n\r\n\r\n",
        "0\r\n\rX",
        "00000000000000000000000000000000\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n Z: 1\r\n\r\n",
        "0\r\nX\0: y\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: y\rZ\r\n\r\n",
        "0\r\nX: y\n\n",
        "0\r\nX: y\nZ: 1\r\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\n<bait>",
        "0\r\nX: y\r\n<bait>",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    let clear = [
        "0\r\nX: y\r\n\r\n",
        "0;x\r\nX: y\r\nZ: 1\r\n\r\n",
        "0\r\nContent-Length: 1000\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: y\r\n\r\n",
        "0\r\nConnection: close\r\n\r\n",
        "0\r\nAuthorization: Bearer x\r\n\r\n",
        "0\r\nX: GET /v2/ HTTP/1.1\r\n\r\n",
        "0\r\nX:\r\n\r\n",
        // The next request is taken for a trailer.
        "0\r\nx: y",
        "0\r\n",
        "0\r",
        "0",
    ];
    let longer = [format!("0\r\n{long}\r\n"), format!("0\r\n{many}\r\n")];
    let first = "<hex>\r\n<body>\r\n";
    let case = |end, rest: &str| Case::new("D4", end, "Transfer-Encoding: chunked\r\n", &(first.to_owned() + rest));
    let mut cases: Vec<Case> = doubtful.iter().map(|rest| case(End::Doubtful, rest)).collect();
    cases.extend(longer.iter().map(|rest| case(End::Doubtful, rest)));
    cases.extend(clear.iter().map(|rest| case(End::Clear, rest)));
    let named = "Trailer: X\r\nTransfer-Encoding: chunked\r\n";
    cases.push(Case::new("D4", End::Clear, named, &format!("{first}0\r\nX: y\r\n\r\n")));
    cases
}
