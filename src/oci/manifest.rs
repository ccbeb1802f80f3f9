//! A look into a manifest or an index, at what it points to.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::oci::{Descriptor, descriptor, media};

/// What a manifest or an index says of its type and of the content it needs.
///
/// The bytes stay what they are: this is read beside them and never written back. A field that is
/// not named here is ignored, and a descriptor whose digest is of an unsupported algorithm is left
/// out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Manifest {
    /// The type that the document claims.
    pub media_type: Option<String>,
    /// The type of the artifact that the document claims.
    pub artifact_type: Option<String>,
    /// The configuration of an image.
    pub config: Option<Descriptor>,
    /// The layers of an image, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Free remarks.
    pub annotations: BTreeMap<String, String>,
    /// Of the document; 2, where it is as it should be.
    pub schema_version: Option<u64>,
    /// Whether the document has a list of manifests, be it empty.
    lists_manifests: bool,
}

impl Manifest {
    /// Reads what `bytes` point to.
    ///
    /// # Errors
    ///
    /// [`ManifestError`]: the bytes are no JSON object, a field has a wrong type or stands twice,
    /// or a digest does not follow the grammar.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        // serde would take an array for the fields in order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(ManifestError::NoObject);
        }
        let written: Written = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        Ok(Self {
            media_type: written.media_type,
            artifact_type: written.artifact_type,
            config: written.config,
            layers: written.layers,
            lists_manifests: written.manifests.is_some(),
            manifests: written.manifests.map_or_else(Vec::new, |List(list)| list),
            subject: written.subject,
            annotations: written.annotations.unwrap_or_default(),
            schema_version: written.schema_version.and_then(|version| version.as_u64()),
        })
    }

    /// What must be here for the document to be complete: config, layers, manifests. Its subject
    /// is not among them (distribution spec, "Pushing Manifests with Subject").
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.manifests)
    }

    /// Whether the document is a list of manifests.
    pub fn is_index(&self) -> bool {
        media::is_index(self.media_type_guess())
    }

    /// What the document would have to be instead, if one client takes it for an image and another for an index:
    /// by its own fields, or by them and the type that it came with (CVE-2021-41190).
    pub fn contradiction(&self, media_type: &str) -> Option<&'static str> {
        const ONE: &str = "a manifest that is either an image's or an index";
        let image = self.config.is_some() || !self.layers.is_empty();
        let index = !self.manifests.is_empty();
        let own = self.media_type.as_deref().unwrap_or_default();
        let claims = [own, media_type];
        let claimed = |is: fn(&str) -> bool| claims.into_iter().any(is);
        let (as_image, as_index) = (claimed(media::is_image), claimed(media::is_index));
        ((image || as_image) && (index || as_index)).then_some(ONE)
    }

    /// The type that the document claims, else the OCI type that its fields fit (image spec:
    /// `mediaType` need not be there).
    pub fn media_type_guess(&self) -> &str {
        match self.media_type.as_deref() {
            Some(claimed) if !claimed.is_empty() => claimed,
            _ if self.lists_manifests => media::OCI_INDEX,
            _ => media::OCI_MANIFEST,
        }
    }

    /// The type to list the document under as a referrer: its own, else that of its config; an
    /// index has none but its own (distribution spec, "Listing Referrers").
    pub fn effective_artifact_type(&self) -> Option<&str> {
        let own = self.artifact_type.as_deref().filter(|own| !own.is_empty());
        let of_config = || self.config.as_ref().map(|config| config.media_type.as_str());
        own.or_else(|| if self.is_index() { None } else { of_config() })
    }
}

/// Why bytes are no manifest. The caller's, who sent them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The bytes are not a JSON object at all.
    #[error("not a manifest: no JSON object")]
    NoObject,

    /// No valid JSON, or a field that is not as the image spec has it.
    #[error("not a manifest: the JSON is not as the image specification has it")]
    Malformed(#[source] serde_json::Error),
}

/// The document as it may be written. Go writes `null` for what is empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: Option<String>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "descriptor::one")]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "descriptor::many")]
    layers: Vec<Descriptor>,
    manifests: Option<List>,
    #[serde(default, deserialize_with = "descriptor::one")]
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    /// Whatever it is: what is pulled is not judged by it.
    schema_version: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct List(#[serde(deserialize_with = "descriptor::many")] Vec<Descriptor>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Digest;

    fn descriptor(media_type: &str, content: &str) -> String {
        let digest = Digest::of(content.as_bytes());
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#,
            content.len()
        )
    }

    fn parse(json: &str) -> Manifest {
        Manifest::parse(json.as_bytes()).unwrap()
    }

    fn is_malformed(json: &str) -> bool {
        matches!(Manifest::parse(json.as_bytes()), Err(ManifestError::Malformed(_)))
    }

    #[test]
    fn the_children_of_an_image_are_its_config_and_its_layers_but_not_its_subject() {
        let manifest = parse(&format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}],"subject":{}}}"#,
            descriptor("c", "config"),
            descriptor("l", "one"),
            descriptor("l", "two"),
            descriptor("m", "subject"),
        ));

        let children: Vec<_> = manifest.children().map(|child| child.digest).collect();

        assert_eq!(
            children,
            [Digest::of(b"config"), Digest::of(b"one"), Digest::of(b"two")]
        );
        assert_eq!(manifest.layers[0].size, 3);
        assert_eq!(manifest.subject.as_ref().unwrap().digest, Digest::of(b"subject"));
        assert!(!manifest.is_index());
    }

    #[test]
    fn the_children_of_an_index_are_its_manifests() {
        let child = format!(
            r#"{{"mediaType":"{}","digest":"{}","size":1,"platform":{{"os": "linux","architecture":"arm64"}}}}"#,
            media::OCI_MANIFEST,
            Digest::of(b"arm")
        );
        let manifest = parse(&format!(
            r#"{{"mediaType":"{}","manifests":[{child}]}}"#,
            media::DOCKER_LIST
        ));

        assert!(manifest.is_index());
        assert_eq!(manifest.children().count(), 1);
        assert_eq!(
            manifest.manifests[0].platform.as_ref().unwrap().get(),
            r#"{"os": "linux","architecture":"arm64"}"#
        );
    }

    #[test]
    fn without_a_media_type_the_fields_tell_an_index_from_an_image() {
        assert_eq!(
            parse(r#"{"schemaVersion":2,"manifests":[]}"#).media_type_guess(),
            media::OCI_INDEX
        );
        assert_eq!(
            parse(r#"{"schemaVersion":2,"layers":[]}"#).media_type_guess(),
            media::OCI_MANIFEST
        );
        assert_eq!(parse(r#"{"mediaType":"x/y","manifests":[]}"#).media_type_guess(), "x/y");
        assert_eq!(
            parse(r#"{"mediaType":"","manifests":[]}"#).media_type_guess(),
            media::OCI_INDEX
        );
    }

    #[test]
    fn the_artifact_type_is_the_own_one_else_that_of_the_config_and_an_index_has_only_its_own() {
        let config = descriptor("application/vnd.cosign", "config");

        let own = parse(&format!(r#"{{"artifactType":"own/type","config":{config}}}"#));
        let inherited = parse(&format!(r#"{{"config":{config}}}"#));
        let index = parse(&format!(r#"{{"manifests":[],"config":{config}}}"#));

        assert_eq!(own.effective_artifact_type(), Some("own/type"));
        assert_eq!(inherited.effective_artifact_type(), Some("application/vnd.cosign"));
        assert_eq!(index.effective_artifact_type(), None);
    }

    #[test]
    fn what_one_client_takes_for_an_image_and_another_for_an_index_is_a_contradiction() {
        let one = descriptor("x", "one");
        let image = format!(r#""config":{one},"layers":[{one}]"#);
        let index = format!(r#""manifests":[{one}]"#);
        let typed = |media_type: &str| format!(r#""mediaType":"{media_type}""#);
        let of = |fields: &[&str], media_type: &str| {
            parse(&format!("{{{}}}", fields.join(",")))
                .contradiction(media_type)
                .is_some()
        };

        assert!(of(&[&image, &index], ""));
        assert!(of(&[&format!(r#""config":{one}"#), &index], ""));
        assert!(of(&[&image], media::OCI_INDEX));
        assert!(of(
            &[&index],
            "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"
        ));
        assert!(of(&[&image, &typed(media::DOCKER_LIST)], ""));
        assert!(of(&[&typed(media::OCI_MANIFEST)], media::OCI_INDEX));

        assert!(!of(&[&image, &typed(media::OCI_MANIFEST)], media::OCI_MANIFEST));
        assert!(!of(&[&image, &typed(media::OCI_MANIFEST)], media::DOCKER_MANIFEST));
        assert!(!of(&[&image, r#""manifests":[]"#], media::OCI_MANIFEST));
        assert!(!of(&[&index, r#""layers":null,"config":null"#], media::DOCKER_LIST));
        assert!(!of(&[&index], "application/json"));
        assert!(!of(&[&image, &typed("application/vnd.other+json")], "text/plain"));
    }

    #[test]
    fn null_is_the_same_as_nothing() {
        let manifest = parse(
            r#"{"mediaType":null,"config":null,"layers":null,"manifests":null,"subject":null,"annotations":null,"artifactType":null}"#,
        );

        assert_eq!(manifest.children().count(), 0);
        assert!(manifest.subject.is_none() && manifest.annotations.is_empty());
        assert!(!manifest.is_index());
    }

    #[test]
    fn unknown_fields_are_ignored_however_deep_they_are() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let manifest = parse(&format!(
            r#"{{"custom":{{"a":[1,2]}},"deep":{deep},"annotations":{{"k":"v"}}}}"#
        ));

        assert_eq!(manifest.annotations["k"], "v");
    }

    #[test]
    fn a_child_of_an_unsupported_algorithm_is_left_out_and_the_others_stay() {
        let foreign = r#"{"mediaType":"l","digest":"blake3:00ff","size":1}"#;
        let manifest = parse(&format!(
            r#"{{"config":{foreign},"subject":{foreign},"layers":[{foreign},{}]}}"#,
            descriptor("l", "ours")
        ));

        let children: Vec<_> = manifest.children().map(|child| child.digest).collect();

        assert_eq!(children, [Digest::of(b"ours")]);
        assert!(manifest.subject.is_none());
    }

    #[test]
    fn documents_that_can_be_read_in_two_ways_or_none_are_malformed() {
        for json in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"layers":{}}"#,
            r#"{"layers":[1]}"#,
            r#"{"layers":[null]}"#,
            r#"{"layers":[{"digest":"sha256:short","size":1}]}"#,
            r#"{"layers":[{"size":1}]}"#,
            r#"{"config":"x"}"#,
            r#"{"annotations":{"k":1}}"#,
            r#"{"mediaType":7}"#,
            r#"{"a":1} {"b":2}"#,
            r#"{"a":1"#,
            "{",
        ] {
            assert!(is_malformed(json), "{json}");
        }
    }

    #[test]
    fn a_size_that_no_blob_can_have_is_malformed() {
        let with_size = |size: &str| format!(r#"{{"layers":[{{"digest":"{}","size":{size}}}]}}"#, Digest::of(b""));

        assert!(Manifest::parse(with_size("18446744073709551615").as_bytes()).is_ok());
        for size in ["-1", "1.5", "18446744073709551616", "1e400", "\"1\"", "null"] {
            assert!(is_malformed(&with_size(size)), "{size}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_no_manifest() {
        for json in ["", "  ", "[]", "[null]", "null", "7", "\"x\"", "<html>", "\u{feff}{}"] {
            assert!(
                matches!(Manifest::parse(json.as_bytes()), Err(ManifestError::NoObject)),
                "{json}"
            );
        }
        assert!(Manifest::parse(b" \n{}").is_ok());
    }

    #[test]
    fn a_descriptor_reads_back_with_its_platform_and_annotations() {
        let json = format!(
            r#"{{"mediaType":"m","digest":"{}","size":3,"artifactType":"a","annotations":{{"k":"v"}},"platform":{{"os":"linux"}}}}"#,
            Digest::of(b"abc")
        );

        let read: Descriptor = serde_json::from_str(&json).unwrap();

        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn no_json_makes_the_parser_panic(
            fields in proptest::collection::vec(
                "\"(layers|config|manifests|subject|mediaType|annotations)\":(null|\\[\\]|\\[\\{\\}\\]|\\{\\}|1|\"x\"|\\[\\[\\{\\}\\]\\])",
                0..4,
            ),
        ) {
            if let Ok(manifest) = Manifest::parse(format!("{{{}}}", fields.join(",")).as_bytes()) {
                let _ = (manifest.children().count(), manifest.effective_artifact_type(), manifest.is_index());
            }
        }
    }
}
