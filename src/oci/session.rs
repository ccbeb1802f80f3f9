//! The name of an upload while it lasts.

use std::fmt;
use std::str::FromStr;

/// A random UUID (RFC 9562, 5.4): an upload's location must hold one (distribution spec, "Pushing blobs").
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(u128);

/// A text is not the name of an upload. The caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the name of an upload; it is the location that was given when it began")]
pub struct SessionIdError;

impl SessionId {
    /// One that nobody can guess.
    pub fn random() -> Self {
        const VERSION_4: u128 = 4 << 76;
        const VARIANT: u128 = 0b10 << 62;
        let bits: u128 = rand::random();
        Self(bits & !(0xf << 76 | 0b11 << 62) | VERSION_4 | VARIANT)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (low, rest) = hex.split_at(8);
        let (middle, rest) = rest.split_at(4);
        let (high, rest) = rest.split_at(4);
        let (sequence, node) = rest.split_at(4);
        write!(f, "{low}-{middle}-{high}-{sequence}-{node}")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        let hex = text.replace('-', "");
        let is_hex = hex.bytes().all(|letter| letter.is_ascii_hexdigit());
        let id = u128::from_str_radix(&hex, 16).ok().filter(|_| is_hex).map(Self);
        // Written in one way only.
        id.filter(|id| id.to_string() == text).ok_or(SessionIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_in_no_other_way() {
        let id = SessionId::random();
        let text = id.to_string();

        assert_eq!(text.parse(), Ok(id));
        assert_eq!((text.len(), &text[14..15]), (36, "4"));
        assert!("89ab".contains(&text[19..20]), "{text}");
        for wrong in [
            &text[1..],
            &text.to_uppercase(),
            &text.replace('-', ""),
            "",
            "+1",
            "../x",
        ] {
            assert!(wrong == text || wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
        assert_ne!(SessionId::random(), id);
    }
}
