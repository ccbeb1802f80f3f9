//! Hashing content as it passes.

use sha2::Digest as _;

use crate::oci::{Algorithm, Digest};

/// A digest in the making.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Which digest it makes.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from(<[u8; 32]>::from(state.finalize())),
            State::Sha512(state) => Digest::from(<[u8; 64]>::from(state.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_hashes_to_the_same_digest_however_it_is_cut() {
        let content: Vec<u8> = (0..1000).map(|n| n as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm);
            for chunk in content.chunks(7) {
                hasher.update(chunk);
            }

            assert_eq!(hasher.finish(), Digest::of_with(algorithm, &content));
        }
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"a");
        let twin = hasher.clone();

        hasher.update(b"b");

        assert_eq!(twin.finish(), Digest::of(b"a"));
        assert_eq!(hasher.finish(), Digest::of(b"ab"));
    }
}
