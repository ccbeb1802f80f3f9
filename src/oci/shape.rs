//! Whether a document means the same to everyone who reads it, and how deep it goes.
//!
//! Go, in which most clients are written, takes a key for the one it knows whatever the case of its letters, and the
//! last of several; a parser that goes by the letter reads other content out of the same bytes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Keys of a manifest or an index that a client looks at.
const DOCUMENT: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
];
/// Keys of a descriptor.
const DESCRIPTOR: &[&str] = &[
    "mediaType",
    "artifactType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "platform",
];

/// What a document would have to be instead, if two readers may find different things in it. `None` too for what
/// is no JSON object.
pub fn ambiguity(document: &[u8]) -> Option<&'static str> {
    // serde would take an array for the fields in order.
    if document.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut parser = serde_json::Deserializer::from_slice(document);
    let error = Fields(DOCUMENT).deserialize(&mut parser).err()?;
    // Only what this file says counts: what is no JSON means nothing to anyone.
    error.to_string().starts_with(TWICE).then_some(TWICE)
}

/// Arrays and objects within each other, at the most; 0 for none. Of what is no JSON, something.
pub fn depth(document: &[u8]) -> usize {
    let (mut depth, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in document {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

const TWICE: &str = "a manifest that names each of its fields once, in the letters of the specification";

/// An object in which these keys must stand once and be written like this; other values are passed over.
struct Fields(&'static [&'static str]);

/// A list of descriptors, or one, or what is none.
struct Descriptors;

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let folded = fold(&key);
            let other = self.0.iter().any(|known| *known != key && fold(known) == folded);
            if other || seen.contains(&key) {
                return Err(A::Error::custom(TWICE));
            }
            match &*key {
                "config" | "subject" | "layers" | "manifests" if self.0 == DOCUMENT => {
                    map.next_value_seed(Descriptors)?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            seen.insert(key);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Descriptors {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descriptors {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("descriptors")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Fields(DESCRIPTOR).visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Fields(DESCRIPTOR))?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Letters that Go takes for the same (`encoding/json`, simple folding): the long s and the Kelvin sign among them.
fn fold(key: &str) -> String {
    key.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_or_in_other_letters_is_ambiguous() {
        for document in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"layers":[],"LAYERS":[]}"#,
            r#"{"Layers":[]}"#,
            "{\"layer\u{17f}\":[]}",
            r#"{"layer\u017f":[]}"#,
            r#"{"MediaType":"x"}"#,
            r#"{"config":{"digest":"a","Digest":"b"}}"#,
            r#"{"layers":[{"digest":"a","digest":"b"}]}"#,
            r#"{"manifests":[{},{"\u0053ize":1}]}"#,
            r#"{"x":1,"x":2}"#,
        ] {
            assert!(ambiguity(document.as_bytes()).is_some(), "{document}");
        }
    }

    #[test]
    fn what_images_have_is_not_ambiguous() {
        for document in [
            "",
            "[]",
            "no JSON",
            r#"{"layers":[{"digest""#,
            r#"{"schemaVersion":1,"name":"a","fsLayers":[],"history":[{"v1Compatibility":"{}"}],"signatures":[]}"#,
            r#"{"layers":null,"config":{"mediaType":"m","digest":"d","size":1,"annotations":{"Size":"x","size":"y"}}}"#,
            r#"{"annotations":{"Layers":"1","layers":"2"},"manifests":[{"platform":{"os":"linux","OS":"x"}}]}"#,
            r#"{"config":"odd","layers":7}"#,
        ] {
            assert_eq!(ambiguity(document.as_bytes()), None, "{document}");
        }
    }

    #[test]
    fn brackets_count_unless_they_are_quoted() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"{{"}],"c":{}}"#), 3);
        assert_eq!(depth(b"7"), 0);
        assert_eq!(depth("[".repeat(100_000).as_bytes()), 100_000);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (ambiguity(&bytes), depth(&bytes));
        }
    }
}
