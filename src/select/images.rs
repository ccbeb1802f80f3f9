//! The images that a deployment is made of, by files that are written for others: Azure IoT Edge deployment manifests, Kubernetes
//! manifests, compose files.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

use crate::oci::{Name, Reference, Tag};
use crate::units::read_file;

/// A file that says what a plant runs is smaller.
const MOST: usize = 4 << 20;

/// Nothing that is meant is nested deeper, or becomes so many values when its aliases are written out.
const DEEPEST: usize = 64;
const MOST_VALUES: u64 = 1_000_000;

/// Images of one file, each once, in the order of their names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Images {
    /// Those that can be had.
    pub all: BTreeSet<Image>,
    /// In words, which cannot, and why.
    pub refused: Vec<String>,
}

/// An image as a runtime is told of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Image {
    /// Where it is.
    pub host: Host,
    /// Of its repository there.
    pub name: Name,
    /// A digest counts, where there is a tag beside it.
    pub reference: Reference,
}

/// Where an image is said to be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// Nothing is said, which means Docker Hub to most.
    Unsaid,
    /// At whoever serves the one that runs it: `$upstream`, as IoT Edge has it.
    Upstream,
    /// There, with its port.
    Named(String),
}

/// How images are named in a document.
#[derive(Clone, Copy)]
enum Form {
    /// `settings.image`, of modules.
    Edge,
    /// `image`, in lists of containers.
    Kubernetes,
    /// `services.*.image`.
    Compose,
}

impl Images {
    /// Reads the images of a file: JSON or YAML, of one document or several. Blocks.
    ///
    /// # Errors
    ///
    /// In words: it cannot be read, or names no image.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = read_file(path).map_err(|error| error.to_string())?;
        if bytes.len() > MOST {
            return Err(format!("it has {} bytes, and {MOST} are read at the most", bytes.len()));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
        Self::parse(text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        measure(text)?;
        let documents = YamlLoader::load_from_str(text).map_err(|error| not_yaml(&error))?;
        let (mut found, mut unsaid) = (BTreeSet::new(), Vec::new());
        for document in &documents {
            gather(document, Form::of(document), &mut found);
            unsaid.extend(without_image(document));
        }
        if found.is_empty() && unsaid.is_empty() {
            return Err(
                "it names no image; it is read as an IoT Edge deployment manifest (modulesContent), a Kubernetes manifest (apiVersion) or a compose file (services)"
                    .to_owned(),
            );
        }
        let mut images = Self {
            all: BTreeSet::new(),
            refused: unsaid,
        };
        for text in found {
            match Image::parse(text) {
                Ok(image) => {
                    images.all.insert(image);
                }
                Err(why) => images.refused.push(format!("{text}: {why}")),
            }
        }
        Ok(images)
    }
}

impl Form {
    fn of(document: &Yaml) -> Self {
        match document {
            document if !document["apiVersion"].is_badvalue() => Self::Kubernetes,
            document if !document["services"].is_badvalue() => Self::Compose,
            _ => Self::Edge,
        }
    }
}

/// That the text is neither nested nor, with its aliases written out, larger than what is meant can be. It is read without any
/// recursion: whoever loads it afterwards takes a step of the stack for each level, and writes aliases out.
fn measure(text: &str) -> Result<(), String> {
    let mut parser = Parser::new_from_str(text);
    // Of what is open: its anchor, and how many values it has so far.
    let mut open: Vec<(usize, u64)> = Vec::new();
    let mut anchored: HashMap<usize, u64> = HashMap::new();
    let mut all = 0;
    loop {
        let (event, _) = parser.next_token().map_err(|error| not_yaml(&error))?;
        let values = match event {
            Event::StreamEnd => return Ok(()),
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, 1));
                if open.len() > DEEPEST {
                    return Err(format!("it is nested more than {DEEPEST} levels deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((anchor, values)) = open.pop() else { continue };
                anchored.insert(anchor, values);
                values
            }
            Event::Scalar(_, _, anchor, _) => {
                anchored.insert(anchor, 1);
                1
            }
            Event::Alias(anchor) => anchored.get(&anchor).copied().unwrap_or(1),
            _ => continue,
        };
        let sum = open.last_mut().map_or(&mut all, |(_, sum)| sum);
        *sum = values.saturating_add(*sum);
        if *sum > MOST_VALUES {
            return Err(format!("its aliases come to more than {MOST_VALUES} values"));
        }
    }
}

fn not_yaml(error: &yaml_rust2::ScanError) -> String {
    format!("it is neither JSON nor YAML: {error}")
}

/// What is written of images in `node`.
fn gather<'a>(node: &'a Yaml, form: Form, found: &mut BTreeSet<&'a str>) {
    match node {
        Yaml::Array(items) => items.iter().for_each(|item| gather(item, form, found)),
        Yaml::Hash(entries) => {
            for (key, value) in entries {
                match (form, key.as_str()) {
                    (Form::Edge, Some("settings")) => found.extend(field(value, "image")),
                    (Form::Kubernetes, Some("containers" | "initContainers" | "ephemeralContainers")) => {
                        let containers = value.as_vec().into_iter().flatten();
                        found.extend(containers.filter_map(|container| field(container, "image")));
                    }
                    (Form::Kubernetes, Some("volumes")) => {
                        let volumes = value.as_vec().into_iter().flatten();
                        found.extend(volumes.filter_map(|volume| field(&volume["image"], "reference")));
                    }
                    (Form::Compose, Some("services")) => {
                        found.extend(services(value).filter_map(|(_, service)| field(service, "image")));
                        continue;
                    }
                    _ => {}
                }
                gather(value, form, found);
            }
        }
        _ => {}
    }
}

fn services(value: &Yaml) -> impl Iterator<Item = (&Yaml, &Yaml)> {
    value.as_hash().into_iter().flatten()
}

/// In words, the services of a compose file whose image stands in another file.
fn without_image(document: &Yaml) -> Vec<String> {
    let is_elsewhere = |service: &Yaml| {
        field(service, "image").is_none() && service["build"].is_badvalue() && !service["extends"].is_badvalue()
    };
    let elsewhere = services(&document["services"]).filter(|(_, service)| is_elsewhere(service));
    let words = |(name, _): (&Yaml, &Yaml)| {
        let name = name.as_str().unwrap_or_default();
        format!("services.{name}: its image comes by extends; write the file out first (docker compose config)")
    };
    elsewhere.map(words).collect()
}

/// A text of a mapping, or of those that are merged into it (`<<`, YAML 1.1): the first that has it.
fn field<'a>(node: &'a Yaml, key: &str) -> Option<&'a str> {
    let merged = || match &node["<<"] {
        Yaml::Array(those) => those.iter().find_map(|one| field(one, key)),
        Yaml::BadValue => None,
        one => field(one, key),
    };
    node[key].as_str().or_else(merged)
}

impl Image {
    /// Reads `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`; without either the tag is `latest`.
    fn parse(text: &str) -> Result<Self, String> {
        let (host, rest) = Host::split(text);
        if rest.contains(['$', '{']) {
            return Err("it has a variable; write the file out with its values first".to_owned());
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, tag),
            None => (rest, "latest"),
        };
        let name = name.parse().map_err(|error| format!("{error}"))?;
        let reference = match digest {
            Some(digest) => Reference::Digest(digest.parse().map_err(|error| format!("{error}"))?),
            None => Reference::Tag(tag.parse::<Tag>().map_err(|error| format!("{error}"))?),
        };
        Ok(Self { host, name, reference })
    }
}

impl Host {
    /// As Docker does: what stands before the first slash is a host if it looks like one.
    fn split(text: &str) -> (Self, &str) {
        let Some((first, rest)) = text.split_once('/') else {
            return (Self::Unsaid, text);
        };
        match first {
            "$upstream" => (Self::Upstream, rest),
            first if first.starts_with("$upstream:") => (Self::Upstream, rest),
            "localhost" => (Self::Named(first.to_owned()), rest),
            first if first.contains(['.', ':']) && !first.contains('$') => (Self::Named(first.to_owned()), rest),
            _ => (Self::Unsaid, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn read(text: &str) -> Vec<String> {
        let images = Images::parse(text).unwrap();
        assert!(images.refused.is_empty(), "{:?}", images.refused);
        let written = |image: &Image| {
            let host = match &image.host {
                Host::Unsaid => "-",
                Host::Upstream => "^",
                Host::Named(host) => host,
            };
            format!("{host} {} {}", image.name, image.reference)
        };
        images.all.iter().map(written).collect()
    }

    #[test]
    fn an_iot_edge_deployment_names_its_modules_and_those_of_the_system() {
        let text = r#"{"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "mcr.microsoft.com/azureiotedge-agent:1.5", "createOptions": "{\"image\": \"no\"}"}},
                "edgeHub": {"settings": {"image": "$upstream:8000/azureiotedge-hub:1.5"}}},
            "modules": {"press": {"version": "1.0", "settings": {"image": "$upstream/plant/press:v2"}}},
            "properties.desired.modules.extra": {"settings": {"image": "plant.example:5000/extra"}}
        }}, "other": {"properties.desired": {"image": "not/this:one"}}}}"#;

        assert_eq!(
            read(text),
            [
                "^ azureiotedge-hub 1.5",
                "^ plant/press v2",
                "mcr.microsoft.com azureiotedge-agent 1.5",
                "plant.example:5000 extra latest"
            ]
        );
    }

    #[test]
    fn kubernetes_manifests_name_those_of_all_their_containers_whatever_holds_them() {
        let digest = Digest::of(b"x");
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      initContainers:\n      - image: busybox\n      containers:\n      - name: a\n        image: plant/app:v1@{digest}\n      volumes:\n      - name: models\n        image: {{reference: \"quay.io/plant/models:3\"}}\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: batch/v1\n  kind: CronJob\n  spec: {{jobTemplate: {{spec: {{template: {{spec: {{containers: [{{image: localhost/b}}]}}}}}}}}}}\n---\napiVersion: v1\nkind: ConfigMap\ndata: {{image: not/this}}\n---\n"
        );

        let expected = format!("- plant/app {digest}");
        assert_eq!(
            read(&text),
            [
                "- busybox latest",
                &expected,
                "localhost b latest",
                "quay.io plant/models 3"
            ]
        );
    }

    #[test]
    fn a_compose_file_names_those_of_its_services() {
        let text = "x-common: &common\n  image: redis:7\nx-more: &more {<<: [{restart: no}, *common]}\nservices:\n  cache:\n    <<: *more\n  web: {image: \"reg.example/web:1\", build: {args: {image: no}}}\n  built: {build: .}\n";

        assert_eq!(read(text), ["- redis 7", "reg.example web 1"]);
        let extended = Images::parse("services: {a: {extends: {file: b.yml}}, b: {image: b}}").unwrap();
        assert!(extended.refused[0].starts_with("services.a: its image comes by extends"));
    }

    #[test]
    fn what_cannot_be_had_is_told_one_by_one_and_a_file_without_any_image_as_a_whole() {
        let images =
            Images::parse("services: {a: {image: \"${WHERE}/a:1\"}, b: {image: 'UPPER'}, c: {image: c}}").unwrap();
        assert_eq!((images.all.len(), images.refused.len()), (1, 2));
        assert!(images.refused.iter().any(|words| words.contains("has a variable")));

        for (text, why) in [
            ("", "names no image"),
            ("{}", "names no image"),
            ("a: [", "neither JSON nor YAML"),
            ("apiVersion: v1\nimage: a", "names no image"),
        ] {
            assert!(Images::parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn neither_nesting_nor_aliases_take_more_than_they_may() {
        let whole = |text: &str| Images::parse(&format!("services: {{a: {{image: a}}}}\nx: {text}"));
        assert!(whole("[1]").is_ok());
        for deep in [
            format!("{}1{}", "[".repeat(200), "]".repeat(200)),
            format!("\n  {}1", "- ".repeat(500_000)),
            format!("{}{}", "{a: ".repeat(100), "}".repeat(100)),
        ] {
            assert!(whole(&deep).is_err());
        }
        let laughs = |levels: usize| {
            let level = |number: usize| {
                let of = vec![format!("*a{number}"); 10].join(", ");
                format!("a{0}: &a{0} [{of}]\n", number + 1)
            };
            let all: String = (0..levels).map(level).collect();
            format!("a0: &a0 ha\n{all}services: {{a: {{image: a}}}}\n")
        };
        assert!(Images::parse(&laughs(3)).is_ok());
        assert!(Images::parse(&laughs(9)).unwrap_err().contains("aliases come to more"));
    }
}
