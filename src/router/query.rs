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

    /// All that are given for `key`.
    pub(super) fn values(self, key: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let pairs = form_urlencoded::parse(self.0.as_bytes());
        pairs.filter(move |(name, _)| name == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_of_several_counts() {
        let query = Query("ns=mcr.example.com%3A8443&last=a+b%2Fc&ns=evil&empty=&%6e=5&last");

        assert_eq!(query.value("ns").as_deref(), Some("mcr.example.com:8443"));
        assert_eq!(query.value("last").as_deref(), Some("a b/c"));
        assert_eq!(query.value("n").as_deref(), Some("5"));
        assert_eq!(query.value("empty"), None);
        assert_eq!(query.value("absent"), None);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(Query("last=%ff%").value("last").as_deref(), Some("\u{fffd}%"));
    }
}
