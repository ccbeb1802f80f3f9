//! What a password is compared with: hashes, never the password itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::units::{Moment, Secret};

/// A bcrypt hash of this cost takes a core for some seconds, and twice as long with each one more.
const DEAREST: u32 = 15;

/// Compares with a password.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verifier {
    /// SHA-256, in hexadecimal: of what was drawn by chance, and cannot be guessed.
    Sha256(String),
    /// bcrypt, as `htpasswd -B` writes it: of what a person thought of.
    Bcrypt(String),
}

/// One of the passwords of somebody.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    pub(super) verifier: Verifier,
    /// From then on it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Moment>,
}

/// Draws a password: 256 bits, behind a word by which scanners for leaked secrets know it.
pub fn generate() -> Secret {
    Secret::new(format!("wharf_{}", URL_SAFE_NO_PAD.encode(random())))
}

/// 256 bits by chance.
pub(super) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random numbers");
    bytes
}

impl Verifier {
    /// For a password that is compared as it is.
    pub(super) fn of(password: &Secret) -> Self {
        Self::Sha256(hex(&Sha256::digest(password.expose().as_bytes())))
    }

    /// Reads a line of an htpasswd file behind its colon, if that is bcrypt.
    pub(super) fn bcrypt(hash: &str) -> Option<Self> {
        let is_bcrypt = hash.parse::<bcrypt::HashParts>().is_ok();
        is_bcrypt.then(|| Self::Bcrypt(hash.to_owned()))
    }

    /// In words, if comparing with it would keep a core for longer than a login may.
    pub(super) fn excess(&self) -> Option<String> {
        let Self::Bcrypt(hash) = self else { return None };
        let cost = hash.parse::<bcrypt::HashParts>().map_or(0, |parts| parts.get_cost());
        (cost > DEAREST).then(|| {
            format!("a hash with a cost of {cost}, which takes a core for too long (write it anew with htpasswd -B -C {DEAREST}, or less)")
        })
    }

    /// How dear a comparison is: bcrypt's cost, 0 where it is no bcrypt.
    pub(super) fn cost(&self) -> u32 {
        match self {
            Self::Bcrypt(hash) => hash.parse::<bcrypt::HashParts>().map_or(0, |parts| parts.get_cost()),
            Self::Sha256(_) => 0,
        }
    }

    /// Whether it is compared in microseconds.
    pub(super) fn is_quick(&self) -> bool {
        matches!(self, Self::Sha256(_))
    }

    /// Whether this is the password. Takes as long as bcrypt does, if it is that.
    pub(super) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Sha256(expected) => {
                let actual = hex(&Sha256::digest(password.as_bytes()));
                actual.as_bytes().ct_eq(expected.as_bytes()).into()
            }
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }

    /// By what tokens remember which password they were given for.
    pub(super) fn mark(&self) -> String {
        let (Self::Sha256(text) | Self::Bcrypt(text)) = self;
        hex(&Sha256::digest(text.as_bytes())[..8])
    }
}

impl Password {
    pub(super) fn is_valid(&self, now: std::time::SystemTime) -> bool {
        self.expires.is_none_or(|expires| !expires.is_past(now))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_password_is_known_by_its_hash_alone() {
        let (one, other) = (generate(), generate());
        let verifier = Verifier::of(&one);

        assert!(verifier.verify(one.expose()) && !verifier.verify(other.expose()) && !verifier.verify(""));
        assert!(!serde_json::to_string(&verifier).unwrap().contains(one.expose()));
        assert!(one.expose().len() >= 40 && one.expose().starts_with("wharf_"));
    }

    #[test]
    fn htpasswd_lines_of_bcrypt_are_read_and_others_are_not() {
        // htpasswd -nbB -C 4 user secret
        let hash = bcrypt::hash("secret", 4).unwrap().replacen("$2b$", "$2y$", 1);
        let verifier = Verifier::bcrypt(&hash).unwrap();

        assert!(verifier.verify("secret") && !verifier.verify("Secret") && !verifier.is_quick());
        for other in [
            "",
            "secret",
            "$apr1$x$y",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            "$2y$10$short",
        ] {
            assert_eq!(Verifier::bcrypt(other), None, "{other}");
        }
    }

    #[test]
    fn a_password_ends_when_it_says_so() {
        let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let password = Password {
            verifier: Verifier::of(&generate()),
            expires: Some(Moment::at(100)),
        };

        assert!(password.is_valid(at(99)) && !password.is_valid(at(100)));
    }
}
