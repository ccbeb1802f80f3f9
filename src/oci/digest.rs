//! The digest: what content is called.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher as HashState};
use std::str::FromStr;

use crate::oci::Hasher;
use crate::units::written_as_text;

/// An algorithm whose digests can be verified here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// SHA-256, the one of nearly all content.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm as it stands before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits follow the colon.
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(name: &str) -> Result<Self, DigestError> {
        let all = [Self::Sha256, Self::Sha512].into_iter();
        let mut named = all.filter(|algorithm| algorithm.as_str() == name);
        named.next().ok_or(DigestError::UnsupportedAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A digest of content, like `sha256:e3b0...b855` (image spec, "Digests").
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digest(Sum);

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Sum {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, content)
    }

    /// The digest of `content` by `algorithm`.
    pub fn of_with(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm that made it.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Sum::Sha256(_) => Algorithm::Sha256,
            Sum::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lower-case hexadecimal digits behind the colon.
    pub fn hex(&self) -> String {
        Hex(self.bytes()).to_string()
    }

    /// The sum itself: 32 or 64 bytes.
    pub const fn bytes(&self) -> &[u8] {
        match &self.0 {
            Sum::Sha256(sum) => sum,
            Sum::Sha512(sum) => sum,
        }
    }
}

impl From<[u8; 32]> for Digest {
    fn from(sum: [u8; 32]) -> Self {
        Self(Sum::Sha256(sum))
    }
}

impl From<[u8; 64]> for Digest {
    fn from(sum: [u8; 64]) -> Self {
        Self(Sum::Sha512(sum))
    }
}

/// Why a text is no digest that can be used here. The caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// It does not follow the grammar, or has the wrong digits for its algorithm.
    #[error("not a digest; write sha256: and 64 lower-case hexadecimal digits, or sha512: and 128")]
    Malformed,

    /// A well-formed digest of an algorithm that cannot be verified here.
    #[error("a digest of an unsupported algorithm; use sha256 or sha512")]
    UnsupportedAlgorithm,
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let sum = match algorithm {
            "sha256" => unhex(encoded).map(Sum::Sha256),
            "sha512" => unhex(encoded).map(Sum::Sha512),
            _ if is_algorithm(algorithm) && is_encoded(encoded) => {
                return Err(DigestError::UnsupportedAlgorithm);
            }
            _ => None,
        };
        sum.map(Self).ok_or(DigestError::Malformed)
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*` (image spec, "Digests").
fn is_algorithm(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split(['+', '.', '_', '-']).all(is_part)
}

/// `[a-zA-Z0-9=_-]+` (image spec, "Digests").
fn is_encoded(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Reads exactly `N` bytes from lower-case digits: the specification knows no others.
fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut sum = [0; N];
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(sum)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";

        // In one piece: every answer has a digest in two of its headers.
        let mut text = [0; 128];
        let digits = text.as_chunks_mut().0;
        for ([high, low], byte) in digits.iter_mut().zip(self.0) {
            *high = DIGITS[usize::from(byte >> 4)];
            *low = DIGITS[usize::from(byte & 15)];
        }
        let text = str::from_utf8(&text[..self.0.len() * 2]).map_err(|_| fmt::Error)?;
        f.write_str(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_char(':')?;
        Hex(self.bytes()).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// One call with all the bytes: cheap, and clients, who may ask for any digest, cannot choose ones
// that collide as they could if a prefix were taken for the hash.
impl Hash for Digest {
    fn hash<H: HashState>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

written_as_text!(Digest);

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_one_of_the_standard() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(
            Digest::of_with(Algorithm::Sha512, b"abc").to_string(),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }

    #[test]
    fn a_digest_reads_back_and_tells_its_parts() {
        let digest: Digest = EMPTY.parse().unwrap();

        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        assert_eq!(digest.hex(), EMPTY["sha256:".len()..]);
        assert_eq!(format!("{digest:?}"), EMPTY);
    }

    #[test]
    fn upper_case_and_wrong_lengths_are_malformed() {
        let hex = &EMPTY["sha256:".len()..];
        for text in [
            "".to_owned(),
            ":".to_owned(),
            hex.to_owned(),
            "sha256:".to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha512:{hex}"),
            format!("sha256: {}", &hex[1..]),
            format!("sha256:{}/", &hex[1..]),
            format!("sha256:{}\u{e9}", &hex[2..]),
            format!("sha256:sha256:{hex}"),
            format!("md5+:{hex}"),
            "blake3:../../etc/passwd".to_owned(),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_well_formed_digest_of_another_algorithm_is_unsupported_and_not_malformed() {
        for text in [
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "blake3:aa",
            "multihash+base58:Qm_=-Z",
            "sha256+b64u:LCa0",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::UnsupportedAlgorithm), "{text}");
        }
    }

    #[test]
    fn digests_that_differ_in_any_byte_hash_differently() {
        let state = std::hash::RandomState::new();
        let mut sum = [0; 32];
        let zero = state.hash_one(Digest::from(sum));
        for at in 0..sum.len() {
            sum[at] = 1;
            assert_ne!(state.hash_one(Digest::from(sum)), zero, "byte {at}");
            sum[at] = 0;
        }
    }

    proptest! {
        #[test]
        fn every_digest_reads_back(sum: [u8; 32], long in proptest::collection::vec(any::<u8>(), 64)) {
            let long: [u8; 64] = long.try_into().unwrap();
            for digest in [Digest::from(sum), Digest::from(long)] {
                prop_assert_eq!(digest.to_string().parse(), Ok(digest));
                prop_assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
            }
        }

        #[test]
        fn what_follows_the_grammar_is_never_malformed(
            text in "[a-z][a-z0-9]{0,3}([+._-][a-z0-9]{1,3}){0,2}:[a-zA-Z0-9=_-]{1,9}",
        ) {
            prop_assert_eq!(text.parse::<Digest>(), Err(DigestError::UnsupportedAlgorithm));
        }

        #[test]
        fn whatever_parses_is_written_as_it_was_read(text in "\\PC*|sha(256|512):[0-9a-f]{62,130}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
