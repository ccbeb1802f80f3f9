//! What is to be here before anyone asks for it.

use serde::Deserialize;

use super::leave::Leaving;
use crate::router::Names;
use crate::select::{Chosen, Globs, Matching, Platform, Versions};

/// One rule of a selection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// What it is called in reports; empty: by its place.
    pub name: String,
    /// Repositories, as clients of this node write them.
    pub repositories: Globs,
    /// Of those, not these.
    pub exclude: Globs,
    /// Which of their tags.
    pub tags: Chosen,
    /// What is fetched of an index, which itself stays as it is. Empty: all of it.
    pub platforms: Vec<Platform>,
    /// Whether what refers to an image comes with it: signatures, bills of materials.
    pub referrers: bool,
    /// What is fetched first: the highest.
    pub priority: i64,
    /// What becomes of a tag that it selects no longer; `None`: as is usual in the node's mode.
    pub leaving: Option<Leaving>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    name: String,
    repositories: Globs,
    #[serde(default)]
    exclude: Globs,
    #[serde(default)]
    tags: Globs,
    #[serde(default)]
    exclude_tags: Globs,
    tag_regex: Option<String>,
    versions: Option<Versions>,
    newest: Option<usize>,
    #[serde(default)]
    platforms: Vec<Platform>,
    #[serde(default = "yes")]
    referrers: bool,
    #[serde(default)]
    priority: i64,
    leaving: Option<Leaving>,
}

fn yes() -> bool {
    true
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if written.repositories.is_empty() {
            return Err(
                "repositories is empty, so nothing is selected; write names or patterns, like plant/**".to_owned(),
            );
        }
        if written.newest == Some(0) {
            return Err("newest is 0, so nothing is selected; write 1 or more, or leave it out".to_owned());
        }
        let matching = written.tag_regex.as_deref().map(Matching::new).transpose();
        let matching = matching.map_err(|why| format!("tag_regex is no regular expression: {why}"))?;
        Ok(Self {
            name: written.name,
            repositories: written.repositories,
            exclude: written.exclude,
            tags: Chosen {
                named: written.tags,
                but: written.exclude_tags,
                matching,
                versions: written.versions,
                newest: written.newest,
            },
            platforms: written.platforms,
            referrers: written.referrers,
            priority: written.priority,
            leaving: written.leaving,
        })
    }
}

impl Rule {
    /// Whether it selects anything of the repository of this name.
    pub fn has(&self, repository: &str) -> bool {
        self.repositories.matches(repository) && !self.exclude.matches(repository)
    }

    /// The same, with repositories as this node spells them: a registry by its name, and without where it is meant anyway.
    pub(super) fn respelled(&self, names: &Names) -> Self {
        let spelled = |globs: &Globs| {
            let one = |written: &String| respelled(written, names);
            Globs::new(&globs.patterns().iter().map(one).collect::<Vec<_>>()).unwrap_or_else(|_| globs.clone())
        };
        Self {
            repositories: spelled(&self.repositories),
            exclude: spelled(&self.exclude),
            ..self.clone()
        }
    }

    /// The repositories that it names one by one; the others need a list.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let names = self.repositories.patterns().iter().map(String::as_str);
        names.filter(|name| !is_pattern(name) && self.has(name))
    }

    /// Whether it has patterns too.
    pub(super) fn has_patterns(&self) -> bool {
        self.repositories.patterns().iter().any(|name| is_pattern(name))
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

fn respelled(written: &str, names: &Names) -> String {
    let registry = |word: &str| names.find(word);
    match written
        .split_once('/')
        .and_then(|(first, rest)| Some((registry(first)?, rest)))
    {
        Some((registry, rest)) if registry == names.unprefixed() => rest.to_owned(),
        Some((registry, rest)) => format!("{registry}/{rest}"),
        None => written.to_owned(),
    }
}
