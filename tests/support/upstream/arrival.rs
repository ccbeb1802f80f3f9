//! What came to a registry that is pushed to, as a test asks for it.

use super::ledger::Seen;
use super::target::{What, of};

/// One request, as far as it went when it was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    pub method: String,
    pub repository: String,
    pub what: What,
    /// Bytes of its body that came.
    pub received_bytes: u64,
    /// What it was answered; 0: nothing.
    pub status: u16,
    /// It was carried out and what it brought was kept, whatever was answered.
    pub kept: bool,
    /// Of the blob or the manifest that is kept for it.
    pub digest: Option<String>,
}

impl Arrival {
    /// `None` when it is about no repository.
    pub fn of(seen: &Seen) -> Option<Self> {
        let (repository, what) = of(seen)?;
        Some(Self {
            method: seen.method.clone(),
            repository,
            what,
            received_bytes: seen.received_bytes(),
            status: seen.status(),
            kept: seen.kept().is_some(),
            digest: seen.kept_digest().map(str::to_owned),
        })
    }

    /// Whether its body is a blob, or a part of one.
    pub fn brings_a_blob(&self) -> bool {
        self.method != "DELETE" && matches!(self.what, What::Blob(_) | What::Upload(_))
    }
}
