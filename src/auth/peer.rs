//! The certificate that a client showed.

/// The names in it, in the order in which they are looked for: alternative names, then the whole subject.
///
/// Whoever builds one has verified it against the authorities that clients' certificates come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peer {
    names: Vec<String>,
}

impl Peer {
    /// `alternatives`: hosts, addresses, URIs, mailboxes; `subject`: types and values, in the order of the certificate.
    pub fn new<'a>(
        alternatives: impl IntoIterator<Item = String>,
        subject: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Self {
        let mut names: Vec<String> = alternatives.into_iter().map(|name| alternative(&name)).collect();
        let parts: Vec<String> = subject
            .into_iter()
            .map(|(kind, value)| format!("{kind}={}", escaped(value)))
            .collect();
        if !parts.is_empty() {
            names.push(whole(&parts));
        }
        Self { names }
    }

    /// Whether one of its names is this one, as settings write them.
    pub fn is_called(&self, written: &str) -> bool {
        self.names.contains(&normal(written))
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

/// Of what stands in settings: `CN=line-1, O=Plant` is a subject (RFC 4514, commas in a value behind a backslash, in the order of the
/// certificate), everything else an alternative name. The two never mean each other.
pub(super) fn normal(name: &str) -> String {
    if name.contains("://") || !name.contains('=') {
        return alternative(name);
    }
    let (mut parts, mut part, mut is_escaped) = (Vec::new(), String::new(), false);
    for letter in name.chars() {
        if letter == ',' && !is_escaped {
            parts.push(std::mem::take(&mut part));
            continue;
        }
        is_escaped = letter == '\\' && !is_escaped;
        part.push(letter);
    }
    parts.push(part);
    whole(&parts)
}

fn alternative(name: &str) -> String {
    format!("name {}", name.trim().to_lowercase())
}

fn whole(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    format!("subject {}", parts.join(",").to_lowercase())
}

/// What separates values in a subject is no part of one.
fn escaped(value: &str) -> String {
    let mut out = String::new();
    for letter in value.trim().chars() {
        if ",+\"\\<>;=#".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(alternatives: &[&str], subject: &[(&str, &'static str)]) -> Vec<String> {
        let alternatives = alternatives.iter().map(|name| (*name).to_owned());
        let subject = subject.iter().map(|(kind, value)| ((*kind).to_owned(), *value));
        Peer::new(alternatives, subject).names
    }

    #[test]
    fn a_name_is_the_same_in_every_spelling() {
        assert_eq!(normal("CN=line-1,O=Plant"), normal("CN=line-1, O=Plant"));
        assert_eq!(normal("Line-1.Plant.Example"), normal("line-1.plant.example"));
        assert_eq!(
            shown(&["spiffe://plant/Line-1?a=b"], &[("CN", "line-1"), ("O", "Plant")]),
            [normal("spiffe://plant/line-1?a=b"), normal("CN=line-1, O=Plant")]
        );
    }

    #[test]
    fn no_value_can_be_taken_for_several_and_no_kind_of_name_for_another() {
        let forged = shown(&["CN=line-2, O=Plant"], &[("CN", "line-2, O=Plant")]);

        assert!(!forged.contains(&normal("CN=line-2, O=Plant")), "{forged:?}");
        assert!(!shown(&[], &[("CN", "line-1.example")]).contains(&normal("line-1.example")));
        assert_eq!(shown(&[], &[("CN", "a, b")]), [normal("CN=a\\, b")]);
    }
}
