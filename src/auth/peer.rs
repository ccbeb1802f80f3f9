//! The certificate that a client showed.

/// The names in it, in the order in which they are looked for: alternative names, then the whole subject.
///
/// Whoever builds one has verified it against the authorities that clients' certificates come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peer {
    names: Vec<String>,
}

impl Peer {
    /// Of these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().map(|name| normal(&name)).collect(),
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

/// In one spelling: neither hosts nor the blanks in a subject (RFC 4514) are told apart by case or number.
pub(super) fn normal(name: &str) -> String {
    let parts = name.split(',').map(str::trim);
    parts.collect::<Vec<_>>().join(", ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_every_spelling() {
        assert_eq!(normal("CN=line-1,O=Plant"), normal("CN=line-1, O=Plant"));
        assert_eq!(normal("Line-1.Plant.Example"), "line-1.plant.example");
        assert_ne!(normal("CN=line-1"), normal("line-1"));
    }
}
