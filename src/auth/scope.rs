//! What a client asks a token for, in the words of Docker's token service.

use super::{Action, Actions};

/// One part of it ("Token Scope Documentation", distribution).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// `repository:<name>:<actions>`
    Repository {
        /// As the client names it.
        name: String,
        /// What it wants to do.
        actions: Actions,
    },
    /// `registry:catalog:*`
    Catalog,
}

impl Scope {
    /// Reads all that stand in a text, with blanks between them; what is unknown is granted to nobody and left out.
    pub fn read(text: &str) -> impl Iterator<Item = Self> {
        text.split_ascii_whitespace().filter_map(Self::read_one)
    }

    fn read_one(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        // A name may have a port, and so a colon.
        let (name, words) = rest.rsplit_once(':')?;
        // `repository(plugin)` is a repository too.
        match kind.split('(').next() {
            Some("repository") => Some(Self::Repository {
                name: name.to_owned(),
                actions: words.split(',').map(meant).fold(Actions::NONE, |all, one| all | one),
            }),
            Some("registry") if name == "catalog" => Some(Self::Catalog),
            _ => None,
        }
    }
}

fn meant(word: &str) -> Actions {
    match word {
        "pull" => Actions::PULL,
        "push" => Actions::WRITE,
        "delete" => Actions::DELETE,
        "*" => Actions::ALL,
        "metadata_read" => Action::MetadataRead.into(),
        "metadata_write" => Action::MetadataWrite.into(),
        _ => Actions::NONE,
    }
}

/// What a client has to ask for to be allowed this.
pub(super) fn word(action: Action) -> &'static str {
    match action {
        Action::ContentRead | Action::MetadataRead => "pull",
        // Who pushes looks first at what is there.
        Action::ContentWrite | Action::ContentOverwrite => "pull,push",
        Action::ContentDelete => "delete",
        Action::MetadataWrite => "metadata_write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_the_clients_write_them() {
        let read = |text: &str| Scope::read(text).collect::<Vec<_>>();
        let repository = |name: &str, actions| Scope::Repository {
            name: name.to_owned(),
            actions,
        };

        assert_eq!(
            read("repository:a/b:pull repository:x:pull,push"),
            [
                repository("a/b", Actions::PULL),
                repository("x", Actions::PULL | Actions::WRITE)
            ]
        );
        assert_eq!(
            read("repository:localhost:5000/a:delete"),
            [repository("localhost:5000/a", Actions::DELETE)]
        );
        assert_eq!(read("repository(plugin):a:*"), [repository("a", Actions::ALL)]);
        assert_eq!(read("registry:catalog:*"), [Scope::Catalog]);
        for text in ["", "repository", "repository:a", "other:a:pull", "registry:all:*"] {
            assert_eq!(read(text), [], "{text}");
        }
        assert_eq!(read("repository:a:fly"), [repository("a", Actions::NONE)]);
    }
}
