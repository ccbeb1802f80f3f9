//! The query, decoded.

use std::borrow::Cow;

use url::form_urlencoded;

/// Looks up decoded values in a query; the first of several counts, and an empty one is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    pub(super) fn value(self, key: &str) -> Option<Cow<'a, str>> {
        let mut pairs = form_urlencoded::parse(self.0.as_bytes());
        let (_, value) = pairs.find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
    }
}
