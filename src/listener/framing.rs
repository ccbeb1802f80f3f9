use httparse::{Header, Status};

/// Fields that are looked through: pingora reads no more.
const FIELDS: usize = 256;

/// Whether everyone finds the end of a request's body in the same place (RFC 9112, section 6): by one length in
/// digits; or in chunks and nothing else, which HTTP/1.0 does not know.
///
/// Looked at as it came: pingora drops a length beside chunks, and mends a first line that cannot be read.
pub(super) fn is_certain(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(head), Ok(Status::Complete(_))) {
        return false;
    }
    let named = |name: &str| -> Vec<&Header<'_>> {
        let fields = request.headers.iter();
        fields.filter(|field| field.name.eq_ignore_ascii_case(name)).collect()
    };
    match (&*named("content-length"), &*named("transfer-encoding")) {
        ([], []) => true,
        ([length], []) => !length.value.is_empty() && length.value.iter().all(u8::is_ascii_digit),
        ([], [coding]) => coding.value.eq_ignore_ascii_case(b"chunked") && request.version == Some(1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certain(fields: &str) -> bool {
        is_certain(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn one_length_or_chunks_are_certain_and_everything_else_is_not() {
        for fields in [
            "",
            "Content-Length: 0\r\n",
            "content-length:  18\r\n",
            "Transfer-Encoding: Chunked\r\n",
        ] {
            assert!(certain(fields), "{fields:?}");
        }
        for fields in [
            "Content-Length: 0\r\nContent-Length: 0\r\n",
            "Content-Length: 0, 0\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity, chunked\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(!certain(fields), "{fields:?}");
        }
        assert!(!is_certain(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }
}
