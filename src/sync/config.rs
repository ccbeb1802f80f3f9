//! What is to be here before anyone asks for it.

use serde::Deserialize;

use super::deployment::{Deployed, Deployment};
use super::leave::Leaving;
use crate::oci::{Digest, Manifest, media};
use crate::router::Names;
use crate::select::{Chosen, Globs, Matching, Platform, Versions};
use crate::units::Size;

/// Among artifact types: what runs in a container, whoever built it.
const IMAGE: &str = "image";

/// One rule of a selection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// What it is called in reports; empty: by its place.
    pub name: String,
    /// A file that names images, in the place of `repositories` and what follows from them.
    pub from: Option<Deployment>,
    /// What that comes to here.
    deployed: Deployed,
    /// Repositories, as clients of this node write them.
    pub repositories: Globs,
    /// Of those, not these.
    pub exclude: Globs,
    /// Which of their tags.
    pub tags: Chosen,
    /// Of what they name, only what is of these types; empty: of all.
    pub artifact_types: Globs,
    /// And only what has no more bytes than that, with all that is selected of it.
    pub max_size: Option<Size>,
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
    from: Option<Deployment>,
    #[serde(default)]
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
    artifact_types: Globs,
    max_size: Option<Size>,
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
        let chooses_tags = !written.tags.is_empty()
            || !written.exclude_tags.is_empty()
            || written.tag_regex.is_some()
            || written.versions.is_some()
            || written.newest.is_some();
        if written.from.is_some() && (chooses_tags || !written.repositories.is_empty() || !written.exclude.is_empty()) {
            return Err(
                "from names the images, so repositories, exclude and what chooses tags mean nothing beside it; write another [[sync]] for them"
                    .to_owned(),
            );
        }
        if written.from.is_none() && written.repositories.is_empty() {
            return Err(
                "repositories is empty, so nothing is selected; write names or patterns, like plant/**, or from with a file that names images"
                    .to_owned(),
            );
        }
        for name in written.repositories.patterns().iter().chain(written.exclude.patterns()) {
            let last = name.rsplit_once('/').map_or(name.as_str(), |(_, last)| last);
            if last.contains([':', '@']) {
                return Err(format!(
                    "{name} names a tag or a digest; write the repository alone, and tags = [...] beside it"
                ));
            }
            if last.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(format!("{name} names nothing: repositories have no capital letters"));
            }
        }
        if written.newest == Some(0) {
            return Err("newest is 0, so nothing is selected; write 1 or more, or leave it out".to_owned());
        }
        let matching = written.tag_regex.as_deref().map(Matching::new).transpose();
        let matching = matching.map_err(|why| format!("tag_regex is no regular expression: {why}"))?;
        Ok(Self {
            name: written.name,
            from: written.from,
            deployed: Deployed::default(),
            repositories: written.repositories,
            exclude: written.exclude,
            tags: Chosen {
                named: written.tags,
                but: written.exclude_tags,
                matching,
                versions: written.versions,
                newest: written.newest,
            },
            artifact_types: written.artifact_types,
            max_size: written.max_size,
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
        self.deployed.has(repository) || (self.repositories.matches(repository) && !self.exclude.matches(repository))
    }

    /// Which tags it selects of a repository that it has; `None`: none.
    pub(super) fn tags_of(&self, repository: &str) -> Option<&Chosen> {
        match &self.from {
            Some(_) => self.deployed.tags(repository),
            None => Some(&self.tags),
        }
    }

    /// What it selects there by digest.
    pub(super) fn digests_of(&self, repository: &str) -> &[Digest] {
        self.deployed.digests(repository)
    }

    /// In words, what it names and this node cannot have.
    pub(super) fn amiss(&self) -> &[String] {
        &self.deployed.amiss
    }

    /// Whether it goes by a file that cannot be read, so that nobody knows what it selects.
    pub(super) fn is_unread(&self) -> bool {
        self.from.as_ref().is_some_and(|from| !from.is_read())
    }

    /// Whether it takes what is of this type, whatever it is called.
    pub(super) fn takes_type(&self, manifest: &Manifest) -> bool {
        let types = &self.artifact_types;
        let is_called = |artifact_type: &str| types.matches(media::essence(artifact_type));
        let wants_images = || types.patterns().iter().any(|pattern| pattern == IMAGE);
        types.is_empty()
            || manifest.effective_artifact_type().is_some_and(is_called)
            || (is_runnable(manifest) && wants_images())
    }

    /// The same, with repositories as this node spells them: a registry by its name, and without where it is meant anyway.
    pub(super) fn respelled(&self, names: &Names, hosts: &[String]) -> Self {
        let spelled = |globs: &Globs| {
            let one = |written: &String| respelled(written, names);
            Globs::new(&globs.patterns().iter().map(one).collect::<Vec<_>>()).unwrap_or_else(|_| globs.clone())
        };
        Self {
            deployed: self.from.as_ref().map(|from| from.on(names, hosts)).unwrap_or_default(),
            repositories: spelled(&self.repositories),
            exclude: spelled(&self.exclude),
            ..self.clone()
        }
    }

    /// The repositories that it names one by one; the others need a list.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let names = self.repositories.patterns().iter().map(String::as_str);
        let plain = names.filter(|name| !is_pattern(name) && self.has(name));
        plain.chain(self.deployed.names())
    }

    /// Whether it has patterns too.
    pub(super) fn has_patterns(&self) -> bool {
        self.repositories.patterns().iter().any(|name| is_pattern(name))
    }
}

/// Whether it is an image that runs in a container, or a list of such.
fn is_runnable(manifest: &Manifest) -> bool {
    match manifest.effective_artifact_type() {
        None | Some("") => manifest.is_index(),
        Some(of) => media::is_image_config(of),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn types_are_those_of_artifacts_and_image_is_what_runs() {
        let digest = Digest::of(b"");
        let of_config = |kind: &str| {
            manifest(&format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{kind}","digest":"{digest}","size":0}},"layers":[]}}"#
            ))
        };
        let docker = of_config("application/vnd.docker.container.image.v1+json");
        let oci = of_config("application/vnd.oci.image.config.v1+json");
        let chart = of_config("application/vnd.cncf.helm.config.v1+json");
        let index = manifest(r#"{"schemaVersion":2,"manifests":[]}"#);
        let model = manifest(r#"{"schemaVersion":2,"manifests":[],"artifactType":"application/x-model"}"#);
        let taken = |types: &str| {
            let rule = rule(&format!("repositories = ['a']\nartifact_types = {types}")).unwrap();
            [&docker, &oci, &chart, &index, &model].map(|manifest| rule.takes_type(manifest))
        };

        assert_eq!(taken("[]"), [true; 5]);
        assert_eq!(taken("['image']"), [true, true, false, true, false]);
        assert_eq!(
            taken("['application/vnd.cncf.helm.*']"),
            [false, false, true, false, false]
        );
        assert_eq!(taken("['image', '**/x-model']"), [true, true, false, true, true]);
    }

    #[test]
    fn a_rule_names_repositories_or_a_file_and_not_both() {
        for (text, why) in [
            ("name = 'x'", "or from with a file"),
            ("from = '/x'\nrepositories = ['a']", "mean nothing beside it"),
            ("from = '/x'\nnewest = 1", "mean nothing beside it"),
            ("repositories = ['plant/app:v1']", "names a tag or a digest"),
            ("repositories = ['r.example:5000/plant/App']", "no capital letters"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(rule("repositories = ['r.example:5000/plant/{app,plc}']").is_ok());
        assert!(rule("from = '/x'\nplatforms = ['linux/amd64']\nmax_size = '1GiB'").is_ok());
    }
}
