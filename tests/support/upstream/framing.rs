//! Where the body of a request ends: by its length or by its chunks (RFC 9112, sections 6 and 7.1).

use super::ledger::Seen;

/// What is still to come of a body.
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    /// Bytes that are left of the current chunk.
    Chunked(u64),
    Ended,
}

impl Framing {
    pub fn of(seen: &Seen) -> Self {
        if seen.header("transfer-encoding").is_some() {
            return Self::Chunked(0);
        }
        match seen.header("content-length").and_then(|length| length.parse().ok()) {
            None | Some(0) => Self::Ended,
            Some(length) => Self::Length(length),
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Takes the next piece of the body off `read`; `None` when more must be read first, or nothing follows.
    pub fn next(&mut self, read: &mut Vec<u8>) -> Option<Vec<u8>> {
        if let Self::Chunked(0) = self {
            self.next_chunk(read)?;
        }
        let (Self::Length(left) | Self::Chunked(left)) = self else {
            return None;
        };
        let count = (read.len() as u64).min(*left) as usize;
        *left -= count as u64;
        if let Self::Length(0) = self {
            *self = Self::Ended;
        }
        (count > 0).then(|| read.drain(..count).collect())
    }

    /// Takes the line before a chunk, and the end of the line that ends the chunk before.
    fn next_chunk(&mut self, read: &mut Vec<u8>) -> Option<()> {
        let start = if read.starts_with(b"\r\n") { 2 } else { 0 };
        let length = read[start..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&read[start..start + length]).into_owned();
        let size = u64::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let end = start + length + 2;
        if size > 0 {
            read.drain(..end);
            *self = Self::Chunked(size);
        } else if read.len() >= end + 2 {
            read.drain(..end + 2);
            *self = Self::Ended;
        } else {
            return None;
        }
        Some(())
    }
}
