//! Who has already carried a request, so that it cannot go round in a circle.

use std::fmt;

/// A chain of nodes is no longer than this; a longer one is taken for a loop.
const MOST_HOPS: usize = 16;

/// No entry of a `Via` header is longer; what is longer is cut.
const MOST_BYTES: usize = 128;

/// What this node is called in a `Via` header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeId {
    /// The node's name, as the settings have it.
    pub name: String,
    /// What tells it from another node of the same name.
    pub id: String,
}

impl NodeId {
    /// `<name>-<id>`, with `-` for what a pseudonym may not contain (RFC 9110, 7.6.3).
    pub fn pseudonym(&self) -> String {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        format!("{}-{}", self.name, self.id)
            .chars()
            .map(|c| if is_token(c) { c } else { '-' })
            .take(MOST_BYTES - "1.1 ".len())
            .collect()
    }
}

/// The entries of a request's `Via`, the nearest to the client first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hops(Vec<String>);

impl Hops {
    /// Reads the value of a `Via` header; several header lines are to be joined by commas.
    /// Comments are dropped. Never fails: what is odd is carried as it is, in printable ASCII.
    pub fn parse(list: &str) -> Self {
        let mut entries = Vec::new();
        let mut depth = 0_usize;
        let mut entry = String::new();
        for c in list.chars().chain([',']) {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => entries.push(std::mem::take(&mut entry)),
                ' ' if entry.is_empty() => {}
                ' '..='~' if depth == 0 && entry.len() < MOST_BYTES => entry.push(c),
                _ => {}
            }
        }
        Self(
            entries
                .iter()
                .map(|entry| entry.trim().to_owned())
                .filter(|entry| !entry.is_empty())
                // Enough to see that there are too many.
                .take(2 * MOST_HOPS)
                .collect(),
        )
    }

    /// The same with this node at the end: what is sent upwards.
    pub fn with(&self, node: &NodeId) -> Self {
        let mut entries = self.0.clone();
        entries.push(format!("1.1 {}", node.pseudonym()));
        Self(entries)
    }

    /// Whether `node` has carried this request before.
    pub fn contains(&self, node: &NodeId) -> bool {
        let pseudonym = node.pseudonym();
        self.0
            .iter()
            .any(|entry| entry.split_ascii_whitespace().nth(1) == Some(pseudonym.as_str()))
    }

    /// How many have carried it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it comes straight from a client.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has gone so far that it must be going round.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > MOST_HOPS
    }
}

/// As the header's value; printable ASCII.
impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, id: &str) -> NodeId {
        NodeId {
            name: name.to_owned(),
            id: id.to_owned(),
        }
    }

    #[test]
    fn a_node_finds_itself_again_and_nobody_else() {
        let below = Hops::parse("1.1 l3-ab12, HTTP/1.1 proxy.example:80 (squid, 4.1)");
        let above = Hops::parse(&below.with(&node("l4 site", "cd34")).to_string());

        assert_eq!(
            above.to_string(),
            "1.1 l3-ab12, HTTP/1.1 proxy.example:80, 1.1 l4-site-cd34"
        );
        assert!(above.contains(&node("l3", "ab12")));
        assert!(above.contains(&node("l4 site", "cd34")));
        assert!(!above.contains(&node("l4", "site")));
    }

    #[test]
    fn sixteen_hops_are_a_chain_and_seventeen_a_loop() {
        let sixteen = vec!["1.1 a"; 16].join(",");

        assert!(!Hops::parse(&sixteen).is_too_long());
        assert!(Hops::parse(&format!("{sixteen}, 1.1 b")).is_too_long());
    }

    #[test]
    fn nothing_that_arrives_can_break_the_header_that_leaves() {
        let odd = Hops::parse("1.1 a\r\nX: y, ((, \u{e9}, 1.1 b");
        let long = Hops::parse(&"x".repeat(100_000));
        let many = Hops::parse(&"x,".repeat(100_000));

        assert!(odd.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(long.to_string().len(), MOST_BYTES);
        assert_eq!(many.len(), 2 * MOST_HOPS);
    }

    #[test]
    fn no_via_means_no_hops() {
        assert!(Hops::parse("").is_empty());
        assert!(Hops::parse(" , ,").is_empty());
    }
}
