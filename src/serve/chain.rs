//! What the headers tell of the nodes that an answer passed.

use std::time::Duration;

use http::HeaderValue;
use http::header::{AGE, HeaderName, WARNING};

use super::Reply;
use crate::fetch::{Document, Outcome, Source, Stale};
use crate::parent::NodeId;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Bytes of all warnings together (distribution spec, "Warnings").
const WARNING_BYTES: usize = 4096;

impl Reply {
    /// Headers of a document: `Cache-Status`, and for what changes `Age` and perhaps `Warning`.
    pub(super) fn tell_document(self, node: &NodeId, document: &Document) -> Self {
        let mut reply = self.tell_status(node, document.outcome, document.cache_status.as_deref());
        if let Some(age) = document.age {
            reply = reply.with(AGE, whole_seconds(age).into());
        }
        match &document.stale {
            Some(stale) => reply.with_text(WARNING, &warning(node, stale)),
            None => reply,
        }
    }

    /// Headers of content.
    pub(super) fn tell_source(self, node: &NodeId, source: &Source) -> Self {
        self.tell_status(node, source.outcome(), source.cache_status())
    }

    /// `Cache-Status` (RFC 9211): the entries of the nodes above, then ours.
    pub(super) fn tell_status(mut self, node: &NodeId, outcome: Outcome, above: Option<&str>) -> Self {
        self.outcome = Some(outcome);
        let how = match outcome {
            Outcome::Hit => "hit",
            Outcome::Miss => "fwd=miss",
            Outcome::Collapsed => "fwd=miss; collapsed",
            Outcome::Stale => "fwd=stale",
        };
        let above = above.unwrap_or_default();
        let mut entry = String::with_capacity(above.len() + node.name.len() + 32);
        entry.push_str(above);
        if !above.is_empty() {
            entry.push_str(", ");
        }
        push_token(&mut entry, &node.name);
        entry.push_str("; ");
        entry.push_str(how);
        match HeaderValue::from_str(&entry) {
            Ok(value) => self.with(CACHE_STATUS, value),
            Err(_) => self,
        }
    }
}

/// `Warning: 299`, the one form that the distribution spec allows; podman shows it to its user.
fn warning(node: &NodeId, stale: &Stale) -> String {
    match stale {
        Stale::Above(warning) => warning
            .chars()
            .filter(|letter| !letter.is_control())
            .take(WARNING_BYTES)
            .collect(),
        Stale::Here(reason) => {
            let plain = reason
                .chars()
                .filter(|letter| !letter.is_control() && !matches!(letter, '"' | '\\'));
            let reason: String = plain.take(300).collect();
            format!("299 - \"{} serves what it has, which may be old: {reason}\"", node.name)
        }
    }
}

/// Rounded up, so that a chain of nodes never takes an answer for younger than it is.
fn whole_seconds(age: Duration) -> u64 {
    age.as_secs() + u64::from(age.subsec_nanos() > 0)
}

/// A name as RFC 8941 writes it: bare if it can stand so, else quoted.
fn push_token(entry: &mut String, name: &str) {
    let is_bare = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_'));
    let quote = if is_bare { "" } else { "\"" };
    entry.extend([quote, name, quote]);
}
