//! Which part of a list is asked for.

use crate::router::Error;
use crate::router::query::Query;

/// The part of a list after `last`, at most `n` entries (distribution spec, "Listing Tags").
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// How many entries; none means as many as there are. Never above [`Page::MOST`].
    pub n: Option<usize>,
    /// The entry after which the page begins, whether it is in the list or not.
    pub last: Option<String>,
}

impl Page {
    /// A client that asks for more entries gets this many, and a link to the rest.
    pub const MOST: usize = 1000;

    pub(super) fn read(query: Query<'_>) -> Result<Self, Error> {
        Ok(Self {
            n: query.value("n").map(|digits| count(&digits)).transpose()?,
            last: query.value("last").map(String::from),
        })
    }
}

fn count(digits: &str) -> Result<usize, Error> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::PageInvalid);
    }
    // Too many digits for a number are more than the most, too.
    Ok(digits.parse().unwrap_or(Page::MOST).min(Page::MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(query: &str) -> Result<Option<usize>, Error> {
        Page::read(Query(query)).map(|page| page.n)
    }

    #[test]
    fn no_page_is_larger_than_the_most() {
        assert_eq!(n("n=1000"), Ok(Some(1000)));
        assert_eq!(n("n=1001"), Ok(Some(1000)));
        assert_eq!(n("n=99999999999999999999999"), Ok(Some(1000)));
    }

    #[test]
    fn none_and_zero_are_not_the_same() {
        assert_eq!(n(""), Ok(None));
        assert_eq!(n("n=0"), Ok(Some(0)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for query in ["n=-1", "n=%2B1", "n=x", "n=1.0", "n=1x", "n=%20"] {
            assert_eq!(n(query), Err(Error::PageInvalid), "{query}");
        }
    }
}
