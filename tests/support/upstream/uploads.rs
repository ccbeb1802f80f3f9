//! Uploads that were begun and not finished: what came of each so far.

use std::collections::HashMap;

use crate::support::content::{random, sha256};

/// What becomes of an upload when the connection ends in the middle of a body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Broken {
    /// What came of the body is there, as at distribution.
    #[default]
    Kept,
    /// The upload is where it was before this request.
    Forgotten,
    /// The upload is gone.
    Gone,
}

/// All uploads of one registry.
#[derive(Clone, Default)]
pub struct Uploads {
    open: HashMap<String, Upload>,
}

#[derive(Clone)]
struct Upload {
    repository: String,
    bytes: Vec<u8>,
}

impl Uploads {
    /// The name of a new one.
    pub fn begin(&mut self, repository: &str) -> String {
        let id = sha256(&random(16))["sha256:".len()..][..32].to_owned();
        let upload = Upload {
            repository: repository.to_owned(),
            bytes: Vec::new(),
        };
        self.open.insert(id.clone(), upload);
        id
    }

    /// How much of it came; `None` when there is no such upload in this repository.
    pub fn size(&self, repository: &str, id: &str) -> Option<usize> {
        let upload = self.open.get(id).filter(|upload| upload.repository == repository);
        upload.map(|upload| upload.bytes.len())
    }

    /// Nothing is kept of a piece whose upload was forgotten while it came.
    pub fn append(&mut self, id: &str, piece: &[u8]) {
        if let Some(upload) = self.open.get_mut(id) {
            upload.bytes.extend_from_slice(piece);
        }
    }

    /// All that came of it, which ends it.
    pub fn end(&mut self, repository: &str, id: &str) -> Option<Vec<u8>> {
        self.size(repository, id)?;
        self.open.remove(id).map(|upload| upload.bytes)
    }

    /// The body that began when `size` was here broke off.
    pub fn broke(&mut self, id: &str, size: usize, broken: Broken) {
        match (broken, self.open.get_mut(id)) {
            (Broken::Forgotten, Some(upload)) => upload.bytes.truncate(size),
            (Broken::Gone, Some(_)) => drop(self.open.remove(id)),
            (Broken::Kept, _) | (_, None) => {}
        }
    }

    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// The repository of each.
    pub fn repositories(&self) -> Vec<String> {
        self.open.values().map(|upload| upload.repository.clone()).collect()
    }
}
